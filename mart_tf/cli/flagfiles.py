"""A command line in whose flag files' places their lines stand.

absl reads such files itself, to the end of whatever it is given: a device has
none. Here a file is looked at before it is opened.
"""

import unicodedata

from mart_tf import bounds
from mart_tf import places
from mart_tf import resources

_GREATEST_FILE = 2**20
_MOST_ARGUMENTS = 10_000
_DEEPEST = 20
_FLAGS = ("--flagfile", "-flagfile")
# Categories of characters; Python has a surrogate for a byte that is no UTF-8.
_CONTROL, _SURROGATE = "Cc", "Cs"


def expanded(arguments):
    """The arguments, the lines of a file in the place of each `--flagfile`.

    Args:
        arguments: A command line without the program's name.

    Raises:
        ValueError: On what is no file of flags, one that holds itself, or an
            argument that is no text.
    """
    return list(_expanded(arguments, ()))


def _expanded(arguments, inside):
    arguments = iter(arguments)
    for argument in arguments:
        check_text(argument)
        flag, equals, name = argument.partition("=")
        if flag not in _FLAGS:
            yield argument
            if argument == "--":
                yield from arguments
            continue
        name = name if equals else next(arguments, "")
        check_text(name)
        path = resources.flagfile(name)
        if path in inside or len(inside) == _DEEPEST:
            raise ValueError(
                f"--flagfile={path} holds itself, or files in files too many "
                "deep; expected a file of flags."
            )
        yield from _limited(path, _expanded(_lines(path), (*inside, path)))


def _limited(path, arguments):
    for number, argument in enumerate(arguments):
        if number == _MOST_ARGUMENTS:
            raise ValueError(
                f"--flagfile={path} holds more than {_MOST_ARGUMENTS} flags; "
                "expected a file of flags, one a line."
            )
        yield argument


def _lines(path):
    """The flags of a file: its lines without empty ones and comments."""
    expected = "a file of flags, one a line"
    places.check_there("--flagfile", path, expected)
    with open(path, "rb") as file:
        content = file.read(_GREATEST_FILE + 1)
    if len(content) > _GREATEST_FILE:
        raise ValueError(
            f"--flagfile={path} is larger than 1 MiB; expected {expected}."
        )
    try:
        content = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(
            f"--flagfile={path} is no text in UTF-8; expected {expected}."
        ) from None
    for number, line in enumerate(content.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        if not line.startswith("-"):
            raise ValueError(
                f"Line {number} of --flagfile={path} is {bounds.shown(line)}; "
                "expected a flag, such as --epochs=10."
            )
        yield line


def check_text(argument):
    """Refuses what is no line of text: it could not be written down again.

    Raises:
        ValueError: If it holds a line break or another control character, or
            bytes that are no UTF-8.
    """
    kinds = set(map(unicodedata.category, argument))
    if not kinds & {_CONTROL, _SURROGATE}:
        return
    raise ValueError(
        f"The argument {bounds.shown(argument)} holds a line break, another "
        "control character or what is no UTF-8; expected one line of text."
    )
