"""Auto-PGD: Algorithm 1 of its paper, its optima, its bounds, its seeds."""

import fractions
import functools
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import trained

from mart_tf import attacks
from mart_tf import choices
from mart_tf import losses
from mart_tf import noise
from mart_tf import threat
from mart_tf.attacks import auto_pgd
from mart_tf.attacks import gradient
from mart_tf.attacks import objectives
from mart_tf.attacks import projected
from mart_tf.evaluation import engine

GENERATOR = np.random.RandomState(0)
# A multiple of what a vector register holds: TensorFlow computes what is left
# over at the end of a tensor by other instructions, which round otherwise. And
# so many that what only few examples show is among them: a step size that is
# kept because it was halved before, or because of f_max at w_j, not after it.
EXAMPLES = 128
PIXELS, CLASSES = 6, 4
IMAGES = GENERATOR.rand(EXAMPLES, PIXELS).astype("float32")
LABELS = GENERATOR.randint(0, CLASSES, EXAMPLES).astype("int32")
HEIGHT = GENERATOR.randn(CLASSES, PIXELS).astype("float32")
PITCH = 6 * GENERATOR.randn(CLASSES, PIXELS).astype("float32")
PHASE = GENERATOR.randn(CLASSES, PIXELS).astype("float32")
WEIGHTS = GENERATOR.randn(PIXELS, CLASSES).astype("float32")
EPSILONS = {"linf": 0.3, "l2": 0.6}
SEEDS = noise.seeds(5, tf.range(EXAMPLES))


def wavy(images):
    """Scores with hills and valleys: z_c = sum_i h_ci sin(p_ci x_i + s_ci)."""
    return tf.reduce_sum(HEIGHT * tf.sin(PITCH * images[:, None] + PHASE), -1)


def linear(images):
    return tf.reshape(images, [-1, PIXELS]) @ WEIGHTS


def model_of(norm, **pixels):
    scale = pixels.get("pixel_max", 1.0) - pixels.get("pixel_min", 0.0)
    return threat.ThreatModel(norm, scale * EPSILONS[norm], **pixels)


def taken(count, batch=EXAMPLES):
    return tf.fill([batch], tf.constant(count, tf.int32))


def states_of(attack, images=IMAGES, number=0, compiled=True):
    """The state before each step, and after the last."""
    step = tf.function(attack.step) if compiled else attack.step
    images, labels = tf.constant(images), tf.constant(LABELS)
    states = [attack.begin(images, labels, SEEDS, number)]
    for count in range(attack.steps):
        states.append(step(images, labels, states[-1], taken(count))[0])
    return states


def assert_inside(adversarial, images, model):
    images, adversarial = np.asarray(images), np.asarray(adversarial)
    low, high = np.float32(model.pixel_min), np.float32(model.pixel_max)
    assert adversarial.dtype == np.float32
    assert (low <= adversarial).all() and (adversarial <= high).all()
    if model.norm == "linf":
        epsilon = np.float32(model.epsilon)
        assert (adversarial >= np.maximum(images - epsilon, low)).all()
        assert (adversarial <= np.minimum(images + epsilon, high)).all()
    else:
        offset = adversarial.astype("float64") - images
        lengths = np.linalg.norm(offset.reshape(len(images), -1), axis=1)
        assert (lengths <= model.epsilon * (1 + 1e-6)).all()


def paper_checkpoints(steps):
    p = [fractions.Fraction(0), fractions.Fraction(22, 100)]
    least, less = fractions.Fraction(6, 100), fractions.Fraction(3, 100)
    while p[-1] + max(p[-1] - p[-2] - less, least) <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - less, least))
    return [math.ceil(share * steps) for share in p]


