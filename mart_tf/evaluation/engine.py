"""The loop that every attack runs in: work is spent on what still stands.

An example counts as broken as soon as any iterate of the attack is
misclassified: the attacker keeps that iterate. A broken example needs no more
steps, so the broken ones are soon dropped and the others re-packed
into full batches of one static shape. Examples at different steps may share a
batch, because noise and step count belong to the example, not to its place.

On a CPU each core has a thread and a batch of its own, of several GPUs each
GPU: none waits for another.
"""

from concurrent import futures
import contextlib
import dataclasses
import functools
import math
import queue

import numpy as np
import tensorflow as tf

from mart_tf import losses
from mart_tf.attacks import base
from mart_tf.attacks import examples
from mart_tf.attacks import loops
from mart_tf.evaluation import shares

# A batch is re-packed when its idle places are likely to add up to this share
# of a step, which is about what re-packing costs.
_IDLE_STEPS = 0.05

# How often an example that stands waits for others on its way.
_TURNS = 5

# Of an attack of more steps no loss is kept at each, of each example.
_MOST_TRACED = 10_000


@dataclasses.dataclass(frozen=True)
class Crafted:
    """What an attack made of each example.

    adversarial: float32 `[n, ...]`: the iterate that broke the example, or
    the last one. predictions: its class, int32 `[n]`, -1 for NaN.
    broken: bool `[n]`. steps: int32 `[n]`: how many led to that iterate, those
    of earlier rounds included. losses: float32 `[n, steps]`, the cross-entropy
    at the iterates of the first round, an example that is broken staying at
    the loss that it was broken with; None for attacks that do not climb it, and
    for those of more than 10,000 steps.
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
        batch_size: Examples that are worked at side by side; where there are
            `devices`, on each of them.
        cores: In how many batches, a thread for each; default: one for each
            core of a CPU, and one on a GPU.
        devices: Where several work, by name: a `classify` for each, a thread
            and batches of its own.
    """

    def __init__(self, classify, batch_size, cores=None, devices=None):
        self.batch_size = batch_size
        self._classify = devices or {None: classify}
        self.share = batch_size
        self.cores = len(devices or ())
        if not devices:
            self.cores = cores or shares.count(batch_size)
            # The batch of one core: the static shape of every pass.
            self.share = -(-batch_size // self.cores)
        self._free = queue.SimpleQueue()
        for device in devices or [None] * self.cores:
            self._free.put(device)
        self._looks = {}
        self._steps = {}

    @contextlib.contextmanager
    def place(self):
        """Where a thread works: a device that no other has meanwhile.

        Yields its name, None where there is one for all.
        """
        device = self._free.get()
        try:
            with tf.device(device) if device else contextlib.nullcontext():
                yield device
        finally:
            self._free.put(device)

    def predict(self, images):
        """Predicted classes, int32 `[n]`, of images `[n, ...]`."""
        judge = self.looks()

        def look(rows):
            with self.place() as device:
                batch = tf.constant(images[padded(rows, self.share)])
                return judge[device](batch).numpy()[: len(rows)]

        with self.threads() as threads:
            rows = batches(np.arange(len(images)), self.share)
            parts = list(threads.map(look, rows))
        return np.concatenate([np.zeros(0, np.int32), *parts])

    @contextlib.contextmanager
    def threads(self):
        """An executor with a thread for each core.

        Its work is waited for, unless Ctrl-C is pressed: some steps of a large
        network take minutes.
        """
        threads = _Here()
        if self.cores > 1:
            threads = futures.ThreadPoolExecutor(self.cores)
        waits = True
        try:
            yield threads
        except KeyboardInterrupt:
            waits = False
            raise
        finally:
            threads.shutdown(waits, cancel_futures=not waits)

    def run(self, attack, images, labels, seeds, observe=None):
        """Runs an attack on examples that are classified correctly.

        Args:
            attack: A `mart_tf.attacks.Attack` on a classifier.
            images: Natural examples, float32 array `[n, ...]`.
            labels: int32 array `[n]`.
            seeds: Integer array `[n, 2]`, one seed per example.
            observe: Called as `observe(done, broken)` with the share of the
                work done, in examples, and the number broken so far.

        Returns:
            A `Crafted`.
        """
        return _Run(self, attack, images, labels, seeds, observe).crafted()

    def looks(self, attack=None):
        """What iterates are judged by, images to classes, for each device.

        Args:
            attack: Whose iterates; default: what takes one pass.
        """
        if attack is not None and attack.passes == 1:
            attack = None
        if id(attack) not in self._looks:
            # Kept with it: once it is gone its id may be another's.
            self._looks[id(attack)] = (
                attack,
                {
                    device: base.compiled(
                        functools.partial(
                            _predicted,
                            self._on(attack, device).answer
                            if attack
                            else classify,
                        )
                    )
                    for device, classify in self._classify.items()
                },
            )
        return self._looks[id(attack)][1]

    def steps(self, attack):
        """Some steps of an attack, for each device.

        Compiled once however often it is run.
        """
        # One that is written as a dataclass cannot be hashed.
        if id(attack) not in self._steps:
            self._steps[id(attack)] = (
                attack,
                {
                    device: _compiled_steps(self._on(attack, device))
                    for device in self._classify
                },
            )
        return self._steps[id(attack)][1]

    def _on(self, attack, device):
        """The attack, on the classifier of a device."""
        if device is None:
            return attack
        return attack.on(
            self._classify[device],
            attack.threat,
            attack.classes,
            attack.targeted,
        )


class _Here(futures.Executor):
    """Calls at once: in the caller's thread, on the caller's device."""

    def submit(self, function, *arguments):
        future = futures.Future()
        future.set_result(function(*arguments))
        return future


def batches(rows, size):
    """The rows in batches of a size; the last may be smaller."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def padded(rows, size):
    """The rows of a whole batch: repeated ones fill it up."""
    return np.resize(rows, size)


class _Run:
    """One attack on one set of examples; arrays hold a row per example."""

    def __init__(self, engine, attack, images, labels, seeds, observe):
        self.engine = engine
        self.attack = attack
        self.steps = engine.steps(attack)
        self.judge = engine.looks(attack)
        self.images = images
        self.labels = labels
        self.seeds = seeds
        self.observe = observe or (lambda done, broken: None)
        self.state = {}
        self.round = 0
        self.before = np.zeros(len(labels), np.int32)
        self.taken = np.zeros(len(labels), np.int32)
        self.checked = np.zeros(len(labels), bool)
        # What a core has at hand: the next batches leave it out.
        self.away = np.zeros(len(labels), bool)
        self.predictions = labels.copy()
        # The share of a batch that breaks in a step; at first as if half did.
        self.rate = 0.5
        self.losses = None
        if attack.climbs and attack.steps <= _MOST_TRACED:
            self.losses = np.full((len(labels), attack.steps), np.nan, "f4")

    def crafted(self):
        for number in range(self.attack.all_rounds):
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
            for step in range(1, self.attack.steps):
                missing = np.isnan(losses[:, step])
                losses[missing, step] = losses[missing, step - 1]
        return Crafted(adversarial, self.predictions, broken, steps, losses)

    def start(self, standing):
        self.before[standing] += self.taken[standing]
        self.taken[standing] = 0
        self.checked[standing] = False
        # Eagerly: tracing the noise costs more than drawing it.
        for rows in batches(standing, self.engine.batch_size):
            whole = padded(rows, self.engine.batch_size)
            natural = (self.images, self.labels, self.seeds)
            natural = (tf.constant(values[whole]) for values in natural)
            self.write(rows, self.attack.begin(*natural, self.round))
            if not self.attack.steps:
                predicted = self.engine.predict(self.state["adversarial"][rows])
                self.predictions[rows] = predicted
                self.checked[rows] = True
                self.tell()

    def advance(self):
        """Takes all that stand to the end of the round."""
        working = {}
        with self.engine.threads() as threads:
            while True:
                while len(working) < self.engine.cores:
                    work, rows = self.next()
                    if not rows.size:
                        break
                    self.away[rows] = True
                    working[threads.submit(self.placed, work, rows)] = rows
                if not working:
                    return
                finished, _ = futures.wait(
                    working, return_when=futures.FIRST_COMPLETED
                )
                for future in finished:
                    future.result()
                    self.away[working.pop(future)] = False
                self.tell()

    def placed(self, work, rows):
        with self.engine.place() as device:
            work(rows, device)

    def next(self):
        """What a core that is free does, and with which examples."""
        size = self.engine.share
        here = (self.predictions == self.labels) & ~self.away
        done = self.taken == self.attack.steps
        going = np.flatnonzero(here & ~done)
        waiting = np.flatnonzero(here & done & ~self.checked)
        # A look costs a whole batch's forward pass, however few wait.
        if waiting.size and (waiting.size >= size or not going.size):
            return self.look, waiting[:size]
        # Those with most steps ahead first: no half-empty batches before the
        # very end.
        order = np.argsort(self.taken[going], kind="stable")
        return self.move, going[order[:size]]

    def move(self, rows, device):
        """Takes the examples of one batch a few steps on."""
        turns = self.turns(rows)
        images, labels, taken, predictions = self.batch(
            rows, self.images, self.labels, self.taken, self.predictions
        )
        values = self.batch(rows, *self.state.values())
        state = dict(zip(self.state, values, strict=True))
        state, taken, predictions, losses = self.steps[device](
            tf.constant(turns), images, labels, state, taken, predictions
        )
        taken = taken.numpy()[: len(rows)]
        if self.losses is not None and not self.round:
            self.trace(rows, taken, losses.numpy()[: len(rows)])
        self.write(rows, state)
        self.taken[rows] = taken
        self.predictions[rows] = predictions.numpy()[: len(rows)]
        broken = (self.predictions[rows] != self.labels[rows]).sum()
        # A tenth of an example, so that no rate is zero.
        self.rate = (broken + 0.1) / (turns * self.engine.share)

    def turns(self, rows):
        """How many steps the examples of one batch take together."""
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

    def look(self, rows, device):
        """Looks at the last iterate, which no gradient is taken at."""
        [images] = self.batch(rows, self.state["adversarial"])
        self.predictions[rows] = self.judge[device](images).numpy()[: len(rows)]
        self.checked[rows] = True

    def batch(self, rows, *arrays):
        rows = padded(rows, self.engine.share)
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
        share = (self.round + share) / self.attack.all_rounds
        done = np.where(broken, 1.0, share).sum()
        self.observe(float(done), int(broken.sum()))


def _predicted(classify, images):
    return examples.predicted(classify(images))


def _compiled_steps(attack):
    """Some steps on one batch.

    Returns:
        A function of the number of steps, images, labels, state, steps taken
        and predictions: the last three afterwards; then the losses
        `[batch, turns]` at the iterates on the way, or None if the attack does
        not climb.
    """

    def step(images, labels, state, taken, predictions):
        following, logits = attack.advance(images, labels, state, taken)
        going = (predictions == labels) & (taken < attack.steps)
        predictions = tf.where(going, examples.predicted(logits), predictions)
        # What is broken or done stays as it is until it is dropped.
        going &= predictions == labels
        state = {
            name: examples.where(going, following[name], values)
            for name, values in state.items()
        }
        taken += tf.cast(going, taken.dtype)
        loss = None
        if attack.climbs:
            loss = losses.cross_entropy(labels, logits)
        return state, taken, predictions, loss

    def steps(turns, images, labels, state, taken, predictions):
        one = loops.called(step)

        def body(turn, trace, *now):
            *now, loss = one(images, labels, *now)
            if attack.climbs:
                trace = trace.write(turn, loss)
            return turn + 1, trace, *now

        trace = tf.TensorArray(
            tf.float32, size=turns, element_shape=labels.shape
        )
        _, trace, *now = tf.while_loop(
            lambda turn, *_: turn < turns,
            body,
            (0, trace, state, taken, predictions),
        )
        return *now, tf.transpose(trace.stack()) if attack.climbs else None

    return base.compiled(steps)
