"""The evaluate program: a classifier -> robust accuracy, a report.

mart-evaluate --workdir=runs/digits_digits_cnn_mart --attacks=fgsm,autoattack
mart-evaluate --model=runs/digits_digits_cnn_mart/export/1 --dataset=digits
mart-evaluate --workdir='runs/sweep/*'
mart-evaluate --compare=runs/mart,runs/trades
"""

import dataclasses
import functools
import os
import pathlib
import shlex

from mart_tf import attacks
from mart_tf import bounds
from mart_tf import choices
from mart_tf import cli
from mart_tf import data
from mart_tf import evaluation
from mart_tf import places
from mart_tf import runtimes
from mart_tf import screen
from mart_tf.cli import kinds
from mart_tf.cli import shared
from mart_tf.data import corrupted
from mart_tf.data import parts
from mart_tf.data import sources
from mart_tf.evaluation import unfinished
from mart_tf.models import declared
from mart_tf.reports import robustbench
from mart_tf.reports import saved
from mart_tf.runs import consent
from mart_tf.runs import record
from mart_tf.runs import sweep
from mart_tf.runs import trained
from mart_tf.runs import workdir

SUMMARY = (
    "measure natural and robust accuracy of a run's classifier, or of any "
    "saved model, on the test split or another, in float32. Without flags: the "
    "newest run, under the attacks of the MART paper and of CleverHans. A call "
    "that was stopped goes on where it was when it is repeated."
)

_SAVED = "a .keras, .tflite or .onnx file or an exported SavedModel directory"

