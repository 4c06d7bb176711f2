"""What the figures of a report share: paper, colours, words.

`matplotlib.figure.Figure` is used directly: pyplot would keep every figure
and choose a backend for the whole process. Colours are those of Okabe and Ito,
which the colour-blind tell apart; nothing is said by colour alone.
"""

import dataclasses
import io
import re
import textwrap
import warnings

import numpy as np

from mart_tf import bounds

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

# The usual font, and what matplotlib says of a character that a font lacks.
_FONT = "DejaVu Sans"
_LACKS = r"Glyph (\d+) .* missing from font"


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
    made, missing = _drawn(function, arguments, _STYLE)
    families = _families(missing)
    if families:
        fonts = {"font.family": [_FONT, *families]}
        made, missing = _drawn(function, arguments, _STYLE | fonts)
    if missing:
        warnings.warn(
            f"Figures show boxes for {''.join(map(chr, sorted(missing)))}: no "
            "font of this machine has them; install one that does, such as "
            "Noto Sans CJK for Chinese, Japanese and Korean (fonts-noto-cjk in "
            "Debian), and draw them again.",
            stacklevel=2,
        )
    return Drawing(name, heading, *made)


def _drawn(function, arguments, settings):
    """Draws a figure once.

    Returns:
        The last three of a `Drawing`, and the code points of the characters
        that its fonts lack, a set.
    """
    from matplotlib import figure
    from matplotlib import style

    # Whatever style the user has chosen for the figures of a notebook.
    with (
        style.context(["default", settings]),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.filterwarnings("always", _LACKS)
        sheet = figure.Figure(figsize=(_WIDTH, 4.5), layout="constrained")
        alt = function(sheet, *arguments)
        file = io.BytesIO()
        sheet.savefig(file, format="png", dpi=_DOTS)
    missing = set()
    for warning in caught:
        lacks = re.match(_LACKS, str(warning.message))
        if lacks:
            missing.add(int(lacks[1]))
        else:
            warnings.warn_explicit(
                warning.message,
                warning.category,
                warning.filename,
                warning.lineno,
            )
    width = round(96 * sheet.get_figwidth())
    return (alt, file.getvalue(), width), missing


def _families(missing):
    """Installed fonts that have characters which the usual one lacks.

    Args:
        missing: Their code points, a set.

    Returns:
        Names of as few families as one pass over them gives, a list.
    """
    from matplotlib import font_manager

    found = []
    entries = font_manager.fontManager.ttflist
    for entry in sorted(entries, key=lambda each: (each.name, each.fname)):
        if not missing:
            break
        # The last resort, which newer matplotlib brings, has boxes for all.
        if entry.style != "normal" or "Last Resort" in entry.name:
            continue
        try:
            charmap = font_manager.get_font(entry.fname).get_charmap()
        # A file that has gone, or that FreeType cannot read.
        except (OSError, RuntimeError):
            continue
        has = missing.intersection(charmap)
        if has:
            found.append(entry.name)
            missing = missing - has
    return found


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
    """Numbers in % in words, those that are NaN left out."""
    pairs = [
        f"{name} {bounds.percent(value / 100, 1)}"
        for name, value in zip(names, values, strict=True)
        if not np.isnan(value)
    ]
    return f"{heading}: {', '.join(pairs)}."
