"""Batch-norm statistics for the average of the weights: live, or estimated.

    python benchmarks/average_statistics.py

Trains a small network with batch normalization by MART on the embedded digits,
with `--ema`, and evaluates three networks under PGD-20: the raw weights; their
average with the statistics of the live model, which is what `--ema` takes; and
their average with statistics that were estimated anew, of the natural training
images and the adversarial ones that PGD finds against the average.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import keras
import numpy as np

import mart_tf
from mart_tf.models import rebuilding

_EPOCHS = flags.DEFINE_integer("epochs", 15, "Epochs.")
_EMA = flags.DEFINE_float("ema", 0.995, "Decay of the average.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds, from 0.")
_THREAT = mart_tf.ThreatModel(epsilon=0.15)


def main(_):
    """Prints a row for each seed and network."""
    dataset = mart_tf.data.load("digits")
    train = mart_tf.data.arrays(dataset.train)
    test = mart_tf.data.arrays(dataset.test)
    print("| seed | weights | statistics | natural | PGD-20 |")
    print("|---|---|---|---|---|")
    for seed in range(_SEEDS.value):
        model = _trained(seed, train)
        average = model.averaged()
        anew = _estimated(average, train[0], train[1])
        for weights, statistics, network in [
            ("raw", "live", model.classifier),
            ("average", "live", average),
            ("average", "estimated", anew),
        ]:
            accuracy = mart_tf.evaluate_robustness(
                network, test, _THREAT, ["pgd"]
            ).accuracy
            print(
                f"| {seed} | {weights} | {statistics} | "
                f"{100 * accuracy['natural']:.2f} | "
                f"{100 * accuracy['pgd']:.2f} |",
                flush=True,
            )


def _trained(seed, train):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input([8, 8, 1])]
    for filters, strides in [(16, 1), (32, 2), (32, 1)]:
        layers += [
            keras.layers.Conv2D(filters, 3, strides, "same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dense(10, kernel_initializer="zeros"),
    ]
    model = mart_tf.AdversarialClassifier(
        keras.Sequential(layers), "mart", _THREAT, ema=_EMA.value, seed=seed
    )
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9))
    model.fit(*train, 32, epochs=_EPOCHS.value, verbose=0)
    return model


def _estimated(network, images, labels):
    """A copy whose statistics are the means over whole passes."""
    copy = rebuilding.copy(network)
    found = mart_tf.attacks.pgd(
        lambda x: network(x, training=False), images, labels, _THREAT, steps=10
    )
    norms = [
        layer
        for layer in copy.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    seen = []
    for layer in norms:
        # After each batch they are that batch's.
        layer.momentum = 0.0
    for some in (images, np.array(found)):
        for first in range(0, len(some) - 31, 32):
            copy(some[first : first + 32], training=True)
            seen.append(
                [
                    [
                        keras.ops.convert_to_numpy(w)
                        for w in layer.non_trainable_weights
                    ]
                    for layer in norms
                ]
            )
    for place, layer in enumerate(norms):
        for kind, weight in enumerate(layer.non_trainable_weights):
            weight.assign(np.mean([own[place][kind] for own in seen], axis=0))
    return copy


if __name__ == "__main__":
    app.run(main)
