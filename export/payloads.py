"""What the clients take and print: flags, files, and texts of a server.

Needs the standard library alone. Nothing from outside is trusted: a file is
measured before it is read, and no text moves a terminal's cursor.
"""

import argparse
import json
import math
import os
import pathlib
import re
import reprlib
import struct
import sys
import textwrap

DAY = 86_400
ANSWER_BYTES = 16 * 2**20
# Brackets, braces and colons of a prediction, which has seven. Of these alone,
# JSON takes thirty times its bytes when parsed, and seconds; of the rest ten.
_MOST_MARKS = 100
# Of a line where there is no terminal.
_COLUMNS = 80
# numpy's own limit.
_HEADER_BYTES = 10_000
# What a prediction holds.
EXPECTED = {
    "probabilities": "numbers of 0 to 1, one for each class",
    "logits": "finite numbers, one for each class",
    "class_index": "the place of a class",
    "class_name": "a text",
}


class RequestError(RuntimeError):
    """Images that got no prediction: one sentence that says why."""

    def __init__(self, sentence):
        super().__init__(printable(sentence))


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are no wider than the terminal."""

    def error(self, message):
        self.print_usage(sys.stderr)
        sentence = wrapped(f"{self.prog}: error: {message}", sys.stderr)
        self.exit(2, f"{sentence}\n")


def check_settings(timeout, retries, max_answer_bytes, most_retries=None):
    """Refuses settings of a client that mean nothing.

    Args:
        timeout: Seconds, above 0 and up to a day.
        retries: 0 to `most_retries`, or more if that is None.
        max_answer_bytes: 1 to 2**31 - 1, the largest that gRPC takes.

    Raises:
        RequestError: If one is something else; NaN, too.
    """
    most = retries if most_retries is None else most_retries
    if not (
        0 < timeout <= DAY
        and 0 <= retries <= most
        and 0 < max_answer_bytes < 2**31
    ):
        some = "0 or more" if most_retries is None else f"0 to {most}"
        raise RequestError(
            f"Got a timeout of {timeout} seconds, {retries} retries and "
            f"answers of {max_answer_bytes} bytes; expected a timeout above 0 "
            f"and up to {DAY}, {some} retries, and answers of 1 to {2**31 - 1}."
        )


def read(path, max_bytes):
    """The bytes of a PNG, JPEG or .npy file, and which of them it seems to be.

    Args:
        path: The file.
        max_bytes: Largest size of a file that is read.

    Returns:
        The bytes, and True if they are a .npy file's.

    Raises:
        RequestError: If it cannot be read, is larger, or is something else.
    """
    path = pathlib.Path(path)
    try:
        if path.exists() and not path.is_file():
            raise RequestError(
                f"{path} cannot be read: it is a folder, a device or a pipe; "
                "expected a PNG, JPEG or .npy file."
            )
        size = path.stat().st_size
        if size > max_bytes:
            raise RequestError(
                f"{path} has {size:,} bytes; expected at most {max_bytes:,}: "
                "make the image smaller, or raise the limit."
            )
        with path.open("rb") as file:
            # What grows in the meantime, or tells no size, is not read on.
            content = file.read(size)
    except OSError as error:
        raise RequestError(
            f"{path} cannot be read: {error.strerror}."
        ) from None
    if content.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return content, False
    if not content.startswith(b"\x93NUMPY"):
        raise RequestError(
            f"{path} holds no PNG, JPEG or .npy; expected one of them."
        )
    return content, True


def are_files(images):
    """Whether a list holds the bytes of files, and no numbers.

    Raises:
        RequestError: If it holds both, or texts.
    """
    files = [isinstance(image, bytes) for image in images]
    for image, is_file in zip(images, files, strict=True):
        if isinstance(image, bytearray | str) or is_file != files[0]:
            raise no_images(image)
    return files[0]


def check_floats(images):
    """Refuses arrays of integers: pixels of a file, mostly, as they are.

    Args:
        images: An array, or a list of arrays, of Pillow's images or of lists.

    Raises:
        RequestError: If the type of one is an integer's or a truth value's.
    """
    if getattr(getattr(images, "dtype", None), "kind", "") == "O":
        images = images.tolist()
    for image in images if isinstance(images, list | tuple) else [images]:
        # Rows, columns and channels may be lists; what is first tells.
        for _ in range(3):
            if isinstance(image, list | tuple) and image:
                image = image[0]
        if kind := _integers(image):
            raise RequestError(
                f"Got images of {kind}; expected floats in the model's pixel "
                "range, such as images / 255 where it is 0 to 1 and "
                'images.astype("float32") where it is 0 to 255, or the bytes '
                "of image files."
            )


def _integers(array):
    """What an array of integers says that it is of; None of anything else."""
    if hasattr(array, "numpy"):
        array = array.numpy()
    dtype = getattr(array, "dtype", None)
    kind = getattr(dtype, "kind", "f")
    if dtype is None and hasattr(array, "__array_interface__"):
        # An image of Pillow.
        dtype = type(array).__name__
        kind = array.__array_interface__["typestr"][1]
    return str(dtype) if kind in "biu" else None


def no_images(value):
    """The `RequestError` of what is neither files nor an array."""
    return RequestError(
        f"Got {type(value).__name__} for images; expected a list with the "
        "bytes of PNG or JPEG files, or an array or nested lists of numbers, "
        "[batch, height, width, channels]."
    )


def not_finite():
    """The `RequestError` of an array with a number that is none."""
    return RequestError(
        "Got NaN or an infinite number in the images; expected finite numbers, "
        "in the range of the model's pixels."
    )


def array_header(content):
    """What a .npy file says of itself, as numpy's NEP 1 describes it.

    Args:
        content: The file's bytes.

    Returns:
        The type ("<f4"), whether columns come first, the shape (sizes of 1 or
        more), and where the values start.

    Raises:
        ValueError: If it is none of floats with 2 to 32 dimensions; also if
            its size is none that these values have.
    """
    length = "<H" if content[6:7] == b"\x01" else "<I"
    start = 8 + struct.calcsize(length)
    if len(content) < start:
        raise ValueError(len(content))
    end = start + struct.unpack_from(length, content, 8)[0]
    header = content[start : min(end, _HEADER_BYTES)].decode("latin-1")
    fields = [
        re.search(rf"""['"]{key}['"]:\s*{value}""", header)
        for key, value in (
            ("descr", r"""['"]([<>]f[248])['"]"""),
            ("fortran_order", "(True|False)"),
            ("shape", r"\(([\d\s,]+)\)"),
        )
    ]
    if None in fields:
        raise ValueError(header)
    kind, order, shape = (field[1] for field in fields)
    shape = [int(size) for size in shape.split(",") if size.strip()]
    if not 2 <= len(shape) <= 32 or 0 in shape:
        raise ValueError(shape)
    if end + math.prod(shape) * int(kind[2:]) != len(content):
        raise ValueError(len(content))
    return kind, order == "True", shape, end


