"""A run on disk: its configuration, and the classifier that it trained.

    workdir/
      flags.cfg            replayable with --flagfile
      run.json             configuration, versions, data set, hardware
      model.keras          a copy of the user's .keras file, where there is one
      checkpoints/         newest plus one; best/ by validation, if any
      metrics.csv          one row an epoch

Nothing here imports TensorFlow until a classifier is loaded.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess

from mart_tf import environment
from mart_tf import files
from mart_tf import limits
from mart_tf import options
from mart_tf import training
from mart_tf.runs import config as run_config

FORMAT = 1


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


def read(path):
    """What `run.json` of a workdir says.

    Raises:
        ValueError: If it is missing or not a run's.
    """
    file = pathlib.Path(path, "run.json")
    if not file.exists():
        raise ValueError(
            f"{path} holds no run.json; expected the workdir of a run, made "
            "by mart-train."
        )
    try:
        record = limits.read_json(file)
        known = {f.name: f.type for f in dataclasses.fields(run_config.Config)}
        # A run of an earlier version lacks the settings that came later.
        if (
            record["format"] != FORMAT
            or not record["config"].keys() <= known.keys()
        ):
            raise KeyError("format")
        for name, value in record["config"].items():
            if not _is_a(value, known[name]):
                raise TypeError(name)
        config = run_config.Config(**record["config"])
        record["config"] = dataclasses.asdict(config)
        record["facts"].get("files", {}).items()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged or of another version of mart_tf; restore it, "
            "or train again in another workdir."
        ) from error
    return record


def describe(path):
    """The configuration and the facts of a run, as one flat dict.

    Raises:
        ValueError: If the workdir holds no run, or a run without checkpoint.
    """
    record = read(path)
    # The checksum comes last: without one there is no checkpoint.
    if not any(pathlib.Path(path, "checkpoints").glob("ckpt-*.sha256")):
        raise ValueError(
            f"{path} has no finished epoch yet; continue it with mart-train "
            f"--flagfile={path}/flags.cfg."
        )
    return {**record["config"], **record["facts"], "workdir": str(path)}


def load_classifier(path, checkpoint="best"):
    """The classifier that a run trained, in float32.

    Args:
        path: The workdir.
        checkpoint: "best" on the validation split (without one the last) or
            "last", the average of the weights where `--ema` kept one;
            "best_raw" or "last_raw", the weights themselves.

    Returns:
        A Keras model, the epoch that its weights are of, and a sentence for
        each damaged checkpoint that was passed over for an older one.

    Raises:
        ValueError: If there is no sound checkpoint, or the network cannot be
            built again.
    """
    from mart_tf.models import loading
    from mart_tf.runs import checkpoints

    # A .keras file may hold an AdversarialClassifier: this registers it.
    from mart_tf.training import classifier as _  # noqa: F401

    run = describe(path)
    classifier = loading.build(
        model_spec(path, run["model"]), run["image_shape"], run["num_classes"]
    )
    epoch, warnings = checkpoints.restore_classifier(
        path, chosen(run, checkpoint), classifier, averaged=run["ema"] > 0.0
    )
    return classifier, epoch, warnings


def chosen(run, checkpoint):
    """Which weights of a run that `describe` read a checkpoint's name means.

    Without a validation split no epoch is chosen: "best" is "last".
    """
    if run["validation_images"] == 0:
        return checkpoint.replace("best", "last")
    return checkpoint


def model_spec(path, spec):
    """The run's own copy of a `.keras` file, else the spec as it is."""
    copy = pathlib.Path(path, "model.keras")
    return str(copy) if spec.endswith(".keras") and copy.exists() else spec


def prepare(config):
    """Looks at a workdir before a run, and writes nothing.

    Returns:
        The record of the unfinished run that `config` continues, or None for
        a new run.

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
    if not (path / "run.json").exists():
        if any(not item.name.startswith(".") for item in path.iterdir()):
            raise ValueError(
                f"--workdir={path} holds files but no run; name an empty or "
                "new directory."
            )
        return None
    record = read(path)
    # A run of an earlier version left defaults out.
    try:
        earlier = run_config.Config(**record["config"]).filled()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path / 'run.json'}: {error}") from error
    differing = config.differences(earlier)
    if differing:
        listed = "; ".join(
            f"--{name} was {_shown(getattr(earlier, name))}, now "
            f"{_shown(getattr(config, name))}"
            for name in differing
        )
        raise ValueError(
            f"{path} holds a run with other settings ({listed}); give the "
            "same, or another --workdir."
        )
    # What a user's own does with the epochs is not known.
    schedule = options.parse(config.schedule)
    name = ":".join(filter(None, [schedule.name, schedule.argument]))
    follows_epochs = name == "cosine" or name not in training.SCHEDULES
    if follows_epochs and config.epochs != earlier.epochs:
        raise ValueError(
            f"{path} holds a run of {earlier.epochs} epochs whose schedule "
            f"{name} ends there, now --epochs={config.epochs}; give the "
            "same, or another --workdir."
        )
    if config.epochs < earlier.epochs:
        raise ValueError(
            f"{path} holds a run of {earlier.epochs} epochs, now "
            f"--epochs={config.epochs}; a run can grow, not shrink."
        )
    return record


def digests(config, paths):
    """SHA-256 of the files that a run reads besides its data set, by path.

    Args:
        config: A resolved `Config`.
        paths: Files of the defense; that of a pool is added.
    """
    pool = options.parse(config.pool or "none")
    if pool.name in ("npz", "pickle"):
        paths = (*paths, pool.argument)
    found = {}
    for path in paths:
        with limits.opened(pathlib.Path(path).expanduser()) as file:
            found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_files(record, found):
    """Refuses to continue a run with a file that is no more what it was."""
    earlier = record["facts"].get("files", {}) if record else {}
    for path, digest in earlier.items():
        if found.get(path, digest) != digest:
            raise ValueError(
                f"{path} has changed since the run began; restore it, or "
                "train in another --workdir."
            )


def write(config, facts, record=None):
    """Writes `run.json` and `flags.cfg` of a run that begins or grows."""
    path = pathlib.Path(config.workdir)
    path.mkdir(parents=True, exist_ok=True)
    if record is None and config.model.endswith(".keras"):
        shutil.copyfile(config.model, path / "model.keras")
    settings = dataclasses.asdict(config)
    files.replace_text(
        path / "run.json",
        json.dumps(
            {
                "format": FORMAT,
                "created": (record or {}).get("created", _now()),
                "config": settings,
                "facts": facts,
                "versions": environment.versions(),
                "hardware": _hardware(),
                "git_revision": _git_revision(),
            },
            indent=2,
        )
        + "\n",
    )
    lines = [
        f"--{name}={_flag_value(value)}"
        for name, value in settings.items()
        if value is not None
    ]
    files.replace_text(path / "flags.cfg", "\n".join(lines) + "\n")


def _is_a(value, kind):
    """Whether a value is of a setting's type; whole numbers are floats too."""
    whole = type(value) is int and isinstance(0.0, kind)
    return whole or isinstance(value, kind)


def _flag_value(value):
    return str(value).lower() if isinstance(value, bool) else value


def _shown(value):
    return "the default" if value is None else value


def _last_written(path):
    files = [path / "run.json", path / "metrics.csv"]
    return max(file.stat().st_mtime for file in files if file.exists())


def _now():
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="seconds")


def _hardware():
    import tensorflow as tf

    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
    }


def _git_revision():
    """The revision of the checkout that this package runs from, if any."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
