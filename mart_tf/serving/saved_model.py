"""A Keras classifier written as a SavedModel version, for TF Serving.

The signature `serving_default` takes float32 `images` in the classifier's own
pixel range and gives `logits`, `probabilities` and `class_index`.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from mart_tf.models import loading
from mart_tf.models import outputs as model_outputs
from mart_tf.serving import verification
from mart_tf.serving import versions


@dataclasses.dataclass(frozen=True)
class Version:
    """A version that was written.

    Attributes:
        path: Its directory.
        signature: Lines that describe `serving_default`.
        difference: Largest difference between its logits on the C++ runtime
            and the classifier's, as a share of their largest magnitude;
            None if it was not verified.
    """

    path: str
    signature: tuple
    difference: float | None


def export_saved_model(model, directory, *, outputs=None, verify=True):
    """Writes a classifier as the next SavedModel version in a directory.

    Args:
        model: A Keras classifier, or an `AdversarialClassifier`, which says
            itself what its classifier returns.
        directory: Where the versions 1, 2, ... lie; made if it is missing.
        outputs: What the classifier returns: "logits" or "probabilities";
            default: what an `AdversarialClassifier` says, else "logits".
        verify: Whether to run the version in a separate process on
            TensorFlow's C++ runtime, and compare it with the classifier,
            before it can be seen. It takes about a second.

    Returns:
        The path of the new version, a string.

    Raises:
        ValueError: If the classifier cannot be exported, `outputs` is not what
            it returns, the directory cannot hold versions, or the version
            fails the verification. Nothing is left behind.
    """
    return write_version(model, directory, outputs=outputs, verify=verify).path


def write_version(model, directory, *, outputs=None, verify=True):
    """`export_saved_model`, with what was seen: returns a `Version`."""
    model, outputs = model_outputs.unwrap(model, outputs)
    versions.check(directory)
    image_shape = _image_shape(model)
    classifier = loading.float32_copy(model)
    batches = verification.random_images(image_shape)
    expected = [_reference(classifier, images, outputs) for images in batches]
    difference = None

    def fill(hidden):
        nonlocal difference
        _save(classifier, image_shape, outputs, hidden)
        if verify:
            results = verification.run(hidden, batches)
            difference = max(
                verification.difference(logits, result)
                for logits, result in zip(expected, results, strict=True)
            )

    path = versions.write(directory, fill)
    signature = _describe(verification.signature(path))
    return Version(path, signature, difference)


def _image_shape(model):
    """The shape of one image, from a model that was built."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Got a {type(model).__name__} to export; expected a Keras model."
        )
    shape = getattr(model, "input_shape", None)
    if shape is None:
        # A subclassed model knows only what it was first called with.
        shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError(
            f"The model {model.name!r} has no weights yet; call it once on a "
            "batch of images before it is exported."
        )
    sizes = shape[1:] if isinstance(shape, (tuple, list)) else ()
    if not sizes or not all(isinstance(size, int) for size in sizes):
        raise ValueError(
            f"The model {model.name!r} takes inputs of shape {shape}; expected "
            "one batch of images of a fixed size, such as (None, 32, 32, 3)."
        )
    return tuple(sizes)


def _reference(classifier, images, outputs):
    """The classifier's logits, once they are known to make sense."""
    # Where the C++ runtime will compute them: a GPU rounds in another way.
    with tf.device("CPU:0"):
        scores = classifier(tf.constant(images), training=False)
    if not tf.is_tensor(scores):
        raise ValueError(
            f"The model {classifier.name!r} returns a {type(scores).__name__}; "
            "expected one output, scores of shape [batch, classes]."
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"The model {classifier.name!r} returns scores that are not finite "
            "for images in [0, 1]; expected a trained classifier."
        )
    model_outputs.check_declared(classifier, outputs)
    model_outputs.check_scores(scores, outputs)
    return model_outputs.logits(scores, outputs).numpy()


def _save(classifier, image_shape, outputs, directory):
    def serve(images):
        # The C++ session checks the type alone: another rank, let through,
        # aborts the server's process.
        images = tf.ensure_shape(images, [None, *image_shape])
        scores = classifier(images, training=False)
        logits = model_outputs.logits(scores, outputs)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "class_index": tf.argmax(logits, axis=-1),
        }

    # Without track(): it stores every weight twice (keras#23553).
    archive = keras.export.ExportArchive()
    images = tf.TensorSpec([None, *image_shape], tf.float32, name="images")
    archive.add_endpoint("serving_default", serve, [images])
    try:
        archive.write_out(directory, verbose=False)
    # What a user's own layers raise while they are traced can be anything.
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise ValueError(
            f"The model {classifier.name!r} cannot be written as a "
            f"SavedModel: {type(error).__name__}: {cause}"
        ) from error


def _describe(signature):
    lines = []
    for kind in ("inputs", "outputs"):
        for name, info in sorted(getattr(signature, kind).items()):
            shape = ", ".join(
                "batch" if dim.size < 0 else str(dim.size)
                for dim in info.tensor_shape.dim
            )
            dtype = tf.dtypes.as_dtype(info.dtype).name
            lines.append(f"{kind[:-1]} {name}: {dtype} [{shape}]")
    return tuple(lines)
