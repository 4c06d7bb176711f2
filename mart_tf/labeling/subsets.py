"""Chosen training examples, in a file that a person can look at.

    # Training examples of a data set, one a line.
    # dataset: mnist
    # training images: 58000
    # rows below: 60000
    # picked by: runs/table2_mnist_standard, best weights, epoch 17
    row,label,predicted
    120,2,7

A row is the number of an example in the source's own training set, which may
hold more images than are trained on: a validation split is carved from it.
"""

import array
import csv
import dataclasses
import io
import os
import pathlib

import numpy as np

from mart_tf import files
from mart_tf import limits

# The two files of a folder: the paper's S- and S+.
WRONG, RIGHT = "wrong.csv", "right.csv"

_COLUMNS = ["row", "label", "predicted"]


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Some examples of one training set.

    Args:
        dataset: The data set's name.
        images: How many training images it has.
        bound: One more than the greatest row of a training image.
        picked_by: The network that picked them: its workdir and epoch, say.
        rows: Int64 `[n]`, rising, in `[0, bound)`.
        labels: Int64 `[n]`, the classes that the data set gives.
        predicted: Int64 `[n]`, the classes that the network predicted.
    """

    dataset: str
    images: int
    bound: int
    picked_by: str
    rows: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray

    def __len__(self):
        return len(self.rows)


def read(path):
    """The `Examples` of a file.

    Raises:
        ValueError: If the file is missing or damaged, or names an example
            twice or one that the data set does not have.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(
            f"There is no subset file {path}; expected one that mart-label "
            "--subsets wrote."
        )
    text = limits.read_text(path)
    try:
        return _parsed(io.StringIO(text, newline=""))
    except (ValueError, OverflowError, csv.Error) as error:
        raise ValueError(
            f"Subset file {path} is damaged ({error}); write it again with "
            "mart-label --subsets."
        ) from error


def check_data(path, examples, images, rows, dataset=None):
    """Refuses training data other than that which examples were picked from.

    Args:
        path: The examples' file, for the message.
        examples: The `Examples`.
        images: Number of training images.
        rows: One more than the greatest of their rows.
        dataset: Name of the data set, None for arrays.

    Raises:
        ValueError: If the name, the number of images or their rows differ.
    """
    if dataset in (None, examples.dataset) and images == examples.images:
        if rows == examples.bound:
            return
        raise ValueError(
            f"Subset file {path} counts rows below {examples.bound}, and the "
            f"training data rows below {rows}; expected the rows that the "
            'subset was picked by: {"image": images, "index": split.indices}.'
        )
    given = "the training data" if dataset is None else dataset
    raise ValueError(
        f"Subset file {path} is of {examples.dataset}, with {examples.images} "
        f"training images, and {given} has {images}; pick a subset of this "
        "data with mart-label --subsets."
    )


def check_folder(folder):
    """The folder as a path, once it is known that `write` can make it.

    Raises:
        ValueError: If something is there that is not an empty folder, or the
            folder above it cannot be written to.
    """
    folder = pathlib.Path(folder).expanduser()
    if os.path.lexists(folder) and not (
        folder.is_dir() and not any(folder.iterdir())
    ):
        raise ValueError(
            f"{folder} exists already, and is not overwritten; name a new "
            "folder for the subsets."
        )
    above = next(p for p in folder.absolute().parents if os.path.lexists(p))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(
            f"{folder} cannot be made, because {above} is not a folder that "
            "can be written to; name another."
        )
    return folder


def check_facts(**facts):
    """Refuses what a file could not say in a line of its own.

    Raises:
        ValueError: On what is no text, empty, or of several lines.
    """
    for name, text in facts.items():
        is_line = isinstance(text, str) and text.strip() and text.isprintable()
        if not is_line:
            raise ValueError(
                f"{name} is {text!r:.80}; expected one line of text, which is "
                "written into the files."
            )


def write(folder, wrong, right):
    """Writes WRONG and RIGHT into a new folder, both or neither.

    Args:
        folder: The folder, which may exist if it is empty.
        wrong: `Examples` that were misclassified, the paper's S-.
        right: As many that were not, its S+.

    Raises:
        ValueError: If `check_folder` refuses the folder.
    """
    files.write_together(
        check_folder(folder), {WRONG: _content(wrong), RIGHT: _content(right)}
    )


def _content(examples):
    file = io.StringIO(newline="")
    for line in [
        "Training examples of a data set, one a line.",
        f"dataset: {examples.dataset}",
        f"training images: {examples.images}",
        f"rows below: {examples.bound}",
        f"picked by: {examples.picked_by}",
    ]:
        file.write(f"# {line}\n")
    table = csv.writer(file, lineterminator="\n")
    table.writerow(_COLUMNS)
    columns = (examples.rows, examples.labels, examples.predicted)
    table.writerows(zip(*(c.tolist() for c in columns), strict=True))
    return file.getvalue().encode()


def _parsed(lines):
    facts = {}

    def rows():
        for line in lines:
            if line.startswith("#"):
                name, _, value = line[1:].partition(":")
                facts[name.strip()] = value.strip()
            else:
                yield line

    table = csv.reader(rows())
    if next(table, None) != _COLUMNS:
        raise ValueError(f"no line {','.join(_COLUMNS)}")
    rows, labels, predicted = _columns(table)
    bound = _whole(facts, "rows below")
    if rows[-1] >= bound or (np.diff(rows) <= 0).any():
        raise ValueError(
            f"its rows do not rise, or are not below {bound} as it says"
        )
    return Examples(
        dataset=_fact(facts, "dataset"),
        images=_whole(facts, "training images"),
        bound=bound,
        picked_by=_fact(facts, "picked by"),
        rows=rows,
        labels=labels,
        predicted=predicted,
    )


def _columns(table):
    numbers = array.array("q")
    for number, line in enumerate(table, start=1):
        if len(line) != len(_COLUMNS) or not all(map(_is_whole, line)):
            raise ValueError(
                f"example {number} is {','.join(line)[:80]!r}, not three whole "
                "numbers"
            )
        try:
            numbers.extend(map(int, line))
        except OverflowError:
            raise ValueError(
                f"example {number} is {','.join(line)[:80]!r}, too large"
            ) from None
    if not numbers:
        raise ValueError("no example")
    return np.array(numbers, np.int64).reshape(-1, len(_COLUMNS)).T


def _fact(facts, name):
    if not facts.get(name):
        raise ValueError(f"no line '# {name}: ...'")
    return facts[name]


def _whole(facts, name):
    value = _fact(facts, name)
    if not _is_whole(value):
        raise ValueError(f"{name} is {value[:80]!r}, not a whole number")
    return int(value)


def _is_whole(text):
    return text.isascii() and text.isdecimal()
