"""Networks in float64, where rounding is no excuse: `--model` takes them."""

import keras

from mart_tf import models


def wide_resnet(input_shape, num_classes, *, seed=0, activation="relu"):
    """A wide ResNet of one block a stage, in float64 but for what it returns.

    Args:
        input_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        seed: Determines the weights.
        activation: "relu" or "silu".

    Returns:
        A `keras.Model` from images to float32 logits.
    """
    network = keras.models.clone_model(
        models.wide_resnet(
            input_shape,
            num_classes,
            depth=10,
            width=1,
            activation=activation,
            seed=seed,
        ),
        clone_function=_doubled,
    )
    rounded = keras.layers.Activation("linear", dtype="float32")
    return keras.Model(network.inputs, rounded(network.outputs[0]))


def _doubled(layer):
    return type(layer).from_config({**layer.get_config(), "dtype": "float64"})
