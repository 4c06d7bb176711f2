"""Residual networks for 32x32 images (He et al., CVPR 2016)."""

import keras
from keras import layers

from mart_tf.models import blocks
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
    return _resnet(
        "resnet18", _basic, (2, 2, 2, 2), input_shape, num_classes, seed
    )


def resnet50(input_shape=(32, 32, 3), num_classes=10, *, seed=0):
    """ResNet-50 with ResNet-18's stem, a surrogate of black-box attacks.

    The stem, the strides and the head of `resnet18`, with 3, 4, 6 and 3
    bottlenecks: 1x1, 3x3 and 1x1 convolutions, of which the last has four
    times the channels; the 3x3 convolution takes the stride. 23,520,842
    trainable parameters for CIFAR-10.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        seed: Integer that determines the initial weights.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.
    """
    return _resnet(
        "resnet50", _bottleneck, (3, 4, 6, 3), input_shape, num_classes, seed
    )


def _basic(filters, stride):
    """(channels, kernel size, stride) of a basic block's convolutions."""
    return (filters, 3, stride), (filters, 3, 1)


def _bottleneck(filters, stride):
    return (filters, 1, 1), (filters, 3, stride), (4 * filters, 1, 1)


def _resnet(name, kind, counts, input_shape, num_classes, seed):
    """A network of `counts[i]` blocks of one kind in stage i."""
    images = keras.Input(input_shape, name="images")
    x = _convolution(images, 64, 3, 1, "stem", seed)
    x = layers.ReLU(name="stem_relu")(x)
    for stage, count in enumerate(counts, start=1):
        for block in range(1, count + 1):
            stride = 2 if block == 1 and stage > 1 else 1
            convolutions = kind(32 * 2**stage, stride)
            x = _block(x, convolutions, stride, f"stage{stage}_{block}", seed)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = blocks.logits(
        x,
        num_classes,
        initializers.fan_in_uniform(seed, "logits/kernel"),
        initializers.bias_uniform(x.shape[-1], seed, "logits/bias"),
    )
    return keras.Model(images, logits, name=name)


def _block(x, convolutions, stride, name, seed):
    """Convolutions with a ReLU after each, the last after the shortcut."""
    shortcut = x
    channels = convolutions[-1][0]
    if stride != 1 or x.shape[-1] != channels:
        shortcut = _convolution(
            x, channels, 1, stride, f"{name}_shortcut", seed
        )
    last = len(convolutions)
    for index, convolution in enumerate(convolutions, start=1):
        x = _convolution(x, *convolution, f"{name}_conv{index}", seed)
        if index == last:
            x = layers.Add(name=f"{name}_add")([x, shortcut])
        x = layers.ReLU(name=f"{name}_relu{index}")(x)
    return x


def _convolution(x, filters, size, stride, name, seed):
    """Convolution without bias, then batch norm."""
    kernel = initializers.fan_in_uniform(seed, f"{name}/kernel")
    x = blocks.convolution(x, filters, size, stride, kernel, name)
    return blocks.batch_norm(x, f"{name}_norm")
