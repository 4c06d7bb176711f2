"""What a classifier returns: logits, or probabilities said to be such."""

import numpy as np
import tensorflow as tf

from mart_tf import options
from mart_tf.models import loading

KINDS = ("logits", "probabilities")

# exp(-87) is the least float32 above 0 whose logarithm is exact.
_LEAST_PROBABILITY = 1e-37

_ADVICE = (
    'give the network without its softmax, or declare outputs="probabilities"'
)


def logits(scores, kind):
    """A classifier's output as float32 logits; log p for probabilities."""
    scores = tf.cast(scores, tf.float32)
    if kind == "logits":
        return scores
    return tf.math.log(tf.maximum(scores, _LEAST_PROBABILITY))


def check_declared(classifier, kind):
    """Refuses an unknown kind, and an undeclared softmax.

    Raises:
        ValueError: With advice.
    """
    if kind not in KINDS:
        raise options.unknown("kind of outputs", str(kind), KINDS)
    if kind == "logits" and loading.ends_in_softmax(classifier):
        raise ValueError(
            "The classifier ends in a softmax, where logits are expected; "
            f"{_ADVICE}."
        )


def check_scores(scores, kind):
    """Refuses scores `[n, ...]` that are not of the declared kind.

    Raises:
        ValueError: With advice.
    """
    values = np.asarray(tf.cast(scores, tf.float32))
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(
            f"The classifier returns shape {values.shape}; expected [batch, "
            "classes] with at least 2 classes."
        )
    sums_to_one = np.abs(values.sum(axis=1) - 1.0).max() < 1e-3
    looks_like_probabilities = values.min() >= 0.0 and sums_to_one
    if kind == "logits" and looks_like_probabilities:
        raise ValueError(
            "The classifier returns probabilities (rows of numbers above 0 "
            f"that sum to 1), where logits are expected; {_ADVICE}."
        )
    if kind == "probabilities" and not looks_like_probabilities:
        raise ValueError(
            "The classifier returns rows that are not probabilities; expected "
            'numbers of at least 0 that sum to 1, or outputs="logits".'
        )
