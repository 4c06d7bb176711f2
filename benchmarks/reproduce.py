"""The paper's tables and figures, as far as two CPU cores go.

    python benchmarks/reproduce.py --list
    python benchmarks/reproduce.py --root=ROOT --data_dir=DIR --part=table2
    python benchmarks/reproduce.py --write

Trains and measures what is missing, in order: calls of mart-train, mart-label,
mart-evaluate, in the folder ROOT. Stop it when you like: the same command goes
on, in the middle of an epoch or of an attack, and does nothing where all is
done. What is found is a record in benchmarks/measured/ (`--records`), of which
`--write` makes the tables of docs/results.md, docs/stronger.md, README.md and
flags/README.md, the csv files and figures in docs/figures/, and "Measured" in
the recipes' headers. A run whose record is whole is not trained again, unless
another one needs its weights and they are not in ROOT. A record is of one
network: where a measure is missing and the weights are not in ROOT, all is
measured anew. To have everything anew: `--records=FOLDER` of your own. A
record, or a run in ROOT, of a recipe that is another one now is refused, and a
measure with other flags is taken again.
"""

import pathlib
import sys

from absl import app
from absl import flags
import paper
import recipes
import records
import reproduced
import runs

from mart_tf import train
from mart_tf.runs import workdir as workdirs

_LIST = flags.DEFINE_bool("list", False, "What is done, missing, and its cost.")
_WRITE = flags.DEFINE_bool("write", False, "Writes the tables and figures.")
_PARTS = flags.DEFINE_list("part", paper.parts(), "Tables and figures.")
_RUNS = flags.DEFINE_list("runs", [], "Only these runs and what they need.")
_ROOT = flags.DEFINE_string("root", None, "Where the runs go.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS data lies.")
_MEASURED = pathlib.Path(__file__).resolve().parent / "measured"
_RECORDS = flags.DEFINE_string(
    "records", str(_MEASURED), "Where records of the runs go."
)
_TINY = flags.DEFINE_bool(
    "tiny",
    False,
    "A few epochs on the digits: shows that everything runs. Its records are "
    "not the paper's: it goes with --records=FOLDER of its own.",
)

_TINY_TRAINING = (
    "--dataset=digits",
    "--model=digits_cnn",
    "--precision=float32",
    "--attack_steps=1",
    "--epsilon=0.05",
    "--epsilon_warmup_epochs=0",
    "--augment=none",
    "--epochs=5",
    "--batch_size=32",
    "--learning_rate=0.02",
    "--schedule=constant",
)
_TINY_MEASURES = {
    "autoattack": ("--attacks=pgd:steps=1", "--max_examples=10"),
}


def main(_):
    """Does what was asked for."""
    unknown = set(_PARTS.value) - set(paper.parts())
    names = {run.name for run in paper.runs()}
    if unknown:
        sys.exit(
            f"--part={','.join(_PARTS.value)}: expected some of "
            f"{', '.join(paper.parts())}."
        )
    if set(_RUNS.value) - names:
        sys.exit(f"--runs: expected names that --list shows: {sorted(names)}.")
    if _TINY.value and pathlib.Path(_RECORDS.value).resolve() == _MEASURED:
        sys.exit(
            f"--tiny: its numbers are of the digits, and {_MEASURED} has those "
            "of the paper's data; give --records=FOLDER of its own."
        )
    try:
        _do(records.Records(_RECORDS.value))
    except ValueError as error:
        sys.exit(str(error))


def _do(found):
    """What was asked for, with the `Records` that there are."""
    if _LIST.value:
        _print_list(found)
    elif _WRITE.value:
        reproduced.write(found)
    elif _ROOT.value is None:
        sys.exit("Give --root=FOLDER for the runs, or --list, or --write.")
    else:
        root = pathlib.Path(_ROOT.value).resolve()
        root.mkdir(parents=True, exist_ok=True)
        for run in _chosen():
            _complete(run, found, root)


