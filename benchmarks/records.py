"""What `reproduce.py` has found: a record of each run.

A record is a JSON file, written when a run was trained and after each of its
measures, so that tables grow over days and machines, and nobody copies a
number by hand. It holds the settings that it is of: where the recipe is another
one now, it is refused.
"""

import csv
import datetime
import json
import pathlib

import paper

import mart_tf
from mart_tf import files
from mart_tf import limits
from mart_tf.labeling import subsets


class Records:
    """The records of a folder, by the names of runs."""

    def __init__(self, folder):
        self._folder = pathlib.Path(folder)

    def read(self, run):
        """The record of a run, a dict; empty where there is none.

        Measures that `paper.MEASURES` takes otherwise now are left out.

        Raises:
            ValueError: If it is of other settings than the run's, or damaged.
        """
        path = self._path(run)
        if not path.exists():
            return {}
        try:
            record = limits.read_json(path)
            measures = {
                name: found
                for name, found in record["measures"].items()
                if name in paper.MEASURES
                and found["flags"] == list(paper.MEASURES[name])
            }
            record |= {"measures": measures}
            _check_same(path, record, run)
        except (AttributeError, json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(
                f"{path} is not a record as it was written; restore it, or "
                "remove it to have the run anew."
            ) from None
        return record

    def is_of(self, run, workdir):
        """Whether a run's record is of the training in this workdir."""
        return self.read(run).get("by_epoch") == _by_epoch(workdir)

    def missing(self, run):
        """The measures of a run that no record has, a list."""
        found = self.read(run).get("measures", {})
        return [name for name in run.measures if name not in found]

    def is_done(self, run):
        """Whether a run was trained, and measured whole."""
        return bool(self.read(run)) and not self.missing(run)

    def add_training(self, run, workdir):
        """Records how a run was trained, by epoch; nothing is measured yet."""
        settings = json.loads((workdir / "run.json").read_text())
        epochs = _epochs(workdir)
        config = settings["config"]
        record = {
            **_told(run),
            "version": mart_tf.__version__,
            "git_revision": settings["git_revision"],
            "date": _today(),
            "epochs": config["epochs"],
            "best": max(
                (int(e["epoch"]) for e in epochs if e.get("best") == "1"),
                default=None,
            ),
            "precision": settings["facts"]["policy"],
            "minutes": _minutes(workdir / "events.jsonl"),
            "measures": {},
            "by_epoch": _by_epoch(workdir),
        }
        self._write(run, record)

    def add_subsets(self, run, folder):
        """Records how many examples mart-label chose, if it has not been."""
        record = self.read(run)
        wrong = subsets.read(folder / subsets.WRONG)
        found = {
            "images": wrong.images,
            "wrong": len(wrong),
            "right": len(subsets.read(folder / subsets.RIGHT)),
        }
        if record.get("subsets") != found:
            self._write(run, record | {"subsets": found})

    def add_measure(self, run, name, report):
        """Records what a report says: accuracies in percent, by attack."""
        content = json.loads(report.read_text(encoding="utf-8"))
        record = self.read(run)
        record["measures"][name] = {
            "date": _today(),
            "flags": list(paper.MEASURES[name]),
            "images": content["natural"]["examples"],
            # SHA-256 of the weights; of the surrogate's where there is one.
            "weights": content["model"]["weights"],
            "surrogate": content["model"].get("surrogate", {}).get("weights"),
            "accuracy": {
                attack["name"]: round(100 * attack["accuracy"], 2)
                for attack in (content["natural"], *content["attacks"])
            },
            # Of ensembles: what their attacks leave, one after the other.
            "parts": {
                part["name"].split(": ")[-1]: round(100 * part["accuracy"], 2)
                for attack in content["attacks"]
                for part in attack["parts"]
            },
        }
        self._write(run, record)

    def _write(self, run, record):
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1) + "\n"
        files.replace_text(self._path(run), text)

    def _path(self, run):
        return self._folder / f"{run.name}.json"


def _epochs(workdir):
    with (workdir / "metrics.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _by_epoch(workdir):
    """What a run measured in each epoch, lists of numbers."""
    epochs = _epochs(workdir)
    return {
        name: [_number(epoch[name]) for epoch in epochs]
        for name in epochs[0]
        if name not in ("epoch", "best")
    }


def _minutes(path):
    """How long the processes of a run trained, all together."""
    spans = []
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        time = datetime.datetime.fromisoformat(event["time"])
        if event["event"] == "start" or not spans:
            spans.append([time, time])
        spans[-1][1] = time
    seconds = sum((end - start).total_seconds() for start, end in spans)
    return round(seconds / 60, 1)


def _told(run):
    """What a run is told, as its record has it."""
    return {
        "recipe": run.recipe,
        "seed": run.seed,
        "flags": list(run.flags),
        "settings": paper.settings(run),
    }


def _check_same(path, record, run):
    """Refuses the record of a run that would be another one now."""
    now = _told(run)
    changed = [key for key in now if record.get(key) != now[key]]
    if changed:
        then, now = _spelled(record, changed), _spelled(now, changed)
        raise ValueError(
            f"{path} is of a run with other settings: it had "
            f"{_listed(then - now)}, now {_listed(now - then)}. Restore the "
            "recipe, or remove this record, and what lies in ROOT of the run, "
            "to have it anew."
        )


def _spelled(told, keys):
    """Settings as a set, to be compared: of each whose it is, and its text."""
    if "settings" in keys:
        return {
            (run, flag)
            for run, settings in told.get("settings", {}).items()
            for flag in settings
        }
    return {("", f"{key} {told.get(key)}") for key in keys}


def _listed(settings):
    texts = sorted({text for _, text in settings})
    return ", ".join(texts) or "nothing in their place"


def _number(text):
    return float(text) if text else None


def _today():
    return datetime.datetime.now(datetime.UTC).date().isoformat()
