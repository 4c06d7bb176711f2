"""Arrays of an .npz file, each looked at before it is read."""

import hashlib
import math
import struct
import zipfile

import numpy as np
from numpy.lib import format as npy

from mart_tf import limits
from mart_tf.data import held

# numpy's versions 1 and 2 of an .npy file; 3 is of records alone.
_HEADERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
# Booleans, integers, floating point, and text.
_KINDS = "biufSU"


# Images as batches take them: others are converted, which takes memory.
_MAPPED = ("uint8", "float32")
_BLOCK = 2**20


def read(path, keys=None, mapped=()):
    """Those of the arrays that the file has; nothing is unpickled.

    Args:
        path: The file.
        keys: Names of arrays; default: all of the file.
        mapped: Names of arrays of images that stay in the file where they are
            stored there as batches take them: not compressed, in C order, as
            uint8 or float32. They are looked at once from end to end.

    Returns:
        A dict of arrays.

    Raises:
        ValueError: As `limits.archive`; if a header does not fit its array's
            size, says that the array holds anything but numbers or text, or
            the file is damaged.
    """
    members = None if keys is None else [f"{key}.npy" for key in keys]
    stay = [f"{key}.npy" for key in mapped]
    with limits.archive(path, "an .npz file", members, stay) as archive:
        if members is None:
            members = archive.namelist()
        present = set(archive.namelist())
        return {
            member.removesuffix(".npy"): _array(
                path, archive, member, member in stay
            )
            for member in members
            if member in present
        }


def digest(arrays):
    """SHA-256 of arrays: their bytes, types and shapes."""
    sha256 = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        sha256.update(f"{array.dtype}{array.shape}".encode())
        sha256.update(array.data)
    return sha256.hexdigest()


def _array(path, archive, member, stays):
    info = archive.getinfo(member)
    stays = stays and info.compress_type == zipfile.ZIP_STORED
    try:
        with archive.open(member) as file:
            shape, in_columns, dtype = _header(file)
            begin = file.tell()
        fault = _fault(shape, dtype, info.file_size - begin)
        if fault is None and stays:
            if dtype in _MAPPED and not in_columns and math.prod(shape):
                return _mapped(archive, info, begin, shape, dtype)
            # It was not counted when the file was opened.
            limits.check_ram(path, info.file_size, limits.AS_IMAGES)
        if fault is None:
            return _read(path, archive, member, shape, in_columns, dtype)
    except limits.TooLarge:
        raise
    except limits.DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is damaged ({reason or type(error).__name__}); write it "
            "again with numpy.savez_compressed."
        ) from error
    name = member.removesuffix(".npy")[:80]
    raise ValueError(f"{name} of {path} {fault}")


def _read(path, archive, member, shape, in_columns, dtype):
    """An array of numbers or text in memory."""
    with archive.open(member) as file:
        if dtype not in _MAPPED or in_columns:
            return npy.read_array(file, allow_pickle=False)
        _header(file)
        array = held.empty(path, shape, dtype)
        content, end = array.reshape(-1).view("uint8"), 0
        while block := file.read(_BLOCK):
            begin, end = end, end + len(block)
            content[begin:end] = np.frombuffer(block, "uint8")
        return array


def _mapped(archive, info, begin, shape, dtype):
    """An array over the bytes of a member that is stored as it is."""
    if info.compress_size != info.file_size:
        raise ValueError(f"{info.filename[:80]} has two sizes")
    with archive.open(info) as file:
        # To its end, where zipfile compares the checksum.
        while file.read(_BLOCK):
            pass
    # Before the member stands a header of its own, as long as its name and
    # what follows that.
    archive.fp.seek(info.header_offset + 26)
    lengths = struct.unpack("<HH", archive.fp.read(4))
    offset = info.header_offset + 30 + sum(lengths) + begin
    return np.memmap(archive.fp, dtype, "r", offset, shape)


def _header(file):
    """Shape, order and dtype that the beginning of an .npy file says."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its arrays are of version {version}")
    try:
        return _HEADERS[version](file)
    except Exception as error:
        # What numpy's parser makes of a header that is none is nearly anything.
        raise ValueError("a header that numpy did not write") from error


def _fault(shape, dtype, length):
    """Why an array is not read, as the end of a sentence, or None."""
    if dtype.hasobject:
        return (
            "holds pickled Python objects, which are not read; save an array "
            "of numbers."
        )
    if dtype.kind not in _KINDS:
        return (
            f"has the dtype {str(dtype)[:80]}; expected numbers: save it as "
            "an array of uint8 or float32."
        )
    said = math.prod(shape) * dtype.itemsize
    if said != length or min(shape, default=0) < 0:
        return (
            f"says {limits.in_words(said)} in its header, shape "
            f"{str(shape)[:80]} of {dtype}, and has {limits.in_words(length)}; "
            "expected as much: write it again with numpy.savez_compressed."
        )
    return None