def algorithm_1(x_0, model, steps):
    """Algorithm 1 for a batch, line by line as printed.

    f, its gradient and the projection are the package's, so that the last bit
    of an objective decides in both as it decides in the other.

    Returns:
        x^(0) to x^(N) as they were made, and as they were kept; conditions 1
        and 2 of each example at each checkpoint; eta at the end.
    """

    def f_and_ascent(x):
        slope, values, _ = attacks.input_gradient(wavy, tf.constant(x), LABELS)
        return values.numpy(), model.ascent(slope).numpy()

    def project(x):
        return model.project(tf.constant(x), IMAGES).numpy()

    eta = np.full(EXAMPLES, 2 * model.epsilon, "float32")
    w = paper_checkpoints(steps)
    f_0, ascent = f_and_ascent(x_0)
    x = [x_0, project(x_0 + eta[:, None] * ascent)]
    f_1, ascent = f_and_ascent(x[1])
    f, f_max, etas = [f_0, f_1], [f_0, np.maximum(f_0, f_1)], [eta]
    x_max = np.where((f_max[1] == f_0)[:, None], x[0], x[1])
    made, decisions = list(x), []
    for k in range(1, steps):
        etas.append(eta)
        z = project(x[k] + eta[:, None] * ascent)
        new = project(
            x[k]
            + np.float32(0.75) * (z - x[k])
            + np.float32(0.25) * (x[k] - x[k - 1])
        )
        f_new, _ = f_and_ascent(new)
        better = f_new > f_max[k]
        x_max = np.where(better[:, None], new, x_max)
        f_max.append(np.maximum(f_max[k], f_new))
        made.append(new)
        if k in w:
            last = w[w.index(k) - 1]
            rises = sum(f[i + 1] > f[i] for i in range(last, k))
            first = rises < 0.75 * (k - last)
            second = (etas[last] == etas[k]) & (f_max[last] == f_max[k])
            halve = first | second
            eta = np.where(halve, eta / 2, eta)
            new = np.where(halve[:, None], x_max, new)
            f_new = np.where(halve, f_max[k + 1], f_new)
            decisions += zip(first, second, strict=True)
        x.append(new)
        f.append(f_new)
        ascent = f_and_ascent(new)[1]
    return made, x, decisions, eta


@pytest.mark.parametrize("norm", choices.NORMS)
def test_every_iterate_is_that_of_algorithm_1(norm):
    model = model_of(norm)
    attack = auto_pgd.APGD(steps=40).on(wavy, model, CLASSES)
    states = states_of(attack, compiled=False)
    start = states[0]["adversarial"].numpy()
    made, kept, decisions, eta = algorithm_1(start, model, 40)
    np.testing.assert_array_equal([s["adversarial"] for s in states], made)
    # What an iterate was in the end is known to the step after it.
    ours = [state["previous"] for state in states[1:]]
    np.testing.assert_array_equal(ours, kept[:-1])
    np.testing.assert_array_equal(states[-1]["step_size"], eta)
    # Neither condition, and each of them alone.
    assert set(decisions) >= {(False, False), (True, False), (False, True)}


def test_checkpoints_of_the_paper():
    attack = auto_pgd.APGD().on(linear, model_of("linf"), CLASSES)
    windows = attack.windows.numpy()
    assert windows.shape == (101,)
    places = np.flatnonzero(windows >= 0)
    np.testing.assert_array_equal(
        places - 1, [0, 22, 41, 57, 70, 80, 87, 93, 99]
    )
    np.testing.assert_array_equal(
        windows[places], [0, 22, 19, 16, 13, 10, 7, 6, 6]
    )


@pytest.mark.parametrize(
    ("steps", "windows"),
    [
        # 0.22, 0.41 and all up to 0.99 of one step are rounded up to 1, the
        # end; of two steps 0.44 and 0.82 to 1, and 1.14 to 2, the end.
        (1, [-1, 0]),
        (2, [-1, 0, 1]),
        # w: 0, 0.66 -> 1, 1.23 -> 2, 1.71 -> 2, 2.1 -> 3.
        (3, [-1, 0, 1, 1]),
        # w: 0, 1.1 -> 2, 2.05 -> 3, 2.85 -> 3, 3.5 -> 4, 4, 4.35 -> 5.
        (5, [-1, 0, -1, 2, 1, 1]),
    ],
)
def test_few_steps_have_fewer_checkpoints(steps, windows):
    attack = auto_pgd.APGD(steps=steps).on(linear, model_of("linf"), CLASSES)
    np.testing.assert_array_equal(attack.windows, windows)


