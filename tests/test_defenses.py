"""Each defense's training step, worked out in numpy, on 1 and 2 replicas."""

import fractions
import functools
import inspect
import warnings

import keras
import linear
import numpy as np
import pytest
import scipy.special
import sklearn.datasets
import splitmix
import tensorflow as tf

import mart_tf
from mart_tf import attacks
from mart_tf import defenses
from mart_tf import losses
from mart_tf import noise
from mart_tf.defenses import base
from mart_tf.runs import devices
from mart_tf.training import memory

TRUTH = linear.one_hot(linear.LABELS)


def assert_step(strategy, defense, expected, **settings):
    mine = linear.train_once(strategy, defense, **settings)
    for weights, by_hand in zip(mine, expected, strict=True):
        np.testing.assert_allclose(weights, by_hand, atol=1e-6)


def probabilities(adversarial):
    """p(x) and p(x')."""
    return linear.softmax_of(linear.IMAGES), linear.softmax_of(adversarial)


def divergence_parts(p, q):
    """dKL(p || q)/dz at the natural and the adversarial logits."""
    ratio = np.log(p / q)
    return p * (ratio - (p * ratio).sum(1, keepdims=True)), q - p


def distance_parts(p, q):
    """d||q - p||^2/dz at the natural and the adversarial logits."""
    gap = 2 * (q - p)
    return (
        -p * (gap - (p * gap).sum(1, keepdims=True)),
        q * (gap - (q * gap).sum(1, keepdims=True)),
    )


def mart_by_hand(adversarial, regularization):
    """dL/dz of equation 11 at the natural and the adversarial logits."""
    p, q = linear.softmax_of(linear.IMAGES), linear.softmax_of(adversarial)
    rows, truth = np.arange(linear.EXAMPLES), linear.one_hot(linear.LABELS)
    strongest = linear.one_hot(np.where(truth == 1, -1.0, q).argmax(1))
    others = np.where(strongest == 1, 0.0, q)
    rest = others.sum(1, keepdims=True)
    boosted = (q - truth) + (1 - rest) * (strongest - others / rest)
    ratio = np.log(p / q)
    divergence = (p * ratio).sum(1, keepdims=True)
    true_class = p[rows, linear.LABELS][:, None]
    weight = regularization * (1 - true_class)
    natural_part = weight * p * (ratio - divergence)
    natural_part -= regularization * divergence * true_class * (truth - p)
    return natural_part, boosted + weight * (q - p)


def test_standard_step_equals_the_closed_form(strategy):
    adversarial = linear.attack_by_hand(linear.ROWS)
    expected = linear.update(
        0.0,
        linear.softmax_of(adversarial) - linear.one_hot(linear.LABELS),
        adversarial,
    )
    for mine, by_hand in zip(
        linear.train_once(strategy, "standard"), expected, strict=True
    ):
        np.testing.assert_allclose(mine, by_hand, atol=1e-6)


def test_mart_step_equals_the_closed_form(strategy):
    adversarial = linear.attack_by_hand(linear.ROWS)
    expected = linear.update(*mart_by_hand(adversarial, 4.0), adversarial)
    mine = linear.train_once(strategy, "mart:regularization=4")
    for weights, by_hand in zip(mine, expected, strict=True):
        np.testing.assert_allclose(weights, by_hand, atol=1e-6)


def test_a_step_with_smoothed_labels_equals_the_closed_form(strategy):
    # The attack climbs the cross-entropy of the labels as they are.
    adversarial = linear.attack_by_hand(linear.ROWS)
    target = 0.7 * linear.one_hot(linear.LABELS) + 0.3 / linear.CLASSES
    expected = linear.update(
        0.0, linear.softmax_of(adversarial) - target, adversarial
    )
    mine = linear.train_once(strategy, "standard", label_smoothing=0.3)
    for weights, by_hand in zip(mine, expected, strict=True):
        np.testing.assert_allclose(weights, by_hand, atol=1e-6)


# Of each defense the share of CE(p(x), y) and of CE(p(x'), y) in its loss.
SMOOTHED = {
    "natural": (1, 0),
    "standard": (0, 1),
    "alp": (0, 1),
    "clp": (1, 0),
    "trades": (1, 0),
    "mma": (1 / 3, 2 / 3),
    "dynamic": (0, 1),
    "mart": (0, 1),
    "mart:outer=ce": (0, 1),
    "mart:outer=bce_natural": (1, 0),
    "uat": (0, 1),
    "fgsm_rs": (0, 1),
    "nfgsm": (0, 1),
}


@pytest.mark.parametrize("spec", SMOOTHED)
def test_smoothing_reaches_the_cross_entropies_of_every_defense(spec):
    images = [linear.IMAGES, linear.IMAGES[::-1].copy()]
    logits = [x @ linear.KERNEL + linear.BIAS for x in images]
    places = np.arange(linear.EXAMPLES)
    leads = [z[places, linear.LABELS] - z.mean(1) for z in logits]
    defense = defenses.get(spec)
    values = []
    for smoothing in (0.0, 0.3):
        batch = defenses.Batch(
            *(images[0], linear.LABELS, None, places, None, {}), smoothing
        )
        attacked = defenses.Adversarial(images[1])
        found = defense.loss(
            lambda x: x @ linear.KERNEL + linear.BIAS, batch, attacked
        )
        values.append(found.values)
    natural, adversarial = SMOOTHED[spec]
    expected = 0.3 * (natural * leads[0] + adversarial * leads[1])
    np.testing.assert_allclose(values[1] - values[0], expected, atol=1e-5)


