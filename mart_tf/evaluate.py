"""The evaluate program: a classifier -> robust accuracy, a report.

mart-evaluate --workdir=runs/digits_digits_cnn_mart --attacks=fgsm,autoattack
mart-evaluate --model=runs/digits_digits_cnn_mart/export/1 --dataset=digits
mart-evaluate --compare=runs/mart/evaluation,runs/trades/evaluation
"""

import dataclasses
import os
import pathlib

from absl import flags

from mart_tf import attacks
from mart_tf import choices
from mart_tf import cli
from mart_tf import data
from mart_tf import evaluation
from mart_tf import options
from mart_tf.models import declared
from mart_tf.reports import saved
from mart_tf.runs import workdir

SUMMARY = (
    "measure natural and robust accuracy of a run's classifier, or of any "
    "saved model, on the test split, in float32. Without flags: the newest "
    "run, under the attacks of the MART paper and of CleverHans. A call that "
    "was stopped goes on where it was when it is repeated."
)

FLAGS = cli.flag_values()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "The run to evaluate, or several separated by commas, which are then "
    "compared in one table; default: the newest under runs/.",
    flag_values=FLAGS,
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A .keras file or an exported SavedModel directory to evaluate instead of "
    "a run; goes with --dataset.",
    flag_values=FLAGS,
)
_SURROGATE = flags.DEFINE_string(
    "surrogate",
    None,
    "Black box: a run, a .keras file or a SavedModel that adversarial "
    "examples are made on, which are then tried on the model. Adds "
    f"{', '.join(evaluation.TRANSFER)}, unless --attacks names others so.",
    flag_values=FLAGS,
)
_ATTACKS = flags.DEFINE_string(
    "attacks",
    ",".join(evaluation.DEFAULT),
    f"Attacks separated by commas, of {', '.join(attacks.ATTACKS)}, with "
    "options: pgd:steps=100:objective=dlr; transfer: before a name makes the "
    "attack on the surrogate. Natural accuracy is always measured.",
    flag_values=FLAGS,
)
_EPSILON_SWEEP = flags.DEFINE_list(
    "epsilon_sweep",
    [],
    "Radii separated by commas at which PGD is run too, for the curve of "
    "accuracy against epsilon: 0.1,0.2,0.3,0.5.",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Where the report goes; default: WORKDIR/evaluation, or a folder beside "
    "the model whose name ends in -evaluation; of --compare: comparison.",
    flag_values=FLAGS,
)
_SAVE_ADVERSARIAL = flags.DEFINE_bool(
    "save_adversarial",
    False,
    "Also write the adversarial images: an .npz file for each attack, and one "
    "of the worst case, in the folder adversarial of the report.",
    flag_values=FLAGS,
)
_COMPARE = flags.DEFINE_list(
    "compare",
    [],
    "Instead of evaluating: reports, or the folders that hold them, separated "
    "by commas, in one table and one figure.",
    flag_values=FLAGS,
)
_MAX_EXAMPLES = flags.DEFINE_integer(
    "max_examples",
    None,
    "Evaluate so many test images: of a TFDS set, which is stored shuffled, "
    "the first ones; of others a sample of all classes, drawn by --seed. "
    "Default: all.",
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
    "Seed of the attacks' random starts, and of the sample of --max_examples.",
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
    "Norm of the threat model; default: the run's; of --model what it says, "
    "else linf.",
    flag_values=FLAGS,
)
_EPSILON = flags.DEFINE_string(
    "epsilon",
    None,
    "Attack radius in units of the pixel range, above 0 (in linf at most its "
    "width), such as 0.3 or 8/255, or 8 where pixels go to 255; default: the "
    "run's; of --model what it says, else that of its data set.",
    flag_values=FLAGS,
)
_PIXEL_RANGE = cli.pixel_flags(FLAGS)


def main(argv=None):
    """Runs the program."""
    cli.run("mart-evaluate", SUMMARY, FLAGS, _main, argv)


