"""What an evaluation found: numbers, tables, a page, figures.

`report.json` holds the numbers as `report.schema.json` and docs/report.md
describe them, `outcomes.npz` what became of every example.
"""

import dataclasses
import datetime
import functools
import io
import json
import math
import os
import pathlib

import numpy as np
import rich.console

from mart_tf import bounds
from mart_tf import environment
from mart_tf import files
from mart_tf import threat as threat_model
from mart_tf.data import sampling
from mart_tf.reports import corruptions as common
from mart_tf.reports import masking
from mart_tf.reports import page
from mart_tf.reports import plots
from mart_tf.reports import results as evaluated
from mart_tf.reports import robustbench
from mart_tf.reports import saved
from mart_tf.reports import terminal

# The keys of report.json that differ between two runs of one evaluation.
TIMES = ("created", "seconds", "images_per_second")


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
        labels: Classes of the examples, int32 `[n]`, or None.
        sweep: One attack at several radii, a `Sweep`, or None.
        traces: The loss along attacks, a `Trace` each.
        corruptions: Accuracy on corrupted images, a `Corruptions`, or None.
        warnings: Sentences that a reader must not miss.
    """

    model: dict
    data: dict
    threat: threat_model.ThreatModel
    settings: dict
    results: tuple[evaluated.Result, ...]
    samples: evaluated.Samples | None = None
    labels: np.ndarray | None = None
    sweep: evaluated.Sweep | None = None
    traces: tuple[evaluated.Trace, ...] = ()
    corruptions: common.Corruptions | None = None
    warnings: tuple[str, ...] = ()

    @property
    def title(self):
        """The model, how many examples, and the threat model."""
        place = self.model.get("workdir") or self.model.get("path")
        return (
            f"{place or self.model['name']}: {self._examples}, "
            f"{self.threat.norm}, epsilon {bounds.spelled(self.threat.epsilon)}"
        )

    @property
    def _examples(self):
        """How many examples, and of which, in words."""
        count, of = self.data["examples"], self.data.get("of")
        split = self.data.get("split", "test")
        if split != "test":
            return f"{count} examples of {split}"
        if self.data["sample"] == sampling.ALL:
            return f"{count} examples"
        if self.data["sample"] == sampling.FIRST:
            return f"the first {count}{f' of {of}' if of else ''} examples"
        return f"{count} of {of} examples, a sample of all classes"

    @property
    def worst_case(self):
        """The `Result` of all attacks at once, example by example.

        Attacks of another norm, or without a radius, are no part of it.
        """
        together = np.logical_and.reduce(
            [result.outcome for result in self.results if result.norm is None]
        )
        return evaluated.Result(evaluated.WORST_CASE, together, access="none")

    @property
    def rows(self):
        """All results, the worst case last."""
        return (*self.results, self.worst_case)

    @property
    def accuracy(self) -> dict[str, float]:
        """Accuracy by name: "natural", every attack, "worst_case"."""
        return {result.name: result.accuracy for result in self.rows}

    @property
    def outcomes(self):
        """Correctness of every example by name: bool arrays `[n]`."""
        return {result.name: result.outcome for result in self.rows}

    @functools.cached_property
    def signs(self):
        """The signs of gradient masking, a tuple of `masking.Sign`."""
        return masking.signs(self, self._chance)

    @property
    def _chance(self):
        """The accuracy of the best answer that is the same for all images."""
        if self.labels is None:
            return 1.0 / self.data["classes"]
        return np.bincount(self.labels).max() / len(self.labels)

    def as_json(self):
        """The content of report.json."""
        natural, *attacks, worst_case = (
            result.as_json(self.labels, self.data["classes"])
            for result in self.rows
        )
        return _plain(
            {
                "schema_version": saved.SCHEMA_VERSION,
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
                "worst_case": worst_case,
                "sweep": self.sweep and self.sweep.as_json(),
                "traces": [trace.as_json() for trace in self.traces],
                "corruptions": self.corruptions and self.corruptions.as_json(),
                "signs": [dataclasses.asdict(sign) for sign in self.signs],
                "warnings": self.warnings,
            }
        )

    def as_arrays(self):
        """The content of outcomes.npz, a dict of arrays."""
        arrays, names, parents = {}, [], []

        def add(results, parent):
            for result in results:
                key, number = f"r{len(names)}", len(names)
                names.append(result.name)
                parents.append(parent)
                arrays[f"{key}_outcome"] = result.outcome
                for kind in ("broken_after", "distances"):
                    if getattr(result, kind) is not None:
                        arrays[f"{key}_{kind}"] = getattr(result, kind)
                add(result.parts, number)

        add(self.rows, -1)
        arrays["names"] = np.array(names)
        arrays["parents"] = np.array(parents, np.int32)
        if self.labels is not None:
            arrays["labels"] = self.labels
        if self.sweep is not None:
            arrays["sweep_epsilons"] = np.array(self.sweep.epsilons)
            arrays["sweep_outcomes"] = self.sweep.outcomes
        return arrays

    @property
    def file_names(self) -> list[str]:
        """The names of the files that `save` writes."""
        return [
            *(f"{name}.png" for name in plots.figure_names(self)),
            "outcomes.npz",
            "report.html",
            "report.md",
            saved.FILE,
        ]

    def save(self, directory: str | os.PathLike) -> pathlib.Path:
        """Writes all files of the report, or none.

        report.json, outcomes.npz, report.html, report.md and the figures
        replace those of an earlier report; other files stay, among them a
        robustbench.json that its authors have filled in.

        Args:
            directory: Where the files go; made if it is not there.

        Returns:
            The directory, a `pathlib.Path`.

        Raises:
            OSError: If it cannot be written.
        """
        content = self.as_json()
        drawings = plots.drawings(self)
        arrays = io.BytesIO()
        np.savez_compressed(arrays, **self.as_arrays())
        text = {
            "report.html": page.html(self, drawings, content),
            "report.md": page.markdown(self, drawings),
            "report.json": json.dumps(content, indent=2, allow_nan=False)
            + "\n",
        }
        figures = {f"{drawing.name}.png": drawing.png for drawing in drawings}
        stale = [f"{name}.png" for name in plots.NAMES]
        if robustbench.is_stale(pathlib.Path(directory, robustbench.FILE)):
            stale.append(robustbench.FILE)
        # report.json comes last: who finds it finds the rest.
        return files.write_together(
            directory,
            figures
            | {"outcomes.npz": arrays.getvalue()}
            | {name: value.encode() for name, value in text.items()},
            stale=stale,
        )

    def __str__(self):
        console = rich.console.Console(
            file=io.StringIO(), width=80, color_system=None
        )
        console.print(terminal.Result(self))
        lines = console.file.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines).strip("\n")

    def __rich__(self):
        return terminal.Result(self)

    def _repr_html_(self):
        drawings = plots.drawings(self)
        return page.html(self, drawings, self.as_json(), whole=False)


def _plain(value):
    """A value as JSON has it: no arrays, and null for NaN and infinity.

    What JSON does not know, such as a path, is a text.
    """
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    known = value is None or isinstance(value, str | int | float)
    return value if known else str(value)
