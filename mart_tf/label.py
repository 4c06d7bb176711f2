"""The label program: a run's classifier -> pseudo-labels, or chosen examples.

mart-label --workdir=RUN --pool=folder:more_images --output=pool.npz
mart-label --workdir=RUN --subsets=chosen
"""

import dataclasses
import functools
import math
import os
import pathlib
import shlex
import warnings

import numpy as np

from mart_tf import bounds
from mart_tf import cli
from mart_tf import data
from mart_tf import errors
from mart_tf import labeling
from mart_tf import options
from mart_tf import places
from mart_tf import screen
from mart_tf.cli import kinds
from mart_tf.cli import shared
from mart_tf.labeling import subsets
from mart_tf.runs import config as run_config
from mart_tf.runs import consent
from mart_tf.runs import record
from mart_tf.runs import workdir

SUMMARY = (
    "let a run's classifier label a pool of images, for semi-supervised "
    "training (--pool, --output), or pick the training examples that it "
    "misclassifies and as many that it does not (--subsets). Without "
    "--workdir: the newest run."
)

FLAGS = cli.flag_values()
_define = functools.partial(kinds.define, FLAGS)
_WORKDIR = _define(
    "workdir",
    None,
    "The run whose classifier is used; default: the newest under runs/.",
    kinds.path,
)
_POOL = _define(
    "pool",
    None,
    "Images to label: folder:PATH, npz:PATH, pickle:PATH, or the name of "
    "a TFDS set, with options: svhn_cropped:split=extra:count=20000, or "
    "mnist:first=1000:count=20000 for a run on mnist:count=1000.",
    kinds.text,
)
_OUTPUT = _define(
    "output",
    None,
    "The .npz file that the labelled pool is written to; goes with --pool.",
    kinds.path,
)
_SUBSETS = _define(
    "subsets",
    None,
    f"A new folder for {subsets.WRONG} and {subsets.RIGHT}, examples of the "
    "run's own training split.",
    kinds.path,
)
_CHECKPOINT = shared.checkpoint_flag(FLAGS)
_BATCH_SIZE = _define(
    "batch_size",
    256,
    "Images in one pass through the network.",
    bounds.COUNT.read,
)
_DATA_DIR, _DOWNLOAD = shared.data_flags(FLAGS)
_PIXEL_RANGE = shared.pixel_flags(FLAGS, "what the run says")
_ALLOW_CODE = shared.code_flag(FLAGS)


@dataclasses.dataclass(frozen=True)
class _Task:
    """Whose classifier labels, and where the data lies.

    Args:
        run: The `Record` of its run.
        pixel_range: Least and greatest value of a pixel.
        data_dir: Where the data lies, or None.
    """

    run: record.Record
    pixel_range: tuple
    data_dir: str | None

    @property
    def where(self):
        """What all that reads data takes."""
        return {"data_dir": self.data_dir, "download": _DOWNLOAD.value}


def main(argv=None):
    """Runs the program."""
    cli.run("mart-label", SUMMARY, FLAGS, _main, argv)


def checked():
    """What is to be labelled, as far as it is known without TensorFlow.

    Returns:
        A `_Task`.

    Raises:
        ValueError: On anything that no labelling could start with.
    """
    _check_flags()
    path = _WORKDIR.value
    if path is None:
        path = workdir.newest()
        screen.say(f"Labelling with the newest run, {path}")
    run = workdir.trained(path)
    consent.check(run, _ALLOW_CODE.value)
    config = run.config
    data_dir = _DATA_DIR.value
    task = _Task(
        run,
        _PIXEL_RANGE(config.pixel_range, path),
        config.data_dir if data_dir is None else data_dir,
    )
    if _POOL.value is not None:
        data.check_pool(_POOL.value, **task.where)
        _check_not_its_own(run)
    else:
        data.check(config.dataset, **task.where)
    return task


def _main():
    task = checked()
    path = task.run.workdir

    # The flags are good: only now is TensorFlow imported.
    cli.import_tensorflow(FLAGS.verbosity)

    classifier, epoch, warnings = workdir.load_classifier(
        path, _CHECKPOINT.value
    )
    for warning in warnings:
        screen.say(warning)
    checkpoint = workdir.chosen(task.run.config, _CHECKPOINT.value)
    author = f"{path}, {checkpoint} weights, epoch {epoch}"
    work = _pick_subsets if _POOL.value is None else _label_pool
    with errors.batch_that_fits(_BATCH_SIZE.value):
        work(task, classifier, author)


def _check_flags():
    """Refuses flags that do not go together, and files that are there."""
    if (_POOL.value is None) == (_SUBSETS.value is None):
        raise ValueError(
            "Expected one of --pool=SPEC (with --output=FILE.npz) and "
            "--subsets=FOLDER."
        )
    if (_POOL.value is None) != (_OUTPUT.value is None):
        raise ValueError(
            "--output is the file of a labelled pool; expected --pool=SPEC "
            "and --output=FILE.npz together."
        )
    if _SUBSETS.value is not None:
        subsets.check_folder(_SUBSETS.value)
        places.check_folder("--subsets", _SUBSETS.value, "what is chosen")
        return
    output = pathlib.Path(_OUTPUT.value)
    if output.suffix != ".npz":
        raise ValueError(
            f"--output is {output}; expected a name that ends in .npz."
        )
    if os.path.lexists(output):
        raise ValueError(
            f"--output={output} exists already, and is not overwritten; name "
            "another file."
        )
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ValueError(
            f"--output={output} cannot be written, because {output.parent} is "
            "not a folder that can be written to; make it, or name another."
        )
    places.check_folder("--output", output, "the pool")


