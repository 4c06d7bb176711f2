"""The export program: a run's classifier -> a SavedModel version.

mart-export --workdir=runs/digits_digits_cnn_mart
mart-export --model=mine.keras --dataset=digits --formats=saved_model,litert
mart-export --directory=gs://bucket/models/digits --warmup_batch_sizes=1,32
"""

import dataclasses
import functools
import pathlib
import shlex
import signal
import sys

from mart_tf import bounds
from mart_tf import choices
from mart_tf import cli
from mart_tf import data
from mart_tf import places
from mart_tf import runtimes
from mart_tf import screen
from mart_tf.cli import kinds
from mart_tf.cli import shared
from mart_tf.models import declared
from mart_tf.runs import consent
from mart_tf.runs import record
from mart_tf.runs import trained
from mart_tf.runs import workdir
from mart_tf.serving import versions

SUMMARY = (
    "write a run's classifier as a SavedModel version for TF Serving, with "
    "warm-up requests and a model card, and prove that TensorFlow's C++ "
    "runtime gives its logits and that it withstands as much. Without flags: "
    "the newest run. Or of a .keras file."
)

_SAVED_MODEL = "saved_model"

# Training images that the ranges of int8 are chosen by.
_CALIBRATION = 500

FLAGS = cli.flag_values()
_define = functools.partial(kinds.define, FLAGS)
_WORKDIR = _define(
    "workdir",
    None,
    "The run to export; default: the newest under runs/.",
    kinds.path,
)
_MODEL = _define(
    "model",
    None,
    "A .keras file to export instead of a run: that of an "
    "AdversarialClassifier says its threat model and the range of its pixels; "
    "of another, --pixel_min and --pixel_max do.",
    kinds.path,
)
_DATASET = _define(
    "dataset",
    None,
    "Of --model: whose test images it is attacked on, and whose classes it "
    "names; default: none.",
    kinds.text,
)
_DIRECTORY = _define(
    "directory",
    None,
    "Where the versions 1, 2, ... lie, a path or a URL such as gs://...; "
    "default: WORKDIR/export, or a folder beside the model whose name ends in "
    "-export.",
    kinds.path_or_url,
)
_CHECKPOINT = shared.checkpoint_flag(FLAGS)
_DATA_DIR, _DOWNLOAD = shared.data_flags(FLAGS)
_PIXEL_RANGE = shared.pixel_flags(
    FLAGS, "what the run or the model file says; else it is asked for"
)
_ALLOW_CODE = shared.code_flag(FLAGS)
_FORMATS = _define(
    "formats",
    [_SAVED_MODEL],
    "What is written: saved_model, and in its folder assets.extra files of "
    "other runtimes: litert, a .tflite file in float32 and one in int8; onnx. "
    "Each is compared with the classifier and attacked, on the images of "
    "--attack_examples.",
    kinds.list_of(kinds.one_of(_SAVED_MODEL, *runtimes.FORMATS)),
)
_SIGNATURES = _define(
    "signatures",
    None,
    "Of serving_default (images), image_bytes (PNG or JPEG) and classify "
    "(tf.Examples); default: all that the network can give.",
    kinds.list_of(kinds.one_of(*choices.SIGNATURES)),
)
_CLASS_NAMES = _define(
    "class_names",
    None,
    "A name for each class; default: those of the run's data.",
    kinds.list_of(kinds.text),
)
_WARMUP = _define(
    "warmup_batch_sizes",
    [1],
    "Batch sizes of the requests that a server replays at its start; empty: "
    "no warm-up.",
    kinds.list_of(bounds.Whole(1, 10_000).read),
)
_ATTACKED = _define(
    "attack_examples",
    200,
    "How many test images, chosen as by --max_examples of mart-evaluate, the "
    "version is attacked on, by PGD-20, and compared with the classifier "
    "before it can be seen; 0: none.",
    bounds.Whole(0, bounds.COUNT.greatest).read,
)
_BATCH_SIZE = _define(
    "batch_size",
    250,
    "Images in one pass through the network while it is attacked.",
    bounds.COUNT.read,
)


def main(argv=None):
    """Runs the program."""
    cli.run("mart-export", SUMMARY, FLAGS, _main, argv)


def checked():
    """What is to be exported, as far as it is known without TensorFlow.

    Returns:
        A `trained.Trained`, and why the version will not be attacked, or None.

    Raises:
        ValueError: On anything that no export could start with.
    """
    task = _of_run() if _MODEL.value is None else _of_file(_MODEL.value)
    if _DATA_DIR.value is not None:
        task = dataclasses.replace(task, data_dir=_DATA_DIR.value)
    directory = _DIRECTORY.value or task.output
    if not versions.is_url(directory):
        directory = versions.check(directory)
        places.check_folder("--directory", directory, "the version")
    task = dataclasses.replace(task, output=directory)
    not_attacked = _why_not_attacked(task)
    _check_formats(not_attacked)
    return task, not_attacked


