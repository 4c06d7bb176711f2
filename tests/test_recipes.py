"""Recipes: each resolves to what the paper says, and stands in the index."""

import json
import math
import pathlib
import re

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

import mart_tf
from mart_tf import defenses
from mart_tf import models
from mart_tf import options
from mart_tf import parameters
from mart_tf import train
from mart_tf import training
from mart_tf.labeling import subsets
from mart_tf.runs import config as run_config
from mart_tf.training import schedules

FOLDER = pathlib.Path(__file__).parent.parent / "flags"
RECIPES = sorted(FOLDER.glob("*.cfg"))
INDEX = (FOLDER / "README.md").read_text()

TABLES = {
    "update": training.UPDATES,
    "model": models.MODELS,
    "defense": defenses.DEFENSES,
    "optimizer": training.OPTIMIZERS,
    "schedule": training.SCHEDULES,
}

each_recipe = pytest.mark.parametrize(
    "recipe", RECIPES, ids=lambda path: path.stem
)


def rows(prefix, common, **specs):
    """What recipes of one prefix say: the same but for their defense."""
    return {
        f"{prefix}_{name}": common | {"defense": spec}
        for name, spec in specs.items()
    }


# Written from the paper (P: its section) and from the facts about the authors'
# code (R); what neither states is ours.
PGD_10 = {
    "norm": "linf",
    "attack_steps": 10,
    "random_start": "uniform",
}
DIGITS = PGD_10 | {
    "dataset": "digits",
    "model": "digits_cnn",
    "augment": "none",
    "epsilon": 0.15,
    "epsilon_warmup_epochs": 4.0,
    "epochs": 30,
    "batch_size": 32,
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "schedule": "piecewise:at=21+27",
    "weight_decay": 0.0,
}
MNIST = PGD_10 | {  # P 4.2
    "dataset": "mnist",
    "model": "small_cnn",
    "augment": "none",
    "epsilon": 0.3,
    "epsilon_warmup_epochs": 2.0,
    "epochs": 18,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "schedule": "piecewise:at=12+16",
    "weight_decay": 0.0,
}
NO_RAMP = {"epsilon_warmup_epochs": 0.0}
CIFAR10 = PGD_10 | {  # P 4.1 and 4.2
    "dataset": "cifar10",
    "model": "resnet18",
    "augment": "crop:padding=4,flip:probability=0.5",
    "pool": None,
    "epsilon": 8 / 255,
    "epsilon_warmup_epochs": 0.0,
    "epochs": 120,
    "batch_size": 128,
    "optimizer": "sgd",
    "schedule": "piecewise:at=75+90",
}
SECTION_4_1 = CIFAR10 | {"learning_rate": 0.1, "weight_decay": 2e-4}
SECTION_4_2 = CIFAR10 | {"learning_rate": 0.01, "weight_decay": 3.5e-3}
WRN_34_10 = {"model": "wide_resnet:depth=34:width=10"}
WRN_28_10 = {"model": "wide_resnet:depth=28:width=10"}
TABLE_4 = (
    CIFAR10
    | WRN_34_10
    | {"epochs": 90, "learning_rate": 0.1, "weight_decay": 7e-4}  # R, MART
)
RST_SETTINGS = CIFAR10 | {  # R
    "epochs": 200,
    "batch_size": 256,
    "optimizer": "sgd:nesterov=true",
    "learning_rate": 0.1,
    "schedule": "cosine",
    "weight_decay": 5e-4,
    "pool_fraction": 0.5,
    "unlabeled_weight": 1.0,
}
# R: epochs of 50,000 examples, the pool's among them.
RST = RST_SETTINGS | {"steps": 200 * math.ceil(50_000 / 256)}
TABLE_5 = {
    "mart": "mart:regularization=6",
    "rst": "trades:regularization=6",
    "uat": "uat:regularization=6",
}
FIGURE_1 = SECTION_4_1 | {"model": "cnn8"}
TRADES_ATTACK = {  # R: the code of TRADES, MART and RST
    "epsilon": 0.031,
    "attack_step_size": 0.007,
    "random_start": "gaussian",
}
THREE_DECAYS = {"schedule": "piecewise:at=75+90+100"}


