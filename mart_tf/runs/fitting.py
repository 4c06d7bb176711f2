"""The epochs that are left of a run."""

import contextlib
import functools
from typing import NamedTuple

import keras
import numpy as np

from mart_tf import data
from mart_tf import screen
from mart_tf.runs import callbacks
from mart_tf.runs import config as run_config
from mart_tf.runs import overfitting_callbacks
from mart_tf.runs import tensorboard_logs
from mart_tf.runs import workers
from mart_tf.training import classifier as adversarial
from mart_tf.training import epoch
from mart_tf.training import first_loss
from mart_tf.training import watch


class Place(NamedTuple):
    """Where a run stands.

    Attributes:
        steps: Training steps in an epoch.
        finished: Epochs that are finished.
        position: Steps of the next one that were taken.
    """

    steps: int
    finished: int
    position: int

    @property
    def done(self):
        """Steps that the run has taken."""
        return self.finished * self.steps + self.position


class Training(NamedTuple):
    """What is trained, on what, and by whom.

    Attributes:
        config: A resolved `Config`.
        model: The compiled `AdversarialClassifier`.
        dataset: A `data.Dataset`.
        pool: A `data.Pool`, or None.
        together: The `workers.Workers`.
        class_weights: The weight of each class, an array, or None.
        callbacks: Keras callbacks of the user's own.
    """

    config: run_config.Config
    model: adversarial.AdversarialClassifier
    dataset: data.Dataset
    pool: data.Pool | None
    together: workers.Workers
    class_weights: np.ndarray | None = None
    callbacks: tuple = ()


def fit(training, place, saved, seen, tell, console):
    """Trains to the last epoch, or until it is stopped early.

    Args:
        training: A `Training`, its model restored.
        place: The `Place` to go on from.
        saved: The run's `Checkpoints`.
        seen: A `signals.Signals`.
        tell: The run's `events.Log`.
        console: A `rich.console.Console`.

    Raises:
        watch.Diverged: If training leads nowhere.
    """
    config, model, dataset = training.config, training.model, training.dataset
    together = training.together
    validation = None
    if config.validation_images:
        validation = together.distributed(
            data.evaluation_batches(
                dataset.validation,
                config.batch_size,
                config.pixel_range,
                together.part,
            )
        )
    progress = callbacks.Progress(
        console, config.batch_size, place.steps, config.epochs, place.done
    )

    # A terminal without its cursor is left otherwise.
    seen.farewells.append(lambda stopped: progress.close())

    def warn(text):
        screen.say(text, on=console)

    own = callbacks.Own(training.callbacks)
    with contextlib.closing(progress):
        hooks = [
            # A run that goes on had skipped what its checkpoint says.
            watch.Watch(anew=False),
            callbacks.Within(
                saved, seen, config.interval(), place, tell, together
            ),
            keras.callbacks.LambdaCallback(on_epoch_end=progress.stop_clock),
            *_of_batch(training),
            keras.callbacks.LambdaCallback(on_epoch_end=own.end_epoch),
            callbacks.Record(config.workdir, saved),
            callbacks.Events(
                tell, config.batch_size, place.done, together.count == 1
            ),
            progress,
            *_of_first_loss(training, warn),
            overfitting_callbacks.Overfitting(
                saved, config, dataset.num_classes, warn
            ),
        ]
        if together.is_chief:
            hooks += tensorboard_logs.create(
                config,
                dataset,
                place.steps,
                progress,
                saved,
                together.count == 1,
            )
        # Last: whatever they do, the run's own have seen the epoch.
        hooks.append(own)
        batches = functools.partial(_batches, training)
        _fit(config.epochs, batches, validation, model, hooks, place)
        own.end_train()


def _batches(training, start_step):
    config = training.config
    batches = _plain_batches(
        training,
        augment=config.augment,
        start_step=start_step,
        unlabeled_weight=config.unlabeled_weight,
        class_weights=training.class_weights,
    )
    return training.together.distributed(batches)


def _plain_batches(training, **settings):
    config = training.config
    return data.training_batches(
        training.dataset.train,
        config.batch_size,
        seed=config.seed,
        pixel_range=config.pixel_range,
        pool=training.pool,
        pool_fraction=config.pool_fraction,
        part=training.together.part,
        **settings,
    )


def _of_batch(training):
    """What measures the run's first batch, where no split is held out."""
    held_out = training.config.validation_images
    # Training without an attack has no robustness that could fall.
    if held_out or not training.model.defense.attacks:
        return []
    batches = _plain_batches(training)
    batch = training.together.distributed(batches.take(1).cache())
    return [overfitting_callbacks.OfBatch(batch)]


def _of_first_loss(training, warn):
    """What looks at the first loss, where no weights of examples are in it."""
    weighted = training.class_weights is not None
    if training.pool is not None:
        weighted |= training.config.unlabeled_weight != 1.0
    return [] if weighted else [first_loss.FirstLoss(warn)]


def _fit(epochs, batches, validation, model, hooks, place):
    """Trains what is left of an epoch, then the others."""
    steps, finished, position = place

    def fit(last, left, start):
        model.fit(
            batches(start),
            steps_per_epoch=left,
            epochs=last,
            initial_epoch=start // steps,
            validation_data=validation,
            callbacks=hooks,
            # Checked when it was loaded.
            check_data=False,
            # The order is the data's own.
            shuffle=False,
            verbose=0,
        )

    if position == steps:
        _validate(model, validation, hooks, finished)
    elif position:
        fit(finished + 1, steps - position, place.done)
    finished += bool(position)
    # A callback may have ended it.
    if finished < epochs and not model.stop_training:
        fit(epochs, steps, finished * steps)


def _validate(model, validation, hooks, finished):
    """The end of an epoch all of whose steps were taken before."""
    hooks = keras.callbacks.CallbackList(
        epoch.with_own(hooks, model),
        model=model,
        epochs=finished + 1,
        steps=0,
        verbose=0,
    )
    hooks.on_train_begin()
    model.reset_metrics()
    hooks.on_epoch_begin(finished)
    logs = dict(model.get_metrics_result())
    results = {}
    if validation is not None:
        results = model.evaluate(
            validation,
            callbacks=hooks,
            check_data=False,
            return_dict=True,
            verbose=0,
        )
    logs |= {f"val_{name}": value for name, value in results.items()}
    hooks.on_epoch_end(finished, logs)
    hooks.on_train_end()