def _main():
    task, not_attacked = checked()

    # The flags are good: only now is TensorFlow imported.
    cli.import_tensorflow(FLAGS.verbosity)
    from mart_tf.serving import told

    # As Ctrl-C: what is half written goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    with cli.if_stopped(_kept):
        version, whose = _written(task, not_attacked)
    for line in told.lines(version, not_attacked):
        text = line.lstrip()
        screen.say(text, heading=line[: len(line) - len(text)])
    screen.say_command(
        "Serve it:",
        [
            "tensorflow_model_server",
            "--rest_api_port=8501",
            "--model_name=classifier",
            f"--model_base_path={shlex.quote(str(task.output))}",
        ],
    )
    screen.say(f"Wrote {version.path}, {whose}")


def _written(task, not_attacked):
    """The `saved_model.Version` of a `trained.Trained`, and whose it is."""
    from mart_tf.serving import saved_model

    classifier, outputs, facts, whose = _loaded(task.path)
    names = _CLASS_NAMES.value or task.class_names
    if _CLASS_NAMES.value:
        _check_number(names, "--class_names", classifier)
    trial, others, threat, dataset = None, None, None, None
    if task.epsilon is not None:
        threat = task.threat()
        screen.say(f"Threat model: {threat.describe()}")
    if not not_attacked or (task.dataset and not task.class_names):
        dataset = data.load(
            task.dataset, data_dir=task.data_dir, download=_DOWNLOAD.value
        )
    if not names and dataset is not None:
        names = dataset.class_names
        _check_number(names, f"--dataset={dataset.name}", classifier)
    own = task.class_names or (dataset and dataset.class_names)
    if _CLASS_NAMES.value and own:
        # By which the version is known on its own data again.
        facts["data"] = {"class_names": list(own)}
    if not not_attacked:
        if task.run is not None:
            task.run.check_data(
                dataset,
                "test" in dataset.carved,
                "give --attack_examples=0, which attacks no version",
            )
        trial, sample = _trial(task, dataset, threat, classifier, outputs)
        others = _others(trial, dataset.train, task.pixel_range)

    def check(hidden):
        if not_attacked:
            return {"attack": f"none: {not_attacked}"}
        tried = {"attacked_dataset": task.dataset, "attacked_sample": sample}
        return trial.attack_both(hidden) | tried

    version = saved_model.write_version(
        classifier,
        task.output,
        outputs=outputs,
        class_names=names,
        pixel_range=task.pixel_range,
        signatures=_SIGNATURES.value,
        warmup=_WARMUP.value,
        check=check,
        others=others,
        facts=facts,
    )
    return version, whose


def _check_number(names, flag, classifier):
    """Refuses more or fewer names than a model has classes.

    Args:
        names: Names of classes.
        flag: Where they are from, for the message.
        classifier: A Keras model. A subclassed one may know its shape only
            once it is called, and is looked at then.
    """
    shape = getattr(classifier, "output_shape", None)
    if shape and len(names) != shape[-1]:
        raise ValueError(
            f"{flag} has {len(names)} classes, and the model {shape[-1]}; "
            "expected the data set that it was trained on, or --class_names "
            "with a name for each class."
        )


def _kept():
    return "No version was written; the same command writes it."


def _of_run():
    """The `trained.Trained` of a run."""
    path = _WORKDIR.value
    if path is None:
        path = workdir.newest()
        screen.say(f"Exporting the newest run, {path}")
    if _DATASET.value is not None:
        raise ValueError(
            f"--dataset={_DATASET.value} goes with --model; of a run its own "
            "data set is taken: leave it out."
        )
    run = workdir.trained(path)
    consent.check(run, _ALLOW_CODE.value)
    names = _CLASS_NAMES.value or run.class_names
    if len(names) != run.num_classes:
        raise ValueError(
            f"--class_names holds {len(names)} names, and the run has "
            f"{run.num_classes} classes; expected a name for each."
        )
    said = run.config.pixel_range
    return trained.of_run(run, _PIXEL_RANGE(said, path), "export")


def _of_file(path):
    """That of a `.keras` file, as far as it and the flags say it."""
    for flag, holder in [("workdir", _WORKDIR), ("checkpoint", _CHECKPOINT)]:
        if FLAGS[flag].present:
            raise ValueError(
                f"--{flag}={holder.value} is of a run, and --model={path} "
                "names a file to export; give one of them."
            )
    for flag in ("data_dir", "download"):
        if FLAGS[flag].present and _DATASET.value is None:
            raise ValueError(
                f"--{flag} says where data lies, and --model={path} does not "
                "tell which; give --dataset=NAME with it."
            )
    path = pathlib.Path(path)
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(
            f"--model={path} is no .keras file that is there; expected one "
            "that keras.Model.save wrote."
        )
    said = declared.read(path)
    if said:
        pixel_range = _PIXEL_RANGE(said.pixel_range, said.by)
    elif FLAGS["pixel_min"].present and FLAGS["pixel_max"].present:
        pixel_range = _PIXEL_RANGE()
    else:
        raise ValueError(
            f"--model={path} does not tell the range of its pixels; give "
            "--pixel_min and --pixel_max, such as 0 and 1, or 0 and 255."
        )
    output = path.with_name(f"{path.name}-export")
    return trained.of_model(path, _DATASET.value, pixel_range, output)


