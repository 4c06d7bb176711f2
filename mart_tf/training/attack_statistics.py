"""Which statistics batch norm has in the inner attack: kept, or the batch's."""

import contextlib

import keras

from mart_tf import choices
from mart_tf import private
from mart_tf.attacks import loops
from mart_tf.attacks import objectives
from mart_tf.training import layer_calls
from mart_tf.training import reduction


def check(attack_batch_norm, classifier, defense):
    """Refuses a setting that is none, or would change nothing.

    Args:
        attack_batch_norm: "inference" or "batch".
        classifier: A Keras model.
        defense: A `mart_tf.defenses.Defense`.

    Raises:
        ValueError: With one sentence.
    """
    if attack_batch_norm not in choices.ATTACK_BATCH_NORM:
        raise ValueError(
            f"attack_batch_norm is {attack_batch_norm!r}; expected "
            f"{' or '.join(choices.ATTACK_BATCH_NORM)}."
        )
    if attack_batch_norm == "inference":
        return
    if not defense.attacks:
        raise ValueError(
            "attack_batch_norm is 'batch', and the defense "
            f"{type(defense).__name__} has no attack in training; leave it "
            "out."
        )
    if classifier.built:
        _layers(classifier)


@contextlib.contextmanager
def of_the_batch(classifier):
    """A scope in which a pass normalizes by its batch and leaves no trace.

    Batch norm takes mean and variance of the batch, over all replicas where it
    is synchronized, and its moving statistics stay as they are. Everything
    else is as it is called: dropout is off where `training` is False.

    Args:
        classifier: A Keras model, built.

    Raises:
        ValueError: If it has no batch norm.
    """
    with layer_calls.replaced(
        _layers(classifier), _by_batch, elsewhere=_refuse
    ):
        yield


@contextlib.contextmanager
def coupled(attack_batch_norm):
    """A scope for an attack whose examples may hang on each other.

    Args:
        attack_batch_norm: "inference" or "batch".
    """
    with contextlib.ExitStack() as scopes:
        if attack_batch_norm == "batch":
            scopes.enter_context(objectives.of_whole_batches())
            if not reduction.is_alone():
                scopes.enter_context(loops.written_out())
        yield


def _by_batch(layer, call, inputs, training=None, mask=None):
    del layer, training
    # What is assigned inside it is lost.
    with keras.StatelessScope():
        return call(inputs, training=True, mask=mask)


def _refuse(layer):
    raise ValueError(
        f"attack_batch_norm is 'batch', and the batch norm {layer.name!r} is "
        "called inside a tf.function of the network, which would keep the "
        "batch's statistics for every later call; remove that tf.function, "
        "or leave attack_batch_norm out."
    )


def _layers(classifier):
    """The batch norms that are not frozen, which take the batch's statistics.

    Raises:
        ValueError: If there is none.
    """
    layers = [
        layer
        for layer in private.layers(classifier)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
    ]
    if not layers:
        raise ValueError(
            "attack_batch_norm is 'batch', and the classifier "
            f"{classifier.name!r} has no keras.layers.BatchNormalization that "
            "is trainable; leave it out."
        )
    return layers
