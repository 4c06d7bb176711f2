"""The adversarial images of an evaluation, on disk: a file for each attack.

directory/
  adversarial/<attack>.npz      what the attack made of every example
  adversarial/worst_case.npz    of each example the first image that broke it
"""

import contextlib
import os
import pathlib
import re
import shutil

import numpy as np

from mart_tf import limits
from mart_tf.reports import results

FOLDER = "adversarial"
_LONGEST_NAME = 100
# What a file has, and what tells it from a file of somebody else.
_ARRAYS = (
    "image",
    "label",
    "prediction",
    "broken",
    "attack",
    "norm",
    "epsilon",
)


def remove(directory):
    """Removes the images of an earlier evaluation from a report's folder.

    Those of one that was not finished go too. Other files stay, and with them
    the folder that they lie in.
    """
    shutil.rmtree(_unfinished(directory), ignore_errors=True)
    _remove_finished(directory)


def _remove_finished(directory):
    folder = pathlib.Path(directory, FOLDER)
    for path in folder.glob("*.npz"):
        if _is_ours(path):
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _unfinished(directory):
    """Where a `Writer` writes before all are there."""
    return pathlib.Path(directory, f".{FOLDER}.partial")


def _is_ours(path):
    """Whether a `Writer` wrote a file."""
    try:
        with limits.archive(path, "an .npz file", ()) as archive:
            return {*archive.namelist()} == {f"{name}.npy" for name in _ARRAYS}
    except ValueError:
        return False


class Writer:
    """Writes the images of one attack after the other, then all at once.

    Each file has a row for each example, in the order of the evaluation:
    `image` float32 as the network got it, `label`, `prediction` (int32; -1
    where the scores are NaN), `broken` (bool: misclassified, for an attack
    that minimises a distance within its radius), and `attack`, `norm`,
    `epsilon` (that radius). An example that is misclassified without attack is
    there as it is. One that stands is there as the attack left it.

    Args:
        directory: Of the report.
        images: Natural examples, float32 array `[n, ...]`.
        labels: int32 array `[n]`.
        threat: The `ThreatModel`.
        predictions: Classes without attack, int32 array `[n]`.
    """

    def __init__(self, directory, images, labels, threat, predictions):
        self._directory = pathlib.Path(directory)
        self._temporary = _unfinished(directory)
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)
        self._natural = images, predictions
        self._labels = labels
        self._threat = threat
        self._names = set()
        self._worst = images.copy(), predictions.copy()
        self._fallen = predictions != labels
        self.begin()

    def begin(self):
        """Starts the file of an attack: all examples are as they were."""
        images, predictions = self._natural
        self._made = images.copy(), predictions.copy()

    def put(self, rows, images, predictions):
        """What the attack, or the next of an ensemble, made of some rows."""
        for array, values in zip(
            self._made, (images, predictions), strict=True
        ):
            array[rows] = values

    def end(self, result):
        """Writes the file of the attack that a `Result` is of."""
        broken = ~result.outcome
        within = self._threat.norm, self._threat.epsilon
        if result.norm is not None:
            within = result.norm, result.radius
        self._write(result.name, self._made, broken, within)
        if result.norm is not None:
            return
        for worst, made in zip(self._worst, self._made, strict=True):
            worst[~self._fallen] = made[~self._fallen]
        self._fallen |= broken

    def finish(self):
        """Writes the worst case, the last file."""
        within = self._threat.norm, self._threat.epsilon
        self._write(results.WORST_CASE, self._worst, self._fallen, within)

    def close(self):
        """Puts all files where they belong."""
        _remove_finished(self._directory)
        folder = self._directory / FOLDER
        folder.mkdir(exist_ok=True)
        for path in self._temporary.iterdir():
            os.replace(path, folder / path.name)
        self._temporary.rmdir()

    def _write(self, name, made, broken, within):
        image, prediction = made
        norm, epsilon = within
        arrays = image, self._labels, prediction, broken, name, norm, epsilon
        np.savez_compressed(
            self._temporary / f"{self._file_name(name)}.npz",
            **dict(zip(_ARRAYS, arrays, strict=True)),
        )

    def _file_name(self, name):
        """A name that every file system takes, of no other attack."""
        plain = re.sub(r"[^\w.=+-]+", "_", name)[:_LONGEST_NAME]
        chosen, number = plain, 1
        while chosen in self._names:
            number += 1
            chosen = f"{plain}-{number}"
        self._names.add(chosen)
        return chosen
