"""What is said of an error of another library."""

import contextlib

# What TensorFlow calls an exhausted resource too, and what helps.
_NO_MEMORY = {
    "No space left on device": "make room and run the same command again",
    "Disk quota exceeded": "make room and run the same command again",
    "Too many open files": "raise their limit (ulimit -n)",
}
_NOT_ENOUGH = "There is not enough memory for this; "


def first_line(error):
    """What it says first, at most 200 characters, without a full stop."""
    return str(error).strip().split("\n")[0][:200].rstrip(".")


def is_out_of_memory(error):
    """Whether it is Python's or TensorFlow's, of the host or of a GPU."""
    if type(error).__name__ == "ResourceExhaustedError":
        return advice(error) is None
    return isinstance(error, MemoryError)


def advice(error):
    """What helps against an error of TensorFlow's of a disk or of files.

    None of any other.
    """
    if type(error).__name__ == "ResourceExhaustedError":
        for said, helps in _NO_MEMORY.items():
            if said in str(error):
                return helps
    return None


@contextlib.contextmanager
def batch_that_fits(size, devices=1, option="--batch_size"):
    """An error for want of memory inside says which batch may fit.

    Half of the one that failed: what would fit exactly was not measured. A note
    of the error says it, which Python shows and `not_enough_memory` returns.

    Args:
        size: Images of a batch.
        devices: How many share it evenly.
        option: The flag that says how many images.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            half = size // 2 // devices * devices
            batch = f"a {option} of at most {half} ({size} did not fit), "
            error.add_note(_not_enough(batch if half else ""))
        raise


def not_enough_memory(error):
    """The sentence for an error for want of memory."""
    for note in getattr(error, "__notes__", ()):
        if note.startswith(_NOT_ENOUGH):
            return note
    return _not_enough("a smaller --batch_size, ")


def _not_enough(batch):
    return f"{_NOT_ENOUGH}expected {batch}a smaller network or smaller images."
