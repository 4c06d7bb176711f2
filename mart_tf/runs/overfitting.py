"""Robust accuracy that falls while training goes on: pure functions of rows.

TensorFlow is not imported here: a program shows how a run is without it.
"""

from typing import NamedTuple

# The robust accuracy of one batch of training, where no split is held out.
OF_BATCH = "batch_robust_accuracy"

# A fall to below this share of the best is no noise.
_CATASTROPHIC = 0.5
# Standard errors of an accuracy beyond which a difference is none.
_ERRORS = 2.0


class Watched(NamedTuple):
    """The accuracy of each epoch that tells of overfitting.

    Attributes:
        column: Of `metrics.csv`.
        other: The column that falls with it where training diverges, and
            stays where only robustness is lost.
        images: How many the first is of.
        where: Which these are, in words.
    """

    column: str
    other: str
    images: int
    where: str


def watched(config, name):
    """What is `Watched` in a run.

    Args:
        config: Its resolved `Config`, the validation images counted.
        name: The accuracy that its defense selects by.
    """
    if config.validation_images:
        column, other = f"val_{name}", "val_natural_accuracy"
        images, where = config.validation_images, "the validation split"
    else:
        # Under the attack of training.
        column, other = OF_BATCH, name
        images, where = config.batch_size, "the first batch of training"
    return Watched(column, other, images, where)


def accuracies(rows, name):
    """An accuracy of each epoch that has it: floats in [0, 1].

    Args:
        rows: Those of `metrics.csv`, dicts of text.
        name: A column, such as "val_robust_accuracy".
    """
    return [float(row[name]) for row in rows if row.get(name)]


def is_stopped(values, patience):
    """Whether so many epochs passed since the best one.

    Args:
        values: As `accuracies` gives them.
        patience: Number of epochs; 0: never.
    """
    if not patience or not values:
        return False
    return len(values) - 1 - values.index(max(values)) >= patience


def collapse(values, images, classes):
    """The first epoch that fell to less than half of the best before it.

    In training with one step of attack the network learns to withstand that
    step and nothing else, from one epoch to the next (Wong, Rice and Kolter,
    ICLR 2020). A network that has learned nothing yet has nothing to lose.
    Where the `Watched.other` accuracy falls so too, training has diverged.

    Args:
        values: As `accuracies` gives them.
        images: How many they are of.
        classes: Number of classes.

    Returns:
        How many epochs there were with it, or None.
    """

    def has_fallen(seen):
        best = max(seen)
        learned = best - 1.0 / classes > _ERRORS * _error(best, images)
        fell = seen[-1] < _CATASTROPHIC * best
        return learned and fell and gap(seen, images) > 0.0

    counts = range(1, len(values) + 1)
    return next((n for n in counts if has_fallen(values[:n])), None)


def gap(values, images):
    """How far the last epoch is below the best, 0 where it may be noise.

    Robust overfitting (Rice, Wong and Kolter, ICML 2020).

    Args:
        values: As `accuracies` gives them.
        images: How many the split has.
    """
    if not values:
        return 0.0
    best, last = max(values), values[-1]
    noise = _ERRORS * _error(best, images)
    return best - last if best - last > noise else 0.0


def is_first_gap(values, images):
    """Whether the last epoch has a `gap`, and none before it had."""
    counts = range(1, len(values))
    return gap(values, images) > 0.0 and not any(
        gap(values[:n], images) for n in counts
    )


def sentence(name, rows, images, last=""):
    """What is said of a `gap`.

    Overfitting is what training does not show: where accuracy in training is
    below that of the best epoch too, that is said in its place.

    Args:
        name: The accuracy that chooses the best epoch.
        rows: Those of `metrics.csv`, dicts of text.
        images: How many the validation split has.
        last: Words behind the number of the epoch.
    """
    values = accuracies(rows, f"val_{name}")
    best = values.index(max(values))
    training = accuracies(rows, name)
    fell = 0.0
    if len(training) == len(values):
        fell = training[best] - training[-1]
    kind = "Robust overfitting" if "robust" in name else "Overfitting"
    too = ""
    if fell > 0.0:
        kind = f"{name.replace('_', ' ').capitalize()} fell"
        too = f", and {100 * fell:.1f} in training"
    return (
        f"{kind}: epoch {len(values)}{last} is "
        f"{100 * gap(values, images):.1f} points below the best, epoch "
        f"{best + 1}, on the validation split{too}."
    )


def _error(accuracy, images):
    """The standard error of an accuracy on so many images."""
    return (accuracy * (1.0 - accuracy) / images) ** 0.5
