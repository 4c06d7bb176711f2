"""Images and labels of the forms that are read, in the one that is kept."""

from mart_tf import lazy
from mart_tf.data import held
from mart_tf.data import mapping

_IMAGES = "[n, height, width] or [n, height, width, channels]"
# Of an image; more are its height or width.
_MOST_CHANNELS = 16
_LABELS = "whole numbers, [n] or [n, 1]"


def images(what, given):
    """Images of any of the forms that are read, in the one form of splits.

    Args:
        what: How messages name the array.
        given: An array, or what `numpy.asarray` makes one of, `[n, height,
            width]` or `[n, height, width, channels]`, uint8 from 0 to 255,
            booleans, or floating point in [0, 1].

    Returns:
        `[n, height, width, channels]`: uint8, 0 and 255 of booleans, or
        float32. What is mapped stays so: it is uint8 or float32 already.

    Raises:
        ValueError: If it is anything else, among it `[n, 3, height, width]`,
            and uint8 of 0 and 1 alone.
    """
    stacked = f"{_IMAGES}, as numpy.stack makes of images of one size"
    array = _array(what, given, stacked)
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ValueError(f"{what} has shape {array.shape}; expected {_IMAGES}.")
    _check_channels_are_last(what, array.shape)
    if array.ndim == 3:
        array = array[..., None]
    if array.dtype.kind == "b":
        array = held.of(what, array, "uint8")
        array *= 255
        return array
    if array.dtype == "uint8":
        if _greatest(array) == 1:
            raise ValueError(
                f"{what} holds uint8 pixels of 0 and 1 alone; expected 0 to "
                "255: multiply them by 255, or give booleans or floating point."
            )
        return _kept(what, array, "uint8")
    if array.dtype.kind != "f":
        raise ValueError(
            f"{what} has dtype {array.dtype}; expected uint8 from 0 to 255, "
            "booleans, or floating point in [0, 1]."
        )
    for part in mapping.parts(array):
        # Not (inside) is true of NaN as well.
        outside = part[~((part >= 0) & (part <= 1))]
        if outside.size:
            raise ValueError(
                f"{what} holds the pixel {outside[0]}; expected floating point "
                "in [0, 1], or uint8 from 0 to 255."
            )
    return _kept(what, array, "float32")


def _kept(what, array, dtype):
    """What splits hold: the array where it is mapped, or one of `held`."""
    return array if mapping.is_mapped(array) else held.of(what, array, dtype)


def _greatest(array):
    """The greatest pixel, or the first of a part that is above 1."""
    greatest = 0
    for part in mapping.parts(array):
        greatest = max(greatest, part.max())
        # Of photographs the first part tells, and the file is read no further.
        if greatest > 1:
            break
    return greatest


def _check_channels_are_last(what, shape):
    """Refuses PyTorch's layout, known by its 1 or 3 channels.

    Signals may be an image one pixel high, of as many channels as there were
    sensors.
    """
    if len(shape) != 4 or shape[1] not in (1, 3) or min(shape[2:]) <= 4:
        return
    if shape[2] == shape[3] or shape[3] > _MOST_CHANNELS:
        raise ValueError(
            f"{what} has shape {shape}, channels before height and width; "
            "expected [n, height, width, channels]: give its "
            "transpose(0, 2, 3, 1)."
        )


def labels(what, given):
    """Integer labels `[n]` from `[n]` or `[n, 1]`.

    Args:
        what: How messages name the array.
        given: An array, or what `numpy.asarray` makes one of.

    Raises:
        ValueError: If it is neither.
    """
    array = _array(what, given, _LABELS)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{what} has dtype {array.dtype} and shape {array.shape}; "
            f"expected {_LABELS}."
        )
    return array


def _array(what, given, expected):
    """numpy's array of what was given; one that is mapped stays so."""
    # Pools are checked by name and file before numpy is imported.
    numpy = lazy.load("numpy")
    reason = None
    try:
        array = numpy.asarray(given)
        if not array.dtype.hasobject:
            return array
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = error
    raise ValueError(
        f"{what}, of the type {type(given).__name__}, is no array of numbers; "
        f"expected {expected}."
    ) from reason