PREACT = {"model": "preact_resnet18:normalize=cifar10"}
# The code of Wu, Xia and Wang (NeurIPS 2020).
AWP = CIFAR10 | {
    "epochs": 200,
    "learning_rate": 0.1,
    "schedule": "piecewise:at=100+150",
    "weight_decay": 5e-4,
}
AWP_WRN = (
    AWP
    | WRN_34_10
    | {
        "update": "awp:gamma=0.005:from_epoch=10",
        "attack_step_size": 2 / 255,
        "random_start": "gaussian",
    }
)
# Wang et al. (ICML 2023): 400 epochs of 50,000 / 512 steps, rounded up.
EDM = CIFAR10 | {
    "model": "wide_resnet:depth=28:width=10:activation=silu:"
    "normalize=cifar10:padding=same",
    "pool": "npz:edm_1m.npz",
    "pool_fraction": 0.7,
    "label_smoothing": 0.1,
    "attack_step_size": 2 / 255,
    "epochs": 400,
    "steps": 400 * math.ceil(50_000 / 512),
    "batch_size": 512,
    "optimizer": "sgd:nesterov=true",
    "learning_rate": 0.2,
    "schedule": "cosine:warmup=0.025",
    "weight_decay": 5e-4,
    "ema": 0.995,
    "ema_warmup": 0.025,
}
# In training mode, without a change of the moving statistics.
BATCH_STATISTICS = {"attack_batch_norm": "batch"}


def on_subset(side, rest):
    return f"subset:file=subsets/{side}.csv:{rest}"