def _loaded(path):
    """The classifier, facts for its card, and what it is in a few words.

    Returns:
        A Keras model, an AdversarialClassifier where a file holds one;
        "logits" or "probabilities", what it returns; a dict; and words for
        the user.
    """
    if _MODEL.value is not None:
        return _loaded_file(pathlib.Path(path))
    classifier, epoch, warnings = workdir.load_classifier(
        path, _CHECKPOINT.value
    )
    for warning in warnings:
        screen.say(warning)
    config = record.read(path).config
    checkpoint = workdir.chosen(config, _CHECKPOINT.value)
    training = {"checkpoint": checkpoint, "epoch": epoch}
    facts = {
        "training": training | dataclasses.asdict(config),
        "evaluation": _evaluation(pathlib.Path(path, "evaluation"), classifier),
    }
    whose = f"the {checkpoint} weights of {path}, of epoch {epoch}"
    return classifier, config.outputs, facts, whose


def _loaded_file(path):
    from mart_tf.models import loading
    from mart_tf.models import outputs
    from mart_tf.models import single

    # A .keras file may hold an AdversarialClassifier: this registers it.
    from mart_tf.training import classifier as _  # noqa: F401

    model = loading.read(str(path))
    network, kind = outputs.unwrap(model)
    if not single.is_adversarial(model):
        # Nobody is there who could have declared it.
        single.check(network)
        ends = loading.ends_in_softmax(network)
        kind = "probabilities" if ends else "logits"
    report = path.with_name(f"{path.name}-evaluation")
    facts = {"evaluation": _evaluation(report, network)}
    return model, kind, facts, str(path)


def _why_not_attacked(task):
    """Why the version is not attacked, or None."""
    reason = None if _ATTACKED.value else "--attack_examples is 0."
    if task.dataset is None:
        return reason or "no --dataset was named."
    # Of --model it names the classes too.
    if reason and _DATASET.value is None:
        return reason
    try:
        data.check(
            task.dataset, data_dir=task.data_dir, download=_DOWNLOAD.value
        )
    except ValueError as error:
        if (_DATA_DIR.value, _DATASET.value) != (None, None):
            raise
        return str(error)
    return reason


def _check_formats(not_attacked):
    """Refuses formats that cannot be written, or not be tried."""
    listed = ",".join(_FORMATS.value)
    if _SAVED_MODEL not in _FORMATS.value:
        raise ValueError(
            f"--formats={listed} lacks {_SAVED_MODEL}, the version that files "
            "of other formats lie in; add it."
        )
    for name in _other_formats():
        runtimes.FORMATS[name].check(f"--formats={listed}", writing=True)
        if not_attacked:
            raise ValueError(
                f"--formats={listed} needs test images, which {name} is "
                f"compared and attacked on: {not_attacked}"
            )


def _other_formats():
    return [name for name in runtimes.FORMATS if name in _FORMATS.value]


def _trial(task, dataset, threat, classifier, outputs):
    """An `exported.Trial` of the classifier, and how its images were chosen."""
    from mart_tf.evaluation import exported
    from mart_tf.evaluation import subjects

    sample = data.sample(dataset.test, _ATTACKED.value)
    images = data.spread(sample.images, task.pixel_range)
    original = subjects.as_subject(classifier, outputs, images)
    trial = exported.Trial(
        original, images, sample.labels, threat, _BATCH_SIZE.value
    )
    return trial, sample.kind


def _others(trial, training, pixel_range):
    """What writes and tries the other formats; None where there are none."""
    names = _other_formats()
    if not names:
        return None
    from mart_tf.serving import formats

    sample = data.sample(training, _CALIBRATION)
    calibration = data.spread(sample.images, pixel_range)

    def write(hidden, served):
        # Their converters and runtimes tell developers what they do.
        with cli.quiet(FLAGS.verbosity):
            written = formats.write(
                served, hidden, names, trial.images, calibration
            )
            whole = trial.accuracies()
            return {
                path.name: {
                    **facts,
                    "images": len(trial.images),
                    "accuracy": trial.accuracies(path),
                    "classifier_accuracy": whole,
                }
                for path, facts in written
            }

    return write


def _evaluation(folder, classifier):
    from mart_tf.evaluation import exported

    return exported.reported(folder, classifier.get_weights())


if __name__ == "__main__":
    main()
