"""The threat model: which adversarial examples are allowed."""

import dataclasses
import math
import numbers

import tensorflow as tf

from mart_tf import bounds
from mart_tf import choices
from mart_tf import noise
from mart_tf import options

# Tells the noise of a start's length from that of its direction.
_LENGTH_STREAM = 1
# Of the width of the pixel range.
_GAUSSIAN = 0.001

_TensorLike = tf.types.experimental.TensorLike


@dataclasses.dataclass(frozen=True)
class ThreatModel:
    """The set of adversarial examples x' allowed for a natural example x.

        ||x' - x|| <= epsilon  and  pixel_min <= x' <= pixel_max

    with the norm "linf", max_i |x'_i - x_i| (Madry et al., ICLR 2018), or
    "l2", sqrt(sum_i (x'_i - x_i)^2), over all pixels and channels of an image.

    Args:
        norm: "linf" or "l2".
        epsilon: Radius in units of the pixels, above 0; for "linf" at most
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
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not math.isfinite(number):
                raise ValueError(
                    f"{name} is {value!r}; expected a finite number."
                )
            object.__setattr__(self, name, number)
        choices.check_pixels(
            "pixel_min", "pixel_max", self.pixel_min, self.pixel_max
        )
        choices.check_radius(
            "epsilon", self.epsilon, self.norm, self.pixel_min, self.pixel_max
        )

    def describe(self) -> str:
        """One line for the user."""
        return (
            f"{self.norm}, epsilon {bounds.spelled(self.epsilon)}, pixels from "
            f"{self.pixel_min:g} to {self.pixel_max:g}"
        )

    def project(
        self,
        adversarial: _TensorLike,
        images: _TensorLike,
        epsilon: _TensorLike | None = None,
    ) -> tf.Tensor:
        """Allowed examples near `adversarial`.

            linf: each pixel clipped to its bounds, the nearest allowed one
            l2:   x + min(1, epsilon / ||c - x||_2) (c - x), with c the x'
                  clipped to the pixel range

        The order in l2 is CleverHans's: a pixel that cannot move takes no
        part of epsilon. The nearest allowed example would need a search.

        Args:
            adversarial: Float32 tensor `[batch, ...]`, x'.
            images: The natural examples x, of the same shape.
            epsilon: Overrides the radius: a scalar or a tensor `[batch]`.

        Returns:
            A float32 tensor of the same shape.
        """
        images = tf.cast(images, tf.float32)
        return self._geometry.project(
            tf.cast(adversarial, tf.float32),
            images,
            self.radius(images, epsilon),
            self.pixel_min,
            self.pixel_max,
        )

    def ascent(self, gradient: _TensorLike) -> tf.Tensor:
        """The unit step of steepest ascent, float32 of the gradient's shape.

            linf: sign(g)
            l2:   g / ||g||_2 for each example, 0 where g = 0

        An entry that is not finite counts as 0: as NaN it would stay for
        ever.
        """
        return self._geometry.ascent(finite(tf.cast(gradient, tf.float32)))

    def dual_norm(self, gradient: _TensorLike) -> tf.Tensor:
        """The most that a step of length 1 can gain along the gradient.

            max over ||v|| <= 1 of <v, g>  =  linf: ||g||_1,  l2: ||g||_2

        Args:
            gradient: Float32 tensor `[batch, ...]`.

        Returns:
            A float32 tensor `[batch]`.
        """
        return self._geometry.dual_length(tf.cast(gradient, tf.float32))

    def distance(self, first: _TensorLike, second: _TensorLike) -> tf.Tensor:
        """The norm of `first - second`: `[batch, ...]` twice to `[batch]`."""
        first, second = (tf.cast(each, tf.float32) for each in (first, second))
        return self._geometry.length(first - second)

    def random_start(
        self,
        images: _TensorLike,
        seeds: _TensorLike,
        epsilon: _TensorLike | None = None,
        kind: str = "uniform",
    ) -> tf.Tensor:
        """A random allowed example for each natural one.

        Args:
            images: Float32 tensor `[batch, ...]`.
            seeds: Integer tensor `[batch, 2]`, one seed per example.
            epsilon: Overrides the radius: a scalar or a tensor `[batch]`.
            kind: "uniform": uniform in the ball around x, in linf
                x + U(-epsilon, epsilon) (Algorithm 1 of the MART paper);
                "gaussian": x + 0.001 N(0, 1) of pixels in [0, 1] (the
                authors' released code), and as much of another range's width,
                both then projected; "none": x itself.

        Returns:
            A float32 tensor of the images' shape.
        """
        if kind not in choices.RANDOM_STARTS:
            raise options.unknown(
                "random start", str(kind), choices.RANDOM_STARTS
            )
        images = tf.cast(images, tf.float32)
        if kind == "none":
            return images
        shape = images.shape[1:]
        if kind == "gaussian":
            width = self.pixel_max - self.pixel_min
            offset = _GAUSSIAN * width * noise.normal(seeds, shape)
        else:
            ball = self._geometry.uniform(seeds, shape)
            offset = self.radius(images, epsilon) * ball
        return self.project(images + offset, images, epsilon)

    def radius(
        self, images: _TensorLike, epsilon: _TensorLike | None = None
    ) -> tf.Tensor:
        """epsilon, float32, in a shape that broadcasts against the images.

        Raises:
            ValueError: On a number that is not finite, or below 0; on another
                number of them than of images.
        """
        epsilon = self.epsilon if epsilon is None else epsilon
        if isinstance(epsilon, numbers.Real) and not 0 <= epsilon < math.inf:
            raise ValueError(
                f"epsilon is {epsilon!r}; expected a finite number of at "
                "least 0."
            )
        epsilon = tf.cast(epsilon, tf.float32)
        if epsilon.shape.rank == 0:
            return epsilon
        batch = images.shape[:1]
        if epsilon.shape.rank == 1 and not epsilon.shape.is_compatible_with(
            batch
        ):
            raise ValueError(
                f"epsilon has shape {epsilon.shape} for images of shape "
                f"{tuple(images.shape)}; expected a number, or one for each "
                "image, [batch]."
            )
        return tf.reshape(epsilon, [-1] + [1] * (len(images.shape) - 1))

    @property
    def rounding(self) -> float:
        """How far float32 may round a pixel: more where it lies far from 0."""
        return 2.0**-23 * max(abs(self.pixel_min), abs(self.pixel_max))

    @property
    def _geometry(self):
        return _GEOMETRIES[self.norm]


def finite(values):
    """The values, 0 where they are not finite."""
    # A whole tensor of zeros: beside one zero TensorFlow cannot choose the
    # layout of convolutions on a GPU.
    zeros = tf.zeros_like(values)
    return tf.where(tf.math.is_finite(values), values, zeros)


class _Maximum:
    """The ball of the norm max_i |v_i|, a cube."""

    def length(self, values):
        return tf.reduce_max(tf.abs(values), axis=pixel_axes(values))

    def dual_length(self, values):
        return tf.reduce_sum(tf.abs(values), axis=pixel_axes(values))

    def ascent(self, gradient):
        return tf.sign(gradient)

    def project(self, adversarial, images, epsilon, low, high):
        lower = tf.maximum(images - epsilon, low)
        upper = tf.minimum(images + epsilon, high)
        return tf.minimum(tf.maximum(adversarial, lower), upper)

    def uniform(self, seeds, shape):
        return 2.0 * noise.uniform(seeds, shape) - 1.0


class _Euclidean:
    """The ball of the norm sqrt(sum_i v_i^2)."""

    def length(self, values):
        return tf.reshape(_lengths(values), [-1])

    # The norm is its own dual.
    dual_length = length

    def ascent(self, gradient):
        return _directions(gradient)

    def project(self, adversarial, images, epsilon, low, high):
        clipped = tf.clip_by_value(adversarial, low, high)
        offset = clipped - images
        lengths = _lengths(offset)
        shrunk = offset * tf.math.divide_no_nan(epsilon, lengths)
        # The sum with the image rounds by up to half a unit of the greatest
        # pixel's last place, and may do so at every pixel in one direction:
        # what is taken off here keeps the sum inside the ball.
        rounding = 2.0**-24 * max(abs(low), abs(high))
        shrunk = tf.sign(shrunk) * tf.nn.relu(tf.abs(shrunk) - rounding)
        allowed = tf.where(lengths > epsilon, images + shrunk, clipped)
        # By rounding the sum could still pass a bound of the pixels.
        return tf.clip_by_value(allowed, low, high)

    def uniform(self, seeds, shape):
        """A random direction times u^(1/d), u uniform in [0, 1)."""
        directions = _directions(noise.normal(seeds, shape))
        # Another stream: the length must not depend on the direction.
        share = noise.uniform(
            noise.fold(seeds, _LENGTH_STREAM), [1] * len(shape)
        )
        # In float64, as in `noise.normal`.
        share = tf.cast(share, tf.float64) ** (1.0 / math.prod(shape))
        return directions * tf.cast(share, tf.float32)


_GEOMETRIES = {"linf": _Maximum(), "l2": _Euclidean()}


def _lengths(values):
    """The Euclidean norm of each example, `[batch, 1, ...]`."""
    scaled, greatest = _scaled(values)
    return greatest * _root_of_squares(scaled)


def _directions(values):
    """Each example over its Euclidean norm, 0 where that is 0."""
    scaled, _ = _scaled(values)
    return tf.math.divide_no_nan(scaled, _root_of_squares(scaled))


def _scaled(values):
    """Each example over its greatest magnitude, and that magnitude.

    The squares of what is left neither overflow nor vanish all together:
    those of a confident network's gradient, 1e-20, would.
    """
    greatest = tf.reduce_max(
        tf.abs(values), axis=pixel_axes(values), keepdims=True
    )
    return tf.math.divide_no_nan(values, greatest), greatest


def _root_of_squares(values):
    squares = tf.reduce_sum(
        tf.square(values), axis=pixel_axes(values), keepdims=True
    )
    return tf.sqrt(squares)


def pixel_axes(values):
    """The axes of an example."""
    return list(range(1, len(values.shape)))
