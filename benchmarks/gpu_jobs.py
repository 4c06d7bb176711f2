"""What benchmarks/gpu.py measures: each in a process of its own.

    python benchmarks/gpu_jobs.py SETTINGS JOB

Both are JSON: a `Settings`, and the kind of a job with its arguments. The last
line of the output is "result " and a JSON object; one with "ok": false has
failed.
"""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_ATTACK_STEPS = 10

# What two devices may differ by: weights after a step, and logits.
TOLERANCE = 1e-4
# And accuracies: an example or two of the digits' test images.
_ACCURACY_TOLERANCE = 0.01


class Settings(NamedTuple):
    """What holds for all jobs.

    Attributes:
        tiny: Whether measurements are short, as on a CPU.
        seconds: Least length of a measurement.
        folder: For runs and weights.
        lock: A file that whoever measures holds.
        data_dir: Where TFDS data lies, or None.
    """

    tiny: bool
    seconds: float
    folder: str
    lock: str
    data_dir: str | None


def main(settings, job):
    """Does one job."""
    settings = Settings(**json.loads(settings))
    job = json.loads(job)
    result = _KINDS[job.pop("kind")](settings, **job)
    print("result " + json.dumps(result))


def step(settings, device, network, defenses):
    """One training step of each defense; weights before and after in a file."""
    import keras
    import numpy as np

    tf = _tensorflow(device, tf32=False)
    strategy = tf.distribute.get_strategy()
    if device == "two":
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        devices = [d.name for d in tf.config.list_logical_devices(kind)]
        assert len(devices) == 2, devices
        strategy = tf.distribute.MirroredStrategy(devices)
    import mart_tf

    shape = {"small_cnn": (28, 28, 1), "digits_cnn": (8, 8, 1)}.get(
        network, (32, 32, 3)
    )
    generator = np.random.RandomState(0)
    size = 32
    images = generator.rand(size, *shape).astype("float32")
    labels = generator.randint(0, 10, size).astype("int32")
    kept = {}
    for defense in defenses:
        keras.backend.clear_session()
        with strategy.scope():
            classifier = mart_tf.models.build(network, shape, 10)
            # Keras draws the masks of dropout alike on each replica.
            for layer in classifier.layers:
                if isinstance(layer, keras.layers.Dropout):
                    layer.rate = 0.0
            # As numpy draws them, whatever the device.
            for variable in classifier.trainable_variables:
                if len(variable.shape) > 1:
                    width = math.sqrt(2.0 / np.prod(variable.shape[:-1]))
                    values = generator.normal(0.0, width, variable.shape)
                    variable.assign(values.astype("float32"))
            threat = mart_tf.ThreatModel(epsilon=0.05)
            model = mart_tf.AdversarialClassifier(
                classifier, defense, threat, attack_steps=3
            )
            model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
        before = [w.numpy() for w in classifier.weights]
        logs = model.fit(images, labels, size, shuffle=False, verbose=0).history
        kept[f"{defense}/loss"] = logs["loss"][0]
        for number, weight in enumerate(classifier.weights):
            kept[f"{defense}/before/{number}"] = before[number]
            kept[f"{defense}/after/{number}"] = weight.numpy()
        np.savez(weights_file(settings.folder, device, network), **kept)
        print(f"{device} {defense} {logs['loss'][0]:.6f}", flush=True)
    return {"defenses": len(defenses)}


def weights_file(folder, device, network):
    """Where `step` leaves the weights of a device."""
    return pathlib.Path(folder, f"{device}_{network}.npz")


