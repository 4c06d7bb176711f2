"""The loop that every attack runs in: work is spent on what still stands.

An example counts as broken as soon as any iterate of the attack is
misclassified: the attacker keeps that iterate. A broken example needs no more
steps, so the broken ones are soon dropped and the others re-packed
into full batches of one static shape. Examples at different steps may share a
batch, because noise and step count belong to the example, not to its place.
"""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

from mart_tf.attacks import examples
from mart_tf.attacks import objectives
from mart_tf.attacks import stepwise
from mart_tf.evaluation import pieces

# A batch is re-packed when its idle places are likely to add up to this share
# of a step, which is about what re-packing costs.
_IDLE_STEPS = 0.05

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

        predict = stepwise.compiled(functools.partial(_predicted, classify))
        self._predict = stepwise.compiled(pieces.split(predict))
        self._moves = {}

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

    def move(self, attack):
        """Some steps of an attack, compiled once however often it is run."""
        if attack not in self._moves:
            self._moves[attack] = _compiled_move(attack)
        return self._moves[attack]

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
        # The share of a batch that breaks in a step; at first as if half did.
        self.rate = 0.5
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
        move = self.engine.move(self.attack)
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
                self.move(move, going[order[:size]])
            else:
                break
            self.tell()

    def move(self, move, rows):
        """Takes the examples of one batch a few steps on."""
        turns = self.turns(rows)
        images, labels, taken, predictions = self.batch(
            rows, self.images, self.labels, self.taken, self.predictions
        )
        values = self.batch(rows, *self.state.values())
        state = dict(zip(self.state, values, strict=True))
        state, taken, predictions, *losses = move(
            tf.constant(turns), images, labels, state, taken, predictions
        )
        taken = taken.numpy()[: len(rows)]
        if losses and not self.round:
            self.trace(rows, taken, losses[0].numpy()[: len(rows)])
        self.write(rows, state)
        self.taken[rows] = taken
        self.predictions[rows] = predictions.numpy()[: len(rows)]
        broken = (self.predictions[rows] != self.labels[rows]).sum()
        # A tenth of an example, so that no rate is zero.
        self.rate = (broken + 0.1) / (turns * self.engine.batch_size)

    def turns(self, rows):
        """How many steps the examples of one batch take together.

        Every piece of a batch takes as many: none waits for another.
        """
        # What breaks in the first of t steps is idle in the t - 1 others, and
        # so on: t (t - 1) / 2 times the rate.
        likely = 0.5 + math.sqrt(0.25 + 2 * _IDLE_STEPS / self.rate)
        # Not all steps at once: taking turns, examples fill their batches up
        # until nearly all are done.
        most = max(1, self.attack.steps // _TURNS)
        left = self.attack.steps - self.taken[rows].max()
        return int(min(likely, most, left))

    def trace(self, rows, taken, losses):
        """Keeps the losses of one batch on its way, `[batch, turns]`."""
        step = self.taken[rows, None] + np.arange(losses.shape[1])
        seen = (step <= taken[:, None]) & (step < self.attack.steps)
        rows = np.broadcast_to(rows[:, None], seen.shape)
        self.losses[rows[seen], step[seen]] = losses[seen]

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


def _predicted(classify, images):
    return examples.predicted(classify(images))


def _compiled_move(attack):
    """Some steps on one batch.

    Returns:
        A function of the number of steps, images, labels, state, steps taken
        and predictions: the last three afterwards; for attacks that climb also
        the losses `[batch, turns]` at the iterates on the way, NaN where
        nothing moved any more.
    """

    def moving(labels, taken, predictions):
        return (predictions == labels) & (taken < attack.steps)

    def step(images, labels, state, taken, predictions):
        following, logits = attack.step(images, labels, state, taken)
        going = moving(labels, taken, predictions)
        predictions = tf.where(going, examples.predicted(logits), predictions)
        # What is broken or done stays as it is until it is dropped.
        going &= predictions == labels
        state = {
            name: examples.where(going, following[name], values)
            for name, values in state.items()
        }
        return state, taken + tf.cast(going, taken.dtype), predictions, logits

    def move(turns, images, labels, state, taken, predictions):
        def goes_on(turn, state, taken, predictions, losses):
            going = moving(labels, taken, predictions)
            return (turn < turns) & tf.reduce_any(going)

        def body(turn, state, taken, predictions, losses):
            *now, logits = step(images, labels, state, taken, predictions)
            if attack.climbs:
                losses = losses.write(
                    turn, objectives.cross_entropy(labels, logits)
                )
            return turn + 1, *now, losses

        losses = tf.TensorArray(
            tf.float32, size=turns, element_shape=labels.shape
        )
        turn, state, taken, predictions, losses = tf.while_loop(
            goes_on, body, (0, state, taken, predictions, losses)
        )
        if not attack.climbs:
            return state, taken, predictions
        seen = tf.range(turns) < turn
        losses = tf.where(seen, tf.transpose(losses.stack()), np.nan)
        return state, taken, predictions, losses

    def in_pieces(turns, *batches):
        return pieces.split(functools.partial(move, turns))(*batches)

    return stepwise.compiled(in_pieces)
