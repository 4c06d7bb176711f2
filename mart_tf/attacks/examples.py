"""Choices that are made example by example in a batch."""

import tensorflow as tf

# The class of an image whose logits hold NaN: never the right one.
NO_CLASS = -1


def predicted(logits):
    """The class of each example, int32 `[batch]`, `NO_CLASS` for NaN."""
    classes = tf.argmax(logits, axis=-1, output_type=tf.int32)
    missing = tf.reduce_any(tf.math.is_nan(logits), axis=-1)
    return tf.where(missing, NO_CLASS, classes)


def misclassified(labels, logits):
    """Which examples are not recognised, bool `[batch]`."""
    return predicted(logits) != tf.cast(labels, tf.int32)


def where(chosen, values, others):
    """`values` of the chosen examples, `others` of the rest.

    Args:
        chosen: bool `[batch]`.
        values: `[batch, ...]`.
        others: Of the same shape.
    """
    shape = [-1] + [1] * (len(values.shape) - 1)
    return tf.where(tf.reshape(chosen, shape), values, others)


def choose(chosen, values, others):
    """What `values` names, as in `where`, each from its own of two dicts."""
    return {
        name: where(chosen, value, others[name])
        for name, value in values.items()
    }


def strongest_wrong(labels, logits, count):
    """The wrong classes of the highest logits, int32 `[batch, count]`."""
    is_label = tf.one_hot(labels, logits.shape[-1], True, False, dtype=tf.bool)
    others = tf.where(is_label, -float("inf"), logits)
    return tf.math.top_k(others, count).indices
