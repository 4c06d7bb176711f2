"""How a report reads: as Markdown, as a web page.

The web page is one file that asks for nothing else: the figures are inside.
"""

import collections

from mart_tf import bounds
from mart_tf import markup
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

HEADINGS = ("attack", "accuracy", "95 % interval", "seconds", "images/s")
_MARKS = {"passed": "✓", "failed": "✗", "not tested": "–"}
_FACTS = ("model", "data", "threat_model", "settings", "versions")


def markdown(report, drawings):
    """The content of report.md.

    Args:
        report: A `Report`.
        drawings: Its `sheet.Drawing`s, whose files stand beside the page.
    """
    rows = [
        [f"{'&emsp;' * depth}{markup.escaped(first)}", *others]
        for depth, label, result in results.unfolded(report.rows)
        for first, *others in [cells(label, result)]
    ]
    parts = [
        f"# {markup.escaped(report.title)}",
        *(f"**Warning:** {markup.escaped(text)}" for text in report.warnings),
        DEFINITIONS,
        markup.table(HEADINGS, rows, "---:"),
        *map(markup.escaped, distances(report)),
    ]
    if report.signs:
        signs = [
            [
                sign.verdict,
                markup.escaped(sign.question),
                markup.escaped(sign.evidence),
            ]
            for sign in report.signs
        ]
        parts += [
            f"## {verdicts(report.signs)}",
            markup.table(("sign", "question", "evidence"), signs, "---"),
        ]
    if report.corruptions:
        headings, rows = report.corruptions.table()
        parts += [
            f"## {markup.escaped(report.corruptions.title)}",
            markup.table(
                headings,
                [[markup.escaped(name), *cells] for name, *cells in rows],
                "---:",
            ),
        ]
    parts += [
        f"![{markup.escaped(drawing.alt)}]({drawing.name}.png)"
        for drawing in drawings
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
        epsilon=bounds.spelled(report.threat.epsilon),
        content=content,
        definitions=DEFINITIONS,
        rows=[
            (depth, result, cells(label, result))
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
        verdicts=verdicts(report.signs),
        marks=_MARKS,
        facts={
            heading.replace("_", " ").capitalize(): [
                (key, [template.said(value)])
                for key, value in content[heading].items()
            ]
            for heading in _FACTS
        },
    )


def cells(label, result):
    lower, upper = result.interval
    return (
        label,
        bounds.percentage(result.accuracy),
        f"{100 * lower:.1f} to {100 * upper:.1f}",
        "" if result.seconds is None else f"{result.seconds:.1f}",
        "" if result.rate is None else _rate(result.rate),
    )


def _rate(rate):
    return f"{rate:.3g}" if rate < 10 else f"{rate:.0f}"


def verdicts(signs):
    """How many signs have which verdict, in words."""
    counts = collections.Counter(sign.verdict for sign in signs)
    said = ", ".join(f"{counts[key]} {key}" for key in _MARKS if counts[key])
    return f"Signs of gradient masking: {said or 'none tested'}"


def distances(report):
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
