"""The loop that every attack runs in: work is spent on what still stands.

An example counts as broken as soon as any iterate of the attack is
misclassified: the attacker keeps that iterate. A broken example needs no more
steps, so the broken ones are soon dropped and the others re-packed
into full batches of one static shape. Examples at different steps may share a
batch, because noise and step count belong to the example, not to its place.
"""

import dataclasses
import operator

import numpy as np
import tensorflow as tf

from mart_tf.attacks import examples
from mart_tf.attacks import objectives

# A batch is re-packed once its idle places add up to this share of a step,
# which is about what re-packing costs.
_IDLE_STEPS = 0.05

# An attack of so many steps takes several in a call: small ones, which a call
# each would slow down.
_LONG = 1000
_BUNDLE = 10

# How often an example that stands waits for others on its way.
_TURNS = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an attack made of each example.

    adversarial: float32 `[n, ...]`: the iterate that broke the example, or
    the last one. predictions: its class, int32 `[n]`, -1 for NaN.
    broken: bool `[n]`. steps: int32 `[n]`: how many led to that iterate, those
    of earlier rounds included. losses: float32 `[n, steps]`, the cross-entropy
    at the iterates of the first round, an example that is broken staying at
    the loss that it was broken with; None for attacks that do not climb it.
    """

    adversarial: np.ndarray
    predictions: np.ndarray
    broken: np.ndarray
    steps: np.ndarray
    losses: np.ndarray | None = None


class Engine:
    """Runs attacks against one classifier.

    Args:
        classify: Maps images float32 `[batch, ...]` to logits
            `[batch, classes]`, in inference mode.
        batch_size: The one batch size of every forward and backward pass.
    """

    def __init__(self, classify, batch_size):
        self.batch_size = batch_size

        @tf.function(reduce_retracing=False)
        def predict(images):
            return examples.predicted(classify(images))

        self._predict = predict
        self._steps = {}

    def predict(self, images):
        """Predicted classes, int32 `[n]`, of images `[n, ...]`."""
        parts = [
            self._predict(tf.constant(images[self.padded(rows)])).numpy()[
                : len(rows)
            ]
            for rows in self.batches(np.arange(len(images)))
        ]
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def run(self, attack, images, labels, seeds, observe=None):
        """Runs an attack on examples that are classified correctly.

        Args:
            attack: A `mart_tf.attacks.Stepwise`.
            images: Natural examples, float32 array `[n, ...]`.
            labels: int32 array `[n]`.
            seeds: Integer array `[n, 2]`, one seed per example.
            observe: Called as `observe(done, broken)` with the share of the
                work done, in examples, and the number broken so far.

        Returns:
            An `Outcome`.
        """
        return _Run(self, attack, images, labels, seeds, observe).outcome()

    def step(self, attack):
        """An attack's step, compiled once however often it is run."""
        if attack not in self._steps:
            self._steps[attack] = _compiled_step(attack)
        return self._steps[attack]

    def batches(self, rows):
        for first in range(0, len(rows), self.batch_size):
            yield rows[first : first + self.batch_size]

    def padded(self, rows):
        # Repeated examples fill up the one static shape.
        return np.resize(rows, self.batch_size)