def test_every_defense_smooths_labels_and_says_so():
    names = {spec.split(":")[0] for spec in SMOOTHED} | {"subset"}
    assert names == defenses.DEFENSES.keys()
    assert all(defenses.get(name).smooths_labels for name in SMOOTHED)
    assert defenses.Subset.smooths_labels


@keras.saving.register_keras_serializable(package="test_defenses")
class Deaf(defenses.Defense):
    """Takes its labels as they are."""

    def loss(self, classify, batch, adversarial):
        logits = classify(adversarial.image)
        return defenses.Losses(losses.cross_entropy(batch.label, logits))


@pytest.mark.parametrize(
    "defense, smoothing, message",
    [
        (Deaf(), 0.1, "the loss of Deaf does not say that it heeds it"),
        ("mart", 1.0, "label_smoothing is 1.0; expected a number of at least"),
        ("mart", -0.1, "label_smoothing is -0.1; expected"),
        ("mart", float("nan"), "label_smoothing is nan; expected"),
        ("mart", "0.1", "label_smoothing is '0.1'; expected"),
    ],
)
def test_refuses_smoothing_that_cannot_be(defense, smoothing, message):
    with pytest.raises(ValueError, match=message):
        mart_tf.AdversarialClassifier(
            linear.linear_network(),
            defense,
            linear.THREAT,
            label_smoothing=smoothing,
        )


def test_own_losses_of_every_forward_pass_count(strategy):
    activity, kernel = 0.3, 0.02

    def regularized_network():
        return linear.linear_network(
            activity_regularizer=keras.regularizers.L2(activity),
            kernel_regularizer=keras.regularizers.L2(kernel),
        )

    images = [linear.IMAGES, linear.attack_by_hand(linear.ROWS)]
    expected = linear.update(*mart_by_hand(images[1], 4.0), images[1])
    # activity * mean over the examples of ||z||^2, of both passes.
    logits = [x @ linear.KERNEL + linear.BIAS for x in images]
    parts = [2 * activity / linear.EXAMPLES * z for z in logits]
    for x, part in zip(images, parts, strict=True):
        expected[0] -= linear.RATE * x.T @ part
        expected[1] -= linear.RATE * part.sum(axis=0)
    # kernel * ||W||^2, once.
    expected[0] -= linear.RATE * 2 * kernel * linear.KERNEL
    model, logs = linear.train(
        strategy, "mart:regularization=4", make=regularized_network
    )
    for weights, by_hand in zip(
        model.classifier.get_weights(), expected, strict=True
    ):
        np.testing.assert_allclose(weights, by_hand, atol=1e-6)
    _, plain = linear.train(strategy, "mart:regularization=4")
    own = sum(activity * (z**2).sum() / linear.EXAMPLES for z in logits)
    own += kernel * (linear.KERNEL**2).sum()
    np.testing.assert_allclose(
        logs["loss"][0] - plain["loss"][0], own, rtol=1e-5
    )


def test_natural_step_equals_the_closed_form(strategy):
    expected = linear.update(
        linear.softmax_of(linear.IMAGES) - linear.one_hot(linear.LABELS),
        0.0,
        linear.IMAGES,
    )
    for mine, by_hand in zip(
        linear.train_once(strategy, "natural"), expected, strict=True
    ):
        np.testing.assert_allclose(mine, by_hand, atol=1e-6)


def test_without_rows_the_noise_belongs_to_the_place_in_the_batch(strategy):
    adversarial = linear.attack_by_hand(range(linear.EXAMPLES))
    expected = linear.update(*mart_by_hand(adversarial, 5.0), adversarial)
    mine = linear.train_once(strategy, "mart", index=False)
    for weights, by_hand in zip(mine, expected, strict=True):
        np.testing.assert_allclose(weights, by_hand, atol=1e-6)


def test_trades_step_equals_the_closed_form(strategy):
    p = linear.softmax_of(linear.IMAGES)
    # The divergence from a fixed p(x) is what the attack climbs.
    adversarial = linear.attack_by_hand(
        linear.ROWS, lambda x: linear.softmax_of(x) - p
    )
    natural, other = divergence_parts(*probabilities(adversarial))
    expected = linear.update(p - TRUTH + 3 * natural, 3 * other, adversarial)
    assert_step(strategy, "trades:regularization=3", expected)


def test_uat_step_equals_the_closed_form(strategy):
    adversarial = linear.attack_by_hand(linear.ROWS)
    _, q = probabilities(adversarial)
    natural, other = divergence_parts(*probabilities(adversarial))
    expected = linear.update(3 * natural, q - TRUTH + 3 * other, adversarial)
    assert_step(strategy, "uat:regularization=3", expected)


def test_alp_step_equals_the_closed_form(strategy):
    adversarial = linear.attack_by_hand(linear.ROWS)
    _, q = probabilities(adversarial)
    natural, other = distance_parts(*probabilities(adversarial))
    expected = linear.update(2 * natural, q - TRUTH + 2 * other, adversarial)
    assert_step(strategy, "alp:regularization=2", expected)


