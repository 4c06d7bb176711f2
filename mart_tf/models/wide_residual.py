"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016)."""

import keras
from keras import layers

from mart_tf.models import blocks
from mart_tf.models import initializers
from mart_tf.models import names


def wide_resnet(
    input_shape=(32, 32, 3),
    num_classes=10,
    *,
    depth: int = 34,
    width: int = 10,
    seed=0,
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
        seed: Integer that determines the initial weights.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.

    Raises:
        ValueError: On a depth or a width that no network has.
    """
    names.check_options("wide_resnet", depth=depth, width=width)
    images = keras.Input(input_shape, name="images")
    x = _convolution(images, 16, 3, 1, "stem", seed)
    for stage in (1, 2, 3):
        for block in range(1, (depth - 4) // 6 + 1):
            stride = 2 if block == 1 and stage > 1 else 1
            filters = 8 * 2**stage * width
            x = _block(x, filters, stride, f"stage{stage}_{block}", seed)
    x = blocks.batch_norm(x, "norm")
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = blocks.logits(
        x, num_classes, initializers.fan_in_uniform(seed, "logits/kernel")
    )
    return keras.Model(images, logits, name=f"wide_resnet_{depth}_{width}")


def _block(x, filters, stride, name, seed):
    shortcut = x
    x = blocks.batch_norm(x, f"{name}_norm1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    if shortcut.shape[-1] != filters:
        # Here alone the shortcut too begins after batch norm and ReLU.
        shortcut = _convolution(x, filters, 1, stride, f"{name}_shortcut", seed)
    x = _convolution(x, filters, 3, stride, f"{name}_conv1", seed)
    x = blocks.batch_norm(x, f"{name}_norm2")
    x = layers.ReLU(name=f"{name}_relu2")(x)
    x = _convolution(x, filters, 3, 1, f"{name}_conv2", seed)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _convolution(x, filters, size, stride, name, seed):
    kernel = initializers.kaiming_normal(seed, f"{name}/kernel", "fan_out")
    return blocks.convolution(x, filters, size, stride, kernel, name)