@pytest.mark.parametrize("pixels", [{}, {"pixel_min": -3.0, "pixel_max": 5.0}])
@pytest.mark.parametrize("norm", choices.NORMS)
@pytest.mark.parametrize("targeted", [False, True])
def test_iterates_stay_inside_the_threat_model(norm, pixels, targeted):
    model = model_of(norm, **pixels)
    width = model.pixel_max - model.pixel_min
    images = model.pixel_min + np.float32(width) * IMAGES
    kind = auto_pgd.TargetedAPGD if targeted else auto_pgd.APGD
    attack = kind(steps=20).on(wavy, model, CLASSES)
    states = states_of(attack, images)
    for state in states:
        assert_inside(state["adversarial"], images, model)
        assert_inside(attack.best(state), images, model)
    assert np.ptp(states[-1]["adversarial"] - images) > 0.1 * width


@pytest.mark.parametrize("objective", ["cross_entropy", "margin"])
@pytest.mark.parametrize("norm", choices.NORMS)
def test_finds_the_optimum_of_a_linear_network(norm, objective):
    # Of two classes the objective rises along one direction w; far from the
    # pixel bounds the best x' is x + epsilon sign(w), or epsilon w / ||w||.
    model = threat.ThreatModel(norm, 2.0, pixel_min=-7.0, pixel_max=7.0)
    labels = LABELS % 2
    found = auto_pgd.APGD(steps=30, objective=objective)(
        lambda images: images @ WEIGHTS[:, :2], IMAGES, labels, model, seed=0
    )
    towards = (WEIGHTS[:, 1] - WEIGHTS[:, 0]) * (1 - 2 * labels[:, None])
    gain = {"linf": np.abs(towards).sum(1), "l2": np.linalg.norm(towards, 2, 1)}
    natural = (IMAGES * towards).sum(1)
    margins = (found.numpy() * towards).sum(1)
    np.testing.assert_allclose(margins, natural + 2.0 * gain[norm], rtol=1e-5)


def test_targeted_dlr_by_hand():
    logits = tf.constant([[3.0, 1.0, 0.0, -1.0, -9.0]] * 2)
    values = objectives.targeted_dlr(
        tf.constant([0, 2]), logits, tf.constant([3, 0])
    )
    # -(3 + 1) / (3 - (0 - 1) / 2) and -(0 - 3) / (3 - (0 - 1) / 2)
    np.testing.assert_allclose(values, [-8 / 7, 6 / 7], rtol=1e-6)
    scaled = objectives.targeted_dlr(
        tf.constant([0, 2]), 7 * logits + 2, tf.constant([3, 0])
    )
    np.testing.assert_allclose(scaled, values, rtol=1e-6)


