"""Losses of adversarial training: pure functions of labels and logits.

All return one value per example, float32, in nats. x is the natural example,
x' the adversarial one, p the softmax of the logits z, y the label. Equations
are those of Wang et al., "Improving Adversarial Robustness Requires
Revisiting Misclassified Examples" (ICLR 2020), the MART paper.

In float32 1 - p_k is 0 or a multiple of 6e-8 where p_k is near 1, and most of
a trained network's probabilities are near 0 or 1. So whatever depends on it, a
gradient too, is made of the other classes' scores, never of that difference.
"""

import math

import tensorflow as tf

from mart_tf import options

FORMS = ("paper", "released")
OUTERS = ("bce", "ce", "bce_natural")
WEIGHTINGS = ("soft", "hard", "none")

_TensorLike = tf.types.experimental.TensorLike

# What tf.one_hot takes.
_INDICES = (tf.uint8, tf.int8, tf.int32, tf.int64)


def cross_entropy(
    labels: _TensorLike, logits: _TensorLike, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Cross-entropy, CE(p, y) = -log p_y, or with smoothed labels.

        (1 - s) CE(p, y) + s mean_k(-log p_k)

    with s the smoothing (Szegedy et al., CVPR 2016): of C classes the target
    is 1 - s + s / C at y, and s / C elsewhere.

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`.
        logits: Scores, shape `[batch, classes]`.
        label_smoothing: s, a number in [0, 1).

    Returns:
        Float32 tensor of shape `[batch]`, in nats. A label outside the
        classes gives NaN.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(
            f"label_smoothing is {label_smoothing!r}; expected a number of at "
            "least 0 and less than 1."
        )
    log_p = _log_softmax(logits)
    inside = tf.reduce_any(_mask(labels, log_p), axis=-1)
    values = -tf.where(inside, _at(labels, log_p), math.nan)
    if not label_smoothing:
        return values
    uniform = -tf.reduce_mean(log_p, axis=-1)
    return (1.0 - label_smoothing) * values + label_smoothing * uniform


def soft_margin(labels: _TensorLike, logits: _TensorLike) -> tf.Tensor:
    """How far the other classes lead, together: log((1 - p_y) / p_y).

        log sum_{k != y} exp z_k - z_y

    The soft logit margin of Ding et al. (MMA training, ICLR 2020), above 0
    where p_y is below 1/2.

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`.
        logits: Scores, shape `[batch, classes]`.

    Returns:
        Float32 tensor of shape `[batch]`.
    """
    logits = tf.cast(logits, tf.float32)
    leads = logits - _at(labels, logits)[:, None]
    others = tf.where(_mask(labels, logits), -math.inf, leads)
    return tf.reduce_logsumexp(others, axis=-1)


def boosted_cross_entropy(
    labels: _TensorLike,
    adversarial_logits: _TensorLike,
    form: str = "paper",
    label_smoothing: float = 0.0,
) -> tf.Tensor:
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
        label_smoothing: Of the first term's labels, as in `cross_entropy`;
            the margin term is untouched. No publication has it: it is ours.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.

    Raises:
        ValueError: If `form` is neither of the two.
    """
    check_options(form)
    logits = tf.cast(adversarial_logits, tf.float32)
    wrong = tf.where(_mask(labels, logits), -math.inf, logits)
    strongest = tf.argmax(wrong, axis=-1)
    margin = tf.math.softplus(-soft_margin(strongest, logits))
    if form == "released":
        margin = -_log_add(-margin, 1e-4 + 1e-12)
    return cross_entropy(labels, logits, label_smoothing) + margin


def kl_divergence(
    natural_logits: _TensorLike,
    adversarial_logits: _TensorLike,
    form: str = "paper",
) -> tf.Tensor:
    """Kullback-Leibler divergence, equation 9 of the MART paper.

        KL(p(x) || p(x')) = sum_k p_k(x) (log p_k(x) - log p_k(x'))

    Args:
        natural_logits: Scores for x, shape `[batch, classes]`.
        adversarial_logits: Scores for x', of the same shape.
        form: "paper" as above, or "released" for the code of MART's authors:
            log(p_k(x') + 1e-12).

    Returns:
        Float32 tensor of shape `[batch]`, in nats.

    Raises:
        ValueError: If `form` is neither of the two.
    """
    check_options(form)
    log_natural = _log_softmax(natural_logits)
    log_adversarial = _log_softmax(adversarial_logits)
    if form == "released":
        log_adversarial = _log_add(log_adversarial, 1e-12)
    return tf.reduce_sum(
        tf.exp(log_natural) * (log_natural - log_adversarial), axis=-1
    )


def mart(
    labels: _TensorLike,
    natural_logits: _TensorLike,
    adversarial_logits: _TensorLike,
    regularization: _TensorLike = 5.0,
    form: str = "paper",
    *,
    outer: str = "bce",
    divergence: bool = True,
    weighting: str = "soft",
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """Misclassification aware adversarial training, equation 11.

        BCE(p(x'), y) + regularization * KL(p(x) || p(x')) * (1 - p_y(x))

    Gradients flow through every term, the weight 1 - p_y(x) included. The
    options after `form` are the ablations of the paper's Figure 2.

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`.
        natural_logits: Scores for x, shape `[batch, classes]`; None will do
            where neither term looks at them.
        adversarial_logits: Scores for x', of the same shape, or None alike.
        regularization: The paper's lambda: a number, or one per example,
            shape `[batch]`. 5 in section 4.2, the paper's comparison of
            defenses (default); 6 in section 4.1, its ablations.
        form: "paper" as above, or "released" for the authors' constants: the
            capped margin of `boosted_cross_entropy`, log(p(x') + 1e-12) in
            the divergence, 1.0000001 - p_y(x) as its soft weight.
        outer: The first term: "bce" as above, "ce" for CE(p(x'), y),
            "bce_natural" for BCE(p(x), y).
        divergence: Whether the second term has its factor KL. Without it a
            soft weight stands alone; any other is a constant, and left out.
        weighting: The last factor: "soft" as above, "hard" for 1 where
            argmax p(x) is not y and 0 elsewhere (no gradient), "none" for 1.
        label_smoothing: Of the cross-entropy inside the first term, as in
            `boosted_cross_entropy`; the second term is untouched.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.

    Raises:
        ValueError: If `form`, `outer` or `weighting` is none of these.
    """
    check_options(form, outer, weighting)
    if outer == "ce":
        values = cross_entropy(labels, adversarial_logits, label_smoothing)
    else:
        of_natural = outer == "bce_natural"
        values = boosted_cross_entropy(
            labels,
            natural_logits if of_natural else adversarial_logits,
            form,
            label_smoothing,
        )
    if not divergence and weighting != "soft":
        return values
    term = _weight(labels, natural_logits, form, weighting)
    if divergence:
        term *= kl_divergence(natural_logits, adversarial_logits, form)
    return values + tf.cast(regularization, tf.float32) * term


def trades(
    labels: _TensorLike,
    natural_logits: _TensorLike,
    adversarial_logits: _TensorLike,
    regularization: _TensorLike = 4.0,
    *,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """TRADES (Zhang et al., ICML 2019), as Table 1 of the MART paper has it.

        CE(p(x), y) + regularization * KL(p(x) || p(x'))

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`.
        natural_logits: Scores for x, shape `[batch, classes]`.
        adversarial_logits: Scores for x', of the same shape.
        regularization: 1/lambda of its authors, who take 6 for CIFAR-10 and
            1 for MNIST: a number, or one per example, shape `[batch]`. 4 in
            section 4.2 of the MART paper (default).
        label_smoothing: Of the first term, as in `cross_entropy`.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.
    """
    values = cross_entropy(labels, natural_logits, label_smoothing)
    term = kl_divergence(natural_logits, adversarial_logits)
    return values + tf.cast(regularization, tf.float32) * term


def adversarial_logit_pairing(
    labels: _TensorLike,
    natural_logits: _TensorLike,
    adversarial_logits: _TensorLike,
    regularization: _TensorLike = 0.5,
    *,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """ALP as Table 1 of the MART paper has it: it pairs probabilities.

        CE(p(x'), y) + regularization * ||p(x') - p(x)||_2^2

    The method that Kannan et al. (2018) gave this name is another: it pairs
    logits and trains on the cross-entropy of x too.

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`.
        natural_logits: Scores for x, shape `[batch, classes]`.
        adversarial_logits: Scores for x', of the same shape.
        regularization: A number, or one per example, shape `[batch]`. The
            paper gives none: the default is ours.
        label_smoothing: Of the first term, as in `cross_entropy`.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.
    """
    values = cross_entropy(labels, adversarial_logits, label_smoothing)
    term = _squared_distance(natural_logits, adversarial_logits)
    return values + tf.cast(regularization, tf.float32) * term


def clean_logit_pairing(
    labels: _TensorLike,
    natural_logits: _TensorLike,
    adversarial_logits: _TensorLike,
    regularization: _TensorLike = 0.5,
    *,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """CLP as Table 1 of the MART paper has it: it pairs probabilities.

        CE(p(x), y) + regularization * ||p(x') - p(x)||_2^2

    The method that Kannan et al. (2018) gave this name is another: it pairs
    the logits of two natural images, and knows no attack.

    Args:
        labels, natural_logits, adversarial_logits: As in
            `adversarial_logit_pairing`.
        regularization: Factor of the pairing, at least 0.
        label_smoothing: Of the first term, as in `cross_entropy`.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.
    """
    values = cross_entropy(labels, natural_logits, label_smoothing)
    term = _squared_distance(natural_logits, adversarial_logits)
    return values + tf.cast(regularization, tf.float32) * term


def uat(
    labels: _TensorLike,
    natural_logits: _TensorLike,
    adversarial_logits: _TensorLike,
    regularization: _TensorLike = 4.0,
    *,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """UAT++ (Uesato et al., NeurIPS 2019), section 3.3 of the MART paper.

        CE(p(x'), y) + regularization * KL(p(x) || p(x'))

    with one x' in both terms.

    Args:
        labels: Integer classes, shape `[batch]`, each in `[0, classes)`;
            of a model, for an example that has none of its own.
        natural_logits: Scores for x, shape `[batch, classes]`.
        adversarial_logits: Scores for x', of the same shape.
        regularization: A number, or one per example, shape `[batch]`. The
            paper gives none: the default is ours, its value for TRADES.
        label_smoothing: Of the first term, as in `cross_entropy`.

    Returns:
        Float32 tensor of shape `[batch]`, in nats.
    """
    values = cross_entropy(labels, adversarial_logits, label_smoothing)
    term = kl_divergence(natural_logits, adversarial_logits)
    return values + tf.cast(regularization, tf.float32) * term


def check_options(
    form: str = "paper", outer: str = "bce", weighting: str = "soft"
) -> None:
    """Refuses what `mart` does not know.

    Args:
        form, outer, weighting: As in `mart`.

    Raises:
        ValueError: On an unknown name.
    """
    for kind, name, names in (
        ("form", form, FORMS),
        ("outer", outer, OUTERS),
        ("weighting", weighting, WEIGHTINGS),
    ):
        if name not in names:
            raise options.unknown(kind, str(name), names)


def _weight(labels, natural_logits, form, weighting):
    if weighting == "none":
        return 1.0
    if weighting == "hard":
        predicted = tf.argmax(natural_logits, axis=-1)
        return tf.cast(predicted != tf.cast(labels, tf.int64), tf.float32)
    # 1 - p_y = sigmoid(margin); the gradient of tf.sigmoid vanishes near 1.
    margin = soft_margin(labels, natural_logits)
    weight = tf.exp(-tf.math.softplus(-margin))
    return weight if form == "paper" else weight + 1e-7


def _squared_distance(natural_logits, adversarial_logits):
    """||p(x') - p(x)||_2^2."""
    log_natural = _log_softmax(natural_logits)
    log_adversarial = _log_softmax(adversarial_logits)
    # |p' - p| = max(p', p) (1 - exp(-|log p' - log p|)), right near 1 too.
    greater = tf.exp(tf.maximum(log_natural, log_adversarial))
    share = tf.math.expm1(-tf.abs(log_natural - log_adversarial))
    return tf.reduce_sum(tf.square(greater * share), axis=-1)


def _log_softmax(logits):
    """log p, where tf.nn.log_softmax rounds a probability near 1 to 1."""
    logits = tf.cast(logits, tf.float32)
    greatest = tf.argmax(logits, axis=-1)
    is_greatest = _mask(greatest, logits)
    lead = logits - _at(greatest, logits)[:, None]
    # A constant for the greatest: its two gradients would cancel roughly.
    lead = tf.where(is_greatest, 0.0, lead)
    others = tf.where(is_greatest, 0.0, tf.exp(lead))
    return lead - tf.math.log1p(tf.reduce_sum(others, -1, keepdims=True))


def _log_add(log_value, constant):
    """log(exp(log_value) + constant)."""
    log_constant = math.log(constant)
    ratio = tf.exp(-tf.abs(log_value - log_constant))
    return tf.maximum(log_value, log_constant) + tf.math.log1p(ratio)


def _at(classes, values):
    """The value of each row at its class, 0 for a class that there is not."""
    # tf.gather does it too; its gradient takes as long to trace as all others.
    chosen = tf.where(_mask(classes, values), values, 0.0)
    return tf.reduce_sum(chosen, axis=-1)


def _mask(classes, values):
    """True at each row's class."""
    classes = tf.convert_to_tensor(classes)
    ranks = classes.shape.rank, values.shape.rank
    fit = None in ranks or (
        ranks == (1, 2) and classes.shape.is_compatible_with(values.shape[:1])
    )
    if not fit or not classes.dtype.is_integer:
        raise ValueError(
            f"The labels are {classes.dtype.name} of shape {classes.shape}, "
            f"the scores of shape {values.shape}; expected integer labels "
            "[batch] and scores [batch, classes]."
        )
    if classes.dtype not in _INDICES:
        classes = tf.cast(classes, tf.int64)
    count = tf.shape(values)[-1]
    return tf.one_hot(classes, count, True, False, dtype=tf.bool)
