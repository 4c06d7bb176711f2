"""Training that goes wrong, noticed while it does."""

import time
import warnings

import keras
import tensorflow as tf

from mart_tf.training import counters
from mart_tf.training import skips

# To read a counter waits for the device: at each of the first steps, then now
# and then. Processes that train together stop at the same step, and each has a
# clock of its own.
_FIRST_STEPS = 20
_SECONDS = 1.0
_STEPS_TOGETHER = 50
# How many times the first loss is no training any more.
_HOPELESS = 1e4


class Diverged(ValueError):
    """Training that cannot go on: what was not finite, and what to do."""


class Watch(keras.callbacks.Callback):
    """Stops an AdversarialClassifier whose steps lead nowhere.

    That is: weights that are not finite before the first step, more steps
    skipped in a row than it may, a loss that its first steps make 10,000 times
    as large. At the end of an epoch `logs` get the number of skipped steps as
    "skipped", if there were any.

    Args:
        anew: Whether this `fit` is a training of its own: where too many steps
            were skipped before it they count no more, and where something
            goes by epochs, their beginning at 0 again is told, once.
    """

    def __init__(self, anew=True):
        super().__init__()
        self._anew = anew

    def on_train_begin(self, logs=None):
        if self._anew:
            self.model.skips.begin()
        self._seen, self._when, self._first_loss = 0, 0.0, None
        for weight in self.model.classifier.weights:
            if not is_finite(weight):
                raise Diverged(
                    f"Weight {weight.path} of the network is not finite before "
                    "the first step; start from other weights."
                )

    def on_epoch_begin(self, epoch, logs=None):
        self._skipped = None
        if self._anew and not epoch:
            _tell_of_epochs(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self._seen += 1
        early = self._seen <= _FIRST_STEPS
        if early or self._is_time():
            self._when = time.monotonic()
            check_skips(self.model)
        if early:
            self._look_at_loss(
                counters.number(self.model.step), float(logs["loss"])
            )

    def _is_time(self):
        strategy = self.model.distribute_strategy
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return self._seen % _STEPS_TOGETHER == 0
        return time.monotonic() - self._when >= _SECONDS

    def on_test_begin(self, logs=None):
        # Keras resets it next.
        self._skipped = self.model.logs.skipped()

    def on_epoch_end(self, epoch, logs=None):
        check_skips(self.model)
        if self._skipped is None:
            self._skipped = self.model.logs.skipped()
        if self._skipped:
            logs["skipped"] = self._skipped

    def _look_at_loss(self, step, loss):
        # Of a run that goes on the first steps are past.
        if step > _FIRST_STEPS:
            return
        if self._first_loss is None:
            self._first_loss = abs(loss)
        elif abs(loss) > _HOPELESS * max(self._first_loss, 1.0):
            raise Diverged(
                f"The loss grew from {self._first_loss:.3g} to {loss:.3g} in "
                f"the first {step} steps. Lower the learning rate."
            )


def _tell_of_epochs(model):
    """Warns, once, where epochs that something reads begin again."""
    step = counters.number(model.step)
    reads = [
        type(each).__name__
        for each in (model.defense, model.update)
        if each.reads_epoch
    ]
    if model.told_of_epochs or not step or not reads:
        return
    model.told_of_epochs = True
    warnings.warn(
        f"fit begins at epoch 0 again after {step} steps, and "
        f"{' and '.join(reads)} goes by the epoch; to go on with epoch n give "
        "initial_epoch=n and epochs=n + 1, or more.",
        stacklevel=2,
    )


def check_skips(model):
    """Raises `Diverged` if a model skipped more steps in a row than it may."""
    seen, step = model.skips, counters.number(model.step)
    if not seen.are_too_many():
        return
    remedy = "Lower the learning rate, or clip the gradients."
    if seen.cause == "images":
        remedy = "Mend the data."
    raise Diverged(
        f"{seen.limit + 1} steps in a row were skipped up to step {step}, "
        f"because {skips.TERMS[seen.cause]} was not finite. {remedy}"
    )


def is_finite(variable):
    """Whether all numbers of a Keras variable are finite."""
    value = tf.convert_to_tensor(variable.value)
    if not value.dtype.is_floating:
        return True
    return bool(tf.reduce_all(tf.math.is_finite(value)))
