"""Figures 1 and 2 of what `reproduce.py` has found: their csv, and drawn."""

import csv
import io

import paper

from mart_tf.reports import sheet

NAMES = ("figure1", "figure2")


def curves(records, part):
    """A csv of robust accuracy by epoch, a column for each run of a figure."""
    runs = [run for run in paper.runs() if part in run.parts]
    found = {run.row: records.read(run) for run in runs}
    columns = {
        row: record["by_epoch"]["val_robust_accuracy"]
        for row, record in found.items()
        if record
    }
    if not columns:
        return None
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["epoch", *columns])
    for epoch in range(max(map(len, columns.values()))):
        values = [c[epoch] if epoch < len(c) else "" for c in columns.values()]
        writer.writerow([epoch + 1, *values])
    return stream.getvalue()


def drawn(text):
    """A figure, PNG, of the csv that `curves` returns."""
    return sheet.draw("curves", "", _draw, text).png


def _draw(figure, text):
    names, *rows = csv.reader(io.StringIO(text))
    axes = figure.subplots()
    epochs = [int(row[0]) for row in rows]
    for place, name in enumerate(names[1:], 1):
        axes.plot(
            epochs,
            [100 * float(row[place] or "nan") for row in rows],
            label=name,
            color=sheet.SEVERAL[(place - 1) % len(sheet.SEVERAL)],
            linestyle="--" if place == 1 else "-",
        )
    axes.set_xlabel("epoch")
    # Of validation: as many steps as the attack of training has.
    axes.set_ylabel("PGD-10, validation split, %")
    axes.legend(loc="lower right", ncols=2)
    return ", ".join(names[1:])
