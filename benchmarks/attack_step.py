"""Where the time of the inner attack goes, and what could make it faster.

    python benchmarks/attack_step.py
    python benchmarks/attack_step.py --network=resnet18 --batch_size=32

PGD-10 on one batch of random pixels, as the training step runs it: first its
operations by TensorFlow's profiler, milliseconds of one of the ten steps, by
kind and one by one, convolutions and dense layers with their GFLOP/s. Then, in
alternating rounds, the attack as it is and otherwise: with batch norm, and the
first convolution's gradient to images of one channel, as Keras computes them;
with the batch in two halves in one graph.
"""

import collections
import functools
import os
import pathlib
import re
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import rates
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import mart_tf
from mart_tf.attacks import given
from mart_tf.attacks import gradient
from mart_tf.attacks import loops
from mart_tf.training import fused_norm
from mart_tf.training import image_gradient

_NETWORK = flags.DEFINE_string("network", "small_cnn", "Of mart_tf.models.")
_PRECISIONS = flags.DEFINE_list(
    "precisions", ["float32", "mixed_bfloat16"], "Of the network."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Alternating rounds.")
_SECONDS = flags.DEFINE_float("seconds", 3, "Least length of a measurement.")

_THREAT = mart_tf.ThreatModel(epsilon=0.3)
# Its name, and behind it its type.
_OPERATION = re.compile(r"(?!Eager)[^:]+:\w+")
_STEPS = 10
_PROFILED = 3
_SHOWN = 12


def main(_):
    """Prints a profile and the ratios, for each precision."""
    for precision in _PRECISIONS.value:
        peak = rates.matrix_product_peak(precision.removeprefix("mixed_"))
        print(f"\n{precision}: matrix product {peak / 1e9:,.0f} GFLOP/s")
        shape = (32, 32, 3)
        if _NETWORK.value == "small_cnn":
            shape = (28, 28, 1)
        images = tf.random.uniform((_BATCH_SIZE.value, *shape))
        labels = tf.zeros(_BATCH_SIZE.value, tf.int32)
        model = _network(precision, shape)
        attack = _compiled(model, _whole)
        attack(images, labels)
        for line in _profile(attack, model, images, labels):
            print(line)
        ways = {
            "as it is": attack,
            "Keras's operations": _compiled(model, _by_keras),
            "two halves": _compiled(model, _halves),
        }
        found = {name: [] for name in ways}
        for way in ways.values():
            way(images, labels)
        for _ in range(_ROUNDS.value):
            for name, way in ways.items():
                found[name].append(_rate(way, images, labels))
        for name, values in found.items():
            ratio = statistics.median(
                value / plain
                for value, plain in zip(values, found["as it is"], strict=True)
            )
            rate = statistics.median(values)
            print(f"{name:18} {rate:7,.1f} images/s {ratio:6.2f}")


def _network(precision, shape):
    model = mart_tf.models.build(_NETWORK.value, shape, 10, precision=precision)
    # It starts at zero, where there is no gradient.
    kernel = model.layers[-1].kernel
    kernel.assign(tf.random.stateless_normal(kernel.shape, (0, 1)))
    return model


def _classify(model, images):
    with fused_norm.fused(model), image_gradient.as_product(model):
        return model(images, training=False)


def _compiled(model, way):
    # A partial: TensorFlow warns of many functions with the same code.
    return tf.function(functools.partial(way, model), autograph=False)


def _by_keras(model, images, labels):
    classify = functools.partial(model, training=False)
    return _whole(model, images, labels, classify)


def _whole(model, images, labels, classify=None):
    return gradient.pgd(
        classify or functools.partial(_classify, model),
        images,
        labels,
        _THREAT,
        steps=_STEPS,
        seed=0,
    )


def _halves(model, images, labels):
    whole, classes = tf.split(images, 2), tf.split(labels, 2)

    def advance(*iterates):
        return tuple(
            gradient.ascent_step(
                functools.partial(_classify, model),
                *parts,
                _THREAT,
                _THREAT.epsilon / 4.0,
            )[0]
            for parts in zip(iterates, whole, classes, strict=True)
        )

    start = _THREAT.random_start(
        images, given.example_seeds(0, images), None, "uniform"
    )
    halves = tuple(tf.split(start, 2))
    made = loops.repeated(lambda *_: True, advance, halves, _STEPS)
    return tf.concat(made, 0)


def _profile(attack, model, images, labels):
    """Lines of the operations that take longest."""
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(_PROFILED):
            attack(images, labels).numpy()
        tf.profiler.experimental.stop()
        (file,) = pathlib.Path(folder).glob("**/*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    spent = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if _OPERATION.fullmatch(name):
                    spent[name] += event.duration_ps
    whole = sum(spent.values())
    kinds = collections.Counter()
    for name, picoseconds in spent.items():
        kinds[name.rpartition(":")[2].removeprefix("_MklNative")] += picoseconds
    for kind, picoseconds in kinds.most_common(_SHOWN):
        yield (
            f"{kind:32} {picoseconds / 1e9 / _PROFILED / _STEPS:6.2f} ms "
            f"{picoseconds / whole:6.1%}"
        )
    if _NETWORK.value != "small_cnn":
        return
    yield ""
    flops = {layer.name: rates.layer_flops(layer) for layer in model.layers}
    for name, picoseconds in spent.most_common(_SHOWN):
        milliseconds = picoseconds / 1e9 / _PROFILED / _STEPS
        layer = re.search(r"/([a-z]+\d?)(_\d+)?/", name)
        own, kind = layer[1] if layer else "", name.rpartition(":")[2]
        speed = ""
        if flops.get(own) and ("Conv" in kind or "MatMul" in kind):
            done = flops[own] * len(images) / milliseconds / 1e6
            speed = f"{done:5,.0f} GFLOP/s"
        kind = kind.removeprefix("_MklNative")
        yield (
            f"{f'{own} {kind}':32} {milliseconds:6.2f} ms "
            f"{picoseconds / whole:6.1%} {speed}"
        )


def _rate(attack, images, labels):
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS.value:
        attack(images, labels).numpy()
        done += len(images)
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    app.run(main)
