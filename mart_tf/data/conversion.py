"""Images and labels of the forms that are read, in the one that is kept."""

from mart_tf.data import mapping


def images(what, array):
    """Images of any of the forms that are read, in the one form of splits.

    Args:
        what: How messages name the array.
        array: `[n, height, width]` or `[n, height, width, channels]`, uint8 or
            floating point in [0, 1].

    Returns:
        `[n, height, width, channels]`: uint8, or float32. What is mapped stays
        so: it is float32 already.

    Raises:
        ValueError: If it is anything else.
    """
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ValueError(
            f"{what} has shape {array.shape}; expected [n, height, width] or "
            "[n, height, width, channels]."
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.dtype == "uint8":
        return array
    if array.dtype.kind != "f":
        raise ValueError(
            f"{what} has dtype {array.dtype}; expected uint8, or floating "
            "point in [0, 1]."
        )
    for part in mapping.parts(array):
        # Not (inside) is true of NaN as well.
        outside = part[~((part >= 0) & (part <= 1))]
        if outside.size:
            raise ValueError(
                f"{what} holds the pixel {outside[0]}; expected floating point "
                "in [0, 1], or uint8 from 0 to 255."
            )
    return array if mapping.is_mapped(array) else array.astype("float32")


def labels(what, array):
    """Integer labels `[n]` from `[n]` or `[n, 1]`.

    Raises:
        ValueError: If the array, which messages name `what`, is neither.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{what} has dtype {array.dtype} and shape {array.shape}; "
            "expected whole numbers, [n] or [n, 1]."
        )
    return array
