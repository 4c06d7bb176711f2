"""What only a GPU can show: is it right there, how fast, how robust how soon.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --parts=train --data_dir=DIR --minutes=5
    python benchmarks/gpu.py --tiny

Parts: `right` (one training step of each defense on the GPU and on the CPU,
and on two logical GPUs; evaluation and export of a run trained there),
`speed` (images a second of the MART step, of `fit` and of PGD-20, share of
the measured peak), `torch` (the same step in PyTorch, where it is installed)
and `train` (a recipe's schedule fitted into some minutes, then PGD-20 and
AutoAttack). Each measurement is a process of its own under a time limit, and
several prepare themselves at once, but only one measures. What is done is
kept in `--results`, a JSON line each, and not done again. `--tiny` goes
through all of it with small networks, on a CPU too, in a few minutes.
"""

import concurrent.futures
import contextlib
import fcntl
import importlib.util
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags

_PARTS = flags.DEFINE_list(
    "parts", ["right", "speed", "torch", "train"], "What to do, in this order."
)
_RESULTS = flags.DEFINE_string("results", "gpu.jsonl", "What is done.")
_FOLDER = flags.DEFINE_string("folder", "runs/gpu", "For runs and weights.")
_TINY = flags.DEFINE_bool("tiny", False, "Small networks, short measurements.")
_SECONDS = flags.DEFINE_float("seconds", 4, "Least length of a measurement.")
_LIMIT = flags.DEFINE_float("limit", 240, "Seconds that a part may take.")
_PARALLEL = flags.DEFINE_integer("parallel", 6, "Processes at once.")
_RECIPE = flags.DEFINE_string(
    "train", "flags/table2_cifar10_mart.cfg", "The recipe that is trained."
)
_MINUTES = flags.DEFINE_float("minutes", 5, "Of training.")
_RATE = flags.DEFINE_float(
    "rate", None, "Images a second of training; default: as `fit` showed."
)
_ATTACKS = flags.DEFINE_string(
    "attacks", "fgsm,pgd,cw,autoattack", "What a trained run is tried with."
)
_IMAGES = flags.DEFINE_integer("images", 1000, "Test images tried.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS data lies.")
_JOB = flags.DEFINE_string("job", None, "One measurement, as JSON.")

_ATTACK_STEPS = 10

_DEFENSES = (
    "natural",
    "standard",
    "alp",
    "clp",
    "trades",
    "mma",
    "dynamic",
    "mart",
    "uat",
)


def main(_):
    """Does all parts, or one job of another such process."""
    if _JOB.value:
        job = json.loads(_JOB.value)
        print("result " + json.dumps(_KINDS[job.pop("kind")](**job)))
        return
    print(f"{'part':6} {'what':58} {'result'}")
    for part in _PARTS.value:
        started = time.monotonic()
        {"right": right, "speed": speed, "torch": torch, "train": train}[part]()
        print(f"{part:6} took {time.monotonic() - started:.0f} s", flush=True)


# What each part asks for.


def right():
    """Training on a GPU is training on a CPU, one device or two."""
    names = ["cpu", "gpu", "two"] if _has_gpu() else ["cpu", "two"]
    networks = {"small_cnn": _DEFENSES, "resnet18": ("mart",)}
    if _TINY.value:
        networks = {"digits_cnn": ("natural", "mart")}
    jobs = [
        {"kind": "step", "device": name, "network": network, "defenses": chosen}
        for network, chosen in networks.items()
        for name in names
    ]
    _do("right", [*jobs, {"kind": "programs"}])
    import numpy as np

    for network, chosen in networks.items():
        weights = {
            name: np.load(_folder() / f"{name}_{network}.npz")
            for name in names
            if (_folder() / f"{name}_{network}.npz").exists()
        }
        for one, other in [("cpu", "gpu"), (names[-2], "two")]:
            if one in weights and other in weights:
                for defense in chosen:
                    _compare(network, defense, one, other, weights)


