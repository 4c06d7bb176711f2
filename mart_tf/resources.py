"""Where the recipes, the serving kit and the docs of this installation lie.

`flags/`, `export/` and `docs/` are no packages: a checkout has them beside
`mart_tf`, a wheel puts them into `share/mart_tf` of where it is installed.
"""

import difflib
import os
import pathlib

_PACKAGE = pathlib.Path(__file__).parent


def folder():
    """The folder that holds them; None if they are not there.

    It stands beside the package (a checkout, an editable install) or is
    `share/mart_tf` beside or above it: of an environment, of `--user`,
    `--prefix` or `--target`. The list of files that pip keeps is not asked: it
    is wrong after `--target`, and other installers need not keep one.
    """
    beside = _PACKAGE.parent
    above = (place / "share" / "mart_tf" for place in _PACKAGE.parents)
    for place in (beside, *above):
        if (place / "flags" / "digits_mart.cfg").is_file():
            return place
    return None


def flagfile(name):
    """The file that `--flagfile=name` means: a file here, else a recipe.

    Args:
        name: A path, or a recipe as `mnist_mart`, `mnist_mart.cfg` or
            `flags/mnist_mart.cfg`.

    Raises:
        ValueError: If there is neither.
    """
    path = os.path.expanduser(name.strip())
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    sentence = f"--flagfile is {name!r}, which is no file; expected a file of"
    place = folder()
    if place is None:
        raise ValueError(
            f"{sentence} flags (the recipes of mart_tf are not installed)."
        )
    recipes = {recipe.stem: recipe for recipe in place.glob("flags/*.cfg")}
    stem = os.path.basename(path).removesuffix(".cfg")
    if os.path.dirname(path) in ("", ".", "flags") and stem in recipes:
        return str(recipes[stem])
    near = difflib.get_close_matches(stem, recipes, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    raise ValueError(
        f"{sentence} flags or the name of a recipe in {place / 'flags'}{hint}"
    )
