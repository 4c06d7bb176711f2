"""Training runs stopped at random moments: do they end as one that never was?

    python benchmarks/killed_runs.py --runs=200 --root=/tmp/killed

Trains small recipes on the embedded digits once without a stop: MART, MMA, an
average of the weights, a pool, and two logical CPUs. Then runs of each in turn,
each stopped one to three times by SIGKILL, SIGTERM or Ctrl-C, at a moment drawn
over the time that a whole run takes, start and saves included, and started
again until it ends. Checkpoints come every few steps, so that many moments fall
into one. Compared are the tensors of the last and the best checkpoint and
metrics.csv, bit for bit. Prints a line for each run, and ends with status 1 if
one differs, fails, or does not end.
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf

_RUNS = flags.DEFINE_integer("runs", 200, "How many runs are stopped.")
_ROOT = flags.DEFINE_string("root", None, "Where the workdirs go.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments and the signals.")

_COMMON = (
    "--attack_steps=2",
    "--batch_size=64",
    "--epochs=3",
    "--precision=float32",
    "--checkpoint_every=3steps",
)
_RECIPES = {
    "mart": ("--augment=true", "--schedule=piecewise:at=2"),
    "mma": ("--defense=mma", "--schedule=piecewise:at=2"),
    "average": ("--ema=0.9", "--ema_warmup_epochs=0.3", "--schedule=constant"),
    "pool": ("--pool=npz:pool.npz", "--schedule=constant"),
    "mirrored": ("--strategy=mirrored", "--schedule=constant"),
}
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Seconds that a stop may take: those of a step, of a save, of compiling.
_LIMIT = 120
# Two logical CPUs, as the tests have them.
_PROGRAM = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
from mart_tf import train
train.main()
"""


def main(_):
    root = pathlib.Path(_ROOT.value).absolute()
    root.mkdir(parents=True, exist_ok=True)
    _write_pool(root)
    draw = random.Random(_SEED.value)
    whole, seconds = {}, {}
    faults = []
    for number in range(_RUNS.value):
        recipe = list(_RECIPES)[number % len(_RECIPES)]
        if recipe not in whole:
            started = time.monotonic()
            _finish(root, recipe, "whole")
            seconds[recipe] = time.monotonic() - started
            whole[recipe] = _state(root / f"{recipe}-whole")
        name = f"{number}"
        stops = [
            _stop(root, recipe, name, draw, seconds[recipe])
            for _ in range(draw.randint(1, 3))
        ]
        said = _finish(root, recipe, name)
        fault = said or _different(
            whole[recipe], _state(root / f"{recipe}-{name}")
        )
        if any("stuck" in stop for stop in stops):
            fault = fault or "stuck"
        print(
            f"{number:4d} {recipe:9s} {', '.join(stops)}: {fault or 'equal'}",
            flush=True,
        )
        faults += [number] if fault else []
        if not fault:
            shutil.rmtree(root / f"{recipe}-{name}")
    print(f"{len(faults)} of {_RUNS.value} runs ended otherwise: {faults}")
    return bool(faults)


def _write_pool(root):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, [300, 8, 8, 1]).astype(np.uint8)
    labels = generator.integers(0, 10, 300)
    np.savez(root / "pool.npz", image=images, label=labels)


def _command(recipe, name):
    program = ["-m", "mart_tf.train"]
    if recipe == "mirrored":
        program = ["-c", _PROGRAM]
    return [
        sys.executable,
        *program,
        *_COMMON,
        *_RECIPES[recipe],
        f"--workdir={recipe}-{name}",
    ]


def _stop(root, recipe, name, draw, seconds):
    """Starts a run and stops it at some moment; how, in words."""
    process = subprocess.Popen(
        _command(recipe, name),
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell's background jobs ignore it, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    after = draw.uniform(0.0, seconds)
    number = draw.choice(_SIGNALS)
    time.sleep(after)
    if process.poll() is None:
        process.send_signal(number)
    try:
        status = process.wait(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        status = f"stuck, {process.wait()}"
    return f"{number.name} at {after:.1f} s ({status})"


def _finish(root, recipe, name):
    """Runs to the end; what went wrong, or None."""
    done = subprocess.run(
        _command(recipe, name),
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode or "Traceback" in done.stderr:
        return f"status {done.returncode}: {done.stderr.strip()[-300:]}"
    return None


def _state(path):
    """All that a run leaves: tensors by checkpoint and name, its rows."""
    found = {"metrics.csv": (path / "metrics.csv").read_bytes()}
    for kind in ("", "best"):
        folder = path / "checkpoints" / kind
        newest = max(
            folder.glob("ckpt-*.index"),
            key=lambda file: int(file.stem.split("-")[1]),
        )
        found[f"newest {kind}"] = newest.name.encode()
        reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
        for name in reader.get_variable_to_shape_map():
            # How often was saved, and Keras's own bookkeeping of it.
            if "save_counter" in name or "OBJECT_GRAPH" in name:
                continue
            found[f"{kind} {name}"] = reader.get_tensor(name).tobytes()
    return found


def _different(one, other):
    """The names of what differs, in words, or None."""
    names = [n for n in one.keys() | other.keys() if one.get(n) != other.get(n)]
    return f"other {', '.join(sorted(names)[:5])}" if names else None


if __name__ == "__main__":
    flags.mark_flag_as_required("root")
    app.run(main)