FLAGS = cli.flag_values()
_define = functools.partial(kinds.define, FLAGS)
_WORKDIR = _define(
    "workdir",
    None,
    "The run to evaluate, or several separated by commas, or a pattern in "
    "quotes such as 'runs/sweep/*'; several are then compared in one table; "
    "default: the newest under runs/.",
    kinds.list_of(kinds.path, empty=False),
)
_MODEL = _define(
    "model",
    None,
    "A .keras, .tflite or .onnx file or an exported SavedModel directory to "
    "evaluate instead of a run; goes with --dataset.",
    kinds.path,
)
_SURROGATE = _define(
    "surrogate",
    None,
    "Black box: a run, a .keras file or a SavedModel that adversarial "
    "examples are made on, which are then tried on the model. Adds "
    f"{', '.join(evaluation.TRANSFER)}, unless --attacks names others so.",
    kinds.path,
)
_ATTACKS = _define(
    "attacks",
    ",".join(evaluation.DEFAULT),
    f"Attacks separated by commas, of {', '.join(attacks.ATTACKS)}, with "
    "options: pgd:steps=100:objective=dlr; transfer: before a name makes the "
    "attack on the surrogate. Natural accuracy is always measured.",
    kinds.text,
)
_EPSILON_SWEEP = _define(
    "epsilon_sweep",
    [],
    "Radii separated by commas at which PGD is run too, for the curve of "
    "accuracy against epsilon: 0.1,0.2,0.3,0.5.",
    kinds.list_of(kinds.number),
)
_CORRUPTIONS = _define(
    "corruptions",
    None,
    "A TFDS set of corrupted images, such as cifar10_corrupted, on which the "
    "accuracy without attack is measured too: all of its corruptions that are "
    "prepared, or some, cifar10_corrupted:only=fog+contrast_5.",
    kinds.text,
)
_OUTPUT = _define(
    "output",
    None,
    "Where the report goes; default: WORKDIR/evaluation, or a folder beside "
    "the model whose name ends in -evaluation; of another split than test with "
    "its name, WORKDIR/evaluation-train. Of --compare and of several "
    "runs: where their table goes; default: comparison.",
    kinds.path,
)
_SAVE_ADVERSARIAL = _define(
    "save_adversarial",
    False,
    "Also write the adversarial images: an .npz file for each attack, and one "
    "of the worst case, in the folder adversarial of the report.",
    kinds.truth,
)
_COMPARE = _define(
    "compare",
    [],
    "Instead of evaluating: workdirs that are evaluated, reports, or the "
    "folders that hold them, separated by commas, or patterns in quotes, in "
    "one table and one figure.",
    kinds.list_of(kinds.path, empty=False),
)
_ROBUSTBENCH = _define(
    "robustbench",
    None,
    "Instead of evaluating: a report with AutoAttack, or the folder that holds "
    "it; robustbench.json, which RobustBench's leaderboard takes, is written "
    "beside it.",
    kinds.path,
)
_MAX_EXAMPLES = _define(
    "max_examples",
    None,
    "Evaluate so many images of the split: of a TFDS set, which is stored "
    "shuffled, the first ones; of others a sample of all classes, drawn by "
    "--seed. Default: all.",
    bounds.COUNT.read,
)
_BATCH_SIZE = _define(
    "batch_size",
    250,
    "Images in one pass through the network.",
    bounds.COUNT.read,
)
_SEED = _define(
    "seed",
    0,
    "Seed of the attacks' random starts, and of the sample of --max_examples.",
    choices.SEED.read,
)
_CHECKPOINT = shared.checkpoint_flag(FLAGS)
_DATASET = _define(
    "dataset",
    None,
    "Whose images, those of --split; default: the run's data set.",
    kinds.text,
)
_SPLIT = _define(
    "split",
    parts.TEST,
    "Which images: test; train or validation, as training divides the data; "
    "another split of a TFDS set by its name; or a part of one, such as "
    "test[:1000] or train[10%:20%].",
    lambda _, text: parts.parse(text).text,
)
_DATA_DIR, _DOWNLOAD = shared.data_flags(FLAGS)
_NORM = _define(
    "norm",
    None,
    "Norm of the threat model; default: the run's; of --model what it says, "
    "else linf.",
    kinds.one_of(*choices.NORMS),
)
_EPSILON = _define(
    "epsilon",
    None,
    "Attack radius in units of the pixel range, above 0 (in linf at most its "
    "width), such as 0.3 or 8/255, or 8 where pixels go to 255; default: the "
    "run's; of --model what it says, else that of its data set.",
    kinds.number,
)
_PIXEL_RANGE = shared.pixel_flags(
    FLAGS, "what the run or the model file says, else {}"
)
_ALLOW_CODE = shared.code_flag(FLAGS)


def main(argv=None):
    """Runs the program."""
    cli.run("mart-evaluate", SUMMARY, FLAGS, _main, argv)


def checked():
    """What is to be evaluated, as far as it is known without TensorFlow.

    Returns:
        A list of `trained.Trained`; empty where reports are compared or
        rewritten.

    Raises:
        ValueError: On anything that no evaluation could start with.
    """
    if _ROBUSTBENCH.value is not None:
        path = _ROBUSTBENCH.value
        shared.check_alone(FLAGS, "robustbench", "verbosity")
        places.check_there("--robustbench", path, "a report, or its folder")
        robustbench.model_info(saved.load(path), path)
        return []
    if _COMPARE.value:
        shared.check_alone(FLAGS, "compare", "output", "verbosity")
        for path in sweep.reports(_COMPARE.value):
            places.check_there("--compare", path, "a report, or its folder")
            saved.load(sweep.report_of(path))
            sweep.settings(path)
        places.check_folder("--output", _comparison(), "the table")
        return []
    evaluation.resolve(_ATTACKS.value, surrogate=_SURROGATE.value is not None)
    if _SURROGATE.value is not None:
        places.check_there("--surrogate", _SURROGATE.value, f"{_SAVED}, a run")
        if record.exists(_SURROGATE.value):
            run = workdir.trained(_SURROGATE.value)
            # Its own data is not read.
            consent.check(run, _ALLOW_CODE.value, ["dataset"])
    paths = _paths()
    tasks = [_task(path, alone=len(paths) == 1) for path in paths]
    for task in tasks:
        _check_radii(task)
        if _CORRUPTIONS.value is not None:
            corrupted.find(_CORRUPTIONS.value, task.data_dir)
    if len(tasks) > 1:
        places.check_folder("--output", _comparison(), "the table")
    return tasks