EXPECTED = {
    **rows(
        "digits",
        DIGITS,
        natural="natural",
        standard="standard",
        alp="alp:regularization=0.5",
        clp="clp:regularization=0.5",
        trades="trades:regularization=4",
        dynamic="dynamic:c_max=0.5:control_epochs=25:reference=natural",
        mart="mart:regularization=5:form=paper",
        uat="uat:regularization=4",
    ),
    **rows(
        "digits",
        DIGITS
        | NO_RAMP
        | {"optimizer": "adam", "learning_rate": 0.001},  # As MMA's MNIST, R.
        mma="mma:max_margin=0.225:min_epsilon=0.0225",
    ),
    **rows(
        "mnist",
        MNIST | {"epochs": 6, "schedule": "piecewise:at=6"},
        mart="mart:regularization=5:form=paper",
    ),
    **rows(
        "table2_mnist",
        MNIST,
        standard="standard",
        dynamic="dynamic:c_max=0.5:control_epochs=15",
        trades="trades:regularization=4",
        mart="mart:regularization=5:form=paper",
    ),
    **rows(
        "table2_mnist",
        MNIST | NO_RAMP,
        mma="mma:max_margin=0.45:min_epsilon=0.1",
    ),
    **rows(
        "table2_cifar10",
        SECTION_4_2,
        standard="standard",
        mma="mma:max_margin=12/255:min_epsilon=0.005",
        dynamic="dynamic:c_max=0.5:control_epochs=100:reference=natural",
        trades="trades:regularization=4",
        mart="mart:regularization=5:form=paper",
    ),
    **rows("table3_mnist", MNIST | NO_RAMP | {"seed": 1}, surrogate="natural"),
    **rows(
        "table3_cifar10",
        SECTION_4_2 | {"model": "resnet50", "seed": 1},
        surrogate="natural",
    ),
    **rows(
        "table4",
        TABLE_4,
        standard="standard",
        dynamic="dynamic:c_max=0.5:control_epochs=75",
        trades="trades:regularization=6",
        mart="mart:regularization=6:form=paper",
    ),
    **rows("table5", RST_SETTINGS | WRN_28_10, labeler="natural"),
    **rows(
        "table5a",
        RST
        | {
            "model": "wide_resnet:depth=34:width=8",
            "pool": "npz:pool_100k.npz",
        },
        **TABLE_5,
    ),
    **rows(
        "table5b", RST | WRN_28_10 | {"pool": "npz:pool_500k.npz"}, **TABLE_5
    ),
    **rows("figure1", FIGURE_1, standard="standard"),
    **rows(
        "figure1a",
        FIGURE_1,
        wrong=on_subset("wrong", "treatment=natural"),
        right=on_subset("right", "treatment=natural"),
    ),
    **rows(
        "figure1b",
        FIGURE_1,
        wrong=on_subset("wrong", "treatment=fgsm"),
        right=on_subset("right", "treatment=fgsm"),
    ),
    **rows(
        "figure1c",
        FIGURE_1,
        wrong=on_subset("wrong", "treatment=kl:regularization=4"),
        right=on_subset("right", "treatment=kl:regularization=4"),
    ),
    **rows("figure2", SECTION_4_1, mart="mart:regularization=6"),
    **rows(
        "figure2a",
        SECTION_4_1,
        no_weight="mart:regularization=6:weighting=none",
        no_divergence="mart:regularization=6:divergence=false",
        bce="mart:divergence=false:weighting=none",
    ),
    **rows(
        "figure2b",
        SECTION_4_1,
        ce="mart:regularization=6:outer=ce",
        bce_natural="mart:regularization=6:outer=bce_natural",
        inner_kl="mart:regularization=6:inner=kl",
    ),
    **rows(
        "figure2c",
        SECTION_4_1,
        share="mart:regularization=6:regularized_fraction=0.5",
    ),
    **rows(
        "figure2d",
        SECTION_4_1,
        mart="mart:regularization=6",
        trades="trades:regularization=6",
    ),
    **rows(
        "released",
        SECTION_4_2 | TRADES_ATTACK | THREE_DECAYS,
        mart_resnet18="mart:regularization=5:form=released",
    ),
    **rows(
        "released",
        TABLE_4 | TRADES_ATTACK | THREE_DECAYS,
        mart_wrn34="mart:regularization=6:form=released",
    ),
    **rows(
        "released",
        TABLE_4
        | TRADES_ATTACK
        | THREE_DECAYS
        | {"epochs": 76, "weight_decay": 2e-4},
        trades_cifar10="trades:regularization=6",
    ),
    **rows(
        "released",
        MNIST
        | NO_RAMP
        | {
            "attack_steps": 40,
            "attack_step_size": 0.01,
            "random_start": "gaussian",
            "epochs": 100,
            "schedule": "piecewise:at=55+75+90",
        },
        trades_mnist="trades:regularization=1",
    ),
    **rows(
        "released",
        CIFAR10
        | WRN_34_10
        | {
            "epsilon": 0.031,
            "learning_rate": 0.01,
            "schedule": "piecewise:at=60+100",
            "weight_decay": 4e-3,
        },
        dynamic_cifar10="dynamic:c_max=0.5:control_epochs=100:reference=start",
    ),
    **rows(
        "released",
        RST
        | WRN_28_10
        | TRADES_ATTACK
        | {"pool": "pickle:ti_500K_pseudo_labeled.pickle"},
        rst="trades:regularization=6",
    ),
    **rows(
        "released",
        MNIST
        | NO_RAMP
        | {
            "attack_steps": 40,
            "epochs": 100,
            "steps": 100_000,  # R
            "batch_size": 50,
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "schedule": "constant",
        },
        mma_mnist="mma:max_margin=0.45:min_epsilon=0.1",
    ),
    **rows(
        "released",
        CIFAR10
        | {
            "model": "wide_resnet:depth=28:width=4",
            "epochs": 100,
            "steps": 50_000,  # R
            "learning_rate": 0.3,
            "schedule": "piecewise:at=41+61+81:factor=0.3",
            "falls_at": [20_000, 30_000, 40_000],  # R
            "weight_decay": 2e-4,
        },
        mma_cifar10="mma:max_margin=12/255:min_epsilon=0.005",
    ),
    **rows(
        "awp",
        AWP
        | PREACT
        | {
            "update": "awp:gamma=0.01",
            # Of epochs counted from 0: the 101st and the 151st.
            "schedule": "piecewise:at=101+151",
        }
        | BATCH_STATISTICS,
        resnet18="standard",
    ),
    **rows(
        "awp_wrn34",
        AWP_WRN,
        trades="trades:regularization=6",
        mart="mart:regularization=6",
    ),
    **rows(
        "edm_wrn28",
        EDM | BATCH_STATISTICS,
        trades="trades:regularization=5",
    ),
    **rows(
        "edm_wrn28",
        EDM | {"random_start": "gaussian", "attack_batch_norm": "inference"},
        mart="mart:regularization=5",
    ),
    **rows(
        "fast",
        CIFAR10
        | PREACT
        | {
            "epochs": 30,
            "learning_rate": 0.2,
            "schedule": "onecycle:peak=0.4",
            "weight_decay": 5e-4,
        },
        resnet18="nfgsm",
    ),
}

