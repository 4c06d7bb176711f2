"""The figures of a report that are curves: epsilon, steps, loss."""

import numpy as np

from mart_tf import bounds
from mart_tf.reports import results
from mart_tf.reports import sheet

_DASHES = ("-", "--", "-.", ":")


def epsilon(figure, report):
    """A curve: accuracy under one attack at growing radii."""
    sweep = report.sweep
    axes = figure.subplots()
    natural = report.results[0]
    # Without room to move there is no attack.
    epsilons = [0.0, *sweep.epsilons]
    outcomes = [natural.outcome, *sweep.outcomes]
    values = np.array([100 * outcome.mean() for outcome in outcomes])
    intervals = 100 * np.array(
        [
            results.wilson(int(outcome.sum()), len(outcome))
            for outcome in outcomes
        ]
    )
    axes.fill_between(epsilons, *intervals.T, color=sheet.ROBUST, alpha=0.4)
    axes.plot(epsilons, values, color=sheet.NATURAL, marker="o")
    axes.axvline(report.threat.epsilon, color=sheet.WORST, linestyle="--")
    axes.set_xlabel(
        f"epsilon ({report.threat.norm}), in units of the pixels "
        f"({report.threat.pixel_min:g} to {report.threat.pixel_max:g})\n"
        "dashed: that of the threat model"
    )
    axes.set_ylabel(f"accuracy in % under\n{sheet.wrapped(sweep.attack, 40)}")
    axes.set_ylim(0, 101)
    sheet.title(figure, report)
    return sheet.listed(
        f"Accuracy in % under {sweep.attack} by epsilon",
        [bounds.spelled(epsilon) for epsilon in epsilons],
        values,
    )


def steps(figure, report):
    """Step curves: accuracy after so many steps of each attack."""
    from matplotlib import ticker

    axes = figure.subplots()
    attacks = of_many_steps(report)
    for number, result in enumerate(attacks):
        steps, values = _after_steps(result)
        axes.step(
            steps,
            100 * values,
            where="post",
            label=f"{sheet.wrapped(result.name, 40)}: "
            f"{bounds.percent(values[-1], 1)} %",
            **_line(number),
        )
    last = max(_last_step(result) for result in attacks)
    axes.set_xscale("symlog", linthresh=1, linscale=0.3)
    ticks = [0, *(m * 10**k for k in range(8) for m in (1, 2, 5))]
    axes.set_xticks([tick for tick in ticks if tick <= last])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(_plain_number))
    axes.set_xlim(0, last)
    axes.set_xlabel("steps of the attack (queries of a query attack)")
    axes.set_ylabel("accuracy in %")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    sheet.title(figure, report)
    return sheet.listed(
        "Accuracy in % after the last step",
        [result.name for result in attacks],
        [100 * result.accuracy for result in attacks],
    )


def loss(figure, report):
    """Curves: mean cross-entropy at the iterates of each attack."""
    from matplotlib import ticker

    axes = figure.subplots()
    ends = []
    for number, trace in enumerate(of_many_losses(report)):
        losses = np.asarray(trace.losses, np.float64)
        axes.plot(
            range(len(losses)),
            np.where(np.isfinite(losses), losses, np.nan),
            label=f"{sheet.wrapped(trace.attack, 40)} "
            f"({trace.examples} examples)",
            marker="." if len(losses) < 30 else None,
            **_line(number),
        )
        ends.append(
            f"{trace.attack} from {losses[0]:.3g} to {losses[-1]:.3g} over "
            f"{len(losses)} iterates"
        )
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.set_xlabel("steps of the attack")
    axes.set_ylabel("mean cross-entropy in nats")
    axes.set_ylim(bottom=0.0)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    sheet.title(figure, report)
    return f"Mean cross-entropy in nats: {'; '.join(ends)}."


def _line(number):
    return {
        "color": sheet.SEVERAL[number % len(sheet.SEVERAL)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "linewidth": 1.8,
    }


def _plain_number(value, _):
    return f"{value:g}"


def of_many_steps(report):
    """The results that have a curve over their steps."""
    return [
        result
        for result in report.results
        if result.broken_after is not None
        and result.norm is None
        # One made on a surrogate is tried after its last step alone.
        and result.access != "surrogate"
        and _last_step(result) > 1
    ]


def of_many_losses(report):
    """The traces of more than one iterate."""
    return [trace for trace in report.traces if len(trace.losses) > 1]


def _last_step(result):
    """The steps that were taken, or as many as are known of.

    CleverHans's attacks, which cannot be watched, know of none.
    """
    steps = result.parameters.get("steps", 0)
    restarts = result.parameters.get("restarts", 1)
    return max(int(result.broken_after.max()), steps * restarts)


def _after_steps(result):
    """Where the accuracy falls, and the accuracy from there on."""
    broken = np.sort(result.broken_after[result.broken_after >= 0])
    steps = np.unique([0, *broken, _last_step(result)])
    fallen = np.searchsorted(broken, steps, side="right")
    return steps, 1.0 - fallen / len(result.outcome)
