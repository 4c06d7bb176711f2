"""A network that computes on a device, its weights there too."""

import keras
import tensorflow as tf

from mart_tf import private


def on_device(model, device):
    """What a network computes, with weights of its own on a device.

    TensorFlow would send weights that lie elsewhere at each step of a loop.
    They are copied here, once; a variable that is no weight of Keras's stays
    where it is.

    Args:
        model: A built `keras.Model`.
        device: The device's name.

    Returns:
        A function from images to what the model returns in inference mode, to
        be called on that device.
    """
    with tf.device(device):
        copies = [
            (weight, tf.Variable(weight.numpy(), trainable=False))
            for weight in model.weights
        ]
    states = private.seed_states(model)

    def scores(images):
        with keras.StatelessScope(copies) as scope:
            made = model(images, training=False)
        for state in states:
            # Of a model that draws: the scope kept it from going on.
            following = scope.get_current_value(state)
            if following is not None:
                state.assign(following)
        return made

    return scores
