"""What is known of a path before anything is read or written.

A program asks here before TensorFlow is imported: what cannot be, such as a
folder below a file, is refused at once and not after the first epoch.
"""

import os
import pathlib
import stat

from mart_tf import files

# Not disks: what the kernel shows of itself, and its devices.
_OF_THE_KERNEL = ("/proc", "/sys", "/dev")
_SHARED_MEMORY = "/dev/shm"

# What files in a folder add to its path.
_LONGER_PATH = 300


def expanded(name, path, urls=False):
    """A path with the user's home in the place of `~`.

    Args:
        name: How a message names it, such as "--workdir".
        path: What the user wrote.
        urls: Whether it may be a URL, such as gs://bucket/folder.

    Raises:
        ValueError: If it is a URL that it may not be, or of an unknown user.
    """
    if "://" in path and not urls:
        kind = path.partition("://")[0]
        instead = (
            "leave out file://"
            if kind == "file"
            else "take one on this machine, and copy it from or to there"
        )
        raise ValueError(
            f"{name} is {path}, a URL; expected a path of this machine's file "
            f"system: {instead}."
        )
    whole = os.path.expanduser(path)
    if whole.startswith("~"):
        user = whole.partition("/")[0]
        raise ValueError(
            f"{name} is {path}, and there is no user {user[1:]!r}; expected "
            f"the path of a home that is there, or ./{user} for a name that "
            "begins so."
        )
    return whole


def listed(paths):
    """Paths as a flag that takes several has them, separated by commas."""
    return ",".join(
        '"{}"'.format(path.replace('"', '""')) if "," in path else path
        for path in map(os.fspath, paths)
    )


def check_there(name, path, expected):
    """Refuses what is neither a folder nor a file that can be read to its end.

    Args:
        name: How the message names it.
        path: A path.
        expected: What is expected there, for the message.

    Raises:
        ValueError: If it does not exist, is a pipe or a device, or is not this
            user's to read.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        raise ValueError(
            f"{name}={path} does not exist; expected {expected}."
        ) from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) or _of_the_kernel(path):
        raise ValueError(
            f"{name}={path} is neither a folder nor a file on a disk; "
            f"expected {expected}."
        )
    if not os.access(path, os.R_OK):
        raise ValueError(
            f"{name}={path} cannot be read by this user; expected {expected}."
        )


def check_folder(name, path, what="the output", remedy=None):
    """Refuses a folder that is not there and cannot be made or written to.

    Nothing is written.

    Args:
        name: How the message names it.
        path: A path.
        what: What is written there, for the message.
        remedy: How it comes to lie elsewhere; default: by that flag.

    Raises:
        ValueError: If it, or what it would lie in, is a file or not this
            user's to write to, or its name is none.
    """
    remedy = remedy or f"name another place by {name}=DIR"
    instead = f"{what} goes there: {remedy}"
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} is no path of a folder; {instead}.")
    path = pathlib.Path(path).absolute()
    # lexists: a link to nothing is in the way too.
    nearest = next(
        above for above in (path, *path.parents) if os.path.lexists(above)
    )
    if not nearest.is_dir():
        raise ValueError(
            f"{nearest} is a file, and no folder can be made there; {instead}."
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} cannot be written to; {instead}.")
    if _of_the_kernel(path):
        raise ValueError(f"{path} lies on no disk; {instead}.")
    longest = os.pathconf(nearest, "PC_NAME_MAX") - files.LONGER_NAME
    if any(len(os.fsencode(part)) > longest for part in path.parts):
        raise ValueError(
            f"{path} has a name of more than {longest} characters; {instead}."
        )
    longest = os.pathconf(nearest, "PC_PATH_MAX") - _LONGER_PATH
    if len(os.fsencode(path)) > longest:
        raise ValueError(
            f"{path} is longer than {longest} characters; {instead}."
        )


def _of_the_kernel(path):
    real = os.path.realpath(path)
    return any(
        os.path.commonpath([real, root]) == root for root in _OF_THE_KERNEL
    ) and not real.startswith(_SHARED_MEMORY)
