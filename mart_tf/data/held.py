"""Arrays in memory that tensors are over, without a copy.

TensorFlow takes memory as it lies only where it begins at a multiple of 64
bytes, which numpy's does not; what it copies it holds twice while it does so.
"""

import math

from mart_tf import lazy
from mart_tf import limits

_ALIGNMENT = 64


def empty(what, shape, dtype):
    """An array that `tensor` does not copy; what it holds is yet to be set.

    Args:
        what: How the message names it.
        shape, dtype: Its own.

    Raises:
        ValueError: If there is less memory than it takes.
    """
    numpy = lazy.load("numpy")
    size = math.prod(shape) * numpy.dtype(dtype).itemsize
    limits.check_ram(what, size)
    block = numpy.empty(size + _ALIGNMENT, numpy.uint8)
    begin = -block.ctypes.data % _ALIGNMENT
    return block[begin : begin + size].view(dtype).reshape(shape)


def of(what, array, dtype):
    """An array as it is, or where it lies or is otherwise, a copy as `empty`.

    Args:
        what: How the message names it.
        array: An array.
        dtype: What the result holds.

    Raises:
        ValueError: As `empty`.
    """
    if array.dtype == dtype and _fits(array):
        return array
    copy = empty(what, array.shape, dtype)
    copy[...] = array
    return copy


def tensor(array):
    """A tensor over the memory of an array of `of`, which must not change."""
    import tensorflow as tf

    if not _fits(array):
        raise ValueError("The array is not one of mart_tf.data.held.")
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _fits(array):
    flags = array.flags
    is_ours = flags.c_contiguous and flags.writeable and array.dtype.isnative
    return is_ours and array.ctypes.data % _ALIGNMENT == 0
