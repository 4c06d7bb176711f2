"""Text on a screen: no line wider than it, no word cut."""

import os
import re
import sys
import unicodedata

# Where a spec too long for a line is cut: mart:form=paper: and so on, but no
# gs://.
_JOINTS = re.compile(r"(?<=[:+,])(?!/)")


# No table fits in less; and rich prints nothing at all in 0 columns, which a
# terminal has that was never told its width.
_LEAST = 20


def console(quiet=False):
    """A `rich.console.Console` that prints texts as they are.

    It is as wide as the terminal, or as COLUMNS says; 80 without either.
    """
    import rich.console

    made = rich.console.Console(
        markup=False, highlight=False, emoji=False, quiet=quiet
    )
    if made.width < _LEAST:
        made.width = _LEAST if made.width else 80
    return made


def printable(text):
    r"""A text whose control characters are spelled out: \x1b for escape.

    So a stranger's file says nothing to a terminal. Ends of lines stay, and
    spaces of any script: a path that holds one is to be copied.
    """
    return "".join(
        one
        if one.isprintable() or one == "\n" or unicodedata.category(one) == "Zs"
        else repr(one)[1:-1]
        for one in text
    )


def say(text, heading="", on=None):
    """Prints a text in lines below each other.

    Args:
        text: One line of any length; a path in it stays whole.
        heading: What stands before the first line.
        on: A `rich.console.Console`; default: standard output.
    """
    on = on or console()
    lines = wrapped(text, on.width, len(heading))
    _print(f"{heading}{lines}", on)


def say_parts(parts, heading, on):
    """Prints short texts beside each other, none of them cut.

    Args:
        parts: The texts.
        heading, on: As of `say`.
    """
    words = [[part] for part in parts]
    lines = _filled(words, on.width - len(heading), "  ")
    text = f"\n{' ' * len(heading)}".join(lines)
    _print(f"{heading}{text}", on)


def _print(text, on):
    on.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text):
    """Prints a sentence to standard error: cut in lines on a terminal only.

    In a log a sentence is a line.
    """
    if sys.stderr.isatty():
        # A terminal that has not said its width has 0 columns.
        width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        # Over the ^C that the terminal may have put there.
        text = f"\r{wrapped(text, width)}"
    else:
        text = printable(text)
    print(text, file=sys.stderr, flush=True)


def say_command(heading, words):
    """Prints a command that can be copied, in lines joined by backslashes.

    Args:
        heading: What it is for.
        words: Its words, quoted for a shell.
    """
    on = console()
    lines = _filled([[word] for word in words], on.width - 6)
    on.print(heading, soft_wrap=True)
    on.print("  " + " \\\n    ".join(lines), soft_wrap=True)


def wrapped(text, width, indent=0):
    """A text in lines of a width, cut at spaces.

    A longer word is cut where the parts of a spec meet; what has no such
    place, as a path, is left whole.

    Args:
        text: The text.
        width: Columns of a line.
        indent: How many columns all lines but the first begin with; the first
            has room for as many before it.
    """
    room = width - indent
    words = [
        [word] if len(word) <= room else _JOINTS.split(word)
        for word in text.split(" ")
    ]
    return f"\n{' ' * indent}".join(_filled(words, room))


def _filled(words, room, between=" "):
    """Lines of words, each a list of parts that may stand on two lines."""
    lines = [""]
    for word in words:
        gap = between if lines[-1] else ""
        for part in map(printable, word):
            if lines[-1] and len(lines[-1] + gap + part) > room:
                lines.append("")
                gap = ""
            lines[-1] += gap + part
            gap = ""
    return lines
