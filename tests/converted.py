"""A small network that has learned the digits, in files of other runtimes.

Made once in a process: the converters take seconds.
"""

import atexit
import functools
import pathlib
import shutil
import tempfile
import typing

import keras
import numpy as np
import pytest
import trained

from mart_tf.serving import endpoints

FILES = ("model.tflite", "model_int8.tflite", "model.onnx")


class Converted(typing.NamedTuple):
    """What `digits` made."""

    classifier: endpoints.Classifier
    folder: pathlib.Path
    facts: dict
    images: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray


def need():
    """Skips where what computes such files is not installed."""
    for module in ("ai_edge_litert", "onnxruntime", "onnx", "tf2onnx"):
        pytest.importorskip(module)


def network():
    layers = keras.layers
    return [
        layers.Conv2D(8, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dropout(0.2),
    ]


def as_classifier(model, outputs="logits"):
    names = tuple(map(str, range(10)))
    return endpoints.Classifier(model, outputs, (8, 8, 1), (0.0, 1.0), names)


@functools.cache
def digits():
    """All three files of one network, beside what they were made of."""
    from mart_tf.serving import formats

    model, pixels, labels = trained.on_digits(0, network)
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    classifier = as_classifier(model)
    written = formats.write(
        classifier, folder, ["litert", "onnx"], pixels[1400:], pixels[:100]
    )
    facts = {path.name: facts for path, facts in written}
    return Converted(
        classifier,
        folder / "assets.extra",
        facts,
        pixels[1400:],
        labels[1400:],
        pixels[:100],
    )
