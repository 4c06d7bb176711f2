"""What benchmarks that go through the recipes share."""

import pathlib
import re
import textwrap

from mart_tf import files

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "flags"


def paths():
    """The files of all recipes, by name."""
    return sorted(FOLDER.glob("*.cfg"))


def parsed(path, *more):
    """The flags of `mart-train` as a recipe has them, the others at default.

    Args:
        path: The recipe's file.
        more: Further flags, which come after it.
    """
    # Imported here: headers are read without TensorFlow.
    from mart_tf import train

    values = train.FLAGS
    for name in values:
        values[name].unparse()
    values(["mart-train", f"--flagfile={path}", *more])
    return values


def flags(name):
    """The lines of a recipe that mart-train is told, without its workdir."""
    lines = _file(name).read_text(encoding="utf-8").splitlines()
    told = [line.strip() for line in lines if line.startswith("--")]
    return [line for line in told if not line.startswith("--workdir=")]


def header(name, field, missing=None):
    """The text of a field of a recipe's header: Paper, Cost or Measured.

    Args:
        name: Of the recipe.
        field: The field's name.
        missing: Returned where the header has no such field, if it is given.
    """
    text = _file(name).read_text(encoding="utf-8")
    if missing is not None and f"\n# {field}: " not in text:
        return missing
    return " ".join(_field(text, field)[1])


def numbers(text):
    """The percentages of a text, in its order."""
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


def set_header(name, field, value):
    """Writes a field of a recipe's header anew, if it says something else.

    Args:
        name: Of the recipe.
        field: Measured, say.
        value: Its text, which ends with a full stop.
    """
    path = _file(name)
    text = path.read_text(encoding="utf-8")
    old, _ = _field(text, field)
    new = textwrap.fill(
        f"{field}: {value}",
        79,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    files.replace_text(path, text.replace(old, f"{new}\n"))


def _field(text, name):
    """A field's lines as they are, and their texts: up to the next field."""
    match = re.search(
        rf"^# {name}: .*\n(?:# (?!(?:Paper|Cost|Measured): ).*\n)*",
        text,
        re.MULTILINE,
    )
    if match is None:
        raise ValueError(f"a recipe without '# {name}:' in its header")
    lines = match[0].splitlines(keepends=True)
    if name == "Measured":
        # What follows it is no field: it ends with its full stop.
        ends = [line.endswith(".\n") for line in lines]
        lines = lines[: ends.index(True) + 1]
    return "".join(lines), [
        line[2:].strip().removeprefix(f"{name}: ") for line in lines
    ]


def _file(name):
    return FOLDER / f"{name}.cfg"
