"""What only a GPU can show: is it right there, how fast, how robust how soon.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --parts=train --data_dir=DIR --minutes=5
    python benchmarks/gpu.py --tiny

Parts: `right` (one training step of each defense on the GPU and on the CPU,
and on two logical GPUs: weights within 1e-4; evaluation and export of a run
trained there), `speed` (images a second of the MART step, of `fit` and of
PGD-20, and their share of a matrix product's rate), `torch` (the same step in
PyTorch, where it is installed) and `train` (a recipe's schedule fitted into
some minutes, then its accuracy under attacks). Each measurement is a process
of its own under a time limit (`gpu_jobs.py`), and several prepare themselves
at once, but only one measures. What is done is kept in `--results`, a JSON
line each, and not done again. Ends with status 1 where something failed, is
not right or found no time. `--tiny` goes through all of it with a small
network and the recipe of the digits, in a minute or two of a CPU.
"""

import concurrent.futures
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from absl import app
from absl import flags
import gpu_jobs
import numpy as np

_ROOT = pathlib.Path(__file__).resolve().parents[1]

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
    "train",
    None,
    "The recipe that is trained, a file; default: table2_cifar10_mart.cfg, "
    "with --tiny digits_mart.cfg, of this checkout.",
)
_MINUTES = flags.DEFINE_float("minutes", 5, "Of training.")
_RATE = flags.DEFINE_float(
    "rate", None, "Images a second of training; default: as `fit` shows."
)
_ATTACKS = flags.DEFINE_list(
    "attacks",
    None,
    "What a trained run is tried with; default: fgsm,pgd,cw,autoattack, with "
    "--tiny pgd:steps=3.",
)
_IMAGES = flags.DEFINE_integer(
    "images", None, "Test images tried; default: 1000, with --tiny 10."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS data lies.")

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
    """Does all parts; ends with status 1 if anything failed."""
    pathlib.Path(_FOLDER.value).mkdir(parents=True, exist_ok=True)
    print(f"{'part':6} {'what':58} {'result'}")
    sound = True
    for part in _PARTS.value:
        started = time.monotonic()
        sound &= _PART[part]()
        print(f"{part:6} took {time.monotonic() - started:.0f} s", flush=True)
    if not sound:
        sys.exit(1)


# What each part asks for, and whether all of it went well.


def right():
    """Training on a GPU is training on a CPU, one device or two."""
    names = ["cpu", "gpu", "two"] if gpu_jobs.has_gpu() else ["cpu", "two"]
    networks = {"small_cnn": _DEFENSES, "resnet18": ("mart",)}
    if _TINY.value:
        networks = {"digits_cnn": ("mart",)}
    jobs = [
        {"kind": "step", "device": name, "network": network, "defenses": chosen}
        for network, chosen in networks.items()
        for name in names
    ]
    sound = _do("right", [*jobs, {"kind": "programs"}])
    pairs = dict.fromkeys([("cpu", names[1]), (names[-2], "two")])
    for network, chosen in networks.items():
        for one, other in pairs:
            for defense in chosen:
                sound &= _compared(network, defense, one, other)
    return sound


def _compared(network, defense, one, other):
    """Whether a step led to the same weights on two devices."""
    job = {
        "kind": "compare",
        "network": network,
        "defense": defense,
        "one": one,
        "other": other,
    }
    result = _result(job)
    if result is None:
        files = [
            gpu_jobs.weights_file(_FOLDER.value, name, network)
            for name in (one, other)
        ]
        try:
            result = _difference(defense, *map(np.load, files))
        except (OSError, KeyError) as error:
            _print_row("right", _what(job), f"failed: no weights ({error})")
            return False
        _keep(job, result)
    return _tell("right", job, result)


def _difference(defense, a, b):
    """How far the weights of a step lie apart, and how far it went."""
    names = [n for n in a.files if n.startswith(f"{defense}/after/")]
    apart = max(float(np.abs(a[n] - b[n]).max()) for n in names)
    moved = max(
        float(np.abs(a[n] - a[n.replace("after", "before")]).max())
        for n in names
    )
    losses = [float(each[f"{defense}/loss"]) for each in (a, b)]
    return {
        "apart": apart,
        "moved": moved,
        "losses": losses,
        "ok": max(apart, abs(losses[0] - losses[1])) <= gpu_jobs.TOLERANCE,
    }


def speed():
    """The MART step by network, batch, precision and XLA; fit; PGD-20."""
    sizes = [("resnet18", 128), ("resnet18", 512)]
    sizes += [("wide_resnet:depth=34:width=10", 128)]
    fast = "mixed_bfloat16"
    cases = [
        (network, size, precision, xla)
        for network, size in sizes
        for precision in (fast, "tf32", "float32")
        for xla in (False, "attack", True)
        # The least interesting are left out.
        if precision == fast
        or (network == "resnet18" and size == 128 and xla is not True)
    ]
    if _TINY.value:
        cases = [("digits_cnn", 16, fast, False)]
    names = ("network", "size", "precision", "xla")
    jobs = [
        {"kind": "train_step", **dict(zip(names, case, strict=True))}
        for case in cases
    ]
    network, size, *_ = cases[0]
    evaluation = {"kind": "evaluation", "network": network, "size": 2 * size}
    return _do("speed", [*jobs, _fit_job(), evaluation])


def _fit_job():
    network, size = ("digits_cnn", 16) if _TINY.value else ("resnet18", 128)
    xla = False if _TINY.value else "attack"
    return {"kind": "fit", "network": network, "size": size, "xla": xla}


def torch():
    """The same step in PyTorch."""
    if importlib.util.find_spec("torch") is None:
        _print_row("torch", "PyTorch", "not installed")
        return True
    sizes = [("resnet18", 128), ("resnet18", 512), ("wide_resnet", 128)]
    if _TINY.value:
        sizes = [("resnet18", 2)]
    return _do(
        "torch",
        [
            {"kind": "torch_step", "network": n, "size": s, "compile": compiled}
            for n, s in sizes
            for compiled in ((False,) if _TINY.value else (True, False))
        ],
    )


def train():
    """A recipe whose schedule is fitted into the minutes, and its report."""
    tiny = _TINY.value
    name = "digits_mart.cfg" if tiny else "table2_cifar10_mart.cfg"
    recipe = _RECIPE.value or str(_ROOT / "flags" / name)
    rate = _RATE.value
    if rate is None:
        if not _do("train", [_fit_job()]):
            return False
        rate = _result(_fit_job())["images_per_second"]
    arguments = _fitted(recipe, 0.0 if tiny else _MINUTES.value * 60 * rate)
    if tiny:
        arguments += ["--attack_steps=2", "--steps_per_epoch=4"]
        arguments += ["--validation_images=32"]
    job = {"kind": "training", "recipe": recipe, "arguments": arguments}
    if not _do("train", [job], 60 * _MINUTES.value * 1.5 + 60):
        return False
    attacks = ["pgd:steps=3"] if tiny else ["fgsm", "pgd", "cw", "autoattack"]
    images = _IMAGES.value or (10 if tiny else 1000)
    sound = True
    for attack in _ATTACKS.value or attacks:
        asked = {"kind": "robustness", "attack": attack, "images": images}
        sound &= _do("train", [{**job, **asked}])
    return sound


def _fitted(recipe, images):
    """Flags that fit a recipe's schedule into so many images of training."""
    text = pathlib.Path(recipe).read_text(encoding="utf-8")
    whole = int(re.search(r"--epochs=(\d+)", text)[1])
    an_epoch = 1_000 if "--dataset=digits" in text else 48_000
    epochs = min(max(3, int(images / an_epoch)), whole)
    arguments = [f"--epochs={epochs}"]
    falls = re.search(r"--schedule=piecewise:at=([\d+]+)", text)
    if falls:
        at = sorted(
            {
                max(2, round(int(e) * epochs / whole))
                for e in falls[1].split("+")
            }
        )
        arguments += [f"--schedule=piecewise:at={'+'.join(map(str, at))}"]
    return arguments


_PART = {"right": right, "speed": speed, "torch": torch, "train": train}


# Processes, and what is kept of them.


def _do(part, jobs, limit=None):
    """Runs jobs that were not done before; whether all of them went well."""
    end = time.monotonic() + (limit or _LIMIT.value)
    with concurrent.futures.ThreadPoolExecutor(_PARALLEL.value) as threads:
        done = threads.map(lambda job: _run_job(part, job, end), jobs)
        return all(list(done))


def _run_job(part, job, end):
    """Runs one job, unless it is done; its row is printed and kept."""
    result = _result(job)
    if result is not None:
        return _tell(part, job, result)
    left = end - time.monotonic()
    if left < 1:
        _print_row(part, _what(job), "failed: no time left")
        return False
    status, output = _process(job, left)
    match = re.search(r"^result (.*)$", output, re.MULTILINE)
    if status is None:
        _print_row(part, _what(job), "failed: stopped at the time limit")
        return False
    if status or not match:
        _print_row(part, _what(job), f"failed:\n{output[-1500:]}")
        return False
    result = json.loads(match[1])
    _keep(job, result)
    return _tell(part, job, result)


def _process(job, seconds):
    """The exit status of a job, None where it is stopped, and its output."""
    settings = {
        "tiny": _TINY.value,
        "seconds": 0.2 if _TINY.value else _SECONDS.value,
        "folder": _FOLDER.value,
        "lock": f"{_RESULTS.value}.measuring",
        "data_dir": _DATA_DIR.value,
    }
    process = subprocess.Popen(
        [
            sys.executable,
            gpu_jobs.__file__,
            json.dumps(settings),
            json.dumps(job),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Programs that it has started end with it.
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, ""
    return process.returncode, output


def _tell(part, job, result):
    """Prints a row; whether it is one that is right."""
    cells = [f"{name} {_short(value)}" for name, value in result.items()]
    _print_row(part, _what(job), ", ".join(cells))
    return result.get("ok", True)


def _what(job):
    """A job in a few words."""
    words = {k: v for k, v in job.items() if k not in ("defenses", "arguments")}
    if "recipe" in words:
        words["recipe"] = pathlib.Path(words["recipe"]).stem
    return ", ".join(map(str, words.values()))


def _short(value):
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _print_row(part, what, result):
    # Whole, whatever other threads print.
    print(f"{part:6} {what:58} {result}\n", end="", flush=True)


def _keep(job, result):
    """Writes down what was measured."""
    path = _RESULTS.value
    with gpu_jobs.locked(f"{path}.lock"), open(path, "a") as stream:
        stream.write(json.dumps({"job": job, "result": result}) + "\n")


def _result(job):
    """What was measured before, or None."""
    path = pathlib.Path(_RESULTS.value)
    lines = path.read_text(encoding="utf-8") if path.exists() else ""
    # As JSON has it: lists, no tuples.
    job = json.loads(json.dumps(job))
    for line in lines.splitlines():
        entry = json.loads(line)
        if entry["job"] == job:
            return entry["result"]
    return None


if __name__ == "__main__":
    app.run(main)
