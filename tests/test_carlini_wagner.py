"""Carlini and Wagner in l2: distances in closed form, the search for c."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import trained

from mart_tf import attacks
from mart_tf import noise
from mart_tf import threat
from mart_tf.attacks import carlini_wagner
from mart_tf.evaluation import engine

THREAT = threat.ThreatModel("l2", 1.0)
GENERATOR = np.random.default_rng(0)
WEIGHTS = GENERATOR.normal(size=(48, 4)).astype("float32")
IMAGES = GENERATOR.uniform(0.35, 0.65, (20, 4, 4, 3)).astype("float32")
QUICK = {
    "binary_search_steps": 3,
    "max_iterations": 50,
    "learning_rate": 0.05,
    "initial_const": 1.0,
}


def linear(images):
    return tf.reshape(images - 0.5, [-1, 48]) @ WEIGHTS


LOGITS = linear(IMAGES).numpy()
LABELS = LOGITS.argmax(axis=1).astype("int32")
# The ways to the planes between the label and each other class.
GAPS = LOGITS[np.arange(20), LABELS][:, None] - LOGITS
NORMALS = np.linalg.norm(WEIGHTS[:, LABELS, None] - WEIGHTS[:, None], axis=0)
WAYS = np.divide(GAPS, NORMALS, np.full_like(GAPS, np.inf), where=NORMALS > 0)


def lengths(found, images=IMAGES):
    offsets = np.asarray(found, "float64") - images
    return np.linalg.norm(offsets.reshape(len(offsets), -1), axis=1)


def predicted(classify, images):
    return classify(images).numpy().argmax(axis=1)


def stepped(attack, steps, images=IMAGES, labels=LABELS):
    """The state after `steps` steps."""
    state = attack.begin(tf.constant(images), tf.constant(labels), None)
    advance = tf.function(attack.step)
    for number in range(steps):
        taken = tf.fill([len(labels)], number)
        state, _ = advance(images, labels, state, taken)
    return state


@pytest.fixture(scope="module")
def digits():
    """A small trained network as a callable, and 30 digits that it knows."""
    model, images, labels = trained.on_digits(
        0,
        lambda: [
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
        ],
    )

    def classify(images):
        return model(images, training=False)

    right = np.flatnonzero(predicted(classify, images[1400:]) == labels[1400:])
    rows = 1400 + right[:30]
    return classify, images[rows], labels[rows]


class TestClosest:
    @pytest.mark.parametrize("low, high", [(0.0, 1.0), (-100.0, 155.0)])
    @pytest.mark.parametrize("rate, most", [(0.01, 2e-3), (0.001, 2e-4)])
    def test_reaches_the_nearest_plane(self, low, high, rate, most):
        width = high - low
        attack = attacks.CarliniWagnerL2(learning_rate=rate)
        model = threat.ThreatModel("l2", 1.0, low, high)

        def classify(images):
            return linear((images - low) / width)

        images = low + width * IMAGES
        found = attack(classify, images, LABELS, model)
        assert (predicted(classify, found) != LABELS).all()
        beyond = lengths(found, images) / width - WAYS.min(axis=1)
        # From 0.001 to 0.18; by rounding alone it may fall short.
        assert beyond.min() > -1e-5 and beyond.max() < most

    def test_reaches_a_target_class(self):
        attack = attacks.CarliniWagnerL2(max_iterations=300)
        found = attack(linear, IMAGES, LABELS, THREAT, target=2)
        assert (predicted(linear, found) == 2).all()
        beyond = lengths(found) - np.maximum(WAYS[:, 2], 0.0)
        own = LABELS == 2
        np.testing.assert_allclose(found[own], IMAGES[own], atol=1e-6)
        assert (beyond[~own] > -1e-5).all()
        # Where the way to it leads through no third class there is no longer.
        nearest = WAYS.argmin(axis=1) == 2
        assert nearest.sum() > 3 and beyond[nearest].max() < 0.01

    def test_confidence_is_how_far_beyond(self):
        two = WEIGHTS[:, :2]

        def classify(images):
            return tf.reshape(images - 0.5, [-1, 48]) @ two

        logits = classify(IMAGES).numpy()
        labels = logits.argmax(axis=1).astype("int32")
        attack = attacks.CarliniWagnerL2(confidence=0.5)
        found = attack(classify, IMAGES, labels, THREAT)
        wins = classify(found).numpy()
        wins = wins[np.arange(20), 1 - labels] - wins[np.arange(20), labels]
        assert wins.min() >= 0.5
        expected = np.abs(logits[:, 0] - logits[:, 1]) + 0.5
        expected /= np.linalg.norm(two[:, 0] - two[:, 1])
        np.testing.assert_allclose(lengths(found), expected, rtol=0.02)

    def test_stays_inside_the_pixel_range(self):
        images = np.clip(GENERATOR.normal(0.5, 1.0, IMAGES.shape), 0, 1)
        images = np.float32(images)
        labels = predicted(linear, images).astype("int32")
        attack = attacks.CarliniWagnerL2(learning_rate=0.1)
        found = attack(linear, images, labels, THREAT).numpy()
        assert (predicted(linear, found) != labels).mean() > 0.9
        assert found.min() >= 0.0 and found.max() <= 1.0

    def test_nothing_found_is_the_natural_image(self):
        def constant(images):
            return 0.0 * linear(images) + tf.one_hot(LABELS, 4)

        attack = attacks.CarliniWagnerL2(**QUICK)
        found = attack(constant, IMAGES, LABELS, THREAT)
        np.testing.assert_array_equal(found, IMAGES)

    def test_a_gradient_that_is_no_number_moves_nothing(self):
        @tf.custom_gradient
        def steep(values):
            return values, lambda upstream: upstream * np.nan

        def classify(images):
            corner = steep(images[:, :1, 0, 0])
            return linear(images) + corner - tf.stop_gradient(corner)

        found = attacks.CarliniWagnerL2(**QUICK)(
            classify, IMAGES, LABELS, THREAT
        )
        moved = np.abs(found - IMAGES)
        assert np.isfinite(moved).all()
        assert moved.max(axis=(1, 2, 3)).min() > 1e-4
        assert moved[:, 0, 0, 0].max() < 1e-6


class TestSteps:
    def test_the_first_is_of_the_learning_rate(self):
        attack = attacks.CarliniWagnerL2(learning_rate=0.01, initial_const=1.0)
        state = stepped(attack.on(linear, THREAT, 4), 1)
        rival = np.where(np.eye(4)[LABELS], -np.inf, LOGITS).argmax(axis=1)
        uphill = (WEIGHTS[:, rival] - WEIGHTS[:, LABELS]).T
        expected = np.arctanh(0.999999 * (2 * IMAGES - 1))
        expected += 0.01 * np.sign(uphill).reshape(IMAGES.shape)
        np.testing.assert_allclose(state["point"], expected, atol=1e-4)

    @pytest.mark.parametrize("early, each", [(True, 6), (False, 50)])
    def test_a_descent_ends_where_its_loss_stands_still(self, early, each):
        def constant(images):
            return 0.0 * linear(images) + tf.one_hot(LABELS, 4)

        attack = attacks.CarliniWagnerL2(**QUICK, abort_early=early)
        attack = attack.on(constant, THREAT, 4)
        # Looked at every fifth step from the first.
        for steps, tried in ((each - 1, 0), (each, 1), (2 * each, 2)):
            state = stepped(attack, steps)
            assert (state["tried"].numpy() == tried).all()
        np.testing.assert_array_equal(state["constant"], np.full(20, 100.0))
        assert (state["iteration"].numpy() == 0).all()
        np.testing.assert_array_equal(state["mean"], np.zeros_like(IMAGES))

    def test_the_search_for_c_by_hand(self):
        state = {
            "tried": tf.constant([0, 0]),
            "constant": tf.constant([1.0, 1.0]),
            "low": tf.zeros(2),
            "high": tf.fill([2], np.inf),
        }
        tried = []
        for _ in range(6):
            tried.append(state["constant"].numpy().tolist())
            # The first is broken from 3 on, the second never.
            broken = (state["constant"] >= 3.0) & [True, False]
            state = carlini_wagner._next_constants(state, broken)
        first, second = zip(*tried, strict=True)
        assert first == (1.0, 10.0, 5.5, 3.25, 2.125, 2.6875)
        assert second == (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)


class TestEngine:
    def test_finds_what_a_call_finds_whoever_shares_the_batch(self, digits):
        classify, images, labels = digits
        attack = attacks.CarliniWagnerL2(**QUICK)
        expected = attack(classify, images, labels, THREAT)
        loop = engine.Engine(classify, 8)
        outcome = loop.run(
            attack.on(classify, THREAT, 10),
            images,
            labels,
            noise.seeds(0, np.arange(30)).numpy(),
        )
        assert outcome.broken.all()
        assert (predicted(classify, outcome.adversarial) != labels).all()
        # Those whose descents ended early have left.
        assert len(set(outcome.steps)) > 3
        np.testing.assert_allclose(
            lengths(outcome.adversarial, images),
            lengths(expected, images),
            rtol=1e-3,
        )

    def test_retraces_nothing(self, digits):
        classify, images, labels = digits
        traced = []

        def counted(images):
            traced.append(images.shape[0])
            return classify(images)

        attack = attacks.CarliniWagnerL2(**QUICK).on(counted, THREAT, 10)
        loop = engine.Engine(counted, 10, cores=1)
        counts = []
        for _ in range(2):
            loop.run(attack, images[:25], labels[:25], np.zeros([25, 2], int))
            counts.append(len(traced))
        # The natural logits, the step, and the look at who has used up all.
        assert counts[0] == counts[1] <= 3


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"learning_rate": 0.0}, "learning_rate is 0; expected a number abo"),
        ({"initial_const": -1.0}, "initial_const is -1; expected a number a"),
        ({"radius": 0.0}, "radius is 0; expected a number above 0"),
        ({"max_iterations": 0}, "max_iterations is 0; expected a whole number"),
        ({"binary_search_steps": 0}, "binary_search_steps is 0; expected a wh"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        attacks.CarliniWagnerL2(**settings)


def test_reports_at_epsilon_or_its_own_radius():
    attack = attacks.CarliniWagnerL2()
    assert attack.on(linear, THREAT, 4).parameters == {
        "binary_search_steps": 5,
        "max_iterations": 1000,
        "learning_rate": 0.01,
        "initial_const": 0.01,
        "abort_early": True,
        "confidence": 0.0,
        "radius": 1.0,
    }
    given = attacks.CarliniWagnerL2(radius=1.5).on(linear, THREAT, 4)
    assert given.norm == "l2" and given.radius == 1.5
