"""Exports killed with SIGKILL at random moments, under a server's eyes.

    python benchmarks/killed_exports.py --kills=200

A program exports a small network again and again into one directory and is
killed at a random moment of an export, then started again. Meanwhile this
process watches the directory as TF Serving does: it looks for numbers many
times a second, and every version that it sees is loaded and run at once on
TensorFlow's C++ runtime. Printed are how many kills fell between the first and
the last write of an export, how many versions were seen, and how many of them
did not load or run, which ends it with status 1.

TensorFlow's Python is not imported here: the watcher is as blind as a server.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from absl import app
from absl import flags
import numpy as np

from mart_tf.serving import c_api

_KILLS = flags.DEFINE_integer("kills", 200, "How many exports are killed.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

# Says what a version's tensors are called, and exports for ever.
_PROGRAM = """
import json
import sys
import keras
import mart_tf
from mart_tf.serving import verification
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((8, 8, 1)),
    keras.layers.Conv2D(8, 3),
    keras.layers.Flatten(),
    keras.layers.Dense(10),
])
print("begins", flush=True)
while True:
    path = mart_tf.export_saved_model(
        model, sys.argv[1], pixel_range=(0, 1)
    )
    signature = verification.signature(path)
    print(json.dumps(verification.tensors(signature)), flush=True)
"""


class Watcher(threading.Thread):
    """Looks for versions, loads and runs each that is new."""

    def __init__(self, directory, tensors):
        super().__init__(daemon=True)
        self.directory = pathlib.Path(directory)
        self.tensors = tensors
        self.seen, self.failed = set(), []
        self.done = threading.Event()

    def run(self):
        while not self.done.is_set():
            self.look()
            time.sleep(0.005)
        self.look()

    def look(self):
        names = {name for name in os.listdir(self.directory) if name.isdigit()}
        for name in names - self.seen:
            self.seen.add(name)
            try:
                self.serve(self.directory / name)
            except (c_api.StatusError, ValueError) as error:
                self.failed.append(f"{name}: {error}")

    def serve(self, version):
        images = np.ones([2, 8, 8, 1], np.float32)
        with c_api.Session(version, **self.tensors) as session:
            logits = session.run({"images": images})["logits"]
        if logits.shape != (2, 10) or not np.isfinite(logits).all():
            raise ValueError(f"logits of shape {logits.shape}")


def main(_):
    """Kills, watches, and prints what was seen."""
    generator = random.Random(_SEED.value)
    between = 0
    with tempfile.TemporaryDirectory() as folder:
        # To its end, for the time that it takes.
        program = start(folder)
        started = time.perf_counter()
        tensors = json.loads(program.stdout.readline())
        seconds = time.perf_counter() - started
        kill(program)
        watcher = Watcher(folder, tensors)
        watcher.start()
        for number in range(_KILLS.value):
            program = start(folder)
            # In the first export or in the next.
            time.sleep(generator.uniform(0.0, 2.0 * seconds))
            kill(program)
            # Only an export that was killed leaves what is not a version.
            left = [name for name in os.listdir(folder) if not name.isdigit()]
            between += bool(left)
            for name in left:
                shutil.rmtree(os.path.join(folder, name))
            if (number + 1) % 10 == 0:
                print(
                    f"{number + 1} kills, {between} of them between the first "
                    f"and the last write; {len(watcher.seen)} versions seen, "
                    f"{len(watcher.failed)} that do not load and run",
                    flush=True,
                )
        watcher.done.set()
        watcher.join()
    for line in watcher.failed:
        print(line)
    return bool(watcher.failed or 2 * between < _KILLS.value)


def start(folder):
    """The program, at the beginning of its first export."""
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Its verifier dies with it.
        start_new_session=True,
    )
    program.stdout.readline()
    return program


def kill(program):
    """As the kernel does when memory runs out."""
    os.killpg(program.pid, signal.SIGKILL)
    program.wait()


if __name__ == "__main__":
    app.run(main)