class TestTargeted:
    def test_aims_at_the_strongest_wrong_classes_first(self):
        model = threat.ThreatModel("linf", 9.0, -10.0, 10.0)
        attack = auto_pgd.TargetedAPGD(steps=20).on(linear, model, CLASSES)
        assert attack.rounds == CLASSES - 1
        assert attack.parameters == {
            "steps": 20,
            "targets": CLASSES - 1,
            "restarts": 1,
        }
        order = np.argsort(-linear(IMAGES).numpy(), axis=1)
        wrong = order[order != LABELS[:, None]].reshape(EXAMPLES, -1)
        for number in range(attack.rounds):
            last = states_of(attack, number=number)[-1]
            np.testing.assert_array_equal(last["targets"], wrong[:, number])
            # So far out each of them can be made to win over the label.
            scores = linear(attack.best(last)).numpy()
            rows = np.arange(EXAMPLES)
            assert (scores[rows, wrong[:, number]] > scores[rows, LABELS]).all()

    def test_takes_as_many_targets_as_asked(self):
        attack = auto_pgd.TargetedAPGD(targets=3).on(linear, model_of("l2"), 10)
        assert attack.rounds == 3
        assert (
            auto_pgd.TargetedAPGD().on(linear, model_of("l2"), 10).rounds == 9
        )

    def test_a_call_goes_from_target_to_target(self):
        # Class 3 is the only one in reach of class 0, and it comes last.
        def classify(images):
            edge = 3.0 * images[:, :1] - 1.15
            return tf.concat(
                [tf.ones_like(edge) * [0.6, 0.55, 0.52], edge], axis=1
            )

        images, labels = np.full((2, 3), 0.4, "float32"), np.zeros(2, "int32")
        model = threat.ThreatModel(epsilon=0.2)
        batch = classify, images, labels, model
        found = auto_pgd.TargetedAPGD(steps=10)(*batch, seed=1)
        assert_inside(found, images, model)
        np.testing.assert_array_equal(np.argmax(classify(found), 1), [3, 3])
        few = auto_pgd.TargetedAPGD(steps=10, targets=2)(*batch, seed=1)
        np.testing.assert_array_equal(np.argmax(classify(few), 1), [0, 0])


@pytest.mark.parametrize("targeted", [False, True])
def test_a_permuted_batch_gives_the_permuted_result(targeted):
    kind = auto_pgd.TargetedAPGD if targeted else auto_pgd.APGD
    run = functools.partial(kind(steps=12), wavy, threat=model_of("l2"))
    seeds = SEEDS.numpy()
    found = run(IMAGES, LABELS, seed=tf.constant(seeds)).numpy()
    order = GENERATOR.permutation(EXAMPLES)
    other = run(IMAGES[order], LABELS[order], seed=tf.constant(seeds[order]))
    np.testing.assert_array_equal(other, found[order])
    np.testing.assert_array_equal(run(IMAGES, LABELS, seed=5), found)
    assert np.abs(run(IMAGES, LABELS, seed=6) - found).max() > 0.01


def test_examples_at_different_steps_share_a_batch():
    attack = auto_pgd.APGD(steps=40).on(wavy, model_of("linf"), CLASSES)
    states = states_of(attack)
    # The step past the last is asked of those that wait for the others.
    counts = np.arange(EXAMPLES, dtype="int32") % 41
    mixed = {name: _rows(states, counts, name) for name in states[0]}
    following, logits = tf.function(attack.step)(
        tf.constant(IMAGES), tf.constant(LABELS), mixed, tf.constant(counts)
    )
    np.testing.assert_allclose(
        logits, wavy(mixed["adversarial"]), rtol=1e-5, atol=1e-5
    )
    going = counts < 40
    for name in mixed:
        expected = _rows(states[1:] + states[:1], counts, name)
        np.testing.assert_array_equal(
            following[name][going], expected[going], err_msg=name
        )


def _rows(states, counts, name):
    """Of each example what its own state says."""
    every = np.stack([state[name] for state in states])
    return tf.constant(every[counts, np.arange(len(counts))])


def test_rounds_start_from_other_noise():
    attack = auto_pgd.APGD(restarts=3).on(linear, model_of("l2"), CLASSES)
    assert attack.all_rounds == 3
    starts = [
        attack.begin(tf.constant(IMAGES), LABELS, SEEDS, number)["adversarial"]
        for number in range(3)
    ]
    for one, other in itertools.combinations(starts, 2):
        assert (np.abs(one - other).max(axis=1) > 0.01).all()
    again = attack.begin(tf.constant(IMAGES), LABELS, SEEDS, 2)["adversarial"]
    np.testing.assert_array_equal(again, starts[2])


def test_hands_over_the_iterate_of_the_highest_objective():
    attack = auto_pgd.APGD(steps=25).on(wavy, model_of("linf"), CLASSES)
    states = states_of(attack)
    values = np.stack(
        [
            losses.soft_margin(LABELS, wavy(state["adversarial"]))
            for state in states[:-1]
        ]
    )
    best = attack.best(states[-1])
    np.testing.assert_allclose(
        losses.soft_margin(LABELS, wavy(best)), values.max(0), rtol=1e-5
    )
    assert (values.max(0) > values[-1] + 1e-3).any()


