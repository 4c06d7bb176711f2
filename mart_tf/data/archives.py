"""Arrays of an .npz file, each looked at before it is read."""

import math

from numpy.lib import format as npy

from mart_tf import limits

# numpy's versions 1 and 2 of an .npy file; 3 is of records alone.
_HEADERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
# Booleans, integers, floating point, and text.
_KINDS = "biufSU"


def read(path, keys=None):
    """Those of the arrays that the file has; nothing is unpickled.

    Args:
        path: The file.
        keys: Names of arrays; default: all of the file.

    Returns:
        A dict of arrays.

    Raises:
        ValueError: As `limits.archive`; if a header does not fit its array's
            size, says that the array holds anything but numbers or text, or
            the file is damaged.
    """
    members = None if keys is None else [f"{key}.npy" for key in keys]
    with limits.archive(path, "an .npz file", members) as archive:
        if members is None:
            members = archive.namelist()
        present = set(archive.namelist())
        return {
            member.removesuffix(".npy"): _array(path, archive, member)
            for member in members
            if member in present
        }


def _array(path, archive, member):
    try:
        with archive.open(member) as file:
            shape, dtype = _header(file)
            length = archive.getinfo(member).file_size - file.tell()
        fault = _fault(shape, dtype, length)
        if fault is None:
            with archive.open(member) as file:
                return npy.read_array(file, allow_pickle=False)
    except limits.DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is damaged ({reason or type(error).__name__}); write it "
            "again with numpy.savez_compressed."
        ) from error
    name = member.removesuffix(".npy")[:80]
    raise ValueError(f"{name} of {path} {fault}")


def _header(file):
    """The shape and the dtype that the beginning of an .npy file says."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its arrays are of version {version}")
    try:
        shape, _, dtype = _HEADERS[version](file)
    except Exception as error:
        # What numpy's parser makes of a header that is none is nearly anything.
        raise ValueError("a header that numpy did not write") from error
    return shape, dtype


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
