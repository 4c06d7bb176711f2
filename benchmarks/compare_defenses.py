"""Trains recipes with several seeds, evaluates them, and prints one table.

python benchmarks/compare_defenses.py --recipes=digits_natural,digits_mart \
    --seeds=3 --root=/tmp/compared [--data_dir=DIR]

Each run is a call of mart-train and of mart-evaluate. A run that is there is
not trained again, so that a comparison of hours can be stopped and resumed.
Further flags of mart-train follow after `--`.
"""

import csv
import pathlib
import re
import statistics
import time

from absl import app
from absl import flags
import runs

_RECIPES = flags.DEFINE_list(
    "recipes", None, "Names of recipes, files in flags/ without .cfg."
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each recipe, seeds from 0.")
_ROOT = flags.DEFINE_string("root", None, "Where the workdirs go.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS data lies.")
_ATTACKS = flags.DEFINE_string(
    "attacks", "fgsm,pgd:steps=20,cw", "What each run is evaluated against."
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best or last.")

_FLAGS = pathlib.Path(__file__).parents[1] / "flags"


def main(argv):
    root = pathlib.Path(_ROOT.value)
    root.mkdir(parents=True, exist_ok=True)
    rows = {}
    for seed in range(_SEEDS.value):
        for recipe in _RECIPES.value:
            workdir = root / f"{recipe}_{seed}"
            _train(recipe, seed, workdir, argv[1:])
            rows.setdefault(recipe, []).append(_evaluate(workdir))
            print(f"{workdir.name}: {rows[recipe][-1]}", flush=True)
    runs.print_table(rows)
    print(f"\nMean, and standard deviation over {_SEEDS.value} seeds.")
    for recipe in _RECIPES.value:
        _print_measures(recipe, root)


def _train(recipe, seed, workdir, extra):
    log = workdir.with_suffix(".log")
    started = time.monotonic()
    text = runs.program(
        "train",
        f"--flagfile={_FLAGS / recipe}.cfg",
        f"--seed={seed}",
        f"--workdir={workdir}",
        *_data_flags(),
        *extra,
    )
    with log.open("a", encoding="utf-8") as stream:
        stream.write(text)
        stream.write(f"took {time.monotonic() - started:.1f} s\n")


def _evaluate(workdir):
    """Accuracies in percent, and what training cost, of one run."""
    values = runs.accuracies(
        workdir, _ATTACKS.value, _CHECKPOINT.value, *_data_flags()
    )
    log = workdir.with_suffix(".log").read_text(encoding="utf-8")
    rates = re.findall(r"([\d,]+) images/s", log)
    values["images/s"] = statistics.median(
        float(rate.replace(",", "")) for rate in rates
    )
    # The first line is that of the call that trained, or trained most.
    values["seconds"] = max(
        float(seconds) for seconds in re.findall(r"took ([\d.]+) s", log)
    )
    return values


def _data_flags():
    return [f"--data_dir={_DATA_DIR.value}"] if _DATA_DIR.value else []


def _print_measures(recipe, root):
    """What a defense measured over the epochs of its first run."""
    with (root / f"{recipe}_0" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for name in ("margin", "fosc"):
        if name in rows[0]:
            values = " ".join(f"{float(row[name]):.3f}" for row in rows)
            print(f"{recipe} {name} by epoch: {values}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["recipes", "root"])
    app.run(main)
