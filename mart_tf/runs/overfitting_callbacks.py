"""What watches, epoch by epoch, whether robust accuracy falls."""

import keras

from mart_tf import bounds
from mart_tf.runs import overfitting


class OfBatch(keras.callbacks.Callback):
    """Adds to the logs of an epoch the robust accuracy of one batch.

    It is measured as that of a validation split is: the network, or the
    average of its weights, in inference mode under PGD of `attack_steps`.
    Training does not see it.

    Args:
        batch: What `evaluate` takes, the same in each epoch.
    """

    def __init__(self, batch):
        super().__init__()
        self._batch = batch

    def on_epoch_end(self, epoch, logs=None):
        results = self.model.evaluate(
            self._batch, check_data=False, return_dict=True, verbose=0
        )
        logs[overfitting.OF_BATCH] = results["robust_accuracy"]


class Overfitting(keras.callbacks.Callback):
    """Says when accuracy collapses or falls, and stops a run that asks for it.

    Args:
        checkpoints: The run's `Checkpoints`, which have the epoch's row.
        config: Its resolved `Config`.
        classes: Number of classes.
        say: Takes a sentence.
    """

    def __init__(self, checkpoints, config, classes, say):
        super().__init__()
        self._checkpoints = checkpoints
        self._config = config
        self._classes = classes
        self._say = say

    def on_epoch_end(self, epoch, logs=None):
        config, rows = self._config, self._checkpoints.rows
        name = self.model.defense.selects_by
        watched = overfitting.watched(config, name)
        values = overfitting.accuracies(rows, watched.column)
        fell = overfitting.collapse(values, watched.images, self._classes)
        if fell is not None and fell == len(values):
            other = overfitting.accuracies(rows, watched.other)
            diverged = fell == overfitting.collapse(
                other, watched.images, self._classes
            )
            self._say(_collapsed(name, values, watched, config, diverged))
        elif config.validation_images and overfitting.is_first_gap(
            values, watched.images
        ):
            self._say(overfitting.sentence(name, rows, watched.images))
        if config.stop_on_collapse and fell is not None:
            self.model.stop_training = True
        if config.validation_images and overfitting.is_stopped(
            values, config.early_stopping_patience
        ):
            self.model.stop_training = True


def _collapsed(name, values, watched, config, diverged):
    """What is said of a collapse in the epoch that just ended."""
    kind = "Catastrophic overfitting"
    cure = (
        "More attack steps prevent it; so may more noise of nfgsm, or a "
        "smaller learning rate."
    )
    if diverged:
        kind = "Training diverged"
        cure = "A smaller learning rate prevents it; so may a longer warm-up."
        # Natural training has no other accuracy that could fall with its own.
        if watched.column != watched.other:
            other = "Accuracy in training"
            if config.validation_images:
                other = "Natural accuracy"
            cure = f"{other} fell with it. {cure}"
    best = values.index(max(values))
    kept = ", which is kept as the best"
    if not config.validation_images:
        kept = "; the last epoch is kept, as no split is held out to choose by"
    further = ""
    if not config.stop_on_collapse:
        further = " The run goes on; --stop_on_collapse would end it here."
    return (
        f"{kind}: {name.replace('_', ' ')} on {watched.where} fell to "
        f"{bounds.percent(values[-1], 1)} %, from "
        f"{bounds.percent(values[best], 1)} % in epoch {best + 1}{kept}. "
        f"{cure}{further}"
    )
