"""Several reports in one table and one figure, as in Table 2 of the paper.

In compare.md rows are the models, columns the natural accuracy and the
attacks, the worst case last; a terminal has models across, attacks down. Where
two models answer different questions, such as one about another threat model,
that is said.
"""

import csv
import io
import json

from mart_tf import files
from mart_tf import markup
from mart_tf.reports import plots
from mart_tf.reports import rows
from mart_tf.reports import saved
from mart_tf.reports import sheet
from mart_tf.reports import template
from mart_tf.reports import terminal

# What `save_comparison` writes.
FILES = (
    "compare.png",
    "compare.md",
    "compare.csv",
    "compare.json",
    "compare.html",
)

# More models than these make no figure that can be read.
_DRAWN = 12


def load(path):
    """Reads a report.json that can be compared.

    Args, result and errors are those of `saved.load`.
    """
    content = saved.load(path)
    try:
        rows.Row.of("", content)
    except saved.DAMAGE as error:
        raise saved.damaged(path) from error
    return content


def compare(reports, settings=None):
    """A table for `rich` to print: models across, attacks down.

    Accuracies in %, a dash where an attack was not run, the best worst case
    first. The best of a row is bold where all models have one threat model,
    data and attack. Runs that differ in the seed alone are one model, of means
    and standard deviations.

    Args:
        reports: A dict from heading to `Report`, or to what `load` returned.
        settings: By heading what training was told, plain values by name:
            those that differ are columns.

    Raises:
        ValueError: If there is none.
    """
    comparison = rows.Comparison.of(reports, settings)
    models = [
        (_named(comparison, heading), values, best)
        for heading, values, best in comparison.cells(spread="\n± ")
    ]
    return terminal.Comparison(comparison.columns, models, comparison.notes)


def _named(comparison, heading):
    """A model's heading, and its settings that differ."""
    told = comparison.told(comparison.rows[heading])
    if not told:
        return heading
    listed = ", ".join(f"{name} {text}" for name, text in told.items())
    return f"{heading} ({listed})"


def save_comparison(reports, directory, settings=None):
    """Writes compare.html, .md, .csv, .json and .png, all or none.

    Args:
        reports: As in `compare`.
        directory: Where the files go; made if it is not there.
        settings: As in `compare`.

    Returns:
        The directory, a `pathlib.Path`.

    Raises:
        ValueError: If there is no report.
        OSError: If the files cannot be written.
    """
    comparison = rows.Comparison.of(reports, settings)
    shown = dict(list(comparison.rows.items())[:_DRAWN])
    heading = "Accuracy under each attack"
    if len(shown) < len(comparison.rows):
        heading += f", the {_DRAWN} models with the best worst case"
    drawing = sheet.draw(
        "compare",
        heading,
        plots.models,
        comparison.columns,
        {key: row.accuracies for key, row in shown.items()},
        {key: row.deviations for key, row in shown.items()},
    )
    texts = {
        "compare.md": _markdown(comparison, drawing),
        "compare.csv": _csv(comparison),
        "compare.json": _json(comparison),
        "compare.html": _html(comparison, drawing),
    }
    return files.write_together(
        directory,
        {"compare.png": drawing.png}
        | {name: text.encode() for name, text in texts.items()},
    )


def _told(comparison, heading, absent=rows.ABSENT):
    """A row's cells of the settings that differ."""
    told = comparison.told(comparison.rows[heading])
    return [told.get(name, absent) for name in comparison.told_headings]


def _markdown(comparison, drawing):
    lines = [
        [
            *map(markup.escaped, [heading, *_told(comparison, heading)]),
            *(
                f"**{value}**" if first else value
                for value, first in zip(values, best, strict=True)
            ),
        ]
        for heading, values, best in comparison.cells()
    ]
    headings = [*comparison.told_headings, *comparison.columns]
    headings = ["model", *map(markup.escaped, headings)]
    parts = [
        "Accuracy in %.",
        markup.table(headings, lines, "---:"),
        *map(markup.escaped, comparison.notes),
        f"![{markup.escaped(drawing.alt)}](compare.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _html(comparison, drawing):
    told = comparison.told_headings
    return template.rendered(
        "compare.html.jinja",
        [drawing],
        headings=["model", *told, *comparison.columns],
        told=len(told),
        rows=[
            (
                heading,
                _told(comparison, heading),
                list(zip(values, best, strict=True)),
            )
            for heading, values, best in comparison.cells()
        ],
        notes=comparison.notes,
        together={
            heading: row.runs
            for heading, row in comparison.rows.items()
            if len(row.runs) > 1
        },
        columns=comparison.columns,
    )


def _csv(comparison):
    """Accuracies in [0, 1], and standard deviations beside them."""
    columns = comparison.columns
    some = any(row.deviations for row in comparison.rows.values())
    names = ["model", "runs", *comparison.told_headings, *columns]
    if some:
        names += [f"{name} (standard deviation)" for name in columns]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for heading, row in comparison.rows.items():
        cells = [heading, len(row.runs), *_told(comparison, heading, "")]
        for values in [row.accuracies, *([row.deviations] if some else [])]:
            cells += [
                f"{values[name]:.6g}" if name in values else ""
                for name in columns
            ]
        writer.writerow(cells)
    return stream.getvalue()


def _json(comparison):
    """The same with every run."""
    lines = [
        {
            "model": heading,
            "threat_model": row.threat,
            "data": row.data,
            "settings": {
                name: row.settings.get(name) for name in comparison.settings
            },
            "accuracy": row.accuracies,
            "standard_deviation": row.deviations or None,
            "runs": row.runs,
        }
        for heading, row in comparison.rows.items()
    ]
    content = {"rows": lines, "notes": comparison.notes}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