def test_clp_step_equals_the_closed_form(strategy):
    adversarial = linear.attack_by_hand(linear.ROWS)
    p, _ = probabilities(adversarial)
    natural, other = distance_parts(*probabilities(adversarial))
    expected = linear.update(p - TRUTH + 2 * natural, 2 * other, adversarial)
    assert_step(strategy, "clp:regularization=2", expected)


def test_mart_without_a_second_term_equals_the_closed_form(strategy):
    # BCE of x' alone, Figure 2a's curve without both.
    adversarial = linear.attack_by_hand(linear.ROWS)
    _, boosted = mart_by_hand(adversarial, 0.0)
    expected = linear.update(0.0, boosted, adversarial)
    assert_step(strategy, "mart:divergence=false:weighting=none", expected)


NATURAL, ADVERSARIAL = linear.IMAGES, 1.0 - linear.IMAGES


@pytest.mark.parametrize(
    "defense, expected",
    [
        ("natural", [NATURAL]),
        ("standard", [ADVERSARIAL]),
        ("trades", [NATURAL, ADVERSARIAL]),
        ("mart", [NATURAL, ADVERSARIAL]),
        ("mart:divergence=false", [NATURAL, ADVERSARIAL]),
        ("mart:divergence=false:weighting=none", [ADVERSARIAL]),
        ("mart:divergence=false:weighting=hard:outer=ce", [ADVERSARIAL]),
        ("mart:regularization=0", [ADVERSARIAL]),
        ("mart:regularized_fraction=0", [ADVERSARIAL]),
        ("mart:regularized_fraction=0.5", [NATURAL, ADVERSARIAL]),
        ("mart:outer=bce_natural", [NATURAL, ADVERSARIAL]),
        ("mart:outer=bce_natural:divergence=false", [NATURAL]),
        ("mart:outer=bce_natural:regularization=0", [NATURAL]),
    ],
)
def test_a_loss_runs_the_passes_it_needs_and_no_others(defense, expected):
    seen = []

    def classify(images):
        seen.append(images)
        return images @ linear.KERNEL + linear.BIAS

    batch = base.Batch(
        NATURAL, linear.LABELS, None, linear.ROWS, seeds=None, memory={}
    )
    defense = defenses.get(defense)
    losses = defense.loss(classify, batch, base.Adversarial(ADVERSARIAL))
    assert len(seen) == len(expected)
    for images, by_hand in zip(seen, expected, strict=True):
        assert images is by_hand
    assert np.isfinite(losses.values).all()
    assert (losses.natural_logits is None) != any(x is NATURAL for x in seen)
    assert (losses.adversarial_logits is None) != any(
        x is ADVERSARIAL for x in seen
    )


def test_mart_of_natural_images_alone_attacks_nothing():
    def classify(images):
        raise AssertionError("There is nothing to attack.")

    batch = base.Batch(
        NATURAL, linear.LABELS, None, linear.ROWS, seeds=None, memory={}
    )
    mart = defenses.MART(outer="bce_natural", regularization=0.0)
    assert mart.attack(classify, batch, None).image is NATURAL
    assert mart.describe_attack(10, 0.1, "uniform") == "none in training"


@pytest.mark.parametrize("spec", SMOOTHED)
def test_the_ramp_reaches_the_attacks_that_say_so(spec):
    defense = defenses.get(spec)
    memory = {
        name: tf.fill([linear.EXAMPLES], value)
        for name, value in defense.memory(linear.THREAT).items()
    }
    batch = base.Batch(
        tf.constant(linear.IMAGES),
        tf.constant(linear.LABELS),
        tf.ones(linear.EXAMPLES),
        tf.constant(linear.ROWS),
        noise.seeds(0, tf.constant(linear.ROWS)),
        memory,
    )
    found = [
        defense.attack(
            lambda x: x @ linear.KERNEL + linear.BIAS,
            batch,
            base.InnerAttack(
                linear.THREAT,
                *(2, 0.02, share * linear.THREAT.epsilon, "uniform"),
                tf.constant(0.0),
            ),
        ).image
        for share in (1.0, 0.5)
    ]
    moved = np.abs(found[0] - linear.IMAGES).max() > 0
    assert moved == defense.attacks
    assert (found[0] != found[1]).numpy().any() == (
        defense.attacks and defense.reads_epsilon
    )


class Curriculum(defenses.Standard):
    """An epsilon that grows over ten epochs, and is logged."""

    measures = ("epsilon",)

    def attack(self, classify, batch, inner):
        epsilon = inner.epsilon * (inner.epoch + 1.0) / 10.0
        found = super().attack(classify, batch, inner._replace(epsilon=epsilon))
        return found._replace(
            measures={"epsilon": tf.fill([linear.EXAMPLES], epsilon)}
        )


def test_a_defense_of_ones_own_may_count_with_the_epoch():
    _, logs = linear.train(devices.strategy("single"), Curriculum(), epochs=3)
    np.testing.assert_allclose(logs["epsilon"], [0.02, 0.04, 0.06], rtol=1e-6)


class Column(defenses.Standard):
    """A loss of shape [batch, 1], which [batch] weights would square."""

    def loss(self, classify, batch, adversarial):
        found = super().loss(classify, batch, adversarial)
        return found._replace(values=found.values[:, None])


def test_a_loss_that_is_no_value_an_example_is_refused():
    one = devices.strategy("single")
    with pytest.raises(
        ValueError, match=r"Column has values of shape \(.*, 1\)"
    ):
        linear.train_once(one, Column())


