"""The public API as a user's typed code calls it: `mypy` reads it, strictly.

`test_typing.py` holds what mypy makes of it against the comments.
"""

import keras
import numpy as np
import tensorflow as tf

import mart_tf


def train(x: np.ndarray, y: np.ndarray) -> mart_tf.AdversarialClassifier:
    """A classifier of 8x8 images."""
    network: keras.Model = mart_tf.models.build("digits_cnn", (8, 8, 1), 10)
    threat = mart_tf.ThreatModel(norm="linf", epsilon=0.15)
    defense = mart_tf.defenses.MART(regularization=5.0)
    model = mart_tf.AdversarialClassifier(network, defense, threat)
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    model.fit(x, y, epochs=1)
    return model


def evaluate(
    model: mart_tf.AdversarialClassifier, x: np.ndarray, y: np.ndarray
) -> float:
    """Robust accuracy, and a version of it to serve."""
    attack = mart_tf.attacks.PGD(steps=20)
    report: mart_tf.evaluation.Report = mart_tf.evaluate_robustness(
        model, (x, y), model.threat, ["fgsm", attack], epsilon_sweep=[0.1]
    )
    report.save("evaluation")
    path: str = mart_tf.export_saved_model(model, "export")
    print(path, attack(model, x, y, model.threat, seed=0))
    return report.accuracy["worst_case"]


def mart(labels: tf.Tensor, natural: tf.Tensor, other: tf.Tensor) -> float:
    """The mean of its loss."""
    values = mart_tf.losses.mart(labels, natural, other, form="released")
    return float(tf.reduce_mean(values))


def pool() -> mart_tf.data.Dataset:
    """The embedded digits."""
    return mart_tf.data.load("digits")


def wrong(x: np.ndarray, y: np.ndarray, network: keras.Model) -> None:
    """What a checker has to tell."""
    mart_tf.ThreatModel(norm=2)  # error: arg-type
    mart_tf.ThreatModel(radius=0.1)  # error: call-arg
    mart_tf.attacks.PGD(steps="many")  # error: arg-type
    mart_tf.attacks.pgd(network, x, y)  # error: call-arg
    mart_tf.losses.mart(y, x, x, form=1)  # error: arg-type
    mart_tf.AdversarialClassifier(network, seed="0")  # error: arg-type
    mart_tf.evaluate_robustness(network, (x, y), "linf")  # error: arg-type
