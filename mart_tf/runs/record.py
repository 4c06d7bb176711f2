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
# What a run knows beside its configuration, as far as it is read again.
_FACTS = {
    "policy": str,
    "image_shape": list,
    "num_classes": int,
    "class_names": list,
}
# Of a fingerprint, which may be a long number.
_SHOWN = 40


@dataclasses.dataclass(frozen=True)
class Record:
    """A run, as the `run.json` of its workdir tells of it.

    Args:
        workdir: Where the run lies, a string; the workdir of `config` is the
            one that it began in.
        config: Its `Config`; a setting that came after it has the default.
        policy: "float32" or "mixed_bfloat16".
        image_shape: Height, width and channels, a list.
        num_classes: Number of classes.
        class_names: A name for each, a list.
        data: The `fingerprint` of its data set, or None.
        files: SHA-256 of the files that it reads besides its data set, by
            path.
        epsilon_ramp: Epochs over which epsilon grows from 0 in training; None
            where nothing is attacked.
        created: When it began, as text.
        checksum: Of all that the file says.
    """

    workdir: str
    config: run_config.Config
    policy: str
    image_shape: list
    num_classes: int
    class_names: list
    data: str | None
    files: dict
    epsilon_ramp: float | None
    created: str | None
    checksum: str

    def check_data(self, dataset, rows=True, instead=""):
        """Refuses a data set that is no more what the run was trained on.

        Rows that have moved bring training images into the splits that are
        carved from them, and classes that have moved bring wrong names.

        Args:
            dataset: A `data.Dataset`, by the spec of the run.
            rows: Whether images of its training set are taken; a test set of
                its own may have changed.
            instead: What else a user may do, in words.

        Raises:
            ValueError: If it is another.
        """
        what = self._changed(dataset, rows)
        if what is not None:
            raise ValueError(
                f"{dataset.name} is not as it was when {self.workdir} was "
                f"trained: {what}; restore it, or train again in another "
                f"workdir{instead and ', or '}{instead}."
            )

    def _changed(self, dataset, rows):
        """What is not as it was, in words, or None."""
        shape, names = list(dataset.image_shape), list(dataset.class_names)
        if shape != self.image_shape:
            return f"its images have shape {shape}, and had {self.image_shape}"
        count = len(self.class_names)
        if len(names) != count:
            return f"it has {len(names)} classes, and had {count}"
        for name, before in zip(names, self.class_names, strict=True):
            if name != before:
                return f"the class {before!r} is {name!r} now"
        if not rows or self.data in (None, dataset.fingerprint):
            return None
        return (
            "the set that its training images are of has changed (from "
            f"{self.data[:_SHOWN]} to {str(dataset.fingerprint)[:_SHOWN]})"
        )


def exists(path):
    """Whether a folder is the workdir of a run."""
    return pathlib.Path(path, _NAME).is_file()


def read(path):
    """The `Record` of the run in a workdir.

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
        content = limits.read_json(file)
        fault = _fault(content)
    except ValueError:
        fault = "it is no JSON"
    if fault is not None:
        raise ValueError(
            f"{file} is damaged or of another version of mart_tf ({fault}); "
            "restore it, or train again in another workdir."
        )
    facts = content["facts"]
    # A run of an earlier version lacks the settings that came later.
    config = run_config.Config(**content["config"])
    return Record(
        str(path),
        config,
        **{name: facts[name] for name in _FACTS},
        data=facts.get("data"),
        files=facts.get("files", {}),
        epsilon_ramp=facts.get("epsilon_ramp", config.epsilon_warmup_epochs),
        created=content.get("created"),
        checksum=_checksum(content),
    )


def write(config, facts, earlier=None):
    """Writes `run.json` of a run that begins or grows.

    Args:
        config: A resolved `Config`.
        facts: What the run knows beside it.
        earlier: The `Record` of a run that goes on.
    """
    content = {
        "format": FORMAT,
        "created": (earlier and earlier.created) or _now(),
        "config": dataclasses.asdict(config),
        "facts": facts,
        "versions": environment.versions(),
        "hardware": _hardware(),
        "git_revision": _git_revision(),
    }
    content["sha256"] = _checksum(content)
    text = json.dumps(content, indent=2) + "\n"
    files.replace_text(pathlib.Path(config.workdir, _NAME), text)


def _fault(content):
    """What is wrong with what the file says, in a few words, or None."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return "it has no format that is known"
    # A run of an earlier version has no checksum.
    if content.get("sha256", _checksum(content)) != _checksum(content):
        return "its checksum does not match"
    settings, facts = content.get("config"), content.get("facts")
    if not (isinstance(settings, dict) and isinstance(facts, dict)):
        return "configuration or facts are missing"
    kinds = {f.name: f.type for f in dataclasses.fields(run_config.Config)}
    for name, value in content["config"].items():
        if name not in kinds:
            return f"{name} is no setting that is known"
        if not is_of(value, kinds[name]):
            return f"{name} is {value!r}"
    for name, kind in _FACTS.items():
        if not is_of(facts.get(name), kind):
            return f"{name} is {facts.get(name)!r}"
    for name, kind in (("image_shape", int), ("class_names", str)):
        if not all(is_of(value, kind) for value in facts[name]):
            return f"{name} is {facts[name]!r}"
    if not isinstance(facts.get("files", {}), dict):
        return f"files is {facts['files']!r}"
    if not is_of(facts.get("data"), str | None):
        return f"data is {facts['data']!r}"
    if not is_of(facts.get("epsilon_ramp"), float | None):
        return f"epsilon_ramp is {facts['epsilon_ramp']!r}"
    return None


def is_of(value, kind):
    """Whether a value is of a type of JSON's: 1 is a float, true no int."""
    if isinstance(value, bool):
        return kind in (bool, bool | None)
    if isinstance(value, int):
        return isinstance(value, kind) or isinstance(0.0, kind)
    return isinstance(value, kind)


def _checksum(content):
    rest = {name: value for name, value in content.items() if name != "sha256"}
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
