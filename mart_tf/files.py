"""Files written whole or not at all; folders that belong to one process."""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import platform
import secrets
import shutil
import tempfile
import time
import warnings

try:
    import fcntl
except ImportError:
    # Windows has other locks; two processes in one folder go unnoticed there.
    fcntl = None

# Bytes of a random name, and by how much longer a name is while it is written.
_RANDOM = 4
LONGER_NAME = len("..partial-") + 2 * _RANDOM

_LOCK = ".lock"
# What `write_together` writes aside.
_ASIDE = ".together.partial"
_MOST_OF_LOCK = 10_000

# A file that was last written so many seconds ago is written no more.
_OLD = 24 * 3600

# What a file system without locks answers, such as Lustre's without -o flock.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

# How often a folder may go while it is opened, before it is no folder at all.
_ATTEMPTS = 1000


@contextlib.contextmanager
def whole(path, new=False):
    """A path beside another, whose place it takes once it is written.

    A reader sees the old file or the new one, also after the power has failed.
    Where the body raises, what it wrote goes. Of two writers each has a path of
    its own.

    Args:
        path: A `pathlib.Path`.
        new: Whether a file that is there by then stays.

    Raises:
        FileExistsError: If `new`, and there is one.
    """
    beside = f".{path.name}.partial"
    _remove_old(path.parent, beside)
    temporary = path.with_name(f"{beside}-{secrets.token_hex(_RANDOM)}")
    try:
        yield temporary
        sync(temporary)
        if new:
            _move_new(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _move_new(temporary, path):
    """Moves a file to where none may be."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links: one looks, and then moves.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "File exists", path) from None
        os.replace(temporary, path)


def _remove_old(folder, beside):
    """Removes what writers that were killed have left, of an earlier day."""
    with contextlib.suppress(OSError):
        for other in folder.iterdir():
            if other.name.startswith(beside):
                age = time.time() - other.stat().st_mtime
                if age > _OLD and other.is_dir():
                    shutil.rmtree(other)
                elif age > _OLD:
                    other.unlink()


def sync(path):
    """Waits until a file's content, or a folder's names, are on its disk.

    Args:
        path: A path.
    """
    # Windows flushes what is open for writing alone, and opens no folder.
    try:
        is_folder = os.path.isdir(path)
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path, text):
    """Writes a text file as `whole` does.

    Args:
        path: A `pathlib.Path`.
        text: The new content.
    """
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_together(directory, contents, stale=()):
    """Writes files into a directory, all or none.

    Everything is written aside first and then moved in. The last file stands
    for all: an earlier one of its name goes first, so that a process killed in
    between leaves none beside files that it does not belong to.

    Args:
        directory: Where the files go; made if it is not there.
        contents: Bytes by name, moved in this order; at least one.
        stale: Names of files that are removed unless they are written: what
            an earlier call left would belong to nothing.

    Returns:
        The directory, a `pathlib.Path`.

    Raises:
        OSError: If it cannot be written.
    """
    directory = pathlib.Path(directory)
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        _remove_old(directory, _ASIDE)
        # Inside it: beside it may be another file system.
        with tempfile.TemporaryDirectory(
            dir=directory, prefix=f"{_ASIDE}-"
        ) as name:
            temporary = pathlib.Path(name)
            for name, content in contents.items():
                (temporary / name).write_bytes(content)
            *others, last = contents
            for name in {*stale, last}.difference(others):
                (directory / name).unlink(missing_ok=True)
            for name in contents:
                os.replace(temporary / name, directory / name)
    except BaseException:
        if is_new and not any(directory.iterdir()):
            directory.rmdir()
        raise
    return directory


@contextlib.contextmanager
def held(folder):
    """Keeps other processes from a folder while the body runs.

    The lock is the operating system's, on `.lock` in the folder, which says
    who holds it: it goes with its process, however that ends, and the file of
    one that was killed keeps nobody out.

    Args:
        folder: A path; made if it is not there, and removed again if nothing
            was written into it.

    Raises:
        ValueError: If another process holds it.
    """
    folder = pathlib.Path(folder)
    with _locked(folder / _LOCK):
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)
            # Another process may take the lock at this moment: its folder.
            with contextlib.suppress(OSError):
                folder.rmdir()


def holder(folder):
    """Who holds a folder, in words; None where nobody does.

    Args:
        folder: A path.
    """
    path = pathlib.Path(folder, _LOCK)
    if fcntl is None or not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(file.read(_MOST_OF_LOCK))
        except OSError as error:
            _check_no_locks(error)
    return None


def _locked(path):
    """The open file of a lock that this process has, in a folder made for it.

    Of two processes that end and begin at the same moment, one may remove
    lock and folder while the other opens them: it begins again.
    """
    tries = 0
    while True:
        file = _opened(path)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = _holder(file.read(_MOST_OF_LOCK))
            file.close()
            tries += 1
            # `holder` has it for a moment.
            if tries < 3:
                time.sleep(0.05)
                continue
            raise ValueError(
                f"{path.parent} is being written by another process{holder}; "
                "wait for it, or name another folder."
            ) from None
        except OSError as error:
            _check_no_locks(error)
            warnings.warn(
                f"{path.parent} lies on a file system without locks "
                f"({error.strerror}): nothing keeps another process from "
                "writing there too.",
                stacklevel=4,
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        # Its holder removed it in the meantime.
        file.close()
    file.truncate(0)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    holder = {"host": platform.node(), "process": os.getpid(), "since": now}
    file.write(json.dumps(holder))
    file.flush()
    return file


def _check_no_locks(error):
    """Raises an error that says something else than that there are none."""
    if error.errno not in _NO_LOCKS:
        raise error


def _opened(path):
    """The file of a lock, and its folder, whoever removes it meanwhile."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            return _made(path)
    return _made(path)


def _made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+", encoding="utf-8", errors="replace")


def _holder(text):
    """Who has a lock, as its file tells, in words."""
    try:
        facts = json.loads(text)
        return " ({process} on {host}, since {since})".format(**facts)
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
