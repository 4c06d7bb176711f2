"""The figures of a report, drawn without a display."""

import numpy as np

from mart_tf import bounds
from mart_tf.reports import curves
from mart_tf.reports import grid
from mart_tf.reports import results
from mart_tf.reports import sheet

# More classes than this are not told apart in one figure.
_CLASSES_SHOWN = 20

# Of the models of a comparison, beside their colours.
_HATCHES = ("", "//", "..", "xx")

# More than this do not fit below them in one line.
_LETTERS = 60


def figure_names(report):
    """The names of the figures that a report has the numbers for, a list."""
    return [name for name, (_, has, _) in _FIGURES.items() if has(report)]


def drawings(report):
    """All figures that a report has the numbers for.

    Args:
        report: A `Report`.

    Returns:
        A tuple of `sheet.Drawing`s.
    """
    shown = {name: _FIGURES[name] for name in figure_names(report)}
    return tuple(
        sheet.draw(name, heading, function, report)
        for name, (heading, _, function) in shown.items()
    )


def models(figure, columns, accuracies, deviations=None):
    """Groups of bars: a group for each column, in it a bar for each model.

    Args:
        figure: An empty matplotlib figure.
        columns: Names of the attacks.
        accuracies: By model a dict from column to accuracy; a column that is
            not there was not run.
        deviations: The same of standard deviations, which are drawn where
            there are any.

    Returns:
        The text that stands for it.
    """
    count = len(accuracies)
    figure.set_figheight(1.6 + len(columns) * (0.15 + 0.27 * count))
    axes = figure.subplots()
    height = 0.8 / count
    texts = []
    for number, (name, by_attack) in enumerate(accuracies.items()):
        values = np.array([100 * by_attack.get(key, np.nan) for key in columns])
        spread = (deviations or {}).get(name, {})
        spread = np.array([100 * spread.get(key, 0.0) for key in columns])
        places = np.arange(len(columns)) + height * (number - (count - 1) / 2)
        axes.barh(
            places,
            values,
            height,
            label=sheet.wrapped(name, 40),
            color=sheet.SEVERAL[number % len(sheet.SEVERAL)],
            hatch=_HATCHES[number % len(_HATCHES)],
            edgecolor="white",
            xerr=spread if spread.any() else None,
            error_kw={"elinewidth": 1, "capsize": 2},
        )
        for place, value, width in zip(places, values, spread, strict=True):
            missing = np.isnan(value)
            axes.text(
                1 if missing else value + width + 1,
                place,
                "not run" if missing else bounds.percent(value / 100, 1),
                verticalalignment="center",
                color="dimgray" if missing else "black",
            )
        texts.append(sheet.listed(name, columns, values))
    names = [sheet.wrapped(name, 36) for name in columns]
    axes.set_yticks(range(len(columns)), names)
    axes.set_ylim(len(columns) - 0.5, -0.5)
    axes.set_xlim(0, 110)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("accuracy in %")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return f"Accuracy in %. {' '.join(texts)}"


def _accuracy(figure, report):
    """Bars: accuracy under each attack, with intervals."""
    rows = report.rows
    figure.set_figheight(1.4 + 0.45 * len(rows))
    axes = figure.subplots()
    values = np.array([100 * result.accuracy for result in rows])
    lower, upper = 100 * np.array([result.interval for result in rows]).T
    bars = axes.barh(
        range(len(rows)),
        values,
        color=[sheet.NATURAL, *[sheet.ROBUST] * (len(rows) - 2), sheet.WORST],
        xerr=np.maximum([values - lower, upper - values], 0.0),
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    for bar, result in zip(bars, rows, strict=True):
        if result.norm is not None:
            bar.set(hatch="//", edgecolor="white")
    texts = [f" {bounds.percent(row.accuracy, 1)} %" for row in rows]
    axes.bar_label(bars, texts, padding=4)
    axes.axvline(values[-1], color=sheet.WORST, linestyle="--", linewidth=1.2)
    names = [sheet.wrapped(result.label, 36) for result in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(
        "accuracy in %, with its 95 % interval; dashed: the worst case"
    )
    sheet.title(figure, report)
    return sheet.listed("Accuracy in %", [row.label for row in rows], values)


def _classes(figure, report):
    """Pairs of bars: natural accuracy and worst case by class."""
    axes = figure.subplots()
    natural, worst = (
        100 * result.per_class(report.labels, report.data["classes"])
        for result in (report.results[0], report.worst_case)
    )
    # The weakest where there are too many; NaN sorts last.
    weakest = np.argsort(worst, kind="stable")[:_CLASSES_SHOWN]
    shown = np.sort(weakest)
    places = np.arange(len(shown))
    axes.bar(
        places - 0.2, natural[shown], 0.4, color=sheet.NATURAL, label="natural"
    )
    axes.bar(
        places + 0.2, worst[shown], 0.4, color=sheet.WORST, label="worst case"
    )
    for place in places[np.isnan(natural[shown])]:
        axes.text(place, 1, "none", ha="center", color="dimgray")
    names = [
        results.class_name(number, report.data.get("class_names"))
        for number in shown
    ]
    axes.set_xticks(places, [sheet.shortened(text, 16) for text in names])
    if sum(map(len, names)) > _LETTERS:
        axes.tick_params(axis="x", rotation=40)
        for text in axes.get_xticklabels():
            text.set(horizontalalignment="right", rotation_mode="anchor")
    axes.set_ylim(0, 101)
    axes.set_ylabel("accuracy in %")
    axes.set_xlabel(
        "class"
        if len(shown) == len(worst)
        else f"the {len(shown)} of {len(worst)} classes with the least worst "
        "case"
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    sheet.title(figure, report)
    return sheet.listed("Worst case in % by class", names, worst[shown])


def _examples(figure, report):
    """A grid of images: natural, adversarial, amplified difference."""
    return grid.draw(
        figure, report.samples, report.threat, report.data.get("class_names")
    )


# By file name: the heading, whether a report has the numbers, what draws it.
_FIGURES = {
    "accuracy": (
        "Accuracy under each attack",
        lambda report: True,
        _accuracy,
    ),
    "epsilon": (
        "Accuracy against epsilon",
        lambda report: report.sweep is not None,
        curves.epsilon,
    ),
    "steps": ("Accuracy against steps", curves.of_many_steps, curves.steps),
    "loss": (
        "Loss along the attack",
        curves.of_many_losses,
        curves.loss,
    ),
    "classes": (
        "Accuracy by class",
        lambda report: report.labels is not None,
        _classes,
    ),
    "examples": (
        "Natural and adversarial examples",
        lambda report: report.samples is not None,
        _examples,
    ),
}

# Every file that `drawings` may name.
NAMES = tuple(_FIGURES)
