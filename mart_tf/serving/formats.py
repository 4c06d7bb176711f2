"""The classifier of a version in files of other runtimes, beside its graph.

They lie in the version's `assets.extra`, which a model server passes over, and
so appear with the version, at once and verified. Each is run by its own
runtime on test images and compared with the classifier before.
"""

import contextlib
import hashlib
import io
import warnings

import numpy as np
import tensorflow as tf

from mart_tf import environment
from mart_tf import errors
from mart_tf import runtimes
from mart_tf.serving import card

# Files by format, and what each computes in.
FILES = {
    "litert": {"model.tflite": "float32", "model_int8.tflite": "int8"},
    "onnx": {"model.onnx": "float32"},
}
# Of the largest magnitude of the classifier's scores.
TOLERANCE = 1e-4
# Of a file in int8: how many images it must give the classifier's class of.
LEAST_AGREEMENT = 0.9

# Images in one pass.
_BATCH = 100


def write(classifier, directory, formats, images, calibration):
    """Writes files of other formats into a version that cannot be seen yet.

    Args:
        classifier: The `endpoints.Classifier` of the version.
        directory: The version's directory.
        formats: Names in `FILES`.
        images: Test images that each file is compared with the classifier on,
            float32 `[n, ...]` in the pixel range.
        calibration: Training images, the same way: what the ranges of int8
            are chosen by.

    Returns:
        Pairs of a file's path and facts for the model card, a dict.

    Raises:
        ValueError: If the network cannot be written so, or a file answers
            otherwise than the classifier.
    """
    folder = card.folder(directory)
    expected = _scores(classifier.model, images)
    written = []
    for name in formats:
        for file, precision in FILES[name].items():
            path = folder / file
            try:
                _convert(classifier, path, precision, calibration)
                network, content = runtimes.read(path)
                scores = _in_batches(network.answer, images)
            # What converters and runtimes raise, each for the operations that
            # it lacks, can be anything.
            except Exception as error:
                cause = f"{type(error).__name__}: {errors.first_line(error)}"
                raise ValueError(
                    f"The model {classifier.model.name!r} cannot be had as "
                    f"{file}, in {precision}; leave {name} out of --formats: "
                    f"{cause}"
                ) from error
            facts = _compare(path, precision, scores, expected)
            facts["bytes"] = len(content)
            facts["sha256"] = hashlib.sha256(content).hexdigest()
            if precision == "int8":
                facts["calibration_images"] = len(calibration)
            written.append((path, facts))
    return written


def _convert(classifier, path, precision, calibration):
    """Writes one file by Keras's own export."""
    sizes = [None, *classifier.image_shape]
    options = {}
    if path.suffix == ".tflite":
        options = _litert_options(precision, calibration)
    # Of versions of numpy, and advice to developers of converters.
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        classifier.model.export(
            path,
            format="onnx" if path.suffix == ".onnx" else "litert",
            verbose=False,
            input_signature=[tf.TensorSpec(sizes, name="images")],
            **options,
        )


def _litert_options(precision, calibration):
    """Settings of TensorFlow's converter; operations of LiteRT's own alone."""
    if precision == "float32":
        kinds = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return {"target_spec": {"supported_ops": kinds}}

    def one_by_one():
        for image in calibration:
            yield [image[np.newaxis]]

    return {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": one_by_one,
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        # Not even its first and last operations compute in floats.
        "inference_input_type": tf.int8,
        "inference_output_type": tf.int8,
    }


@environment.exact_float32()
def _scores(model, images):
    # Where the other runtimes compute: a GPU rounds in another way.
    with tf.device("CPU:0"):
        return _in_batches(
            lambda batch: model(batch, training=False).numpy(), images
        )


def _in_batches(answer, images):
    starts = range(0, len(images), _BATCH)
    return np.concatenate([answer(images[i : i + _BATCH]) for i in starts])


def _compare(path, precision, scores, expected):
    """Facts on a file, once its scores are those of the classifier."""
    scale = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    share = float(np.abs(scores - expected).max() / scale)
    agreement = float((scores.argmax(1) == expected.argmax(1)).mean())
    runtime = runtimes.of(path)
    # Written so that NaN fails.
    if precision == "float32" and not share <= TOLERANCE:
        raise ValueError(
            f"The scores of {path.name} on {runtime.name} differ from the "
            f"classifier's by {share:.1e} of their largest magnitude; "
            f"expected at most {TOLERANCE:.0e}, and nothing was written."
        )
    if not agreement >= LEAST_AGREEMENT:
        raise ValueError(
            f"{path.name} on {runtime.name} gives the classifier's class of "
            f"{agreement:.2%} of {len(scores)} test images; expected at least "
            f"{LEAST_AGREEMENT:.0%}, and nothing was written."
        )
    return {
        "precision": precision,
        "runtime": runtime.version(),
        "difference": share,
        "same_class": agreement,
    }
