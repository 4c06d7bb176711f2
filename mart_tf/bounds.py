"""Numbers that a user may give: how they are read and written, their bounds.

Lower and upper bound stand in one place, so that whatever passes fits the
types that it is computed in: no int64 overflows, no float32 becomes infinite or
zero, and nothing is allocated that no run asks for.
"""

import dataclasses
import math
import numbers
import operator

# How far a number may go: its square still is a float32, and so is that of
# what has to lie above 0.
GREATEST = 1e12
LEAST = 1e-12
# What is nearer to 0 than this, and is not 0, float32 may take for it.
_NEAREST = 1e-30
# Two numbers that differ by no more, as a share, may be one in float32.
_ROUNDING = 1e-6

# Of a message: what a user wrote may be a whole file.
_SHOWN = 80


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `greatest`."""

    least: int
    greatest: int

    def __str__(self):
        return f"a whole number from {self.least} to {self.greatest}"

    def read(self, name, text):
        """The number that a text says.

        Args:
            name: How a message names it, such as "--epochs".
            text: What the user wrote.

        Raises:
            ValueError: If it says none, or one out of bounds.
        """
        try:
            # int() reads other scripts' digits too.
            value = int(text.encode("ascii"))
        except ValueError:
            raise ValueError(
                f"{name} is {shown(text)}; expected {self}."
            ) from None
        return self.check(name, value, text)

    def check(self, name, value, text=None):
        """The number itself.

        Raises:
            ValueError: If it is none, True among them, or out of bounds.
        """
        is_whole = isinstance(value, numbers.Integral)
        is_whole = is_whole and not isinstance(value, bool)
        if is_whole and self.least <= value <= self.greatest:
            return value
        given = f"{value!r}" if text is None else text.strip()
        raise ValueError(f"{name} is {cut(given)}; expected {self}.")


@dataclasses.dataclass(frozen=True)
class Real:
    """A number from `least` to `greatest`, also a fraction such as 8/255."""

    least: float = -GREATEST
    greatest: float = GREATEST

    def __str__(self):
        if self.least == LEAST:
            return f"a number above 0 and at most {self.greatest:g}"
        return f"a number from {self.least:g} to {self.greatest:g}"

    def read(self, name, text):
        """As `Whole.read`."""
        return self.check(name, number(name, text))

    def check(self, name, value):
        """As `Whole.check`; NaN is out of bounds."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ValueError(f"{name} is {value!r}; expected {self}.")
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not self.least <= value <= self.greatest:
            raise ValueError(f"{name} is {value:g}; expected {self}.")
        if value and abs(value) < _NEAREST:
            raise ValueError(
                f"{name} is {value:g}, which is 0 in float32; expected {self}, "
                "0 or not so near to it."
            )
        return value


# What is counted, and how long is waited for.
COUNT = Whole(1, 1_000_000)
# Steps of an attack, and what else multiplies them: each is a pass through the
# network, and a hundred thousand of them take days.
ATTACK_STEPS = Whole(1, 100_000)
ABOVE_ZERO = Real(LEAST)
AT_LEAST_ZERO = Real(0.0)
SHARE = Real(0.0, 1.0)

# Of an option of a spec without bounds of its own, by the type it is read as.
OF_TYPE = {"int": Whole(-(2**31) + 1, 2**31 - 1), "float": Real()}

# Options of specs, by name, whatever the spec is of.
OPTIONS = {
    **dict.fromkeys(
        (
            "binary_search_steps",
            "max_iterations",
            "nb_iter",
            "passes",
            "queries",
            "restarts",
            "steps",
            "targets",
        ),
        ATTACK_STEPS,
    ),
    # Images in one pass for each example.
    "samples": Whole(1, 10_000),
    "spsa_samples": Whole(1, 10_000),
    # Pixels: around an image, and of a side.
    "padding": Whole(1, 4096),
    "size": Whole(1, 4096),
    # Of RandAugment.
    "magnitude": Real(0.0, 10.0),
    "operations": Whole(1, 100),
    # Of defenses.
    "c_max": AT_LEAST_ZERO,
    "control_epochs": COUNT,
    "max_margin": ABOVE_ZERO,
    "min_epsilon": ABOVE_ZERO,
    "noise": AT_LEAST_ZERO,
    "regularization": AT_LEAST_ZERO,
    "regularized_fraction": SHARE,
    "step": ABOVE_ZERO,
    # Of updates.
    "from_epoch": COUNT,
    "gamma": Real(LEAST, 1.0),
    # Of schedules; a rate falls after the first epoch.
    "at": Whole(2, COUNT.greatest),
    "factor": ABOVE_ZERO,
    "final": SHARE,
    "peak": SHARE,
    "warmup": SHARE,
    "warmup_epochs": AT_LEAST_ZERO,
}


def number(name, text):
    """The number that a text says, such as 0.3 or 8/255, whatever its size.

    Raises:
        ValueError: If it says none.
    """
    try:
        return read_number(text)
    except ValueError:
        raise ValueError(
            f"{name} is {shown(text)}; expected a number, such as 0.3 or 8/255."
        ) from None


def read_number(text):
    """The number of "0.3" or "8/255", as the field writes a radius."""
    numerator, _, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except ZeroDivisionError:
        raise ValueError(text) from None


def spelled(radius):
    """A radius as the field writes it: 0.3, and 8/255 for 0.0313725...

    Args:
        radius: A number, of float64 or float32.
    """
    # Pixels go from 0 to 1, from -1 to 1, or to 255 in whole levels.
    levels = round(255 * radius) if abs(radius) <= 2 else 0
    for text in (f"{radius:.4g}", f"{levels}/255"):
        if math.isclose(read_number(text), radius, rel_tol=_ROUNDING):
            return text
    return f"{radius:g}"


def percent(share, places):
    """A share of 1 in %, as text: 100 and 0 stand for all and none alone.

    9,996 of 10,000 are 99.9 to one place, not 100.0.

    Args:
        share: A number from 0 to 1, or NaN.
        places: Digits behind the point.
    """
    value = 100.0 * float(share)
    if 0.0 < value < 100.0:
        least = 10.0**-places
        value = min(max(value, least), 100.0 - least)
    return f"{value:.{places}f}"


def percentage(share):
    """The same to two places, with its sign: 99.96%."""
    return f"{percent(share, 2)}%"


def shown(text):
    """What a user wrote in quotes, its beginning where it is long."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def cut(text):
    """The same without quotes."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def whole(name, value, least):
    """A whole number of at least `least`, or the one sentence that refuses."""
    try:
        # True is one for Python, and a slip of a user's.
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(
            f"{name} is {value!r}; expected a whole number of at least {least}."
        )
    return number


def pixel_range(given):
    """Least and greatest value of a pixel, as floats.

    Raises:
        ValueError: If it is no pair of numbers, the first below the second.
    """
    try:
        low, high = map(float, given)
    except (TypeError, ValueError, OverflowError):
        low, high = 0.0, 0.0
    # NaN is below nothing.
    if not -GREATEST <= low < high <= GREATEST:
        raise ValueError(
            f"The pixel range is {cut(repr(given))}; expected a least and a "
            "greater value, such as (0, 1)."
        )
    return low, high


def share(name, value):
    """A number above 0 and below 1.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, numbers.Real) or not 0.0 < value < 1.0:
        raise ValueError(
            f"{name} is {cut(repr(value))}; expected a number above 0 and "
            "below 1."
        )
    return value
