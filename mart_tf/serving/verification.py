"""A version run outside Python's TensorFlow, and compared with the classifier.

A load alone proves little: variables that a server cannot find (keras#19274,
tensorflow/serving#2226), and weights that are missing, show only in a run. The
signatures are asked about the same images, made here without the graph's own
arithmetic, so that none can decode or scale them in a way of its own.
"""

import pathlib

import numpy as np
import tensorflow as tf

from mart_tf import environment
from mart_tf import private
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
    return private.saved_model(content).meta_graphs[0].signature_def[name]


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
        each size, random levels from 0 to 255 in that signature's form. The
        images of a size are the same for all names.
    """
    generator = np.random.default_rng(0)
    batches = [
        generator.integers(0, 256, (size, *classifier.image_shape), np.uint8)
        for size in sizes
    ]
    return [
        (name, _request(classifier, name, levels))
        for name in names
        for levels in batches
    ]


def _request(classifier, name, levels):
    """Images, uint8 `[batch, ...]`, as a signature takes them."""
    if name == endpoints.DEFAULT:
        return _spread(levels, classifier.pixel_range)
    batch = np.empty(len(levels), object)
    batch[:] = [tf.io.encode_png(each).numpy() for each in levels]
    if name == endpoints.CLASSIFY:
        batch[:] = [_example(encoded) for encoded in batch]
    return batch


def _spread(levels, pixel_range):
    """Levels 0 to 255 over the pixel range, float32."""
    low, high = map(np.float32, pixel_range or (0.0, 1.0))
    return low + levels.astype(np.float32) / np.float32(255.0) * (high - low)


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
    answers = [
        (name, batch, result)
        for (name, batch), result in zip(
            asked, run(directory, asked), strict=True
        )
    ]
    check_agreement(answers)
    return max(difference(classifier, *answer) for answer in answers)


def check_agreement(answers):
    """Refuses signatures that answer otherwise on the same images.

    Args:
        answers: Triples of a signature's name, its input and its outputs. The
            images of a batch size are the same for all names.

    Raises:
        ValueError: If one differs from `serving_default`.
    """
    default = {
        len(batch): result
        for name, batch, result in answers
        if name == endpoints.DEFAULT
    }
    for name, batch, result in answers:
        expected = default.get(len(batch))
        if name == endpoints.DEFAULT or expected is None:
            continue
        whose = f"those of {endpoints.DEFAULT!r} on the same images"
        if name == endpoints.CLASSIFY:
            scores = expected["probabilities"]
            _share(name, "scores", result["scores"], scores, whose)
        else:
            for output in ("logits", "probabilities"):
                served, scores = result[output], expected[output]
                _share(name, output, served, scores, whose)


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
    levels = [tf.io.decode_png(encoded).numpy() for encoded in batch]
    return tf.constant(_spread(np.stack(levels), classifier.pixel_range))


def _share(name, output, served, expected, whose="the classifier's"):
    """The largest difference, as a share of the largest magnitude."""
    if served.shape != expected.shape:
        raise ValueError(
            f"The {output} of the signature {name!r} have the shape "
            f"{served.shape}, {whose} {expected.shape}."
        )
    scale = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    share = float(np.abs(served - expected).max() / scale)
    # Written so that NaN fails.
    if not share <= TOLERANCE:
        raise ValueError(
            f"The {output} of the signature {name!r} differ from {whose} by "
            f"{share:.1e} of their largest magnitude; expected at most "
            f"{TOLERANCE:.0e}."
        )
    return share