@pytest.mark.parametrize(
    "value", [10**400, fractions.Fraction(10**20), "5", None, True, np.ones(1)]
)
def test_what_is_no_number_that_floats_hold_is_refused(value):
    with pytest.raises(ValueError, match="regularization is .*; expected a nu"):
        defenses.MART(regularization=value)
    with pytest.raises(ValueError, match="Attack steps is .*; expected a who"):
        attacks.PGD(steps=value)


def test_a_choice_by_what_no_validation_logs_is_refused():
    chosen = defenses.Standard()
    chosen.selects_by = "accuracy"
    with pytest.raises(ValueError, match="selects_by is 'accuracy'; expected"):
        mart_tf.AdversarialClassifier(
            linear.linear_network(), chosen, linear.THREAT, 1
        )


def test_mart_with_the_divergence_inside(strategy):
    p = linear.softmax_of(linear.IMAGES)
    adversarial = linear.attack_by_hand(
        linear.ROWS, lambda x: linear.softmax_of(x) - p
    )
    expected = linear.update(*mart_by_hand(adversarial, 4.0), adversarial)
    assert_step(strategy, "mart:regularization=4:inner=kl", expected)


def test_mart_regularizes_a_fixed_share(strategy):
    adversarial = linear.attack_by_hand(linear.ROWS)
    draws = np.concatenate(
        [splitmix.uniform(0x534841, int(row), 1) for row in linear.ROWS]
    )
    chosen = (draws < 0.5).astype("float32")[:, None]
    assert 0 < chosen.sum() < linear.EXAMPLES
    expected = linear.update(
        *mart_by_hand(adversarial, 4.0 * chosen), adversarial
    )
    assert_step(
        strategy, "mart:regularization=4:regularized_fraction=0.5", expected
    )


def test_the_share_is_as_large_as_asked_for():
    mart = defenses.MART(regularized_fraction=0.3)
    chosen = mart._regularization_of(tf.range(50_000, dtype=tf.int64)) > 0
    assert np.mean(chosen) == pytest.approx(0.3, abs=0.01)


def test_evaluation_regularizes_every_example():
    # Rows of another split are no rows of the share: -1 is not drawn for.
    fraction = 0.05
    assert splitmix.uniform(0x534841, -1, 1) > fraction
    losses = []
    for options in ("", f":regularized_fraction={fraction}"):
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(), f"mart{options}", linear.THREAT, 2
        )
        model.compile("sgd", run_eagerly=True)
        inputs = {"image": linear.IMAGES, "index": linear.ROWS}
        logs = model.evaluate(
            inputs, linear.LABELS, verbose=0, return_dict=True
        )
        losses.append(logs["loss"])
    assert losses[0] == losses[1]


def natural_and_shifted():
    """The batch of `linear`, without memory, and x + 0.25 for its x'."""
    batch = base.Batch(
        image=tf.constant(linear.IMAGES),
        label=tf.constant(linear.LABELS),
        weight=tf.ones([linear.EXAMPLES]),
        example=tf.constant(linear.ROWS),
        seeds=noise.seeds(splitmix.fold(linear.SEED, 0), linear.ROWS),
        memory={},
    )
    return batch, base.Adversarial(batch.image + 0.25)


@pytest.mark.parametrize("fraction", [0, 1])
def test_a_share_of_all_or_none_needs_no_rows(fraction):
    batch, adversarial = natural_and_shifted()
    values = []
    for options in (
        f"regularization=4:regularized_fraction={fraction}",
        f"regularization={4 * fraction}",
    ):
        defense = defenses.get(f"mart:{options}")
        assert not defense.needs_rows
        losses = defense.loss(linear.linear_network(), batch, adversarial)
        values.append(losses.values)
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize(
    "defense", ["mart", "alp", "clp", "trades", "uat", "mma"]
)
def test_natural_images_pass_first_and_apart(defense):
    # A running mean that halves with each batch is nearer to the last one.
    norm = keras.layers.BatchNormalization(momentum=0.5)
    network = keras.Sequential(
        [keras.Input([linear.PIXELS]), norm, keras.layers.Dense(linear.CLASSES)]
    )
    defenses.get(defense).loss(
        functools.partial(network, training=True), *natural_and_shifted()
    )
    mean = linear.IMAGES.mean(0)
    np.testing.assert_allclose(
        norm.moving_mean, 0.25 * mean + 0.5 * (mean + 0.25), rtol=1e-5
    )


def test_a_given_step_and_the_radius_of_a_warm_up_reach_every_attack():
    # Half of the way: epsilon 0.1 of 0.2, steps of 0.03 of 0.06.
    start, low, high = linear.start_by_hand(linear.ROWS, radius=0.1)
    expected = start
    for _ in range(2):
        slope = (linear.softmax_of(expected) - TRUTH) @ linear.KERNEL.T
        expected = np.clip(expected + 0.03 * np.sign(slope), low, high)
    batch, _ = natural_and_shifted()
    for defense in ("standard", "mart", "dynamic:c_max=0"):
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(),
            defense,
            linear.THREAT,
            2,
            0.06,
            epsilon_warmup_steps=10,
        )
        model.step.assign(5)
        adversarial = model.defense.attack(
            model._classify_frozen, batch, model._inner_attack()
        )
        np.testing.assert_allclose(adversarial.image, expected, atol=1e-6)


