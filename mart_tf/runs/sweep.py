"""Many runs: which ones a pattern means, and what tells them apart."""

import dataclasses
import glob
import os
import pathlib

from mart_tf import options
from mart_tf.reports import saved
from mart_tf.runs import events
from mart_tf.runs import history
from mart_tf.runs import record

# What makes a run no other one: where it is, and how it computes and saves.
_NO_OTHER = (
    "workdir",
    "data_dir",
    "download",
    "strategy",
    "xla",
    "checkpoint_every",
    "max_skipped_steps",
    # Part of the defense.
    "regularization",
)
# Settings that are specs, whose options are told one by one.
_SPECS = ("model", "defense", "update", "optimizer", "schedule")


def runs(paths):
    """The workdirs that paths and patterns mean, each once.

    Args:
        paths: Paths, or patterns such as "runs/sweep/*", of which those
            matches are taken that hold a run, sorted.

    Raises:
        ValueError: If a pattern matches no run.
    """
    return _expanded("--workdir", paths, record.exists, "run")


def reports(paths):
    """The reports that paths and patterns mean, each once.

    Args:
        paths: Files or folders of reports, workdirs, or patterns, of which
            those matches are taken that hold a report, sorted.

    Raises:
        ValueError: If a pattern matches no report.
    """
    return _expanded("--compare", paths, _has_report, "report")


def report_of(path):
    """Where the report lies that a path means: of a workdir in evaluation/."""
    inside = pathlib.Path(path, "evaluation")
    return str(inside) if record.exists(path) else str(path)


def settings(path, created=None):
    """What the run was told that a workdir or a report is of.

    Args:
        path: A workdir, or what lies in its evaluation/.
        created: When the report was, as it says; default: just now.

    Returns:
        Plain values by name, an option by "defense:regularization", and
        "unfinished", in words, where the report is of no finished run; {}
        where there is no run.

    Raises:
        ValueError: If a file of the run is damaged.
    """
    path = pathlib.Path(os.path.abspath(path))
    if not path.is_dir():
        path = path.parent
    for place in (path, path.parent):
        if record.exists(place):
            config = record.read(place).config
            return told(config) | _unfinished(place, config.epochs, created)
    return {}


def _unfinished(path, epochs, created):
    """Why the report of a run is none of a finished one; {} where it is."""
    happened = events.read(path)
    saves = [event["time"] for event in happened if event["event"] == "save"]
    if created and saves and saves[-1].isoformat(timespec="seconds") > created:
        return {"unfinished": "was trained on after its evaluation"}
    finished = len(history.read(path))
    whole = [e for e in happened if e["event"] in ("start", "end")][-1:]
    # A run that stopped by a rule of its own has ended as it was to; of one
    # without a row, which cannot be evaluated, more than that is missing.
    ended = [event.get("outcome") for event in whole] == ["finished"]
    if ended or not 0 < finished < epochs:
        return {}
    return {"unfinished": f"has finished {finished} of {epochs} epochs"}


def told(config):
    """The settings of a `Config` that make a run another one.

    Returns:
        Plain values by name; of a spec its name, and its options as text by
        "defense:regularization".
    """
    said = {}
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if name in _NO_OTHER:
            continue
        said[name] = value
        if name in _SPECS and isinstance(value, str):
            spec = options.parse(value)
            said[name] = ":".join(filter(None, [spec.name, spec.argument]))
            for option, text in spec.options.items():
                said[f"{name}:{option}"] = text
    return said


def _has_report(path):
    place = pathlib.Path(report_of(path))
    if place.is_dir():
        return (place / saved.FILE).is_file()
    return place.suffix == ".json" and place.is_file()


def _expanded(flag, paths, fits, what):
    found = []
    for path in paths:
        if not glob.has_magic(path) or os.path.lexists(path):
            found.append(path)
            continue
        matches = sorted(glob.glob(path))
        fitting = [match for match in matches if fits(match)]
        if not fitting:
            others = ", only something else" if matches else ""
            raise ValueError(
                f"{flag}={path} matches no {what}{others}; expected a pattern "
                "of workdirs, in quotes, such as 'runs/sweep/*'."
            )
        found += fitting
    return list(dict.fromkeys(found))