# Ours: what two cores train in an evening.
SMALL = CIFAR10 | {
    "model": "wide_resnet:depth=10:width=2",
    "epochs": 12,
    "learning_rate": 0.1,
    "schedule": "cosine",
    "weight_decay": 5e-4,
}
EXPECTED |= rows(
    "cifar10_small",
    SMALL,
    standard="standard",
    trades="trades:regularization=6",
    mart="mart:regularization=5",
) | rows(
    "cifar10_small",
    SMALL | {"update": "awp:gamma=0.005:from_epoch=3", "ema": 0.995},
    mart_awp="mart:regularization=5",
)

EXPECTED |= rows(
    "mnist",
    MNIST | {"learning_rate": 0.03, "schedule": "onecycle:peak=0.1"},
    best="mart:regularization=5",
)

# Tables 2, 4 and 5 of the paper; their order is that of the headers.
PAPER = {
    "table2_mnist_standard": "99.11 97.17 94.62 94.25",
    "table2_mnist_mma": "98.92 97.25 95.25 94.77",
    "table2_mnist_dynamic": "98.96 97.34 95.27 94.85",
    "table2_mnist_trades": "99.25 96.67 94.58 94.03",
    "table2_mnist_mart": "98.74 97.87 96.48 96.10",
    "table2_cifar10_standard": "84.44 61.89 47.55 45.98",
    "table2_cifar10_mma": "84.76 62.08 48.33 45.77",
    "table2_cifar10_dynamic": "83.33 62.47 49.40 46.94",
    "table2_cifar10_trades": "82.90 62.82 50.25 48.29",
    "table2_cifar10_mart": "83.07 65.65 55.57 54.87",
    "table4_standard": "87.30 56.10 56.10 52.68 49.31 51.55 49.03 50.73 48.47",
    "table4_dynamic": "84.51 63.53 63.53 55.03 51.70 54.12 50.07 51.34 49.27",
    "table4_trades": "84.22 64.70 64.70 56.40 53.16 55.68 51.27 51.98 51.12",
    "table4_mart": "84.17 67.51 67.51 58.56 57.39 57.88 55.04 54.58 54.53",
    "table5a_uat": "86.04 59.41",
    "table5a_rst": "88.24 59.60",
    "table5a_mart": "86.68 61.88",
    "table5b_uat": "86.21 62.76",
    "table5b_rst": "89.70 63.10",
    "table5b_mart": "86.30 65.04",
}
PAPER["mnist_mart"] = PAPER["table2_mnist_mart"]


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Moves to a folder where recipes find what they name; returns it."""
    for name in ("mnist", "cifar10"):
        folder = tmp_path / name / "1.0.0"
        folder.mkdir(parents=True)
        split = {"name": "train", "shardLengths": ["50000"]}
        info = json.dumps({"splits": [split]})
        (folder / "dataset_info.json").write_text(info)
        (folder / "features.json").write_text("{}")
    for recipe in RECIPES:
        kind, _, path = written(recipe).get("pool", "").partition(":")
        if kind == "npz":
            image = np.zeros([1, 32, 32, 3], np.uint8)
            np.savez(tmp_path / path, image=image, label=[0])
        elif kind:
            (tmp_path / path).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(recipe):
    """The flags that a recipe writes, as text."""
    lines = recipe.read_text().splitlines()
    return dict(
        line.removeprefix("--").split("=", 1)
        for line in lines
        if line.startswith("--")
    )


def header(recipe):
    """A recipe's comment on one line."""
    lines = recipe.read_text().splitlines()
    return " ".join(line[2:] for line in lines if line.startswith("#"))


