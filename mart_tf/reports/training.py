"""How a run was trained, epoch by epoch: one figure and one page.

Drawn of the numbers of metrics.csv alone, also while the run goes on;
TensorFlow is not imported.
"""

import math
from typing import NamedTuple

import numpy as np

from mart_tf import bounds
from mart_tf.reports import sheet
from mart_tf.reports import template

_NATURAL, _ROBUST = "natural_accuracy", "robust_accuracy"
# More epochs than these are a line without points.
_POINTS = 30


class Course(NamedTuple):
    """What is drawn of a run.

    Attributes:
        title: Of the page.
        history: Numbers by column of metrics.csv, at least one epoch.
        best: The epoch whose weights are the best, from 1; None where no
            validation split chose one.
        epochs: How many the run is to have.
        epsilon: Radius of the threat model.
        ramp: Epochs over which epsilon grows from 0; None where training
            attacks nothing.
        settings: Pairs of a name and a value, for the page.
    """

    title: str
    history: dict
    best: int | None
    epochs: int
    epsilon: float
    ramp: float | None
    settings: list


def drawing(course):
    """The figure of a `Course`, a `sheet.Drawing` named "curves"."""
    return sheet.draw("curves", "Training by epoch", _draw, course)


def html(course, figure):
    """The content of curves.html.

    Args:
        course: A `Course`.
        figure: Its `drawing`.
    """
    history = course.history
    names = [name for name in history if name not in ("epoch", "best")]
    return template.rendered(
        "curves.html.jinja",
        [figure],
        course=course,
        numbers=_numbers(course),
        sentences=sentences(course),
        names=names,
        rows=[
            (epoch, [_shown(history[name][place]) for name in names])
            for place, epoch in enumerate(history["epoch"])
        ],
        settings=[(n, [template.said(v)]) for n, v in course.settings],
    )


def sentences(course):
    """What the curves say, in words, a list.

    Args:
        course: A `Course`.
    """
    last = course.history["epoch"][-1]
    said = []
    if last < course.epochs:
        said.append(f"{last} of {course.epochs} epochs are finished.")
    if course.best is None:
        said.append("No validation split chose an epoch: the last one counts.")
        return said
    said.append(f"The best epoch is {course.best}.")
    places = {"best": course.best - 1, "last": last - 1}
    training, validation = (
        {
            where: _value(course, prefix + _ROBUST, place)
            for where, place in places.items()
        }
        for prefix in ("", "val_")
    )
    known = [*training.values(), *validation.values()]
    if course.best < last and not any(map(math.isnan, known)):
        said.append(
            "From there to the last, robust accuracy on the training images "
            f"went from {_percent(training['best'])} to "
            f"{_percent(training['last'])}, on the validation split from "
            f"{_percent(validation['best'])} to "
            f"{_percent(validation['last'])}. Where the first rises and the "
            "second falls, training overfits robustly (Rice et al., ICML 2020)."
        )
    return said


def _draw(figure, course):
    figure.set_figheight(8.4)
    accuracy, loss, rate = figure.subplots(
        3, sharex=True, height_ratios=[3, 1.6, 1.2]
    )
    epochs = np.array(course.history["epoch"])
    ends = _accuracies(accuracy, course, epochs)
    for name, label, line in [
        ("loss", "training", "--"),
        ("val_loss", "validation", "-"),
    ]:
        if name in course.history:
            values = course.history[name]
            loss.plot(epochs, values, line, color="black", label=label)
    loss.set_ylabel("loss")
    loss.legend(frameon=False, fontsize="small")
    _rates(rate, course, epochs)
    from matplotlib import ticker

    rate.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    rate.set_xlabel("epoch")
    rate.set_xlim(0, epochs[-1] + 0.5)
    if course.best is not None:
        for axes in (accuracy, loss, rate):
            axes.axvline(course.best, color="dimgray", linestyle=":")
    figure.suptitle(sheet.wrapped(course.title, 90), fontsize="medium")
    return " ".join(
        [
            sheet.listed(
                "Accuracy in % in the last epoch", ends, ends.values()
            ),
            *sentences(course),
        ]
    )


