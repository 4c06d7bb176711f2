"""What of the paper is run here, and how: tables 2 and 3, figures 1 and 2,
the trend of table 5; and beyond it table 2 with another network, the average
of the weights and other tricks on MNIST, the best of them in more epochs, a
small network on CIFAR-10, and every defense and trick on the embedded digits.

A run is a recipe of `flags/` with a seed, and flags where two cores allow less
than the recipe asks for. Its measures are calls of mart-evaluate.
"""

from typing import NamedTuple

import recipes


class Run(NamedTuple):
    """One training run, and what is measured of it.

    Attributes:
        name: Of its folder and its record.
        parts: The tables and figures that it belongs to.
        row: What it is called there.
        recipe: Name of its recipe.
        seed: Its seed.
        minutes: About what it takes on two cores that multiply bfloat16.
        flags: Further flags of mart-train.
        measures: Names of `MEASURES`.
        needs: Names of the runs that come first.
        label: Flags of mart-label, called once it is trained; the last one's
            value is what that writes.
    """

    name: str
    parts: tuple
    row: str
    recipe: str
    seed: int
    minutes: int
    flags: tuple = ()
    measures: tuple = ()
    needs: tuple = ()
    label: tuple = ()


SURROGATE = "table3_mnist_surrogate_1"
# The paper does not say how its surrogate was trained.
ADVERSARIAL_SURROGATE = "mnist_mart_2"

# AutoAttack on all test images takes hours; of CIFAR-10 the same are taken.
_FIRST = "--max_examples=1000"
_TRANSFER = (
    "--attacks=transfer:fgsm,transfer:pgd:steps=10:steps_per_epsilon=4,"
    "transfer:pgd:steps=20,transfer:cw"
)
# Flags of mart-evaluate, which is called in the folder of all runs.
MEASURES = {
    "white box": ("--attacks=fgsm,pgd:steps=20,pgd:steps=100,cw",),
    "black box": (f"--surrogate={SURROGATE}", _TRANSFER),
    "black box, adversarial": (
        f"--surrogate={ADVERSARIAL_SURROGATE}",
        _TRANSFER,
    ),
    "autoattack": ("--attacks=autoattack", _FIRST),
    # What a recipe is chosen by; the radius is the same for all.
    "validation": (
        "--attacks=pgd:steps=20,autoattack",
        "--split=validation",
        "--epsilon=0.3",
        _FIRST,
    ),
    "first 500": ("--attacks=pgd:steps=20,autoattack", "--max_examples=500"),
    "digits": ("--attacks=fgsm,pgd:steps=20,cw",),
    "digits, autoattack": ("--attacks=autoattack",),
    "test": ("--attacks=pgd:steps=20", _FIRST),
    "last epoch": ("--attacks=pgd:steps=20", _FIRST, "--checkpoint=last"),
    "strong": ("--attacks=pgd:steps=20,autoattack", _FIRST),
    "strong, all": ("--attacks=pgd:steps=20,autoattack",),
    "strong, last epoch": (
        "--attacks=pgd:steps=20,autoattack",
        _FIRST,
        "--checkpoint=last",
    ),
}

_MNIST_MINUTES = {
    "standard": 40,
    "mma": 65,
    "dynamic": 45,
    "trades": 50,
    "mart": 45,
}
_ROWS = {
    "standard": "Standard",
    "mma": "MMA",
    "dynamic": "Dynamic",
    "trades": "TRADES",
    "mart": "MART",
}
DEFENSES = tuple(_ROWS.values())

# The same on every machine, also on one that multiplies bfloat16.
EXACT = ("--precision=float32",)

# Recipes of newer publications: what they are, and the AutoAttack published.
BEYOND = {
    "awp_resnet18": (
        "standard training with AWP, PreAct ResNet-18",
        "none (PGD-20 55.39)",
    ),
    "awp_wrn34_mart": ("MART with AWP, WRN-34-10", "54.23"),
    "awp_wrn34_trades": ("TRADES with AWP, WRN-34-10", "56.17"),
    "edm_wrn28_mart": ("MART with 1M generated images, WRN-28-10", "none"),
    "edm_wrn28_trades": (
        "TRADES with 1M generated images, WRN-28-10",
        "63.35",
    ),
    "fast_resnet18": ("N-FGSM, one step of attack, PreAct ResNet-18", "none"),
    "mnist_best": ("MART in one cycle, small CNN, MNIST", "92.81 (TRADES)"),
}

# The small residual network on a part of CIFAR-10.
_SMALL = ("--model=wide_resnet:depth=10:width=2",)
_CURVE = (
    *_SMALL,
    "--dataset=cifar10:count=12000",
    "--epochs=24",
    "--schedule=piecewise:at=16+21",
)
_CURVE_MINUTES = 40
# 4,000 labels, the other training images without.
_LABELED = (*_SMALL, "--dataset=cifar10:count=4000", "--validation_images=400")
_POOL = "cifar10:first=4000:count=46000"
# About the same number of steps of batch 128, a pool half of each batch.
_STEPS = ("--batch_size=128", "--steps_per_epoch=300", "--epochs=20")
_POOLED = (*_STEPS, "--pool=npz:pool_4000.npz", "--pool_fraction=0.5")


