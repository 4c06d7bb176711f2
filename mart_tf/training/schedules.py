"""Learning-rate schedules by epoch, epochs counted from 1 as papers do.

A warm-up of w epochs takes W = w times the steps of an epoch, rounded to a
whole step. It rises linearly from 0: step s, counted from 0, has the share
s / W of the full rate, so that the first step has rate 0 and step W is the
first at the full rate.
"""

import keras

from mart_tf import options
from mart_tf.training import schedule_names


def constant(learning_rate, steps_per_epoch, epochs):
    """The same learning rate throughout."""
    return learning_rate


def piecewise(
    learning_rate,
    steps_per_epoch,
    epochs,
    at: tuple[int, ...] = (75, 90),
    factor: float = 0.1,
    warmup_epochs: float = 0.0,
):
    """The learning rate times `factor` from each epoch of `at` on.

    Args:
        learning_rate: That of the first epoch after the warm-up, above 0.
        steps_per_epoch: Training steps in an epoch.
        epochs: Epochs of the run; epochs of `at` beyond it have no effect.
        at: Epochs, counted from 1, that begin with a lower rate; rising.
        factor: What the rate is multiplied by at each, above 0.
        warmup_epochs: Epochs of linear warm-up, at least 0; it ends before
            the first epoch of `at`.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        ValueError: If `at` does not rise from 2 on, factor is not above 0, or
            the warm-up is negative or too long.
    """
    rising = all(a < b for a, b in zip(at, at[1:], strict=False))
    if not (at and rising and at[0] >= 2 and factor > 0):
        raise ValueError(
            f"The schedule piecewise has at={'+'.join(map(str, at))} and "
            f"factor={factor:g}; expected rising epochs from 2 on, such as "
            "at=75+90, and a factor above 0."
        )
    warmup_steps = _warmup_steps(
        "piecewise",
        warmup_epochs,
        steps_per_epoch,
        at[0] - 1,
        "those before the rate first falls",
    )
    # Keras keeps a value up to and including its boundary step, from 0.
    boundaries = [(epoch - 1) * steps_per_epoch - 1 for epoch in at]
    rates = [learning_rate * factor**i for i in range(len(at) + 1)]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        boundaries, rates
    )
    return Warmup(schedule, warmup_steps) if warmup_steps else schedule


