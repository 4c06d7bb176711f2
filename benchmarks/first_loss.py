"""The first loss of each network, and which hidden units training kills.

    python benchmarks/first_loss.py --data_dir=DIR

Trains each network for some steps on CIFAR-10, by standard adversarial
training and by MART, with one attack step, and prints the loss of the first
step (that of equal scores is 2.30, of MART 2.41), and the share of the units
before the last layer that are 0 for every image of a batch afterwards.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import keras
import numpy as np

import mart_tf
from mart_tf.models import loading

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS data lies.")
_MODELS = flags.DEFINE_list(
    "models",
    ["small_cnn", "cnn4", "cnn8", "resnet18", "wide_resnet:depth=16:width=4"],
    "Networks.",
)
_STEPS = flags.DEFINE_integer("steps", 100, "Training steps.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images in a batch.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.01, "Of SGD.")


def main(_):
    """Prints a row for each network and defense."""
    dataset = mart_tf.data.load("cifar10", data_dir=_DATA_DIR.value)
    count = _STEPS.value * _BATCH_SIZE.value
    images, labels = mart_tf.data.arrays(dataset.train, count)
    print("| network | defense | first loss | dead units |")
    print("|---|---|---|---|")
    for name in _MODELS.value:
        for defense in ("standard", "mart"):
            first, dead = _trained(name, defense, images, labels)
            print(f"| {name} | {defense} | {first:.2f} | {dead:.0%} |")


def _trained(name, defense, images, labels):
    """The first loss, and the share of dead units at the end."""
    network = loading.build(name, images.shape[1:], 10)
    threat = mart_tf.ThreatModel(epsilon=8 / 255)
    model = mart_tf.AdversarialClassifier(network, defense, threat, 1)
    rate = _LEARNING_RATE.value
    model.compile(keras.optimizers.SGD(rate, momentum=0.9))
    size = _BATCH_SIZE.value
    seen = []
    model.fit(
        images,
        labels,
        size,
        shuffle=False,
        verbose=0,
        callbacks=keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(logs["loss"])
        ),
    )
    # What the last layer takes.
    hidden = keras.Model(network.input, network.layers[-1].input)
    dead = (np.abs(hidden.predict(images[:1000], size, verbose=0)) == 0).all(0)
    return float(seen[0]), dead.mean()


if __name__ == "__main__":
    app.run(main)
