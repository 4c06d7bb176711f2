"""Residual networks whose blocks begin with batch norm: wide ones, ResNet-18.

Zagoruyko and Komodakis (BMVC 2016); He et al. (ECCV 2016).
"""

from collections.abc import Callable
import functools
from typing import Literal
from typing import NamedTuple

import keras
from keras import layers

from mart_tf import options
from mart_tf.models import blocks
from mart_tf.models import initializers
from mart_tf.models import names

_ACTIVATIONS = {
    "relu": layers.ReLU,
    "silu": functools.partial(layers.Activation, "silu"),
}
_CHOICES = {
    "activation": tuple(_ACTIVATIONS),
    "normalize": ("none", "cifar10"),
    "padding": ("all_round", "same"),
}
# Mean and deviation of each channel, of pixels in [0, 1].
_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
}


def wide_resnet(
    input_shape=(32, 32, 3),
    num_classes=10,
    *,
    depth: int = 34,
    width: int = 10,
    activation: Literal["relu", "silu"] = "relu",
    normalize: Literal["none", "cifar10"] = "none",
    padding: Literal["all_round", "same"] = "all_round",
    seed=0,
    pixel_range=(0.0, 1.0),
):
    """WRN-depth-width as TRADES (Zhang et al., ICML 2019) and MART train it.

    A 3x3 stem of 16 channels, then three stages of (depth - 4) / 6 blocks
    each of 16, 32 and 64 times `width` channels, the first block of the second
    and of the third stage with stride 2, global average pooling and one dense
    layer. In a block each of the two 3x3 convolutions follows batch norm and
    ReLU; no dropout. Trainable parameters for CIFAR-10: WRN-34-10 46,160,474,
    WRN-34-8 29,551,578, WRN-28-10 36,479,194, WRN-28-4 5,849,050.
    (TRADES's code also holds a second first stage that it never calls.)

    Convolutions start as N(0, sqrt(2 / (9 out))), or without the 9 if 1x1,
    untruncated; the dense layer as PyTorch's default with bias 0.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        depth: Number of convolutions, three of shortcuts among them: 6n + 4
            with n of at least 1.
        width: Channels as a multiple of 16, 32 and 64, at least 1.
        activation: "relu", or "silu" as in the WRN-28-10 of Gowal et al.
            (2020) and Wang et al. (ICML 2023).
        normalize: "none", or "cifar10": pixels, brought to [0, 1], are first
            made (x - mean) / deviation, with CIFAR-10's of each channel.
        padding: Of the 3x3 convolutions with stride 2: a pixel all round, as
            PyTorch has it, or "same", as TensorFlow and JAX have it: below
            and right only.
        seed: Integer that determines the initial weights.
        pixel_range: Least and greatest value of a pixel, for `normalize`.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.

    Raises:
        ValueError: On a depth or a width that no network has, an unknown
            activation, normalization or padding, or images that do not fit
            the normalization.
    """
    names.check_options("wide_resnet", depth=depth, width=width)
    return _network(
        f"wide_resnet_{depth}_{width}",
        (16, *(16 * 2**stage * width for stage in range(3))),
        (depth - 4) // 6,
        functools.partial(initializers.kaiming_normal, mode="fan_out"),
        input_shape,
        num_classes,
        seed,
        _Style(activation, normalize, padding, pixel_range),
    )


def preact_resnet18(
    input_shape=(32, 32, 3),
    num_classes=10,
    *,
    activation: Literal["relu", "silu"] = "relu",
    normalize: Literal["none", "cifar10"] = "none",
    padding: Literal["all_round", "same"] = "all_round",
    seed=0,
    pixel_range=(0.0, 1.0),
):
    """Pre-activation ResNet-18 as Rice et al. (ICML 2020) and AWP train it.

    A 3x3 stem of 64 channels, then two blocks each of 64, 128, 256 and 512
    channels, the first of every later stage with stride 2; in a block each of
    the two 3x3 convolutions follows batch norm and ReLU. Batch norm and ReLU
    at the end, global average pooling and one dense layer. 11,172,170
    trainable parameters for CIFAR-10. Initial weights are PyTorch's defaults.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of logits.
        activation, normalize, padding: As in `wide_resnet`; Rice et al. and
            Wu et al. normalize by CIFAR-10's means and deviations.
        seed: Integer that determines the initial weights.
        pixel_range: Least and greatest value of a pixel, for `normalize`.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.

    Raises:
        ValueError: On an unknown activation, normalization or padding, or
            images that do not fit the normalization.
    """
    return _network(
        "preact_resnet18",
        (64, 64, 128, 256, 512),
        2,
        initializers.fan_in_uniform,
        input_shape,
        num_classes,
        seed,
        _Style(activation, normalize, padding, pixel_range),
        initializers.bias_uniform,
    )


