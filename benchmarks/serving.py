"""Latency of the serving kit's clients, and the runtime's share of it.

    python benchmarks/serving.py

The server is the loopback server of the tests, in this process: not TF
Serving, but its gRPC stubs and REST format in Python, over TensorFlow's C++
runtime. So the runtime's own time is what a server cannot go below, and the
rest is Python's, on both sides. The load comes from export/load.py, in a
process of its own, on the same cores. Networks are untrained (speed does not
depend on the weights); each request is one encoded image. With several clients
the runs wait for a core and for Python's lock, which counts as the runtime's.
"""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests"))

from absl import app
from absl import flags
import loopback
import numpy as np
from PIL import Image

import mart_tf

_NETWORKS = flags.DEFINE_list(
    "networks", ["digits_cnn", "small_cnn"], "Networks of mart_tf.models."
)
_REQUESTS = flags.DEFINE_integer("requests", 10_000, "Of each measurement.")
_THREADS = flags.DEFINE_multi_integer("threads", [1, 8], "Clients at once.")

_SHAPES = {"digits_cnn": (8, 8, 1), "small_cnn": (28, 28, 1)}


def main(_):
    """Prints a line for each network, protocol and number of clients."""
    marks = " ".join(f"{name:>7}" for name in ("p50", "p90", "p99", "max"))
    print(
        f"{'network':11} {'':4} {'threads':>7} {'failed':>6} {'req/s':>7} "
        f"{marks} {'runtime':>8} {'share':>6}   (ms; the runtime's median, "
        "and its share of p50)"
    )
    for network in _NETWORKS.value:
        with tempfile.TemporaryDirectory() as folder:
            measure(network, pathlib.Path(folder))


def measure(network, folder):
    """Serves one network, and prints its lines."""
    shape = _SHAPES.get(network, (32, 32, 3))
    classifier = mart_tf.models.build(network, shape, 10)
    version = mart_tf.export_saved_model(
        classifier, folder, pixel_range=(0, 1), verify=False
    )
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = folder / "image.png"
    Image.fromarray(levels.squeeze()).save(image)
    model = loopback.Model(version)
    # The first run is slower than any other.
    model.run("image_bytes", {"image_bytes": np.array([image.read_bytes()])})
    with loopback.serve(model) as (rest, grpc):
        for protocol, address in (("rest", rest), ("grpc", grpc)):
            for threads in _THREADS.value:
                model.seconds.clear()
                answer = load(image, protocol, address, threads)
                runtime = 1e3 * statistics.median(model.seconds)
                print_line(network, protocol, threads, answer, runtime)
    model.close()


def load(image, protocol, address, threads):
    """What export/load.py prints; ends this script if a request failed."""
    done = subprocess.run(
        [
            sys.executable,
            str(loopback.KIT / "load.py"),
            str(image),
            f"--protocol={protocol}",
            f"--address={address}",
            f"--requests={_REQUESTS.value}",
            f"--threads={threads}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def print_line(network, protocol, threads, answer, runtime):
    """A row of the table, from what load.py printed."""
    [failed] = re.findall(r"(\d+) failed", answer)
    [rate] = re.findall(r"(\d+) requests/s", answer)
    marks = [float(mark) for mark in re.findall(r"([\d.]+) ms", answer)]
    cells = " ".join(f"{mark:7.2f}" for mark in marks)
    print(
        f"{network:11} {protocol:4} {threads:7} {failed:>6} {rate:>7} {cells} "
        f"{runtime:8.2f} {runtime / marks[0]:6.0%}",
        flush=True,
    )


if __name__ == "__main__":
    app.run(main)