def cosine(
    learning_rate,
    steps_per_epoch,
    epochs,
    warmup_epochs: float = 0.0,
    final: float = 0.0,
    warmup: float = 0.0,
):
    """Half a cosine, step by step (Loshchilov and Hutter, ICLR 2017).

        rate(s) = r (final + (1 - final) (1 + cos(pi t)) / 2),
        t = (s - W) / (T - 1 - W)

    with r the learning rate, s the step counted from 0, W the steps of the
    warm-up and T those of the run: r at step W, final * r at the last step.
    The code of RST (Carmon et al., NeurIPS 2019) changes the rate once an
    epoch, r (1 + cos(pi (epoch - 1) / epochs)) / 2, and so ends above 0.

    Args:
        learning_rate: The full rate r, above 0.
        steps_per_epoch: Training steps in an epoch.
        epochs: Epochs of the run, T / steps_per_epoch.
        warmup_epochs: Epochs of linear warm-up, at least 0, fewer than those
            of the run.
        final: The last step's rate as a share of r, in [0, 1].
        warmup: Share of the run's steps that is linear warm-up, at least 0
            and below 1, in the place of `warmup_epochs`.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: If the warm-up is negative, too long or given twice, or
            `final` lies outside [0, 1].
    """
    if not 0.0 <= warmup < 1.0:
        raise ValueError(
            f"The schedule cosine has warmup={warmup:g}; expected a share of "
            "the run, at least 0 and below 1."
        )
    if warmup and warmup_epochs:
        raise ValueError(
            f"The schedule cosine has warmup={warmup:g}, a share of the run, "
            f"and warmup_epochs={warmup_epochs:g}; give one."
        )
    if not 0.0 <= final <= 1.0:
        raise ValueError(
            f"The schedule cosine has final={final:g}; expected a share of "
            "the learning rate in [0, 1]."
        )
    warmup_steps = _warmup_steps(
        "cosine",
        warmup_epochs or warmup * epochs,
        steps_per_epoch,
        epochs,
        "those of the run",
    )
    decay_steps = epochs * steps_per_epoch - 1 - warmup_steps
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else learning_rate,
        # With no step after the one at the full rate, any length will do.
        max(1, decay_steps),
        alpha=final,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def onecycle(learning_rate, steps_per_epoch, epochs, peak: float = 0.4):
    """Up to the full rate and down again, in straight lines.

        rate(s) = r max(0, min(1, (s + 1) / P, (T - s) / (T - P)))

    with r the learning rate, s the step counted from 0, T the steps of the
    run and P = peak T: one cycle of Smith (2017), as Wong et al. (ICLR 2020)
    train with one step of attack. Where training goes on after step T, as of
    a saved model that is fitted again, the rate stays 0.

    Args:
        learning_rate: The full rate r, above 0.
        steps_per_epoch: Training steps in an epoch.
        epochs: Epochs of the run, T / steps_per_epoch.
        peak: Share of the run after which the rate is full, above 0 and
            below 1.

    Returns:
        A Keras schedule.

    Raises:
        ValueError: If `peak` lies outside its range.
    """
    if not 0.0 < peak < 1.0:
        raise ValueError(
            f"The schedule onecycle has peak={peak:g}; expected a share of the "
            "run above 0 and below 1."
        )
    return OneCycle(learning_rate, epochs * steps_per_epoch, peak)


@keras.saving.register_keras_serializable("mart_tf")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """See `onecycle`.

    Args:
        learning_rate: The full rate.
        steps: Steps of the run.
        peak: Share of them after which the rate is full.
    """

    def __init__(self, learning_rate, steps, peak):
        super().__init__()
        self.learning_rate = learning_rate
        self.steps = steps
        self.peak = peak

    def __call__(self, step):
        done = keras.ops.cast(step, "float32")
        rising = (done + 1.0) / (self.peak * self.steps)
        falling = (self.steps - done) / ((1.0 - self.peak) * self.steps)
        # Where P is no whole number both are above 1 at one step.
        share = keras.ops.minimum(keras.ops.minimum(rising, falling), 1.0)
        return self.learning_rate * keras.ops.maximum(share, 0.0)

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "peak": self.peak,
        }


@keras.saving.register_keras_serializable("mart_tf")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, its first steps rising linearly from 0.

        rate(s) = schedule(s) * min(1, s / steps)

    Args:
        schedule: A `keras.optimizers.schedules.LearningRateSchedule`.
        steps: Steps of the warm-up, at least 1.
    """

    def __init__(self, schedule, steps):
        super().__init__()
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        rate = self.schedule(step)
        share = keras.ops.cast(step, rate.dtype) / self.steps
        return rate * keras.ops.minimum(share, 1.0)

    def get_config(self):
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["steps"])


def create(spec, learning_rate, steps_per_epoch, epochs):
    """The schedule of a spec such as "piecewise:at=75+90".

    A user's own is called in the same way: see `schedule_names.resolve`.
    """
    resolved = schedule_names.resolve(spec)
    return options.load(resolved.import_path)(
        learning_rate, steps_per_epoch, epochs, **resolved.options
    )


def _warmup_steps(name, warmup_epochs, steps_per_epoch, limit, meaning):
    if not 0.0 <= warmup_epochs < limit:
        raise ValueError(
            f"The schedule {name} has warmup_epochs={warmup_epochs:g}; "
            f"expected at least 0 and fewer than {limit} epochs, {meaning}."
        )
    return round(warmup_epochs * steps_per_epoch)