def dynamic_by_hand(criterion, reference):
    """Two steps of PGD with a stop; x' and the FOSC where each ended."""
    start, low, high = linear.start_by_hand(linear.ROWS)
    centre = start if reference == "start" else linear.IMAGES
    adversarial, moving = start, np.full([linear.EXAMPLES], True)
    fosc = np.zeros([linear.EXAMPLES])
    for step in range(3):
        gradient = (linear.softmax_of(adversarial) - TRUTH) @ linear.KERNEL.T
        if reference == "range":
            best = np.where(gradient > 0, high, low)
            gap = ((best - adversarial) * gradient).sum(1)
        else:
            gap = 0.2 * abs(gradient).sum(1)
            gap -= ((adversarial - centre) * gradient).sum(1)
        fosc = np.where(moving, gap, fosc)
        moving = moving & ((gap > criterion) | (step == 0)) & (step < 2)
        following = np.clip(
            adversarial + 0.2 / 4 * np.sign(gradient), low, high
        )
        adversarial = np.where(moving[:, None], following, adversarial)
    return adversarial, fosc


@pytest.mark.parametrize("reference", ["natural", "start", "range"])
def test_dynamic_step_equals_the_closed_form(strategy, reference):
    # Epoch 0: the criterion is c_max, which stops some examples early.
    criterion = np.median(dynamic_by_hand(0.0, reference)[1]) + 0.05
    adversarial, fosc = dynamic_by_hand(criterion, reference)
    longest, _ = dynamic_by_hand(0.0, reference)
    stopped = (adversarial != longest).any(1)
    assert 0 < stopped.sum() < linear.EXAMPLES
    q = linear.softmax_of(adversarial)
    expected = linear.update(0.0, q - TRUTH, adversarial)
    model, logs = linear.train(
        strategy, f"dynamic:c_max={criterion}:reference={reference}"
    )
    for weights, by_hand in zip(
        model.classifier.get_weights(), expected, strict=True
    ):
        np.testing.assert_allclose(weights, by_hand, atol=1e-6)
    np.testing.assert_allclose(logs["fosc"], [fosc.mean()], rtol=1e-5)


def test_fosc_is_zero_at_a_solution_where_the_pixel_range_is_in_it():
    # Nearly a linear objective: ten steps end at its maximum over both.
    images = np.where(linear.IMAGES > 0.5, 1.0, linear.IMAGES).astype("float32")
    values = {}
    for reference in ("natural", "range"):
        _, fosc = attacks.pgd_until_stationary(
            lambda x: x @ linear.KERNEL + linear.BIAS,
            tf.constant(images),
            tf.constant(linear.LABELS),
            linear.THREAT,
            criterion=0.0,
            seed=1,
            reference=reference,
        )
        values[reference] = fosc.numpy()
    np.testing.assert_allclose(values["range"], 0.0, atol=1e-3)
    assert np.median(values["natural"]) > 0.1


@pytest.mark.parametrize("reference", ["natural", "start", "range"])
def test_fosc_of_a_confident_network_vanishes_with_its_gradient(reference):
    # Of CE itself, not of the soft logit margin that is climbed: where p_y
    # rounds to 1 the first is nearly 0, the second as large as ever.
    images = linear.IMAGES.astype("float32")
    labels = linear.softmax_of(linear.IMAGES).argmax(1).astype("int32")
    scale = 40.0
    adversarial, fosc = attacks.pgd_until_stationary(
        lambda x: scale * (x @ linear.KERNEL + linear.BIAS),
        tf.constant(images),
        tf.constant(labels),
        linear.THREAT,
        criterion=0.0,
        steps=1,
        step_size=1e-3,
        random_start="none",
        reference=reference,
    )
    x = adversarial.numpy().astype("float64")
    logits = scale * (x @ linear.KERNEL + linear.BIAS)
    truth = linear.one_hot(labels)
    wrong = np.where(truth == 1, -np.inf, logits)
    lead = scipy.special.logsumexp(wrong, axis=1) - (truth * logits).sum(1)
    # dCE / dz = (1 - p_y) (the others by their share - truth)
    others = scipy.special.softmax(wrong, axis=1) - truth
    slope = scale * (scipy.special.expit(lead)[:, None] * others)
    slope = slope @ linear.KERNEL.T
    epsilon = linear.THREAT.epsilon
    if reference == "range":
        best = np.clip(images + epsilon * np.sign(slope), 0, 1)
        expected = ((best - x) * slope).sum(1)
    else:
        expected = epsilon * abs(slope).sum(1) - ((x - images) * slope).sum(1)
    assert (lead < -20).any()
    np.testing.assert_allclose(fosc, expected, rtol=1e-3)


def test_refuses_the_pixel_range_in_l2():
    with pytest.raises(ValueError, match="reference=range is for linf"):
        mart_tf.AdversarialClassifier(
            linear.linear_network(),
            "dynamic:reference=range",
            mart_tf.ThreatModel("l2", 1.0),
        )


