"""SPSA: ascent on gradients estimated from logits alone."""

import functools
import math
import numbers

import tensorflow as tf

from mart_tf import bounds
from mart_tf import noise
from mart_tf import threat as threat_model
from mart_tf.attacks import adam
from mart_tf.attacks import base
from mart_tf.attacks import gradient
from mart_tf.attacks import objectives

# Pairs of samples are evaluated together while a forward pass has no more
# images than this: on a CPU more gain nothing, and activations take memory.
_FORWARD = 512

_MARGIN = functools.partial(objectives.margin, kappa=math.inf)


class SPSA(base.Attack):
    """SPSA (Uesato et al., ICML 2018, algorithm 1), in linf and l2.

        x'_{t+1} = project(x'_t + learning_rate * Adam(g_t))

    with g_t the `gradient_estimate` of the margin max_{k != y} z_k - z_y and
    Adam of beta 0.9 and 0.999 (Kingma and Ba, ICLR 2015), from a uniform
    start in the ball, as CleverHans has it.

    Args:
        steps: Number of steps, at least 1.
        samples: Images evaluated for each gradient, an even number: the two
            sides of `samples / 2` directions, as CleverHans counts them.
        learning_rate: Step of Adam, above 0, in pixels of range 1.
        delta: Distance of the samples in each pixel, above 0, in pixels of
            range 1. Samples may lie that far outside the pixel range.
        restarts: How often it starts anew, from other noise.

    Raises:
        ValueError: If a setting is outside its range.
    """

    needs_gradient = False
    own_noise = True
    takes_target = True

    def __init__(
        self,
        steps: int = 100,
        samples: int = 128,
        learning_rate: float = 0.01,
        delta: float = 0.01,
        restarts: int = 1,
    ):
        gradient.check_settings(steps)
        _check_samples(samples)
        bounds.ABOVE_ZERO.check("learning_rate", learning_rate)
        bounds.ABOVE_ZERO.check("delta", delta)
        self.steps = steps
        self.samples = samples
        self.learning_rate = learning_rate
        self.delta = delta
        self.restarts = restarts

    def prepare(self):
        self.margin = functools.partial(
            objectives.objective("margin", self.targeted), kappa=math.inf
        )

    @property
    def work(self):
        return super().work * (self.samples + 1)

    def start(self, images, labels, seeds, number=0):
        adversarial = self.threat.random_start(images, seeds)
        return {
            "adversarial": adversarial,
            "mean": tf.zeros_like(adversarial),
            "square": tf.zeros_like(adversarial),
            "seeds": seeds,
        }

    def step(self, images, labels, state, taken):
        adversarial = state["adversarial"]
        width = self.threat.pixel_max - self.threat.pixel_min
        # By pixels of range 1, so that Adam's small constant fits.
        slope = width * gradient_estimate(
            self.classify,
            adversarial,
            labels,
            noise.fold(state["seeds"], taken[:, None]),
            samples=self.samples,
            delta=self.delta * width,
            margin=self.margin,
        )
        count = self.threat.radius(images, tf.cast(taken + 1, tf.float32))
        ascent, mean, square = adam.step(
            slope, state["mean"], state["square"], count
        )
        following = {
            "adversarial": self.threat.project(
                adversarial + self.learning_rate * width * ascent, images
            ),
            "mean": mean,
            "square": square,
            "seeds": state["seeds"],
        }
        return following, self.classify(adversarial)


def gradient_estimate(
    classify,
    images,
    labels,
    seeds,
    *,
    samples=128,
    delta=0.01,
    margin=_MARGIN,
):
    """The gradient of the margin, estimated from logits (Spall, 1992).

        mean over i of  (f(x + delta v_i) - f(x - delta v_i)) / (2 delta) v_i

    with f = max_{k != y} z_k - z_y and each entry of v_i 1 or -1 at random:
    on a linear f its expectation is the gradient. A difference that is not
    finite counts as 0.

    Args:
        classify: Maps images to logits `[batch, classes]`.
        images: Where the gradient is wanted, float32 `[batch, ...]`.
        labels: Integer classes `[batch]`.
        seeds: Integer tensor `[batch, 2]`, one seed per example.
        samples: Images evaluated for each example, an even number.
        delta: In units of the pixels.
        margin: f as a function of labels and logits, if it is another.

    Returns:
        A float32 tensor of the images' shape.
    """
    pairs = samples // 2
    together = _together(pairs, images.shape[0])
    shape = images.shape[1:]

    def spread(values):
        return tf.repeat(values, together, axis=0)

    def add(first, total):
        pair = first + tf.range(together)
        own = noise.fold(seeds[:, None], pair[None, :, None])
        uniform = noise.uniform(tf.reshape(own, [-1, 2]), shape)
        directions = tf.where(uniform < 0.5, -1.0, 1.0)
        centres = spread(images)
        offsets = delta * directions
        sides = tf.concat([centres + offsets, centres - offsets], axis=0)
        values = margin(tf.tile(spread(labels), [2]), classify(sides))
        above, below = tf.split(values, 2)
        slopes = (above - below) / (2.0 * delta)
        slopes = threat_model.finite(slopes)
        slopes = tf.reshape(slopes, [-1] + [1] * len(shape))
        parts = tf.reshape(slopes * directions, [-1, together, *shape])
        return first + together, total + tf.reduce_sum(parts, axis=1)

    _, total = tf.while_loop(
        lambda first, _: first < pairs,
        add,
        (tf.constant(0), tf.zeros_like(images)),
        parallel_iterations=1,
    )
    return total / pairs


def _together(pairs, batch):
    """How many pairs of each example one forward pass evaluates."""
    fits = _FORWARD // (2 * batch) if batch else 1
    divisors = [n for n in range(1, pairs + 1) if pairs % n == 0]
    return max(n for n in divisors if n <= max(fits, 1))


def _check_samples(samples):
    if not isinstance(samples, numbers.Integral) or samples < 2 or samples % 2:
        raise ValueError(
            f"samples is {samples!r}; expected an even number of at least 2, "
            "because samples come in pairs."
        )
