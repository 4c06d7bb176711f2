"""CleverHans 4.0.0's CarliniWagnerL2, mended around.

Objective, change of variables and loop are CleverHans's own code. What is
replaced are the parts that do not run on Keras 3, that let the examples of a
batch decide on each other, or that lose what was found.
"""

import functools
import math

from cleverhans.tf2.attacks import carlini_wagner_l2
import numpy as np
import tensorflow as tf

from mart_tf import threat as threat_model
from mart_tf.attacks import base
from mart_tf.attacks import objectives
from mart_tf.attacks.cleverhans import adapters

# CleverHans's own mark of an example for which nothing was found. Infinity
# would not do: its masks multiply by 0.
_NOTHING = 1e10


class CarliniWagnerL2(base.Attack):
    """`carlini_wagner_l2` (Carlini and Wagner, S&P 2017), untargeted.

    Looks for the closest adversarial example in l2, inside the pixel range
    and free of the threat model's epsilon; where there is none it hands over
    the natural one. CleverHans's descent, in which is mended:

    - `optimizer.variables()` is a list in Keras 3, whose learning rate
      CleverHans would set to 0; and the optimizer refuses a second batch.
    - The constant c has the images' shape: RGB batches above 1 fail, grey
      ones share it among the examples and count it once for each pixel.
    - The search for c takes an example that was ever broken for broken, and
      multiplies its c by 10 after halving it: c never falls. So CleverHans
      is called for one c an example at a time, and the search is here.
    - `abort_early` stops a batch when its sum no longer falls: here every
      example stops by its own loss.
    - `confidence` is added to all logits before the greatest is taken, which
      changes nothing: here the true class gets it.
    - Labels that are given count as targets.
    - Images of other than three axes fail; a gradient that is not finite
      makes the image NaN.

    An example's result does not depend on the others of its batch, beyond
    the rounding of the network.

    Args:
        binary_search_steps: How many constants c are tried.
        max_iterations: Greatest number of updates for each.
        learning_rate: Of Adam, in the space of atanh, above 0.
        initial_const: The first c, above 0, for pixels of range 1.
        abort_early: Whether to look ten times at the loss, and stop if it no
            longer falls.
        confidence: By how much a wrong class must win.
        radius: The l2 distance at which the accuracy is reported, above 0, in
            units of the pixels; default: the threat model's epsilon.

    Raises:
        ValueError: If a setting is outside its range.
    """

    norm = "l2"

    def __init__(
        self,
        binary_search_steps: int = 5,
        max_iterations: int = 1000,
        learning_rate: float = 0.005,
        initial_const: float = 0.01,
        abort_early: bool = True,
        confidence: float = 0.0,
        radius: float | None = None,
    ):
        self.binary_search_steps = binary_search_steps
        self.max_iterations = max_iterations
        self.learning_rate = learning_rate
        self.initial_const = initial_const
        self.abort_early = abort_early
        self.confidence = confidence
        self.radius = radius

    def prepare(self):
        if self.radius is None:
            self.radius = self.threat.epsilon
        adapters.check_above_0(self, "learning_rate", "initial_const", "radius")
        self._attacks = {}

    @property
    def iterations(self):
        return self.binary_search_steps * self.max_iterations

    def start(self, images, labels, seeds, number=0):
        shape = tuple(images.shape)
        if shape not in self._attacks:
            self._attacks[shape] = _Mended(
                self.classify,
                self.threat,
                shape,
                max_iterations=self.max_iterations,
                learning_rate=self.learning_rate,
                abort_early=self.abort_early,
                confidence=self.confidence,
            )
        nearest = functools.partial(
            self._attacks[shape].nearest, images, labels
        )
        width = self.threat.pixel_max - self.threat.pixel_min
        found = _search_constants(
            nearest,
            np.asarray(images),
            # c weighs logits against squares of pixels.
            self.initial_const * width**2,
            self.binary_search_steps,
        )
        return {"adversarial": tf.constant(found)}


