"""Memory of a training whose pool is as large as it: on disk, and in memory.

python benchmarks/pool_memory.py --gigabytes=2 --root=DIR

Writes a pool of random 32x32x3 images into a folder, uncompressed, and trains
with it for some steps; then with the same images compressed (slow to write,
for nothing), and without a pool. Each run is a process of its own, started by
`mart_tf.train_run`: the pool is hashed, compared with the test images, and its
part of every batch read. What it wrote is removed.
"""

import pathlib
import resource
import subprocess
import sys
import tempfile
import zipfile

from absl import app
from absl import flags
import numpy as np

_GIGABYTES = flags.DEFINE_float("gigabytes", 2.0, "Size of the pool.")
_ROOT = flags.DEFINE_string("root", None, "Where to write; default: /tmp.")
_STEPS = flags.DEFINE_integer("steps", 100, "Training steps.")
_POOL = flags.DEFINE_string("pool", None, "Of one run: its pool; internal.")

_SHAPE, _CLASSES, _BLOCK = (32, 32, 3), 10, 10_000


def main(_):
    """Prints a line for each run."""
    if _POOL.value is not None:
        _train(_POOL.value)
        return
    with tempfile.TemporaryDirectory(dir=_ROOT.value) as folder:
        folder = pathlib.Path(folder)
        generator = np.random.default_rng(1)
        np.savez(folder / "data.npz", **_data(generator))
        count = int(_GIGABYTES.value * 1e9 / np.prod(_SHAPE))
        kinds = {"none": None, "stored": zipfile.ZIP_STORED}
        kinds["compressed"] = zipfile.ZIP_DEFLATED
        for name, compression in kinds.items():
            if compression is not None:
                _write(folder / f"{name}.npz", count, compression)
            print(f"{name:12}{_measured(folder, name)}", flush=True)


def _data(generator):
    images = generator.integers(0, 256, [600, *_SHAPE], np.uint8)
    labels = np.arange(600) % _CLASSES
    return {
        "x_train": images[:500],
        "y_train": labels[:500],
        "x_test": images[500:],
        "y_test": labels[500:],
    }


def _write(path, count, compression):
    """A pool, a block of images at a time."""
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        with archive.open("label.npy", "w") as file:
            np.save(file, np.arange(count) % _CLASSES)
        with archive.open("image.npy", "w", force_zip64=True) as file:
            fields = {"descr": "|u1", "fortran_order": False}
            np.lib.format.write_array_header_1_0(
                file, fields | {"shape": (count, *_SHAPE)}
            )
            for start in range(0, count, _BLOCK):
                size = min(_BLOCK, count - start)
                file.write(
                    generator.integers(0, 256, [size, *_SHAPE], np.uint8)
                )


def _measured(folder, name):
    """What a run in a process of its own says at its end."""
    command = [sys.executable, __file__, f"--root={folder}", f"--pool={name}"]
    command.append(f"--steps={_STEPS.value}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return done.stdout.strip().splitlines()[-1]


def _train(name):
    import mart_tf

    folder = pathlib.Path(_ROOT.value)
    mart_tf.train_run(
        workdir=folder / f"run_{name}",
        dataset=f"npz:{folder}/data.npz",
        pool=None if name == "none" else f"npz:{folder}/{name}.npz",
        model="small_cnn",
        defense="standard",
        attack_steps=1,
        epochs=1,
        steps_per_epoch=_STEPS.value,
        batch_size=128,
        strategy="single",
        precision="float32",
        verbose=0,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:,.0f} MiB at most, {_STEPS.value} steps")


if __name__ == "__main__":
    app.run(main)
