"""Exported versions on every runtime at hand, against Keras.

    python benchmarks/served_runtimes.py

Three networks (digits_cnn, small_cnn, resnet18) are trained for two steps in
float32 and in bfloat16 and exported. Every signature then runs on TensorFlow's
C++ runtime through its C API and by `saved_model_cli run`; `serving_default`
also on OpenVINO where that is installed, told to compute in
float32: an independent reader of the format. Printed for each: the largest
difference from Keras, of the logits (of `classify`, of the probabilities), as a
share of their largest magnitude, over batches of 1, 7 and 256 (saved_model_cli:
7); whether a wrong shape and a wrong type are refused; and the bytes of the
weights for each parameter. A difference above 1e-5 ends it with status 1.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
import keras
import numpy as np
import tensorflow as tf

import mart_tf
from mart_tf.models import loading
from mart_tf.models import rebuilding
from mart_tf.serving import c_api
from mart_tf.serving import endpoints
from mart_tf.serving import verification

_NETWORKS = {
    "digits_cnn": (8, 8, 1),
    "small_cnn": (28, 28, 1),
    "resnet18": (32, 32, 3),
}
_SIZES = (1, 7, 256)


def main(_):
    """Prints a line for each network, precision and runtime."""
    print(f"{'network':12} {'trained in':15} {'runtime':30} {'difference':>10}")
    worst = 0.0
    for name, shape in _NETWORKS.items():
        for policy in ("float32", "mixed_bfloat16"):
            with tempfile.TemporaryDirectory() as folder:
                model = trained(name, shape, policy)
                path = mart_tf.export_saved_model(model, folder)
                for runtime, difference in measure(model, shape, path):
                    if isinstance(difference, float):
                        worst = max(worst, difference)
                        difference = f"{difference:.1e}"
                    print(
                        f"{name:12} {policy:15} {runtime:30} {difference:>10}",
                        flush=True,
                    )
    return worst > verification.TOLERANCE


def trained(name, shape, policy):
    """A network after two steps of adversarial training, as float32."""
    keras.utils.set_random_seed(0)
    network = loading.build(name, shape, 10, precision=policy)
    types = {layer.compute_dtype for layer in network.layers}
    assert ("bfloat16" in types) == (policy != "float32")
    model = mart_tf.AdversarialClassifier(
        network, defense="standard", threat=mart_tf.ThreatModel(epsilon=0.1)
    )
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    images = np.random.default_rng(0).random((32, *shape), np.float32)
    model.fit(images, np.arange(32) % 10, batch_size=16, verbose=0)
    return rebuilding.float32_copy(network)


def measure(model, shape, path):
    """Pairs of a runtime or a question, and the difference or the answer."""
    classifier = endpoints.Classifier(
        model, "logits", shape, (0.0, 1.0), tuple("0123456789")
    )
    for name in endpoints.NAMES:
        asked = verification.requests(classifier, [name], _SIZES)
        yield (
            f"C API {name}",
            verification.compare(path, classifier, asked),
        )
        [(_, batch)] = verification.requests(classifier, [name], [7])
        yield f"saved_model_cli {name}", by_cli(classifier, path, name, batch)
    if importlib.util.find_spec("openvino"):
        yield "OpenVINO serving_default", by_openvino(classifier, path)
    yield "C API, wrong shape and type", refused(path, shape)
    size = sum(
        file.stat().st_size
        for file in pathlib.Path(path, "variables").iterdir()
    )
    yield "bytes a parameter", f"{size / model.count_params():.3f}"


def by_cli(classifier, path, name, batch):
    """The difference that `saved_model_cli run` shows."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/batch.npy", batch)
        subprocess.run(
            [
                str(pathlib.Path(sys.executable).with_name("saved_model_cli")),
                "run",
                f"--dir={path}",
                "--tag_set=serve",
                f"--signature_def={name}",
                f"--inputs={endpoints.INPUTS[name]}={folder}/batch.npy",
                f"--outdir={folder}/out",
            ],
            check=True,
            capture_output=True,
        )
        files = pathlib.Path(folder, "out").glob("*.npy")
        result = {file.stem: np.load(file, allow_pickle=True) for file in files}
    return verification.difference(classifier, name, batch, result)


def by_openvino(classifier, path):
    """The difference on OpenVINO, or why it cannot run the graph."""
    import openvino

    try:
        network = openvino.Core().compile_model(
            path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
    except RuntimeError as error:
        return f"cannot: {str(error).strip().splitlines()[-1]}"
    worst = 0.0
    asked = verification.requests(classifier, [endpoints.DEFAULT], _SIZES)
    for _, batch in asked:
        answer = network({"images": batch})
        [logits] = [
            value for key, value in answer.items() if "logits" in key.names
        ]
        expected = classifier.model(tf.constant(batch), training=False).numpy()
        difference = np.abs(logits - expected).max() / np.abs(expected).max()
        worst = max(worst, float(difference))
    return worst


def refused(path, shape):
    """Whether the C++ runtime refuses what does not fit: "refused"."""
    signature = verification.signature(path)
    session = c_api.Session(path, **verification.tensors(signature))
    wrong = [
        np.zeros((1, shape[0] - 1, *shape[1:]), np.float32),
        np.zeros((1, *shape), np.float64),
        np.zeros(shape, np.float32),
    ]
    with session:
        for batch in wrong:
            try:
                session.run({"images": batch})
            except c_api.StatusError as error:
                if error.code == "INVALID_ARGUMENT":
                    continue
            return f"took {batch.dtype} {batch.shape}"
    return "refused"


if __name__ == "__main__":
    app.run(main)