def runs():
    """All runs, those that others need before them, a list."""
    return [
        *_tables_2_and_3(),
        *_network(),
        *_average(),
        *_tricks(),
        *_best(),
        *_figure_1(),
        *_figure_2(),
        *_table_5(),
        *_small(),
        *_digits(),
    ]


def parts():
    """The names of the tables and figures, a list."""
    return list(dict.fromkeys(part for run in runs() for part in run.parts))


def settings(run):
    """All that a run's weights hang on, as the recipes have it now.

    Returns:
        Flags of mart-train and mart-label, lists of text, by the names of the
        run and of those that it needs.
    """
    return {
        each.name: [
            *recipes.flags(each.recipe),
            f"--seed={each.seed}",
            *each.flags,
            *each.label,
        ]
        for each in (*(r for r in runs() if r.name in run.needs), run)
    }


def expected(recipe):
    """The paper's numbers in a recipe's header: natural, FGSM, PGD-20, CW."""
    return recipes.numbers(recipes.header(recipe, "Paper"))


def said(recipe):
    """What the paper says of a recipe's run, without a full stop.

    Empty for a recipe that is none of the paper's.
    """
    text = recipes.header(recipe, "Paper", missing="")
    nothing = "no numbers in the text"
    for beginning in (f"{nothing}; ", f"{nothing} but "):
        text = text.removeprefix(beginning)
    return text.removesuffix(".")


def expected_black_box():
    """Table 3: FGSM, PGD-10, PGD-20 and CW by defense, in percent."""
    text = recipes.header("table3_mnist_surrogate", "Paper")
    rows = {name: text.split(f" {name} ")[1] for name in DEFENSES}
    return {name: recipes.numbers(row)[:4] for name, row in rows.items()}


def _tables_2_and_3():
    """MNIST; a seed for all first, then two more of MART and Standard."""
    yield Run(
        SURROGATE,
        ("table3",),
        "surrogate",
        "table3_mnist_surrogate",
        1,
        6,
    )
    order = [(name, 0) for name in ("mart", "standard", "trades", "mma")]
    order += [("dynamic", 0)]
    order += [(name, seed) for seed in (1, 2) for name in ("mart", "standard")]
    for name, seed in order:
        recipe = f"table2_mnist_{name}"
        measures, needs = ["white box", "autoattack"], []
        if seed == 0:
            measures.append("black box")
            needs.append(SURROGATE)
        # Of runs whose weights are needed anyway: none is trained for it twice.
        if seed == (1 if name in ("mart", "standard") else 0):
            measures.append("black box, adversarial")
            needs.append(ADVERSARIAL_SURROGATE)
        yield Run(
            f"{recipe}_{seed}",
            ("table2", "table3") if len(measures) > 2 else ("table2",),
            _ROWS[name],
            recipe,
            seed,
            _MNIST_MINUTES[name] + 20,
            measures=tuple(measures),
            needs=tuple(needs),
        )


def _network():
    """Table 2's first rows with the other network that it may be of."""
    for name in ("standard", "trades", "mart"):
        recipe = f"table2_mnist_{name}"
        yield Run(
            f"{recipe}_cnn4_0",
            ("network",),
            _ROWS[name],
            recipe,
            0,
            65,
            ("--model=cnn4",),
            ("white box",),
        )


def _average():
    """MART in six epochs, three seeds; the best epoch by what is averaged."""
    ema = "--ema=0.995"
    rows = (
        ("mnist_mart", "the weights", ()),
        ("mnist_mart_average", f"their average, `{ema}`", (ema,)),
    )
    for seed in range(3):
        for name, row, flags in rows:
            whole = ("white box",) if not flags and seed == 0 else ()
            chosen = ("validation",) if seed == 0 else ()
            yield Run(
                f"{name}_{seed}",
                ("average", "tricks") if seed == 0 else ("average",),
                row,
                "mnist_mart",
                seed,
                25 + 13 * len(chosen),
                flags,
                ("first 500", *whole, *chosen),
            )


def _tricks():
    """The same run with one thing more; with the average it is above."""
    tricks = {
        "awp": ("--update=awp:gamma=0.005",),
        "smoothing": ("--label_smoothing=0.1",),
        "regularization": ("--defense=mart:regularization=8",),
        "epsilon": ("--epsilon=0.35",),
        "onecycle": ("--schedule=onecycle", "--learning_rate=0.05"),
        "faster": ("--schedule=onecycle", "--learning_rate=0.1"),
        "cosine": ("--schedule=cosine:warmup=0.1", "--learning_rate=0.03"),
    }
    for name, flags in tricks.items():
        yield Run(
            f"mnist_mart_{name}_0",
            ("tricks",),
            f"`{' '.join(flags)}`",
            "mnist_mart",
            0,
            27,
            flags,
            ("validation",),
        )


