"""A first loss far above log(classes) is said, once and with the remedy."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import mart_tf

IMAGES = np.random.RandomState(0).rand(32, 4, 4, 1).astype("float32")
LABELS = np.arange(32) % 4


def model_of(scale, **settings):
    """A network whose first logits are as large as asked."""
    kernel = keras.initializers.RandomNormal(stddev=scale, seed=0)
    classifier = keras.Sequential(
        [
            keras.Input([4, 4, 1]),
            keras.layers.Flatten(),
            keras.layers.Dense(4, kernel_initializer=kernel, **settings),
        ]
    )
    threat = mart_tf.ThreatModel(epsilon=0.1)
    model = mart_tf.AdversarialClassifier(classifier, threat=threat)
    model.compile(keras.optimizers.SGD(1e-6))
    return model


def test_says_what_it_is_and_how_to_mend_it():
    model = model_of(3.0)
    with pytest.warns(UserWarning, match="first loss is") as caught:
        model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    [said] = [str(each.message) for each in caught]
    assert "equal scores for 4 classes is 1.4" in said
    assert said.endswith('for example with kernel_initializer="zeros".')
    # A run that goes on has its first step behind it.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(IMAGES, LABELS, verbose=0)


def test_weights_of_examples_say_nothing():
    dataset = tf.data.Dataset.from_tensors((IMAGES, LABELS, np.full(32, 9.0)))
    for given in [
        {"x": IMAGES, "y": LABELS, "class_weight": dict.fromkeys(range(4), 9)},
        {"x": IMAGES, "y": LABELS, "sample_weight": np.full(32, 9.0)},
        {"x": dataset, "shuffle": False},
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model_of(0.1).fit(**given, verbose=0)


@pytest.mark.parametrize("settings", [{}, {"kernel_regularizer": "l2"}])
def test_is_silent_where_there_is_nothing_to_say(settings):
    # A regularizer's loss counts in the first one, and says nothing.
    model = model_of(3.0 if settings else 0.1, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(IMAGES, LABELS, verbose=0)
