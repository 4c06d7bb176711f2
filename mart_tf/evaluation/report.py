"""What an evaluation found: a table, a JSON file, a page, two figures."""

import dataclasses
import datetime
import io
import json
import os
import pathlib
import tempfile

import numpy as np
import rich.box
import rich.console
import rich.table

from mart_tf import environment
from mart_tf import threat as threat_model
from mart_tf.evaluation import plots
from mart_tf.evaluation import results as evaluated

# Raised when a key of report.json changes its meaning or goes.
SCHEMA_VERSION = 1

_DEFINITIONS = (
    "Accuracy is over all examples: one misclassified without attack counts "
    "as broken. Every attack starts from all naturally correct examples and "
    "breaks one as soon as any of its iterates is misclassified. The worst "
    "case is right under all attacks at once, example by example. Intervals "
    "are Wilson's, 95 %."
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
    threat: threat_model.ThreatModel
    settings: dict
    results: tuple[evaluated.Result, ...]
    samples: evaluated.Samples | None = None

    @property
    def worst_case(self):
        """The `Result` of all attacks at once, example by example."""
        together = np.logical_and.reduce([r.outcome for r in self.results])
        return evaluated.Result(evaluated.WORST_CASE, together)

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
            "versions": environment.versions(),
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
            # An earlier report's figure would belong to no report.
            (directory / "examples.png").unlink(missing_ok=True)
            for path in partial.iterdir():
                os.replace(path, directory / path.name)
        return directory

    def __str__(self):
        return _text(self.table())

    def __rich__(self):
        return self.table()

    def _title(self):
        name = self.model.get("workdir", self.model["name"])
        return (
            f"{name}: {self.data['examples']} examples, {_radius(self.threat)}"
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
    # Accuracies of two threat models side by side say little.
    table.add_row(
        "threat model", *(_radius(report.threat) for report in reports.values())
    )
    labels = {
        result.name: result.label
        for report in reports.values()
        for result in report.rows
    }
    for name, label in labels.items():
        accuracies = [report.accuracy[name] for report in reports.values()]
        table.add_row(label, *(f"{value:.2%}" for value in accuracies))
    return table


def _radius(threat):
    return f"{threat.norm}, epsilon {threat.epsilon:.4g}"


def _cells(result):
    lower, upper = result.interval
    return (
        result.label,
        f"{result.accuracy:.2%}",
        f"{100 * lower:.1f} to {100 * upper:.1f}",
        "" if result.seconds is None else f"{result.seconds:.1f}",
        "" if result.rate is None else f"{result.rate:.0f}",
    )


def _text(table):
    console = rich.console.Console(file=io.StringIO(), width=80, markup=False)
    console.print(table)
    return console.file.getvalue().rstrip()
