"""Losses: cases worked by hand, the formulas in 120 digits, extreme logits."""

import decimal
from decimal import Decimal
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mart_tf import losses

NATURAL = np.log([[0.50, 0.25, 0.25]])
ADVERSARIAL = np.log([[0.25, 0.50, 0.25]])
LABEL = tf.constant([0])
LOG2 = math.log(2)

PAIRED = (
    "trades",
    "adversarial_logit_pairing",
    "clean_logit_pairing",
    "uat",
)
# Every choice of mart's options.
CHOICES = [
    dict(zip(("form", "outer", "divergence", "weighting"), choice, strict=True))
    for choice in itertools.product(
        losses.FORMS, losses.OUTERS, (True, False), losses.WEIGHTINGS
    )
]

# The reference below is the formulas as they are written, and their gradients
# with respect to the logits, derived by hand. With 120 digits nothing cancels:
# the least probability at scale 30 is near 1e-90.
_exact = np.frompyfunc(lambda value: Decimal(float(value)), 1, 1)
_exp = np.frompyfunc(Decimal.exp, 1, 1)
_log = np.frompyfunc(Decimal.ln, 1, 1)


@pytest.fixture(autouse=True)
def digits():
    with decimal.localcontext(prec=120):
        yield


def softmax(logits):
    powers = _exp(logits)
    return powers / powers.sum(1, keepdims=True)


def one_hot(classes, like):
    return np.where(np.eye(like.shape[1])[classes] == 1, Decimal(1), Decimal(0))


def cross_entropy(p, labels):
    y = one_hot(labels, p)
    return -_log((p * y).sum(1)), p - y


def boosted(p, labels, form):
    value, gradient = cross_entropy(p, labels)
    wrong = np.where(one_hot(labels, p) == 1, Decimal(-1), p)
    k = one_hot(wrong.argmax(1), p)
    p_k = (p * k).sum(1)
    left = Decimal("1.0001") - p_k + Decimal("1e-12")
    if form == "paper":
        left = 1 - p_k
    # d p_k / dz = p_k (k - p)
    return value - _log(left), gradient + (p_k / left)[:, None] * (k - p)


def divergence(p, q, form):
    r = q + Decimal("1e-12") if form == "released" else q
    ratio = _log(p) - _log(r)
    value = (p * ratio).sum(1)
    share = p * q / r
    natural = p * (ratio - value[:, None])
    return value, natural, q * share.sum(1, keepdims=True) - share


def weight(p, labels, form, weighting):
    if weighting == "none":
        return p.sum(1) * 0 + 1, p * 0
    if weighting == "hard":
        return _exact(p.argmax(1) != labels), p * 0
    y = one_hot(labels, p)
    p_y = (p * y).sum(1)
    one = Decimal("1.0000001") if form == "released" else 1
    return one - p_y, -p_y[:, None] * (y - p)


def mart(labels, natural, adversarial, regularization, **options):
    """Value, and gradients with respect to natural and adversarial logits."""
    p, q = softmax(natural), softmax(adversarial)
    form = options.get("form", "paper")
    outer = options.get("outer", "bce")
    weighting = options.get("weighting", "soft")
    d_natural, d_adversarial = p * 0, q * 0
    if outer == "bce":
        value, d_adversarial = boosted(q, labels, form)
    elif outer == "ce":
        value, d_adversarial = cross_entropy(q, labels)
    else:
        value, d_natural = boosted(p, labels, form)
    w, d_w = weight(p, labels, form, weighting)
    kl, kl_natural, kl_adversarial = divergence(p, q, form)
    if not options.get("divergence", True):
        # A weight alone counts only where it has a gradient.
        kl = kl * 0 + (weighting == "soft")
        kl_natural, kl_adversarial = p * 0, q * 0
    kl, w = kl[:, None], w[:, None]
    return (
        value + regularization * (kl * w)[:, 0],
        d_natural + regularization * (kl * d_w + w * kl_natural),
        d_adversarial + regularization * w * kl_adversarial,
    )