def _main():
    tasks = checked()
    if _ROBUSTBENCH.value is not None:
        _write_robustbench()
        return
    if not tasks:
        _compare()
        return

    # The flags are good: only now is TensorFlow imported.
    cli.import_tensorflow(FLAGS.verbosity, _keep_to_one_core)
    from mart_tf.evaluation import adversarial

    if len(tasks) > 1:
        _check_attacks(tasks)
    console = screen.console()
    reports, settings = {}, {}
    for task in tasks:
        if reports:
            console.print()
        # Saved before the next run is evaluated, which may take hours.
        with cli.if_stopped(functools.partial(_kept, task, tasks)):
            report = _evaluate(task)
        images = [adversarial.FOLDER] if _SAVE_ADVERSARIAL.value else []
        _tell_files(task.output, [*report.file_names, *images])
        console.print(report)
        heading = _heading(task.path, [each.path for each in tasks])
        reports[heading] = report
        settings[heading] = sweep.settings(task.path)
    if len(reports) > 1:
        console.print()
        _show(console, reports, settings)


def _check_attacks(tasks):
    """Refuses what one of several cannot take, before hours on another."""
    from mart_tf.evaluation import planning

    listed = evaluation.resolve(
        _ATTACKS.value, surrogate=_SURROGATE.value is not None
    )
    for task in tasks:
        try:
            planning.check(listed, task.threat())
        except ValueError as error:
            raise ValueError(f"{task.path}: {error}") from error


def _kept(task, tasks):
    """What stays of an evaluation that is stopped, and how to go on."""
    rest = [other.path for other in tasks[tasks.index(task) :]]
    again = "the same command"
    if len(rest) < len(tasks):
        again = shlex.quote(f"--workdir={places.listed(rest)}")
    partial = task.output / unfinished.FOLDER
    if not any(partial.glob("*.npz")):
        return (
            f"Of {task.path} nothing was finished that could be kept; {again} "
            "starts it again."
        )
    return (
        f"What was finished of {task.path} is kept in {partial}; {again} goes "
        "on from there."
    )


def _tell_files(folder, names):
    screen.say(f"Wrote {folder}: {', '.join(sorted(names))}")


def _keep_to_one_core():
    from mart_tf.evaluation import shares

    shares.keep_to_one_core()


def _write_robustbench():
    file, content = robustbench.save(_ROBUSTBENCH.value)
    unknown = ", ".join(key for key in content if content[key] is None)
    rest = f"; for its authors to fill in: {unknown}." if unknown else ""
    screen.say(f"Wrote {file}{rest}")


def _compare():
    """One table and one figure of reports that are there."""
    cli.import_tensorflow(FLAGS.verbosity)
    from mart_tf.reports import comparison

    paths = sweep.reports(_COMPARE.value)
    reports, settings = {}, {}
    for path in paths:
        heading = _heading(path, paths)
        content = comparison.load(sweep.report_of(path))
        reports[heading] = content
        created = str(content.get("created", ""))
        settings[heading] = sweep.settings(path, created)
    _show(screen.console(), reports, settings)


def _show(console, reports, settings):
    """Prints the table of several reports, and writes it."""
    from mart_tf.reports import comparison

    output = _comparison()
    comparison.save_comparison(reports, output, settings)
    _tell_files(output, comparison.FILES)
    console.print(comparison.compare(reports, settings))


def _comparison():
    return pathlib.Path(_OUTPUT.value or "comparison")


