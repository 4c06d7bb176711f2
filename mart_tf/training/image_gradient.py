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
        if isinstance(layer, keras.layers.Conv2D)
        and type(layer).convolution_op is keras.layers.Conv2D.convolution_op
    ]
    if tf.config.get_visible_devices("GPU"):
        layers = []
    with layer_calls.replaced(layers, _convolved, "convolution_op"):
        yield


def _convolved(layer, convolve, inputs, kernel):
    shape = inputs.shape
    fits = (
        layer.data_format == "channels_last"
        and shape.rank == 4
        and shape[-1] == 1
        and None not in shape[1:]
        and layer.padding in ("valid", "same")
        and {*layer.strides, *layer.dilation_rate} == {1}
        and inputs.dtype in _INPUTS
    )
    if not fits:
        return convolve(inputs, kernel)
    kernel = tf.convert_to_tensor(kernel)

    @tf.custom_gradient
    def through(images):
        outputs = convolve(images, kernel)

        def gradient(upstream):
            # What comes after may not know its shape.
            upstream = tf.ensure_shape(upstream, outputs.shape)
            return _to_images(upstream, kernel, layer.padding)

        return outputs, gradient

    return through(inputs)


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
    # In bfloat16 each sum would be rounded.
    columns = tf.cast(columns, tf.float32)
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
    return tf.cast(whole[..., None], upstream.dtype)
