"""What a classifier returns: logits, or probabilities said to be such."""

import keras
import numpy as np
import tensorflow as tf

from mart_tf import bounds
from mart_tf import choices
from mart_tf import options
from mart_tf import private
from mart_tf.models import loading
from mart_tf.models import single

# Near the least normal float32.
_LEAST_PROBABILITY = 1e-37

_ADVICE = (
    'give the network without its softmax, or declare outputs="probabilities"'
)


def unwrap(model, kind=None):
    """The classifier of a model, and what it returns.

    Args:
        model: A Keras classifier, or an `AdversarialClassifier`.
        kind: "logits" or "probabilities"; default: what an
            `AdversarialClassifier` says, else "logits".
    """
    if single.is_adversarial(model):
        return model.averaged(), kind or model.outputs
    return model, kind or "logits"


def network(model, kind=None):
    """As `unwrap`, of Keras's networks alone.

    Raises:
        ValueError: If it is none.
    """
    model, kind = unwrap(model, kind)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"The classifier is a {type(model).__name__}; expected a "
            "keras.Model or a mart_tf.AdversarialClassifier."
        )
    return model, kind


def pixel_range(model, given=None):
    """Least and greatest value of a model's pixels, as far as it is known.

    Args:
        model: A Keras classifier, or an `AdversarialClassifier`, whose threat
            model says it.
        given: What the caller says, a pair of numbers, or None.

    Returns:
        A pair of floats, or None if nobody says it.

    Raises:
        ValueError: If what is said is no range, or the model says another.
    """
    if given is not None:
        given = bounds.pixel_range(given)
    if not single.is_adversarial(model):
        return given
    own = model.threat.pixel_min, model.threat.pixel_max
    if given not in (None, own):
        raise ValueError(
            f"The pixel range is said to be {given[0]:g} to {given[1]:g}, and "
            f"the AdversarialClassifier was trained on pixels from {own[0]:g} "
            f"to {own[1]:g}; leave it out."
        )
    return own


def logits(scores, kind):
    """A classifier's output as float32 logits.

    Of probabilities, the logits that a Keras softmax made them of; where
    another function made them, log p, which a probability that has underflown
    to 0 gives no gradient through.
    """
    if kind == "probabilities":
        behind = private.softmax_logits(scores)
        if behind is None:
            scores = tf.cast(scores, tf.float32)
            return tf.math.log(tf.maximum(scores, _LEAST_PROBABILITY))
        scores = behind
    return tf.cast(scores, tf.float32)


def check_declared(classifier, kind):
    """Refuses several inputs or outputs, an unknown kind, bounded scores.

    Raises:
        ValueError: With advice.
    """
    single.check(classifier)
    if kind not in choices.OUTPUTS:
        raise options.unknown("kind of outputs", str(kind), choices.OUTPUTS)
    if kind == "logits" and loading.ends_in_softmax(classifier):
        raise ValueError(
            "The classifier ends in a softmax, where logits are expected; "
            f"{_ADVICE}."
        )
    squashed = loading.squashed(classifier)
    if kind == "logits" and squashed is not None:
        raise ValueError(
            f"The classifier ends in a {squashed}, which bounds its scores, "
            "where logits are expected: softmax makes them nearly equal, and "
            "attacks find no gradient; give the network without it."
        )


def check_scores(scores, kind, rounding=0.0):
    """Refuses scores `[n, ...]` that are not of the declared kind.

    Args:
        scores: What a model returns.
        kind: "logits" or "probabilities".
        rounding: As of `loading.are_probabilities`.

    Raises:
        ValueError: With advice.
    """
    values = check_classes(scores)
    probabilities = loading.are_probabilities(values, rounding)
    if kind == "logits" and probabilities:
        raise ValueError(
            "The classifier returns probabilities (rows of numbers above 0 "
            f"that sum to 1), where logits are expected; {_ADVICE}."
        )
    if kind == "probabilities" and not probabilities:
        raise ValueError(
            "The classifier returns rows that are not probabilities; expected "
            'numbers of at least 0 that sum to 1, or outputs="logits".'
        )


def check_classes(scores):
    """The scores as a float32 array `[n, classes]`.

    Args:
        scores: What a model returns.

    Raises:
        ValueError: If they are anything else, or of one class alone.
    """
    scores = single.returned(scores, "classifier")
    values = np.asarray(tf.cast(scores, tf.float32))
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(
            f"The classifier returns shape {values.shape}; expected [batch, "
            "classes] with at least 2 classes."
        )
    return values