class _Run:
    """One attack on one set of examples; arrays hold a row per example."""

    def __init__(self, engine, attack, images, labels, seeds, observe):
        self.engine = engine
        self.attack = attack
        self.images = images
        self.labels = labels
        self.seeds = seeds
        self.observe = observe or (lambda done, broken: None)
        self.state = {}
        self.round = 0
        self.before = np.zeros(len(labels), np.int32)
        self.taken = np.zeros(len(labels), np.int32)
        self.checked = np.zeros(len(labels), bool)
        self.predictions = labels.copy()
        self.losses = None
        if attack.climbs:
            self.losses = np.full((len(labels), attack.steps), np.nan, "f4")

    def outcome(self):
        for number in range(self.attack.rounds):
            self.round = number
            standing = np.flatnonzero(self.predictions == self.labels)
            self.start(standing)
            if self.attack.steps:
                self.advance()
        adversarial = self.state.get("adversarial", self.images)
        broken = self.predictions != self.labels
        steps = self.before + self.taken
        losses = self.losses
        if losses is not None:
            # A broken example has no later losses: its last one stays.
            last = np.where(np.isnan(losses), 0, np.arange(self.attack.steps))
            last = np.maximum.accumulate(last, axis=1)
            losses = np.take_along_axis(losses, last, axis=1)
        return Outcome(adversarial, self.predictions, broken, steps, losses)

    def start(self, standing):
        self.before[standing] += self.taken[standing]
        self.taken[standing] = 0
        self.checked[standing] = False
        # Eagerly: tracing the noise costs more than drawing it.
        for rows in self.engine.batches(standing):
            natural = self.batch(rows, self.images, self.labels, self.seeds)
            self.write(rows, self.attack.start(*natural, self.round))
            if not self.attack.steps:
                self.check(rows)
                self.tell()

    def advance(self):
        step = self.engine.step(self.attack)
        size = self.engine.batch_size
        while True:
            standing = self.predictions == self.labels
            done = self.taken == self.attack.steps
            going = np.flatnonzero(standing & ~done)
            waiting = np.flatnonzero(standing & done & ~self.checked)
            # A look costs a whole batch's forward pass, however few wait.
            if waiting.size and (waiting.size >= size or not going.size):
                self.check(waiting[:size])
            elif going.size:
                # Those with most steps ahead first: no half-empty batches
                # before the very end.
                order = np.argsort(self.taken[going], kind="stable")
                self.move(step, going[order[:size]])
            else:
                break
            self.tell()

    def move(self, step, rows):
        """Takes the examples of one batch a few steps on."""
        images, labels, taken, predictions = self.batch(
            rows, self.images, self.labels, self.taken, self.predictions
        )
        values = self.batch(rows, *self.state.values())
        state = dict(zip(self.state, values, strict=True))
        padded = self.engine.padded(rows)
        idle = 0.0
        # Not all steps at once: taking turns, examples fill their batches up
        # until nearly all are done.
        calls = self.attack.steps // _TURNS // _bundle(self.attack)
        for _ in range(max(1, calls)):
            before = taken.numpy()[: len(rows)]
            state, taken, predictions, losses = step(
                images, labels, state, taken, predictions
            )
            self.trace(rows, before, losses)
            moving = predictions.numpy() == self.labels[padded]
            moving &= taken.numpy() < self.attack.steps
            idle += 1.0 - moving.mean()
            if idle > _IDLE_STEPS:
                break
        self.write(rows, state)
        self.taken[rows] = taken.numpy()[: len(rows)]
        self.predictions[rows] = predictions.numpy()[: len(rows)]

    def trace(self, rows, taken, losses):
        """Keeps the loss of each iterate of the first round."""
        if self.losses is not None and not self.round:
            # One that is broken writes again what it wrote before.
            going = taken < self.attack.steps
            losses = losses.numpy()[: len(rows)]
            self.losses[rows[going], taken[going]] = losses[going]

    def check(self, rows):
        """Looks at the last iterate, which no gradient is taken at."""
        if rows.size:
            self.predictions[rows] = self.engine.predict(
                self.state["adversarial"][rows]
            )
            self.checked[rows] = True

    def batch(self, rows, *arrays):
        rows = self.engine.padded(rows)
        return [tf.constant(array[rows]) for array in arrays]

    def write(self, rows, state):
        for name, values in state.items():
            values = values.numpy()
            if name not in self.state:
                shape = (len(self.labels), *values.shape[1:])
                self.state[name] = np.zeros(shape, values.dtype)
            self.state[name][rows] = values[: len(rows)]

    def tell(self):
        broken = self.predictions != self.labels
        # The look at the last iterate counts as one more step.
        share = (self.taken + self.checked) / (self.attack.steps + 1)
        if not self.attack.steps:
            share = self.checked
        share = (self.round + share) / self.attack.rounds
        done = np.where(broken, 1.0, share).sum()
        self.observe(float(done), int(broken.sum()))


def _compiled_step(attack):
    advance = tf.function(attack.step, reduce_retracing=False)

    def step(images, labels, state, taken, predictions):
        following, logits = _by_parts(advance, images, labels, state, taken)
        going = (predictions == labels) & (taken < attack.steps)
        predictions = tf.where(going, examples.predicted(logits), predictions)
        # What is broken or done stays as it is until it is dropped.
        moving = going & (predictions == labels)
        state = {
            name: examples.where(moving, following[name], values)
            for name, values in state.items()
        }
        losses = objectives.cross_entropy(labels, logits)
        taken += tf.cast(moving, taken.dtype)
        return state, taken, predictions, losses

    def several(images, labels, state, taken, predictions):
        return tf.while_loop(
            lambda *_: True,
            lambda *now: step(images, labels, *now[:3]),
            (state, taken, predictions, tf.zeros_like(labels, tf.float32)),
            maximum_iterations=_BUNDLE,
        )

    call = step if _bundle(attack) == 1 else several
    return tf.function(call, reduce_retracing=False)


def _bundle(attack):
    """How many steps a call takes."""
    return _BUNDLE if attack.steps >= _LONG and not attack.climbs else 1


def _by_parts(function, *batches):
    """A function of batches, on a CPU half by half.

    The halves run beside each other: one fills the other's serial stretches,
    which is 15 % faster on two cores where others use the machine too.
    """
    size = batches[0].shape[0]
    if size < 2 or tf.config.list_physical_devices("GPU"):
        return function(*batches)
    halves = [
        function(*tf.nest.map_structure(operator.itemgetter(part), batches))
        for part in (slice(None, size // 2), slice(size // 2, None))
    ]
    return tf.nest.map_structure(
        lambda *parts: tf.concat(parts, axis=0), *halves
    )
