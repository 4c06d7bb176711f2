"""Attacks: known optima, exact bounds, what is watched and what is left."""

import functools

import keras
import numpy as np
import pytest
import scipy.special
import splitmix
import tensorflow as tf

from mart_tf import attacks
from mart_tf import losses
from mart_tf import threat
from mart_tf.attacks import autoattack
from mart_tf.attacks import given
from mart_tf.attacks import gradient
from mart_tf.attacks import objectives
from mart_tf.attacks import projected

THREAT = threat.ThreatModel(epsilon=0.1)
GENERATOR = np.random.RandomState(0)
WEIGHTS = GENERATOR.randn(16, 3).astype("float32")
IMAGES = GENERATOR.rand(12, 4, 4, 1).astype("float32")
LABELS = GENERATOR.randint(0, 3, 12).astype("int32")


def linear(images):
    return tf.reshape(images, [-1, 16]) @ WEIGHTS


def inside(adversarial, images=IMAGES, epsilon=0.1):
    epsilon = np.float32(epsilon)
    lower = np.maximum(images - epsilon, np.float32(0))
    upper = np.minimum(images + epsilon, np.float32(1))
    adversarial = np.asarray(adversarial)
    return bool(((lower <= adversarial) & (adversarial <= upper)).all())


def test_fgsm_by_hand():
    # Two pixels, two classes: the cross-entropy of class 0 rises along
    # w_1 - w_0 = (-2, 3), so the signs are (-, +).
    weights = tf.constant([[1.0, -1.0], [-1.0, 2.0]])
    images = tf.constant([[0.5, 0.95]])
    adversarial = attacks.fgsm(
        lambda x: x @ weights, images, tf.constant([0]), THREAT
    )
    np.testing.assert_allclose(adversarial, [[0.4, 1.0]], rtol=1e-6)


