"""The threat model: which adversarial examples are allowed."""

import dataclasses
import math

import tensorflow as tf

from mart_tf import choices
from mart_tf import noise
from mart_tf import options


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """The set of adversarial examples x' allowed for a natural example x.

        max(x - epsilon, pixel_min) <= x' <= min(x + epsilon, pixel_max)

    for the norm "linf" (Madry et al., ICLR 2018), the one there is so far.

    Args:
        norm: "linf".
        epsilon: Radius in units of the pixels, above 0 and at most
            `pixel_max - pixel_min`.
        pixel_min: Least value of a pixel.
        pixel_max: Greatest value of a pixel.

    Raises:
        ValueError: If a value lies outside its range.
    """

    norm: str = "linf"
    epsilon: float = 8 / 255
    pixel_min: float = 0.0
    pixel_max: float = 1.0

    def __post_init__(self):
        if self.norm not in choices.NORMS:
            raise options.unknown("norm", str(self.norm), choices.NORMS)
        for name in ("epsilon", "pixel_min", "pixel_max"):
            value = getattr(self, name)
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not math.isfinite(number):
                raise ValueError(
                    f"{name} is {value!r}; expected a finite number."
                )
            object.__setattr__(self, name, number)
        if not self.pixel_min < self.pixel_max:
            raise ValueError(
                f"pixel_min is {self.pixel_min} and pixel_max "
                f"{self.pixel_max}; expected pixel_min below pixel_max."
            )
        if not 0.0 < self.epsilon <= self.pixel_max - self.pixel_min:
            raise ValueError(
                f"epsilon is {self.epsilon}; expected a radius above 0 and at "
                f"most {self.pixel_max - self.pixel_min}, the pixel range."
            )

    def project(self, adversarial, images, epsilon=None):
        """The allowed examples nearest to `adversarial`.

        Args:
            adversarial: Float32 tensor `[batch, ...]`.
            images: The natural examples, of the same shape.
            epsilon: Overrides the radius: a scalar or a tensor `[batch]`.

        Returns:
            A float32 tensor of the same shape.
        """
        epsilon = self.radius(images, epsilon)
        lower = tf.maximum(images - epsilon, self.pixel_min)
        upper = tf.minimum(images + epsilon, self.pixel_max)
        return tf.minimum(tf.maximum(adversarial, lower), upper)

    def ascent(self, gradient):
        """The unit step of steepest ascent: the sign of the gradient.

        An entry that is not finite gives no step, where sign(NaN) would be
        NaN for ever.
        """
        return tf.where(tf.math.is_finite(gradient), tf.sign(gradient), 0.0)

    def random_start(self, images, seeds, epsilon=None, kind="uniform"):
        """A random allowed example for each natural one.

        Args:
            images: Float32 tensor `[batch, ...]`.
            seeds: Integer tensor `[batch, 2]`, one seed per example.
            epsilon: Overrides the radius: a scalar or a tensor `[batch]`.
            kind: "uniform": x + U(-epsilon, epsilon) (Algorithm 1 of the MART
                paper); "gaussian": x + 0.001 N(0, 1) (the authors' released
                code); "none": x. All are then projected.

        Returns:
            A float32 tensor of the images' shape.
        """
        if kind == "none":
            return images
        shape = images.shape[1:]
        if kind == "gaussian":
            offset = 0.001 * noise.normal(seeds, shape)
        else:
            offset = self.radius(images, epsilon) * (
                2.0 * noise.uniform(seeds, shape) - 1.0
            )
        return self.project(images + offset, images, epsilon)

    def radius(self, images, epsilon=None):
        """epsilon in a shape that broadcasts against the images."""
        epsilon = self.epsilon if epsilon is None else epsilon
        epsilon = tf.convert_to_tensor(epsilon, tf.float32)
        if epsilon.shape.rank == 0:
            return epsilon
        return tf.reshape(epsilon, [-1] + [1] * (len(images.shape) - 1))
