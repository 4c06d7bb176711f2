"""What an attack maximises: functions (labels, logits) -> [batch]."""

import tensorflow as tf

from mart_tf import losses
from mart_tf import options

# What MMA training maximises.
soft_margin = losses.soft_margin


def cross_entropy(labels, logits):
    """Cross-entropy, -log p_y, by TensorFlow's own operation.

    `losses.cross_entropy` has more digits where p_y is near 1. But PGD takes
    signs, and those of a gradient near 0 hang on its last digits: with this
    operation they are the signs that other libraries' PGD takes.

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`.
        logits: Scores, shape `[batch, classes]`.

    Returns:
        Float32 tensor of shape `[batch]`, in nats. A label outside the
        classes raises on a CPU and gives NaN on a GPU.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=labels, logits=tf.cast(logits, tf.float32)
    )


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


def objective(name):
    """The objective of a name, or the callable itself.

    Raises:
        ValueError: On an unknown name.
    """
    if callable(name):
        return name
    if name not in OBJECTIVES:
        raise options.unknown("objective", str(name), OBJECTIVES)
    return OBJECTIVES[name]


def _true_and_strongest_wrong(labels, logits):
    logits = tf.cast(logits, tf.float32)
    is_label = tf.one_hot(
        labels, tf.shape(logits)[-1], True, False, dtype=tf.bool
    )
    true = tf.reduce_sum(tf.where(is_label, logits, 0.0), axis=-1)
    wrong = tf.reduce_max(tf.where(is_label, logits.dtype.min, logits), axis=-1)
    return true, wrong


OBJECTIVES = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "soft_margin": soft_margin,
}