def _compare(network, defense, one, other, weights):
    """Prints how far the weights of a step lie apart, and how far it went."""
    import numpy as np

    a, b = weights[one], weights[other]
    if f"{defense}/loss" not in a or f"{defense}/loss" not in b:
        return
    names = [n for n in a.files if n.startswith(f"{defense}/after/")]
    difference = max(float(np.abs(a[n] - b[n]).max()) for n in names)
    went = max(
        float(np.abs(a[n] - a[n.replace("after", "before")]).max())
        for n in names
    )
    losses = float(a[f"{defense}/loss"]), float(b[f"{defense}/loss"])
    _print_row(
        "right",
        f"{defense}, {network}, {one} and {other}",
        f"weights apart by {difference:.1e} of {went:.1e} at most, losses "
        f"{losses[0]:.6f} {losses[1]:.6f}",
    )


def speed():
    """The MART step by network, batch, precision and XLA; fit; PGD-20."""
    sizes = [("resnet18", 128), ("resnet18", 512)]
    sizes += [("wide_resnet:depth=34:width=10", 128)]
    if _TINY.value:
        sizes = [("digits_cnn", 16)]
    fast = "mixed_bfloat16"
    jobs = [{"kind": "peak"}]
    for network, size in sizes:
        common = {"kind": "train_step", "network": network, "size": size}
        jobs += [
            {**common, "precision": precision, "xla": xla}
            for precision in (fast, "tf32", "float32")
            for xla in (False, "attack", True)
            # The least interesting are left out.
            if _TINY.value
            or precision == fast
            or (network == "resnet18" and size == 128 and xla is not True)
        ]
    network, size = sizes[0]
    jobs += [
        {"kind": "fit", "network": network, "size": size, "xla": "attack"},
        {"kind": "evaluation", "network": network, "size": 2 * size},
    ]
    _do("speed", jobs)


def torch():
    """The same step in PyTorch."""
    if importlib.util.find_spec("torch") is None:
        _print_row("torch", "PyTorch", "not installed")
        return
    sizes = [("resnet18", 128), ("resnet18", 512), ("wide_resnet", 128)]
    if _TINY.value:
        sizes = [("resnet18", 2)]
    _do(
        "torch",
        [
            {"kind": "torch_step", "network": n, "size": s, "compile": compiled}
            for n, s in sizes
            for compiled in ((False,) if _TINY.value else (True, False))
        ],
    )


def train():
    """A recipe whose schedule is fitted into the minutes, and its report."""
    workdir = _folder() / pathlib.Path(_RECIPE.value).stem
    fast = [d for d in _done() if d["job"].get("kind") == "fit"]
    rate = _RATE.value or fast[-1]["result"]["images_per_second"]
    recipe = pathlib.Path(_RECIPE.value).read_text(encoding="utf-8")
    whole = int(re.search(r"--epochs=(\d+)", recipe)[1])
    epochs = max(3, int(_MINUTES.value * 60 * rate / _training_images()))
    epochs = min(epochs, whole)
    falls = re.search(r"--schedule=piecewise:at=([\d+]+)", recipe)
    schedule = []
    if falls:
        at = sorted(
            {
                max(2, round(int(e) * epochs / whole))
                for e in falls[1].split("+")
            }
        )
        schedule = [f"--schedule=piecewise:at={'+'.join(map(str, at))}"]
    common = [f"--workdir={workdir}"]
    data = [f"--data_dir={_DATA_DIR.value}"] if _DATA_DIR.value else []
    started = time.monotonic()
    _program(
        "train",
        f"--flagfile={_RECIPE.value}",
        *common,
        *data,
        f"--epochs={epochs}",
        *schedule,
        limit=60 * _MINUTES.value * 1.5 + 60,
    )
    seconds = time.monotonic() - started
    _print_row(
        "train", f"{epochs} epochs of {_RECIPE.value}", f"{seconds:.0f} s"
    )
    for attack in _ATTACKS.value.split(","):
        folder = workdir / f"evaluation_{attack}"
        _program(
            "evaluate",
            *common,
            *data,
            f"--attacks={attack}",
            f"--max_examples={_IMAGES.value}",
            f"--output={folder}",
            limit=_LIMIT.value,
        )
        report = folder / "report.json"
        if report.exists():
            content = json.loads(report.read_text(encoding="utf-8"))
            for kind in [content["natural"], *content["attacks"]]:
                _print_row(
                    "train",
                    f"{kind['name']}, {_IMAGES.value} images",
                    f"{100 * kind['accuracy']:.2f} %, {kind['seconds']:.1f} s",
                )