def _accuracies(axes, course, epochs):
    """Draws them; the last of each in %, by its name."""
    ends, lines = {}, {}
    mark = "." if len(epochs) <= _POINTS else None
    for name, colour in [(_NATURAL, sheet.NATURAL), (_ROBUST, sheet.WORST)]:
        for prefix, where, line in [
            ("", "training", "--"),
            ("val_", "validation", "-"),
        ]:
            if prefix + name not in course.history:
                continue
            values = 100 * np.array(course.history[prefix + name])
            label = f"{name.removesuffix('_accuracy')}, {where}"
            axes.plot(
                epochs, values, line, marker=mark, color=colour, label=label
            )
            ends[label], lines[prefix + name] = values[-1], values
    if {_ROBUST, f"val_{_ROBUST}"} <= set(lines):
        axes.fill_between(
            epochs,
            lines[f"val_{_ROBUST}"],
            lines[_ROBUST],
            where=lines[_ROBUST] > lines[f"val_{_ROBUST}"],
            color=sheet.WORST,
            alpha=0.15,
            linewidth=0,
            label="robust, above validation in training",
        )
    if course.best is not None:
        axes.text(course.best, 101, f"best: {course.best}", ha="center")
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy in %")
    if ends:
        axes.legend(frameon=False, fontsize="small", loc="best")
    return ends


def _rates(axes, course, epochs):
    """Learning rate and epsilon, if any, each with an axis of its own."""
    if "learning_rate" in course.history:
        rates = course.history["learning_rate"]
        # A warm-up begins at 0; a damaged file may have no number.
        highest = max(filter(math.isfinite, rates), default=0)
        axes.set_ylim(0, 1.15 * highest or 1)
        # That of an epoch's first step, over the epoch.
        axes.step([0, *epochs], [rates[0], *rates], color="black", where="pre")
    axes.set_ylabel("learning rate")
    if course.ramp is None:
        return
    other = axes.twinx()
    last = epochs[-1]
    grown = min(course.ramp, last)
    radius = course.epsilon * (grown / course.ramp if course.ramp else 1.0)
    other.plot(
        [0, grown, last],
        [0.0 if course.ramp else radius, radius, radius],
        linestyle="-.",
        color=sheet.WORST,
    )
    other.spines["right"].set_visible(True)
    other.set_ylabel("epsilon (dash-dotted)", color=sheet.WORST)
    other.set_ylim(0, 1.15 * course.epsilon)


def _numbers(course):
    """What stands on top of the page: heading, value, what it is of."""
    place = (course.best or course.history["epoch"][-1]) - 1
    of = f"epoch {place + 1}, {'the best' if course.best else 'the last'}"
    prefix, where = "val_", "validation"
    if course.best is None:
        prefix, where = "", "training"
    found = [
        (f"{heading} accuracy, {where}", _value(course, prefix + name, place))
        for heading, name in [("Natural", _NATURAL), ("Robust", _ROBUST)]
    ]
    shown = [(h, _percent(v), of) for h, v in found if not math.isnan(v)]
    epsilon = f"epsilon {bounds.spelled(course.epsilon)}"
    return [*shown, ("Threat model", epsilon, _reached(course))]


def _reached(course):
    """When training attacks with the whole epsilon, in a few words."""
    ramp, last = course.ramp, course.history["epoch"][-1]
    if ramp is None:
        return "nothing is attacked in training"
    if ramp > last:
        return f"{100 * last // ramp:.0f} % of it reached in epoch {last}"
    return f"reached after {ramp:g} epochs" if ramp else "from the first step"


def _value(course, name, place):
    values = course.history.get(name)
    return math.nan if values is None else values[place]


def _percent(value):
    return f"{bounds.percent(value, 1)} %"


def _shown(value):
    return "" if math.isnan(value) else f"{value:.4g}"
