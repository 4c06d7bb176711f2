"""Bad images and labels, refused with one sentence before work starts."""

import keras
import numpy as np

# A range with less room than this is not taken for one of grey levels.
_LEVELS = 16


def images(values, threat, what="images"):
    """Refuses images that the threat model's pixel range does not fit.

    Args:
        values: Array `[n, ...]`.
        threat: The `ThreatModel`.
        what: How the message names the array.

    Raises:
        ValueError: On integer pixels, values that are not finite, values
            outside the pixel range, or fractions in [0, 1] alone where the
            range is one of many grey levels.
    """
    values = np.asarray(values)
    expected = (
        f"expected floats in [{threat.pixel_min:g}, {threat.pixel_max:g}]"
    )
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"The {what} are {values.dtype}; {expected}: convert them, for "
            "example images.astype('float32') / 255."
        )
    if not values.size:
        raise ValueError(f"There are no {what}; expected at least one.")
    least, greatest = float(values.min()), float(values.max())
    if not np.isfinite([least, greatest]).all():
        raise ValueError(f"The {what} hold NaN or infinite pixels; {expected}.")
    # Rounding of a resize or a division may step a hair outside.
    slack = 1e-6 * (threat.pixel_max - threat.pixel_min)
    if least < threat.pixel_min - slack or greatest > threat.pixel_max + slack:
        raise ValueError(
            f"The {what} lie in [{least:g}, {greatest:g}]; {expected}: scale "
            "them, or give ThreatModel their pixel_min and pixel_max."
        )
    # Images may be dark, or blank: levels 0 and 1 are let through. Fractions,
    # and nothing above 1, were divided by the greatest level.
    width = threat.pixel_max - threat.pixel_min
    in_shares = least >= 0.0 and greatest <= 1.0 and least < greatest
    if in_shares and width >= _LEVELS and (values % 1.0 != 0.0).any():
        raise ValueError(
            f"The {what} lie in [{least:g}, {greatest:g}], where the threat "
            f"model's pixels go from {threat.pixel_min:g} to "
            f"{threat.pixel_max:g}; {expected}: images in [0, 1] are spread "
            "over that range first, or ThreatModel is given pixel_min=0, "
            "pixel_max=1 and an epsilon of that range."
        )


def form(dataset):
    """Refuses a data set whose elements are no batches of examples.

    Args:
        dataset: A tf.data.Dataset.

    Raises:
        ValueError: With one sentence.
    """
    spec = dataset.element_spec
    inputs, label, _ = keras.utils.unpack_x_y_sample_weight(spec)
    if isinstance(inputs, dict) and "image" not in inputs:
        raise ValueError(
            f"The dataset's inputs are {', '.join(map(repr, inputs))}; "
            'expected "image" among them.'
        )
    image = inputs["image"] if isinstance(inputs, dict) else inputs
    if label is None:
        raise ValueError(
            "The dataset has images alone; expected batches of (images, "
            "labels)."
        )
    if label.shape.rank == 0 or image.shape.rank in (0, 1):
        raise ValueError(
            "The dataset gives one example at a time; expected batches: "
            "dataset.batch(64)."
        )


def shape(images, expected, name):
    """Refuses images of another shape than a classifier takes.

    Args:
        images: `[n, ...]`.
        expected: The shape of an image, None for any size.
        name: The classifier's.

    Raises:
        ValueError: With one sentence.
    """
    given = tuple(images.shape[1:])
    pairs = zip(given, expected, strict=False)
    if len(given) != len(expected) or any(b not in (None, a) for a, b in pairs):
        raise ValueError(
            f"The images have shape {given}; the classifier {name!r} takes "
            f"{expected}."
        )


def labels(values, classes, what="labels"):
    """Refuses labels that do not name one of the classes.

    Args:
        values: Integer classes `[n]` or `[n, 1]`, or one-hot `[n, classes]`.
        classes: Number of classes.
        what: How the message names the array.

    Returns:
        The labels as int32 `[n]`.

    Raises:
        ValueError: On another shape, soft labels, fractions, or a label
            outside the classes.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"The {what} are {values.dtype}; expected integers, one for each "
            "class."
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.shape[1] == classes:
        if not (np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all()):
            raise ValueError(
                f"The {what} of shape {values.shape} are soft; expected one 1 "
                "and zeros in each row, or integer classes: soft labels have "
                "no class to attack."
            )
        return values.argmax(1).astype("int32")
    if values.ndim != 1:
        raise ValueError(
            f"The {what} have shape {values.shape}; expected [n], [n, 1] or "
            f"one-hot [n, {classes}]."
        )
    if values.size and not (values == np.floor(values)).all():
        raise ValueError(f"The {what} hold fractions; expected whole numbers.")
    if values.size and not (values.min() >= 0 and values.max() < classes):
        outside = values[(values < 0) | (values >= classes)][0]
        raise ValueError(
            f"The {what} hold {outside:g}; the network has {classes} outputs, "
            f"so expected classes from 0 to {classes - 1}."
        )
    return values.astype("int32")
