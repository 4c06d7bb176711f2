"""The docs state each default, and the recipes what is trained on."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from mart_tf import bounds
from mart_tf import data
from mart_tf import defenses
from mart_tf import parameters
from mart_tf import threat as threat_model
from mart_tf.defenses import base
from mart_tf.runs import config as run_config

ROOT = pathlib.Path(__file__).parents[1]
DEFENSES = (ROOT / "docs/defenses.md").read_text()
DIFFERENCES = (ROOT / "docs/paper_and_released_code.md").read_text()
# Of the training sets as they come.
IMAGES = {"mnist": 60_000, "cifar10": 50_000}


def table(text, heading):
    """The cells of the table that begins with a heading, backquotes off."""
    lines = text[text.index(heading) :].split("\n\n")[0].splitlines()
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in [lines[0], *lines[2:]]
    ]


def number(text):
    return bounds.read_number(text)


def same(documented, value):
    if isinstance(value, bool | None):
        return documented == str(value).lower()
    if isinstance(value, float):
        return number(documented) == value
    return documented == str(value)


def test_every_option_of_a_defense_with_its_default():
    _, *rows = table(DEFENSES, "| defense | option |")
    documented = {(row[0], row[1]): row[2] for row in rows}
    defined = {
        (name, option): parameter.default
        for name, import_path in defenses.DEFENSES.items()
        for option, parameter in parameters.of(import_path).items()
    }
    assert documented.keys() == defined.keys()
    for place, default in defined.items():
        # The others follow from something: in words.
        if default not in (None, ""):
            assert same(documented[place], default), place


def test_what_stands_for_no_default_is_what_the_defense_takes():
    # Nothing ever crosses: the margin is what the search ends at, 1.05 d_max.
    def classify(images):
        sums = tf.reduce_sum(images, axis=1, keepdims=True)
        return tf.concat([9.0 - 0.01 * sums, 0.01 * sums, 0.01 * sums], 1)

    threat = threat_model.ThreatModel(epsilon=0.1)
    images = np.full([2, 4], 0.5, np.float32)
    batch = base.Batch(
        tf.constant(images),
        tf.zeros([2], tf.int32),
        None,
        None,
        tf.zeros([2, 2], tf.int64),
        {"epsilon": tf.fill([2], 0.1)},
    )
    inner = base.InnerAttack(threat, 2, 0.025, 0.1, "uniform", None)
    margins = [
        defenses.get(spec).attack(classify, batch, inner).measures["margin"]
        for spec in ("mma", defenses.complete("mma", threat.epsilon))
    ]
    np.testing.assert_array_equal(*margins)
    np.testing.assert_allclose(margins[0], 1.05 * 0.15, rtol=0.002)


def test_every_default_of_the_flags():
    _, *rows = table(DIFFERENCES, "| flag | default |")
    config = run_config.Config().resolved()
    for flag, documented, _ in rows:
        name = flag.removeprefix("--")
        if name == "defense":
            assert run_config.Config().defense == documented
        elif name == "attack_step_size":
            steps = re.fullmatch(r"epsilon / (\d+)", documented)[1]
            assert config.attack_step_size == config.epsilon / int(steps)
        elif name == "validation_images":
            most = re.fullmatch(r"a tenth, at most ([\d,]+)", documented)[1]
            for dataset, count in IMAGES.items():
                left = count - int(most.replace(",", ""))
                assert trained_on(dataset) == left
        else:
            assert same(documented, getattr(config, name)), name


def test_every_default_of_a_data_set():
    (_, *names), *rows = table(DIFFERENCES, "| | `digits`")
    assert names == [*data.DEFAULTS, "any other"]
    documented = {row[0].removeprefix("--"): row[1:] for row in rows}
    fields = vars(data.Defaults())
    assert documented.keys() == fields.keys()
    for place, name in enumerate(names):
        defaults = vars(data.DEFAULTS.get(name, data.Defaults()))
        for field, value in defaults.items():
            cell = documented[field][place]
            assert same(cell, value), (name, field)


def trained_on(dataset):
    from mart_tf.data import splits

    count = IMAGES[dataset]
    images = np.zeros([count, 1, 1, 1], np.uint8)
    source = splits.Source(
        ("one",), splits.memory_split(images, np.zeros(count, int)), None
    )
    source = splits.Source(source.class_names, source.train, source.train)
    return len(splits.assemble(dataset, source).train)


@pytest.mark.parametrize("dataset", IMAGES)
def test_recipes_say_how_many_images_are_trained_on(dataset):
    whole, part = f"{IMAGES[dataset]:,}", f"{trained_on(dataset):,}"
    recipes = 0
    for recipe in sorted((ROOT / "flags").glob("*.cfg")):
        text = recipe.read_text()
        if f"\n--dataset={dataset}\n" not in text:
            continue
        recipes += 1
        comment = " ".join(re.findall(r"^# (.*)$", text, re.MULTILINE))
        assert f"{part} of the {whole} " in comment, recipe.name
        assert "--validation_images" in comment
        assert "\n--validation_images" not in text
    assert recipes >= 9
