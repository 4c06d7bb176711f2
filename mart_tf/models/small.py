"""Small convolutional networks for grey 28x28 and 8x8 images."""

import keras
from keras import layers

from mart_tf.models import initializers


def small_cnn(input_shape=(28, 28, 1), num_classes=10, *, seed=0):
    """The MNIST network of TRADES (Zhang et al., ICML 2019) and MART.

    Two pairs of valid 3x3 convolutions (32, 32 and 64, 64 channels), each
    pair max-pooled, then dense layers of 200, 200 and `num_classes` units
    with dropout 0.5 between the first two; no batch normalization. The last
    layer starts at zero. 312,202 parameters for MNIST.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`, at least
            16 pixels high and wide.
        num_classes: Number of logits.
        seed: Integer that determines the initial weights.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.

    Raises:
        ValueError: If the images are too small.
    """
    _check_size("small_cnn", input_shape, 16)
    images = keras.Input(input_shape, name="images")
    x = _convolution(images, 32, "conv1", seed)
    x = _convolution(x, 32, "conv2", seed)
    x = layers.MaxPooling2D(name="pool1")(x)
    x = _convolution(x, 64, "conv3", seed)
    x = _convolution(x, 64, "conv4", seed)
    x = layers.MaxPooling2D(name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = _dense(x, 200, "dense1", seed)
    x = layers.Dropout(
        0.5, seed=initializers.derived_seed(seed, "dropout"), name="dropout"
    )(x)
    x = _dense(x, 200, "dense2", seed)
    return keras.Model(images, _logits(x, num_classes), name="small_cnn")


def digits_cnn(input_shape=(8, 8, 1), num_classes=10, *, seed=0):
    """A network for the 8x8 digits: `small_cnn`, but padded and narrower.

    Two pairs of 3x3 convolutions that keep the size (32, 32 and 64, 64
    channels), each pair max-pooled, then dense layers of 128 and
    `num_classes` units; no dropout. 99,178 parameters for the digits.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`, at least
            4 pixels high and wide.
        num_classes: Number of logits.
        seed: Integer that determines the initial weights.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.

    Raises:
        ValueError: If the images are too small.
    """
    _check_size("digits_cnn", input_shape, 4)
    images = keras.Input(input_shape, name="images")
    x = _convolution(images, 32, "conv1", seed, padding="same")
    x = _convolution(x, 32, "conv2", seed, padding="same")
    x = layers.MaxPooling2D(name="pool1")(x)
    x = _convolution(x, 64, "conv3", seed, padding="same")
    x = _convolution(x, 64, "conv4", seed, padding="same")
    x = layers.MaxPooling2D(name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = _dense(x, 128, "dense1", seed)
    return keras.Model(images, _logits(x, num_classes), name="digits_cnn")


def _convolution(x, filters, name, seed, padding="valid"):
    return layers.Conv2D(
        filters,
        3,
        padding=padding,
        activation="relu",
        kernel_initializer=initializers.kaiming_normal(seed, f"{name}/kernel"),
        name=name,
    )(x)


def _dense(x, units, name, seed):
    return layers.Dense(
        units,
        activation="relu",
        kernel_initializer=initializers.fan_in_uniform(seed, f"{name}/kernel"),
        bias_initializer=initializers.bias_uniform(
            x.shape[-1], seed, f"{name}/bias"
        ),
        name=name,
    )(x)


def _logits(x, num_classes):
    return layers.Dense(
        num_classes, kernel_initializer="zeros", dtype="float32", name="logits"
    )(x)


def _check_size(name, input_shape, least):
    if min(input_shape[:2]) < least:
        height, width = input_shape[:2]
        raise ValueError(
            f"Model {name!r} got images of {height}x{width} pixels; expected "
            f"at least {least}x{least}: choose another model or larger images."
        )
