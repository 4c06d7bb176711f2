"""Version directories as TF Serving reads them: 1, 2, 3, ...

A server polls the directory above them and serves the greatest number that it
finds, so a version must be whole from the first moment it can be seen: it is
written under a hidden name, which the server passes over, and then renamed.
Nothing here imports TensorFlow.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile


def check(directory):
    """The directory as a path, once it is known that it can hold versions.

    Args:
        directory: Where the numbered versions lie; need not exist.

    Raises:
        ValueError: If it is a URL, or it or a parent is a file, or it cannot
            be written.
    """
    if "://" in str(directory):
        raise ValueError(
            f"The export directory {str(directory)!r} is a URL; expected a "
            "local directory, to be copied from there."
        )
    directory = pathlib.Path(directory).absolute()
    # lexists: a dangling link is in the way too.
    nearest = next(
        path
        for path in (directory, *directory.parents)
        if os.path.lexists(path)
    )
    if not nearest.is_dir():
        raise ValueError(
            f"The export directory {str(directory)!r} cannot be made: "
            f"{str(nearest)!r} is not a directory; choose another path."
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(
            f"The export directory {str(directory)!r} cannot be written: no "
            f"permission to write in {str(nearest)!r}; choose another path."
        )
    return directory


def write(directory, fill):
    """Writes the next version whole, or leaves everything as it was.

    Args:
        directory: Where the numbered versions lie; made if it is missing.
        fill: Called with the path of an empty hidden directory beside the
            versions, which it fills. If it raises, nothing is left.

    Returns:
        The new version's path, numbered one above the greatest there is.

    Raises:
        ValueError: If `check` refuses the directory.
    """
    directory = check(directory)
    missing = [
        path for path in (directory, *directory.parents) if not path.exists()
    ]
    hidden = None
    try:
        hidden = _hidden(directory)
        fill(hidden)
        # mkdtemp made it private, and a server runs as another user.
        os.chmod(hidden, 0o755)
        return _publish(hidden, directory)
    except BaseException:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
        # Only what this call made, and only while it is empty.
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()
        raise


def _hidden(directory):
    """A new directory beside the versions that a server passes over."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return tempfile.mkdtemp(prefix=".version-", dir=directory)
    except OSError as error:
        raise ValueError(
            f"The export directory {str(directory)!r} cannot be written: "
            f"{error.strerror}; choose another path."
        ) from error


def _publish(hidden, directory):
    while True:
        version = directory / str(_greatest(directory) + 1)
        try:
            os.rename(hidden, version)
        except OSError:
            # Another export may have taken the number since it was read.
            if not os.path.lexists(version):
                raise
        else:
            return str(version)


def _greatest(directory):
    return max(
        (
            int(name)
            for name in os.listdir(directory)
            if name.isascii() and name.isdecimal()
        ),
        default=0,
    )
