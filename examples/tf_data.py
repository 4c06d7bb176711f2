"""A tf.data pipeline and Keras's callbacks around adversarial training.

    python examples/tf_data.py --epochs=30 --directory=runs/tf_data

The images are scikit-learn's digits, shifted at random by up to one pixel; put
a pipeline of your own in the place of `pipelines`.
"""

import argparse
import pathlib

import keras
import numpy as np
from sklearn.datasets import load_digits
import tensorflow as tf

import mart_tf

BATCH = 64


def pipelines():
    """Batches to train on and to validate with, and test arrays."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    order = np.random.default_rng(0).permutation(len(images))
    train, validation, test = np.split(order, [1200, 1500])

    def shifted(image, label):
        padded = tf.pad(image, [[1, 1], [1, 1], [0, 0]])
        return tf.image.random_crop(padded, image.shape), label

    training = tf.data.Dataset.from_tensor_slices(
        (images[train], labels[train])
    )
    training = training.shuffle(len(train), seed=0).map(shifted)
    held_out = tf.data.Dataset.from_tensor_slices(
        (images[validation], labels[validation])
    )
    return (
        training.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE),
        held_out.batch(BATCH),
        (images[test], labels[test]),
    )


def network():
    """Any Keras model that returns logits will do."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            # Equal scores for all classes to begin with.
            layers.Dense(10, kernel_initializer="zeros"),
        ]
    )


def main():
    """Trains, loads the best epoch, attacks it and exports it."""
    parser = argparse.ArgumentParser(description="Robust digits, tf.data.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--directory", type=pathlib.Path, default="tf_data")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    best = given.directory / "best.keras"

    training, validation, test = pipelines()
    threat = mart_tf.ThreatModel(norm="linf", epsilon=0.15)
    model = mart_tf.AdversarialClassifier(
        network(),
        defense="mart",
        threat=threat,
        epsilon_warmup_steps=4 * len(training),
    )
    model.compile(optimizer=keras.optimizers.SGD(0.02, momentum=0.9))
    # Robust accuracy, not the loss, says which epoch is best.
    watched = {"monitor": "val_robust_accuracy", "mode": "max"}
    model.fit(
        training,
        validation_data=validation,
        epochs=given.epochs,
        shuffle=False,  # The pipeline does.
        callbacks=[
            keras.callbacks.EarlyStopping(**watched, patience=8),
            keras.callbacks.ModelCheckpoint(
                best, **watched, save_best_only=True
            ),
            keras.callbacks.CSVLogger(given.directory / "metrics.csv"),
        ],
    )

    model = keras.saving.load_model(best)
    print(mart_tf.evaluate_robustness(model, test, threat, ["pgd:steps=20"]))
    print(mart_tf.export_saved_model(model, given.directory / "export"))


if __name__ == "__main__":
    main()
