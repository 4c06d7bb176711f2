"""A step with a number that is not finite changes nothing, on any replica."""

import keras
import tensorflow as tf

from mart_tf.training import counters
from mart_tf.training import reduction

# What is looked at, in the order in which a step computes it; and the word
# for it where it is the first that is not finite.
TERMS = {
    "images": "an image of the training data",
    "adversarial": "an adversarial example",
    "measures": "what the attack measured",
    "logits": "an output of the network",
    "loss": "the loss of an example",
    "own": "a loss that the network adds itself",
    "state": "the gradient",
}


class Skips(keras.layers.Layer):
    """Judges steps, and counts those in a row that were skipped.

    A step is skipped where, on any replica, one of `TERMS` is NaN or infinite.
    Of weights, batch statistics, the optimizer, averages, what a defense
    remembers and the metrics it leaves nothing; schedules and ramps count it,
    so that what comes after it falls on the same step as without it.

    After more than `limit` in a row all further ones are skipped too, until
    `begin`: whoever looks late finds the state that it stopped in.

    Args:
        limit: How many in a row may be skipped, at least 0.
    """

    def __init__(self, limit):
        super().__init__(name="skips")
        self.limit = limit
        self.in_row = counters.add(self, "in_row")
        self.term = counters.add(self, "term")
        self.built = True

    def begin(self):
        """Counts anew where there were too many.

        Fewer stay: who trains in short calls of `fit` may skip all of them.
        """
        if self.are_too_many():
            self.in_row.assign(0)

    def judge(self, tensors):
        """Whether this step is skipped, the same on every replica.

        Args:
            tensors: For each of `TERMS` this replica's tensors.

        Returns:
            A boolean scalar.
        """
        bad = tf.stack([_any_not_finite(tensors[name]) for name in TERMS])
        bad = reduction.anywhere(bad)
        before = tf.convert_to_tensor(self.in_row.value)
        skipped = tf.reduce_any(bad) | (before > self.limit)
        counted = tf.minimum(before + 1, self.limit + 1)
        first = tf.argmax(tf.cast(bad, tf.int32), output_type=tf.int64)
        term = tf.where(tf.reduce_any(bad), first, self.term.value)
        self.in_row.assign(tf.where(skipped, counted, 0))
        self.term.assign(term)
        return skipped

    @property
    def cause(self):
        """Which of `TERMS` the last skipped step had first."""
        return list(TERMS)[counters.number(self.term)]

    def are_too_many(self):
        """Whether more than `limit` steps in a row were skipped."""
        return counters.number(self.in_row) > self.limit


def _any_not_finite(tensors):
    whole = [
        tf.reduce_all(tf.math.is_finite(tensor))
        for tensor in tensors
        if tensor is not None and tensor.dtype.is_floating
    ]
    return ~tf.reduce_all(tf.stack(whole)) if whole else tf.constant(False)
