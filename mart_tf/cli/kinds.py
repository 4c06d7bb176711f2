"""Kinds of flags: how each reads what the user wrote, in our own sentences.

A flag is defined with a reader, a function from its name, with the dashes, and
the text to the value, which raises a `ValueError` of one sentence.
"""

import csv

from absl import flags

from mart_tf import bounds
from mart_tf import options
from mart_tf import places


class _Parser(flags.ArgumentParser):
    """A reader in absl's form."""

    def __init__(self, name, read):
        self._name = f"--{name}"
        self._read = read

    def parse(self, argument):
        if not isinstance(argument, str):
            # A default that is no text.
            return argument
        try:
            return self._read(self._name, argument)
        except ValueError as error:
            # absl would put words of its own before a ValueError.
            raise flags.IllegalFlagValueError(str(error)) from error


def define(values, name, default, text, read):
    """Defines a flag.

    Args:
        values: The program's `FlagValues`.
        name: Its name, without dashes.
        default: Its value where the user gives none; a text is read.
        text: Its help.
        read: A reader, such as `number` or `bounds.COUNT.read`.

    Returns:
        absl's holder of the value.
    """
    flag = flags.Flag(
        _Parser(name, read),
        None,
        name,
        default,
        text,
        boolean=read is truth,
    )
    return flags.DEFINE_flag(flag, values)


def text(name, text):
    """Any text."""
    return text


def truth(name, text):
    """true or false; a flag's name alone says true, `no` before it false."""
    values = {"true": True, "t": True, "1": True}
    values |= {"false": False, "f": False, "0": False}
    if text.lower() not in values:
        raise ValueError(
            f"{name} is {bounds.shown(text)}; expected true or false."
        )
    return values[text.lower()]


def number(name, text):
    """A number or a fraction, whatever its size: bounds come later."""
    return bounds.number(name, text)


def path(name, text):
    """A path of this machine, the user's home in the place of `~`."""
    return places.expanded(name, _given(name, text))


def path_or_url(name, text):
    """A path, or a URL such as gs://bucket/folder."""
    return places.expanded(name, _given(name, text), urls=True)


def _given(name, text):
    """The text, which a shell's variable that is not set leaves empty."""
    if not text:
        raise ValueError(f"{name} is empty; expected a path.")
    return text


def named_or_path(name, text):
    """A name with options, or a path, of which a `~` at the start tells."""
    return path(name, text) if text.startswith("~") else text


def one_of(*words):
    """A reader of one of some words."""

    def read(name, text):
        if text not in words:
            raise options.unknown(f"value of {name}", text, words)
        return text

    return read


def list_of(read, empty=True):
    """A reader of values separated by commas.

    One that holds a comma stands in quotes.

    Args:
        read: The reader of a value.
        empty: Whether there may be none, of an empty text.
    """

    def items(name, text):
        if not text and empty:
            return []
        try:
            [entries] = csv.reader([text], strict=True)
        except (csv.Error, ValueError):
            raise ValueError(
                f"{name} is {bounds.shown(text)}; expected values separated "
                "by commas, with quotes closed."
            ) from None
        entries = [item.strip() for item in entries]
        if not (entries and all(entries)):
            raise ValueError(
                f"{name} is {bounds.shown(text)}, which has an empty item; "
                "expected values separated by commas."
            )
        return [read(name, item) for item in entries]

    return items