def _check_not_its_own(run):
    """Refuses rows of the run's training set, its validation split in it."""
    pool, own = options.parse(_POOL.value), options.parse(run.config.dataset)
    if (
        pool.name in ("folder", "npz", "pickle")
        or pool.name != own.name
        or pool.options.get("split", "train") != "train"
    ):
        return
    (first, stop), (own_first, own_stop) = map(_rows, (pool, own))
    if max(first, own_first) < min(stop, own_stop):
        raise ValueError(
            f"--pool={_POOL.value} is, in part or whole, the training set of "
            f"{run.workdir} itself ({run.config.dataset}), its validation "
            "split included; expected other images, such as "
            f"{own.name}:first=1000 for a run on {own.name}:count=1000."
        )


def _rows(spec):
    """The first row of a TFDS spec, and one past the last."""
    first = int(spec.options.get("first", 0))
    if "count" not in spec.options:
        return first, math.inf
    return first, first + int(spec.options["count"])


def _own_data(task):
    """The data set of the run, or None where it is not at hand."""
    try:
        data.check(task.run.config.dataset, **task.where)
    except ValueError as error:
        screen.say(f"Not compared with the run's own images: {error}")
        return None
    return _loaded(task)


def _loaded(task):
    """The data set of the run, in its splits."""
    config = task.run.config
    return data.load(
        config.dataset,
        validation_images=config.validation_images,
        **task.where,
    )


def _label_pool(task, classifier, author):
    import rich.progress

    from mart_tf.labeling import collapse
    from mart_tf.screen import bars

    pool = data.load_pool(_POOL.value, **task.where)
    own = _own_data(task)
    if own is not None:
        data.check_apart(pool, own)
    console = screen.console()
    columns = rich.progress.Progress.get_default_columns()
    with bars.Bars(*columns, console=console) as bar:
        shown = bar.add_task("Labelling", total=len(pool))
        labeled = labeling.label_pool(
            classifier,
            pool,
            _OUTPUT.value,
            labeled_by=author,
            batch_size=_BATCH_SIZE.value,
            outputs=task.run.config.outputs,
            pixel_range=task.pixel_range,
            progress=lambda done: bar.update(shown, completed=done),
        )
    screen.say(f"Wrote {labeled.describe()}")
    screen.say(f"Classes: {_counts(task.run, labeled.labels)}")
    if own is not None:
        sentence = collapse.warning(task.run.workdir, labeled, own)
        if sentence is not None:
            warnings.warn(sentence, stacklevel=2)
    screen.say_command(
        "Train with it:", _train(task, "mart", f"--pool={labeled.name}")
    )


def _pick_subsets(task, classifier, author):
    run = task.run
    dataset = _loaded(task)
    run.check_data(dataset)
    folder = pathlib.Path(_SUBSETS.value)
    wrong, right = labeling.pick_subsets(
        classifier,
        dataset.train,
        folder,
        dataset=dataset.name,
        picked_by=author,
        batch_size=_BATCH_SIZE.value,
        pixel_range=task.pixel_range,
    )
    screen.say(
        f"{author} misclassifies {len(wrong):,} of the {wrong.images:,} "
        f"training images of {dataset.name}"
    )
    for name, part, what in [
        (subsets.WRONG, wrong, "all of these"),
        (subsets.RIGHT, right, "as many of the others, chosen at random"),
    ]:
        screen.say(f"Wrote {folder / name}: {what}")
        screen.say(f"Classes: {_counts(run, part.labels)}")
    defense = f"subset:file={folder / subsets.WRONG}:treatment=natural"
    # Rows are those of the run's own split.
    split = f"--validation_images={len(dataset.validation)}"
    screen.say_command("Train with them:", _train(task, defense, split))
    screen.say("Other treatments: fgsm, kl")


def _counts(run, labels):
    names = run.class_names
    counts = np.bincount(labels, minlength=len(names))
    return ", ".join(
        f"{name} {count:,}" for name, count in zip(names, counts, strict=True)
    )


def _train(task, defense, *more):
    """The words of a mart-train on the run's data and network."""
    config = task.run.config
    settings = {
        "dataset": config.dataset,
        "data_dir": task.data_dir,
        "model": config.model,
    }
    given = [f"--{k}={v}" for k, v in settings.items() if v is not None]
    for name, value in zip(
        ("pixel_min", "pixel_max"), task.pixel_range, strict=True
    ):
        if value != getattr(run_config.Config, name):
            # All digits: another range is another network's.
            given.append(f"--{name}={repr(value).removesuffix('.0')}")
    if config.outputs != run_config.Config.outputs:
        given.append(f"--outputs={config.outputs}")
    words = ["mart-train", *given, f"--defense={defense}", *more]
    return [shlex.quote(word) for word in words]


if __name__ == "__main__":
    main()