def _paths():
    """The runs, or the saved model, to evaluate."""
    if _MODEL.value is not None:
        if _WORKDIR.value is not None:
            raise ValueError(
                f"--model={_MODEL.value} and --workdir="
                f"{places.listed(_WORKDIR.value)} both name what to evaluate; "
                "give one."
            )
        return [_MODEL.value]
    if _WORKDIR.value is None:
        newest = workdir.newest()
        screen.say(f"Evaluating the newest run, {newest}")
        return [newest]
    return sweep.runs(_WORKDIR.value)


def _task(path, alone):
    """The `trained.Trained` of a run or a saved model, as the flags have it.

    Args:
        path: The workdir or the model.
        alone: Whether it is the only one.
    """
    task = _of_run(path) if _MODEL.value is None else _of_saved_model(path)
    if _EPSILON.value is None and _NORM.value not in (None, task.norm):
        raise ValueError(
            f"--norm={_NORM.value} needs an --epsilon: that of "
            f"{task.path}, {bounds.spelled(task.epsilon)}, is a radius in "
            f"{task.norm}."
        )
    given = {
        "dataset": _DATASET.value,
        "data_dir": _DATA_DIR.value,
        "norm": _NORM.value,
        "epsilon": _EPSILON.value,
    }
    if alone and _OUTPUT.value is not None:
        given["output"] = pathlib.Path(_OUTPUT.value)
    task = dataclasses.replace(
        task, **{k: value for k, value in given.items() if value is not None}
    )
    places.check_folder(
        "--output",
        task.output,
        "the report",
        None if alone else f"evaluate {path} alone, with --output=DIR",
    )
    own = task.run and task.run.config.dataset
    if own and not sources.is_same(task.dataset, own):
        task = dataclasses.replace(task, validation_images=None, run=None)
    data.check(
        task.dataset,
        data_dir=task.data_dir,
        download=_DOWNLOAD.value,
        split=parts.parse(_SPLIT.value),
    )
    return task


def _named(folder):
    """A folder for the report: that of the test split is what others read."""
    part = parts.parse(_SPLIT.value)
    return folder if part.slug == parts.TEST else f"{folder}-{part.slug}"


def _of_run(path):
    """What a run says of how it is to be evaluated."""
    run = workdir.trained(path)
    given = [] if _DATASET.value is None else ["dataset"]
    consent.check(run, _ALLOW_CODE.value, given)
    said = run.config.pixel_range
    return trained.of_run(run, _PIXEL_RANGE(said, path), _named("evaluation"))


def _of_saved_model(path):
    """The same of a model without a run, as far as it and the flags say it."""
    places.check_there("--model", path, _SAVED)
    of_run = _SURROGATE.value is not None and record.exists(_SURROGATE.value)
    if FLAGS["checkpoint"].present and not of_run:
        raise ValueError(
            f"--checkpoint={_CHECKPOINT.value} is of a run, and --model={path} "
            "is none; leave it out."
        )
    if record.exists(path):
        raise ValueError(
            f"--model={path} is the workdir of a run; expected "
            f"--workdir={path}, or {_SAVED}."
        )
    if runtimes.of(path):
        runtimes.of(path).check(f"--model={path}")
    if _DATASET.value is None:
        raise ValueError(
            f"--model={path} does not tell what it was trained on; expected "
            "--dataset=NAME with it."
        )
    said = declared.read(path)
    pixel_range = (
        _PIXEL_RANGE(said.pixel_range, said.by) if said else _PIXEL_RANGE()
    )
    whole = pathlib.Path(os.path.abspath(path))
    if whole.parent.name == "assets.extra":
        # A version that is served never changes.
        version = whole.parent.parent
        whole = version.with_name(f"{version.name}-{whole.name}")
    beside = whole.with_name(_named(f"{whole.name}-evaluation"))
    output = pathlib.Path(os.path.relpath(beside))
    return trained.of_model(path, _DATASET.value, pixel_range, output)


