"""An .npz file with the arrays of Keras's mnist.npz."""

import zipfile
import zlib

import numpy as np

from mart_tf.data import checks
from mart_tf.data import splits

# What numpy and zipfile raise on a file that is not as it was written.
_DAMAGE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


def load(path):
    """Reads x_train, y_train, x_test and y_test.

    Images are `[n, height, width]` or `[n, height, width, channels]`, uint8 or
    floating point in [0, 1] (kept as float32); labels are integers `[n]` or
    `[n, 1]` from 0, each class with at least one training example.

    Raises:
        ValueError: If an array is anything else.
    """
    path = checks.npz_file(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {key: archive[key] for key in checks.NPZ_KEYS}
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is damaged ({error}); write it again with "
            "numpy.savez_compressed."
        ) from error
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


def _half(found, half):
    images = _images(f"x_{half}", found[f"x_{half}"])
    labels = _labels(f"y_{half}", found[f"y_{half}"])
    if len(images) != len(labels):
        raise ValueError(
            f"x_{half} has {len(images)} images and y_{half} {len(labels)} "
            "labels; expected as many of each."
        )
    return images, labels


def _images(key, images):
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"{key} has shape {images.shape}; expected [n, height, width] or "
            "[n, height, width, channels]."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"{key} has dtype {images.dtype}; expected uint8, or floating "
            "point in [0, 1]."
        )
    # Not (inside) is true of NaN as well.
    outside = images[~((images >= 0) & (images <= 1))]
    if outside.size:
        raise ValueError(
            f"{key} holds the pixel {outside[0]}; expected floating point in "
            "[0, 1], or uint8 from 0 to 255."
        )
    return images.astype(np.float32)


def _labels(key, labels):
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{key} has dtype {labels.dtype} and shape {labels.shape}; "
            "expected whole numbers, [n] or [n, 1]."
        )
    return labels


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