def test_the_criterion_falls_with_the_epochs():
    dynamic = defenses.Dynamic(c_max=1.0, control_epochs=4)
    seen = [float(dynamic.criterion(tf.constant(e))) for e in (0, 1, 3, 4, 9)]
    np.testing.assert_allclose(seen, [1.0, 0.75, 0.25, 0.0, 0.0], atol=1e-6)
    # fit tells the epoch, also where it begins with a later one.
    model, _ = linear.train(devices.strategy("single"), dynamic, epochs=3)
    assert int(model.epoch) == 2
    model.fit(
        linear.IMAGES, linear.LABELS, epochs=8, initial_epoch=7, verbose=0
    )
    assert int(model.epoch) == 7
    listed = keras.callbacks.CallbackList([keras.callbacks.History()])
    message = "epoch 0 again after 4 steps, and Dynamic goes by the epoch; to"
    with pytest.warns(UserWarning, match=message):
        model.fit(
            linear.IMAGES, linear.LABELS, epochs=2, callbacks=listed, verbose=0
        )
    assert int(model.epoch) == 1
    # Once.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(linear.IMAGES, linear.LABELS, verbose=0)
    assert not [each for each in told if "epoch 0" in str(each.message)]
    # In a loop of steps one says it.
    model.epoch.assign(4)
    logs = model.train_on_batch(linear.IMAGES, linear.LABELS, return_dict=True)
    assert np.isfinite(logs["fosc"])


# d_max, and the least radius of an attack.
GREATEST, LEAST = 0.15, 0.06


def mma_by_hand(stored, weights, step):
    """One batch of the code of MMA's authors, of a linear network in float64.

    They store 0 for an example that is wrong, SLM(x) >= 0, and take the
    greater of the floor and of what is stored for the radius of the attack.
    Our own: what is beyond d_max is looked for from the first radius too.
    """
    kept = np.maximum(LEAST, stored)
    crossing, distance, right = search_by_hand(kept, weights, step)
    again = right & (distance >= GREATEST)
    if again.any():
        kept = np.where(again, GREATEST, kept)
        crossing, distance, right = search_by_hand(kept, weights, step)
    return crossing, distance, right


def search_by_hand(kept, weights, step):
    kernel, bias = weights

    def logits(x):
        return x @ kernel + bias

    def soft_margin(x):
        z = logits(x)
        wrong = np.where(TRUTH == 1, -np.inf, z)
        return scipy.special.logsumexp(wrong, axis=1) - (z * TRUTH).sum(1)

    seed = splitmix.fold(linear.SEED, step)
    start = np.stack(
        [splitmix.uniform(seed, int(r), linear.PIXELS) for r in linear.ROWS]
    )
    images, radius = linear.IMAGES.astype("float64"), kept[:, None]
    low = np.maximum(images - radius, 0)
    high = np.minimum(images + radius, 1)
    end = np.clip(images + radius * (2 * start - 1), low, high)
    for _ in range(2):
        wrong = np.where(TRUTH == 1, -np.inf, logits(end))
        gradient = (scipy.special.softmax(wrong, axis=1) - TRUTH) @ kernel.T
        end = np.clip(end + 2.5 * radius / 2 * np.sign(gradient), low, high)
    direction = (end - images) / abs(end - images).max(1, keepdims=True)
    limit = 1.05 * GREATEST

    def at(distance):
        return np.clip(images + distance[:, None] * direction, 0, 1)

    least, most = np.zeros_like(kept), np.full_like(kept, limit)
    distance = np.minimum(kept, limit)
    for _ in range(10):
        crossed = soft_margin(at(distance)) >= 0
        least = np.where(crossed, least, distance)
        most = np.where(crossed, distance, most)
        distance = (least + most) / 2
    return at(distance), distance, soft_margin(images) < 0


def test_mma_steps_equal_the_closed_form(strategy):
    weights = [linear.KERNEL, linear.BIAS]
    stored = np.full([linear.EXAMPLES], GREATEST)
    margins, kinds = [], []
    for step in range(5):
        crossing, distance, right = mma_by_hand(stored, weights, step)
        kernel, bias = weights
        logits = linear.IMAGES @ kernel + bias
        kinds.append(
            [
                # Wrong, though the greatest logit is the label's.
                ~right & (logits.argmax(1) == linear.LABELS),
                right & (distance < LEAST),
                right & (distance > LEAST) & (distance < GREATEST),
                right & (distance > GREATEST),
            ]
        )
        adversarial = np.where(right[:, None], crossing, linear.IMAGES)
        counts = ~(right & (distance >= GREATEST))[:, None]
        p, q = (
            scipy.special.softmax(x @ kernel + bias, axis=1)
            for x in (linear.IMAGES, adversarial)
        )
        scale = linear.SAMPLE_WEIGHT[:, None] / linear.EXAMPLES
        natural = scale * (p - TRUTH) / 3
        other = scale * counts * (q - TRUTH) * 2 / 3
        change = [
            linear.IMAGES.T @ natural + adversarial.T @ other,
            (natural + other).sum(0),
        ]
        weights = [
            w - linear.RATE * (c + linear.DECAY * w)
            for w, c in zip(weights, change, strict=True)
        ]
        stored = np.where(right, np.minimum(distance, GREATEST), 0.0)
        margins.append(np.where(right, distance, 0.0).mean())
    assert np.any(kinds, axis=(0, 2)).all()
    model, logs = linear.train(
        strategy,
        f"mma:max_margin={GREATEST}:min_epsilon={LEAST}",
        rows=1000,
        epochs=5,
    )
    table = model.memory.get_weights()[0]
    np.testing.assert_allclose(
        table[linear.ROWS], np.maximum(LEAST, stored), atol=1e-6
    )
    others = np.setdiff1d(np.arange(1000), linear.ROWS)
    np.testing.assert_array_equal(table[others], np.float32(GREATEST))
    for mine, by_hand in zip(
        model.classifier.get_weights(), weights, strict=True
    ):
        np.testing.assert_allclose(mine, by_hand, atol=1e-6)
    np.testing.assert_allclose(logs["margin"], margins, atol=1e-6)


