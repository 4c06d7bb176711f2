"""What the networks have in common: padding, batch norm, float32 logits."""

from keras import layers


def convolution(
    x, filters, size, stride, kernel_initializer, name, padding="all_round"
):
    """A convolution without bias.

    Args:
        x: Features `[batch, height, width, channels]`.
        filters: Number of output channels.
        size: Height and width of the kernel, 1 or 3.
        stride: 1 or 2.
        kernel_initializer: A Keras initializer.
        name: The layer's name, unique in its network.
        padding: "all_round", size // 2 on every side as PyTorch pads, or
            "same", which at stride 2 pads below and right only.

    Returns:
        Features `[batch, rows, columns, filters]`, height and width divided by
        the stride and rounded up.
    """
    if padding == "same" or stride == 1 or size == 1:
        padding = "same"
    else:
        # A pad op is faster on CPUs than padding inside the
        # convolution.
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=kernel_initializer,
        name=name,
    )(x)


def batch_norm(x, name):
    """Batch normalization with PyTorch's settings, over all replicas."""
    # PyTorch's momentum 0.1 and epsilon. Without `synchronized` the replicas
    # of a strategy drift apart, and only the first one's are saved.
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=True, name=name
    )(x)


def logits(x, num_classes, kernel_initializer, bias_initializer="zeros"):
    """The last layer: scores `[batch, num_classes]`, float32 in any policy."""
    return layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        dtype="float32",
        name="logits",
    )(x)
