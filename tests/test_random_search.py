"""Square: its schedule by hand, windows, exact bounds, known optima."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from mart_tf import noise
from mart_tf import threat
from mart_tf.attacks import random_search
from mart_tf.evaluation import engine

THREAT = threat.ThreatModel(epsilon=0.1)
GENERATOR = np.random.RandomState(0)
WEIGHTS = GENERATOR.randn(48, 3).astype("float32")
IMAGES = GENERATOR.rand(12, 4, 4, 3).astype("float32")
LABELS = GENERATOR.randint(0, 3, 12).astype("int32")
SEEDS = noise.seeds(5, tf.range(12))


def linear(images):
    size = int(np.prod(images.shape[1:]))
    return tf.reshape(images, [-1, size]) @ WEIGHTS[:size]


def margins(images, labels):
    logits = np.array(linear(images))
    rows = np.arange(len(labels))
    true = logits[rows, labels].copy()
    logits[rows, labels] = -np.inf
    return logits.max(axis=1) - true


def stepped(attack, steps, images=IMAGES, labels=LABELS, seeds=SEEDS):
    """The states of a round, from its start to after `steps` steps."""
    states = [attack.begin(images, labels, seeds)]
    for number in range(steps):
        taken = tf.fill([len(labels)], number)
        states.append(attack.step(images, labels, states[-1], taken)[0])
    return states


def test_sides_by_hand():
    # sqrt(0.8 * 784) = 25.04; halved shares: 17.7, 12.5, 8.9, 6.3, 4.4, 3.1,
    # 2.2, 1.6, 1.1. The first 11 windows of 10,000 have the first side.
    attack = random_search.Square(queries=10_000).on(linear, THREAT, 3)
    last = [1, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    sides = attack.sides(tf.constant(last), 784)
    np.testing.assert_array_equal(sides, [25, 25, 18, 13, 9, 6, 4, 3, 2, 2])
    sides = attack.sides(tf.constant(last) + 1, 784)
    np.testing.assert_array_equal(sides, [25, 18, 13, 9, 6, 4, 3, 2, 2, 1])
    # With fewer queries the same ones halve it; none after the last.
    attack = random_search.Square(queries=5000).on(linear, THREAT, 3)
    sides = attack.sides(tf.constant([11, 12, 5000, 5001]), 784)
    np.testing.assert_array_equal(sides, [25, 18, 2, 0])
    # Never less than a pixel.
    np.testing.assert_array_equal(attack.sides(tf.constant([5000]), 16), [1])


def test_starts_with_stripes():
    start = (
        random_search.Square()
        .on(linear, THREAT, 3)
        .begin(IMAGES, LABELS, SEEDS)
    )
    signs = np.sign(start["adversarial"] - IMAGES)
    np.testing.assert_array_equal(signs, np.tile(signs[:, :1], [1, 4, 1, 1]))
    assert 0.3 < (signs > 0).mean() < 0.7
    # Each pixel at its bound, on the side of the sign.
    moved = THREAT.project(IMAGES + np.float32(0.1) * signs, IMAGES)
    np.testing.assert_array_equal(start["adversarial"], moved)
    assert (np.array(start["objective"]) == -np.inf).all()


def test_a_restart_starts_elsewhere():
    attack = random_search.Square(restarts=2).on(linear, THREAT, 3)
    assert attack.all_rounds == 2
    first, second = (
        attack.begin(IMAGES, LABELS, SEEDS, number)["adversarial"]
        for number in (0, 1)
    )
    assert np.abs(first - second).max() > 0.1


def test_a_window_is_a_square_of_one_sign_for_each_channel():
    count, size = 500, 9
    images = np.full([count, size, size, 2], 0.5, "float32")
    labels = np.zeros(count, "int32")
    # sqrt(0.11 * 81) = 2.98
    attack = random_search.Square(queries=50_000, p=0.11).on(
        lambda x: tf.zeros([count, 3]), THREAT, 3
    )
    state = attack.begin(images, labels, noise.seeds(1, tf.range(count)))
    # Natural pixels outside the window tell it from all else.
    state["accepted"] = state["adversarial"] = tf.constant(images)
    following, _ = attack.step(images, labels, state, tf.fill([count], 0))
    changed = np.array(following["adversarial"]) - images
    inside = changed[..., 0] != 0
    np.testing.assert_array_equal(inside, changed[..., 1] != 0)
    assert (inside.sum(axis=(1, 2)) == 9).all()
    rows, columns = inside.any(axis=2), inside.any(axis=1)
    assert (rows.sum(axis=1) == 3).all() and (columns.sum(axis=1) == 3).all()
    for channel in range(2):
        values = changed[..., channel].sum(axis=(1, 2))
        np.testing.assert_allclose(np.abs(values), 0.9, rtol=1e-5)
        assert 0.4 < (values > 0).mean() < 0.6
    # All 7 places are as likely, those at the border too.
    for lines in (rows, columns):
        places = np.bincount(lines.argmax(axis=1), minlength=7)
        assert places.shape == (7,) and places.min() > 40


def test_keeps_what_raises_the_objective_and_drops_the_rest():
    states = stepped(random_search.Square(queries=40).on(linear, THREAT, 3), 12)
    won = 0
    for before, after in zip(states[1:], states[2:], strict=False):
        tried = margins(before["adversarial"], LABELS)
        wins = tried > np.array(before["objective"])
        won += wins.sum()
        np.testing.assert_array_equal(
            after["accepted"],
            np.where(
                wins[:, None, None, None],
                before["adversarial"],
                before["accepted"],
            ),
        )
        np.testing.assert_allclose(
            after["objective"],
            np.where(wins, tried, before["objective"]),
            rtol=1e-6,
        )
    assert 10 < won < 100
    # The first query stands for want of another.
    np.testing.assert_array_equal(
        states[1]["accepted"], states[0]["adversarial"]
    )
    np.testing.assert_allclose(
        states[1]["objective"], margins(states[0]["adversarial"], LABELS)
    )


def test_one_pass_a_step_and_the_best_at_the_end():
    queried = []

    def classify(images):
        queried.append(images)
        return linear(images)

    attack = random_search.Square(queries=15).on(classify, THREAT, 3)
    last = stepped(attack, attack.steps)[-1]
    # The authors try `n_queries` windows after the stripes.
    assert len(queried) == 16
    best = np.max([margins(images, LABELS) for images in queried], axis=0)
    np.testing.assert_allclose(margins(attack.best(last), LABELS), best)
    np.testing.assert_array_equal(attack.best(last), last["accepted"])


def test_finds_the_optimum_of_a_linear_network():
    # Of 4x4 pixels the windows soon are single ones: a search along
    # coordinates, which for two classes ends with each pixel at its bound.
    weights = WEIGHTS[:16, :2]
    images, labels = IMAGES[..., :1], LABELS % 2
    run = tf.function(
        functools.partial(
            random_search.Square(queries=600),
            lambda x: tf.reshape(x, [-1, 16]) @ weights,
            threat=THREAT,
            seed=3,
        )
    )
    towards = np.sign(weights[:, 1] - weights[:, 0]).reshape(4, 4, 1)
    towards = np.where(labels[:, None, None, None] == 0, towards, -towards)
    best = THREAT.project(images + np.float32(0.1) * towards, images)
    np.testing.assert_array_equal(run(images, labels), best)


@pytest.mark.parametrize("shape", [[4, 4, 3], [3, 5], [7]])
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_stays_inside_the_threat_model_exactly(shape, low, high):
    model = threat.ThreatModel("linf", 0.1 * (high - low), low, high)
    images = (low + (high - low) * GENERATOR.rand(5, *shape)).astype("float32")
    labels = LABELS[:5]
    attack = random_search.Square(queries=30).on(linear, model, 3)
    states = stepped(attack, attack.steps, images, labels, SEEDS[:5])
    for state in states:
        candidate = state["adversarial"]
        np.testing.assert_array_equal(
            model.project(candidate, images), candidate
        )
        assert candidate.shape == images.shape
    start, end = (
        margins(state["adversarial"], labels)
        for state in (states[0], states[-1])
    )
    assert (end >= start).all() and (end > start).any()


def test_place_in_the_batch_does_not_matter():
    attack = random_search.Square(queries=500).on(linear, THREAT, 3)
    state = stepped(attack, 4)[-1]
    # Early and late windows, and the last query, side by side.
    taken = tf.constant([0, 4, 9, 120, 300, 499] * 2)
    following, logits = attack.step(IMAGES, LABELS, state, taken)
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
    # Each example goes on as it would among others of its own step.
    for place, number in enumerate(taken.numpy()):
        alone, _ = attack.step(IMAGES, LABELS, state, tf.fill([12], number))
        np.testing.assert_array_equal(
            alone["adversarial"][place], following["adversarial"][place]
        )


def test_the_engine_needs_no_gradient():
    asked = []

    def predict(images):
        asked.append(len(images))
        return images.reshape(-1, 48) @ WEIGHTS

    def classify(images):
        logits = tf.numpy_function(predict, [images], tf.float32)
        return tf.ensure_shape(logits, [None, 3])

    labels = np.argmax(linear(IMAGES), axis=1).astype("int32")
    small = threat.ThreatModel(epsilon=0.04)
    attack = random_search.Square(queries=60).on(classify, small, 3)
    assert not attack.needs_gradient
    crafted = engine.Engine(classify, 4).run(
        attack, IMAGES, labels, SEEDS.numpy()
    )
    assert 0 < crafted.broken.sum() < 12
    wrong = margins(crafted.adversarial, labels) > 0
    np.testing.assert_array_equal(wrong, crafted.broken)
    # What stands was queried to the end, and ends with the best candidate:
    # called on the batch the attack finds the same.
    standing = ~crafted.broken
    assert (crafted.steps[standing] == 61).all()
    alone = random_search.Square(queries=60)(
        classify, IMAGES, labels, small, seed=SEEDS
    )
    np.testing.assert_array_equal(
        crafted.adversarial[standing], alone.numpy()[standing]
    )


def test_equal_values_never_win():
    # The authors keep x' where the loss is below the least so far: on a flat
    # classifier the stripes, whatever follows.
    flat = tf.constant([[2.0, 0.0, 1.0]] * 12)
    labels = np.zeros(12, "int32")
    attack = random_search.Square(queries=8).on(lambda x: flat, THREAT, 3)
    states = stepped(attack, attack.steps, labels=labels)
    for state in states:
        np.testing.assert_array_equal(
            state["accepted"], states[0]["adversarial"]
        )
    tried = np.array(states[1]["adversarial"])
    assert np.abs(tried - states[0]["adversarial"]).max() > 0.1
    np.testing.assert_array_equal(states[-1]["objective"], [-1.0] * 12)


def test_logits_that_are_not_finite_never_win():
    attack = random_search.Square(queries=5).on(
        lambda x: linear(x) * np.float32(np.nan), THREAT, 3
    )
    states = stepped(attack, attack.steps)
    np.testing.assert_array_equal(
        attack.best(states[-1]), states[0]["adversarial"]
    )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"queries": 0}, "queries is 0; expected a whole number"),
        ({"queries": 2.5}, "queries is 2.5"),
        ({"restarts": 0}, "restarts is 0"),
        ({"p": 0.0}, "p is 0.0; expected a share"),
        ({"p": 1.5}, "p is 1.5"),
    ],
)
def test_refuses_in_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        random_search.Square(**settings).on(linear, THREAT, 3)


def test_refuses_another_norm_and_another_shape():
    with pytest.raises(ValueError, match="norm is 'l2'; expected 'linf'"):
        random_search.Square().on(linear, threat.ThreatModel("l2", 1.0), 3)
    images = np.stack([IMAGES] * 2, 1)
    with pytest.raises(ValueError, match="shape .2, 4, 4, 3.; square expects"):
        random_search.Square()(
            lambda x: linear(x[:, 0]), images, LABELS, THREAT
        )