def _best():
    """What the tricks led to, three seeds; all test images take hours."""
    for seed in range(3):
        yield Run(
            f"mnist_best_{seed}",
            ("best",),
            "MART",
            "mnist_best",
            seed,
            45 + (220 if seed == 0 else 20),
            measures=("strong", "strong, all") if seed == 0 else ("strong",),
        )


def _figure_1():
    first = "figure1_standard_0"
    yield Run(
        first,
        ("figure1",),
        "nothing changed",
        "figure1_standard",
        0,
        _CURVE_MINUTES,
        _CURVE,
        ("test", "last epoch"),
        label=("--subsets=subsets",),
    )
    for plot in "abc":
        for which, subset in (("wrong", "S-"), ("right", "S+")):
            recipe = f"figure1{plot}_{which}"
            yield Run(
                f"{recipe}_0",
                ("figure1",),
                f"{plot}, {subset}",
                recipe,
                0,
                _CURVE_MINUTES,
                _CURVE,
                ("test", "last epoch"),
                (first,),
            )


def _figure_2():
    curves = {
        "figure2_mart": "MART",
        "figure2a_no_weight": "a, without 1 - p",
        "figure2a_no_divergence": "a, without KL",
        "figure2a_bce": "a, without both",
        "figure2b_ce": "b, CE for BCE",
        "figure2b_bce_natural": "b, BCE on natural examples",
        "figure2b_inner_kl": "b, KL as the inner loss",
    }
    for recipe, row in curves.items():
        yield Run(
            f"{recipe}_0",
            ("figure2",),
            row,
            recipe,
            0,
            _CURVE_MINUTES,
            _CURVE,
            ("test", "last epoch"),
        )


def _table_5():
    labeler = "table5_labeler_0"
    yield Run(
        labeler,
        ("table5",),
        "labeler",
        "table5_labeler",
        0,
        5,
        (*_LABELED, "--batch_size=128", "--epochs=60"),
        ("test",),
        label=(f"--pool={_POOL}", "--output=pool_4000.npz"),
    )
    # Recipes without a pool, and the settings of those with one.
    plain = (*_LABELED, *_STEPS, "--optimizer=sgd:nesterov=true")
    trades = (*plain, "--defense=trades:regularization=6")
    mart = (*plain, "--defense=mart:regularization=6")
    rows = (
        ("TRADES", "cifar10_small_trades", trades),
        ("RST", "table5a_rst", (*_LABELED, *_POOLED)),
        ("MART", "cifar10_small_mart", mart),
        ("MART with the pool", "table5a_mart", (*_LABELED, *_POOLED)),
        ("UAT++", "table5a_uat", (*_LABELED, *_POOLED)),
    )
    for row, recipe, flags in rows:
        yield Run(
            f"table5_{row.lower().replace(' ', '_').replace('+', '')}_0",
            ("table5",),
            row,
            recipe,
            0,
            40,
            flags,
            ("test", "last epoch"),
            (labeler,),
        )


def _small():
    rows = {
        "standard": "Standard",
        "trades": "TRADES",
        "mart": "MART",
        "mart_awp": "MART, AWP, average",
    }
    for name, row in rows.items():
        yield Run(
            f"cifar10_small_{name}_0",
            ("small",),
            row,
            f"cifar10_small_{name}",
            0,
            120,
            measures=("strong", "strong, last epoch"),
        )


_AWP, _MORE_AWP = "--update=awp:gamma=0.005", "--update=awp:gamma=0.01"
_SMOOTHING = "--label_smoothing=0.1"


def _digits():
    """The embedded digits, three seeds each, on every machine in float32."""
    names = "natural standard alp clp trades mma dynamic mart uat"
    rows = {name: (name, ()) for name in names.split()} | {
        "mart_average": ("mart", ("--ema=0.995",)),
        "mart_smoothing": ("mart", (_SMOOTHING,)),
        "mart_awp": ("mart", (_AWP,)),
        "mart_awp_smoothing": ("mart", (_AWP, _SMOOTHING)),
        "mart_more_awp": ("mart", (_MORE_AWP,)),
        "standard_more_awp": ("standard", (_MORE_AWP,)),
        "fgsm_rs": ("standard", ("--defense=fgsm_rs",)),
        "nfgsm": ("standard", ("--defense=nfgsm",)),
    }
    for seed in range(3):
        for name, (recipe, flags) in rows.items():
            parts = () if flags else ("digits",)
            if recipe in ("standard", "mart"):
                parts += ("digits_tricks",)
            yield Run(
                f"digits_{name}_{seed}",
                parts,
                ", ".join([recipe, *(f"`{flag}`" for flag in flags)]),
                f"digits_{recipe}",
                seed,
                3,
                (*EXACT, *flags),
                ("digits", "digits, autoattack"),
            )