def _main():
    if _COMPARE.value:
        _check_alone("compare", "output", "verbosity")
        for path in _COMPARE.value:
            saved.load(path)
        _compare()
        return
    evaluation.resolve(_ATTACKS.value, surrogate=_SURROGATE.value is not None)
    if _SURROGATE.value is not None:
        _check_exists("--surrogate", _SURROGATE.value)
    epsilon = cli.number("--epsilon", _EPSILON.value)
    radii = [cli.number("--epsilon_sweep", r) for r in _EPSILON_SWEEP.value]
    subjects = [_subject(path, epsilon) for path in _paths()]
    for subject in subjects:
        _check_radii(subject, radii)
    if _OUTPUT.value is not None and len(subjects) > 1:
        raise ValueError(
            f"--output={_OUTPUT.value} is one folder, and --workdir names "
            f"{len(subjects)} runs; leave it out: each report goes into its "
            "run."
        )

    # The flags are good: only now is TensorFlow imported.
    cli.import_tensorflow(FLAGS.verbosity, core_each=True)
    import rich.console

    from mart_tf.reports import comparison

    console = rich.console.Console(markup=False)
    reports = {}
    for subject in subjects:
        # Saved before the next run is evaluated, which may take hours.
        found = _evaluate(subject, radii)
        console.print(found)
        listed = sorted(file.name for file in subject["output"].iterdir())
        console.print(
            f"{subject['output']}: {', '.join(listed)}", soft_wrap=True
        )
        reports[_heading(subject, subjects)] = found
    if len(reports) > 1:
        console.print(comparison.compare(reports))


def _compare():
    """One table and one figure of reports that are there."""
    cli.import_tensorflow(FLAGS.verbosity)
    import rich.console

    from mart_tf.reports import comparison

    reports = {path: comparison.load(path) for path in _COMPARE.value}
    console = rich.console.Console(markup=False)
    console.print(comparison.compare(reports))
    output = pathlib.Path(_OUTPUT.value or "comparison")
    comparison.save_comparison(reports, output)
    listed = ", ".join(sorted(file.name for file in output.iterdir()))
    console.print(f"{output}: {listed}", soft_wrap=True)


def _check_alone(name, *others):
    """Refuses flags that say nothing beside another."""
    for flag in FLAGS:
        if FLAGS[flag].present and flag not in (name, *others, "flagfile"):
            raise ValueError(
                f"--{flag} says nothing beside --{name}, which takes "
                f"{' and '.join(f'--{other}' for other in others)} alone; "
                "leave it out."
            )


def _paths():
    """The runs, or the saved model, to evaluate."""
    if _MODEL.value is not None:
        if _WORKDIR.value is not None:
            raise ValueError(
                f"--model={_MODEL.value} and --workdir={_WORKDIR.value} both "
                "name what to evaluate; give one."
            )
        return [_MODEL.value]
    if _WORKDIR.value is None:
        newest = workdir.newest()
        print(f"Evaluating the newest run, {newest}")
        return [newest]
    return list(dict.fromkeys(options.split_list(_WORKDIR.value)))


