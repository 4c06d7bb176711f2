"""A version run outside Python's TensorFlow, and compared with the classifier.

A load alone proves little: variables that a server cannot find (keras#19274,
tensorflow/serving#2226), and weights that are missing, show only in a run.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from mart_tf.serving import c_api

TOLERANCE = 1e-5
_BATCH_SIZES = (1, 3)


def signature(directory, name="serving_default"):
    """A signature of a SavedModel, read from its `saved_model.pb`.

    Returns:
        A `SignatureDef`: `inputs` and `outputs` map each name to the tensor's
        name in the graph, its dtype and its shape.
    """
    saved_model = saved_model_pb2.SavedModel()
    content = pathlib.Path(directory, "saved_model.pb").read_bytes()
    saved_model.ParseFromString(content)
    return saved_model.meta_graphs[0].signature_def[name]


def random_images(image_shape):
    """Batches of two sizes, uniform in [0, 1), always the same.

    Args:
        image_shape: Shape of one image.

    Returns:
        A list of float32 arrays `[batch, *image_shape]`.
    """
    generator = np.random.default_rng(0)
    return [
        generator.random((size, *image_shape), np.float32)
        for size in _BATCH_SIZES
    ]


def run(directory, batches):
    """Runs `serving_default` on the C++ runtime, in a process of its own.

    Args:
        directory: The version's directory.
        batches: A list of float32 arrays of images.

    Returns:
        A list with the outputs of each batch: a dict of arrays.

    Raises:
        ValueError: If the version cannot be loaded or run there.
    """
    tensors = signature(directory)
    request = {
        "directory": str(directory),
        "inputs": {key: info.name for key, info in tensors.inputs.items()},
        "outputs": {key: info.name for key, info in tensors.outputs.items()},
    }
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "request.json").write_text(
            json.dumps(request), encoding="utf-8"
        )
        for index, images in enumerate(batches):
            np.savez(f"{folder}/inputs_{index}.npz", images=images)
        _run_program(folder)
        results = []
        for index in range(len(batches)):
            with np.load(f"{folder}/outputs_{index}.npz") as arrays:
                results.append(dict(arrays))
    return results


def _run_program(folder):
    environment = os.environ | {
        # Found wherever this process found them, installed or not.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # A GPU is this process's, and rounds in another way.
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    process = subprocess.run(
        [sys.executable, "-m", c_api.__name__, folder],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        # Its own sentence, or else the last line of a crash.
        said = process.stdout.split() or process.stderr.split("\n")[-2:]
        raise ValueError(
            "The SavedModel does not run on TensorFlow's C++ runtime: "
            f"{' '.join(said).strip()} (exit status {process.returncode})."
        )


def difference(logits, result):
    """Compares one batch's outputs with the classifier's logits.

    Args:
        logits: The classifier's logits, float32 `[batch, classes]`.
        result: The outputs of the version for the same images.

    Returns:
        The largest difference between logits, as a share of the largest
        magnitude among the classifier's.

    Raises:
        ValueError: If it is above 1e-5, or the probabilities or the class
            index do not follow from the logits.
    """
    served = result["logits"]
    if served.shape != logits.shape:
        raise ValueError(
            f"The SavedModel gives logits of shape {served.shape}, the "
            f"classifier of shape {logits.shape}."
        )
    scale = max(np.abs(logits).max(), np.finfo(np.float32).tiny)
    share = float(np.abs(served - logits).max() / scale)
    # Written so that NaN fails.
    if not share <= TOLERANCE:
        raise ValueError(
            f"The SavedModel's logits differ from the classifier's by "
            f"{share:.1e} of their largest magnitude; expected at most "
            f"{TOLERANCE:.0e}."
        )
    probabilities = tf.nn.softmax(served.astype(np.float64)).numpy()
    error = np.abs(result["probabilities"] - probabilities).max()
    if not error <= TOLERANCE:
        raise ValueError(
            f"The SavedModel's probabilities differ from the softmax of its "
            f"logits by {error:.1e}; expected at most {TOLERANCE:.0e}."
        )
    if not np.array_equal(result["class_index"], served.argmax(axis=-1)):
        raise ValueError(
            "The SavedModel's class index is not that of its greatest logit."
        )
    return share