def configuration(recipe, *arguments):
    """The configuration that `mart-train --flagfile=recipe` would run."""
    values = train.FLAGS
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    values(["mart-train", f"--flagfile={recipe}", *arguments])
    return train.configuration().resolved()


def whole(spec, table):
    """The name in a spec and all its options, defaults included."""
    name = options.parse(spec).name
    taken = parameters.of(table[name])
    # What a run fills in is no user's to give.
    filled = [option for option in taken if taken[option].required]
    known = options.Names(table, "part", filled).resolve(spec).options
    return name, {
        option: known.get(option, parameter.default)
        for option, parameter in taken.items()
    }


def test_every_recipe_of_the_paper_has_its_expectation():
    of_the_paper = re.compile(r"Table \d|Figure \d|authors' code")
    recipes = {r.stem for r in RECIPES if of_the_paper.search(header(r))}
    assert recipes <= set(EXPECTED) <= {recipe.stem for recipe in RECIPES}


@each_recipe
def test_resolves_to_what_the_paper_says(recipe, stand_ins):
    config = configuration(recipe, f"--data_dir={stand_ins}")
    expected = dict(EXPECTED.get(recipe.stem, {}))
    steps = expected.pop("steps", None)
    if steps is None:
        assert config.steps_per_epoch is None
    else:
        assert config.epochs * config.steps_per_epoch == steps
        assert f"{steps:,}" in header(recipe)
    for step in expected.pop("falls_at", []):
        rate = schedules.create(
            config.schedule,
            config.learning_rate,
            config.steps_per_epoch,
            config.epochs,
        )
        assert float(rate(step)) < 0.5 * float(rate(step - 1))
    if expected:
        expected.setdefault("attack_step_size", expected["epsilon"] / 4)
    resolved = {name: getattr(config, name) for name in expected}
    for name in TABLES.keys() & expected.keys():
        # However a spec is written, and whatever the defaults are.
        resolved[name] = whole(resolved[name], TABLES[name])
        expected[name] = whole(expected[name], TABLES[name])
    assert resolved == expected
    assert config.precision == "auto"


def test_digits_is_what_the_program_does_without_flags():
    recipe = configuration(FOLDER / "digits_mart.cfg")
    default = run_config.Config().resolved()
    assert recipe == default


def test_no_two_recipes_share_a_workdir(stand_ins):
    data_dir = f"--data_dir={stand_ins}"
    workdirs = [configuration(r, data_dir).workdir for r in RECIPES]
    assert len(set(workdirs)) == len(RECIPES)


@each_recipe
def test_is_flat_and_says_what_it_runs(recipe):
    lines = recipe.read_text().splitlines()
    flags = [line for line in lines if not line.startswith("#")]
    # A flag stands on one line.
    assert all(len(line) <= 80 for line in lines if line not in flags)
    assert all(re.match(r"--\w+=\S", line) for line in flags)
    names = [line[2:].split("=")[0] for line in flags]
    assert len(set(names)) == len(names)
    assert "flagfile" not in names
    if recipe.stem in EXPECTED:
        told = "dataset model defense epsilon attack_steps epochs batch_size"
        told += " learning_rate schedule precision"
        assert set(told.split()) <= set(names)


