"""Images that stay in their file: an array of numpy's over a mapped one.

What has been read of the file is given back to the system at once, so that the
memory of a process does not grow with what it has seen. Other arrays, and maps
that can be written to, are taken as they are.
"""

import mmap

_PART = 1024


def is_mapped(images):
    """Whether an array lies in a file that is mapped."""
    return _mapping(images) is not None


def rows(images, places):
    """The images at some places, in memory.

    Args:
        images: An array `[n, ...]`.
        places: Integer array `[count]`.
    """
    taken = images[places]
    _release(images)
    return taken


def parts(images):
    """Yields all images, some at a time, in order; each part until the next."""
    for start in range(0, len(images), _PART):
        try:
            yield images[start : start + _PART]
        finally:
            # Also of who has seen enough.
            _release(images)


def _release(images):
    mapping = _mapping(images)
    if hasattr(mapping, "madvise"):
        # They are read again when they are next asked for: nothing is lost of
        # what cannot be written to.
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(images):
    """The map below an array; None of one that can be written to.

    What was written to a map of numpy's mode "c" is in memory alone, and would
    be gone with it.
    """
    owner, base = None, images
    while not isinstance(base, mmap.mmap):
        owner, base = base, getattr(base, "base", None)
        if base is None:
            return None
    flags = getattr(owner, "flags", None)
    return None if flags is None or flags.writeable else base