def paired(name, labels, natural, adversarial, regularization):
    """The same of the four losses of CE plus a distance."""
    p, q = softmax(natural), softmax(adversarial)
    d_natural, d_adversarial = p * 0, q * 0
    if name in ("trades", "clean_logit_pairing"):
        value, d_natural = cross_entropy(p, labels)
    else:
        value, d_adversarial = cross_entropy(q, labels)
    if name in ("trades", "uat"):
        distance, to_natural, to_adversarial = divergence(p, q, "paper")
    else:
        gap = q - p
        distance = (gap**2).sum(1)
        to_natural = -2 * p * (gap - (gap * p).sum(1, keepdims=True))
        to_adversarial = 2 * q * (gap - (gap * q).sum(1, keepdims=True))
    return (
        value + regularization * distance,
        d_natural + regularization * to_natural,
        d_adversarial + regularization * to_adversarial,
    )


def random_case(scale, count=64, seed=0):
    """Labels, and logits of a size, float32: a third of them is noise."""
    generator = np.random.RandomState(seed)
    natural = scale * generator.randn(count, 10)
    adversarial = natural + scale * 0.3 * generator.randn(count, 10)
    labels = generator.randint(0, 10, count)
    return labels, natural.astype("float32"), adversarial.astype("float32")


def value_and_gradients(loss, labels, natural, adversarial, *args, **options):
    inputs = [tf.constant(natural), tf.constant(adversarial)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = loss(labels, *inputs, *args, **options)
    gradients = tape.gradient(values, inputs, unconnected_gradients="zero")
    return values.numpy(), *(g.numpy() for g in gradients)


def assert_equal(actual, expected):
    """Values and gradients, to 1e-5 relative.

    Gradients relative to the largest entry of an example's two: an entry may
    be a difference of nearly equal terms, such as p_k (log p_k / q_k - KL),
    that a rounding of the logits themselves moves by more than 1e-5.
    """
    values, *gradients = (array.astype("float64") for array in expected)
    # The released margin falls to -1e-4, and the loss through 0.
    np.testing.assert_allclose(actual[0], values, rtol=1e-5, atol=1e-9)
    largest = np.max(np.abs(gradients), axis=(0, 2))
    # What is below float32's least number is 0 there.
    norm = np.maximum(largest, np.finfo("float32").tiny)[:, None]
    for mine, gradient in zip(actual[1:], gradients, strict=True):
        np.testing.assert_allclose(mine / norm, gradient / norm, atol=1e-5)


def assert_slopes(reference, labels, natural, adversarial):
    """The reference's gradients against its values' central differences."""
    generator = np.random.RandomState(1)
    u, v = _exact(generator.randn(2, *natural.shape))
    step = Decimal("1e-25")
    above = reference(labels, natural + step * u, adversarial + step * v)[0]
    below = reference(labels, natural - step * u, adversarial - step * v)[0]
    _, d_natural, d_adversarial = reference(labels, natural, adversarial)
    slopes = (d_natural * u).sum(1) + (d_adversarial * v).sum(1)
    difference = (above - below) / (2 * step) - slopes
    assert max(abs(difference)) < Decimal("1e-40")


@pytest.mark.parametrize("options", CHOICES)
def test_the_gradients_of_the_mart_reference(options):
    labels, *logits = random_case(3, count=4)
    assert_slopes(
        lambda *inputs: mart(*inputs, 5, **options), labels, *_exact(logits)
    )


@pytest.mark.parametrize("name", PAIRED)
def test_the_gradients_of_the_other_references(name):
    labels, *logits = random_case(3, count=4)
    assert_slopes(
        lambda *inputs: paired(name, *inputs, 5), labels, *_exact(logits)
    )


@pytest.mark.parametrize("scale", [2, 8, 30])
@pytest.mark.parametrize("form", losses.FORMS)
def test_mart_equals_the_formula(scale, form):
    case = random_case(scale)
    assert_equal(
        value_and_gradients(losses.mart, *case, 5.0, form),
        mart(case[0], *_exact(case[1:]), 5, form=form),
    )


@pytest.mark.parametrize("scale", [2, 8, 30])
@pytest.mark.parametrize("options", CHOICES)
def test_every_ablation_equals_the_formula(scale, options):
    case = random_case(scale, count=16)
    assert_equal(
        value_and_gradients(losses.mart, *case, 5.0, **options),
        mart(case[0], *_exact(case[1:]), 5, **options),
    )


@pytest.mark.parametrize("scale", [2, 8, 30])
@pytest.mark.parametrize("name", PAIRED)
def test_the_others_equal_the_formula(scale, name):
    case = random_case(scale)
    assert_equal(
        value_and_gradients(getattr(losses, name), *case, 5.0),
        paired(name, case[0], *_exact(case[1:]), 5),
    )


@pytest.mark.parametrize("scale", [2, 8, 30])
def test_soft_margin_equals_the_formula(scale):
    labels, logits, _ = random_case(scale)
    p = softmax(_exact(logits))
    y = one_hot(labels, p)
    p_y = (p * y).sum(1)
    inputs = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = losses.soft_margin(labels, inputs)
    expected = (_log(1 - p_y) - _log(p_y)).astype("float64")
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    gradient = ((p - y) / (1 - p_y)[:, None]).astype("float64")
    # Its largest entry is 1, that of the label.
    np.testing.assert_allclose(
        tape.gradient(values, inputs), gradient, atol=1e-5
    )


def test_cross_entropy_by_hand():
    value = losses.cross_entropy(LABEL, tf.constant(ADVERSARIAL, tf.float32))
    np.testing.assert_allclose(value, [math.log(4)], rtol=1e-6)


def test_smoothed_cross_entropy_by_hand():
    # p is 1/4, 1/2, 1/4: 0.7 log 4 + 0.3 (log 4 + log 2 + log 4) / 3.
    value = losses.cross_entropy(LABEL, tf.constant(ADVERSARIAL), 0.3)
    np.testing.assert_allclose(value, [1.9 * LOG2], rtol=1e-6)


@pytest.mark.parametrize("scale", [2, 8, 30])
def test_smoothed_cross_entropy_equals_that_of_keras(scale):
    labels, logits, _ = random_case(scale)
    expected = keras.losses.categorical_crossentropy(
        np.eye(10)[labels], logits, from_logits=True, label_smoothing=0.2
    )
    values = losses.cross_entropy(labels, logits, 0.2)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name, smoothed",
    [
        ("trades", "natural"),
        ("clean_logit_pairing", "natural"),
        ("adversarial_logit_pairing", "adversarial"),
        ("uat", "adversarial"),
        ("mart", "adversarial"),
    ],
)
def test_smoothing_touches_the_cross_entropy_alone(name, smoothed):
    """(1 - s) CE + s mean_k(-log p_k) is CE + s (z_y - mean_k z_k)."""
    labels, natural, adversarial = random_case(3)
    loss = getattr(losses, name)
    values = [
        loss(labels, natural, adversarial, label_smoothing=s).numpy()
        for s in (0.0, 0.3)
    ]
    logits = natural if smoothed == "natural" else adversarial
    lead = logits[np.arange(len(labels)), labels] - logits.mean(1)
    np.testing.assert_allclose(
        values[1] - values[0], 0.3 * lead, rtol=1e-4, atol=1e-4
    )