def programs(settings):
    """Trains, evaluates and exports on the GPU; the CPU says the same."""
    workdir = pathlib.Path(settings.folder, "digits")
    common = [f"--workdir={workdir}"]
    sizes = ["--epochs=8"]
    attacks = ["--attacks=fgsm,pgd,cw"]
    if settings.tiny:
        sizes = ["--epochs=1", "--attack_steps=1", "--steps_per_epoch=2"]
        sizes += ["--validation_images=32"]
        attacks = ["--attacks=fgsm", "--max_examples=10"]
    _program(settings, "train", *common, *sizes, "--precision=float32")
    devices = {"first": {}}
    if has_gpu():
        devices["cpu"] = {"CUDA_VISIBLE_DEVICES": ""}
    accuracies = {}
    for name, variables in devices.items():
        folder = workdir / f"evaluation_{name}"
        output = f"--output={folder}"
        _program(settings, "evaluate", *common, *attacks, output, **variables)
        accuracies[name] = {
            row["name"]: row["accuracy"] for row in _rows(folder)
        }
    _program(settings, "export", *common)
    # Only now: the programs have the environment of this process.
    tf = _tensorflow("cpu")
    import numpy as np

    import mart_tf
    from mart_tf.runs import workdir as workdirs

    images, _ = mart_tf.data.arrays(mart_tf.data.load("digits").test)
    served = tf.saved_model.load(str(workdir / "export" / "1"))
    outputs = served.signatures["serving_default"](tf.constant(images))
    network, *_ = workdirs.load_classifier(str(workdir))
    logits = network(images, training=False).numpy()
    logits_apart = float(np.abs(outputs["logits"].numpy() - logits).max())
    apart = max(
        abs(accuracies["first"][name] - value)
        for each in accuracies.values()
        for name, value in each.items()
    )
    log = pathlib.Path(settings.folder, "train.log").read_text("utf-8")
    [devices] = re.findall("(?m)^devices +(.*)", log)
    return {
        "devices": devices,
        "accuracies": accuracies,
        "served_logits_apart": logits_apart,
        "ok": ("GPU" in devices) is has_gpu()
        and logits_apart <= TOLERANCE
        and apart <= _ACCURACY_TOLERANCE,
    }


def train_step(settings, network, size, precision, xla):
    """Images a second of the compiled MART step on one batch."""
    started = time.perf_counter()
    tf = _tensorflow("gpu", tf32=precision == "tf32")
    model, data = _model(network, size, precision, xla)
    batch = next(iter(data))
    compiled = tf.function(model.train_step, jit_compile=xla is True)
    float(compiled(batch)["loss"])
    first = time.perf_counter() - started

    def run(steps):
        begun = time.perf_counter()
        for _ in range(steps):
            logs = compiled(batch)
        # The last step is over when its loss can be read.
        float(logs["loss"])
        return (time.perf_counter() - begun) / steps

    with _alone(settings):
        run(2)
        seconds, rounds = run(2), []
        while (
            sum(r * n for r, n in rounds) < settings.seconds or len(rounds) < 3
        ):
            count = max(1, int(settings.seconds / 5 / seconds))
            rounds.append((run(count), count))
        rate = size / sorted(r for r, _ in rounds)[len(rounds) // 2]
        rated = _rated(settings, rate, model.classifier, precision)
    return {
        **rated,
        "first_seconds": first,
        "memory_gb": _gpu_memory(tf),
    }


def fit(settings, network, size, xla):
    """Images a second of `fit` on the real input pipeline, augmented."""
    _tensorflow("gpu")
    precision = "mixed_bfloat16"
    model, data = _model(network, size, precision, xla)
    steps = 4 if settings.tiny else 100
    model.fit(data, steps_per_epoch=2, verbose=0, shuffle=False)
    with _alone(settings):
        started = time.perf_counter()
        model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False)
        seconds = time.perf_counter() - started
        return _rated(
            settings, steps * size / seconds, model.classifier, precision
        )


def evaluation(settings, network, size):
    """Images a second of PGD-20 on examples that all stand."""
    import numpy as np

    _tensorflow("gpu")
    import mart_tf

    shape = _shape(network)
    classifier = mart_tf.models.build(network, shape, 10)
    count = 4 * size if settings.tiny else 20 * size
    images = np.random.RandomState(0).rand(count, *shape).astype("float32")
    labels = classifier.predict(images, size, verbose=0).argmax(1)
    # So near that nothing breaks: every example takes all steps.
    threat = mart_tf.ThreatModel(epsilon=1e-7)

    def run():
        started = time.perf_counter()
        report = mart_tf.evaluate_robustness(
            classifier,
            (images, labels),
            threat,
            "pgd:steps=20",
            batch_size=size,
        )
        seconds = time.perf_counter() - started
        return seconds, report

    with _alone(settings):
        first, _ = run()
        seconds, report = run()
        # Without attack and after the last step another forward pass each.
        rated = _rated(
            settings, count / seconds, classifier, "float32", 2 * 20 + 2
        )
    return {
        **rated,
        "first_seconds": first,
        "robust_accuracy": report.results[1].accuracy,
    }


def torch_step(settings, network, size, compile):
    """The step of benchmarks/torch_step.py."""
    import torch_step as other

    def alone():
        return _alone(settings)

    return other.measure(network, size, compile, settings.seconds, alone)


