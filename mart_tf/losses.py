"""Losses of adversarial training: pure functions of labels and logits.

All return one value per example, float32, in nats. x is the natural example,
x' the adversarial one, p the softmax of the logits z, y the label. Equations
are those of Wang et al., "Improving Adversarial Robustness Requires
Revisiting Misclassified Examples" (ICLR 2020), the MART paper.
"""

import tensorflow as tf

from mart_tf import options

FORMS = ("paper", "released")


def cross_entropy(labels, logits):
    """Cross-entropy, CE(p, y) = -log p_y.

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


def boosted_cross_entropy(labels, adversarial_logits, form="paper"):
    """Cross-entropy plus a margin term on the strongest wrong class.

    Equation 8 of the MART paper:

        -log p_y(x') - log(1 - max_{k != y} p_k(x'))

    With k* the strongest wrong class, the second term is evaluated as
    softplus(z_k* - logsumexp(z without k*)): exact in float32 where a
    difference of two logsumexps cancels; its gradient is at most 1.

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`.
        adversarial_logits: Scores for x', shape `[batch, classes]`.
        form: "paper" as above, or "released" for the authors' code, whose
            margin term -log(1.0001 - p_k*(x') + 1e-12) stops growing at 9.21
            nats, where its gradient vanishes.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.

    Raises:
        ValueError: If `form` is neither of the two.
    """
    check_form(form)
    logits = tf.cast(adversarial_logits, tf.float32)
    wrong = tf.where(_mask(labels, logits), -float("inf"), logits)
    lead = _lead(logits, tf.argmax(wrong, axis=-1))
    if form == "paper":
        margin = tf.math.softplus(lead)
    else:
        # 1.0001 - p_k* + 1e-12, with 1 - p_k* = sigmoid(-lead) to the last
        # digit where the difference would lose them.
        margin = -tf.math.log(tf.sigmoid(-lead) + (1e-4 + 1e-12))
    return cross_entropy(labels, logits) + margin


def kl_divergence(natural_logits, adversarial_logits):
    """Kullback-Leibler divergence, equation 9 of the MART paper.

        KL(p(x) || p(x')) = sum_k p_k(x) (log p_k(x) - log p_k(x'))

    Args:
        natural_logits: Scores for x, shape `[batch, classes]`.
        adversarial_logits: Scores for x', of the same shape.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.
    """
    log_natural = tf.nn.log_softmax(tf.cast(natural_logits, tf.float32))
    log_adversarial = tf.nn.log_softmax(tf.cast(adversarial_logits, tf.float32))
    return tf.reduce_sum(
        tf.exp(log_natural) * (log_natural - log_adversarial), axis=-1
    )


def mart(
    labels,
    natural_logits,
    adversarial_logits,
    regularization=6.0,
    form="paper",
):
    """Misclassification aware adversarial training, equation 11.

        BCE(p(x'), y) + regularization * KL(p(x) || p(x')) * (1 - p_y(x))

    Gradients flow through every term, the weight 1 - p_y(x) included.

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`.
        natural_logits: Scores for x, shape `[batch, classes]`.
        adversarial_logits: Scores for x', of the same shape.
        regularization: The paper's lambda: 6 in section 4.1, 5 in 4.2.
        form: "paper" as above, or "released" for the authors' constants: the
            capped margin of `boosted_cross_entropy`, log(p(x') + 1e-12) in
            the divergence, 1.0000001 - p_y(x) as its weight.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.

    Raises:
        ValueError: If `form` is neither of the two.
    """
    boosted = boosted_cross_entropy(labels, adversarial_logits, form)
    natural_logits = tf.cast(natural_logits, tf.float32)
    # 1 - p_y(x), exact also where p_y(x) is near 1.
    weight = tf.sigmoid(-_lead(natural_logits, labels))
    if form == "paper":
        divergence = kl_divergence(natural_logits, adversarial_logits)
    else:
        log_natural = tf.nn.log_softmax(natural_logits)
        adversarial = tf.nn.softmax(tf.cast(adversarial_logits, tf.float32))
        divergence = tf.reduce_sum(
            tf.exp(log_natural)
            * (log_natural - tf.math.log(adversarial + 1e-12)),
            axis=-1,
        )
        weight += 1e-7
    return boosted + regularization * divergence * weight


def _mask(classes, logits):
    """True at each row's class."""
    count = tf.shape(logits)[-1]
    return tf.one_hot(classes, count, True, False, dtype=tf.bool)


def _lead(logits, classes):
    """z_k - logsumexp(z without k), so that p_k = sigmoid(lead)."""
    mask = _mask(classes, logits)
    own = tf.reduce_sum(tf.where(mask, logits, 0.0), axis=-1)
    others = tf.where(mask, -float("inf"), logits)
    return own - tf.reduce_logsumexp(others, axis=-1)


def check_form(form):
    """Raises a `ValueError` unless `form` is "paper" or "released"."""
    if form not in FORMS:
        raise options.unknown("form", str(form), FORMS)
