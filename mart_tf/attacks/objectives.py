"""What an attack maximises: functions (labels, logits) -> [batch].

An attack on the cross-entropy climbs the soft logit margin, SLM:

    SLM = log sum_{k != y} exp z_k - z_y
    CE(p, y) = softplus(SLM),   grad CE = sigmoid(SLM) grad SLM

So both have the same maxima, put points in the same order, and rise in the
same direction: an attack that takes the sign of a gradient, or divides it by
its norm, takes the same steps. But in float32 the cross-entropy is 0, and its
gradient too, where p_y rounds to 1, and a network that is merely confident
would look robust; the SLM neither rounds to a tie nor flattens. That is of
examples that do not hang on each other, see `of_whole_batches`, and of one pass
through the network, see `gradient.expected_gradient`.
"""

import tensorflow as tf

from mart_tf import losses
from mart_tf import options
from mart_tf.attacks import scopes

# In it "cross_entropy" is the cross-entropy itself. Where the logits of an
# example hang on the others of its batch too, the gradient of the sum over the
# batch has another direction than that of the sum of SLM:
# sum_i sigmoid(SLM_i) grad SLM_i.
of_whole_batches = scopes.Scope()


def margin(labels, logits, kappa=50.0):
    """The margin by which the strongest wrong class wins, up to kappa.

        -max(z_y - max_{k != y} z_k, -kappa)

    Carlini and Wagner (S&P 2017), the objective of CW_inf.

    Args:
        labels: Integer classes, shape `[batch]`.
        logits: Scores, shape `[batch, classes]`.
        kappa: Confidence past which there is nothing to gain; with 0 a broken
            example has no gradient any more.

    Returns:
        Float32 tensor of shape `[batch]`.
    """
    true, wrong = _true_and_strongest_wrong(labels, logits)
    return -tf.maximum(true - wrong, -kappa)


def dlr(labels, logits):
    """Difference of logits ratio of Croce and Hein (ICML 2020), equation 6.

        -(z_y - max_{k != y} z_k) / (z_1st - z_3rd)

    with z_1st and z_3rd the largest and third largest logit: unchanged when
    the logits are scaled, so that a confident network cannot hide.

    Args:
        labels: Integer classes, shape `[batch]`.
        logits: Scores, shape `[batch, classes]`, of at least 3 classes.

    Returns:
        Float32 tensor of shape `[batch]`.

    Raises:
        ValueError: If there are fewer than 3 classes.
    """
    classes = logits.shape[-1]
    if classes is not None and classes < 3:
        raise ValueError(
            f"The dlr objective needs at least 3 classes, got {classes}; use "
            "the objective margin."
        )
    logits = tf.cast(logits, tf.float32)
    true, wrong = _true_and_strongest_wrong(labels, logits)
    ranked = tf.math.top_k(logits, 3).values
    return (wrong - true) / (ranked[:, 0] - ranked[:, 2] + 1e-12)


def targeted_dlr(labels, logits, targets):
    """Targeted DLR of Croce and Hein (ICML 2020), equation 7.

        -(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2)

    with t a wrong class, and z_1st, z_3rd and z_4th by size: unchanged when
    the logits are scaled or shifted.

    Args:
        labels: Integer classes y, shape `[batch]`.
        logits: Scores, shape `[batch, classes]`, of at least 4 classes.
        targets: Integer classes t, shape `[batch]`.

    Returns:
        Float32 tensor of shape `[batch]`.

    Raises:
        ValueError: If there are fewer than 4 classes.
    """
    classes = logits.shape[-1]
    if classes is not None and classes < 4:
        raise ValueError(
            f"The targeted dlr objective needs at least 4 classes, got "
            f"{classes}; use apgd with the objective margin or cross_entropy."
        )
    logits = tf.cast(logits, tf.float32)
    true = tf.gather(logits, labels, batch_dims=1)
    target = tf.gather(logits, targets, batch_dims=1)
    ranked = tf.math.top_k(logits, 4).values
    spread = ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2.0
    return (target - true) / (spread + 1e-12)


def margin_of_target(targets, logits, kappa=50.0):
    """The margin by which the target class wins, up to kappa.

        min(z_t - max_{k != t} z_k, kappa)

    Args:
        targets: Integer classes t, shape `[batch]`.
        logits: Scores, shape `[batch, classes]`.
        kappa: Confidence past which there is nothing to gain.

    Returns:
        Float32 tensor of shape `[batch]`.
    """
    target, other = _true_and_strongest_wrong(targets, logits)
    return tf.minimum(target - other, kappa)


def objective(name, targeted=False, classes=None):
    """The objective of a name, or the callable itself.

    Args:
        name: "cross_entropy", "margin", "dlr" or a callable.
        targeted: Whether its labels are the classes to reach, not to leave.
        classes: Number of classes; None where it is not known.

    Raises:
        ValueError: On an unknown name, a callable or "dlr" for a target class,
            or an objective for more classes than there are.
    """
    if not callable(name) and name not in OBJECTIVES:
        raise options.unknown("objective", str(name), OBJECTIVES)
    if targeted and name not in _OF_TARGET:
        raise ValueError(
            f"The objective {getattr(name, '__name__', name)} knows no target "
            f"class; expected one of: {', '.join(_OF_TARGET)}."
        )
    if callable(name):
        return name
    climbed = (_OF_TARGET if targeted else OBJECTIVES)[name]
    if name == "cross_entropy" and of_whole_batches.holds:
        climbed = _negated if targeted else losses.cross_entropy
    if classes is not None:
        climbed(tf.zeros([1], tf.int32), tf.zeros([1, classes]))
    return climbed


def sign_of_soft_margin(name):
    """1 of an objective that is the soft logit margin, -1 of its negative.

    0 of any other.
    """
    climbed = objective(name)
    signs = {losses.soft_margin: 1.0, _soft_margin_of_target: -1.0}
    return next((sign for own, sign in signs.items() if own is climbed), 0.0)


def log_cross_entropy(soft_margin):
    """log CE = log softplus(SLM), without underflow where p_y rounds to 1."""
    small = soft_margin < -10.0
    # Of log(1 + t) = t - t^2 / 2 + ... with t = exp SLM.
    limit = soft_margin - tf.exp(soft_margin) / 2.0
    softplus = tf.nn.softplus(tf.where(small, 0.0, soft_margin))
    return tf.where(small, limit, tf.math.log(softplus))


def _negated(targets, logits):
    return -losses.cross_entropy(targets, logits)


def _soft_margin_of_target(targets, logits):
    return -losses.soft_margin(targets, logits)


def _true_and_strongest_wrong(labels, logits):
    logits = tf.cast(logits, tf.float32)
    is_label = tf.one_hot(
        labels, tf.shape(logits)[-1], True, False, dtype=tf.bool
    )
    true = tf.reduce_sum(tf.where(is_label, logits, 0.0), axis=-1)
    wrong = tf.reduce_max(tf.where(is_label, logits.dtype.min, logits), axis=-1)
    return true, wrong


OBJECTIVES = {
    # In its place: see the module's docstring.
    "cross_entropy": losses.soft_margin,
    "margin": margin,
    "dlr": dlr,
}

# Of three classes the DLR of the last, with its sign turned, would be flat.
_OF_TARGET = {
    "cross_entropy": _soft_margin_of_target,
    "margin": margin_of_target,
}
