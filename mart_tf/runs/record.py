"""`run.json`: what a run says of itself, checked when it is read."""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import platform
import subprocess

from mart_tf import environment
from mart_tf import files
from mart_tf import limits
from mart_tf.runs import config as run_config

FORMAT = 1

_NAME = "run.json"
_FACTS = {
    "policy": str,
    "image_shape": list,
    "num_classes": int,
    "class_names": list,
}


def exists(path):
    """Whether a folder is the workdir of a run."""
    return pathlib.Path(path, _NAME).is_file()


def read(path):
    """What `run.json` of a workdir says.

    Raises:
        ValueError: If it is missing, not a run's, or not as it was written.
    """
    if not exists(path):
        raise ValueError(
            f"{path} holds no {_NAME}; expected the workdir of a run, made "
            "by mart-train."
        )
    file = pathlib.Path(path, _NAME)
    try:
        record = limits.read_json(file)
        fault = _fault(record)
    except ValueError:
        fault = "it is no JSON"
    if fault is not None:
        raise ValueError(
            f"{file} is damaged or of another version of mart_tf ({fault}); "
            "restore it, or train again in another workdir."
        )
    # A run of an earlier version lacks the settings that came later.
    settings = run_config.Config(**record["config"])
    record["config"] = dataclasses.asdict(settings)
    return record


def write(config, facts, earlier=None):
    """Writes `run.json` of a run that begins or grows.

    Args:
        config: A resolved `Config`.
        facts: What the run knows beside it.
        earlier: What `read` gave of a run that goes on.
    """
    record = {
        "format": FORMAT,
        "created": (earlier or {}).get("created", _now()),
        "config": dataclasses.asdict(config),
        "facts": facts,
        "versions": environment.versions(),
        "hardware": _hardware(),
        "git_revision": _git_revision(),
    }
    record["sha256"] = _checksum(record)
    files.replace_text(
        pathlib.Path(config.workdir, _NAME), json.dumps(record, indent=2) + "\n"
    )


def _fault(record):
    """What is wrong with a record, in a few words, or None."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return "it has no format that is known"
    # A run of an earlier version has no checksum.
    if record.get("sha256", _checksum(record)) != _checksum(record):
        return "its checksum does not match"
    settings, facts = record.get("config"), record.get("facts")
    if not (isinstance(settings, dict) and isinstance(facts, dict)):
        return "configuration or facts are missing"
    kinds = {f.name: f.type for f in dataclasses.fields(run_config.Config)}
    for name, value in settings.items():
        if name not in kinds:
            return f"{name} is no setting that is known"
        if not _is(value, kinds[name]):
            return f"{name} is {value!r}"
    for name, kind in _FACTS.items():
        if not _is(facts.get(name), kind):
            return f"{name} is {facts.get(name)!r}"
    for name, kind in (("image_shape", int), ("class_names", str)):
        if not all(_is(value, kind) for value in facts[name]):
            return f"{name} is {facts[name]!r}"
    if not isinstance(facts.get("files", {}), dict):
        return f"files is {facts['files']!r}"
    return None


def _is(value, kind):
    """Whether a value of JSON is of a type, where 1 is a float, true no int."""
    if isinstance(value, bool):
        return kind in (bool, bool | None)
    if isinstance(value, int):
        return isinstance(value, kind) or isinstance(0.0, kind)
    return isinstance(value, kind)


def _checksum(record):
    rest = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
