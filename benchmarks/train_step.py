"""Training speed: the bare compiled step, and `fit` with its input pipeline.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --networks=resnet18 --batch_size=32

For each network and precision: images a second of the compiled MART step
(PGD-10) on one batch that is already there, and of `fit` on the real input
pipeline, in alternating rounds, medians; and the share of the machine's own
matrix-product peak that the step's convolutions and dense layers make up.
Data: random pixels (speed does not depend on them).
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
import rates
import tensorflow as tf

import mart_tf
from mart_tf.data import splits

_NETWORKS = flags.DEFINE_list(
    "networks", ["small_cnn", "resnet18"], "Networks of mart_tf.models."
)
_PRECISIONS = flags.DEFINE_list(
    "precisions", ["float32", "mixed_bfloat16"], "What they compute in."
)
_SERVE = flags.DEFINE_bool(
    "serve",
    False,
    "Measures the bare step of one network in one precision, once for each "
    "line of the standard input: what versus_pytorch.py asks.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Alternating rounds.")
_SECONDS = flags.DEFINE_float("seconds", 20, "Least length of a measurement.")

_SHAPES = {"small_cnn": (28, 28, 1), "resnet18": (32, 32, 3)}
_ATTACK_STEPS = 10


def main(_):
    """Prints a line for each network and precision."""
    if _SERVE.value:
        bench = Bench(_NETWORKS.value[0], _PRECISIONS.value[0])
        print("ready", flush=True)
        for _ in sys.stdin:
            print(f"rate {bench.step()}", flush=True)
        return
    peaks = {
        name: rates.matrix_product_peak(name)
        for name in ("float32", "bfloat16")
    }
    for name, peak in peaks.items():
        print(f"matrix product, {name}: {peak / 1e9:,.0f} GFLOP/s")
    print(
        f"{'network':10} {'precision':15} {'step/s':>9} {'fit/s':>9} "
        f"{'fit/step':>9} {'of peak':>8}   (images a second, medians)"
    )
    medians = {}
    for network in _NETWORKS.value:
        for precision in _PRECISIONS.value:
            bench = Bench(network, precision)
            rounds = [(bench.step(), bench.fit()) for _ in range(_ROUNDS.value)]
            step, fit = (
                statistics.median(times) for times in zip(*rounds, strict=True)
            )
            ratio = statistics.median(f / s for s, f in rounds)
            peak = peaks[precision.removeprefix("mixed_")]
            share = step * rates.mart_passes(_ATTACK_STEPS) * bench.flops / peak
            medians[network, precision] = step
            print(
                f"{network:10} {precision:15} {step:9.1f} {fit:9.1f} "
                f"{ratio:9.3f} {share:8.1%}"
            )
            sys.stdout.flush()
        if len(_PRECISIONS.value) == 2:
            first, second = (medians[network, p] for p in _PRECISIONS.value)
            print(
                f"{network}: {_PRECISIONS.value[1]} is {second / first:.2f} "
                f"times as fast as {_PRECISIONS.value[0]}"
            )


class Bench:
    """A compiled model of one network in one precision, and its data."""

    def __init__(self, network, precision):
        shape, size = _SHAPES[network], _BATCH_SIZE.value
        classifier = mart_tf.models.build(
            network, shape, 10, precision=precision
        )
        self.flops = rates.forward_flops(classifier)
        self.model = mart_tf.AdversarialClassifier(
            classifier,
            "mart",
            mart_tf.ThreatModel(epsilon=0.1),
            _ATTACK_STEPS,
        )
        self.model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        self.model.optimizer.build(self.model.trainable_variables)
        generator = np.random.RandomState(0)
        images = generator.randint(0, 256, (10 * size, *shape), "uint8")
        labels = generator.randint(0, 10, len(images)).astype("int32")
        split = splits.memory_split(images, labels)
        self.data = mart_tf.data.training_batches(split, size)
        self.batch = next(iter(self.data))
        self.compiled = tf.function(self.model.train_step)
        self.compiled(self.batch)

    def step(self):
        """Images a second of the bare step."""
        steps, started = 0, time.perf_counter()
        while steps < 3 or time.perf_counter() - started < _SECONDS.value:
            logs = self.compiled(self.batch)
            # The step is over when its loss can be read.
            float(logs["loss"])
            steps += 1
        return steps * _BATCH_SIZE.value / (time.perf_counter() - started)

    def fit(self):
        """Images a second of fit, from the end of its first step on."""
        clock = Clock(_SECONDS.value)
        self.model.fit(
            self.data,
            steps_per_epoch=1_000_000,
            verbose=0,
            shuffle=False,
            callbacks=[clock],
        )
        steps = len(clock.times) - 1
        seconds = clock.times[-1] - clock.times[0]
        return steps * _BATCH_SIZE.value / seconds


class Clock(keras.callbacks.Callback):
    """Notes the end of each step, and ends the epoch in time."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.times = seconds, []

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])
        self.times.append(time.perf_counter())
        enough = len(self.times) > 3
        if enough and self.times[-1] - self.times[0] > self.seconds:
            self.model.stop_training = True


if __name__ == "__main__":
    app.run(main)