def test_one_gradient_a_step_and_no_more():
    calls = []

    def classify(images):
        calls.append(images.shape)
        return wavy(images)

    attack = auto_pgd.APGD(steps=3).on(classify, model_of("linf"), CLASSES)
    images, labels = tf.constant(IMAGES), tf.constant(LABELS)
    state = attack.begin(images, labels, SEEDS)
    assert not calls
    for count in range(3):
        state, _ = attack.step(images, labels, state, taken(count))
    assert len(calls) == 3


class TestPasses:
    """A classifier that draws: its scores are c times linear ones, where c is
    1, 3, -2, 6 in turn."""

    FACTORS = (1.0, 3.0, -2.0, 6.0)

    def classify(self):
        count = tf.Variable(0)

        def classify(images):
            factor = tf.constant(self.FACTORS)[count % 4]
            count.assign_add(1)
            return factor * linear(images)

        return classify

    def test_gradient_objective_and_answer_are_means(self):
        images, labels = tf.constant(IMAGES), tf.constant(LABELS)
        kappa_free = functools.partial(objectives.margin, kappa=1e6)
        classify = self.classify()
        slope, value, logits = tf.function(
            lambda: gradient.expected_gradient(
                classify, images, labels, kappa_free, 4, CLASSES
            )
        )()
        # By hand: of a factor c above 0 the margin and its gradient are c
        # times those of the linear scores; below, those of their reverse.
        scores = IMAGES @ WEIGHTS
        rows = np.arange(EXAMPLES)
        wrong = np.where(np.eye(CLASSES)[LABELS], -np.inf, scores)
        best = wrong.argmax(1)
        least = np.where(np.eye(CLASSES)[LABELS], np.inf, scores).argmin(1)
        weights = WEIGHTS.T
        expected = (
            10 * (weights[best] - weights[LABELS])
            - 2 * (weights[least] - weights[LABELS])
        ) / 4
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-5)
        own = scores[rows, LABELS]
        margins = 10 * (scores[rows, best] - own)
        margins -= 2 * (scores[rows, least] - own)
        np.testing.assert_allclose(value, margins / 4, rtol=1e-5, atol=1e-5)
        mean = np.mean(
            [
                np.exp(c * scores) / np.exp(c * scores).sum(1, keepdims=True)
                for c in self.FACTORS
            ],
            axis=0,
        )
        np.testing.assert_allclose(np.exp(logits), mean, rtol=1e-4)
        answer = gradient.expected_logits(classify, images, 4, CLASSES)
        np.testing.assert_allclose(np.exp(answer), mean, rtol=1e-4)

    def test_of_a_sure_classifier_they_change_nothing(self):
        runs = []
        for passes in (1, 4):
            attack = auto_pgd.APGD(steps=8, passes=passes)
            attack = attack.on(wavy, model_of("linf"), CLASSES)
            runs.append([state["adversarial"] for state in states_of(attack)])
        # A sum of four equal numbers over four is exact.
        np.testing.assert_array_equal(*runs)

    def test_their_mean_finds_what_one_draw_hides(self):
        # Noise of twice the weights' size: the gradient of one draw
        # says little, the mean of 20 nearly all.
        generator = tf.random.Generator.from_seed(1)

        def classify(images):
            noisy = WEIGHTS + 2.0 * generator.normal(WEIGHTS.shape)
            return images @ noisy

        right = np.flatnonzero((IMAGES @ WEIGHTS).argmax(1) == LABELS)
        images, labels = IMAGES[right], LABELS[right]
        fallen = []
        for passes in (1, 20):
            attack = auto_pgd.APGD(steps=20, passes=passes, objective="margin")
            made = attack(classify, images, labels, model_of("linf"), seed=0)
            broken = (made.numpy() @ WEIGHTS).argmax(1) != labels
            fallen.append(broken.mean())
        best = auto_pgd.APGD(steps=20, objective="margin")(
            linear, images, labels, model_of("linf"), seed=0
        )
        best = ((best.numpy() @ WEIGHTS).argmax(1) != labels).mean()
        assert fallen[0] < 0.9 * best
        assert fallen[1] > 0.95 * best

    def test_an_iterate_is_judged_by_the_mean(self):
        # One pass in four calls every image another class.
        images = tf.constant(IMAGES)
        labels = np.asarray(linear(images)).argmax(1).astype("int32")
        tiny = threat.ThreatModel("linf", 1e-6)
        for passes, share in [(1, 1.0), (4, 0.0)]:
            attack = auto_pgd.APGD(steps=8, passes=passes)
            attack = attack.on(self.classify(), tiny, CLASSES)
            loop = engine.Engine(attack.classify, EXAMPLES, cores=1)
            crafted = loop.run(attack, IMAGES, labels, SEEDS.numpy())
            assert crafted.broken.mean() == share