def json_object(content, count):
    """The object of a JSON text in UTF-8; an empty one of anything else.

    Args:
        content: The text's bytes.
        count: How many images were sent: what has far more lists, objects and
            keys than their predictions is not parsed.
    """
    if sum(map(content.count, (b"[", b"{", b":"))) > _MOST_MARKS * count:
        return {}
    try:
        answer = _DECODER.decode(content.decode())
    except (RecursionError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _unique(pairs):
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def fault(predictions, count):
    """What is wrong with an answer.

    Args:
        predictions: What should be a list of dicts with the keys of `EXPECTED`.
        count: How many images were sent.

    Returns:
        What was found and what was expected, or None if all is right.
    """
    if not isinstance(predictions, list) or len(predictions) != count:
        given = reprlib.repr(predictions)
        if isinstance(predictions, list):
            given = f"{len(predictions)} predictions"
        return f"it has {given}, expected a list of {count}"
    classes = 0
    for place, row in enumerate(predictions):
        row = row if isinstance(row, dict) else {}
        shares, logits, index, name = (row.get(key) for key in EXPECTED)
        classes = classes or (len(shares) if isinstance(shares, list) else 0)
        good = (
            # Rounding may carry a softmax past its bounds.
            _are_numbers(shares, classes, -0.001, 1.001),
            _are_numbers(logits, classes, -3.5e38, 3.5e38),
            type(index) is int and 0 <= index < classes,
            isinstance(name, str),
        )
        if not all(good):
            key = list(EXPECTED)[good.index(False)]
            return (
                f"{key} of image {place} is {reprlib.repr(row.get(key))}, "
                f"expected {EXPECTED[key]} (there are {classes})"
            )
    return None


def _are_numbers(values, count, least, most):
    return (
        isinstance(values, list)
        and len(values) == count > 0
        and all(
            type(value) in (int, float) and least <= value <= most
            for value in values
        )
    )


def describe(path, predictions):
    """A line for each image: its class and the probability of that class."""
    lines = []
    for place, prediction in enumerate(predictions):
        which = f"[{place}]" if len(predictions) > 1 else ""
        try:
            name = prediction["class_name"]
            # gRPC brings bytes.
            name = (name.decode() if isinstance(name, bytes) else name)[:300]
            share = prediction["probabilities"][prediction["class_index"]]
            lines.append(printable(f"{path}{which}: {name} {share:.4f}"))
        except (IndexError, KeyError, TypeError, ValueError):
            raise RequestError(
                "The model's answer lacks class_name, class_index or "
                "probabilities; expected a model that mart-export wrote."
            ) from None
    return lines


def classify_files(program, described, flag, address, connect, images_of):
    """Runs a client: the files of the command line, each in a request.

    Args:
        program: The client's name, which its sentences begin with.
        described: The docstring of its module.
        flag: The flag that takes the server's address.
        address: What that is by default.
        connect: Its `Client`.
        images_of: Its `read`.
    """
    parser = Parser(description=described.split("\n")[0])
    parser.add_argument("files", nargs="+", help="PNG, JPEG or .npy files")
    parser.add_argument(f"--{flag}", default=address)
    parser.add_argument("--model", default="classifier")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds")
    parser.add_argument("--retries", type=int, default=3)
    parser.add_argument("--max_bytes", type=int, default=16 * 2**20)
    parser.add_argument("--max_answer_bytes", type=int, default=ANSWER_BYTES)
    flags = parser.parse_args()
    # Names may have letters that the terminal has not.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        client = connect(
            getattr(flags, flag),
            flags.model,
            timeout=flags.timeout,
            retries=flags.retries,
            max_answer_bytes=flags.max_answer_bytes,
        )
        for path in flags.files:
            predictions = client.predict(images_of(path, flags.max_bytes))
            print("\n".join(describe(path, predictions)))
    except RequestError as error:
        sys.exit(wrapped(f"{program}: {error}", sys.stderr))


def printable(text):
    r"""A text whose control characters are spelled out: \x1b for escape."""
    return "".join(
        one if one.isprintable() else repr(one)[1:-1] for one in text
    )


def wrapped(text, stream):
    """A text in lines no wider than the terminal that it is printed on.

    Args:
        text: A sentence; a word of it, as a path or an address, stays whole.
        stream: Where it goes: `sys.stdout` or `sys.stderr`. Lines of what is
            no terminal have 80 columns.
    """
    try:
        # A terminal that was never told its size says 0.
        width = os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        width = _COLUMNS
    return textwrap.fill(
        text, width, break_long_words=False, break_on_hyphens=False
    )
