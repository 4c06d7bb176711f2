"""What benchmarks that go through the recipes share."""

import pathlib

from mart_tf import train

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "flags"


def paths():
    """The files of all recipes, by name."""
    return sorted(FOLDER.glob("*.cfg"))


def parsed(path):
    """The flags of `mart-train` as a recipe has them, the others at default."""
    values = train.FLAGS
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    values(["mart-train", f"--flagfile={path}"])
    return values
