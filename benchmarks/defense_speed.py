"""What a training step of each defense costs, and of what makes it stronger.

    python benchmarks/defense_speed.py
    python benchmarks/defense_speed.py --defenses=standard,mart,mart+awp

Images a second of the compiled step on the small CNN (PGD-10, MNIST's shape,
one batch of random pixels that is already there), in alternating rounds:
medians, the ratio to standard adversarial training within a round, and the
seconds that MNIST's 58,000 training images take. Dynamic's criterion is 0, as
at the end of its schedule: no example stops early.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import keras
import numpy as np
import tensorflow as tf

import mart_tf

# What may follow a defense, behind "+": options of AdversarialClassifier.
_TRICKS = {
    "awp": {"update": "awp:gamma=0.005"},
    "ema": {"ema": 0.995},
    "smoothing": {"label_smoothing": 0.1},
}

_DEFENSES = flags.DEFINE_list(
    "defenses",
    [
        "natural",
        "standard",
        "alp",
        "clp",
        "trades",
        "mma",
        "dynamic",
        "mart",
        "uat",
    ],
    "Defenses, standard among them; mart+awp+ema with tricks, of awp, ema, "
    "smoothing.",
)
_PRECISION = flags.DEFINE_string(
    "precision", "mixed_bfloat16", "float32 or mixed_bfloat16."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Alternating rounds.")
_SECONDS = flags.DEFINE_float("seconds", 6, "Least length of a measurement.")

_EPOCH = 58_000


def main(_):
    """Prints a line for each defense."""
    # Not that each defense is a new graph.
    tf.get_logger().setLevel("ERROR")
    steps = {name: compiled_step(name) for name in _DEFENSES.value}
    rounds = [
        {name: images_per_second(step) for name, step in steps.items()}
        for _ in range(_ROUNDS.value)
    ]
    print(f"{'defense':20} {'images/s':>9} {'standard = 1':>13} {'epoch s':>8}")
    for name in steps:
        rate = statistics.median(rates[name] for rates in rounds)
        ratio = statistics.median(
            rates[name] / rates["standard"] for rates in rounds
        )
        print(f"{name:20} {rate:9.0f} {ratio:13.2f} {_EPOCH / rate:8.0f}")
    sys.stdout.flush()


def compiled_step(name):
    """A call without arguments that takes one training step.

    Args:
        name: A defense, with tricks.
    """
    defense, *tricks = name.split("+")
    settings = {}
    for trick in tricks:
        settings |= _TRICKS[trick]
    classifier = mart_tf.models.build(
        "small_cnn", (28, 28, 1), 10, precision=_PRECISION.value
    )
    size = _BATCH_SIZE.value
    model = mart_tf.AdversarialClassifier(
        classifier,
        defense,
        mart_tf.ThreatModel(epsilon=0.3),
        rows=size,
        **settings,
    )
    model.prepare(size - 1)
    model.compile(keras.optimizers.SGD(0.001))
    model.optimizer.build(model.trainable_variables)
    model.epoch.assign(1_000_000)
    generator = np.random.RandomState(0)
    batch = (
        {
            "image": tf.constant(generator.rand(size, 28, 28, 1), tf.float32),
            "index": tf.range(size, dtype=tf.int64),
        },
        tf.constant(generator.randint(0, 10, size), tf.int32),
    )
    step = tf.function(model.train_step)
    step(batch)
    return lambda: float(step(batch)["loss"])


def images_per_second(step):
    count, started = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - started < _SECONDS.value:
        step()
        count += 1
    return count * _BATCH_SIZE.value / (time.perf_counter() - started)


if __name__ == "__main__":
    app.run(main)