@pytest.mark.parametrize(
    ("kind", "classes", "options", "message"),
    [
        (auto_pgd.APGD, 4, {"steps": 0}, "Attack steps is 0"),
        (auto_pgd.APGD, 4, {"steps": 2.5}, "expected a whole number"),
        (auto_pgd.APGD, 4, {"restarts": 0}, "restarts is 0; expected a whole"),
        (auto_pgd.APGD, 4, {"restarts": 1.5}, "restarts is 1.5"),
        (auto_pgd.APGD, 4, {"passes": 0}, "passes is 0; expected a whole"),
        (auto_pgd.APGD, 4, {"objective": "dlrr"}, "did you mean 'dlr'"),
        (auto_pgd.APGD, 2, {"objective": "dlr"}, "at least 3 classes, got 2"),
        (auto_pgd.TargetedAPGD, 4, {"steps": 0}, "Attack steps is 0"),
        (auto_pgd.TargetedAPGD, 4, {"targets": 0}, "targets is 0; expected a"),
        (
            auto_pgd.TargetedAPGD,
            3,
            {},
            "at least 4 classes, got 3; use apgd with the objective margin",
        ),
    ],
)
def test_refuses_in_one_sentence(kind, classes, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options).on(linear, model_of("linf"), classes)


def test_a_call_refuses_too():
    narrow = lambda images: images @ WEIGHTS[:, :3]  # noqa: E731
    batch = narrow, IMAGES, LABELS % 3, model_of("linf")
    with pytest.raises(ValueError, match="at least 4 classes, got 3"):
        auto_pgd.TargetedAPGD()(*batch)
    with pytest.raises(ValueError, match="did you mean 'margin'"):
        auto_pgd.APGD(objective="margins")(*batch)


@pytest.fixture(scope="module")
def digits():
    """A small trained network, and 100 digits that it classifies right."""
    network, images, labels = trained.on_digits(
        0,
        lambda: [keras.layers.Flatten(), keras.layers.Dense(32, "relu")],
        epochs=5,
    )
    classify = functools.partial(network, training=False)
    images, labels = images[1400:], labels[1400:]
    right = np.argmax(classify(images), axis=1) == labels
    return classify, images[right][:100], labels[right][:100]


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.08), ("l2", 0.45)])
def test_breaks_at_least_as_many_digits_as_pgd(digits, norm, epsilon):
    classify, images, labels = digits
    model = threat.ThreatModel(norm, epsilon)
    seeds = noise.seeds(0, tf.range(len(images))).numpy()
    loop = engine.Engine(classify, 50)

    def broken(kind, **options):
        attack = kind(steps=20, **options).on(classify, model, 10)
        crafted = loop.run(attack, images, labels, seeds)
        assert_inside(crafted.adversarial, images, model)
        return crafted.broken.sum()

    pgd = broken(projected.PGD)
    assert 5 < pgd < 95
    assert broken(auto_pgd.APGD) >= pgd
    assert broken(auto_pgd.TargetedAPGD, targets=3) >= pgd
