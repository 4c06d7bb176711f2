"""One checkpoint on disk: TensorFlow's files, and its checksum after them."""

import hashlib
import json
import re
import shutil

import numpy as np
import tensorflow as tf

from mart_tf import errors
from mart_tf import files
from mart_tf import limits

_NEWEST = "newest.json"
_CUT_OFF = "writing it was cut off"


def folder_of(folder, kind):
    """Where, of all checkpoints, those of a kind lie."""
    return folder if kind == "last" else folder / kind


def write(folder, state, number):
    """Writes a checkpoint; what is older than the one before it goes.

    One of that number that is sound stays as it is: a run is the same whenever
    it comes to a step, and while a file is written anew it is none.

    Args:
        folder: Of those of its kind.
        state: A `tf.train.Checkpoint`.
        number: Its N.

    Raises:
        OSError: If the disk has no room.
    """
    prefix = folder / f"ckpt-{number}"
    if number in whole(folder) and _fault(prefix) is None:
        return
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
    kept = [n for n in whole(folder) if n < number]
    _keep(folder, kept)
    state.write(str(prefix))
    # The checksum stands for content that no power cut takes away.
    for file in _files(prefix):
        files.sync(file)
    files.replace_text(
        prefix.with_name(prefix.name + ".sha256"),
        _checksum(_files(prefix)) + "\n",
    )
    files.sync(folder)
    _keep(folder, [number, max(kept, default=number)])


def whole(folder):
    """The numbers of the checkpoints that were written to their end."""
    numbers = map(number_of, folder.glob("ckpt-*.sha256"))
    return [number for number in numbers if number is not None]


def restore_newest(folder, state, kind, above=-1):
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
    expected = newest(folder).get(kind)
    folder = folder_of(folder, kind)
    numbers = {number_of(file) for file in folder.glob("ckpt-*.*")}
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


def newest(folder):
    """The numbers of each kind as far as `newest.json` tells."""
    try:
        recorded = limits.read_json(folder / _NEWEST)
        return {
            kind: recorded[kind]
            for kind in ("last", "best", "within")
            if isinstance(recorded.get(kind), int)
        }
    # A run of an earlier version has none.
    except (OSError, ValueError, AttributeError):
        return {}


def name_newest(folder, numbers):
    """Writes what `newest` reads."""
    files.replace_text(folder / _NEWEST, json.dumps(numbers) + "\n")


def number_of(path):
    """N of `ckpt-N` or `ckpt-N.index`; None of another name."""
    match = re.fullmatch(r"ckpt-(\d{1,18})([._].*)?", path.name)
    return match and int(match.group(1))


def _keep(folder, numbers):
    """Removes all checkpoints but those of some numbers."""
    kept = {None, *numbers}
    others = [f for f in folder.glob("ckpt-*") if number_of(f) not in kept]
    # Without its checksum what is left of one is none.
    for path in sorted(others, key=lambda path: path.suffix != ".sha256"):
        if path.is_dir():
            # In which TensorFlow was writing when it was cut off.
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _fault(prefix):
    """What is wrong with a checkpoint's files, or None."""
    recorded = prefix.with_name(prefix.name + ".sha256")
    if not any(prefix.parent.glob(prefix.name + ".*")):
        return "it has gone"
    if not recorded.is_file():
        return _CUT_OFF
    parts = _files(prefix)
    if not all(part.is_file() for part in parts):
        return "not all of it are regular files"
    try:
        matches = limits.read_text(recorded).strip() == _checksum(parts)
    except ValueError:
        matches = False
    return None if matches else "its checksum does not match"


def _files(prefix):
    """What TensorFlow wrote of a checkpoint."""
    beside = sorted(prefix.parent.glob(prefix.name + ".*"))
    return [file for file in beside if file.suffix != ".sha256"]


def _checksum(parts):
    digest = hashlib.sha256()
    for path in parts:
        digest.update(path.name.encode())
        with limits.opened(path) as content:
            while part := content.read(2**20):
                digest.update(part)
    return digest.hexdigest()
