"""2 x 2 max pooling with a fast gradient on a CPU.

TensorFlow's own gradient of max pooling takes as long there as that of a
convolution: a quarter of a gradient step on the small CNN. The values and the
gradient are the same to the last bit: of equal maxima the first one in the
window gets the gradient.
"""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="mart_tf")
class MaxPooling2D(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` for windows of 2 x 2 that do not overlap."""

    def call(self, inputs):
        return _max_pool(inputs)


def accelerated(model):
    """The same network with the same weights and a fast gradient.

    Args:
        model: A built `keras.Model`.

    Returns:
        A new `keras.Model`; or the model itself where a GPU computes, where
        it has no 2 x 2 max pooling or takes images of any size, or where it
        cannot be rebuilt from its configuration.
    """
    shape = getattr(model, "input_shape", None)
    free = not isinstance(shape, tuple) or None in shape[1:]
    if free or tf.config.list_physical_devices("GPU"):
        return model
    try:
        config = keras.saving.serialize_keras_object(model)
        rewritten = _rewritten(config)
        if rewritten == config:
            return model
        # Safe mode guards against configurations from elsewhere.
        fast = keras.saving.deserialize_keras_object(rewritten, safe_mode=False)
        fast.set_weights(model.get_weights())
    except (TypeError, ValueError, NotImplementedError):
        return model
    return fast


def _rewritten(config):
    """A serialized model with every such pooling replaced."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(_rewritten, config))
    if not isinstance(config, dict):
        return config
    if _qualifies(config):
        name = MaxPooling2D.__name__
        config = {
            **config,
            "module": __name__,
            "registered_name": f"mart_tf>{name}",
        }
    return {key: _rewritten(value) for key, value in config.items()}


def _qualifies(config):
    settings = config.get("config")
    return (
        config.get("class_name") == "MaxPooling2D"
        and config.get("module") == "keras.layers"
        and tuple(settings["pool_size"]) == (2, 2)
        and tuple(settings["strides"]) == (2, 2)
        and settings["padding"] == "valid"
        and settings["data_format"] == "channels_last"
    )


@tf.custom_gradient
def _max_pool(images):
    pooled = tf.nn.max_pool2d(images, 2, 2, "VALID")

    def gradient(upstream):
        height, width = (2 * size for size in pooled.shape[1:3])
        nothing = tf.zeros([], upstream.dtype)
        taken = tf.zeros_like(pooled, tf.bool)
        rows = []
        for i in (0, 1):
            row = []
            for j in (0, 1):
                is_maximum = images[:, i:height:2, j:width:2] == pooled
                first = is_maximum & ~taken
                taken |= is_maximum
                row.append(tf.where(first, upstream, nothing))
            # Two columns side by side: [batch, height / 2, width, channels].
            rows.append(_interleaved(row, 2))
        whole = _interleaved(rows, 1)
        # An odd last row or column is in no window.
        below = images.shape[1] - height
        beside = images.shape[2] - width
        return tf.pad(whole, [[0, 0], [0, below], [0, beside], [0, 0]])

    return pooled, gradient


def _interleaved(parts, axis):
    """Two tensors merged along an axis: first, second, first, ..."""
    stacked = tf.stack(parts, axis=axis + 1)
    shape = tf.shape(parts[0])
    twice = tf.one_hot(axis, 4, on_value=2, off_value=1, dtype=shape.dtype)
    return tf.reshape(stacked, shape * twice)