def test_mma_looks_again_from_the_training_epsilon():
    # From 0.5 the scores rise along the first pixel, which is not enough; the
    # second is flat at first, and beyond 0.55 the way out: along (1, u) score
    # is 0 where 10 (d u - 0.05) = 1 - 0.1, so that u must be at least 0.93.
    def classify(images):
        first, second = images[:, 0] - 0.5, images[:, 1] - 0.55
        score = 0.1 * tf.tanh(50.0 * first) + tf.nn.relu(10.0 * second) - 1.0
        return tf.stack([tf.zeros_like(score), score], axis=1)

    count = 40
    defense = defenses.MMA(max_margin=0.15, min_epsilon=0.02)
    batch = base.Batch(
        image=tf.fill([count, 2], 0.5),
        label=tf.zeros([count], tf.int32),
        weight=tf.ones([count]),
        example=tf.range(count, dtype=tf.int64),
        seeds=noise.seeds(3, tf.range(count)),
        memory={"epsilon": tf.fill([count], 0.02)},
    )
    threat = mart_tf.ThreatModel(epsilon=0.1)
    epoch = tf.constant(0, tf.int64)
    inner = base.InnerAttack(threat, 10, 0.025, 0.1, "uniform", epoch)
    made = defense.attack(classify, batch, inner)
    margin = made.measures["margin"].numpy()
    # Inside 0.02 all stay on the flat part, and u is that of the start; inside
    # 0.1 a quarter starts beyond it, and ends at u = 1.
    reached = margin < 0.15
    assert 5 <= reached.sum() <= 18
    assert (margin[reached] > 0.139).all()
    assert (abs(margin - 0.14) < 1e-3).sum() > 0.5 * reached.sum()
    np.testing.assert_array_equal(made.weight, reached)
    np.testing.assert_allclose(
        made.memory["epsilon"], np.where(reached, margin, 0.15), atol=1e-6
    )


def test_mma_counts_the_rows_of_arrays_and_is_saved_with_them(tmp_path):
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), "mma", linear.THREAT, 2
    )
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(linear.IMAGES, linear.LABELS, epochs=2, verbose=0)
    (table,) = model.memory.get_weights()
    assert table.shape == (linear.EXAMPLES,)
    assert (table != np.float32(0.2)).any()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.memory.get_weights()[0], table)
    loaded.fit(linear.IMAGES, linear.LABELS, verbose=0)
    with pytest.raises(ValueError, match="keeps something of 8 rows"):
        two = np.concatenate([linear.IMAGES, linear.IMAGES])
        loaded.fit(two, np.tile(linear.LABELS, 2), verbose=0)


def test_mma_goes_on_with_what_weights_in_a_file_kept(tmp_path):
    def made(**rows):
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(), "mma", linear.THREAT, 2, **rows
        )
        model.compile(keras.optimizers.SGD(0.1))
        return model

    model = made()
    model.fit(linear.IMAGES, linear.LABELS, verbose=0)
    path = tmp_path / "some.weights.h5"
    model.save_weights(path)
    with pytest.raises(ValueError, match=r"Classifier\(rows=...\) as many ro"):
        made().load_weights(path)
    loaded = made(rows=linear.EXAMPLES)
    loaded.load_weights(path)
    trained = []
    for each in (model, loaded):
        each.fit(linear.IMAGES, linear.LABELS, shuffle=False, verbose=0)
        trained.append(each.get_weights())
    for one, two in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, two)


def network_with_state():
    """Batch norm, as the replicas of a strategy share it."""
    return keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            keras.layers.Conv2D(
                4, 3, kernel_initializer=keras.initializers.HeNormal(0)
            ),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(
                10, kernel_initializer=keras.initializers.HeNormal(1)
            ),
        ]
    )


@pytest.mark.parametrize(
    "defense",
    [
        "standard",
        "alp",
        "clp",
        "trades",
        "mma",
        "dynamic",
        "mart",
        "mart:inner=kl:weighting=hard:regularized_fraction=0.5",
        "uat",
    ],
)
def test_three_steps_on_two_replicas_equal_one(defense):
    bunch = sklearn.datasets.load_digits()
    images = (bunch.images[:192] / 16).astype("float32")[..., None]
    results = []
    for name in ("single", "mirrored"):
        with devices.strategy(name).scope():
            model = mart_tf.AdversarialClassifier(
                network_with_state(),
                defense,
                mart_tf.ThreatModel(epsilon=0.1),
                attack_steps=3,
            )
            model.compile(keras.optimizers.SGD(0.1))
        logs = model.fit(
            images,
            bunch.target[:192],
            batch_size=64,
            shuffle=False,
            verbose=0,
        ).history
        results.append((model.get_weights(), logs))
    (one, one_logs), (two, two_logs) = results
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert one_logs.keys() == two_logs.keys()
    for name in one_logs:
        np.testing.assert_allclose(one_logs[name], two_logs[name], rtol=1e-4)


BATCHES = tf.data.Dataset.from_tensors((linear.IMAGES, linear.LABELS))


