"""A classifier that no robust accuracy can be trusted of says so at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf.evaluation import doubts
from mart_tf.evaluation import subjects

IMAGES = np.random.default_rng(0).random((40, 4, 4, 1), np.float32)
LABELS = (np.arange(40) % 3).astype("int32")
WEIGHTS = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")


def linear(images):
    return tf.reshape(images, [-1, 16]) @ WEIGHTS


def sentences(classify):
    subject = subjects.as_subject(classify, images=IMAGES)
    return list(doubts.of(subject, IMAGES, LABELS))


def test_a_sound_classifier_leaves_none():
    assert not sentences(linear)
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    assert not sentences(network)


def test_dropout_in_inference_mode():
    dropout = keras.layers.Dropout(0.5, seed=3)

    def classify(images):
        return linear(dropout(images, training=True))

    [sentence] = sentences(classify)
    assert sentence.startswith("Two passes over the same images differ")
    assert "autoattack:version=rand" in sentence


def test_a_classifier_that_counts_its_calls():
    calls = tf.Variable(0.0)

    def classify(images):
        return linear(images) * (1.0 + calls.assign_add(1.0))

    [sentence] = sentences(classify)
    assert "changes as it is asked" in sentence


def test_batch_normalization_in_training_mode():
    def classify(images):
        return linear(images - tf.reduce_mean(images, axis=0))

    [sentence] = sentences(classify)
    assert "depends on the other images of its batch" in sentence


@pytest.mark.parametrize("share, flat", [(0.0, 40), (0.5, 20)])
def test_a_gradient_of_0(share, flat):
    """Images are rounded to two levels, of some only the copy that is seen."""
    moved = IMAGES.copy()
    bright = np.arange(40) < share * 40
    moved[bright] = 2.0 + moved[bright]

    def classify(images):
        stepped = tf.where(images > 1.5, images, tf.round(images))
        return linear(stepped)

    subject = subjects.as_subject(classify, images=moved)
    [sentence] = doubts.of(subject, moved, LABELS)
    assert f"At {flat} of 40 images the gradient is exactly 0" in sentence


def test_the_report_says_it_and_so_does_a_warning():
    dropout = keras.layers.Dropout(0.5, seed=3)
    with pytest.warns(UserWarning, match="Two passes over the same images"):
        report = mart_tf.evaluate_robustness(
            lambda images: linear(dropout(images, training=True)),
            (IMAGES, LABELS),
            mart_tf.ThreatModel(epsilon=0.1),
            "fgsm",
        )
    assert any("Two passes" in sentence for sentence in report.warnings)
