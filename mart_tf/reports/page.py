"""How a report reads: in the terminal, as Markdown, as a web page.

The web page is one file that asks for nothing else: the figures are inside.
"""

import collections

import rich.box
import rich.console
import rich.table
import rich.text

from mart_tf.reports import results
from mart_tf.reports import template

DEFINITIONS = (
    "Accuracy is over all examples: one misclassified without attack counts "
    "as broken. Every attack starts from all naturally correct examples and "
    "breaks one as soon as any of its iterates is misclassified (CleverHans's "
    "and those made on a surrogate: the last one); the attacks "
    "of an ensemble, indented, get what the earlier ones left. The worst case "
    "is right under all attacks at once, example by example; an attack that "
    "looks for the least distance, marked with its norm, is no part of it. "
    "Intervals are Wilson's, 95 %."
)

_HEADINGS = ("attack", "accuracy", "95 % interval", "seconds", "images/s")
_STYLES = {"passed": "green", "failed": "bold red", "not tested": "dim"}
_MARKS = {"passed": "✓", "failed": "✗", "not tested": "–"}
_FACTS = ("model", "data", "threat_model", "settings", "versions")

_ESCAPES = {"&": "&amp;", "<": "&lt;", "|": "\\|", "[": "\\[", "]": "\\]"}


def terminal(report):
    """The results, distances, signs and warnings, for `rich` to print."""
    table = rich.table.Table(
        title=rich.text.Text(report.title), box=rich.box.SIMPLE
    )
    table.add_column(_HEADINGS[0], overflow="fold")
    for heading in _HEADINGS[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for depth, label, result in results.unfolded(report.rows):
        first, *others = _cells(label, result)
        # Text, because a name in brackets is no markup.
        table.add_row(rich.text.Text("  " * depth + first), *others)
    signs = rich.table.Table(title=_verdicts(report.signs), box=rich.box.SIMPLE)
    signs.add_column("sign", no_wrap=True)
    signs.add_column("question", ratio=2, overflow="fold")
    signs.add_column("evidence", ratio=3, overflow="fold")
    for sign in report.signs:
        signs.add_row(
            rich.text.Text(sign.verdict, _STYLES[sign.verdict]),
            rich.text.Text(sign.question),
            rich.text.Text(sign.evidence),
        )
    notes = [
        *(rich.text.Text(text) for text in _distances(report)),
        *(
            rich.text.Text(f"Warning: {warning}", "yellow")
            for warning in report.warnings
        ),
    ]
    return rich.console.Group(table, *([signs] if report.signs else []), *notes)


def markdown(report, drawings):
    """The content of report.md.

    Args:
        report: A `Report`.
        drawings: Its `sheet.Drawing`s, whose files stand beside the page.
    """
    rows = [
        [f"{'&emsp;' * depth}{escaped(first)}", *others]
        for depth, label, result in results.unfolded(report.rows)
        for first, *others in [_cells(label, result)]
    ]
    parts = [
        f"# {escaped(report.title)}",
        *(f"**Warning:** {escaped(text)}" for text in report.warnings),
        DEFINITIONS,
        pipes(_HEADINGS, rows, "---:"),
        *map(escaped, _distances(report)),
    ]
    if report.signs:
        signs = [
            [sign.verdict, escaped(sign.question), escaped(sign.evidence)]
            for sign in report.signs
        ]
        parts += [
            f"## {_verdicts(report.signs)}",
            pipes(("sign", "question", "evidence"), signs, "---"),
        ]
    parts += [
        f"![{escaped(drawing.alt)}]({drawing.name}.png)" for drawing in drawings
    ]
    return "\n\n".join(parts) + "\n"


def html(report, drawings, content, whole=True):
    """The content of report.html, or the part of it that a notebook shows.

    Args:
        report: A `Report`.
        drawings: Its `sheet.Drawing`s, which are embedded.
        content: What its `as_json` returned.
        whole: Whether it is a page, or stands inside one.
    """
    unfolded = list(results.unfolded(report.rows))
    return template.rendered(
        "report.html.jinja",
        drawings,
        whole=whole,
        report=report,
        content=content,
        definitions=DEFINITIONS,
        rows=[
            (depth, result, _cells(label, result))
            for depth, label, result in unfolded
        ],
        distances=[
            _distance_cells(result)
            for _, _, result in unfolded
            if result.distances is not None
        ],
        parameters=[
            (result.name, [template.said(result.parameters)])
            for _, _, result in unfolded
            if result.parameters
        ],
        verdicts=_verdicts(report.signs),
        marks=_MARKS,
        facts={
            heading.replace("_", " ").capitalize(): [
                (key, [template.said(value)])
                for key, value in content[heading].items()
            ]
            for heading in _FACTS
        },
    )


def _cells(label, result):
    lower, upper = result.interval
    return (
        label,
        f"{result.accuracy:.2%}",
        f"{100 * lower:.1f} to {100 * upper:.1f}",
        "" if result.seconds is None else f"{result.seconds:.1f}",
        "" if result.rate is None else f"{result.rate:.0f}",
    )


def _verdicts(signs):
    """How many signs have which verdict, in words."""
    counts = collections.Counter(sign.verdict for sign in signs)
    said = ", ".join(f"{counts[key]} {key}" for key in _STYLES if counts[key])
    return f"Signs of gradient masking: {said or 'none tested'}"


def _distances(report):
    """A sentence for each attack that minimises the distance."""
    for _, _, result in results.unfolded(report.results):
        summary = result.distance_summary
        if summary is None:
            continue
        some = f"{result.name}: {summary['found']} adversarial examples found"
        if summary["found"]:
            some += (
                f", at {result.norm} distances from {summary['min']:.4g} to "
                f"{summary['max']:.4g}, median {summary['median']:.4g}, mean "
                f"{summary['mean']:.4g}"
            )
        yield f"{some}; none found for {summary['not_found']}."


def _distance_cells(result):
    summary = result.distance_summary
    numbers = [
        "" if summary[key] is None else f"{summary[key]:.4g}"
        for key in ("min", "median", "mean", "max")
    ]
    return (
        result.name,
        [result.norm, summary["found"], summary["not_found"], *numbers],
    )


def pipes(headings, rows, alignment):
    """A table of Markdown; the alignment is of all columns but the first."""
    rule = ["---", *[alignment] * (len(headings) - 1)]
    lines = [headings, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text):
    """A text of a user inside Markdown: no table, no tag, one line."""
    for character, instead in _ESCAPES.items():
        text = text.replace(character, instead)
    return " ".join(text.split())