def _training_images():
    return 1_000 if "digits" in _RECIPE.value else 48_000


# What a process of its own measures.


def step(device, network, defenses):
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
        np.savez(_folder() / f"{device}_{network}.npz", **kept)
        print(f"{device} {defense} {logs['loss'][0]:.6f}", flush=True)
    return {"defenses": len(defenses)}


def programs():
    """Trains, evaluates and exports on the GPU; the CPU says the same."""
    tf = _tensorflow("cpu")
    import numpy as np

    import mart_tf
    from mart_tf.runs import workdir as workdirs

    workdir, cpu = _folder() / "digits", {"CUDA_VISIBLE_DEVICES": ""}
    common = [f"--workdir={workdir}"]
    epochs = 2 if _TINY.value else 8
    _program("train", *common, f"--epochs={epochs}", "--precision=float32")
    reports = []
    for name, variables in [("first", {}), ("cpu", cpu)]:
        folder = workdir / f"evaluation_{name}"
        _program(
            "evaluate",
            *common,
            "--attacks=fgsm,pgd,cw",
            f"--output={folder}",
            **variables,
        )
        text = (folder / "report.json").read_text(encoding="utf-8")
        reports.append(json.loads(text))
    _program("export", *common)
    digits = mart_tf.data.load("digits")
    images, _ = mart_tf.data.arrays(digits.test)
    served = tf.saved_model.load(str(workdir / "export" / "1"))
    outputs = served.signatures["serving_default"](tf.constant(images))
    network, *_ = workdirs.load_classifier(str(workdir))
    logits = network(images, training=False).numpy()
    return {
        "accuracies": [
            {a["name"]: a["accuracy"] for a in [r["natural"], *r["attacks"]]}
            for r in reports
        ],
        "served_logits_apart": float(
            np.abs(outputs["logits"].numpy() - logits).max()
        ),
    }


def peak():
    """TFLOP/s of a matrix product in each precision."""
    import rates

    measured = {}
    for precision, dtype in [
        ("float32", "float32"),
        ("tf32", "float32"),
        ("mixed_bfloat16", "bfloat16"),
    ]:
        _tensorflow("gpu", tf32=precision == "tf32")
        with _alone():
            measured[precision] = rates.matrix_product_peak(dtype) / 1e12
    return measured


def train_step(network, size, precision, xla):
    """Images a second of the compiled MART step on one batch."""
    started = time.perf_counter()
    tf = _tensorflow("gpu", tf32=precision == "tf32")
    import rates

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

    with _alone():
        run(2)
        seconds, rounds = run(2), []
        while sum(r * n for r, n in rounds) < _seconds() or len(rounds) < 3:
            count = max(1, int(_seconds() / 5 / seconds))
            rounds.append((run(count), count))
    rate = size / sorted(r for r, _ in rounds)[len(rounds) // 2]
    flops = rates.mart_passes(_ATTACK_STEPS) * rates.forward_flops(
        model.classifier
    )
    return {
        "images_per_second": rate,
        "tflops": rate * flops / 1e12,
        "first_seconds": first,
        "memory_gb": _gpu_memory(tf),
    }


def fit(network, size, xla):
    """Images a second of `fit` on the real input pipeline, augmented."""
    _tensorflow("gpu")
    model, data = _model(network, size, "mixed_bfloat16", xla)
    steps = 4 if _TINY.value else 100
    model.fit(data, steps_per_epoch=2, verbose=0, shuffle=False)
    with _alone():
        started = time.perf_counter()
        model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False)
        seconds = time.perf_counter() - started
    return {"images_per_second": steps * size / seconds}