def _subject(path, epsilon):
    """What to evaluate, on which data, in which threat model: a flat dict."""
    if _MODEL.value is None:
        subject = workdir.describe(path)
        subject["pixel_range"] = _PIXEL_RANGE(
            (subject["pixel_min"], subject["pixel_max"]), path
        )
        output = pathlib.Path(path, "evaluation")
    else:
        subject = _saved_model(path)
        path = pathlib.Path(os.path.abspath(path))
        output = path.with_name(f"{path.name}-evaluation")
        output = pathlib.Path(os.path.relpath(output))
    if epsilon is None and _NORM.value not in (None, subject["norm"]):
        raise ValueError(
            f"--norm={_NORM.value} needs an --epsilon: that of "
            f"{subject['workdir']}, {subject['epsilon']:g}, is a radius in "
            f"{subject['norm']}."
        )
    for name, value in [
        ("dataset", _DATASET.value),
        ("data_dir", _DATA_DIR.value),
        ("norm", _NORM.value),
        ("epsilon", epsilon),
    ]:
        if value is not None:
            subject[name] = value
    subject["output"] = pathlib.Path(_OUTPUT.value or output)
    where = subject["output"].absolute()
    above = next(path for path in [where, *where.parents] if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ValueError(
            f"{above} cannot be written to; the report goes there: name "
            "another place by --output=DIR."
        )
    data.check(
        subject["dataset"],
        data_dir=subject["data_dir"],
        download=_DOWNLOAD.value,
    )
    return subject


def _saved_model(path):
    """What a run would know, of a model that is evaluated without one."""
    _check_exists("--model", path)
    if _DATASET.value is None:
        raise ValueError(
            f"--model={path} does not tell what it was trained on; expected "
            "--dataset=NAME with it."
        )
    said = declared.read(path)
    low, high = (
        _PIXEL_RANGE(said.pixel_range, said.by) if said else _PIXEL_RANGE()
    )
    subject = {
        "workdir": path,
        "data_dir": None,
        "pixel_range": (low, high),
        "norm": "linf",
        "epsilon": data.defaults(_DATASET.value).epsilon * (high - low),
    }
    if said and said.norm is not None:
        subject.update(norm=said.norm, epsilon=said.epsilon)
    return subject


def _check_exists(flag, path):
    if not pathlib.Path(path).exists():
        raise ValueError(
            f"{flag}={path} does not exist; expected a .keras file or an "
            "exported SavedModel directory"
            f"{', or a run' if flag == '--surrogate' else ''}."
        )


def _check_radii(subject, radii):
    """Refuses a radius that the norm of the threat model does not admit."""
    for flag, radius in [
        ("--epsilon", subject["epsilon"]),
        *(("--epsilon_sweep", radius) for radius in radii),
    ]:
        choices.check_radius(
            flag, radius, subject["norm"], *subject["pixel_range"]
        )


def _heading(subject, subjects):
    """A run's own name; its path where two runs have the same name."""
    names = [pathlib.Path(other["workdir"]).name for other in subjects]
    name = pathlib.Path(subject["workdir"]).name
    return name if names.count(name) == 1 else subject["workdir"]


def _evaluate(subject, radii):
    """The `Report` of one run or model, saved."""
    from mart_tf import threat as threat_model
    from mart_tf.evaluation import robustness

    dataset = data.load(
        subject["dataset"],
        data_dir=subject["data_dir"],
        download=_DOWNLOAD.value,
    )
    sample = data.sample(dataset.test, _MAX_EXAMPLES.value, _SEED.value)
    images = data.spread(sample.images, subject["pixel_range"])
    threat = threat_model.ThreatModel(
        subject["norm"], subject["epsilon"], *subject["pixel_range"]
    )
    print(f"Threat model: {threat.describe()}")
    model, facts = _load(_MODEL.value or subject["workdir"], images)
    surrogate = None
    if _SURROGATE.value is not None:
        surrogate, _ = _load(_SURROGATE.value, images)
    return robustness.evaluate_robustness(
        model,
        (images, sample.labels),
        threat,
        _ATTACKS.value,
        batch_size=_BATCH_SIZE.value,
        seed=_SEED.value,
        surrogate=surrogate,
        epsilon_sweep=radii,
        class_names=dataset.class_names,
        directory=subject["output"],
        save_adversarial=_SAVE_ADVERSARIAL.value,
        facts={
            "model": facts,
            "data": {
                "dataset": dataset.name,
                "split": "test",
                **sample.facts(),
            },
        },
        progress=True,
    )


def _load(path, images):
    """The `Target` of a run or a saved model, and facts about it."""
    from mart_tf.evaluation import targets

    # A .keras file may hold an AdversarialClassifier: this registers it.
    from mart_tf.training import classifier as _  # noqa: F401

    if not pathlib.Path(path, "run.json").exists():
        return targets.of(path, None, images), {"path": str(path)}
    run = workdir.describe(path)
    classifier, epoch, warnings = workdir.load_classifier(
        path, _CHECKPOINT.value
    )
    for warning in warnings:
        print(f"{warning} Evaluating epoch {epoch}, the one before it.")
    target = dataclasses.replace(
        targets.of(classifier, run["outputs"], images),
        pixel_range=(run["pixel_min"], run["pixel_max"]),
    )
    return target, {
        "workdir": run["workdir"],
        "checkpoint": workdir.chosen(run, _CHECKPOINT.value),
        "epoch": epoch,
        "network": run["model"],
        "defense": run["defense"],
    }


if __name__ == "__main__":
    main()
