"""A run on disk: its configuration, and the classifier that it trained.

    workdir/
      flags.cfg            replayable with --flagfile
      run.json             configuration, versions, data set, hardware
      model.keras          a copy of the user's .keras file, where there is one
      checkpoints/         newest plus one; best/ by validation, if any
      metrics.csv          one row an epoch
      events.jsonl         what happened when
      curves.html          the curves of its epochs, and curves.png
      tensorboard/         logs, where TensorBoard is installed

Nothing here imports TensorFlow until a classifier is loaded.
"""

import dataclasses
import filecmp
import pathlib
import shlex
import shutil

from mart_tf import files
from mart_tf import limits
from mart_tf import options
from mart_tf.runs import consent
from mart_tf.runs import record

# The copy of a `.keras` file.
_MODEL = "model.keras"


def newest(root="runs"):
    """The run that was written to last, of those under `root`.

    Raises:
        ValueError: If there is none.
    """
    runs = [path.parent for path in pathlib.Path(root).glob("*/run.json")]
    if not runs:
        raise ValueError(
            f"There is no run under {root}/; train one with mart-train, or "
            "name one with --workdir."
        )
    return str(max(runs, key=_last_written))


def trained(path):
    """The `Record` of a run that has weights to load.

    Raises:
        ValueError: If the workdir holds no run, or a run without checkpoint.
    """
    run = record.read(path)
    # The checksum comes last: without one there is no checkpoint.
    if not any(pathlib.Path(path, "checkpoints").glob("ckpt-*.sha256")):
        raise ValueError(
            f"{path} has no finished epoch yet; continue it with mart-train "
            + shlex.join([f"--flagfile={path}/flags.cfg", f"--workdir={path}"])
            + "."
        )
    return run


def load_classifier(path, checkpoint="best"):
    """The classifier that a run trained, in float32.

    Args:
        path: The workdir.
        checkpoint: "best" on the validation split (without one the last) or
            "last", the average of the weights where `--ema` kept one;
            "best_raw" or "last_raw", the weights themselves.

    Returns:
        A Keras model, the epoch that its weights are of, and, where a damaged
        checkpoint was passed over for an older one, sentences for the user.

    Raises:
        ValueError: If there is no sound checkpoint, or the network cannot be
            built again.
    """
    from mart_tf.models import loading
    from mart_tf.runs import checkpoints

    # A .keras file may hold an AdversarialClassifier: this registers it.
    from mart_tf.training import classifier as _  # noqa: F401

    run = trained(path)
    classifier = loading.build(
        model_spec(path, run.config.model),
        run.image_shape,
        run.num_classes,
        pixel_range=run.config.pixel_range,
        pretrained=False,
    )
    epoch, warnings = checkpoints.restore_classifier(
        path,
        chosen(run.config, checkpoint),
        classifier,
        averaged=run.config.ema > 0.0,
    )
    instead = f"Taking epoch {epoch}, the one before it."
    return classifier, epoch, [f"{each} {instead}" for each in warnings]


def chosen(config, checkpoint):
    """Which weights of a run of a `Config` a checkpoint's name means.

    Without a validation split no epoch is chosen: "best" is "last".
    """
    if config.validation_images == 0:
        return checkpoint.replace("best", "last")
    return checkpoint


def model_spec(path, spec):
    """The run's own copy of a `.keras` file, else the spec as it is."""
    copy = pathlib.Path(path, _MODEL)
    return str(copy) if spec.endswith(".keras") and copy.exists() else spec


def prepare(config):
    """Looks at a workdir before a run, and writes nothing.

    Returns:
        The `Record` of the unfinished run that `config` continues, or None
        for a new run; one of other settings that saved nothing gives way to
        it.

    Raises:
        ValueError: If something else lies there, or the settings differ from
            those of the run that does.
    """
    path = pathlib.Path(config.workdir)
    if not path.exists():
        return None
    if not path.is_dir():
        raise ValueError(
            f"--workdir={path} is a file; expected a directory or a new name."
        )
    if not record.exists(path):
        if not _is_left_of_a_start(path, config.model):
            raise ValueError(
                f"--workdir={path} holds files but no run; name an empty or "
                "new directory."
            )
        return None
    unfinished = record.read(path)
    # New callbacks are no other run; and what it names is not imported.
    earlier = dataclasses.replace(unfinished.config, callbacks=None)
    try:
        other = consent.other_code(earlier, config)
        # A run of an earlier version left defaults out.
        earlier = earlier if other else earlier.filled()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path / 'run.json'}: {error}") from error
    if other:
        objection = _other_settings(path, config, earlier, other)
    else:
        objection = _objection(path, config, earlier)
    if objection is None:
        return unfinished
    if not _has_trained(path):
        return None
    raise ValueError(objection)