def test_soft_margin_by_hand():
    # log (1/2 + 1/4) / (1/4)
    value = losses.soft_margin(LABEL, ADVERSARIAL)
    np.testing.assert_allclose(value, [math.log(3)], rtol=1e-6)
    # At p_y = 1/2 it is 0.
    value = losses.soft_margin(LABEL, NATURAL)
    np.testing.assert_allclose(value, [0.0], atol=1e-6)


def test_boosted_cross_entropy_by_hand():
    # -log 1/4 - log(1 - 1/2) = 3 log 2
    value = losses.boosted_cross_entropy(LABEL, ADVERSARIAL)
    np.testing.assert_allclose(value, [3 * LOG2], rtol=1e-6)
    # The released margin is -log(1.0001 - 1/2).
    value = losses.boosted_cross_entropy(LABEL, ADVERSARIAL, "released")
    expected = math.log(4) - math.log(0.5001)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


def test_kl_divergence_by_hand():
    # 1/2 log 2 - 1/4 log 2
    value = losses.kl_divergence(NATURAL, ADVERSARIAL)
    np.testing.assert_allclose(value, [0.25 * LOG2], rtol=1e-6)


@pytest.mark.parametrize(
    "label, options, expected",
    [
        # y = 0: BCE(p(x'), y) = 3 log 2; KL = 1/4 log 2; 1 - p_y = 1/2.
        (0, {}, 3.5 * LOG2),
        # CE(p(x'), y) = 2 log 2.
        (0, {"outer": "ce"}, 2.5 * LOG2),
        # BCE(p(x), y) = -log 1/2 - log(1 - 1/4) = log 8/3.
        (0, {"outer": "bce_natural"}, math.log(8 / 3) + 0.5 * LOG2),
        (0, {"weighting": "none"}, 4 * LOG2),
        # x is classified rightly.
        (0, {"weighting": "hard"}, 3 * LOG2),
        # y = 1: x is misclassified, BCE(p(x'), y) = log 8/3, 1 - p_y = 3/4.
        (1, {"weighting": "hard"}, math.log(8 / 3) + LOG2),
        (1, {"divergence": False}, math.log(8 / 3) + 3),
        # A constant is no term.
        (1, {"divergence": False, "weighting": "hard"}, math.log(8 / 3)),
        (1, {"divergence": False, "weighting": "none"}, math.log(8 / 3)),
    ],
)
def test_mart_by_hand(label, options, expected):
    label = tf.constant([label])
    value = losses.mart(label, NATURAL, ADVERSARIAL, 4.0, **options)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


