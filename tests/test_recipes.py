"""Recipes: each parses, resolves, and stands in the index."""

import pathlib

import pytest

from mart_tf import train
from mart_tf.training import config as run_config

FOLDER = pathlib.Path(__file__).parent.parent / "flags"
RECIPES = sorted(FOLDER.glob("*.cfg"))


def configuration(recipe, *arguments):
    """The configuration that `mart-train --flagfile=recipe` would run."""
    values = train.FLAGS
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    values(["mart-train", f"--flagfile={recipe}", *arguments])
    return train.configuration().resolved()


def test_there_are_recipes():
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_resolves(recipe, tmp_path):
    # Whether the data is there is not the recipe's business.
    name = next(
        line.split("=")[1]
        for line in recipe.read_text().splitlines()
        if line.startswith("--dataset=")
    )
    (tmp_path / name / "1.0.0").mkdir(parents=True)
    (tmp_path / name / "1.0.0" / "dataset_info.json").write_text("{}")
    (tmp_path / name / "1.0.0" / "features.json").write_text("{}")
    config = configuration(recipe, f"--data_dir={tmp_path}")
    assert config.dataset == name


def test_digits_is_what_the_program_does_without_flags():
    recipe = configuration(FOLDER / "digits_mart.cfg")
    default = run_config.Config().resolved()
    assert recipe == default


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_header_and_index(recipe):
    header = [
        line for line in recipe.read_text().splitlines() if line[:1] == "#"
    ]
    assert any(
        f"mart-train --flagfile=flags/{recipe.name}" in line for line in header
    )
    assert any("Measured:" in line for line in header)
    index = (FOLDER / "README.md").read_text()
    assert f"`{recipe.name}`" in index


def test_the_index_names_no_recipe_that_is_gone():
    index = (FOLDER / "README.md").read_text()
    named = {word for word in index.split("`") if word.endswith(".cfg")}
    assert {n for n in named if "/" not in n and " " not in n} == {
        recipe.name for recipe in RECIPES
    }
