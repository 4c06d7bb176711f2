"""Residual networks for 32x32 images (He et al., CVPR 2016)."""

import keras
from keras import layers

from mart_tf.models import initializers


def resnet18(input_shape=(32, 32, 3), num_classes=10, *, seed=0):
    """ResNet-18 as adversarial training uses it on CIFAR-10.

    A 3x3 stem of 64 channels without pooling, then two basic blocks each of
    64, 128, 256 and 512 channels, the first of every later stage with stride
    2, global average pooling and one dense layer. 11,173,962 trainable
    parameters for CIFAR-10.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        seed: Integer that determines the initial weights.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.
    """
    images = keras.Input(input_shape, name="images")
    x = _convolution(images, 64, 3, 1, "stem", seed)
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for block in (1, 2):
            stride = 2 if block == 1 and stage > 1 else 1
            x = _basic_block(x, filters, stride, f"stage{stage}_{block}", seed)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(
        num_classes,
        kernel_initializer=initializers.fan_in_uniform(seed, "logits/kernel"),
        bias_initializer=initializers.bias_uniform(
            x.shape[-1], seed, "logits/bias"
        ),
        dtype="float32",
        name="logits",
    )(x)
    return keras.Model(images, logits, name="resnet18")


def _basic_block(x, filters, stride, name, seed):
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = _convolution(x, filters, 1, stride, f"{name}_shortcut", seed)
    x = _convolution(x, filters, 3, stride, f"{name}_conv1", seed)
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _convolution(x, filters, 3, 1, f"{name}_conv2", seed)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _convolution(x, filters, size, stride, name, seed):
    """Convolution without bias, padded as PyTorch pads, then batch norm."""
    padding = "same"
    if stride == 2 and size == 3:
        # At stride 2 "same" pads below and right only; PyTorch pads all
        # round. A pad op is faster on CPUs than padding inside the
        # convolution.
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        padding = "valid"
    x = layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=initializers.fan_in_uniform(seed, f"{name}/kernel"),
        name=name,
    )(x)
    # PyTorch's momentum 0.1 and epsilon. Without `synchronized` the replicas
    # of a strategy drift apart, and only the first one's are saved.
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=True, name=f"{name}_norm"
    )(x)
