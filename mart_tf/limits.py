"""Files of a user's: what is opened, and what it may grow to when it is read.

A file is looked at before anything is expanded: only regular files are opened,
and what a header says is held against the file's size and the RAM there is.
Neither numpy nor TensorFlow is imported.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import pathlib
import stat
import struct
import zipfile
import zlib

from mart_tf import ram

# What any file may expand to, in bytes.
SMALL = 2**28
# How many times its own size a file may expand to beyond that. Deflate reaches
# 1,032 on blank images alone; photographs stay below 2, MNIST below 5.
RATIO = 100
# An archive's list of members, in bytes and in members.
_LISTING, _MEMBERS = 2**20, 1000
# JSON and CSV, in bytes: the rows of ten times ImageNet.
TEXT = 2**28

# Of an image that a network is to take: 4,096 x 4,096.
MOST_PIXELS = 2**24

# What numpy and zipfile raise on an archive that is not as it was written: of
# another compression NotImplementedError, of one with a password RuntimeError.
DAMAGE = (
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

# What to do about what does not fit into the memory.
TAKE_LESS = "take a part of it, smaller images, or a machine with more memory"
STORED = (
    "write it without compression, as numpy.savez does, and its images are "
    "read from the disk"
)
AS_IMAGES = (
    "save its images as uint8 or float32, and they are read from the disk"
)

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def sha256(path):
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        ValueError: As `opened`.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def regular(path):
    """The path of a regular file, or of a link to one.

    Raises:
        ValueError: If there is none, or something else is there: a named pipe
            would keep whoever opens it waiting.
    """
    path = pathlib.Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _absent(path, error) from None
    _check_regular(path, status)
    return path


def opened(path):
    """A regular file, open for reading bytes.

    Raises:
        ValueError: If it is not there, is no regular file, or may not be read.
    """
    # Opened so, a pipe without a writer answers at once.
    options = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    options |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, options)
    except (OSError, ValueError) as error:
        raise _absent(path, error) from None
    try:
        _check_regular(path, os.fstat(descriptor))
        return _Reader(io.FileIO(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def read_text(path):
    """The text of a UTF-8 file of at most `TEXT` bytes.

    Raises:
        ValueError: As `opened`, if it is larger, or not UTF-8.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > TEXT:
            raise ValueError(
                f"{path} has {in_words(size)}, too much for a file of its "
                f"kind; expected at most {in_words(TEXT)}."
            )
        content = file.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is damaged: it is no text in UTF-8; write it again."
        ) from None


def read_json(path):
    """What a JSON file holds.

    Raises:
        ValueError: As `read_text`, or if it is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError(
            f"{path} is nested too deeply; expected JSON as it was written."
        ) from None


@contextlib.contextmanager
def archive(path, kind, members=None, mapped=()):
    """A zip archive, its members looked at before one is read.

    Args:
        path: The file.
        kind: What is expected, for messages: "an .npz file".
        members: Names of those that will be read; default: all. What is not
            there is passed over.
        mapped: Names of those that take no memory where they are stored
            without compression.

    Raises:
        Damaged: If it is no archive, or is damaged.
        ValueError: As `opened`; if it has more than 1,000 members, or expands
            to more than `check_size` admits.
    """
    with opened(path) as file:
        try:
            # zipfile makes an object of each entry of the list, at once.
            file.most = _LISTING
            zipped = zipfile.ZipFile(file)
            file.most = math.inf
        except _TooMuch:
            raise _many_members(path, kind) from None
        except DAMAGE:
            raise Damaged(
                f"{path} is not {kind}, or is damaged; write it again."
            ) from None
        with zipped:
            entries = {info.filename: info for info in zipped.infolist()}
            if len(entries) > _MEMBERS:
                raise _many_members(path, kind)
            if len(entries) < len(zipped.infolist()):
                raise ValueError(
                    f"{path} holds two members of one name; expected {kind}, "
                    "each of its members once: write it again."
                )
            chosen = entries.values()
            if members is not None:
                chosen = [entries[name] for name in members if name in entries]
            for info in chosen:
                _check_member(path, kind, info)
            in_memory = [
                info
                for info in chosen
                if info.filename not in mapped
                or info.compress_type != zipfile.ZIP_STORED
            ]
            advice = TAKE_LESS
            if any(info.filename in mapped for info in in_memory):
                advice = STORED
            expanded = sum(info.file_size for info in in_memory)
            check_size(path, expanded, advice)
            yield zipped


def check_size(path, expanded, advice=TAKE_LESS):
    """Refuses a file that expands too far.

    Args:
        path: The file.
        expanded: Bytes that its content takes in memory.
        advice: As of `check_ram`.

    Raises:
        ValueError: If this is above `SMALL` and above `RATIO` times the file's
            size, or more than the memory there is.
    """
    size = os.stat(path).st_size
    if expanded > max(SMALL, RATIO * size):
        raise ValueError(
            f"{path} has {in_words(size)} and says that it expands to "
            f"{in_words(expanded)}; expected at most {RATIO} times its size, "
            f"or {in_words(SMALL)}: if it is meant so, write it without "
            "compression, as numpy.savez does."
        )
    check_ram(path, expanded, advice)


def check_ram(what, needed, advice=TAKE_LESS):
    """Refuses what does not fit into the RAM.

    Args:
        what: How the message names it.
        needed: Bytes.
        advice: What to do instead, the end of the message.

    Raises:
        TooLarge: If this is more than `ram.available`.
    """
    available = ram.available()
    if needed > available:
        raise TooLarge(
            f"{what} takes {in_words(needed)} of memory, and "
            f"{in_words(available)} are free; {advice}."
        )


def in_words(size):
    """A number of bytes as a person reads it: `1.5 GiB`."""
    if size < 1024:
        return f"{size} bytes"
    size = min(size, 2**60)  # A header may say any number.
    power = min(4, (int(size).bit_length() - 1) // 10)
    unit = ("KiB", "MiB", "GiB", "TiB")[power - 1]
    return f"{size / 1024**power:,.1f} {unit}"


class TooLarge(ValueError):
    """What does not fit into the memory that is free."""


class Damaged(ValueError):
    """A file that is no archive at all."""


class _TooMuch(ValueError):
    """One read of more than is meant to be."""


class _Reader(io.BufferedReader):
    """A file that refuses to be read in larger parts than `most` bytes."""

    most = math.inf

    def read(self, size=-1):
        if size is not None and size > self.most:
            raise _TooMuch
        return super().read(size)


def _check_member(path, kind, info):
    plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not plain or info.flag_bits & 0x1:
        how = "encrypted" if plain else "compressed in an unusual way"
        raise ValueError(
            f"{path} holds {info.filename[:80]!r} {how}; expected {kind}, "
            "deflated or not compressed: write it again."
        )


def _many_members(path, kind):
    return ValueError(
        f"{path} holds more than {_MEMBERS:,} members; expected {kind}."
    )


def _check_regular(path, status):
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise ValueError(
            f"{path} is {kind}; expected a regular file: put its content "
            "into one, or take it away."
        )


def _absent(path, error):
    if isinstance(error, FileNotFoundError):
        return ValueError(f"There is no file {path}; give the path of one.")
    reason = getattr(error, "strerror", None) or error
    return ValueError(
        f"{path} cannot be opened ({reason}); expected a file that may be read."
    )
