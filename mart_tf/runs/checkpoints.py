"""Checkpoints that a fault cannot take away.

Each is written before an older one goes, with a checksum; weights that are
not finite, and a disk without room, are noticed before anything is written;
a damaged one is passed over for the one before it.
"""

import hashlib
import pathlib
import re
import shutil

import numpy as np
import tensorflow as tf

from mart_tf import choices
from mart_tf import files

_KEPT = 2


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
            The number of finished epochs (0 without a checkpoint), and a
            sentence for each damaged checkpoint that was passed over.

        Raises:
            ValueError: If there are checkpoints and all are damaged.
        """
        restored, warnings = _restore_newest(self._folder, self._state)
        if restored is None:
            return 0, warnings
        return int(self.epoch), warnings

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
        if accuracy is not None and self.is_best(accuracy):
            self.best_accuracy.assign(accuracy)
            _save(self._folder / "best", self._best, epoch)
        _save(self._folder, self._state, epoch)

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
    if checkpoint.startswith("best"):
        folder = folder / "best"
    state = tf.train.Checkpoint(classifier=_raw(classifier.weights))
    restored, warnings = _restore_newest(folder, state)
    if restored is None:
        raise ValueError(f"{folder} holds no checkpoint; train first.")
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


def _restore_newest(folder, state):
    prefixes = sorted(
        (file.with_suffix("") for file in folder.glob("ckpt-*.index")),
        key=_number,
        reverse=True,
    )
    warnings = []
    for prefix in prefixes:
        fault = _fault(prefix)
        if fault is None:
            try:
                status = state.read(str(prefix))
                status.assert_existing_objects_matched().expect_partial()
                return prefix, warnings
            except (tf.errors.OpError, AssertionError, ValueError) as error:
                fault = f"it cannot be read: {choices.first_line(error)}"
        warnings.append(f"Checkpoint {prefix} is damaged ({fault}).")
    if prefixes:
        raise ValueError(
            " ".join(warnings) + " No sound checkpoint is left; restore one "
            "from a backup, or train again in another workdir."
        )
    return None, warnings


def _number(prefix):
    return int(re.search(r"\d+$", prefix.name).group())


def _fault(prefix):
    """What is wrong with a checkpoint's files, or None."""
    recorded = prefix.with_name(prefix.name + ".sha256")
    if not recorded.exists():
        return "its checksum is missing: writing it was cut off"
    if recorded.read_text(encoding="utf-8").strip() != _checksum(prefix):
        return "its checksum does not match"
    return None


def _checksum(prefix):
    digest = hashlib.sha256()
    for file in sorted(prefix.parent.glob(prefix.name + ".*")):
        if file.suffix != ".sha256":
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
