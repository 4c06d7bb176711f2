"""A file that another runtime computes, as an operation of TensorFlow's."""

import numpy as np
import tensorflow as tf

from mart_tf import runtimes
from mart_tf.models import declared


def read(path):
    """What the network in a `.tflite` or `.onnx` file computes.

    Args:
        path: A `pathlib.Path`.

    Returns:
        A function from images to scores, without gradients, and facts as of
        `models.signatures.read`. `weights` are the bytes of the file, for they
        decide what it answers.

    Raises:
        ValueError: As of `runtimes.read`.
    """
    network, content = runtimes.read(path)

    def scores(images):
        answers = tf.numpy_function(network.answer, [images], tf.float32)
        return tf.ensure_shape(answers, [images.shape[0], network.classes])

    said = declared.read(path)
    return scores, {
        "name": str(path),
        "input_shape": network.input_shape,
        "parameters": None,
        "weights": lambda: [np.frombuffer(content, np.uint8)],
        "in_python": True,
        "rounding": network.rounding,
        "pixel_range": said and said.pixel_range,
    }
