"""Fast max pooling: Keras's values and gradient, bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mart_tf import models
from mart_tf.models import pooling


def both(images, upstream):
    """Values and gradients of Keras's layer and of ours."""
    found = []
    for layer in (keras.layers.MaxPooling2D(), pooling.MaxPooling2D()):
        with tf.GradientTape() as tape:
            tape.watch(images)
            pooled = layer(images)
            total = tf.reduce_sum(pooled * upstream)
        found.append((pooled, tape.gradient(total, images)))
    return found


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (2, 3)])
@pytest.mark.parametrize("levels", [2, 10**6])
def test_values_and_gradient(shape, levels):
    # Few levels: nearly every window has equal maxima.
    generator = np.random.RandomState(0)
    images = generator.randint(0, levels, (5, *shape, 3)).astype("float32")
    size = (5, shape[0] // 2, shape[1] // 2, 3)
    upstream = generator.randn(*size).astype("float32")
    (theirs, slope), (ours, own) = both(tf.constant(images), upstream)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(own, slope)


def test_a_network_is_the_same_with_it():
    network = models.build("small_cnn", (28, 28, 1), 10)
    # The last layer begins at zero; the gradient would be zero too.
    generator = np.random.RandomState(0)
    network.set_weights(
        [
            weight + 0.01 * generator.randn(*weight.shape)
            for weight in network.get_weights()
        ]
    )
    fast = pooling.accelerated(network)
    kinds = [type(layer) for layer in fast.layers]
    assert kinds.count(pooling.MaxPooling2D) == 2
    images = tf.constant(generator.rand(4, 28, 28, 1).astype("float32"))
    gradients = []
    for model in (network, fast):
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = model(images, training=False)
            total = tf.reduce_sum(logits**2)
        gradients.append((logits, tape.gradient(total, images)))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(one, other)
    # The user's own network is left as it was.
    assert pooling.MaxPooling2D not in map(type, network.layers)


def test_other_networks_stay_as_they_are():
    overlapping = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.MaxPooling2D(3, strides=2)]
    )
    assert pooling.accelerated(overlapping) is overlapping

    class Subclassed(keras.Model):
        def __init__(self, count):
            super().__init__()
            self.pool = keras.layers.MaxPooling2D()

        def call(self, inputs):
            return self.pool(inputs)

    subclassed = Subclassed(3)
    subclassed(np.zeros((1, 4, 4, 1), "float32"))
    assert pooling.accelerated(subclassed) is subclassed