def _check_radii(task):
    """Refuses a radius that the norm of the threat model does not admit."""
    for flag, radius in [
        ("--epsilon", task.epsilon),
        *(("--epsilon_sweep", radius) for radius in _EPSILON_SWEEP.value),
    ]:
        choices.check_radius(flag, radius, task.norm, *task.pixel_range)


def _heading(path, paths):
    """A run's own name; the path of what is none, or where two have it."""
    # The path may be ".", which has no name.
    names = [os.path.basename(os.path.abspath(other)) for other in paths]
    name = os.path.basename(os.path.abspath(path))
    alone = names.count(name) == 1 and record.exists(path)
    return name if alone else path


def _evaluate(task):
    """The `Report` of one run or model, saved."""
    from mart_tf.evaluation import robustness

    dataset = data.load(
        task.dataset,
        data_dir=task.data_dir,
        download=_DOWNLOAD.value,
        validation_images=task.validation_images,
    )
    part = parts.parse(_SPLIT.value)
    # None: a set that the run was not trained on.
    held_out = bool(task.validation_images)
    if task.run is not None:
        task.run.check_data(
            dataset,
            parts.is_trained_on(dataset, part, held_out),
            "name a copy of it with --dataset",
        )
    task.check_classes(dataset)
    split = parts.select(dataset, part, held_out)
    sample = data.sample(split, _MAX_EXAMPLES.value, _SEED.value)
    images = data.spread(sample.images, task.pixel_range)
    threat = task.threat()
    screen.say(f"Threat model: {threat.describe()}")
    model, facts = _load(task.path, images)
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
        epsilon_sweep=_EPSILON_SWEEP.value,
        corruptions=_corruptions(task),
        class_names=dataset.class_names,
        directory=task.output,
        save_adversarial=_SAVE_ADVERSARIAL.value,
        facts={
            "model": facts,
            "data": {
                "dataset": dataset.name,
                "split": _SPLIT.value,
                **sample.facts(),
            },
            "corruptions": {"dataset": _CORRUPTIONS.value},
        },
        progress=True,
    )


def _corruptions(task):
    """What reads the corrupted images, by name; None where none are asked for.

    Args:
        task: A `trained.Trained`.
    """
    if _CORRUPTIONS.value is None:
        return None
    places = corrupted.find(_CORRUPTIONS.value, task.data_dir)

    def read(place):
        split, class_names = corrupted.read(place)
        task.check_names(pathlib.Path(place).parent.name, class_names)
        sample = data.sample(split, _MAX_EXAMPLES.value, _SEED.value)
        return data.spread(sample.images, task.pixel_range), sample.labels

    return {
        name: functools.partial(read, place) for name, place in places.items()
    }


def _load(path, images):
    """The `Subject` of a run or a saved model, and facts about it."""
    from mart_tf.evaluation import subjects

    # A .keras file may hold an AdversarialClassifier: this registers it.
    from mart_tf.training import classifier as _  # noqa: F401

    if not record.exists(path):
        if pathlib.Path(path).is_dir():
            screen.say(
                f"{path} may run any code: give none that you do not trust."
            )
        # LiteRT tells developers which kernels it takes.
        with cli.quiet(FLAGS.verbosity):
            subject = subjects.as_subject(path, None, images)
        return subject, {"path": str(path)}
    run = workdir.trained(path)
    config = run.config
    classifier, epoch, warnings = workdir.load_classifier(
        path, _CHECKPOINT.value
    )
    for warning in warnings:
        screen.say(warning)
    subject = dataclasses.replace(
        subjects.as_subject(classifier, config.outputs, images),
        pixel_range=config.pixel_range,
    )
    return subject, {
        "workdir": run.workdir,
        "checkpoint": workdir.chosen(config, _CHECKPOINT.value),
        "epoch": epoch,
        "network": config.model,
        "defense": config.defense,
    }


if __name__ == "__main__":
    main()
