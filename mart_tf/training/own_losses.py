"""What a network adds to the loss itself: regularizers, and `add_loss`."""

import tensorflow as tf

from mart_tf.training import replicas


def of_weights(network):
    """The sum of the regularizers of the trainable weights, a scalar."""
    return _sum(_of_weights(network))


def of_last_pass(network, training):
    """The sum of what the last forward pass added, a scalar.

    Activity regularizers, which Keras divides by the number of examples, and
    `add_loss` inside layers. The next pass forgets it.

    Args:
        network: The classifier.
        training: Whether the pass was one in training mode.

    Raises:
        ValueError: If it was, and the replicas' losses are mixed up.
    """
    # Keras lists the regularizers of the weights last.
    added = network.losses
    added = added[: len(added) - len(_of_weights(network))]
    if added and training:
        replicas.check_activity_losses(network)
    return _sum(added)


def _of_weights(network):
    return [
        variable.regularizer(variable)
        for variable in network.trainable_weights
        if getattr(variable, "regularizer", None) is not None
    ]


def _sum(losses):
    return sum(
        (tf.cast(loss, tf.float32) for loss in losses), start=tf.constant(0.0)
    )
