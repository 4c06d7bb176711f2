"""A version run outside Python's TensorFlow, and compared with the classifier.

A load alone proves little: variables that a server cannot find (keras#19274,
tensorflow/serving#2226), and weights that are missing, show only in a run.
"""

import pathlib

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from mart_tf import environment
from mart_tf.models import outputs as model_outputs
from mart_tf.serving import endpoints
from mart_tf.serving import runner

TOLERANCE = 1e-5


def graph_file(directory):
    """The file with a SavedModel's graph and signatures, a `pathlib.Path`."""
    return pathlib.Path(directory, "saved_model.pb")


def signature(directory, name=endpoints.DEFAULT):
    """A signature of a SavedModel, read from its `saved_model.pb`.

    Returns:
        A `SignatureDef`: `inputs` and `outputs` map each name to the tensor's
        name in the graph, its dtype and its shape.
    """
    content = graph_file(directory).read_bytes()
    saved_model = saved_model_pb2.SavedModel.FromString(content)
    return saved_model.meta_graphs[0].signature_def[name]


def tensors(definition):
    """A signature's tensors in the graph, as `c_api.Session` takes them."""
    return {
        "inputs": {key: each.name for key, each in definition.inputs.items()},
        "outputs": {key: each.name for key, each in definition.outputs.items()},
    }


def requests(classifier, names, sizes):
    """Random requests, always the same.

    Args:
        classifier: An `endpoints.Classifier`.
        names: Names of signatures.
        sizes: Batch sizes.

    Returns:
        Pairs of a signature's name and its input: for each name a batch of
        each size, uniform noise in the pixel range.
    """
    generator = np.random.default_rng(0)
    shape = classifier.image_shape
    found = []
    for name in names:
        for size in sizes:
            if name == endpoints.DEFAULT:
                low, high = classifier.pixel_range
                noise = generator.random((size, *shape), np.float32)
                batch = (low + noise * (high - low)).astype(np.float32)
            else:
                batch = np.empty(size, object)
                for row in range(size):
                    levels = generator.integers(0, 256, shape, np.uint8)
                    batch[row] = tf.io.encode_png(levels).numpy()
            if name == endpoints.CLASSIFY:
                batch[:] = [_example(encoded) for encoded in batch]
            found.append((name, batch))
    return found


def _example(encoded):
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    features = tf.train.Features(feature={endpoints.FEATURE: value})
    return tf.train.Example(features=features).SerializeToString()


@environment.exact_float32()
def compare(directory, classifier, asked):
    """Runs requests on the C++ runtime, and compares with the classifier.

    Args:
        directory: The version's directory.
        classifier: The `endpoints.Classifier` that it was made of.
        asked: Pairs as `requests` gives them.

    Returns:
        The largest difference between logits, as a share of the largest
        magnitude among the classifier's.

    Raises:
        ValueError: If the version cannot be loaded or run there, or answers
            otherwise.
    """
    results = run(directory, asked)
    return max(
        difference(classifier, name, batch, result)
        for (name, batch), result in zip(asked, results, strict=True)
    )


def run(directory, asked):
    """Runs requests on the C++ runtime, in a process of its own.

    Args:
        directory: The version's directory.
        asked: Pairs of a signature's name and its input, an array.

    Returns:
        A list with the outputs of each request: a dict of arrays.

    Raises:
        ValueError: If the version cannot be loaded or run there.
    """
    signatures = {
        name: tensors(signature(directory, name))
        for name in {name for name, _ in asked}
    }
    return runner.run(directory, signatures, asked)


def difference(classifier, name, batch, result):
    """Compares one request's outputs with the classifier's."""
    # Where the C++ runtime computes: a GPU rounds in another way.
    with tf.device("CPU:0"):
        images = _images(classifier, name, batch)
        scores = classifier.model(images, training=False)
        logits = model_outputs.logits(scores, classifier.outputs).numpy()
    names = np.array([each.encode() for each in classifier.class_names], object)
    if name == endpoints.CLASSIFY:
        expected = tf.nn.softmax(logits).numpy()
        share = _share(name, "scores", result["scores"], expected)
        if not (result["classes"] == names).all():
            raise ValueError(
                f"The signature {name!r} gives other classes than the names "
                f"{', '.join(classifier.class_names)}."
            )
        return share
    served = result["logits"]
    share = _share(name, "logits", served, logits)
    probabilities = tf.nn.softmax(served.astype(np.float64)).numpy()
    _share(name, "probabilities", result["probabilities"], probabilities)
    index = served.argmax(axis=-1)
    if not np.array_equal(result["class_index"], index):
        raise ValueError(
            f"The class index of the signature {name!r} is not that of its "
            "greatest logit."
        )
    if not np.array_equal(result["class_name"], names[index]):
        raise ValueError(
            f"The class name of the signature {name!r} is not that of its "
            "class index."
        )
    return share


def _images(classifier, name, batch):
    """The images that the input of a signature stands for."""
    if name == endpoints.DEFAULT:
        return tf.constant(batch)
    if name == endpoints.CLASSIFY:
        features = [
            tf.train.Example.FromString(each).features.feature for each in batch
        ]
        batch = [
            each[endpoints.FEATURE].bytes_list.value[0] for each in features
        ]
    return endpoints.decode(
        tf.constant(list(batch)), classifier.image_shape, classifier.pixel_range
    )


def _share(name, output, served, expected):
    """The largest difference, as a share of the largest magnitude."""
    if served.shape != expected.shape:
        raise ValueError(
            f"The signature {name!r} gives {output} of shape {served.shape}, "
            f"the classifier of shape {expected.shape}."
        )
    scale = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    share = float(np.abs(served - expected).max() / scale)
    # Written so that NaN fails.
    if not share <= TOLERANCE:
        raise ValueError(
            f"The {output} of the signature {name!r} differ from the "
            f"classifier's by {share:.1e} of their largest magnitude; expected "
            f"at most {TOLERANCE:.0e}."
        )
    return share
