"""The gradient of a first convolution to images of one channel, on a CPU.

oneDNN computes it at a twentieth of the speed of the other convolutions: for
the small CNN that is an eighth of an attack step. As a matrix product, one
column for each place in the kernel, whose columns are shifted and added, it
takes half of that time (benchmarks/attack_step.py).
"""

import contextlib

import keras
import tensorflow as tf

from mart_tf import private
from mart_tf.training import layer_calls

_INPUTS = (tf.float32, tf.bfloat16)


@contextlib.contextmanager
def as_product(classifier):
    """A scope in which that gradient is a matrix product.

    For passes of which only the gradient to the images is asked for: kernels
    get none.

    Args:
        classifier: A Keras model.
    """
    layers = [
        layer
        for layer in private.layers(classifier)
        # What a class of a user's own computes is its own.
        if getattr(type(layer), "convolution_op", None)
        is keras.layers.Conv2D.convolution_op
    ]
    if tf.config.get_visible_devices("GPU"):
        layers = []
    with layer_calls.replaced(layers, _convolved, "convolution_op"):
        yield


def _convolved(layer, convolve, images, kernel):
    _, height, width, channels = images.shape
    fits = (
        layer.data_format == "channels_last"
        and channels == 1
        and height is not None
        and width is not None
        and layer.padding in ("valid", "same")
        and {*layer.strides, *layer.dilation_rate} == {1}
        and images.dtype in _INPUTS
    )
    if not fits:
        return convolve(images, kernel)
    kernel = tf.convert_to_tensor(kernel)

    @tf.custom_gradient
    def through(images):
        def gradient(upstream):
            return _to_images(upstream, kernel, layer.padding)

        return convolve(images, kernel), gradient

    return through(images)


def _to_images(upstream, kernel, padding):
    """The gradient of a convolution, `[batch, height, width, 1]`.

    A pixel gets, from every place k of the kernel, kernel[k] times the
    gradient of the output that saw it there: the product of the kernel and the
    upstream gradient, moved by k.

    Args:
        upstream: The outputs' gradient, `[batch, height, width, channels]`.
        kernel: `[places, places, 1, channels]`.
        padding: "valid" or "same".
    """
    height, width, channels = upstream.shape[1:]
    down, across = kernel.shape[:2]
    columns = tf.matmul(
        tf.reshape(kernel, (-1, channels)),
        tf.reshape(upstream, (-1, channels)),
        transpose_b=True,
    )
    columns = tf.reshape(columns, (down, across, -1, height, width))
    rows = tf.add_n(
        [
            tf.pad(columns[:, k], [[0, 0]] * 3 + [[k, across - 1 - k]])
            for k in range(across)
        ]
    )
    whole = tf.add_n(
        [
            tf.pad(rows[k], [[0, 0], [k, down - 1 - k], [0, 0]])
            for k in range(down)
        ]
    )
    if padding == "same":
        top, left = (down - 1) // 2, (across - 1) // 2
        whole = whole[:, top : top + height, left : left + width]
    return whole[..., None]
