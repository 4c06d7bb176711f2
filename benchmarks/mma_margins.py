"""What MMA training keeps of each example, epoch by epoch.

    python benchmarks/mma_margins.py --data_dir=DIR

Trains the small CNN with `mma` on the first training images of CIFAR-10 and
prints of some epochs: how many examples have p_y > 1/2; of these the mean
margin, how many lie beyond the greatest margin, and how many of those would be
nearer if the training epsilon were kept; the least and the median of the kept
epsilons, and how many of them lie below the least epsilon.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import keras
import numpy as np
import tensorflow as tf

import mart_tf
from mart_tf import noise
from mart_tf.defenses import base

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS data lies.")
_IMAGES = flags.DEFINE_integer("images", 1500, "Training images.")
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs.")
_EVERY = flags.DEFINE_integer("every", 5, "Epochs between two lines.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 50, "Images in a batch.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.001, "Of Adam.")
_SEED = flags.DEFINE_integer("seed", 0, "Of weights and noise.")

_GREATEST = 12 / 255
_LEAST = 0.005
_STEPS = 10


def main(_):
    """Prints a line for every few epochs."""
    dataset = mart_tf.data.load("cifar10", data_dir=_DATA_DIR.value)
    images, labels = mart_tf.data.arrays(dataset.train, _IMAGES.value)
    threat = mart_tf.ThreatModel(epsilon=8 / 255)
    classifier = mart_tf.models.small_cnn(
        images.shape[1:], 10, seed=_SEED.value
    )
    model = mart_tf.AdversarialClassifier(
        classifier,
        f"mma:max_margin={_GREATEST}:min_epsilon={_LEAST}",
        threat,
        attack_steps=_STEPS,
        seed=_SEED.value,
    )
    model.compile(keras.optimizers.Adam(_LEARNING_RATE.value))
    margins = _searches(model, images, labels)
    print(
        "epoch  p_y > 1/2  mean margin  beyond  nearer  "
        "least kept  median kept  below the least"
    )
    for epoch in range(_EVERY.value, _EPOCHS.value + 1, _EVERY.value):
        model.fit(
            images,
            labels,
            batch_size=_BATCH_SIZE.value,
            epochs=epoch,
            initial_epoch=epoch - _EVERY.value,
            verbose=0,
        )
        kept = model.memory.get_weights()[0]
        own = margins(kept)
        other = margins(np.full_like(kept, threat.epsilon))
        right = own > 0
        beyond = own >= _GREATEST
        nearer = beyond & (other < _GREATEST)
        print(
            f"{epoch:5}  {right.sum():9}  "
            f"{own[right].sum() / max(1, right.sum()):11.4f}  "
            f"{beyond.sum():6}  {nearer.sum():6}  {kept.min():10.6f}  "
            f"{np.median(kept):11.6f}  "
            f"{(kept < np.float32(_LEAST)).sum():15}",
            flush=True,
        )


def _searches(model, images, labels):
    """A function from kept epsilons `[n]` to margins, 0 of who is wrong."""

    @tf.function
    def search(image, label, kept, seeds):
        batch = base.Batch(
            image=image,
            label=tf.cast(label, tf.int32),
            weight=tf.ones_like(kept),
            example=seeds[:, 1],
            seeds=seeds,
            memory={"epsilon": kept},
        )
        epsilon = model.threat.epsilon
        inner = base.InnerAttack(
            model.threat, _STEPS, epsilon / 4, epsilon, "uniform", 0
        )
        found = model.defense.attack(
            lambda image: model.classifier(image, training=False), batch, inner
        )
        return found.measures["margin"]

    def margins(kept):
        seeds = noise.seeds(1, tf.range(len(images))).numpy()
        data = tf.data.Dataset.from_tensor_slices((images, labels, kept, seeds))
        return np.concatenate([search(*batch) for batch in data.batch(250)])

    return margins


if __name__ == "__main__":
    app.run(main)
