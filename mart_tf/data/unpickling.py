"""Arrays out of a pickle, without executing anything that it says.

Unpickling calls what the file names. Here it may name what numpy's arrays of
numbers are pickled with, and gets stand-ins of this module in their place.
numpy's own would be unsafe: a pickle may set the state of numpy.dtype, and one
whose flags lie makes numpy take bytes of the file for addresses. What would
exhaust the interpreter is refused before, see `opcodes`.
"""

import functools
import os
import pickle
import re

import numpy as np

from mart_tf import limits
from mart_tf.data import names
from mart_tf.data import opcodes

# Booleans, integers, floating point, and text of a fixed width.
_PLAIN = re.compile(r"[biuf][1248]|[SU][1-9]\d*")
# Of a number or text beside the arrays, which is copied wherever it is named.
_SCALAR_BYTES = 4096


def load_pool(path):
    """Reads `data` and `extrapolated_targets`, as in Carmon et al.'s file.

    Args:
        path: A pickle of a dict: `data`, images as `Pool` takes them, and,
            where there are labels, `extrapolated_targets`, integers `[n]`.

    Returns:
        The fields of a `Pool`, without its name.

    Raises:
        ValueError: If it is not such a dict; as `load`.
    """
    arrays = load(path)
    for key in ("data", "extrapolated_targets"):
        present = key in arrays or key == "data"
        if present and not isinstance(arrays.get(key), np.ndarray):
            raise ValueError(
                f"{path} holds no array {key}; expected a dict with the array "
                "data and, where there are labels, extrapolated_targets."
            )
    return {
        "images": arrays["data"],
        "labels": arrays.get("extrapolated_targets"),
    }


def load(path):
    """The dict that a pickle holds, the arrays in it as numpy's.

    Args:
        path: A pickle of any protocol, of Python 2 too.

    Raises:
        ValueError: If there is no such file, it is damaged, it asks for more
            than arrays of numbers and builtin containers, or for more memory
            or time than its size explains, or holds no dict.
    """
    path = names.file(path)
    with limits.opened(path) as file:
        content = _load(path, file)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no dict; expected one of arrays.")
    return {
        key: value.value if isinstance(value, _StandIn) else value
        for key, value in content.items()
    }


def _load(path, file):
    size = os.fstat(file.fileno()).st_size
    limits.check_ram(path, size)
    file.most = size
    try:
        opcodes.check(file, size)
        file.seek(0)
        # Python 2 wrote bytes as what is now read as text.
        return _Unpickler(file, encoding="latin1").load()
    except (_Refused, opcodes.TooMuch) as error:
        raise ValueError(
            f"{path} holds {error}; a pool's pickle may hold arrays of "
            "numbers in a dict and nothing else: nothing of it was executed."
        ) from None
    except Exception as error:
        # A damaged pickle may end in nearly any error.
        raise ValueError(
            f"{path} is not a pickle of arrays, or is damaged; write it again."
        ) from error
    finally:
        _encoded.cache_clear()


@functools.cache
def _encoded(text):
    """The bytes that text stands for, once however often they are asked for."""
    return text.encode("latin1")


class _Refused(ValueError):
    """Names what a pickle may not hold."""


def _named(value):
    """Text for a message; the repr of anything else may have no end."""
    return ascii(value)[:80] if isinstance(value, str) else type(value).__name__


class _StandIn:
    """What a pickle gets for a class or a function that it names.

    Every stand-in has a `__setstate__`: of what has none, a pickle could set
    the attributes, those of this module's classes too.
    """

    value = None

    def __setstate__(self, state):
        raise TypeError(f"unexpected state of {type(self).__name__}")


class _Dtype(_StandIn):
    """numpy.dtype."""

    def __init__(self, code, align=False, copy=False):
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise _Refused(f"an array of the kind {_named(code)}")
        self.value = np.dtype(code)

    def __setstate__(self, state):
        # The rest of the state is that of fields, which are refused.
        self.value = self.value.newbyteorder(state[1])


class _Array(_StandIn):
    """numpy.core.multiarray._reconstruct: an array whose state follows."""

    def __init__(self, kind, shape, code):
        del kind, shape, code  # Those of an empty array.

    def __setstate__(self, state):
        *_, shape, dtype, by_columns, content = state
        order = "F" if by_columns else "C"
        self.value = _array(content, dtype, shape, order)


class _Buffer(_StandIn):
    """numpy.core.numeric._frombuffer: an array of protocol 5."""

    def __init__(self, content, dtype, shape, order, axes=None):
        self.value = _array(content, dtype, shape, order.replace("K", "C"))
        if axes is not None:
            self.value = self.value.transpose(axes)


class _Scalar(_StandIn):
    """numpy.core.multiarray.scalar."""

    def __init__(self, dtype, content):
        array = _array(content, dtype, (), "C")
        if array.nbytes > _SCALAR_BYTES:
            raise _Refused(f"a number or text of {array.nbytes} bytes")
        self.value = array[()]


class _Bytes(_StandIn):
    """_codecs.encode: how protocols below 3 write bytes."""

    def __init__(self, text, encoding):
        if encoding != "latin1":
            raise _Refused(f"text in the encoding {_named(encoding)}")
        self.value = _encoded(text)


def _array(content, dtype, shape, order):
    if isinstance(content, _Bytes):
        content = content.value
    if isinstance(content, str):
        content = _encoded(content)
    if not isinstance(dtype, _Dtype):
        raise TypeError("an array without a dtype")
    return np.frombuffer(content, dtype.value).reshape(shape, order=order)


_STAND_INS = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _StandIn,
    "_codecs.encode": _Bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray._reconstruct"] = _Array
    _STAND_INS[f"{_core}.multiarray.scalar"] = _Scalar
    _STAND_INS[f"{_core}.numeric._frombuffer"] = _Buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        asked = f"{module}.{name}"
        if asked not in _STAND_INS:
            raise _Refused(ascii(asked)[1:-1][:200])
        return _STAND_INS[asked]