@pytest.mark.parametrize(
    "name, expected",
    [
        # CE(p(x), y) = log 2, CE(p(x'), y) = 2 log 2; KL = 1/4 log 2;
        # ||p(x') - p(x)||^2 = 1/8.
        ("trades", 2 * LOG2),
        ("uat", 3 * LOG2),
        ("adversarial_logit_pairing", 2 * LOG2 + 0.5),
        ("clean_logit_pairing", LOG2 + 0.5),
    ],
)
def test_the_others_by_hand(name, expected):
    value = getattr(losses, name)(LABEL, NATURAL, ADVERSARIAL, 4.0)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


@pytest.mark.parametrize("name", ["mart", *PAIRED])
def test_a_regularization_per_example(name):
    loss = getattr(losses, name)
    case = random_case(2, count=3)
    each = loss(*case, tf.constant([0.0, 2.0, 6.0]))
    for row, regularization in enumerate([0.0, 2, 6.0]):
        np.testing.assert_allclose(
            each[row], loss(*case, regularization)[row], rtol=1e-6
        )


def test_an_ablation_leaves_out_what_it_does_not_use():
    natural, adversarial = tf.constant(NATURAL), tf.constant(ADVERSARIAL)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([natural, adversarial])
        plain, of_natural = (
            losses.mart(
                LABEL,
                natural,
                adversarial,
                outer=outer,
                divergence=False,
                weighting="hard",
            )
            for outer in ("bce", "bce_natural")
        )
    assert tape.gradient(plain, natural) is None
    assert tape.gradient(of_natural, adversarial) is None


