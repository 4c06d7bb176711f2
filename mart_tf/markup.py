"""Texts of a user inside Markdown, and tables of it."""

import re

# The backslash first: the others bring their own.
_ESCAPES = {
    "\\": "\\\\",
    "&": "&amp;",
    "<": "&lt;",
    "|": "\\|",
    "[": "\\[",
    "]": "\\]",
    "*": "\\*",
    "`": "\\`",
    "~": "\\~",
}
# Inside a word an underscore is itself.
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def escaped(text):
    """A text as it is: no table, no tag, no emphasis, one line."""
    for character, instead in _ESCAPES.items():
        text = text.replace(character, instead)
    text = _UNDERSCORE.sub(r"\\_", text)
    return " ".join(text.split())


def table(headings, rows, alignment):
    """A table; the alignment is of all columns but the first.

    Args:
        headings, rows: Of texts that are escaped.
        alignment: "---", or "---:" for numbers.
    """
    rule = ["---", *[alignment] * (len(headings) - 1)]
    lines = [headings, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
