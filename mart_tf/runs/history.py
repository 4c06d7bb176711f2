"""`metrics.csv`: a row for each finished epoch."""

import csv
import io
import pathlib

from mart_tf import files
from mart_tf import limits

_NAME = "metrics.csv"


def rows(text):
    """The rows of a table, dicts of text with an "epoch" that is a number.

    Raises:
        ValueError: If it is no such table.
    """
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        table = list(reader)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if "epoch" not in (reader.fieldnames or ["epoch"]):
        raise ValueError("it has no column epoch")
    for number, row in enumerate(table, 1):
        # None: more values than names, or fewer.
        is_whole = None not in row and None not in row.values()
        if row.get("epoch") != str(number) or not is_whole:
            raise ValueError(f"row {number} is not that of epoch {number}")
    return table


def text(table):
    """The table of rows, which may have different columns."""
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in table for name in row))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue()


def read(path):
    """The rows that lie in a workdir; none where there is no file.

    Raises:
        ValueError: If the file is damaged.
    """
    file = pathlib.Path(path, _NAME)
    if not file.exists():
        return []
    try:
        return rows(limits.read_text(file))
    except ValueError as error:
        raise _damaged(file, error) from error


def columns(path):
    """The values in a workdir: a list of numbers for each column.

    NaN stands where a row has no value; "epoch" and "best" are whole numbers.

    Raises:
        ValueError: If the file is damaged.
    """
    table = read(path)
    try:
        return {
            name: [_number(name, row.get(name, "")) for row in table]
            for name in (table[0] if table else ())
        }
    except ValueError as error:
        raise _damaged(pathlib.Path(path, _NAME), error) from error


def _number(name, text):
    if name in ("epoch", "best"):
        return int(text)
    return float(text or "nan")


def _damaged(file, error):
    return ValueError(
        f"{file} is damaged ({error}); restore it, or start its run again, "
        "which writes it anew from the checkpoint."
    )


def restore(path, table):
    """Writes the rows of a checkpoint where the workdir has not the same."""
    try:
        found = limits.read_text(pathlib.Path(path, _NAME))
    except (OSError, ValueError):
        found = None
    if table and found != text(table):
        write(path, table)


def write(path, table):
    """Writes the rows into a workdir."""
    files.replace_text(pathlib.Path(path, _NAME), text(table))
