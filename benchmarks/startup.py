"""What a run costs before it trains: imports, building, the first step, memory.

    python benchmarks/startup.py

Each number is of a process of its own. Imports: TensorFlow with Keras, then the
same with mart_tf, with its public parts touched, in turn --rounds times, and
`mart-train --help`. Networks: built, compiled for MART (PGD-10, SGD with
momentum, --batch_size), one step of `fit`, then --steps more; the time to the
end of the first, of a later one (a median), and the most memory.
"""

import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Imports of each kind.")
_STEPS = flags.DEFINE_integer("steps", 3, "Steps after the first.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Of the steps.")
_MODELS = flags.DEFINE_list(
    "models",
    "small_cnn,cnn8,resnet18,wide_resnet:depth=34:width=10",
    "Which networks, for 32x32 images of ten classes.",
)

_IMPORTS = {
    "tensorflow, keras": "import tensorflow, keras",
    "and mart_tf": (
        "import tensorflow, keras, mart_tf\n"
        "mart_tf.AdversarialClassifier, mart_tf.evaluate_robustness\n"
        "mart_tf.export_saved_model, mart_tf.data.load"
    ),
}
_NETWORK = """
import json, resource, sys, time
begun = time.monotonic()
import keras, numpy as np
import mart_tf
from mart_tf import models
spec, size, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
images = np.random.default_rng(0).random([size, 32, 32, 3], "float32")
labels = np.arange(size, dtype="int32") % 10
model = mart_tf.AdversarialClassifier(
    models.build(spec, (32, 32, 3), 10),
    threat=mart_tf.ThreatModel(epsilon=8 / 255),
)
model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
built = time.monotonic()
ends = []
for _ in range(1 + steps):
    model.fit(images, labels, batch_size=size, verbose=0)
    ends.append(time.monotonic())
later = sorted(b - a for a, b in zip(ends, ends[1:]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({
    "parameters": model.classifier.count_params(),
    "built": built - begun,
    "first": ends[0] - begun,
    "later": later[len(later) // 2] if later else None,
    "peak": peak,
}))
"""


def main(_):
    taken = {name: [] for name in _IMPORTS}
    taken["mart-train --help"] = []
    for _ in range(_ROUNDS.value):
        for name, code in _IMPORTS.items():
            taken[name].append(_seconds(["-c", code]))
        help_ = ["-m", "mart_tf.train", "--help"]
        taken["mart-train --help"].append(_seconds(help_))
    for name, seconds in taken.items():
        print(f"{name:20s} {statistics.median(seconds):6.2f} s", flush=True)
    pairs = zip(*(taken[name] for name in _IMPORTS), strict=True)
    more = statistics.median(ours - theirs for theirs, ours in pairs)
    print(f"{'mart_tf alone':20s} {more:6.2f} s (median of the differences)")
    heads = "parameters  built  first  later    MiB"
    print(f"{'network':28s} {heads}")
    for spec in _MODELS.value:
        command = [
            sys.executable,
            "-c",
            _NETWORK,
            spec,
            str(_BATCH_SIZE.value),
            str(_STEPS.value),
        ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True
        )
        one = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{spec:28s} {one['parameters']:10,d} {one['built']:6.1f} "
            f"{one['first']:6.1f} {one['later']:6.2f} {one['peak']:6,.0f}",
            flush=True,
        )


def _seconds(arguments):
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - begun


if __name__ == "__main__":
    app.run(main)