def training(settings, recipe, arguments):
    """Trains a recipe, changed by some flags; how long that took."""
    started = time.monotonic()
    _program(
        settings,
        "train",
        f"--flagfile={recipe}",
        f"--workdir={_workdir(settings, recipe)}",
        *arguments,
        *_data(settings),
    )
    return {"seconds": time.monotonic() - started}


def robustness(settings, recipe, arguments, attack, images):
    """What the run of `training` keeps under an attack."""
    workdir = _workdir(settings, recipe)
    folder = workdir / f"evaluation_{re.sub('[^a-z0-9]+', '_', attack)}"
    _program(
        settings,
        "evaluate",
        f"--workdir={workdir}",
        f"--attacks={attack}",
        f"--max_examples={images}",
        f"--output={folder}",
        *_data(settings),
    )
    return {
        row["name"]: f"{row['accuracy']:.2%} in {row['seconds']:.1f} s"
        for row in _rows(folder)
    }


_KINDS = {
    "step": step,
    "programs": programs,
    "train_step": train_step,
    "fit": fit,
    "evaluation": evaluation,
    "torch_step": torch_step,
    "training": training,
    "robustness": robustness,
}


def _tensorflow(device, tf32=False):
    """TensorFlow, told which devices there are."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if device == "two":
        logical = tf.config.LogicalDeviceConfiguration
        first = (gpus or tf.config.list_physical_devices("CPU"))[0]
        size = {"memory_limit": 6_000} if gpus else {}
        tf.config.set_logical_device_configuration(
            first, [logical(**size), logical(**size)]
        )
    else:
        from mart_tf import environment

        environment.grow_gpu_memory()
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    return tf


def _model(network, size, precision, xla):
    """A compiled model, and its batches of random pixels."""
    import keras
    import numpy as np

    import mart_tf
    from mart_tf.data import splits

    policy = "float32" if precision == "tf32" else precision
    shape = _shape(network)
    classifier = mart_tf.models.build(network, shape, 10, precision=policy)
    model = mart_tf.AdversarialClassifier(
        classifier,
        "mart",
        mart_tf.ThreatModel(epsilon=8 / 255),
        _ATTACK_STEPS,
        weight_decay=2e-4,
    )
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), jit_compile=xla)
    model.optimizer.build(model.trainable_variables)
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (20 * size, *shape), "uint8")
    labels = generator.randint(0, 10, len(images)).astype("int32")
    split = splits.memory_split(images, labels)
    return model, mart_tf.data.training_batches(
        split, size, augment="crop,flip"
    )


def _rated(settings, rate, classifier, precision, passes=None):
    """A rate, and its share of a matrix product's in the same precision."""
    import rates

    passes = passes or rates.mart_passes(_ATTACK_STEPS)
    tflops = rate * passes * rates.forward_flops(classifier) / 1e12
    dtype = "bfloat16" if precision == "mixed_bfloat16" else "float32"
    size = 256 if settings.tiny else None
    peak = rates.matrix_product_peak(dtype, size) / 1e12
    return {
        "images_per_second": rate,
        "tflops": tflops,
        "peak_tflops": peak,
        "peak_share": tflops / peak,
    }


def _shape(network):
    return (8, 8, 1) if network == "digits_cnn" else (32, 32, 3)


def _gpu_memory(tf):
    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9


def _workdir(settings, recipe):
    return pathlib.Path(settings.folder, pathlib.Path(recipe).stem)


def _data(settings):
    return [f"--data_dir={settings.data_dir}"] if settings.data_dir else []


def _rows(folder):
    """What a report has: without attack, then attack by attack."""
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return [content["natural"], *content["attacks"]]


def _program(settings, name, *arguments, **variables):
    """Runs a program of the package, its output in a file of its own.

    Raises:
        RuntimeError: With the end of that output, if it fails.
    """
    log = pathlib.Path(settings.folder, f"{name}.log")
    command = [sys.executable, "-m", f"mart_tf.{name}", *arguments]
    with log.open("w") as stream:
        status = subprocess.run(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            check=False,
        ).returncode
    if status:
        tail = log.read_text(encoding="utf-8").splitlines()[-25:]
        raise RuntimeError("\n".join([f"{' '.join(command)}: {status}", *tail]))


@contextlib.contextmanager
def locked(path):
    """Nobody else holds a file inside."""
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _alone(settings):
    """Nothing else is measured inside."""
    return locked(settings.lock)


def has_gpu():
    """Whether this machine shows an NVIDIA GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True)
    return listed.returncode == 0 and b"GPU" in listed.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
