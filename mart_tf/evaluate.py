"""The evaluate program: a run's classifier -> robust accuracy, a report.

mart-evaluate --workdir=runs/digits_digits_cnn_mart --attacks=fgsm,pgd:steps=20
"""

import dataclasses
import math
import os
import pathlib

from absl import flags

from mart_tf import choices
from mart_tf import cli
from mart_tf import data
from mart_tf import evaluation
from mart_tf import options
from mart_tf.training import workdir

SUMMARY = (
    "measure natural and robust accuracy of a run's classifier on the test "
    "split, in float32. Without flags: the newest run, under all attacks."
)

FLAGS = cli.flag_values()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "The run to evaluate, or several separated by commas, which are then "
    "compared in one table; default: the newest under runs/.",
    flag_values=FLAGS,
)
_ATTACKS = flags.DEFINE_string(
    "attacks",
    ",".join(evaluation.DEFAULT),
    f"Attacks separated by commas, of {', '.join(evaluation.ATTACKS)}, with "
    "options: pgd:steps=100:objective=dlr. Natural accuracy is always "
    "measured.",
    flag_values=FLAGS,
)
_MAX_EXAMPLES = flags.DEFINE_integer(
    "max_examples",
    None,
    "Evaluate the first so many test images; default: all.",
    lower_bound=1,
    flag_values=FLAGS,
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    250,
    "Images in one pass through the network.",
    lower_bound=1,
    flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Seed of the attacks' random starts.",
    lower_bound=0,
    upper_bound=choices.GREATEST_SEED,
    flag_values=FLAGS,
)
_CHECKPOINT = cli.checkpoint_flag(FLAGS)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Whose test split; default: the run's data set.",
    flag_values=FLAGS,
)
_DATA_DIR, _DOWNLOAD = cli.data_flags(FLAGS)
_NORM = flags.DEFINE_enum(
    "norm",
    None,
    choices.NORMS,
    "Norm of the threat model; default: the run's.",
    flag_values=FLAGS,
)
_EPSILON = flags.DEFINE_string(
    "epsilon",
    None,
    "Attack radius in units of the pixel range, above 0 (and at most 1 in "
    "linf), such as 0.3 or 8/255; default: the run's.",
    flag_values=FLAGS,
)


def main(argv=None):
    """Runs the program."""
    cli.run("mart-evaluate", SUMMARY, FLAGS, _main, argv)


def _main():
    evaluation.resolve(_ATTACKS.value)
    epsilon = cli.number("--epsilon", _EPSILON.value)
    runs = [_describe(path) for path in _paths()]
    for run in runs:
        _check_radius(epsilon, run)

    # The flags are good: only now is TensorFlow imported.
    cli.import_tensorflow(FLAGS.verbosity)
    import rich.console

    from mart_tf.evaluation import report

    cli.exact_float32()

    console = rich.console.Console(markup=False)
    reports = {}
    for run in runs:
        found = _evaluate(run, epsilon)
        # Saved before the next run is evaluated, which may take hours.
        directory = found.save(pathlib.Path(run["workdir"], "evaluation"))
        console.print(found)
        files = ", ".join(sorted(file.name for file in directory.iterdir()))
        console.print(f"{directory}: {files}", soft_wrap=True)
        reports[_heading(run["workdir"], runs)] = found
    if len(reports) > 1:
        console.print(report.compare(reports))


def _check_radius(epsilon, run):
    """Refuses a radius that the norm of the threat model does not admit."""
    norm = _NORM.value or run["norm"]
    if epsilon is None and norm != run["norm"]:
        raise ValueError(
            f"--norm={norm} needs an --epsilon: {run['workdir']} was trained "
            f"in {run['norm']}, whose {run['epsilon']:g} is another radius."
        )
    if epsilon is None:
        return
    greatest = 1.0 if norm == "linf" else math.inf
    if not (0.0 < epsilon <= greatest and math.isfinite(epsilon)):
        raise ValueError(
            f"--epsilon is {_EPSILON.value}; expected a radius above 0, and "
            "in linf at most 1, the range of the pixels."
        )


def _paths():
    if _WORKDIR.value is None:
        newest = workdir.newest()
        print(f"Evaluating the newest run, {newest}")
        return [newest]
    return list(dict.fromkeys(options.split_list(_WORKDIR.value)))


def _heading(path, runs):
    """A run's own name; its path where two runs have the same name."""
    names = [pathlib.Path(run["workdir"]).name for run in runs]
    name = pathlib.Path(path).name
    return name if names.count(name) == 1 else path


def _describe(path):
    """The run's configuration, with the data set that it is tested on."""
    run = workdir.describe(path)
    if not os.access(path, os.W_OK):
        raise ValueError(f"{path} cannot be written to; the report goes there.")
    if _DATASET.value is not None:
        run["dataset"] = _DATASET.value
    if _DATA_DIR.value is not None:
        run["data_dir"] = _DATA_DIR.value
    data.check(
        run["dataset"], data_dir=run["data_dir"], download=_DOWNLOAD.value
    )
    return run


def _evaluate(run, epsilon):
    """The `Report` of one run."""
    from mart_tf import threat as threat_model
    from mart_tf.evaluation import robustness

    dataset = data.load(
        run["dataset"], data_dir=run["data_dir"], download=_DOWNLOAD.value
    )
    classifier, epoch, warnings = workdir.load_classifier(
        run["workdir"], _CHECKPOINT.value
    )
    for warning in warnings:
        print(f"{warning} Evaluating epoch {epoch}, the one before it.")
    found = robustness.evaluate_robustness(
        classifier,
        data.arrays(dataset.test, _MAX_EXAMPLES.value),
        threat_model.ThreatModel(
            _NORM.value or run["norm"],
            run["epsilon"] if epsilon is None else epsilon,
        ),
        _ATTACKS.value,
        batch_size=_BATCH_SIZE.value,
        seed=_SEED.value,
        outputs=run["outputs"],
        class_names=dataset.class_names,
        progress=True,
    )
    return dataclasses.replace(
        found,
        model={
            "workdir": run["workdir"],
            "checkpoint": _CHECKPOINT.value,
            "epoch": epoch,
            "network": run["model"],
            "defense": run["defense"],
            **found.model,
        },
        data={"dataset": dataset.name, "split": "test", **found.data},
    )


if __name__ == "__main__":
    main()
