"""An .npz file with the arrays of Keras's mnist.npz, or with a pool."""

import zipfile
import zlib

import numpy as np

from mart_tf.data import conversion
from mart_tf.data import names
from mart_tf.data import splits

# What numpy and zipfile raise on a file that is not as it was written.
_DAMAGE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)

_SINGLE = {str: "text", float: "number"}


def load(path):
    """Reads x_train, y_train, x_test and y_test.

    Images are `[n, height, width]` or `[n, height, width, channels]`, uint8 or
    floating point in [0, 1] (kept as float32); labels are integers `[n]` or
    `[n, 1]` from 0, each class with at least one training example.

    Raises:
        ValueError: If an array is anything else.
    """
    return of_arrays(_read(names.npz_file(path), names.NPZ_KEYS))


def of_arrays(found):
    """The `splits.Source` of x_train, y_train, x_test and y_test, a dict.

    Raises:
        ValueError: As `load`.
    """
    x_train, y_train = _half(found, "train")
    x_test, y_test = _half(found, "test")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"x_train has images of shape {x_train.shape[1:]} and x_test of "
            f"{x_test.shape[1:]}; expected one shape."
        )
    classes = _classes(y_train, y_test)
    return splits.Source(
        class_names=tuple(str(number) for number in range(classes)),
        train=splits.memory_split(x_train, y_train),
        test=splits.memory_split(x_test, y_test),
    )


def load_pool(path):
    """Reads `image`, and where they are there, what else a pool has.

    Args:
        path: A file that `labeling.label_pool` wrote, or any with an array
            `image` and perhaps `label`, as `Pool` takes them, and a text
            `labeled_by`.

    Returns:
        The fields of a `Pool`, without its name.

    Raises:
        ValueError: If there is no array `image`, or the file is damaged.
    """
    found = _read(names.npz_pool(path), names.NPZ_POOL_KEYS)
    fields = {"images": found["image"], "labels": found.get("label")}
    for key, kind in (("labeled_by", str), ("mean_confidence", float)):
        if key in found:
            try:
                fields[key] = kind(found[key].item())
            except ValueError:
                raise ValueError(
                    f"{key} of {path} is no single {_SINGLE[kind]}; leave it "
                    "out, or write it as label_pool does."
                ) from None
    return fields


def _read(path, keys):
    """Those of the arrays that the file has."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in keys if key in archive}
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is damaged ({error}); write it again with "
            "numpy.savez_compressed."
        ) from error


def _half(found, half):
    images = conversion.images(f"x_{half}", found[f"x_{half}"])
    labels = conversion.labels(f"y_{half}", found[f"y_{half}"])
    if len(images) != len(labels):
        raise ValueError(
            f"x_{half} has {len(images)} images and y_{half} {len(labels)} "
            "labels; expected as many of each."
        )
    return images, labels


def _classes(y_train, y_test):
    present = np.unique(y_train)
    if present[0] < 0:
        raise ValueError(
            f"y_train holds the label {present[0]}; expected classes from 0."
        )
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if gaps.size:
        raise ValueError(
            f"y_train holds the label {present[gaps[0]]} but no label "
            f"{gaps[0]}; expected the classes 0, 1, 2 and so on, each with an "
            "example."
        )
    classes = len(present)
    if classes < 2:
        raise ValueError("y_train holds one class; expected at least two.")
    strange = y_test[(y_test < 0) | (y_test >= classes)]
    if strange.size:
        raise ValueError(
            f"y_test holds the label {strange[0]}; expected labels from 0 to "
            f"{classes - 1}, as in y_train."
        )
    return classes
