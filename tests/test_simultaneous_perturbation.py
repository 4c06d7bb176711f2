"""SPSA: its estimate against the gradient, steps by hand, exact bounds."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from mart_tf import noise
from mart_tf import threat
from mart_tf.attacks import simultaneous_perturbation
from mart_tf.evaluation import engine

THREAT = threat.ThreatModel(epsilon=0.1)
GENERATOR = np.random.RandomState(0)
WEIGHTS = GENERATOR.randn(48, 3).astype("float32")
IMAGES = GENERATOR.rand(12, 4, 4, 3).astype("float32")
LABELS = GENERATOR.randint(0, 3, 12).astype("int32")
SEEDS = noise.seeds(5, tf.range(12))


def linear(images):
    return tf.reshape(images, [-1, 48]) @ WEIGHTS


def binary(images):
    return tf.reshape(images, [-1, 48]) @ WEIGHTS[:, :2]


def stepped(attack, steps, images=IMAGES, labels=LABELS):
    """The state after `steps` steps."""
    state = attack.begin(images, labels, SEEDS)
    for number in range(steps):
        taken = tf.fill([len(labels)], number)
        state, _ = attack.step(images, labels, state, taken)
    return state


def test_the_estimate_is_exact_for_one_pixel():
    # z = (x, 3x): the margin of class 0 has slope 2, that of class 1 has -2,
    # whatever the sign of the direction.
    estimate = simultaneous_perturbation.gradient_estimate(
        lambda x: x * [[1.0, 3.0]],
        tf.constant([[0.25], [0.5]]),
        tf.constant([0, 1]),
        SEEDS[:2],
        samples=2,
        delta=0.125,
    )
    np.testing.assert_array_equal(estimate, [[2.0], [-2.0]])


@pytest.mark.parametrize("samples", [2, 16])
def test_the_estimate_is_unbiased(samples):
    # One image 4,000 times over, each with its own directions.
    count = 4000
    estimates = simultaneous_perturbation.gradient_estimate(
        binary,
        tf.constant(np.tile(IMAGES[:1], [count, 1, 1, 1])),
        tf.zeros([count], tf.int32),
        noise.seeds(2, tf.range(count)),
        samples=samples,
        delta=0.01,
    )
    estimates = np.reshape(estimates, [count, 48]).astype("float64")
    slope = (WEIGHTS[:, 1] - WEIGHTS[:, 0]).astype("float64")
    # g_j = w_j + sum over k != j of w_k v_k v_j, averaged over the pairs.
    variance = ((slope**2).sum() - slope**2) / (samples / 2)
    errors = (estimates.mean(axis=0) - slope) / np.sqrt(variance / count)
    # Standard errors of 48 means: all below 4, about 1 in the mean square.
    assert np.abs(errors).max() < 4
    assert 0.5 < (errors**2).mean() < 1.7
    np.testing.assert_allclose(estimates.var(axis=0), variance, rtol=0.15)


def test_the_estimate_does_not_hang_on_the_size_of_a_forward_pass(monkeypatch):
    asked = []

    def classify(images):
        asked.append(len(images))
        return linear(images)

    def estimate(forward):
        monkeypatch.setattr(simultaneous_perturbation, "_FORWARD", forward)
        asked.clear()
        gradient = simultaneous_perturbation.gradient_estimate(
            classify, IMAGES, LABELS, SEEDS, samples=24
        )
        return gradient, list(asked)

    # 12 pairs of 12 examples: all at once; 4 pairs, for 5 do not divide 12;
    # one pair at least.
    whole, sizes = estimate(288)
    assert sizes == [288]
    parts, sizes = estimate(120)
    assert sizes == [96, 96, 96]
    pairs, sizes = estimate(1)
    assert sizes == [24] * 12
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pairs, whole, rtol=1e-4, atol=1e-4)


def test_samples_that_are_not_finite_are_left_out():
    def classify(images):
        # As a served model may that refuses pixels outside the range.
        outside = tf.reduce_any(images > 0.5, axis=[1, 2, 3])
        return tf.where(outside[:, None], np.nan, linear(images))

    images = np.full_like(IMAGES, 0.5)
    estimate = simultaneous_perturbation.gradient_estimate(
        classify, images, LABELS, SEEDS
    )
    np.testing.assert_array_equal(estimate, np.zeros_like(IMAGES))


@pytest.mark.parametrize("low, width", [(0.0, 1.0), (-1.0, 2.0), (0.0, 255.0)])
def test_steps_by_hand(low, width):
    # A gradient that never changes: Adam steps by the learning rate, in units
    # of the pixel range, until the bound is reached.
    model = threat.ThreatModel("linf", 0.1 * width, low, low + width)
    weights = tf.constant([[1.0, 3.0]]) / width
    images = low + width * tf.constant([[0.5], [0.5], [0.95]])
    labels = tf.constant([0, 1, 0])
    attack = simultaneous_perturbation.SPSA(samples=2, learning_rate=0.03).on(
        lambda x: x * weights, model, 2
    )
    state = attack.begin(images, labels, SEEDS[:3])
    state["adversarial"] = images
    walked = [images]
    for number in range(5):
        state, _ = attack.step(images, labels, state, tf.fill([3], number))
        walked.append(state["adversarial"])
    way = width * np.array([0.0, 0.03, 0.06, 0.09, 0.1, 0.1])
    for adversarial, length in zip(walked, way, strict=True):
        expected = np.array(images) + [[length], [-length], [length]]
        expected = np.minimum(expected, low + width)
        np.testing.assert_allclose(adversarial, expected, atol=1e-5 * width)


def test_moments_by_hand():
    # Slopes 2 and 1, then Adam: m = 0.1 * 2, then 0.9 * 0.2 + 0.1 * 1;
    # u = 0.001 * 4, then 0.999 * 0.004 + 0.001 * 1.
    slope = tf.Variable(2.0)
    attack = simultaneous_perturbation.SPSA(samples=2).on(
        lambda x: x * slope * [[0.0, 1.0]], THREAT, 2
    )
    images, labels = tf.constant([[0.5]]), tf.constant([0])
    state = attack.begin(images, labels, SEEDS[:1])
    state["adversarial"] = images
    state, _ = attack.step(images, labels, state, tf.constant([0]))
    np.testing.assert_allclose(state["mean"], [[0.2]], rtol=1e-5)
    np.testing.assert_allclose(state["square"], [[0.004]], rtol=1e-5)
    before = state["adversarial"]
    slope.assign(1.0)
    state, _ = attack.step(images, labels, state, tf.constant([1]))
    np.testing.assert_allclose(state["mean"], [[0.28]], rtol=1e-5)
    np.testing.assert_allclose(state["square"], [[0.004996]], rtol=1e-5)
    step = 0.01 * (0.28 / 0.19) / np.sqrt(0.004996 / 0.001999)
    np.testing.assert_allclose(
        state["adversarial"] - before, [[step]], rtol=1e-4
    )


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.1), ("l2", 0.5)])
def test_comes_near_the_optimum_of_a_linear_network(norm, epsilon):
    model = threat.ThreatModel(norm, epsilon)
    images = 0.25 + IMAGES / 2
    labels = LABELS % 2
    run = tf.function(
        functools.partial(
            simultaneous_perturbation.SPSA(steps=80, samples=32),
            binary,
            threat=model,
            seed=3,
        )
    )
    slope = (WEIGHTS[:, 1] - WEIGHTS[:, 0]) * np.where(labels, -1, 1)[:, None]
    moved = np.reshape(run(images, labels) - images, [12, 48])
    gain = (moved * slope).sum(axis=1)
    # No pixel bound is near: the most is epsilon times the dual norm.
    most = epsilon * np.array(model.dual_norm(slope))
    assert (gain > 0.9 * most).all(), gain / most


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.1), ("l2", 0.5)])
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_stays_inside_the_threat_model_exactly(norm, epsilon, low, high):
    width = high - low
    model = threat.ThreatModel(norm, epsilon * width, low, high)
    images = np.clip(low + width * IMAGES, low, high).astype("float32")
    attack = simultaneous_perturbation.SPSA(samples=8, learning_rate=0.1).on(
        linear, model, 3
    )
    for steps in range(4):
        adversarial = stepped(attack, steps, images)["adversarial"]
        assert low <= np.min(adversarial) and np.max(adversarial) <= high
        if norm == "linf":
            np.testing.assert_array_equal(
                model.project(adversarial, images), adversarial
            )
        moved = np.array(adversarial, "float64") - images
        lengths = np.sqrt((moved**2).sum(axis=(1, 2, 3)))
        assert norm == "linf" or (lengths <= epsilon * width).all()


def test_place_in_the_batch_does_not_matter():
    attack = simultaneous_perturbation.SPSA(samples=8).on(linear, THREAT, 3)
    state = stepped(attack, 2)
    taken = tf.constant([0, 2, 7, 40] * 3)
    following, logits = attack.step(IMAGES, LABELS, state, taken)
    # The logits are those of the iterate that was, not of a sample.
    np.testing.assert_array_equal(logits, linear(state["adversarial"]))
    order = GENERATOR.permutation(12)
    permuted, permuted_logits = attack.step(
        IMAGES[order],
        LABELS[order],
        {name: tf.gather(values, order) for name, values in state.items()},
        tf.gather(taken, order),
    )
    for name, values in following.items():
        np.testing.assert_array_equal(permuted[name], tf.gather(values, order))
    np.testing.assert_array_equal(permuted_logits, tf.gather(logits, order))
    for place, number in enumerate(taken.numpy()):
        alone, _ = attack.step(IMAGES, LABELS, state, tf.fill([12], number))
        np.testing.assert_array_equal(
            alone["adversarial"][place], following["adversarial"][place]
        )
    # Another step, other directions.
    other, _ = attack.step(IMAGES, LABELS, state, taken + 1)
    assert np.abs(other["mean"] - following["mean"]).max() > 0.01


def test_the_engine_needs_no_gradient():
    def predict(images):
        return images.reshape(-1, 48) @ WEIGHTS

    def classify(images):
        logits = tf.numpy_function(predict, [images], tf.float32)
        return tf.ensure_shape(logits, [None, 3])

    labels = np.argmax(linear(IMAGES), axis=1).astype("int32")
    small = threat.ThreatModel(epsilon=0.04)
    attack = simultaneous_perturbation.SPSA(steps=10, samples=32).on(
        classify, small, 3
    )
    assert not attack.needs_gradient
    crafted = engine.Engine(classify, 4).run(
        attack, IMAGES, labels, SEEDS.numpy()
    )
    assert 0 < crafted.broken.sum() < 12
    predicted = np.argmax(linear(crafted.adversarial), axis=1)
    np.testing.assert_array_equal(predicted != labels, crafted.broken)
    assert (crafted.steps[~crafted.broken] == 10).all()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "Attack steps is 0"),
        ({"samples": 0}, "samples is 0; expected an even number"),
        ({"samples": 7}, "samples is 7; expected an even number"),
        ({"samples": 8.0}, "samples is 8.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0; expected"),
        ({"delta": -1.0}, "delta is -1; expected a number above 0"),
        ({"delta": np.inf}, "delta is inf"),
    ],
)
def test_refuses_in_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        simultaneous_perturbation.SPSA(**settings).on(linear, THREAT, 3)
