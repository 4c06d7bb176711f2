"""Dropout as a function of (seed, step): see `private.seed_states`."""

import tensorflow as tf

from mart_tf import noise
from mart_tf import private


def seed(classifier, number, step):
    """Sets the state of every seed generator of a network.

    Args:
        classifier: A Keras model.
        number: An int64 scalar, the seed.
        step: An int64 scalar.
    """
    own = noise.fold(number, step)
    for place, state in enumerate(private.seed_states(classifier)):
        state.assign(tf.bitcast(noise.fold(own, place), tf.uint32))
