"""What a network in bfloat16 sees of adversarial images: are they in the ball?

    python benchmarks/bfloat16_images.py --data_dir=DIR

Images and perturbations are float32 and inside the threat model, exactly. The
first layer of a network in bfloat16 rounds what it is given to 8 significant
bits: near 1 that is a step of 1/256, a grey level. So what it computes on can
lie outside the ball around the natural image. This counts how many pixels of
CIFAR-10's test images do at epsilon 8/255, and by how many of 255 grey levels:
at a uniform start, at the corners of the ball (where FGSM puts a pixel), and
after PGD-10 with steps of epsilon / 4, as in training, on a small CNN in
bfloat16 that was trained naturally on a few images.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import keras
import numpy as np
import tensorflow as tf

import mart_tf
from mart_tf import attacks
from mart_tf import data
from mart_tf.models import loading

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS data lies.")
_IMAGES = flags.DEFINE_integer("images", 200, "The first test images.")

LEVELS = 8
THREAT = mart_tf.ThreatModel("linf", LEVELS / 255)
# Of a grey level: more than float32 rounds an image in [0, 1] by.
_ROUNDING = 1e-4


def main(_):
    """Prints a line for each kind of adversarial image."""
    dataset = data.load("cifar10", data_dir=_DATA_DIR.value)
    images, labels = data.arrays(dataset.test, _IMAGES.value)
    print(f"{len(images)} images, epsilon {LEVELS} of 255 levels")
    print(
        f"{'images':>16} {'outside':>9} {'at most':>9} {'on average':>11}"
        "   (of all pixels; levels beyond epsilon, of those outside)"
    )
    network = trained(dataset.train)
    for name, adversarial in kinds(network, images, labels):
        assert beyond(adversarial, images).max() <= _ROUNDING
        report(name, beyond(rounded(adversarial), images))


def kinds(network, images, labels):
    """Yields the name of each kind, and the float32 images."""
    generator = np.random.default_rng(0)
    noise = generator.uniform(-1, 1, images.shape).astype(np.float32)
    yield "natural", images
    for name, direction in [
        ("uniform start", noise),
        ("corners", signs(noise)),
    ]:
        moved = images + np.float32(THREAT.epsilon) * direction
        yield name, THREAT.project(moved, images).numpy()
    yield "PGD-10", attacked(network, images, labels)


def signs(noise):
    return np.where(noise < 0, np.float32(-1), np.float32(1))


def trained(split):
    """A small CNN in bfloat16, a few steps of natural training old."""
    network = loading.build(
        "small_cnn", split.image_shape, 10, precision="mixed_bfloat16"
    )
    network.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images, labels = data.arrays(split, 1000)
    network.fit(images, labels, batch_size=50, epochs=2, verbose=0)
    return network


def attacked(network, images, labels):
    """PGD-10, as in training."""

    @tf.function
    def attack(images, labels):
        return attacks.pgd(
            lambda x: network(x, training=False),
            images,
            labels,
            THREAT,
            steps=10,
            seed=0,
        )

    return np.concatenate(
        [
            attack(tf.constant(images[i : i + 100]), labels[i : i + 100])
            for i in range(0, len(images), 100)
        ]
    )


def rounded(images):
    """What the first layer of a network in bfloat16 computes on."""
    return tf.cast(tf.cast(images, tf.bfloat16), tf.float32).numpy()


def beyond(adversarial, images):
    """Grey levels by which each pixel lies outside the ball, 0 inside."""
    distance = np.abs(np.float64(adversarial) - np.float64(images))
    return np.maximum(255 * distance - LEVELS, 0.0)


def report(name, excess):
    outside = excess > _ROUNDING
    mean = excess[outside].mean() if outside.any() else 0.0
    print(
        f"{name:>16} {outside.mean():9.2%} {excess.max():9.2f} {mean:11.2f}",
        flush=True,
    )


if __name__ == "__main__":
    app.run(main)
