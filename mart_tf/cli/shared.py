"""Flags that several programs have, and flags that go alone."""

from mart_tf import choices
from mart_tf.cli import kinds


def checkpoint_flag(values):
    """Defines `--checkpoint`: which weights of a run a program takes."""
    return kinds.define(
        values,
        "checkpoint",
        "best",
        "best, last, best_raw or last_raw: weights of the epoch that was best "
        "on the validation split (without one the last), or of the last one: "
        "their average where --ema kept one, which best_raw and last_raw "
        "leave aside.",
        kinds.one_of(*choices.CHECKPOINTS),
    )


def data_flags(values):
    """Defines `--data_dir` and `--download` of a program that reads a run."""
    data_dir = kinds.define(
        values,
        "data_dir",
        None,
        "Where TFDS data lies; default: as for the run.",
        kinds.path,
    )
    download = kinds.define(
        values,
        "download",
        False,
        "Let TFDS download data that is not there.",
        kinds.truth,
    )
    return data_dir, download


def code_flag(values):
    """Defines `--allow_code` of a program that loads a run."""
    return kinds.define(
        values,
        "allow_code",
        False,
        "Let code run that the run itself names: its network, or its data "
        "set, of a module that lies here.",
        kinds.truth,
    )


def pixel_flags(values, default):
    """Defines `--pixel_min` and `--pixel_max` of a program that takes a model.

    Args:
        values: The program's flags.
        default: What holds where they are not given, of the end `{}`.

    Returns:
        A function from what a model says of its range, None or a pair, and
        who says it, to the pair that holds; see `_pixel_range`.
    """
    holders = [
        kinds.define(
            values,
            f"pixel_{end}",
            None,
            f"{which} value of a pixel as the model takes it; default: "
            f"{default.format(value)}.",
            kinds.number,
        )
        for end, which, value in [("min", "Least", 0), ("max", "Greatest", 1)]
    ]

    def held(known=None, by=None):
        return _pixel_range([holder.value for holder in holders], known, by)

    return held


def _pixel_range(given, known, by):
    """The pair that holds of the flags' and the model's, each None or not.

    Raises:
        ValueError: If a flag says otherwise than the model, or they make no
            range.
    """
    for name, value, own in zip(
        ("min", "max"), given, known or given, strict=True
    ):
        if value not in (None, own):
            raise ValueError(
                f"--pixel_{name} is {value:g}, and {by} takes pixels from "
                f"{known[0]:g} to {known[1]:g}; leave it out."
            )
    defaults = known or (0.0, 1.0)
    low, high = (
        default if value is None else value
        for value, default in zip(given, defaults, strict=True)
    )
    choices.check_pixels("--pixel_min", "--pixel_max", low, high)
    return low, high


def check_alone(values, name, *others):
    """Refuses flags that say nothing beside another."""
    for flag in values:
        if values[flag].present and flag not in (name, *others, "flagfile"):
            raise ValueError(
                f"--{flag} says nothing beside --{name}, which takes "
                f"{' and '.join(f'--{other}' for other in others)} alone; "
                "leave it out."
            )
