"""Learning-rate schedules by epoch, epochs counted from 1 as papers do."""

import keras

from mart_tf import options
from mart_tf import training


def constant(learning_rate, steps_per_epoch, epochs):
    """The same learning rate throughout."""
    return learning_rate


def piecewise(
    learning_rate,
    steps_per_epoch,
    epochs,
    at: tuple[int, ...] = (75, 90),
    factor: float = 0.1,
):
    """The learning rate times `factor` from each epoch of `at` on.

    Args:
        learning_rate: That of the first epoch, above 0.
        steps_per_epoch: Training steps in an epoch.
        epochs: Epochs of the run; epochs of `at` beyond it have no effect.
        at: Epochs, counted from 1, that begin with a lower rate; rising.
        factor: What the rate is multiplied by at each, above 0.

    Returns:
        A `keras.optimizers.schedules.PiecewiseConstantDecay`.

    Raises:
        ValueError: If `at` does not rise from 2 on or factor is not above 0.
    """
    rising = all(a < b for a, b in zip(at, at[1:], strict=False))
    if not (rising and at[0] >= 2 and factor > 0):
        raise ValueError(
            f"The schedule piecewise has at={'+'.join(map(str, at))} and "
            f"factor={factor:g}; expected rising epochs from 2 on, such as "
            "at=75+90, and a factor above 0."
        )
    # Keras keeps a value up to and including its boundary step, from 0.
    boundaries = [(epoch - 1) * steps_per_epoch - 1 for epoch in at]
    rates = [learning_rate * factor**i for i in range(len(at) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)


def create(spec, learning_rate, steps_per_epoch, epochs):
    """The schedule of a spec such as "piecewise:at=75+90"."""
    resolved = options.resolve(
        spec, training.SCHEDULES, "schedule", training.SCHEDULE_RESERVED
    )
    return options.load(training.SCHEDULES[resolved.name])(
        learning_rate, steps_per_epoch, epochs, **resolved.options
    )
