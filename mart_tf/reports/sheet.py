"""What the figures of a report share: paper, colours, words.

`matplotlib.figure.Figure` is used directly: pyplot would keep every figure
and choose a backend for the whole process. Colours are those of Okabe and Ito,
which the colour-blind tell apart; nothing is said by colour alone.
"""

import dataclasses
import io
import re
import textwrap

import numpy as np

NATURAL = "#0072B2"
ROBUST = "#56B4E9"
WORST = "#D55E00"
SEVERAL = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#000000",
)

_WIDTH = 9.0
_STYLE = {
    "font.size": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # A name may hold a dollar sign, which is no formula.
    "text.parse_math": False,
}
_DOTS = 144


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure as it is written and shown.

    Args:
        name: The file's name without ".png".
        heading: What it shows.
        alt: The same in words, for those who do not see it.
        png: The image.
        width: In units of a web page, 96 to an inch.
    """

    name: str
    heading: str
    alt: str
    png: bytes
    width: int


def draw(name, heading, function, *arguments):
    """A `Drawing` of what `function(figure, *arguments)` draws.

    The function gets an empty figure and returns the text that stands for it.
    """
    from matplotlib import figure
    from matplotlib import style

    # Whatever style the user has chosen for the figures of a notebook.
    with style.context(["default", _STYLE]):
        sheet = figure.Figure(figsize=(_WIDTH, 4.5), layout="constrained")
        alt = function(sheet, *arguments)
        file = io.BytesIO()
        sheet.savefig(file, format="png", dpi=_DOTS)
    width = round(96 * sheet.get_figwidth())
    return Drawing(name, heading, alt, file.getvalue(), width)


def wrapped(text, width):
    """A text in lines of so many characters, cut at the joints of specs."""
    lines = [""]
    for part in re.findall(r"[^\s:+/]*[\s:+/]*", text):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    # Where there is nothing to cut at, it is cut anywhere.
    return "\n".join(
        piece for line in lines for piece in textwrap.wrap(line, width)
    )


def shortened(text, width):
    """The beginning of a text of more than so many characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def title(figure, report):
    """Puts the report's title on top."""
    figure.suptitle(wrapped(report.title, 90), fontsize="medium")


def listed(heading, names, values):
    """Numbers in words, those that are NaN left out."""
    pairs = [
        f"{name} {value:.1f}"
        for name, value in zip(names, values, strict=True)
        if not np.isnan(value)
    ]
    return f"{heading}: {', '.join(pairs)}."
