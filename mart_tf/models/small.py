"""Plain convolutional networks for images of 8x8 to 32x32 pixels."""

import keras
from keras import layers

from mart_tf.models import blocks
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
    logits = blocks.logits(x, num_classes, "zeros")
    return keras.Model(images, logits, name="small_cnn")


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
    logits = blocks.logits(x, num_classes, "zeros")
    return keras.Model(images, logits, name="digits_cnn")


def cnn4(input_shape=(28, 28, 1), num_classes=10, *, seed=0):
    """The MNIST network of the Dynamic code (Wang et al., ICML 2019).

    Two 3x3 convolutions that keep the size (32 and 64 channels), each with
    batch norm, ReLU and max-pooling, then dense layers of 128 and
    `num_classes` units. 421,834 trainable parameters for MNIST. The "4-layer
    CNN" of MART's Table 2 may be this one or `small_cnn`.

    He normal kernels, zero biases and a last layer that starts at zero are
    our choice, and batch norm has PyTorch's settings; the released code has
    Keras's defaults in both (but for the dense layer of 128, which is He
    normal there too). A last layer of large first logits would cost MART most
    of the hidden units: see docs/defenses.md.

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
    _check_size("cnn4", input_shape, 4)
    images = keras.Input(input_shape, name="images")
    x = _normalized_convolution(images, 32, "conv1", seed)
    x = layers.MaxPooling2D(name="pool1")(x)
    x = _normalized_convolution(x, 64, "conv2", seed)
    x = layers.MaxPooling2D(name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = _he_dense(x, 128, "dense1", seed)
    x = layers.ReLU(name="dense1_relu")(x)
    logits = blocks.logits(x, num_classes, "zeros")
    return keras.Model(images, logits, name="cnn4")


def cnn8(input_shape=(32, 32, 3), num_classes=10, *, seed=0):
    """The 8-layer CNN of MART's Figure 1.

    Three pairs of 3x3 convolutions that keep the size (64, 64, 128, 128, 196
    and 196 channels), each convolution with batch norm and ReLU, each pair
    max-pooled, then a dense layer of 256 units with batch norm and ReLU and
    one of `num_classes`. 1,639,794 trainable parameters for CIFAR-10.

    The paper does not describe it; this is the 8-layer network that the same
    authors' Dynamic code (Wang et al., ICML 2019) keeps as a comment. Initial
    weights and batch norm are as in `cnn4`.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`, at least
            8 pixels high and wide.
        num_classes: Number of logits.
        seed: Integer that determines the initial weights.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.

    Raises:
        ValueError: If the images are too small.
    """
    _check_size("cnn8", input_shape, 8)
    images = x = keras.Input(input_shape, name="images")
    for pair, filters in enumerate((64, 128, 196), start=1):
        x = _normalized_convolution(x, filters, f"conv{2 * pair - 1}", seed)
        x = _normalized_convolution(x, filters, f"conv{2 * pair}", seed)
        x = layers.MaxPooling2D(name=f"pool{pair}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = _he_dense(x, 256, "dense1", seed)
    x = _normalized(x, "dense1")
    logits = blocks.logits(x, num_classes, "zeros")
    return keras.Model(images, logits, name="cnn8")


def _convolution(x, filters, name, seed, padding="valid", activation="relu"):
    return layers.Conv2D(
        filters,
        3,
        padding=padding,
        activation=activation,
        kernel_initializer=initializers.kaiming_normal(seed, f"{name}/kernel"),
        name=name,
    )(x)


def _normalized_convolution(x, filters, name, seed):
    x = _convolution(x, filters, name, seed, padding="same", activation=None)
    return _normalized(x, name)


def _normalized(x, name):
    x = blocks.batch_norm(x, f"{name}_norm")
    return layers.ReLU(name=f"{name}_relu")(x)


def _he_dense(x, units, name, seed):
    kernel = initializers.kaiming_normal(seed, f"{name}/kernel")
    return layers.Dense(units, kernel_initializer=kernel, name=name)(x)


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


def _check_size(name, input_shape, least):
    if min(input_shape[:2]) < least:
        height, width = input_shape[:2]
        raise ValueError(
            f"Model {name!r} got images of {height}x{width} pixels; expected "
            f"at least {least}x{least}: choose another model or larger images."
        )