@each_recipe
def test_header(recipe):
    text = header(recipe)
    assert f"mart-train --flagfile=flags/{recipe.name}" in text
    assert re.search(r"(Paper|Expected): ", text)
    assert "Cost: " in text
    assert re.search(r"Measured: (\w+ \d|not measured|not yet)", text)
    paper = re.search(r"Paper: (.*?)Cost: ", text)
    for number in PAPER.get(recipe.stem, "").split():
        assert number in paper.group(1)


def groups():
    """The recipes that the index names under each of its headings."""
    by_title = {}
    for section in INDEX.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        by_title[title] = dict(
            re.findall(r"^\| `(\w+)\.cfg` \| (.*) \|$", body, re.MULTILINE)
        )
    return by_title


def test_the_index_names_each_recipe_once():
    names = [name for group in groups().values() for name in group]
    assert sorted(names) == sorted(recipe.stem for recipe in RECIPES)
    mentioned = re.findall(r"\b(\w+)\.cfg\b", INDEX)
    assert set(mentioned) == set(names)


@pytest.mark.parametrize("title", groups())
def test_recipes_are_of_the_table_or_figure_they_stand_under(title):
    of = re.search(
        r"(Table|Figure) \d|Digits|Released|Beyond|small", title
    ).group()
    for name, row in groups()[title].items():
        text = header(FOLDER / f"{name}.cfg")
        purpose = re.split(r"(Paper|Expected): ", text)[0]
        told = {
            "Released": "authors' code",
            "Digits": "digits",
            "Beyond": "MNIST" if "mnist" in name else "CIFAR-10",
            "small": "small residual network",
        }.get(of, of)
        assert told in purpose
        prefix = name.split("_")[0]
        if prefix.startswith(("table", "figure")):
            # figure2b is Figure 2b.
            words = re.sub(r"(\d)", r" \1", prefix.capitalize(), count=1)
            assert words in purpose
        for number in re.findall(r"\d\d\.\d\d", row):
            assert number in text


def trained_defenses():
    """The defenses of all recipes, one for each way through their code."""
    specs = {}
    for recipe in RECIPES:
        spec = options.parse(written(recipe)["defense"])
        # Numbers and files do not lead another way; words do.
        ways = tuple(
            (key, value if re.fullmatch("[a-z_]+", value) else "")
            for key, value in spec.options.items()
        )
        specs.setdefault((spec.name, ways), spec.text)
    return sorted(specs.values())


@pytest.mark.parametrize("defense", trained_defenses())
def test_each_defense_takes_two_steps(defense, tmp_path, monkeypatch):
    count, batch_size = 32, 16
    digits = sklearn.datasets.load_digits()
    images = digits.images[:count, ..., None].astype("float32") / 16
    labels = digits.target[:count]
    chosen = np.arange(0, count, 4)
    examples = subsets.Examples(
        dataset="digits",
        images=count,
        bound=count,
        picked_by="this test",
        rows=chosen,
        labels=labels[chosen],
        predicted=labels[chosen],
    )
    monkeypatch.chdir(tmp_path)
    subsets.write("subsets", examples, examples)
    network = keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    before = network.get_weights()
    model = mart_tf.AdversarialClassifier(
        network,
        defense,
        mart_tf.ThreatModel(epsilon=0.15),
        attack_steps=2,
        rows=count,
    )
    model.defense.check_data(count, count, "digits")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step)
    inputs = {"image": images, "index": np.arange(count)}
    batches = tf.data.Dataset.from_tensor_slices((inputs, labels))
    for batch in batches.batch(batch_size):
        assert np.isfinite(step(batch)["loss"])
    assert int(model.step) == 2
    after = network.get_weights()
    assert all(np.isfinite(weights).all() for weights in after)
    assert not np.allclose(before[0], after[0])