def _is_left_of_a_start(path, model):
    """Whether a folder holds no more than a start that was killed leaves."""
    items = [each for each in path.iterdir() if not each.name.startswith(".")]
    return not items or (
        items == [path / _MODEL]
        and model.endswith(".keras")
        and filecmp.cmp(items[0], model, shallow=False)
    )


def _objection(path, config, earlier):
    """Why a configuration cannot continue an earlier one's run, or None."""
    differing = config.differences(earlier)
    if differing:
        return _other_settings(path, config, earlier, differing)
    # What a user's own does with the epochs is not known.
    schedule = options.parse(config.schedule)
    name = ":".join(filter(None, [schedule.name, schedule.argument]))
    follows_epochs = name not in ("constant", "piecewise")
    if follows_epochs and config.epochs != earlier.epochs:
        return (
            f"{path} holds a run of {earlier.epochs} epochs whose schedule "
            f"{name} ends there, now --epochs={config.epochs}; give the "
            "same, or another --workdir."
        )
    if config.ema_warmup and config.epochs != earlier.epochs:
        return (
            f"{path} holds a run of {earlier.epochs} epochs, of which "
            f"--ema_warmup={config.ema_warmup:g} is a share, now --epochs="
            f"{config.epochs}; give the same, or another --workdir."
        )
    if config.epochs < earlier.epochs:
        return (
            f"{path} holds a run of {earlier.epochs} epochs, now "
            f"--epochs={config.epochs}; a run can grow, not shrink."
        )
    return None


def _other_settings(path, config, earlier, differing):
    listed = "; ".join(
        f"--{name} was {_shown(getattr(earlier, name))}, now "
        f"{_shown(getattr(config, name))}"
        for name in differing
    )
    return (
        f"{path} holds a run with other settings ({listed}); give the same, or "
        "another --workdir."
    )


def _has_trained(path):
    """Whether anything of a run is there that another would write over."""
    return any(path.glob("checkpoints/**/ckpt-*"))


def digests(config, paths):
    """SHA-256 of the files that a run reads besides its data set, by path.

    Args:
        config: A resolved `Config`.
        paths: Files of the defense; that of a pool is added.
    """
    pool = options.parse(config.pool or "none")
    if pool.name in ("npz", "pickle"):
        paths = (*paths, pool.argument)
    return {
        str(path): limits.sha256(pathlib.Path(path).expanduser())
        for path in paths
    }


def check_files(earlier, sums):
    """Refuses to continue a run with a file that is no more what it was.

    Args:
        earlier: Its `Record`, or None for a new run.
        sums: What `digests` gives now.
    """
    known = earlier.files if earlier else {}
    for path, digest in known.items():
        if sums.get(path, digest) != digest:
            raise ValueError(
                f"{path} has changed since the run began; restore it, or "
                "train in another --workdir."
            )


def write(config, facts, earlier=None):
    """Writes `run.json` and `flags.cfg` of a run that begins or grows."""
    path = pathlib.Path(config.workdir)
    path.mkdir(parents=True, exist_ok=True)
    if earlier is None and config.model.endswith(".keras"):
        with files.whole(path / _MODEL) as copy:
            shutil.copyfile(config.model, copy)
    record.write(config, facts, earlier)
    lines = [
        f"--{name}={_flag_value(value)}"
        for name, value in dataclasses.asdict(config).items()
        if value is not None
    ]
    files.replace_text(path / "flags.cfg", "\n".join(lines) + "\n")


def _flag_value(value):
    return str(value).lower() if isinstance(value, bool) else value


def _shown(value):
    return "the default" if value is None else value


def _last_written(path):
    files = [path / "run.json", path / "metrics.csv"]
    return max(file.stat().st_mtime for file in files if file.exists())
