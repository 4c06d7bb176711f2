"""Weights that count steps, one number for all replicas."""

import tensorflow as tf


def add(layer, name):
    """Adds a counter, at 0, to a Keras layer or model."""
    return layer.add_weight(
        name=name,
        dtype="int64",
        trainable=False,
        initializer="zeros",
        aggregation="only_first_replica",
    )


def number(counter):
    """The value of a counter, also under a strategy."""
    return int(tf.convert_to_tensor(counter.value))
