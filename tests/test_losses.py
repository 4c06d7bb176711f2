"""Losses: cases worked by hand, the authors' formulas, extreme logits."""

import math

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from mart_tf import losses

NATURAL = np.log([[0.50, 0.25, 0.25]])
ADVERSARIAL = np.log([[0.25, 0.50, 0.25]])
LABEL = tf.constant([0])


def released_mart(labels, natural, adversarial, regularization):
    """The authors' released formula, written anew in float64."""
    rows = np.arange(len(labels))
    p = scipy.special.softmax(natural, axis=1)
    q = scipy.special.softmax(adversarial, axis=1)
    wrong = q.copy()
    wrong[rows, labels] = -1.0
    boosted = -np.log(q[rows, labels]) - np.log(1.0001 - wrong.max(1) + 1e-12)
    divergence = (p * (np.log(p) - np.log(q + 1e-12))).sum(1)
    weight = 1.0000001 - p[rows, labels]
    return boosted + regularization * divergence * weight


def paper_mart(labels, natural, adversarial, regularization):
    """Equations 8, 9 and 11, term by term, in float64."""
    rows = np.arange(len(labels))
    p = scipy.special.softmax(natural, axis=1)
    q = scipy.special.softmax(adversarial, axis=1)
    wrong = q.copy()
    wrong[rows, labels] = -1.0
    # 1 - p_k as the sum of the other probabilities: it does not cancel.
    others = q.copy()
    others[rows, wrong.argmax(1)] = 0.0
    boosted = -np.log(q[rows, labels]) - np.log(others.sum(1))
    divergence = (p * np.log(p / q)).sum(1)
    not_label = p.copy()
    not_label[rows, labels] = 0.0
    return boosted + regularization * divergence * not_label.sum(1)


def random_case(scale, seed=0):
    generator = np.random.RandomState(seed)
    natural = scale * generator.randn(64, 10)
    adversarial = natural + scale * 0.3 * generator.randn(64, 10)
    return generator.randint(0, 10, 64), natural, adversarial


def test_cross_entropy_by_hand():
    value = losses.cross_entropy(LABEL, tf.constant(ADVERSARIAL, tf.float32))
    np.testing.assert_allclose(value, [math.log(4)], rtol=1e-6)


def test_boosted_cross_entropy_by_hand():
    # -log 1/4 - log(1 - 1/2) = 3 log 2
    value = losses.boosted_cross_entropy(LABEL, ADVERSARIAL)
    np.testing.assert_allclose(value, [3 * math.log(2)], rtol=1e-6)
    # The released margin is -log(1.0001 - 1/2).
    value = losses.boosted_cross_entropy(LABEL, ADVERSARIAL, "released")
    expected = math.log(4) - math.log(0.5001)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


def test_kl_divergence_by_hand():
    # 1/2 log 2 - 1/4 log 2
    value = losses.kl_divergence(NATURAL, ADVERSARIAL)
    np.testing.assert_allclose(value, [0.25 * math.log(2)], rtol=1e-6)


def test_mart_by_hand():
    # BCE = 3 log 2; KL = 1/4 log 2; 1 - p_y = 1/2; lambda = 4.
    value = losses.mart(LABEL, NATURAL, ADVERSARIAL, regularization=4.0)
    np.testing.assert_allclose(value, [3.5 * math.log(2)], rtol=1e-6)


@pytest.mark.parametrize("scale", [2, 8, 30])
@pytest.mark.parametrize(
    "form, reference", [("paper", paper_mart), ("released", released_mart)]
)
def test_mart_equals_the_formula_in_float64(scale, form, reference):
    labels, natural, adversarial = random_case(scale)
    inputs = [
        tf.constant(natural, tf.float32),
        tf.constant(adversarial, tf.float32),
    ]
    natural, adversarial = (t.numpy().astype("float64") for t in inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = losses.mart(labels, *inputs, 5.0, form)
    np.testing.assert_allclose(
        values,
        reference(labels, natural, adversarial, 5.0),
        rtol=1e-5,
        atol=1e-6,
    )
    gradients = tape.gradient(values, inputs)
    step = 1e-6
    generator = np.random.RandomState(1)
    for _ in range(4):
        # A directional derivative by central differences.
        u, v = generator.randn(2, *natural.shape)
        slope = (
            reference(labels, natural + step * u, adversarial + step * v, 5.0)
            - reference(labels, natural - step * u, adversarial - step * v, 5.0)
        ) / (2 * step)
        mine = (np.asarray(gradients[0], "float64") * u).sum(1)
        mine += (np.asarray(gradients[1], "float64") * v).sum(1)
        np.testing.assert_allclose(mine, slope, rtol=2e-4, atol=2e-4)


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
    labels, natural, adversarial = random_case(1)
    np.testing.assert_allclose(
        losses.mart(labels, natural, adversarial),
        losses.mart(labels, natural, adversarial, form="released"),
        rtol=2e-3,
    )


@pytest.mark.parametrize("form", losses.FORMS)
def test_finite_for_extreme_logits(form):
    generator = np.random.RandomState(0)
    levels = [-1e4, -3.0, 0.0, 1e4]
    natural, adversarial = (
        tf.constant(generator.choice(levels, size=(256, 5)), tf.float32)
        for _ in range(2)
    )
    labels = tf.constant(generator.randint(0, 5, 256))
    with tf.GradientTape() as tape:
        tape.watch([natural, adversarial])
        values = losses.mart(labels, natural, adversarial, 6.0, form)
    gradients = tape.gradient(values, [natural, adversarial])
    for tensor in (values, *gradients):
        assert np.isfinite(tensor).all()


def test_float32_whatever_the_logits_are():
    logits = tf.cast(NATURAL, tf.bfloat16)
    assert losses.mart(LABEL, logits, logits).dtype == tf.float32


def test_refuses_another_form():
    with pytest.raises(ValueError, match="did you mean 'released'"):
        losses.mart(LABEL, NATURAL, ADVERSARIAL, form="relesed")
