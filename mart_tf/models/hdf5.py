"""Weights in HDF5, held against their file before Keras reads them."""

import h5py

from mart_tf import limits

# What h5py raises on a file that is damaged or none of its own.
DAMAGE = (OSError, RuntimeError, KeyError, TypeError)

_WEIGHTS = "model.weights.h5"


def check_model(path):
    """Refuses a `.keras` file that would expand too far.

    Args:
        path: The file.

    Raises:
        ValueError: As `limits.archive` and `arrays`; what else is wrong with
            the file is Keras's to say.
    """
    try:
        with limits.archive(path, "a .keras file") as archive:
            sizes, outside = _of_archive(archive)
    except limits.Damaged:
        return
    _check(path, sizes, outside)


def _of_archive(archive):
    try:
        with archive.open(_WEIGHTS) as file:
            return _listed(file)
    except (*DAMAGE, *limits.DAMAGE):
        return {}, []


def arrays(path, file):
    """The names of the arrays in a file, which must fit its size.

    Args:
        path: The file, for messages and its size.
        file: It, open.

    Raises:
        ValueError: If they are larger in memory than `limits.check_size`
            admits, or lie in other files.
    """
    sizes, outside = _listed(file)
    _check(path, sizes, outside)
    return list(sizes)


def _listed(file):
    """Bytes in memory of each array, and which lie in other files."""
    sizes, outside = {}, []

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            sizes[name] = item.nbytes
            if item.external or item.is_virtual:
                outside.append(name)

    with h5py.File(file, "r") as opened:
        opened.visititems(visit)
    return sizes, outside


def _check(path, sizes, outside):
    if outside:
        raise ValueError(
            f"{path} keeps the array {outside[0][:80]!r} in another file; "
            "expected all of it in this one: save the weights again."
        )
    limits.check_size(path, sum(sizes.values()))