@pytest.mark.parametrize("radius", [0.02, 0.2])
def test_fgsm_starts_and_ends_in_a_radius_of_its_own(radius):
    # Far from black and white; the score rises along (-, +, +, -).
    images = np.linspace(0.3, 0.7, 40, dtype="float32").reshape(10, 4)
    weights = tf.constant([[0.0, -1.0], [0.0, 2.0], [0.0, 1.0], [0.0, -3.0]])
    found = attacks.fgsm(
        lambda x: x @ weights,
        images,
        tf.zeros([10], tf.int32),
        THREAT,
        random_start="uniform",
        epsilon=radius,
        seed=5,
    )
    draws = np.stack([splitmix.uniform(5, row, 4) for row in range(10)])
    moved = 2 * draws - 1 + [-1, 1, 1, -1]
    expected = images + radius * np.clip(moved, -1, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
@pytest.mark.parametrize("objective", ["cross_entropy", "margin"])
def test_pgd_finds_the_optimum_of_a_linear_network(start, objective):
    # With two classes the best x' moves every pixel to its bound.
    classify = lambda x: tf.reshape(x, [-1, 16]) @ WEIGHTS[:, :2]  # noqa: E731
    labels = (LABELS % 2).astype("int32")
    adversarial = attacks.pgd(
        classify,
        IMAGES,
        labels,
        THREAT,
        steps=12,
        objective=objective,
        random_start=start,
        seed=1,
    )
    towards = np.sign(WEIGHTS[:, 1] - WEIGHTS[:, 0])
    towards = np.where(labels[:, None] == 0, towards, -towards)
    best = np.clip(
        IMAGES + np.float32(0.1) * towards.reshape(-1, 4, 4, 1), 0, 1
    )
    np.testing.assert_allclose(adversarial, best, atol=1e-6)


@pytest.mark.parametrize("objective", ["cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize("steps", [3, 20])
def test_stays_inside_the_threat_model_exactly(objective, steps):
    adversarial = attacks.pgd(
        linear, IMAGES, LABELS, THREAT, steps=steps, objective=objective
    )
    assert inside(adversarial)


def test_eager_and_compiled_steps_agree():
    attack = functools.partial(
        attacks.pgd, linear, IMAGES, LABELS, THREAT, steps=5, seed=3
    )
    np.testing.assert_array_equal(attack(), tf.function(attack)())


def test_momentum_adds_gradients_over_their_l1_norm():
    # First along (1, 1, 1, 1), then along (2, -1, 0, 0): the sum is
    # (1/4 + 2/3, 1/4 - 1/3, 1/4, 1/4). By the l2 norm the second would be
    # 1/2 - 1 / sqrt(5), above 0.
    def classify(images):
        score = tf.where(
            tf.reduce_sum(images, 1) < 2.05,
            tf.reduce_sum(images, 1),
            2.0 * images[:, 0] - images[:, 1],
        )
        return tf.stack([tf.fill(tf.shape(score), 9.0), score], axis=1)

    found = attacks.MomentumPGD(steps=2, step_size=0.03)(
        classify, tf.fill([1, 4], 0.5), tf.constant([0]), THREAT
    )
    np.testing.assert_allclose(found, [[0.56, 0.5, 0.56, 0.56]], rtol=1e-6)


def test_momentum_forgets_a_gradient_that_is_no_number():
    # The slope of the first pixel, that of sqrt |x| at 0, is no number until
    # the second has moved.
    def classify(images):
        beyond = images[:, 0] + tf.stop_gradient(images[:, 1]) - 1.0
        score = tf.reduce_sum(images, 1) + tf.sqrt(tf.abs(beyond))
        return tf.stack([tf.fill(tf.shape(score), 9.0), score], axis=1)

    images, label = tf.fill([1, 3], 0.5), tf.constant([0])
    slope, _, _ = gradient.input_gradient(classify, images, label)
    np.testing.assert_array_equal(np.isnan(slope), [[True, False, False]])
    found = attacks.MomentumPGD(steps=3, step_size=0.02)(
        classify, images, label, THREAT
    )
    np.testing.assert_allclose(found, [[0.54, 0.56, 0.56]], rtol=1e-6)


def test_a_seed_per_example_survives_re_packing():
    seeds = np.stack([np.full(12, 9), np.arange(12)], axis=1)
    attack = functools.partial(attacks.pgd, linear, threat=THREAT, steps=2)
    whole = attack(IMAGES, LABELS, seed=tf.constant(seeds)).numpy()
    order = [7, 2, 11]
    part = attack(IMAGES[order], LABELS[order], seed=tf.constant(seeds[order]))
    np.testing.assert_array_equal(part, whole[order])
    # An integer seed numbers the examples of the batch.
    np.testing.assert_array_equal(attack(IMAGES, LABELS, seed=9), whole)
    assert np.abs(attack(IMAGES, LABELS, seed=8) - whole).max() > 0.01
    fresh = attack(IMAGES, LABELS), attack(IMAGES, LABELS)
    assert np.abs(fresh[0] - fresh[1]).max() > 0.01


def rounds_of_seeds(count):
    """The seeds of some rounds: the examples' own, then folded numbers."""
    first = [(9, example) for example in range(len(IMAGES))]
    later = [
        [tuple(splitmix.fold(part, number) for part in seed) for seed in first]
        for number in range(1, count)
    ]
    return np.array([first, *later])


def test_rounds_of_an_evaluation_start_from_noise_of_their_own():
    attack = projected.PGD(restarts=3).on(linear, THREAT, 3)
    rounds = rounds_of_seeds(3)
    low = np.maximum(IMAGES - np.float32(0.1), 0)
    high = np.minimum(IMAGES + np.float32(0.1), 1)
    for number, seeds in enumerate(rounds):
        start = attack.begin(IMAGES, LABELS, tf.constant(rounds[0]), number)
        draws = np.stack([splitmix.uniform(*seed, 16) for seed in seeds])
        noise = 0.1 * (2 * draws - 1).reshape(IMAGES.shape)
        np.testing.assert_allclose(
            start["adversarial"],
            np.clip(IMAGES + noise, low, high),
            atol=1e-6,
        )


def rising(images):
    """Two pixels: of class 1 before class 0, -2 of the one, 3 of the other."""
    return images @ tf.constant([[1.0, -1.0], [-1.0, 2.0]])


def test_a_call_looks_at_the_last_iterate():
    # x^(0) of APGD is the best iterate that a step has looked at; x^(1), two
    # epsilon on and projected, breaks: -1.6 + 0.9 + 1.35 > 0.
    images, label = tf.constant([[0.8, 0.0]]), tf.constant([0])
    model = threat.ThreatModel(epsilon=0.45)
    attack = attacks.APGD(steps=1)
    found = attack(rising, images, label, model, seed=0)
    np.testing.assert_allclose(found, [[0.35, 0.45]], rtol=1e-6)
    # Out of its reach the best that was looked at is handed over.
    firm = lambda x: rising(x) + [[1.0, 0.0]]  # noqa: E731
    start = attack.on(firm, model, 2).begin(
        images, label, given.example_seeds(0, images)
    )
    np.testing.assert_array_equal(
        attack(firm, images, label, model, seed=0), start["adversarial"]
    )


def test_a_call_keeps_the_first_start_that_breaks():
    # The best of a start, one step of nearly nothing, is where it began.
    attack = projected.PGD(1, 1e-6, restarts=3)
    bound = attack.on(linear, THREAT, 3)
    seeds = rounds_of_seeds(3)
    starts = np.stack(
        [
            bound.begin(IMAGES, LABELS, tf.constant(seeds[0]), number)[
                "adversarial"
            ]
            for number in range(3)
        ]
    )
    broken = np.stack([np.argmax(linear(x), axis=1) != LABELS for x in starts])
    # The first that breaks, else the last.
    chosen = np.where(broken.any(axis=0), broken.argmax(axis=0), 2)
    assert len(set(chosen)) > 1
    found = attack(linear, IMAGES, LABELS, THREAT, seed=9)
    expected = starts[chosen, np.arange(len(IMAGES))]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "attack",
    [
        attacks.FGSM(),
        attacks.PGD(steps=30),
        attacks.PGD(steps=30, objective="margin"),
        attacks.CW(steps=30),
        attacks.MomentumPGD(),
        attacks.APGD(steps=30),
        attacks.Square(queries=300),
        attacks.SPSA(steps=40, samples=16, learning_rate=0.05),
    ],
    ids=str,
)
def test_a_target_class_is_reached(attack):
    # Wide enough for every class of a linear network to win somewhere.
    model = threat.ThreatModel(epsilon=0.7)
    near = 0.4 + 0.2 * IMAGES[:6]
    for target in (2, tf.constant([0, 1, 2, 0, 1, 2])):
        found = attack(linear, near, LABELS[:6], model, seed=1, target=target)
        assert inside(found, near, 0.7)
        classes = np.argmax(linear(found), axis=1)
        np.testing.assert_array_equal(classes, np.broadcast_to(target, 6))


def test_towards_a_target_by_hand():
    # The optimum of the margin of class 0 of two: each pixel at its bound.
    found = attacks.PGD(steps=20, objective="margin")(
        rising,
        tf.constant([[0.5, 0.5], [0.2, 0.95]]),
        tf.constant([1, 1]),
        THREAT,
        target=0,
    )
    np.testing.assert_allclose(found, [[0.6, 0.4], [0.3, 0.85]], rtol=1e-6)
    logits = tf.constant([[3.0, 1.0, 0.0, -90.0]] * 2)
    targets = tf.constant([0, 3])
    for name, values in [
        ("margin", [2.0, -93.0]),
        ("cross_entropy", -losses.soft_margin(targets, logits)),
    ]:
        climbed = objectives.objective(name, targeted=True)
        np.testing.assert_allclose(climbed(targets, logits), values, rtol=1e-6)


@pytest.mark.parametrize(
    "attack, target, message",
    [
        (attacks.TargetedAPGD(), 0, "TargetedAPGD takes no target class"),
        (attacks.AutoAttack(), 0, "AutoAttack takes no target class"),
        (attacks.PGD(), 3, "target is 3; expected a class from 0 to 2"),
        (attacks.PGD(), np.full(12, 7), "target is 7; expected a class from"),
        (attacks.PGD(), 1.0, "target is float32 of shape .*; expected a cla"),
        (attacks.PGD(), np.eye(3, dtype=int)[LABELS], r", 3\); expected a "),
        (attacks.PGD(objective="dlr"), 0, "dlr knows no target class"),
        (attacks.PGD(objective=attacks.dlr), 0, "dlr knows no target class"),
    ],
    ids=str,
)
def test_refuses_a_target(attack, target, message):
    with pytest.raises(ValueError, match=message):
        attack(linear, IMAGES, LABELS, THREAT, target=target)


def test_an_ensemble_runs_each_part_on_what_is_left(monkeypatch):
    # Fewer queries: none of them is compiled here.
    square = functools.partial(attacks.Square, queries=50)
    monkeypatch.setitem(autoattack.PARTS, "square", square)
    attack = attacks.AutoAttack("custom", ("apgd_ce", "square"))
    found = attack(linear, IMAGES, LABELS, THREAT, seed=0)
    alone = attacks.APGD()(linear, IMAGES, LABELS, THREAT, seed=0).numpy()
    broken = np.argmax(linear(alone), axis=1) != LABELS
    assert 0 < broken.sum() < len(broken)
    np.testing.assert_array_equal(found[broken], alone[broken])
    assert inside(found)


def test_a_radius_per_example():
    radius = tf.constant([0.0, 0.05] * 6)
    adversarial = attacks.pgd(
        linear, IMAGES, LABELS, THREAT, steps=3, epsilon=radius, seed=0
    )
    np.testing.assert_array_equal(adversarial[::2], IMAGES[::2])
    assert inside(adversarial[1::2], IMAGES[1::2], 0.05)


def test_objectives_by_hand():
    logits = tf.constant([[3.0, 1.0, 0.0, -1.0]])
    label = tf.constant([0])
    np.testing.assert_allclose(attacks.margin(label, logits), [-2.0])
    # -(3 - 1) / (3 - 0)
    np.testing.assert_allclose(attacks.dlr(label, logits), [-2 / 3], rtol=1e-6)
    label = tf.constant([3])
    np.testing.assert_allclose(attacks.margin(label, logits), [4.0])
    np.testing.assert_allclose(attacks.margin(label, logits, kappa=0.0), [0.0])
    np.testing.assert_allclose(attacks.dlr(label, logits), [4 / 3], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_dlr_takes_logits_of_any_precision(dtype):
    logits = tf.cast([[3.0, 1.0, 0.0, -1.0]], dtype)
    found = attacks.dlr(tf.constant([0]), logits)
    np.testing.assert_allclose(found, [-2 / 3], rtol=1e-6)


def test_dlr_of_equal_logits_is_0():
    # 0 / (0 + 1e-12): neither value nor gradient is 0 / 0.
    flat, label = tf.fill([1, 4], 0.5), tf.constant([1])
    for objective in (
        attacks.dlr,
        functools.partial(objectives.targeted_dlr, targets=tf.constant([2])),
    ):
        with tf.GradientTape() as tape:
            tape.watch(flat)
            value = objective(label, flat)
        np.testing.assert_array_equal(value, [0.0])
        slope = tape.gradient(value, flat).numpy()
        assert np.isfinite(slope).all()
        assert slope[0, 1] < 0.0


def test_soft_margin_by_hand():
    # p = (1/2, 1/4, 1/4): log (1/4 + 1/4) / (1/2), log (1/2 + 1/4) / (1/4).
    logits = tf.math.log([[0.5, 0.25, 0.25]] * 2)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = losses.soft_margin(tf.constant([0, 1]), logits)
    np.testing.assert_allclose(values, [0.0, np.log(3)], atol=1e-6)
    # -1 for the label, the others by their share: it never saturates.
    gradient = tape.gradient(values, logits)
    np.testing.assert_allclose(
        gradient, [[-1.0, 0.5, 0.5], [2 / 3, -1.0, 1 / 3]], atol=1e-6
    )


def test_what_is_climbed_orders_points_as_the_cross_entropy():
    logits = linear(IMAGES)
    climbed = attacks.objective("cross_entropy")(LABELS, logits)
    log_p = scipy.special.log_softmax(np.float64(logits), axis=1)
    entropy = -log_p[np.arange(12), LABELS]
    np.testing.assert_allclose(tf.math.softplus(climbed), entropy, rtol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [
        attacks.fgsm,
        functools.partial(attacks.pgd, random_start="none"),
        attacks.MomentumPGD(),
        attacks.APGD(),
    ],
)
def test_no_confidence_is_too_great(norm, attack):
    # p_y rounds to 1 for all examples, so that the cross-entropy is 0; the
    # first of two classes is left along w_1 - w_0 = (-2, 3).
    weights = tf.constant([[1.0, -1.0], [-1.0, 2.0]])
    images = tf.constant([[0.5, 0.2], [0.6, 0.3]])
    threats = {"linf": THREAT, "l2": threat.ThreatModel("l2", 0.1)}
    adversarial = attack(
        lambda x: 1e4 * (x @ weights),
        images,
        tf.constant([0, 0]),
        threats[norm],
    )
    steps = {"linf": [-0.1, 0.1], "l2": [-0.2 / 13**0.5, 0.3 / 13**0.5]}
    np.testing.assert_allclose(adversarial, images + steps[norm], atol=1e-4)


def test_attacks_leave_the_network_as_it_was():
    network = keras.Sequential(
        [
            keras.Input([4, 4, 1]),
            keras.layers.Conv2D(2, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    before = [np.array(v.value) for v in network.variables]
    classify = functools.partial(network, training=False)
    attacks.pgd(classify, IMAGES, LABELS, THREAT, steps=3)
    attacks.fgsm(classify, IMAGES, LABELS, THREAT)
    for variable, old in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, old)


def test_differentiates_with_respect_to_images_only():
    watched = []
    variable = tf.Variable(WEIGHTS)

    def classify(images):
        logits = tf.reshape(images, [-1, 16]) @ variable
        watched.append(variable.trainable)
        return logits

    with tf.GradientTape() as tape:
        adversarial = attacks.pgd(classify, IMAGES, LABELS, THREAT, steps=2)
        total = tf.reduce_sum(adversarial)
    assert watched
    # x' is a constant of the outer loss.
    assert tape.gradient(total, variable) is None


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "Attack steps is 0"),
        ({"steps": 2.5}, "whole number"),
        ({"step_size": 0.0}, "step size is 0.0"),
        ({"objective": "crossentropy"}, "did you mean 'cross_entropy'"),
        ({"random_start": "unifrom"}, "did you mean 'uniform'"),
    ],
)
def test_refuses_in_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        attacks.pgd(linear, IMAGES, LABELS, THREAT, **settings)


@pytest.mark.parametrize("attack", [attacks.fgsm, attacks.pgd])
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epsilon": -0.1}, "epsilon is -0.1; expected a finite number of at"),
        ({"epsilon": np.nan}, "epsilon is nan; expected a finite number of at"),
        ({"epsilon": [0.1, 0.2]}, r"epsilon has shape \(2,\) for images of sh"),
        ({"seed": 2**63}, "seed is 9223372036854775808; expected a whole numb"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to 214748"),
        (
            {"seed": np.arange(12)},
            r"seed is int64 of shape \(12,\); expected an",
        ),
        ({"seed": 0.5}, r"seed is float32 of shape \(\); expected an integer"),
    ],
)
def test_refuses_a_radius_and_a_seed_that_are_none(attack, settings, message):
    with pytest.raises(ValueError, match=message):
        attack(linear, IMAGES, LABELS, THREAT, **settings)


@pytest.mark.parametrize("attack", [attacks.fgsm, attacks.pgd])
def test_radius_and_seed_may_be_of_any_kind(attack):
    threat_255 = threat.ThreatModel(epsilon=3.0, pixel_max=255.0)
    images = np.full([2, 4, 4, 1], 99.0)
    labels = np.zeros(2, "uint16")
    by_hand = [np.full([4, 4, 1], 1.0), np.full([4, 4, 1], 2.0)]
    for epsilon in ([1, 2], np.array([1.0, 2.0]), tf.constant([1, 2])):
        found = attack(
            linear,
            images,
            labels,
            threat_255,
            epsilon=epsilon,
            seed=[[1, 2], [3, 4]],
        )
        np.testing.assert_allclose(np.abs(found - images), by_hand, rtol=1e-5)


def test_dlr_needs_three_classes():
    with pytest.raises(ValueError, match="at least 3 classes, got 2"):
        attacks.dlr(tf.constant([0]), tf.constant([[1.0, 2.0]]))


@pytest.mark.parametrize(
    "attack",
    [
        attacks.fgsm,
        attacks.pgd,
        functools.partial(attacks.pgd, objective="margin"),
        autoattack.AutoAttack(),
    ],
)
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (255 * IMAGES, LABELS, r"images lie in \[.*\]; expected floats in \[0"),
        (IMAGES - 0.5, LABELS, "give ThreatModel their pixel_min and pixel_m"),
        (np.full_like(IMAGES, np.nan), LABELS, "hold NaN or infinite pixels"),
        (IMAGES, LABELS[:, None], r"labels are int32 of shape \(12, 1\); exp"),
        (IMAGES, np.eye(3, dtype="int32")[LABELS], r"integer classes, \[bat"),
        (IMAGES, LABELS[:1], "There are 12 images and 1 labels; expected one"),
        (IMAGES, LABELS + 2, "labels hold 4; the network has 3 outputs, so ex"),
        (IMAGES, -1 - LABELS, "labels hold -.; the network has 3 outputs, so "),
    ],
)
def test_refuses_images_and_labels(attack, images, labels, message):
    with pytest.raises(ValueError, match=message):
        attack(linear, images, labels, THREAT)