def test_a_certain_prediction_keeps_its_gradient():
    # 1 - p_y = 2.06e-9 in each place; TensorFlow's own operation gives 0 for
    # the label's, and so another direction.
    logits = tf.constant([[20.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = losses.cross_entropy(LABEL, logits)
    rest = 1 / (1 + math.exp(20))
    np.testing.assert_allclose(value, [math.log1p(math.exp(-20))], rtol=1e-6)
    np.testing.assert_allclose(
        tape.gradient(value, logits), [[-rest, rest]], rtol=1e-6
    )


def test_margin_term_is_exact_where_a_difference_of_logsumexps_cancels():
    logits = tf.constant([[100.0, 90.0, 80.0]])
    margin = losses.boosted_cross_entropy(tf.constant([0]), logits)
    margin -= losses.cross_entropy(tf.constant([0]), logits)
    exact = -math.log1p(-math.exp(-10) / (1 + math.exp(-10) + math.exp(-20)))
    np.testing.assert_allclose(margin, [exact], rtol=1e-6)


def test_the_forms_differ_by_the_cap_of_the_margin_term():
    logits = tf.constant([[-20.0, 20.0, 0.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        paper = losses.boosted_cross_entropy(LABEL, logits)
        released = losses.boosted_cross_entropy(LABEL, logits, "released")
        entropy = losses.cross_entropy(LABEL, logits)
        paper_margin = paper - entropy
        released_margin = released - entropy
    np.testing.assert_allclose(paper_margin, [20.0], rtol=1e-5)
    # -log(1.0001 - 1) = 9.21 nats, and no gradient is left there.
    np.testing.assert_allclose(released_margin, [9.2103], rtol=1e-3)
    assert abs(tape.gradient(paper_margin, logits)[0, 1]) > 0.99
    assert abs(tape.gradient(released_margin, logits)[0, 1]) < 1e-3
    # Away from the cap they agree.
    case = random_case(1)
    np.testing.assert_allclose(
        losses.mart(*case), losses.mart(*case, form="released"), rtol=2e-3
    )


@pytest.mark.parametrize(
    "name, options",
    [("mart", options) for options in CHOICES]
    + [(name, {}) for name in PAIRED],
)
def test_finite_for_extreme_logits(name, options):
    generator = np.random.RandomState(0)
    levels = [-1e4, -3.0, 0.0, 1e4]
    natural, adversarial = generator.choice(levels, size=(2, 256, 5))
    arrays = value_and_gradients(
        getattr(losses, name),
        generator.randint(0, 5, 256),
        natural.astype("float32"),
        adversarial.astype("float32"),
        6.0,
        **options,
    )
    for array in arrays:
        assert np.isfinite(array).all()


@pytest.mark.parametrize("name", ["mart", *PAIRED])
def test_float32_whatever_the_logits_are(name):
    logits = tf.cast(NATURAL, tf.bfloat16)
    values = getattr(losses, name)(LABEL, logits, logits)
    assert values.dtype == tf.float32


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_classes_gives_nan(label):
    value = losses.cross_entropy(tf.constant([label, 0]), NATURAL.repeat(2, 0))
    np.testing.assert_array_equal(np.isnan(value), [True, False])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"form": "relesed"}, "form 'relesed'; did you mean 'released'"),
        ({"outer": "bce_clean"}, "outer 'bce_clean'.*: bce, bce_natural, ce"),
        ({"weighting": "sotf"}, "weighting 'sotf'; did you mean 'soft'"),
    ],
)
def test_refuses_an_unknown_option(options, message):
    with pytest.raises(ValueError, match=message):
        losses.mart(LABEL, NATURAL, ADVERSARIAL, **options)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "uint32"])
def test_labels_are_of_any_integers(kind):
    labels = tf.constant([2, 0], kind)
    values = losses.cross_entropy(labels, np.zeros([2, 3], np.float32))
    np.testing.assert_allclose(values, [math.log(3)] * 2, rtol=1e-6)


def test_labels_in_a_column_are_refused_and_not_spread_over_the_batch():
    logits = np.zeros([2, 3], np.float32)
    for labels, said in [
        ([[0], [1]], r"int32 of shape \(2, 1\), the sc"),
        ([0], r"int32 of shape \(1,\), the scores of shape \(2, 3\); expected"),
        ([0.0, 1.0], r"float32 of shape \(2,\), the scores"),
    ]:
        with pytest.raises(ValueError, match=f"The labels are {said}"):
            losses.mart(labels, logits, logits)
    with pytest.raises(ValueError, match="label_smoothing is 1.5; expected"):
        losses.cross_entropy([0, 1], logits, 1.5)