def evaluation(network, size):
    """Images a second of PGD-20 on examples that all stand."""
    import numpy as np

    _tensorflow("gpu")
    import mart_tf

    shape = _shape(network)
    classifier = mart_tf.models.build(network, shape, 10)
    count = 4 * size if _TINY.value else 20 * size
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

    with _alone():
        first, _ = run()
        seconds, report = run()
    return {
        "images_per_second": count / seconds,
        "first_seconds": first,
        "robust_accuracy": report.results[1].accuracy,
    }


def torch_step(network, size, compile):
    """The step of benchmarks/torch_step.py."""
    import torch_step as other

    seconds = _seconds()
    return other.measure(network, size, compile, seconds, _alone)


_KINDS = {
    "step": step,
    "programs": programs,
    "peak": peak,
    "train_step": train_step,
    "fit": fit,
    "evaluation": evaluation,
    "torch_step": torch_step,
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
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
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


def _shape(network):
    return (8, 8, 1) if network == "digits_cnn" else (32, 32, 3)


def _gpu_memory(tf):
    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9


def _seconds():
    return 0.2 if _TINY.value else _SECONDS.value


# Processes.


def _do(part, jobs):
    """Runs jobs that were not done before, each in a process of its own."""
    done = [entry["job"] for entry in _done()]
    jobs = [job for job in jobs if json.loads(json.dumps(job)) not in done]
    end = time.monotonic() + _LIMIT.value
    with concurrent.futures.ThreadPoolExecutor(_PARALLEL.value) as threads:
        for job in jobs:
            threads.submit(_run_job, part, job, end)


def _run_job(part, job, end):
    """Runs one job; its row is printed and kept."""
    what = ", ".join(str(v) for k, v in job.items() if k != "defenses")
    left = end - time.monotonic()
    if left < 1:
        _print_row(part, what, "no time left")
        return
    command = [
        sys.executable,
        __file__,
        f"--job={json.dumps(job)}",
        *(f"--{n}={flags.FLAGS[n].value}" for n in ("results", "folder")),
        f"--seconds={_SECONDS.value}",
        f"--tiny={_TINY.value}",
    ]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=left
        )
    except subprocess.TimeoutExpired:
        _print_row(part, what, "stopped at the part's time limit")
        return
    match = re.search(r"^result (.*)$", process.stdout, re.MULTILINE)
    if process.returncode or not match:
        _print_row(part, what, f"failed:\n{process.stderr[-1500:]}")
        return
    result = json.loads(match[1])
    with _locked(_RESULTS.value), open(_RESULTS.value, "a") as stream:
        stream.write(json.dumps({"job": job, "result": result}) + "\n")
    cells = [f"{name} {_short(value)}" for name, value in result.items()]
    _print_row(part, what, ", ".join(cells))


def _short(value):
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _print_row(part, what, result):
    print(f"{part:6} {what:58} {result}", flush=True)


def _program(name, *arguments, limit=None, **variables):
    """Runs a program of the package, its output in a file of its own."""
    log = _folder() / f"{name}.log"
    command = [sys.executable, "-m", f"mart_tf.{name}", *arguments]
    with log.open("w") as stream:
        try:
            done = subprocess.run(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                timeout=limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            done = "stopped at its time limit"
    tail = log.read_text(encoding="utf-8").splitlines()[-25:]
    print("\n".join(tail), flush=True)
    if done:
        print(f"{' '.join(command)}: {done}", flush=True)
        if limit is None:
            sys.exit(1)


def _done():
    path = pathlib.Path(_RESULTS.value)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _folder():
    folder = pathlib.Path(_FOLDER.value)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _locked(path):
    with open(f"{path}.lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _alone():
    """Nothing else is measured inside."""
    return _locked(f"{_RESULTS.value}.measuring")


def _has_gpu():
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True)
    return listed.returncode == 0 and b"GPU" in listed.stdout


if __name__ == "__main__":
    app.run(main)
