"""Several reports in one table and one figure, as in Table 2 of the paper.

In compare.md rows are the models, columns the natural accuracy and the
attacks, the worst case last; a terminal has models across, attacks down. Where
two models answer different questions, such as one about another threat model,
that is said.
"""

import dataclasses
import math

from mart_tf import bounds
from mart_tf.reports import page
from mart_tf.reports import plots
from mart_tf.reports import report
from mart_tf.reports import saved
from mart_tf.reports import sheet
from mart_tf.reports import terminal

_ABSENT = "–"
_WORST = "worst case"


@dataclasses.dataclass(frozen=True)
class _Row:
    """What is compared of one report; dicts are by the column's heading."""

    threat: str
    data: str
    accuracies: dict
    parameters: dict

    @classmethod
    def of(cls, content):
        """The row of a report or of its report.json."""
        if isinstance(content, report.Report):
            content = content.as_json()
        natural, attacks = content["natural"], content["attacks"]
        threat, data = content["threat_model"], content["data"]
        accuracies = {"natural": float(natural["accuracy"])}
        for attack in attacks:
            accuracies[_label(attack)] = float(attack["accuracy"])
        accuracies[_WORST] = float(content["worst_case"]["accuracy"])
        return cls(
            f"{threat['norm']}, epsilon {bounds.spelled(threat['epsilon'])}, "
            f"pixels {threat['pixel_min']:g} to {threat['pixel_max']:g}",
            _data(data),
            accuracies,
            {_label(attack): attack["parameters"] for attack in attacks},
        )


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """Rows by heading, the columns in order, what must be said.

    `best` holds the greatest accuracy of each column whose accuracies answer
    one question.
    """

    rows: dict
    columns: list
    notes: list
    best: dict

    @classmethod
    def of(cls, reports):
        if not reports:
            raise ValueError("There is no report; expected one or more.")
        rows = {str(key): _Row.of(value) for key, value in reports.items()}
        columns = _merged([list(row.accuracies) for row in rows.values()])
        notes, same = [], True
        for kind, name in (("threat", "threat model"), ("data", "data")):
            words = {key: getattr(row, kind) for key, row in rows.items()}
            if len(set(words.values())) == 1:
                notes.append(f"The {name}: {next(iter(words.values()))}.")
                continue
            same = False
            each = "; ".join(f"{key}: {value}" for key, value in words.items())
            notes.append(f"The {name} is not the same. {each}.")
        shared = set.intersection(
            *(set(row.accuracies) for row in rows.values())
        )
        if shared != set(columns):
            shared.remove(_WORST)
            notes.append("The worst case is over the attacks of its own model.")
        # With another epsilon, steps have another size anyway.
        different = _set_differently(rows.values(), columns) if same else []
        if different:
            notes.append(f"Not with the same settings: {', '.join(different)}.")
        best = {
            column: max(row.accuracies[column] for row in rows.values())
            for column in shared.difference(different)
            if same and len(rows) > 1
        }
        return cls(rows, columns, notes, best)

    def cells(self):
        """Yields each heading, its accuracies in %, and which are best."""
        for heading, row in self.rows.items():
            values = [(name, row.accuracies.get(name)) for name in self.columns]
            yield (
                heading,
                [
                    _ABSENT if value is None else f"{100 * value:.2f}"
                    for _, value in values
                ],
                [
                    name in self.best and value == self.best[name]
                    for name, value in values
                ],
            )


def load(path):
    """Reads a report.json that can be compared.

    Args, result and errors are those of `saved.load`.
    """
    content = saved.load(path)
    try:
        _Row.of(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise saved.damaged(path) from error
    return content


def compare(reports):
    """A table for `rich` to print: models across, attacks down.

    Accuracies in %, a dash where an attack was not run. The best of a row is
    bold where all models have one threat model, data and attack.

    Args:
        reports: A dict from heading to `Report`, or to what `load` returned.

    Raises:
        ValueError: If there is none.
    """
    comparison = _Comparison.of(reports)
    return terminal.Comparison(
        comparison.columns, list(comparison.cells()), comparison.notes
    )


def save_comparison(reports, directory):
    """Writes compare.md and compare.png, both or neither.

    Args:
        reports: As in `compare`.
        directory: Where the files go; made if it is not there.

    Returns:
        The directory, a `pathlib.Path`.

    Raises:
        ValueError: If there is no report.
        OSError: If the files cannot be written.
    """
    comparison = _Comparison.of(reports)
    drawing = sheet.draw(
        "compare",
        "Accuracy under each attack",
        plots.models,
        comparison.columns,
        {key: row.accuracies for key, row in comparison.rows.items()},
    )
    rows = [
        [
            page.escaped(heading),
            *(
                f"**{value}**" if first else value
                for value, first in zip(values, best, strict=True)
            ),
        ]
        for heading, values, best in comparison.cells()
    ]
    headings = ["model", *map(page.escaped, comparison.columns)]
    parts = [
        "Accuracy in %.",
        page.pipes(headings, rows, "---:"),
        *map(page.escaped, comparison.notes),
        f"![{page.escaped(drawing.alt)}](compare.png)",
    ]
    text = "\n\n".join(parts) + "\n"
    return report.write_together(
        directory, {"compare.png": drawing.png, "compare.md": text.encode()}
    )


def _data(data):
    """What tells one set of examples from another."""
    parts = [data[key] for key in ("dataset", "split") if key in data]
    shape = "x".join(map(str, data["image_shape"]))
    parts.append(f"{data['examples']} examples of shape {shape}")
    if data.get("rows"):
        first = ", ".join(map(str, data["rows"][:3]))
        parts.append(f"a sample (rows {first}, ...)")
    return ", ".join([*parts, f"{data['classes']} classes"])


def _label(entry):
    """A result's name, with its norm if it keeps to no radius."""
    if entry["norm"] is None:
        return entry["name"]
    # An older report has it among the parameters alone.
    radius = entry.get("radius", entry["parameters"].get("radius", math.nan))
    radius = bounds.spelled(radius)
    return f"{entry['name']} ({entry['norm']}, radius {radius})"


def _merged(lists):
    """All names of several lists, in an order that keeps theirs."""
    merged = []
    for names in lists:
        place = 0
        for name in names:
            if name not in merged:
                merged.insert(place, name)
            place = merged.index(name) + 1
    merged.remove(_WORST)
    return [*merged, _WORST]


def _set_differently(rows, columns):
    """The attacks that ran with other parameters in another row."""
    different = []
    for column in columns:
        used = [
            row.parameters[column] for row in rows if column in row.parameters
        ]
        if any(parameters != used[0] for parameters in used):
            different.append(column)
    return different