@pytest.mark.parametrize(
    "make",
    [
        lambda: attacks.CW(kappa=float("nan")),
        lambda: attacks.MomentumPGD(decay=-1.0),
        lambda: attacks.CarliniWagnerL2(confidence=float("nan")),
    ],
)
def test_settings_that_would_attack_nothing_are_refused(make):
    with pytest.raises(ValueError, match="expected a number from 0"):
        make()


def test_the_stationary_attack_takes_arrays():
    images, labels = IMAGES.astype("float64"), LABELS.astype("uint16")
    found, fosc = attacks.pgd_until_stationary(
        linear, images, labels, THREAT, criterion=0.0, random_start="none"
    )
    assert inside(found)
    # epsilon ||g||_1 - <x' - x, g>, g that of the cross-entropy.
    flat = found.numpy().reshape(12, 16).astype("float64")
    truth = np.eye(3)[LABELS]
    slope = (scipy.special.softmax(flat @ WEIGHTS, 1) - truth) @ WEIGHTS.T
    gained = ((flat - images.reshape(12, 16)) * slope).sum(1)
    expected = 0.1 * np.abs(slope).sum(1) - gained
    np.testing.assert_allclose(fosc, expected, atol=1e-5)


def test_a_gradient_is_taken_at_arrays():
    slope, values, logits = attacks.input_gradient(
        linear,
        IMAGES.astype("float64"),
        LABELS,
        lambda labels, logits: logits[:, 0],
    )
    expected = np.broadcast_to(WEIGHTS[:, 0].reshape(4, 4, 1), IMAGES.shape)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
    np.testing.assert_array_equal(values, logits[:, 0])


def test_settings_of_the_stationary_attack():
    def stop(**settings):
        attacks.pgd_until_stationary(
            linear, IMAGES, LABELS, THREAT, criterion=0.1, **settings
        )

    with pytest.raises(ValueError, match="Unknown reference 'rnage'"):
        stop(reference="rnage")
    with pytest.raises(ValueError, match="step size is inf"):
        stop(step_size=float("inf"))
