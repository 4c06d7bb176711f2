"""Checkpoints that a fault cannot take away.

    checkpoints/
      ckpt-N.*        epoch N: TensorFlow's files, and ckpt-N.sha256
      best/ckpt-N.*   the same of the best epoch so far
      within/ckpt-S.* the same of step S, in the middle of an epoch
      newest.json     which N and S are there

Each is written before an older one goes. Its checksum comes last: until then
there is no checkpoint, and `newest.json` names it after that, so that one that
has gone is missed. Weights that are not finite, and a disk without room, are
noticed before anything is written; what is damaged, cut off or gone is passed
over for the one before it, and said.
"""

import pathlib
import shlex
import shutil
import time

import tensorflow as tf

from mart_tf.runs import accumulators
from mart_tf.runs import history
from mart_tf.runs import saves
from mart_tf.runs import workers
from mart_tf.training import watch

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        path: The workdir.
        model: The compiled `AdversarialClassifier`, its optimizer built.
        steps: Training steps in an epoch.
        tell: Called with what was saved, as an `events.Log`.
        together: The `workers.Workers` that train it: of several processes
            one writes, and all read; default: this one alone.

    Attributes:
        writes: Whether this process writes them, and the workdir.
        epoch: Finished epochs.
        best_accuracy: Of the best of them.
        rate: The learning rate that the present epoch began with.
        rows: Those of the finished epochs, see `history`.
    """

    def __init__(
        self,
        path,
        model,
        steps,
        tell=lambda event, **facts: None,
        together=None,
    ):
        together = together or workers.Workers(model.distribute_strategy)
        self._folder = pathlib.Path(path, "checkpoints")
        self._model = model
        self._steps = steps
        self._tell = tell
        self.writes = together.is_chief
        self.rows = []
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_accuracy = tf.Variable(
            -1.0, dtype=tf.float32, trainable=False
        )
        self.rate = tf.Variable(0.0, trainable=False)
        self._history = tf.Variable("", dtype=tf.string, trainable=False)
        self._metrics = accumulators.Accumulators(model, together)
        whole = {
            "classifier": _raw(model.classifier.weights),
            "optimizer": _raw(model.optimizer.variables),
            "step": _raw([model.step]),
            "memory": _raw(model.memory.weights),
            "averages": _raw(model.averages.weights),
            "epoch": self.epoch,
            "best_accuracy": self.best_accuracy,
            "skips": _raw(model.skips.weights),
            "history": self._history,
        }
        self._last = tf.train.Checkpoint(**whole)
        self._within = tf.train.Checkpoint(
            **whole, rate=self.rate, metrics=self._metrics.saved
        )
        self._best = tf.train.Checkpoint(
            classifier=_raw(model.classifier.weights),
            averages=_raw(model.averages.weights),
            epoch=self.epoch,
        )

    def restore(self):
        """Restores the newest sound checkpoint.

        Returns:
            The number of finished epochs and that of steps in the present one
            (both 0 without a checkpoint, or where the first was cut off), and
            a sentence for each that was passed over.

        Raises:
            ValueError: If there are checkpoints and all are damaged.
        """
        newest = max(saves.whole(self._folder), default=0) * self._steps
        restored, warnings = None, []
        there = saves.whole(self._folder / "within")
        # One that is named and has no checksum is missed too.
        named = saves.newest(self._folder).get("within", 0)
        if max(named, *there, 0) > newest:
            restored, warnings = saves.restore_newest(
                self._folder, self._last, "within", above=newest
            )
        if restored is not None:
            warnings += self._restore_rows()
            # Apart from the state: replicas may be more or fewer.
            reader = tf.train.load_checkpoint(str(restored))
            self.rate.assign(reader.get_tensor("rate" + _VALUE))
            self._metrics.restore(reader.get_tensor("metrics" + _VALUE))
            epoch = int(self.epoch)
            return (
                epoch,
                saves.number_of(restored) - epoch * self._steps,
                warnings,
            )
        restored, more = saves.restore_newest(self._folder, self._last, "last")
        if restored is None:
            return 0, 0, warnings + more
        more += self._restore_rows()
        return int(self.epoch), 0, warnings + more

    def take_metrics(self):
        """Keeps the metrics of the present epoch as they are now."""
        self._metrics.take()

    def give_metrics(self):
        """Gives the metrics what was kept of them, or restored."""
        self._metrics.give()

    def save_within(self, step):
        """Saves the middle of an epoch, with the metrics that were taken.

        Args:
            step: How many steps the run has taken.

        Raises:
            ValueError: If a weight is not finite.
            OSError: If the disk has no room.
        """
        self._check_finite(f"step {step}")
        if not self.writes:
            return
        self._save("within", self._within, step)
        newest = saves.newest(self._folder) | {"within": step}
        saves.name_newest(self._folder, newest)

    @property
    def best_epoch(self):
        """The epoch of the best checkpoint that is whole."""
        return max(saves.whole(self._folder / "best"))

    def is_best(self, accuracy):
        """Whether an accuracy is above that of every saved epoch.

        None, without a validation split, is: the last epoch is the best.
        """
        return accuracy is None or accuracy > float(self.best_accuracy)

    def save(self, epoch, accuracy):
        """Saves a finished epoch, first as the best one if it is.

        Args:
            epoch: Number of finished epochs.
            accuracy: What chooses the best epoch, on the validation split,
                in [0, 1]; None without one.

        Raises:
            ValueError: If a weight is not finite.
            OSError: If the disk has no room.
        """
        self._check_finite(f"epoch {epoch}")
        self.epoch.assign(epoch)
        is_best = accuracy is not None and self.is_best(accuracy)
        if is_best:
            self.best_accuracy.assign(accuracy)
        if not self.writes:
            return
        newest = saves.newest(self._folder)
        if is_best:
            self._save("best", self._best, epoch)
            newest["best"] = epoch
        self._save("last", self._last, epoch)
        newest["last"] = epoch
        newest.pop("within", None)
        saves.name_newest(self._folder, newest)
        # What was in the middle of this epoch is behind it.
        shutil.rmtree(self._folder / "within", ignore_errors=True)

    def _save(self, kind, state, number):
        path = self._folder.parent
        if not path.is_dir():
            raise OSError(
                f"{path} has been removed while the run was writing into it, "
                "and what it had saved with it; run the same command again."
            )
        self._history.assign(history.text(self.rows))
        started = time.monotonic()
        saves.write(saves.folder_of(self._folder, kind), state, number)
        seconds = round(time.monotonic() - started, 3)
        self._tell("save", kind=kind, number=number, seconds=seconds)

    def describe(self):
        """What a run that cannot go on has left, in a sentence."""
        finished = max(saves.whole(self._folder), default=0)
        path = self._folder.parent
        step = max(saves.whole(self._folder / "within"), default=0)
        if step and not finished:
            return (
                f"No epoch is finished: {path} goes on after step {step}, with "
                "the same settings; for others remove it, or give another "
                "--workdir."
            )
        if not finished:
            return f"No epoch is finished: {path} can begin anew."
        return (
            f"The weights of epoch {finished}, its last checkpoint, are sound: "
            f"{shlex.quote(f'--init_from={path}')} begins another run with the "
            "best ones."
        )

    def _restore_rows(self):
        """Reads the rows; a sentence if the best epoch of theirs is gone."""
        self.rows = history.rows(self._history.numpy().decode())
        folder = self._folder / "best"
        if float(self.best_accuracy) < 0.0 or saves.whole(folder):
            return []
        self.best_accuracy.assign(-1.0)
        return [
            f"{folder} holds no checkpoint any more: the best epoch is that of "
            "those that come now."
        ]

    def _check_finite(self, after):
        for weight in self._model.classifier.weights:
            if not watch.is_finite(weight):
                raise ValueError(
                    f"Weight {weight.path} is not finite after {after}; "
                    "it was not saved. Train again with a lower "
                    "--learning_rate in another --workdir."
                )


def restore_classifier(path, checkpoint, classifier, averaged=False):
    """Loads the weights of a run into its network.

    What no gradient reaches, such as batch statistics, is that of the epoch in
    any case.

    Args:
        path: The workdir.
        checkpoint: "best" or "last" epoch, "best_raw" or "last_raw".
        classifier: The network, as it was built for the run.
        averaged: Whether the run kept an average of its weights, which "best"
            and "last" then are; the raw ones are the weights themselves.

    Returns:
        The epoch that they are of, and a sentence for each damaged checkpoint
        that was passed over.

    Raises:
        ValueError: If no checkpoint is sound.
    """
    folder = pathlib.Path(path, "checkpoints")
    kind = checkpoint.removesuffix("_raw")
    state = tf.train.Checkpoint(classifier=_raw(classifier.weights))
    restored, warnings = saves.restore_newest(folder, state, kind)
    if restored is None:
        raise ValueError(
            " ".join([*warnings, f"{folder} holds no checkpoint; train first."])
        )
    if averaged and not checkpoint.endswith("_raw"):
        averages = tf.train.Checkpoint(
            averages=_raw(classifier.trainable_weights)
        )
        status = averages.read(str(restored))
        status.assert_existing_objects_matched().expect_partial()
    return saves.number_of(restored), warnings


def _raw(variables):
    # Lists of tf.Variables: a Keras variable is not a trackable of its own.
    return [variable.value for variable in variables]
