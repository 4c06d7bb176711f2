"""What a model of several replicas cannot do, told before it is tried."""

import warnings

import keras
import tensorflow as tf

from mart_tf import private

_FOREIGN = (
    tf.distribute.ParameterServerStrategy,
    tf.distribute.TPUStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
)
# Layers that a warning names.
_SHOWN = 3


def check_strategy(strategy):
    """Refuses a strategy under which a step was never shown to be right.

    Args:
        strategy: The `tf.distribute.Strategy` of the classifier.
    """
    if isinstance(strategy, _FOREIGN):
        raise ValueError(
            f"The classifier was made under a {type(strategy).__name__}; "
            "expected a tf.distribute.MirroredStrategy over the devices of one "
            "machine, a MultiWorkerMirroredStrategy, or no strategy."
        )


def check_compiled(model):
    """Refuses what Keras 3 cannot do on several replicas; warns of the rest.

    Args:
        model: A compiled `AdversarialClassifier`.
    """
    strategy = model.distribute_strategy
    count = strategy.num_replicas_in_sync
    with strategy.scope():
        is_alone = not tf.distribute.has_strategy()
    # keras#19246 and keras#20582: this, and steps_per_execution below, raise in
    # the middle of a step.
    if model.optimizer.gradient_accumulation_steps and not is_alone:
        raise ValueError(
            "gradient_accumulation_steps is set, which Keras cannot do under a "
            f"{type(strategy).__name__}; leave it out, or train on one device "
            "without a strategy."
        )
    if count == 1:
        return
    if (model.compiled_by_xla, model.attack_batch_norm) == ("attack", "batch"):
        raise ValueError(
            f"attack_batch_norm is 'batch', and on {count} replicas XLA cannot "
            "compile an attack in which they meet; compile without "
            'jit_compile="attack", or train on one device.'
        )
    if model.compiled_by_xla is True:
        raise ValueError(
            f"jit_compile is True, and XLA cannot compile a step on {count} "
            'replicas; give jit_compile="attack", or train on one device.'
        )
    if model.steps_per_execution not in (1, None):
        raise ValueError(
            f"steps_per_execution is set, which Keras cannot do on {count} "
            "replicas; leave it out, or train on one device."
        )
    if any(
        getattr(layer, "activity_regularizer", None) is not None
        for layer in private.layers(model.classifier)
    ):
        check_activity_losses(model.classifier)
    unsynchronized = [
        layer.name
        for layer in private.layers(model.classifier)
        if isinstance(layer, keras.layers.BatchNormalization)
        and not layer.synchronized
    ]
    if unsynchronized:
        more = ", ..." if len(unsynchronized) > _SHOWN else ""
        warnings.warn(
            "Batch normalization without synchronized=True "
            f"({', '.join(unsynchronized[:_SHOWN])}{more}): each of {count} "
            "replicas normalizes by its own share of the batch, the statistics "
            "of the first one are saved, and a batch that leaves a replica "
            "without an example is skipped.",
            stacklevel=3,
        )


def check_batch_call(model, name):
    """Refuses a call for which Keras shares no batch out.

    Args:
        model: An `AdversarialClassifier`.
        name: Of the method that was called.
    """
    count = model.distribute_strategy.num_replicas_in_sync
    if count > 1:
        raise ValueError(
            f"{name} was called on {count} replicas, and Keras would give each "
            "of them the whole batch; call fit, evaluate or predict, which "
            "share it out, or train on one device."
        )


def check_activity_losses(network):
    """Refuses losses of a training pass inside which replicas take turns.

    Keras keeps those of all replicas in one list, of the layer, and clears it
    where a pass begins: one replica's go with another's beginning.

    Args:
        network: A classifier that has such losses.
    """
    count = network.distribute_strategy.num_replicas_in_sync
    meeting = [
        layer.name
        for layer in private.layers(network)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.synchronized
        and layer.trainable
    ]
    if count > 1 and meeting:
        raise ValueError(
            "The network has losses of activities (activity_regularizer or "
            f"add_loss) and the synchronized batch normalization {meeting[0]}, "
            f"and on {count} replicas Keras confuses the replicas' losses; "
            "leave one of the two out, or train on one device."
        )