@pytest.mark.parametrize("defense", ["mma", "mart:regularized_fraction=0.5"])
def test_refuses_input_that_tells_no_rows(defense):
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), defense, linear.THREAT
    )
    model.compile("sgd")
    with pytest.raises(ValueError, match="needs the row of each training"):
        model.fit(BATCHES, verbose=0)
    generator = (batch for batch in BATCHES.as_numpy_iterator())
    with pytest.raises(ValueError, match="needs the row|does not tell how"):
        model.fit(generator, steps_per_epoch=1, verbose=0)


def test_refuses_data_that_does_not_tell_its_size():
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), "mma", linear.THREAT
    )
    model.compile("sgd")
    inputs = {"image": linear.IMAGES, "index": linear.ROWS}
    batches = tf.data.Dataset.from_tensors((inputs, linear.LABELS))
    with pytest.raises(ValueError, match=r"give AdversarialClassifier\(rows="):
        model.fit(batches, verbose=0)
    with pytest.raises(ValueError, match=r"give AdversarialClassifier\(rows="):
        model.train_on_batch(inputs, linear.LABELS)


@pytest.mark.parametrize(
    "rows, sentence",
    [
        (linear.ROWS - 1000, "from -"),
        (linear.ROWS * 10**9, "the rows of the images in their data set"),
        (linear.ROWS / 2, "expected whole numbers from 0"),
    ],
)
def test_refuses_rows_that_number_nothing(rows, sentence):
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), "mma", linear.THREAT
    )
    model.compile("sgd")
    with pytest.raises(ValueError, match=sentence):
        model.fit(
            {"image": linear.IMAGES, "index": rows}, linear.LABELS, verbose=0
        )


def test_a_row_beyond_the_table_is_said():
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), "mma", linear.THREAT, rows=10
    )
    model.compile("sgd")
    inputs = {"image": linear.IMAGES, "index": linear.ROWS}
    batches = tf.data.Dataset.from_tensors((inputs, linear.LABELS))
    with pytest.raises(tf.errors.InvalidArgumentError, match="row"):
        model.fit(batches, verbose=0)


def test_the_table_ends_below_its_number_of_rows():
    table = memory.Memory({"epsilon": 0.5}, 10)
    table.ensure(9)
    with pytest.raises(ValueError, match="a row 10, and .* of 10 rows"):
        table.ensure(10)
    kept = table.recall(tf.constant([9], tf.int64))["epsilon"]
    np.testing.assert_array_equal(kept, [0.5])
    # A GPU would read a 0 there.
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="A row lies beyond the 10 rows"
    ):
        table.recall(tf.constant([9, 10], tf.int64))


@pytest.mark.parametrize(
    "spec, message",
    [
        ("mart:regularization=-1", "regularization is -1; expected a number"),
        ("trades:regularization=nan", "regularization is nan"),
        ("alp:regularization=-1", "regularization is -1;"),
        ("mart:regularized_fraction=1.5", "1.5; expected a number from 0 to 1"),
        ("mart:regularized_fraction=-0.1", "regularized_fraction is -0.1"),
        ("mart:outer=bec", "did you mean 'bce'"),
        ("mart:weighting=sfot", "did you mean 'soft'"),
        ("dynamic:c_max=-1", "c_max is -1; expected"),
        ("dynamic:control_epochs=0", "control_epochs is 0; expected"),
        ("mma:max_margin=0", "max_margin is 0; expected a number above"),
    ],
)
def test_refuses_options_out_of_range(spec, message):
    with pytest.raises(ValueError, match=message):
        defenses.get(spec)


@pytest.mark.parametrize("defense", ["trades", "mart:inner=kl"])
def test_refuses_to_climb_the_divergence_from_x(defense):
    with pytest.raises(ValueError, match="no gradient at x"):
        mart_tf.AdversarialClassifier(
            linear.linear_network(),
            defense,
            linear.THREAT,
            random_start="none",
        )


@pytest.mark.parametrize(
    "name, loss",
    [
        ("alp", losses.adversarial_logit_pairing),
        ("clp", losses.clean_logit_pairing),
        ("trades", losses.trades),
        ("mart", losses.mart),
        ("uat", losses.uat),
    ],
)
def test_a_loss_and_its_defense_have_the_same_defaults(name, loss):
    defense = defenses.get(name)
    of_loss = inspect.signature(loss).parameters
    of_defense = inspect.signature(type(defense)).parameters
    shared = of_loss.keys() & of_defense.keys()
    assert "regularization" in shared
    for option in shared:
        assert of_loss[option].default == of_defense[option].default, option
        assert of_loss[option].default == getattr(defense, option), option


def test_defaults_are_those_of_the_papers_comparison():
    # Section 4.2 of the MART paper; of ALP, CLP and UAT++ it has none.
    assert defenses.MART().regularization == 5.0
    assert defenses.TRADES().regularization == 4.0
    assert defenses.Dynamic().c_max == 0.5


# The subset of a file: tests/test_subsets.py.
@pytest.mark.parametrize("name", sorted(defenses.DEFENSES.keys() - {"subset"}))
def test_options_survive_saving(name):
    defense = defenses.get(name)
    config = keras.saving.serialize_keras_object(defense)
    loaded = keras.saving.deserialize_keras_object(config)
    assert type(loaded) is type(defense)
    assert loaded.get_config() == defense.get_config()