def _chosen():
    """The runs that were asked for, a list."""
    return [
        run
        for run in paper.runs()
        if set(run.parts) & set(_PARTS.value)
        and (not _RUNS.value or run.name in _RUNS.value)
    ]


def _complete(run, found, root):
    """Trains a run and measures it, as far as its record does not say so."""
    if found.is_done(run):
        return
    _train(run, found, root)
    _record(run, found, root)
    for name in found.missing(run):
        _say(run, name)
        output = f"{run.name}/{name.replace(' ', '_')}"
        measure = paper.MEASURES[name]
        if _TINY.value:
            measure = _TINY_MEASURES.get(name, measure)
        _program(
            root,
            "evaluate",
            f"--workdir={run.name}",
            f"--output={output}",
            *_data_flags(),
            *measure,
        )
        found.add_measure(run, name, root / output / "report.json")


def _train(run, found, root):
    """Trains a run, and what it needs, if it does not lie in the root."""
    for needed in paper.runs():
        if needed.name in run.needs:
            _train(needed, found, root)
    workdir = root / run.name
    recipe = recipes.FOLDER / f"{run.recipe}.cfg"
    told = (
        f"--seed={run.seed}",
        *run.flags,
        *(_TINY_TRAINING if _TINY.value else ()),
    )
    labels = run.label and root / run.label[-1].split("=", 1)[1]
    if not _is_trained(workdir, recipe, told):
        if labels and labels.exists():
            raise ValueError(
                f"{labels} was made by a run of {run.name} that is gone; "
                "remove it."
            )
        _say(run, "training")
        _program(
            root,
            "train",
            f"--flagfile={recipe}",
            *told,
            f"--workdir={run.name}",
            *_data_flags(),
        )
    if labels or not found.read(run):
        _record(run, found, root)
    if labels and not labels.exists():
        _program(
            root,
            "label",
            f"--workdir={run.name}",
            *_data_flags(),
            *run.label,
        )
    if labels and labels.is_dir():
        found.add_subsets(run, labels)


def _record(run, found, root):
    """Records how the run in the root was trained, unless that is done."""
    workdir = root / run.name
    if found.is_of(run, workdir):
        return
    if found.read(run):
        _say(run, "trained anew, and so measured anew: its record was another")
    found.add_training(run, workdir)


def _is_trained(workdir, recipe, told):
    """Whether a recipe's run, with these flags, is there to its last epoch.

    Raises:
        ValueError: If a run of other settings does.
    """
    recipes.parsed(recipe, *told, f"--workdir={workdir}")
    config = train.configuration().filled()
    if workdirs.prepare(config) is None:
        return False
    metrics = workdir / "metrics.csv"
    if not metrics.exists():
        return False
    return len(metrics.read_text(encoding="utf-8").splitlines()) > config.epochs


def _program(root, name, *arguments):
    """Calls a program in the root; its output goes to this terminal."""
    command = [sys.executable, "-m", f"mart_tf.{name}", *arguments]
    status, _, _ = runs.called(command, cwd=root)
    if status:
        sys.exit(f"{' '.join(command)}: ended with {status}.")


def _data_flags():
    if _DATA_DIR.value is None or _TINY.value:
        return []
    return [f"--data_dir={pathlib.Path(_DATA_DIR.value).resolve()}"]


def _say(run, what):
    print(f"\n== {run.name}: {what}", flush=True)


def _print_list(found):
    """A line for each run, and what is missing in all."""
    left = 0
    chosen = _chosen()
    for run in chosen:
        missing = found.missing(run)
        if found.is_done(run):
            state = "done"
        elif found.read(run):
            state = f"trained; missing: {', '.join(missing)}"
        else:
            state = f"missing, about {run.minutes} min"
        left += 0 if found.is_done(run) else run.minutes
        print(f"{run.name:32} {state}")
    done = sum(found.is_done(run) for run in chosen)
    print(
        f"{done} of {len(chosen)} done; the others take about "
        f"{left / 60:.1f} hours on two cores."
    )


if __name__ == "__main__":
    app.run(main)
