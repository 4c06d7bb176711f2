"""An .npz file with the arrays of Keras's mnist.npz, or with a pool."""

import dataclasses

import numpy as np

from mart_tf.data import archives
from mart_tf.data import conversion
from mart_tf.data import names
from mart_tf.data import splits

_SINGLE = {str: "text", float: "number"}


def load(path):
    """Reads x_train, y_train, x_test and y_test.

    Images are `[n, height, width]` or `[n, height, width, channels]`, uint8,
    booleans (kept as uint8 of 0 and 255) or floating point in [0, 1] (kept as
    float32); labels are integers `[n]` or `[n, 1]` from 0, each class with at
    least one training example.

    Raises:
        ValueError: If an array is anything else; as `archives.read`.
    """
    file = names.npz_file(path)
    arrays = archives.read(file, names.NPZ_KEYS)
    source = of_arrays(arrays, f" of {path}")
    trained_on = [arrays[key] for key in ("x_train", "y_train")]
    return dataclasses.replace(source, fingerprint=archives.digest(trained_on))


def of_arrays(arrays, place=""):
    """The `splits.Source` of x_train, y_train, x_test and y_test, a dict.

    Args:
        arrays: By name.
        place: Where they are from, as messages say it after an array's name.

    Raises:
        ValueError: As `load`.
    """
    x_train, y_train = _half(arrays, "train", place)
    x_test, y_test = _half(arrays, "test", place)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"x_train{place} has images of shape {x_train.shape[1:]} and "
            f"x_test of {x_test.shape[1:]}; expected one shape."
        )
    classes = _classes(y_train, y_test, place)
    return splits.Source(
        class_names=tuple(str(number) for number in range(classes)),
        train=splits.numbered(x_train, y_train),
        test=splits.numbered(x_test, y_test),
    )


def load_pool(path):
    """Reads `image`, and where they are there, what else a pool has.

    Args:
        path: A file that `labeling.label_pool` wrote, or any with an array
            `image` and perhaps `label`, as `Pool` takes them, and a text
            `labeled_by`.

    Returns:
        The fields of a `Pool`, without its name. Images that are stored
        without compression, as uint8 or float32, stay in the file.

    Raises:
        ValueError: If there is no array `image`; as `archives.read`.
    """
    arrays = archives.read(
        names.npz_pool(path), names.NPZ_POOL_KEYS, mapped=["image"]
    )
    fields = {"images": arrays["image"], "labels": arrays.get("label")}
    for key, kind in (("labeled_by", str), ("mean_confidence", float)):
        if key in arrays:
            try:
                fields[key] = kind(arrays[key].item())
            except (TypeError, ValueError):
                raise ValueError(
                    f"{key} of {path} is no single {_SINGLE[kind]}; leave it "
                    "out, or write it as label_pool does."
                ) from None
    return fields


def _half(arrays, half, place):
    images = conversion.images(f"x_{half}{place}", arrays[f"x_{half}"])
    labels = conversion.labels(f"y_{half}{place}", arrays[f"y_{half}"])
    if len(images) != len(labels):
        raise ValueError(
            f"x_{half}{place} has {len(images)} images and y_{half} "
            f"{len(labels)} labels; expected as many of each."
        )
    return images, labels


def _classes(y_train, y_test, place):
    present = np.unique(y_train)
    if present[0] < 0:
        raise ValueError(
            f"y_train{place} holds the label {present[0]}; expected classes "
            "from 0."
        )
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if gaps.size:
        raise ValueError(
            f"y_train{place} holds the label {present[gaps[0]]} but no label "
            f"{gaps[0]}; expected the classes 0, 1, 2 and so on, each with an "
            "example."
        )
    classes = len(present)
    if classes < 2:
        raise ValueError(
            f"y_train{place} holds one class; expected at least two."
        )
    strange = y_test[(y_test < 0) | (y_test >= classes)]
    if strange.size:
        raise ValueError(
            f"y_test{place} holds the label {strange[0]}; expected labels "
            f"from 0 to {classes - 1}, as in y_train."
        )
    return classes