class _Mended(carlini_wagner_l2.CarliniWagnerL2):
    """CleverHans's descent for given constants, each example on its own.

        minimise over x'  ||x' - x||^2 + c max(z_y - max_{k != y} z_k
                                              + confidence, 0)

    Args:
        classify: Maps images to logits `[batch, classes]`.
        threat: The `ThreatModel`, for its pixel range.
        shape: The one shape `[batch, ...]` of the images: all variables are
            made here, so that another batch traces nothing.
        settings: What CleverHans's own class takes.
    """

    def __init__(self, classify, threat, shape, **settings):
        low, high = threat.pixel_min, threat.pixel_max
        # CleverHans's masks are made for four axes.
        self._flat = (shape[0], math.prod(shape[1:]), 1, 1)

        # Compiled, because CleverHans also calls it eagerly. Clipped, because
        # its tanh may leave the pixel range by rounding.
        @tf.function
        def model_fn(images):
            images = tf.clip_by_value(images, low, high)
            return classify(tf.reshape(images, shape))

        super().__init__(
            model_fn,
            batch_size=shape[0],
            clip_min=low,
            clip_max=high,
            binary_search_steps=1,
            **settings,
        )
        self.optimizer = _Descent(self._flat, self.learning_rate)

    def nearest(self, images, labels, constants):
        """The closest adversarial examples for one constant each.

        Args:
            images: Natural examples, float32 `[batch, ...]`.
            labels: Integer classes `[batch]`.
            constants: c, float32 `[batch]`.

        Returns:
            Adversarial examples, a float32 array of the images' shape, inside
            the pixel range; the natural one where none was found.
        """
        # Given to the constructor they would be targets.
        self.y = labels
        self.initial_const = _PerExample(tf.constant(constants, tf.float32))
        found = self.attack(tf.reshape(images, self._flat))
        found = np.clip(found, *np.float32([self.clip_min, self.clip_max]))
        return found.reshape(images.shape)

    @tf.function
    def attack_step(self, x, y, modifier, const):
        """One update, as CleverHans's loop calls it.

        In place of the loss CleverHans gets 1 when no example makes progress
        any more and 0 before, which is when it stops; the distance of one
        that makes none is out of reach from there on, as if it had stopped
        alone.
        """
        images, gradient, _, logits, squares = self.gradient(
            x, y, modifier, const
        )
        self.optimizer.apply_gradients([(gradient, modifier)])
        if self.abort_early:
            margin = objectives.margin(
                tf.argmax(y, axis=1), logits, kappa=math.inf
            )
            losses = squares + const * tf.nn.relu(self.confidence - margin)
            stuck = self.optimizer.stuck(losses, self.max_iterations // 10 or 1)
            squares = tf.where(stuck, _NOTHING, squares)
        else:
            stuck = tf.zeros_like(squares, tf.bool)
        # CleverHans adds the confidence to every logit, which decides
        # nothing; here the true class gets it.
        logits += self.confidence * y
        return (
            images,
            tf.cast(tf.reduce_all(stuck), tf.float32),
            logits,
            squares,
        )


class _PerExample:
    """Constants that stay `[batch]` where CleverHans gives them pixels.

    It computes `tf.ones(shape of the images) * initial_const`.
    """

    def __init__(self, values):
        self._values = values

    def __rmul__(self, ones):
        return self._values


class _Descent:
    """Adam (Kingma and Ba, ICLR 2015), with what CleverHans resets.

    Before a descent CleverHans sets all `variables()` to 0; in Keras 3 that
    is a list, and the learning rate is in it. The progress of each example is
    among them here.
    """

    def __init__(self, shape, learning_rate):
        self._learning_rate = learning_rate
        self._mean = tf.Variable(tf.zeros(shape), trainable=False)
        self._square = tf.Variable(tf.zeros(shape), trainable=False)
        self._updates = tf.Variable(0.0, trainable=False)
        self._before = tf.Variable(tf.zeros(shape[0]), trainable=False)
        self._stuck = tf.Variable(tf.zeros(shape[0], tf.bool), trainable=False)

    def variables(self):
        return [
            self._mean,
            self._square,
            self._updates,
            self._before,
            self._stuck,
        ]

    def apply_gradients(self, pairs):
        [(gradient, variable)] = pairs
        # An entry that is not finite would stay for ever.
        gradient = threat_model.finite(gradient)
        self._updates.assign_add(1.0)
        self._mean.assign(0.9 * self._mean + 0.1 * gradient)
        self._square.assign(0.999 * self._square + 0.001 * gradient**2)
        mean = self._mean / (1.0 - 0.9**self._updates)
        square = self._square / (1.0 - 0.999**self._updates)
        variable.assign_sub(
            self._learning_rate * mean / (tf.sqrt(square) + 1e-7)
        )

    def stuck(self, losses, every):
        """Which examples' losses no longer fall: looked at now and then.

        CleverHans's criterion, example by example: every so many updates the
        loss must have fallen below 0.9999 of what it was.
        """
        number = self._updates - 1.0
        looked = tf.equal(number % every, 0.0)
        risen = (losses > 0.9999 * self._before) & looked & (number > 0.0)
        self._before.assign(tf.where(looked, losses, self._before))
        return self._stuck.assign(self._stuck | risen)


def _search_constants(nearest, images, initial, steps):
    """The binary search for c of Carlini and Wagner (S&P 2017, section V).

    c rises tenfold until an example is broken; then it is halved between the
    greatest that did not break it and the least that did.

    Args:
        nearest: Maps constants `[batch]` to adversarial examples, the natural
            ones where there is none.
        images: Natural examples, float32 array `[batch, ...]`.
        initial: The first c, above 0.
        steps: How many are tried.

    Returns:
        The closest adversarial example of all, or the natural one.
    """
    low = np.zeros(len(images))
    high = np.full(len(images), np.inf)
    constants = np.full(len(images), float(initial))
    best, least = images.copy(), np.full(len(images), np.inf)
    for _ in range(steps):
        found = nearest(constants)
        offset = (found - images).reshape(len(images), -1).astype(np.float64)
        length = np.linalg.norm(offset, axis=1)
        broken = length > 0
        closer = broken & (length < least)
        best[closer], least[closer] = found[closer], length[closer]
        high = np.where(broken, np.minimum(high, constants), high)
        low = np.where(broken, low, np.maximum(low, constants))
        constants = np.where(np.isinf(high), 10 * constants, (low + high) / 2)
    return best
