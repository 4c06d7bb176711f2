"""What an evaluation found: a table, a JSON file, a page, two figures."""

import dataclasses
import datetime
import importlib.metadata
import io
import json
import math
import os
import pathlib
import tempfile

import numpy as np
import rich.box
import rich.console
import rich.table

from mart_tf.evaluation import plots
from mart_tf.threat import ThreatModel

# Raised when a key of report.json changes its meaning or goes.
SCHEMA_VERSION = 1

WORST_CASE = "worst_case"

_PACKAGES = ("mart-tf", "tensorflow", "keras", "numpy", "cleverhans")

_DEFINITIONS = (
    "Accuracy is over all examples: one misclassified without attack counts "
    "as broken. Every attack starts from all naturally correct examples and "
    "breaks one as soon as any of its iterates is misclassified. The worst "
    "case is right under all attacks at once, example by example. Intervals "
    "are Wilson's, 95 %."
)


@dataclasses.dataclass(frozen=True)
class Result:
    """Accuracy under one attack, or without.

    Args:
        name: The attack's spec as the user wrote it, "natural", or
            "worst_case".
        outcome: bool `[n]`: which of all examples are classified correctly.
        seconds: Wall time, compilation included; None if nothing was run.
        attacked: Number of examples that went through the network.
        parameters: Every setting of the attack.
    """

    name: str
    outcome: np.ndarray
    seconds: float | None = None
    attacked: int = 0
    parameters: dict = dataclasses.field(default_factory=dict)

    @property
    def accuracy(self):
        """The share of all examples that are classified correctly."""
        return float(self.outcome.mean())

    @property
    def interval(self):
        """The 95 % confidence interval of the accuracy (Wilson, 1927)."""
        return wilson(int(self.outcome.sum()), len(self.outcome))

    @property
    def rate(self):
        """Attacked images per second."""
        return self.attacked / self.seconds if self.seconds else None

    def as_json(self):
        """The result as it stands in report.json."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "accuracy": self.accuracy,
            "correct": int(self.outcome.sum()),
            "examples": len(self.outcome),
            "confidence_interval_95": list(self.interval),
            "attacked": self.attacked,
            "seconds": self.seconds,
            "images_per_second": self.rate,
        }


@dataclasses.dataclass(frozen=True)
class Samples:
    """Some examples of one attack, for the figure: broken ones first."""

    attack: str
    accuracy: float
    natural: np.ndarray
    adversarial: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray

    @classmethod
    def choose(cls, result, images, labels, outcome, count=8):
        """Up to `count` of an attack's examples, half of them broken."""
        broken = np.flatnonzero(outcome.broken)
        standing = np.flatnonzero(~outcome.broken)
        some = max(count // 2, count - len(standing))
        rows = np.concatenate([broken[:some], standing])[:count]
        return cls(
            result.name,
            result.accuracy,
            images[rows],
            outcome.adversarial[rows],
            labels[rows],
            outcome.predictions[rows],
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What `evaluate_robustness` returns; prints as a table.

    Args:
        model: What was evaluated: name, number of parameters, outputs.
        data: On what: number of examples, image shape, classes.
        threat: The `ThreatModel`.
        settings: Seed, batch size, precision.
        results: A `Result` for "natural" first, then one per attack.
        samples: Examples of the strongest attack, or None.
    """

    model: dict
    data: dict
    threat: ThreatModel
    settings: dict
    results: tuple[Result, ...]
    samples: Samples | None = None

    @property
    def worst_case(self):
        """The `Result` of all attacks at once, example by example."""
        together = np.logical_and.reduce([r.outcome for r in self.results])
        return Result(WORST_CASE, together)

    @property
    def rows(self):
        """All results, the worst case last."""
        return (*self.results, self.worst_case)

    @property
    def accuracy(self):
        """Accuracy by name: "natural", every attack, "worst_case"."""
        return {result.name: result.accuracy for result in self.rows}

    @property
    def outcomes(self):
        """Correctness of every example by name: bool arrays `[n]`."""
        return {result.name: result.outcome for result in self.rows}

    def as_json(self):
        """The content of report.json."""
        natural, *attacks = [result.as_json() for result in self.results]
        return {
            "schema_version": SCHEMA_VERSION,
            "created": datetime.datetime.now(datetime.UTC).isoformat(
                timespec="seconds"
            ),
            "versions": _versions(),
            "model": self.model,
            "data": self.data,
            "threat_model": dataclasses.asdict(self.threat),
            "settings": self.settings,
            "natural": natural,
            "attacks": attacks,
            "worst_case": self.worst_case.as_json(),
        }

    def table(self):
        """The results as a `rich` table."""
        table = rich.table.Table(
            "attack", title=self._title(), box=rich.box.SIMPLE
        )
        for heading in ("accuracy", "95 % interval", "seconds", "images/s"):
            table.add_column(heading, justify="right", no_wrap=True)
        for result in self.rows:
            table.add_row(*_cells(result))
        return table

    def save(self, directory):
        """Writes report.json, report.md and the figures, all or none.

        Everything is written beside the directory first and then moved in,
        over an earlier report's files; other files stay.

        Args:
            directory: Where the files go; made if it is not there.

        Returns:
            The directory, a `pathlib.Path`.

        Raises:
            OSError: If it cannot be written.
        """
        directory = pathlib.Path(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=directory.parent, prefix=f".{directory.name}-"
        ) as partial:
            partial = pathlib.Path(partial)
            plots.accuracy(self.rows, self._title(), partial / "accuracy.png")
            if self.samples is not None:
                plots.examples(
                    self.samples,
                    self.threat,
                    self.data["class_names"],
                    partial / "examples.png",
                )
            (partial / "report.md").write_text(
                self._markdown(), encoding="utf-8"
            )
            (partial / "report.json").write_text(
                json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8"
            )
            directory.mkdir(exist_ok=True)
            for path in partial.iterdir():
                os.replace(path, directory / path.name)
        return directory

    def __str__(self):
        return _text(self.table())

    def __rich__(self):
        return self.table()

    def _title(self):
        threat = self.threat
        return (
            f"{self.model['name']}: {self.data['examples']} examples, "
            f"{threat.norm}, epsilon {threat.epsilon:.4g}"
        )

    def _markdown(self):
        headings = ["attack", "accuracy", "95 % interval", "seconds"]
        headings.append("images/s")
        lines = [
            f"# {self._title()}",
            "",
            _DEFINITIONS,
            "",
            f"| {' | '.join(headings)} |",
            f"|---|{'---:|' * (len(headings) - 1)}",
            *(f"| {' | '.join(_cells(result))} |" for result in self.rows),
            "",
            "![Accuracy under each attack](accuracy.png)",
        ]
        if self.samples is not None:
            lines.append("![Natural and adversarial examples](examples.png)")
        return "\n".join(lines) + "\n"


def compare(reports):
    """A `rich` table of several reports' accuracies side by side.

    Args:
        reports: A dict from heading to `Report`.
    """
    table = rich.table.Table("accuracy", box=rich.box.SIMPLE)
    for heading in reports:
        table.add_column(heading, justify="right", overflow="fold")
    names = dict.fromkeys(
        name for report in reports.values() for name in report.accuracy
    )
    for name in names:
        table.add_row(
            _label(name),
            *(
                f"{report.accuracy[name]:.2%}"
                for report in reports.values()
            ),
        )
    return table


def wilson(correct, examples, z=1.959964):
    """Wilson's score interval of a proportion (Wilson, 1927).

        (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    Args:
        correct: Number of successes.
        examples: Number of trials n, at least 1; p is their ratio.
        z: Standard deviations; the default gives 95 %.

    Returns:
        The lower and the upper bound, in [0, 1].
    """
    p = correct / examples
    scale = 1 + z**2 / examples
    middle = (p + z**2 / (2 * examples)) / scale
    half = math.sqrt(p * (1 - p) / examples + (z / (2 * examples)) ** 2)
    half *= z / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def _cells(result):
    lower, upper = result.interval
    return (
        _label(result.name),
        f"{result.accuracy:.2%}",
        f"{100 * lower:.1f} to {100 * upper:.1f}",
        "" if result.seconds is None else f"{result.seconds:.1f}",
        "" if result.rate is None else f"{result.rate:.0f}",
    )


def _label(name):
    return name.replace("_", " ") if name == WORST_CASE else name


def _versions():
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # mart_tf run from a clone that was not installed.
            continue
    return found


def _text(table):
    console = rich.console.Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue().rstrip()
