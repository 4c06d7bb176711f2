"""What an unfinished evaluation has done, on disk, so that it can go on.

directory/
  identity.json   what is evaluated and how: another evaluation is refused
  <key>.npz       the arrays of one finished piece of work, written whole
"""

import contextlib
import hashlib
import json
import pathlib
import warnings

import numpy as np

from mart_tf import files
from mart_tf import limits
from mart_tf.data import archives

# Of an evaluation, in the folder of its report.
FOLDER = "partial"
_IDENTITY = "identity.json"
# What stands under this name in an identity is the same but for rounding.
SCORES = "scores"
# Of the greatest score: rounding stays below it, on a GPU too.
_ROUNDING = 1e-3
# The name of what is kept beside the arrays of a piece.
_CHECKSUM = "sha256"


class Unfinished:
    """The finished pieces of one evaluation.

    Args:
        directory: Where they lie; None keeps nothing.
        identity: Called for a JSON dict that tells this evaluation from
            others, where something is kept; None, where nothing can tell it
            from others, keeps nothing.

    Raises:
        ValueError: If the directory holds pieces of another evaluation.
    """

    def __init__(self, directory, identity):
        self._folder = None if directory is None else pathlib.Path(directory)
        if self._folder is None:
            return
        path, identity = self._folder / _IDENTITY, identity()
        if identity is None:
            self._folder = None
            return
        if any(self._folder.glob("*.npz")):
            earlier = _read(path)
            if earlier is not None:
                _check_same(self._folder, earlier, identity)
                return
            warnings.warn(
                f"{path} is missing or damaged, so that nobody knows what the "
                "pieces beside it are of: their work is done again.",
                stacklevel=2,
            )
            self.clear()
        self._folder.mkdir(parents=True, exist_ok=True)
        files.replace_text(path, json.dumps(identity, indent=2) + "\n")

    def __call__(self, key, work):
        """The arrays of a piece of work, done now if it was not before.

        What is kept and damaged, by a disk that filled up, say, is done again.

        Args:
            key: What tells it from other pieces, a string.
            work: Called without arguments; returns a dict of arrays.
        """
        if self._folder is None:
            return work()
        arrays = self.read(key)
        if arrays is None:
            path = self._path(key)
            arrays = {name: np.asarray(array) for name, array in work().items()}
            checksum = np.array(_checksum(key, arrays))
            with files.whole(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays, **{_CHECKSUM: checksum})
        return arrays

    def read(self, key):
        """The arrays of a piece of work; None if they are not there, whole."""
        if self._folder is None:
            return None
        path = self._path(key)
        return _arrays(path, key) if path.exists() else None

    def _path(self, key):
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        return self._folder / f"{name}.npz"

    def clear(self):
        """Removes the pieces: the report holds what they held."""
        if self._folder is None:
            return
        done = [*self._folder.glob("*.npz"), self._folder / _IDENTITY]
        # What a process that was killed left half written.
        for path in [*done, *self._folder.glob(".*.partial*")]:
            path.unlink(missing_ok=True)
        # Somebody's own files may lie there too.
        if not any(self._folder.iterdir()):
            self._folder.rmdir()


def close(first, second):
    """Whether scores are the same but for rounding.

    Args:
        first, second: Arrays, or lists of the same shape; None is NaN.
    """
    first, second = (np.array(each, np.float64) for each in (first, second))
    if first.shape != second.shape:
        return False
    scale = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    return np.allclose(first, second, 0.0, _ROUNDING * scale, equal_nan=True)


def _read(path):
    """What tells an evaluation from others; None if that is damaged."""
    try:
        identity = limits.read_json(path)
    except ValueError:
        return None
    return identity if isinstance(identity, dict) else None


def _check_same(folder, earlier, identity):
    different = [
        key for key in identity if not _same(earlier.get(key), identity[key])
    ]
    if different:
        raise ValueError(
            f"{folder} holds an unfinished evaluation with another "
            f"{' and '.join(different)}; finish it with the settings that it "
            "began with, or remove that folder."
        )


def _same(one, other):
    """Whether two JSON values are the same, scores but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            (close if key == SCORES else _same)(one[key], other[key])
            for key in one
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _checksum(key, arrays):
    """Of a piece: what it is, the names of its arrays, and all in them."""
    names = sorted(arrays)
    whole = archives.digest(arrays[name] for name in names)
    return hashlib.sha256(json.dumps([key, names, whole]).encode()).hexdigest()


def _arrays(path, key):
    """The arrays of a finished piece; None, and a warning, if it is damaged."""
    with contextlib.suppress(ValueError, LookupError):
        arrays = archives.read(path)
        if arrays.pop(_CHECKSUM).item() == _checksum(key, arrays):
            return arrays
    warnings.warn(
        f"{path} is damaged: the work that it held is done again.",
        stacklevel=3,
    )
    return None
