"""`test[:1000]`: a split of a data set by name, or a part of one.

Checked without TensorFlow, numpy or the data.
"""

import re
from typing import NamedTuple

TEST = "test"
# What every data set is divided into.
OWN = ("train", "validation", TEST)

_NUMBER = r"(-?\d{1,12}%?)?"
_FORM = re.compile(rf"([A-Za-z]\w*)(\[{_NUMBER}:{_NUMBER}\])?", re.ASCII)


class Part(NamedTuple):
    """A split, or some rows of it.

    Attributes:
        text: As the user wrote it.
        name: Of the split.
        first, stop: Where the part begins and ends, as written: "10%"; None
            for the split's own end.
    """

    text: str
    name: str
    first: str | None
    stop: str | None

    @property
    def slug(self):
        """The part as a file's name holds it: "test-to1000"."""
        if self.first is None and self.stop is None:
            return self.name
        ends = f"{self.first or ''}to{self.stop or ''}"
        return f"{self.name}-{ends.replace('%', 'pct')}"

    def rows(self, count):
        """The first row, and one past the last.

        Args:
            count: How many the split has.

        Raises:
            ValueError: If these are none of them.
        """
        first, stop = (
            _row(self.first or "0", count),
            _row(self.stop or str(count), count),
        )
        if not 0 <= first < stop <= count:
            raise ValueError(
                f"--split={self.text} asks for the rows from {first} to "
                f"{stop} of a split of {count} images; expected some of them."
            )
        return first, stop


def parse(text):
    """The `Part` that a text names.

    Args:
        text: `test`, `test[:1000]`, `train[10%:20%]`, `train[-500:]`: as TFDS
            writes them.

    Raises:
        ValueError: If it has another form.
    """
    match = _FORM.fullmatch(text)
    if not match:
        raise ValueError(
            f"--split={text} is no split; expected a name such as train, or a "
            "part of one, such as test[:1000] or train[10%:20%]."
        )
    name, _, first, stop = match.groups()
    return Part(text, name, first, stop)


def select(dataset, part, held_out=False):
    """The split of a part, of a `Dataset`.

    Args:
        dataset: The `Dataset`.
        part: A `Part`.
        held_out: Whether `validation` is what a run held out, and not a split
            of TFDS's own by that name, which may be its test split.

    Raises:
        ValueError: If the data set has no such split or rows.
    """
    split = _other(dataset, part, held_out)
    if split is None:
        check_own(part, dataset.name)
        split = getattr(dataset, part.name)
    if not len(split):
        raise ValueError(
            f"--split={part.text} is empty: all images of {dataset.name} were "
            "trained on; expected train or test."
        )
    first, stop = part.rows(len(split))
    if (first, stop) == (0, len(split)):
        return split
    return split.select(range(first, stop))


def is_trained_on(dataset, part, held_out=False):
    """Whether a part's images are of the set that training images are of.

    Args:
        dataset, part, held_out: As of `select`.
    """
    is_carved = part.name in dataset.carved
    return is_carved and _other(dataset, part, held_out) is None


def _other(dataset, part, held_out):
    """A split of TFDS's own, which goes before the one that was carved."""
    carved = OWN if held_out else ("train", TEST)
    if dataset.others is None or part.name in carved:
        return None
    return dataset.others(part.name)


def check_own(part, name):
    """Refuses a split that no data set has.

    Raises:
        ValueError: With the name of the data set.
    """
    if part.name not in OWN:
        raise ValueError(
            f"{name} has no split {part.name!r}; expected one of: "
            f"{', '.join(OWN)}."
        )


def _row(text, count):
    percent = text.endswith("%")
    row = int(text.removesuffix("%"))
    if percent:
        row = round(row * count / 100)
    return row + count if text.startswith("-") else row
