"""Dropout as a function of (seed, step).

Keras saves no seed state, and draws the same masks on every replica.
"""

import tensorflow as tf

from mart_tf import noise


def seed(classifier, number, step):
    """Sets the state of every seed generator of a network.

    Args:
        classifier: A Keras model.
        number: An int64 scalar, the seed.
        step: An int64 scalar.
    """
    own = noise.fold(number, step)
    for place, state in enumerate(_seed_states(classifier)):
        state.assign(tf.bitcast(noise.fold(own, place), tf.uint32))


def _seed_states(classifier):
    weights = {id(variable) for variable in classifier.weights}
    return [
        variable
        for variable in classifier.variables
        if id(variable) not in weights
        and variable.name == "seed_generator_state"
    ]
