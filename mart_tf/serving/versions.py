"""Version directories as TF Serving reads them: 1, 2, 3, ...

A server polls the directory above them and serves the greatest number that it
finds, so a version must be whole from the first moment it can be seen. On a
disk it is written under a hidden name, which the server passes over, and then
renamed. An object store renames nothing: there the files are copied,
`saved_model.pb` last, and a server that polls meanwhile fails to load the
version and tries again. TensorFlow, which reads and writes such stores, is
imported for them alone.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import warnings

from mart_tf import errors
from mart_tf import files
from mart_tf import places

# Of all files the one that makes a directory a SavedModel.
_LAST = "saved_model.pb"
# Path("gs://bucket") is "gs:/bucket".
_STORES = ("gs:", "s3:", "hdfs:", "viewfs:", "az:", "abfs:")


def is_url(directory):
    """Whether it is on another file system than this machine's, as gs://."""
    return "://" in str(directory)


def check(directory):
    """The directory, once it is known that it can hold versions.

    Args:
        directory: Where the numbered versions lie, a path or a URL; need not
            exist.

    Returns:
        A `pathlib.Path`, or the URL as a string without a slash at its end.

    Raises:
        ValueError: If it or a parent is a file, or it cannot be written, or is
            a version itself, or nothing here can write such URLs.
    """
    if is_url(directory):
        return _check_url(str(directory).rstrip("/"))
    directory = pathlib.Path(places.expanded("directory", os.fspath(directory)))
    if directory.parts[:1] and directory.parts[0] in _STORES:
        raise ValueError(
            f"The export directory {str(directory)!r} is a URL that "
            "pathlib.Path has taken a slash of; expected a string, such as "
            "'gs://bucket/model'."
        )
    directory = directory.absolute()
    # Also of a folder that this user may not look into.
    if os.path.exists(directory / _LAST):
        raise _is_version(str(directory))
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


def _check_url(url):
    import tensorflow as tf

    try:
        if tf.io.gfile.exists(url) and not tf.io.gfile.isdir(url):
            raise ValueError(
                f"The export directory {url!r} is a file; choose another path."
            )
        if tf.io.gfile.exists(f"{url}/{_LAST}"):
            raise _is_version(url)
    except tf.errors.OpError as error:
        raise ValueError(
            f"The export directory {url!r} cannot be reached: "
            f"{errors.first_line(error.message)}; check the URL and its "
            "credentials, or export to a local directory and copy it."
        ) from error
    return url


def _is_version(directory):
    return ValueError(
        f"The export directory {directory!r} is a version itself, it holds "
        f"{_LAST}; expected the folder above it, where versions lie side by "
        "side."
    )


def write(directory, fill):
    """Writes the next version whole, or leaves everything as it was.

    Args:
        directory: Where the numbered versions lie, a path or a URL; made if
            it is missing.
        fill: Called with the path of an empty local directory, which it
            fills. If it raises, nothing is left.

    Returns:
        The new version's path, a string, numbered one above the greatest
        there is.

    Raises:
        ValueError: If `check` refuses the directory, or there is no space.
    """
    directory = check(directory)
    if is_url(directory):
        with tempfile.TemporaryDirectory(prefix="version-") as local:
            fill(local)
            return _upload(local, directory)
    missing = [
        path for path in (directory, *directory.parents) if not path.exists()
    ]
    hidden = None
    try:
        hidden = _hidden(directory)
        fill(hidden)
        _show(hidden)
        # The umask may have closed them too.
        for path in missing:
            path.chmod(0o755)
        return _publish(hidden, directory)
    except BaseException:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
        # Only what this call made, and only while it is empty.
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()
        raise


def _show(folder):
    """Lets everybody read a folder, also after the power has failed.

    A server runs as another user: mkdtemp made it private, and so may this
    user's umask what is in it.
    """
    os.chmod(folder, 0o755)
    for path in (*pathlib.Path(folder).rglob("*"), pathlib.Path(folder)):
        path.chmod(0o755 if path.is_dir() else 0o644)
        files.sync(path)


def _upload(local, url):
    """Copies a version to an object store, what makes it one at the end."""
    import tensorflow as tf

    taken = 0
    try:
        while True:
            tf.io.gfile.makedirs(url)
            # Some file systems end the name of a directory in a slash.
            names = [name.rstrip("/") for name in tf.io.gfile.listdir(url)]
            taken = 1 + max(taken, _greatest(names))
            version = f"{url}/{taken}"
            if _is_copied(local, version):
                return version
    except tf.errors.OpError as error:
        raise ValueError(
            f"The export directory {url!r} cannot be written: "
            f"{errors.first_line(error.message)}; check the URL and its "
            "credentials, or export to a local directory and copy it."
        ) from error


def _is_copied(local, version):
    """Copies a version; False where another export has taken the number.

    Then, and where it fails, what was copied goes.
    """
    import tensorflow as tf

    paths = [path for path in pathlib.Path(local).rglob("*") if path.is_file()]
    paths.sort(key=lambda path: (path.name == _LAST, path))
    copied = []
    for path in paths:
        target = f"{version}/{path.relative_to(local).as_posix()}"
        try:
            tf.io.gfile.makedirs(target.rpartition("/")[0])
            if not _is_new(path, target):
                _remove(version, copied)
                return False
        except BaseException:
            # The last one may be there in part.
            _remove(version, [*copied, target])
            raise
        copied.append(target)
    return True


def _is_new(path, target):
    """Copies a file to a store, if there is none of that name."""
    import tensorflow as tf

    try:
        tf.io.gfile.copy(str(path), target)
    except tf.errors.AlreadyExistsError:
        return False
    return True


def _remove(version, copied):
    """Removes what was copied; what another export has written there stays."""
    import tensorflow as tf

    gfile = tf.io.gfile
    try:
        for file in copied:
            with contextlib.suppress(tf.errors.NotFoundError):
                gfile.remove(file)
        if gfile.exists(version):
            there = [
                name for *_, names in gfile.walk(version) for name in names
            ]
            if not there:
                gfile.rmtree(version)
    except tf.errors.OpError:
        warnings.warn(
            f"A part of the version is left in {version!r}, and a server "
            "takes it for the newest one: remove it.",
            stacklevel=2,
        )


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
        version = directory / str(_greatest(os.listdir(directory)) + 1)
        try:
            os.rename(hidden, version)
        except OSError:
            # Another export may have taken the number since it was read.
            if not os.path.lexists(version):
                raise
        else:
            return str(version)


def _greatest(names):
    return max(
        (int(name) for name in names if name.isascii() and name.isdecimal()),
        default=0,
    )
