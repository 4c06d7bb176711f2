"""Checkpoints that a fault cannot take away.

    checkpoints/
      ckpt-N.*        epoch N: TensorFlow's files, and ckpt-N.sha256
      best/ckpt-N.*   the same of the best epoch so far
      newest.json     which N are there

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

from mart_tf import choices
from mart_tf import files

_KEPT = 2
_NEWEST = "newest.json"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        path: The workdir.
        model: The compiled `AdversarialClassifier`, its optimizer built.
    """

    def __init__(self, path, model):
        self._folder = pathlib.Path(path, "checkpoints")
        self._model = model
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_accuracy = tf.Variable(
            -1.0, dtype=tf.float32, trainable=False
        )
        self._state = tf.train.Checkpoint(
            classifier=_raw(model.classifier.weights),
            optimizer=_raw(model.optimizer.variables),
            step=_raw([model.step]),
            memory=_raw(model.memory.weights),
            averages=_raw(model.averages.weights),
            epoch=self.epoch,
            best_accuracy=self.best_accuracy,
        )
        self._best = tf.train.Checkpoint(
            classifier=_raw(model.classifier.weights),
            averages=_raw(model.averages.weights),
            epoch=self.epoch,
        )

    def restore(self):
        """Restores the newest sound checkpoint.

        Returns:
            The number of finished epochs (0 without a checkpoint, or where
            the first was cut off), and a sentence for each that was passed
            over.

        Raises:
            ValueError: If there are checkpoints and all are damaged.
        """
        restored, warnings = _restore_newest(self._folder, self._state, "last")
        if restored is None:
            return 0, warnings
        return int(self.epoch), warnings

    @property
    def best_epoch(self):
        """The epoch of the best checkpoint that is whole."""
        files = (self._folder / "best").glob("ckpt-*.sha256")
        return max(number for file in files if (number := _number(file)))

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
        self._check_finite(epoch)
        self.epoch.assign(epoch)
        newest = _newest(self._folder)
        if accuracy is not None and self.is_best(accuracy):
            self.best_accuracy.assign(accuracy)
            _save(self._folder / "best", self._best, epoch)
            newest["best"] = epoch
        _save(self._folder, self._state, epoch)
        newest["last"] = epoch
        files.replace_text(self._folder / _NEWEST, json.dumps(newest) + "\n")

    def _check_finite(self, epoch):
        for weight in self._model.classifier.weights:
            if not np.isfinite(np.asarray(weight)).all():
                raise ValueError(
                    f"Weight {weight.path} is not finite after epoch {epoch}; "
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


def _restore_newest(folder, state, kind):
    """Restores the newest sound "last" or "best" checkpoint.

    Returns:
        Its prefix, None where there is none or the first was cut off; and a
        sentence for each that was passed over.
    """
    expected = _newest(folder).get(kind)
    if kind == "best":
        folder = folder / "best"
    numbers = {_number(file) for file in folder.glob("ckpt-*.*")}
    numbers = sorted((numbers | {expected}) - {None}, reverse=True)
    warnings, cut_off = [], True
    for number in numbers:
        prefix = folder / f"ckpt-{number}"
        fault = _fault(prefix)
        if fault is None:
            try:
                status = state.read(str(prefix))
                status.assert_existing_objects_matched().expect_partial()
                return prefix, warnings
            except (tf.errors.OpError, AssertionError, ValueError) as error:
                fault = f"it cannot be read: {choices.first_line(error)}"
        if fault == _CUT_OFF and expected is not None and number > expected:
            # Never named: the one before it is the newest.
            continue
        cut_off = cut_off and fault == _CUT_OFF
        warnings.append(f"Checkpoint {prefix} is damaged ({fault}).")
    # The second is written while the first is there.
    if expected is None and len(numbers) == 1 and cut_off:
        return None, [f"Saving the first checkpoint, {prefix}, was cut off."]
    if numbers:
        raise ValueError(
            " ".join(warnings) + " No sound checkpoint is left; restore one "
            "from a backup, or train again in another workdir."
        )
    return None, warnings


def _newest(folder):
    """The numbers of "last" and "best" as far as `newest.json` tells."""
    try:
        found = json.loads((folder / _NEWEST).read_text(encoding="utf-8"))
        return {
            kind: found[kind]
            for kind in ("last", "best")
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
    if recorded.read_bytes().strip() != _checksum(prefix).encode():
        return "its checksum does not match"
    return None


def _checksum(prefix):
    digest = hashlib.sha256()
    for file in sorted(prefix.parent.glob(prefix.name + ".*")):
        if file.suffix != ".sha256":
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