class _Style(NamedTuple):
    """What the networks of this file leave to choose."""

    activation: str
    normalize: str
    padding: str
    pixel_range: tuple


class _Layers(NamedTuple):
    """The layers of one network, its choices made."""

    style: _Style
    initializer: Callable
    seed: int

    def convolution(self, x, filters, size, stride, name):
        kernel = self.initializer(self.seed, f"{name}/kernel")
        return blocks.convolution(
            x, filters, size, stride, kernel, name, self.style.padding
        )

    def activated(self, x, name, place=""):
        """Batch norm, then the activation."""
        x = blocks.batch_norm(x, f"{name}norm{place}")
        kind = self.style.activation
        return _ACTIVATIONS[kind](name=f"{name}{kind}{place}")(x)


def _network(
    name,
    channels,
    count,
    initializer,
    input_shape,
    num_classes,
    seed,
    style,
    bias_initializer=None,
):
    """A stem, stages of `count` blocks, and a head.

    Args:
        name: The network's name.
        channels: Of the stem, and of each stage.
        count: Blocks in a stage.
        initializer: Of the convolutions: `(seed, name) -> initializer`.
        input_shape, num_classes, seed: As of the networks.
        style: A `_Style`.
        bias_initializer: Of the dense layer, `(fan_in, seed, name) ->
            initializer`; default: 0.
    """
    _check(name, style, input_shape)
    made = _Layers(style, initializer, seed)
    images = x = keras.Input(input_shape, name="images")
    if style.normalize != "none":
        means, deviations = _STATISTICS[style.normalize]
        low, high = style.pixel_range
        width = high - low
        x = layers.Rescaling(
            [1 / (width * deviation) for deviation in deviations],
            [
                (-low / width - mean) / deviation
                for mean, deviation in zip(means, deviations, strict=True)
            ],
            # In bfloat16 nearby grey levels would become one.
            dtype="float32",
            name="normalize",
        )(x)
    x = made.convolution(x, channels[0], 3, 1, "stem")
    for stage, filters in enumerate(channels[1:], 1):
        for block in range(1, count + 1):
            stride = 2 if block == 1 and stage > 1 else 1
            x = _block(made, x, filters, stride, f"stage{stage}_{block}")
    x = made.activated(x, "")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = blocks.logits(
        x,
        num_classes,
        initializers.fan_in_uniform(seed, "logits/kernel"),
        bias_initializer(x.shape[-1], seed, "logits/bias")
        if bias_initializer
        else "zeros",
    )
    return keras.Model(images, logits, name=name)


def _block(made, x, filters, stride, name):
    shortcut = x
    x = made.activated(x, f"{name}_", 1)
    if shortcut.shape[-1] != filters:
        # Here alone the shortcut too begins after batch norm and activation.
        shortcut = made.convolution(x, filters, 1, stride, f"{name}_shortcut")
    x = made.convolution(x, filters, 3, stride, f"{name}_conv1")
    x = made.activated(x, f"{name}_", 2)
    x = made.convolution(x, filters, 3, 1, f"{name}_conv2")
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _check(name, style, input_shape):
    """Refuses a style that no network has, or that the images do not fit."""
    for option, allowed in _CHOICES.items():
        given = getattr(style, option)
        if given not in allowed:
            raise options.unknown(option, str(given), allowed)
    if style.normalize != "none" and input_shape[-1] != 3:
        raise ValueError(
            f"Model {name!r} has normalize={style.normalize}, of three "
            f"channels, and images of {input_shape[-1]}; expected normalize="
            "none."
        )
