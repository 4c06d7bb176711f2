"""Carlini and Wagner's attack in l2: the closest adversarial examples."""

import functools
import math

import tensorflow as tf

from mart_tf import bounds
from mart_tf import threat as threat_model
from mart_tf.attacks import adam
from mart_tf.attacks import base
from mart_tf.attacks import examples
from mart_tf.attacks import objectives

# What an image is drawn in by, so that its atanh is finite.
_WITHIN = 0.999999
# How often a descent is looked at, and below which share of what it was its
# loss must have fallen.
_LOOKS = 10
_FALLEN = 0.9999


class CarliniWagnerL2(base.Attack):
    """The l2 attack of Carlini and Wagner (S&P 2017), section VI-A.

        min over w of  ||x' - x||^2 + c f(x'),   x' = (tanh(w) + 1) / 2
        f(x') = max(z_y - max_{k != y} z_k + confidence, 0)

    by Adam (Kingma and Ba, ICLR 2015) from atanh(2 x - 1), with pixels of
    range 1; towards a class t, f is max(max_{k != t} z_k - z_t + confidence,
    0). Each example has a c of its own: tenfold until one breaks it, then
    half-way between the greatest that did not and the least that did. Of all
    iterates that win by `confidence` the closest is handed over, or else the
    natural example.

    Like them in their code, a descent ends where a tenth of
    `max_iterations` has not brought the loss below 0.9999 of what it was. What
    is found does not depend on the others of the batch, but it lies on the
    boundary, where the rounding of the network, which does, has a say.

    Args:
        binary_search_steps: How many c are tried, at least 1.
        max_iterations: Greatest number of steps for each, at least 1.
        learning_rate: Of Adam, in the space of w, above 0.
        initial_const: The first c, above 0.
        abort_early: Whether a descent may end before `max_iterations`.
        confidence: By how much a wrong class must win, in logits, at least 0.
        radius: The l2 distance at which the accuracy is reported, above 0, in
            units of the pixels; default: the threat model's epsilon.

    Raises:
        ValueError: If a setting is outside its range.
    """

    norm = "l2"
    random = False
    takes_target = True

    def __init__(
        self,
        binary_search_steps: int = 5,
        max_iterations: int = 1000,
        learning_rate: float = 0.01,
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
        check_search(self)
        self.steps = binary_search_steps * max_iterations

    def prepare(self):
        if self.radius is None:
            self.radius = self.threat.epsilon
        self._width = self.threat.pixel_max - self.threat.pixel_min
        self._margin = functools.partial(
            objectives.objective("margin", self.targeted), kappa=math.inf
        )
        self._look = base.compiled(self.classify)
        self._finish = base.compiled(super().finish)

    def start(self, images, labels, seeds, number=0):
        count = tf.shape(images)[:1]
        logits = self._look(images)
        return {
            # Until the search is over, for what is broken takes no more steps.
            "adversarial": images,
            "logits": logits,
            "closest": images,
            "closest_logits": logits,
            "closest_square": tf.fill(count, float("inf")),
            "tried": tf.zeros(count, tf.int32),
            "constant": tf.fill(count, float(self.initial_const)),
            "low": tf.zeros(count),
            "high": tf.fill(count, float("inf")),
            **self._descent(images),
        }

    def step(self, images, labels, state, taken):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state["point"])
            reached = self._image(state["point"])
            logits = self.classify(reached)
            margin = self._margin(labels, logits)
            square = self._square(reached, images)
            loss = square + state["constant"] * tf.nn.relu(
                self.confidence - margin
            )
            total = tf.reduce_sum(loss)
        # An entry that is not finite would stay in the sums for ever.
        slope = threat_model.finite(tape.gradient(total, state["point"]))
        searching = state["tried"] < self.binary_search_steps
        breaks = self._succeeds(labels, logits) & (margin >= self.confidence)
        closer = searching & breaks & (square < state["closest_square"])
        here = {
            "closest": reached,
            "closest_logits": logits,
            "closest_square": square,
        }
        following = self._descended(images, state, slope, loss, breaks)
        ends = searching & following.pop("ends")
        constants = _next_constants(state, following["broken"])
        following = {
            **state,
            **examples.choose(closer, here, state),
            **examples.choose(ends, constants, state),
            **examples.choose(ends, self._descent(images), following),
        }
        over = following["tried"] == self.binary_search_steps
        found = {
            "adversarial": following["closest"],
            "logits": following["closest_logits"],
        }
        following |= examples.choose(over, found, state)
        return following, state["logits"]

    def finish(self, images, labels, state):
        # Of thousands of steps: compiled also where it is called eagerly.
        return self._finish(images, labels, state)

    def _descent(self, images):
        """What a descent begins with."""
        count = tf.shape(images)[:1]
        centre = (images - self.threat.pixel_min) / self._width
        return {
            "point": tf.atanh(_WITHIN * (2.0 * centre - 1.0)),
            "mean": tf.zeros_like(images),
            "square": tf.zeros_like(images),
            "iteration": tf.zeros(count, tf.int32),
            "loss": tf.fill(count, float("inf")),
            "broken": tf.fill(count, False),
        }

    def _descended(self, images, state, slope, loss, breaks):
        """The descent after a step of Adam, and whether it "ends"."""
        number = state["iteration"]
        count = self.threat.radius(images, tf.cast(number + 1, tf.float32))
        step, mean, square = adam.step(
            slope, state["mean"], state["square"], count
        )
        looks = number % max(1, self.max_iterations // _LOOKS) == 0
        stuck = looks & (loss > _FALLEN * state["loss"]) & self.abort_early
        return {
            "point": state["point"] - self.learning_rate * step,
            "mean": mean,
            "square": square,
            "iteration": number + 1,
            "loss": tf.where(looks, loss, state["loss"]),
            "broken": state["broken"] | breaks,
            "ends": stuck | (number + 1 == self.max_iterations),
        }

    def _image(self, point):
        """x' in the threat model's pixels; tanh may leave them by rounding."""
        low, high = self.threat.pixel_min, self.threat.pixel_max
        reached = low + self._width * (tf.tanh(point) + 1.0) / 2.0
        return tf.clip_by_value(reached, low, high)

    def _square(self, reached, images):
        """||x' - x||^2 in pixels of range 1, `[batch]`."""
        axes = threat_model.pixel_axes(images)
        return tf.reduce_sum(tf.square((reached - images) / self._width), axes)


def check_search(attack):
    """Raises a `ValueError` if the settings of a search for c are none."""
    for name in ("binary_search_steps", "max_iterations"):
        bounds.ATTACK_STEPS.check(name, getattr(attack, name))
    for name in ("learning_rate", "initial_const"):
        bounds.ABOVE_ZERO.check(name, getattr(attack, name))
    bounds.AT_LEAST_ZERO.check("confidence", attack.confidence)
    if attack.radius is not None:
        bounds.ABOVE_ZERO.check("radius", attack.radius)


def _next_constants(state, broken):
    """The search for c, a descent further."""
    constant = state["constant"]
    high = tf.where(broken, tf.minimum(state["high"], constant), state["high"])
    low = tf.where(broken, state["low"], tf.maximum(state["low"], constant))
    middle = (low + high) / 2.0
    return {
        "tried": state["tried"] + 1,
        "constant": tf.where(tf.math.is_inf(high), 10.0 * constant, middle),
        "low": low,
        "high": high,
    }
