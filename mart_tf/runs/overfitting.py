"""Accuracy on the validation split that falls while training goes on."""

import keras

# A fall to below this share of the best is no noise.
_CATASTROPHIC = 0.5
# Standard errors of an accuracy beyond which a difference is none.
_ERRORS = 2.0


def accuracies(rows, name):
    """What chooses the best epoch, of each: floats in [0, 1].

    Args:
        rows: Those of `metrics.csv`, dicts of text.
        name: An accuracy, such as "robust_accuracy".
    """
    return [float(row[f"val_{name}"]) for row in rows if f"val_{name}" in row]


def is_stopped(values, patience):
    """Whether so many epochs passed since the best one.

    Args:
        values: As `accuracies` gives them.
        patience: Number of epochs; 0: never.
    """
    if not patience or not values:
        return False
    return len(values) - 1 - values.index(max(values)) >= patience


def is_catastrophic(values, images, classes):
    """Whether the last epoch, and none before it, fell to half of the best.

    In training with one step of attack the network learns to withstand that
    step and nothing else, from one epoch to the next (Wong, Rice and Kolter,
    ICLR 2020). A network that has learned nothing yet has nothing to lose.

    Args:
        values: As `accuracies` gives them.
        images: How many the split has.
        classes: Number of classes.
    """

    def has_fallen(count):
        seen = values[:count]
        best = max(seen)
        learned = best - 1.0 / classes > _ERRORS * _error(best, images)
        fell = seen[-1] < _CATASTROPHIC * best
        return learned and fell and gap(seen, images) > 0.0

    earlier = any(has_fallen(count) for count in range(1, len(values)))
    return bool(values) and has_fallen(len(values)) and not earlier


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


def _error(accuracy, images):
    """The standard error of an accuracy on so many images."""
    return (accuracy * (1.0 - accuracy) / images) ** 0.5


class Overfitting(keras.callbacks.Callback):
    """Says when accuracy collapses, and stops a run that gains no more.

    Args:
        checkpoints: The run's `Checkpoints`, which have the epoch's row.
        patience: As of `is_stopped`.
        images, classes: As of `is_catastrophic`.
        say: Takes a sentence.
    """

    def __init__(self, checkpoints, patience, images, classes, say):
        super().__init__()
        self._checkpoints = checkpoints
        self._images, self._classes = images, classes
        self._patience = patience
        self._say = say

    def on_epoch_end(self, epoch, logs=None):
        name = self.model.defense.selects_by
        values = accuracies(self._checkpoints.rows, name)
        if is_catastrophic(values, self._images, self._classes):
            best = values.index(max(values))
            self._say(
                f"Catastrophic overfitting: {name.replace('_', ' ')} on the "
                f"validation split fell to {100 * values[-1]:.1f} %, from "
                f"{100 * values[best]:.1f} % in epoch {best + 1}, which is "
                "kept as the best. More attack steps prevent it; so may more "
                "noise of nfgsm, or a smaller learning rate."
            )
        if is_stopped(values, self._patience):
            self.model.stop_training = True
