"""How reports read on a terminal: tables no wider than it, results last."""

import dataclasses

import rich.box
import rich.table
import rich.text

from mart_tf import screen
from mart_tf.reports import masking
from mart_tf.reports import page
from mart_tf.reports import results
from mart_tf.reports import sheet

# Columns that the other cells of a row of results take, and of an accuracy.
_BESIDE_ATTACK = 48
_ACCURACY = len("100.00")
_LEAST_ATTACK = 14
# A longer name stands below the table.
_LONGEST_NAME = 16


class Result:
    """A report, for `rich` to print: warnings, signs, then the table.

    Args:
        report: A `Report`.
    """

    def __init__(self, report):
        self._report = report

    def __rich_console__(self, console, options):
        report, width = self._report, options.max_width
        for sentence in page.distances(report):
            yield _text(sentence, width)
        for warning in report.warnings:
            yield _text(f"Warning: {warning}", width, "yellow")
        if report.signs:
            yield _text(f"{page.verdicts(report.signs)}.", width)
        for sign in report.signs:
            if sign.verdict == masking.FAILED:
                said = f"Failed: {sign.question} {sign.evidence}"
                yield _text(said, width, "bold red")
        if report.corruptions:
            yield rich.text.Text()
            yield _text(f"{report.corruptions.title}:", width)
            yield rich.text.Text()
            yield _corruptions(report.corruptions)
        yield rich.text.Text()
        yield _text(report.title, width, "bold")
        yield rich.text.Text()
        attack, *headings = page.HEADINGS
        table = _table(attack, headings)
        room = max(_LEAST_ATTACK, width - _BESIDE_ATTACK)
        for depth, label, result in results.unfolded(report.rows):
            first, *others = page.cells(label, result)
            indent = "  " * depth
            lines = sheet.wrapped(first, room - len(indent)).split("\n")
            first = "\n".join(f"{indent}{line}" for line in lines)
            table.add_row(_cell(first), *others)
        yield table


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Models across, attacks down, for `rich` to print.

    Models are numbered, and named below, where their names are long; what
    does not fit side by side follows below.

    Args:
        attacks: The heading of each row.
        models: Of each model its name, its accuracies as texts, and which of
            them are the best.
        notes: Sentences that stand above.
    """

    attacks: list
    models: list
    notes: list

    def __rich_console__(self, console, options):
        width = options.max_width
        for note in self.notes:
            yield _text(note, width)
        room = min(max(map(len, self.attacks)), max(_LEAST_ATTACK, width // 3))
        # Two columns lie between each and the next.
        names = [name for name, _, _ in self.models]
        wide = [max(_ACCURACY, len(name)) + 2 for name in names]
        numbered = (
            max(map(len, names)) > _LONGEST_NAME or room + sum(wide) > width
        )
        each = len(names)
        if numbered:
            each = max(1, (width - room) // (_ACCURACY + 2))
            names = [str(number + 1) for number in range(len(names))]
        for first in range(0, len(names), each):
            yield rich.text.Text()
            yield self._block(names, slice(first, first + each), room)
        if numbered:
            yield rich.text.Text()
            for number, (name, _, _) in zip(names, self.models, strict=True):
                lines = sheet.wrapped(name, width - len(number) - 2)
                indent = " " * (len(number) + 2)
                text = lines.replace("\n", f"\n{indent}")
                yield _cell(f"{number}: {text}")

    def _block(self, names, some, room):
        table = _table("accuracy in %", names[some])
        for row, attack in enumerate(self.attacks):
            table.add_row(
                _cell(sheet.wrapped(attack, room)),
                *(
                    rich.text.Text(values[row], "bold" if best[row] else "")
                    for _, values, best in self.models[some]
                ),
            )
        return table


def _corruptions(corruptions):
    (first, *others), rows = corruptions.table()
    table = _table(first, others)
    for name, *cells in rows:
        table.add_row(_cell(name), *cells)
    return table


def _table(first, others):
    table = rich.table.Table(
        box=rich.box.SIMPLE,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column(_cell(first), no_wrap=True)
    for heading in others:
        table.add_column(_cell(heading), justify="right", no_wrap=True)
    return table


def _cell(text):
    """Text, because a name in brackets is no markup."""
    return rich.text.Text(screen.printable(text))


def _text(text, width, style=""):
    return rich.text.Text(screen.wrapped(text, width), style)
