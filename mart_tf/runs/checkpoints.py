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

import hashlib
import json
import pathlib
import re
import shutil

import numpy as np
import tensorflow as tf

from mart_tf import errors
from mart_tf import files
from mart_tf import limits
from mart_tf.runs import accumulators

_KEPT = 2
_NEWEST = "newest.json"
_METRICS = "metrics/.ATTRIBUTES/VARIABLE_VALUE"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        path: The workdir.
        model: The compiled `AdversarialClassifier`, its optimizer built.
        steps: Training steps in an epoch.

    Attributes:
        epoch: Finished epochs.
        best_accuracy: Of the best of them.
        rate: The learning rate that the present epoch began with.
    """

    def __init__(self, path, model, steps):
        self._folder = pathlib.Path(path, "checkpoints")
        self._model = model
        self._steps = steps
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_accuracy = tf.Variable(
            -1.0, dtype=tf.float32, trainable=False
        )
        self.rate = tf.Variable(0.0, trainable=False)
        self._metrics = accumulators.Accumulators(model)
        whole = {
            "classifier": _raw(model.classifier.weights),
            "optimizer": _raw(model.optimizer.variables),
            "step": _raw([model.step]),
            "memory": _raw(model.memory.weights),
            "averages": _raw(model.averages.weights),
            "epoch": self.epoch,
            "best_accuracy": self.best_accuracy,
        }
        self._state = tf.train.Checkpoint(**whole)
        # Read apart from the metrics: replicas may be more or fewer.
        self._middle = tf.train.Checkpoint(**whole, rate=self.rate)
        self._within = tf.train.Checkpoint(
            **whole, rate=self.rate, metrics=self._metrics.saved
        )
        self._best = tf.train.Checkpoint(
            classifier=_raw(model.classifier.weights),
            averages=_raw(model.averages.weights),
            epoch=self.epoch,
        )
        for state in (self._state, self._middle, self._within, self._best):
            # Made later, it would be restored then, from files long gone.
            state.save_counter.assign(0)

    def restore(self):
        """Restores the newest sound checkpoint.

        Returns:
            The number of finished epochs and that of steps in the present one
            (both 0 without a checkpoint, or where the first was cut off), and
            a sentence for each that was passed over.

        Raises:
            ValueError: If there are checkpoints and all are damaged.
        """
        newest = max(_whole(self._folder), default=0) * self._steps
        restored, warnings = None, []
        if max(_whole(self._folder / "within"), default=0) > newest:
            restored, warnings = _restore_newest(
                self._folder, self._middle, "within", above=newest
            )
        if restored is not None:
            reader = tf.train.load_checkpoint(str(restored))
            self._metrics.restore(reader.get_tensor(_METRICS))
            epoch = int(self.epoch)
            return epoch, _number(restored) - epoch * self._steps, warnings
        restored, more = _restore_newest(self._folder, self._state, "last")
        if restored is None:
            return 0, 0, warnings + more
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
        _save(self._folder / "within", self._within, step)
        newest = _newest(self._folder) | {"within": step}
        files.replace_text(self._folder / _NEWEST, json.dumps(newest) + "\n")

    @property
    def best_epoch(self):
        """The epoch of the best checkpoint that is whole."""
        return max(_whole(self._folder / "best"))

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
        newest = _newest(self._folder)
        if accuracy is not None and self.is_best(accuracy):
            self.best_accuracy.assign(accuracy)
            _save(self._folder / "best", self._best, epoch)
            newest["best"] = epoch
        _save(self._folder, self._state, epoch)
        newest["last"] = epoch
        newest.pop("within", None)
        files.replace_text(self._folder / _NEWEST, json.dumps(newest) + "\n")
        # What was in the middle of this epoch is behind it.
        shutil.rmtree(self._folder / "within", ignore_errors=True)

    def _check_finite(self, after):
        for weight in self._model.classifier.weights:
            if not np.isfinite(np.asarray(weight)).all():
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
    restored, warnings = _restore_newest(folder, state, kind)
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
    return _number(restored), warnings


def _raw(variables):
    # Lists of tf.Variables: a Keras variable is not a trackable of its own.
    return [variable.value for variable in variables]


def _save(folder, state, number):
    manager = tf.train.CheckpointManager(
        state, str(folder), max_to_keep=_KEPT, checkpoint_name="ckpt"
    )
    tensors = [
        tensor
        for part in ("classifier", "optimizer", "memory", "averages")
        for tensor in getattr(state, part, ())
    ]
    size = sum(t.dtype.size * int(np.prod(t.shape)) for t in tensors)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 2 * size:
        raise OSError(
            f"{folder} has {free / 1e6:.0f} MB free, and a checkpoint takes "
            f"{size / 1e6:.0f} MB; make room and run the same command again."
        )
    prefix = pathlib.Path(manager.save(checkpoint_number=number))
    files.replace_text(
        prefix.with_name(prefix.name + ".sha256"), _checksum(prefix) + "\n"
    )
    for file in folder.glob("ckpt-*.sha256"):
        if not file.with_suffix(".index").exists():
            file.unlink()


def _whole(folder):
    """The numbers of the checkpoints that were written to their end."""
    found = map(_number, folder.glob("ckpt-*.sha256"))
    return [number for number in found if number is not None]


def _restore_newest(folder, state, kind, above=-1):
    """Restores the newest sound "last", "best" or "within" checkpoint.

    Args:
        folder: Of all checkpoints.
        state: What is restored, a `tf.train.Checkpoint`.
        kind: Which kind.
        above: Those up to this number are not looked at.

    Returns:
        Its prefix, None where there is none or the first was cut off; and a
        sentence for each that was passed over.
    """
    expected = _newest(folder).get(kind)
    if kind != "last":
        folder = folder / kind
    numbers = {_number(file) for file in folder.glob("ckpt-*.*")}
    numbers = sorted((numbers | {expected}) - {None}, reverse=True)
    numbers = [number for number in numbers if number > above]
    warnings, cut_off, read = [], True, False
    for number in numbers:
        prefix = folder / f"ckpt-{number}"
        fault = _fault(prefix)
        if fault is None:
            # From here on the variables may be anybody's.
            read = True
            try:
                status = state.read(str(prefix))
                status.assert_existing_objects_matched().expect_partial()
                return prefix, warnings
            except (tf.errors.OpError, AssertionError, ValueError) as error:
                fault = f"it cannot be read: {errors.first_line(error)}"
        if fault == _CUT_OFF and expected is not None and number > expected:
            # Never named: the one before it is the newest.
            continue
        cut_off = cut_off and fault == _CUT_OFF
        warnings.append(f"Checkpoint {prefix} is damaged ({fault}).")
    # The second is written while the first is there.
    if expected is None and len(numbers) == 1 and cut_off and kind == "last":
        return None, [f"Saving the first checkpoint, {prefix}, was cut off."]
    # In the first epoch nothing stands before its middle.
    if numbers and (kind != "within" or (read and not above)):
        raise ValueError(
            " ".join(warnings) + " No sound checkpoint is left; restore one "
            "from a backup, or train again in another workdir."
        )
    return None, warnings


def _newest(folder):
    """The numbers of each kind as far as `newest.json` tells."""
    try:
        found = limits.read_json(folder / _NEWEST)
        return {
            kind: found[kind]
            for kind in ("last", "best", "within")
            if isinstance(found.get(kind), int)
        }
    # A run of an earlier version has none.
    except (OSError, ValueError, AttributeError):
        return {}


def _number(path):
    """N of `ckpt-N` or `ckpt-N.index`; None of another name."""
    found = re.fullmatch(r"ckpt-(\d{1,18})(\..*)?", path.name)
    return found and int(found.group(1))


_CUT_OFF = "writing it was cut off"


def _fault(prefix):
    """What is wrong with a checkpoint's files, or None."""
    recorded = prefix.with_name(prefix.name + ".sha256")
    if not any(prefix.parent.glob(prefix.name + ".*")):
        return "it has gone"
    if not recorded.is_file():
        return _CUT_OFF
    try:
        matches = limits.read_text(recorded).strip() == _checksum(prefix)
    except ValueError:
        matches = False
    return None if matches else "its checksum does not match"


def _checksum(prefix):
    digest = hashlib.sha256()
    for file in sorted(prefix.parent.glob(prefix.name + ".*")):
        if file.suffix != ".sha256":
            digest.update(file.name.encode())
            with limits.opened(file) as content:
                while part := content.read(2**20):
                    digest.update(part)
    return digest.hexdigest()
