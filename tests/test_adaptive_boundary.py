"""FAB: exact moves onto hyperplanes, closest examples, the engine's rules."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from scipy import optimize
import tensorflow as tf
import trained

from mart_tf import noise
from mart_tf import threat
from mart_tf.attacks import adaptive_boundary
from mart_tf.attacks import examples
from mart_tf.attacks import gradient
from mart_tf.attacks import hyperplane
from mart_tf.attacks import projected
from mart_tf.evaluation import engine

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
GENERATOR = np.random.default_rng(0)
WEIGHTS = GENERATOR.normal(size=(12, 4)).astype("float32")
# Near the middle of the range, and with pixels at both of its bounds.
IMAGES = GENERATOR.uniform(0.3, 0.7, (10, 2, 6, 1)).astype("float32")
IMAGES[5:] = np.clip(GENERATOR.normal(0.5, 1.0, (5, 2, 6, 1)), 0, 1)
# FAB starts at the natural example: they decide nothing.
SEEDS = noise.seeds(0, tf.range(10))
LABELS = np.argmax(IMAGES.reshape(-1, 12) @ WEIGHTS, axis=1).astype("int32")


def linear(images):
    return tf.reshape(images, [-1, 12]) @ WEIGHTS


def closest_found(classify, images, labels, model, **options):
    """The closest of all targets, however far it is, and its distance."""
    images, labels = tf.constant(images), tf.constant(labels)
    width = model.pixel_max - model.pixel_min
    far = dataclasses.replace(
        model, epsilon=width if model.norm == "linf" else 100 * width
    )
    classes = classify(images[:1]).shape[-1]
    attack = adaptive_boundary.FAB(**options).on(classify, far, classes)
    closest, distances = images, tf.fill([len(labels)], np.inf)
    for number in range(attack.all_rounds):
        state = attack.begin(images, labels, SEEDS[: len(labels)], number)
        state, _, _ = attack.finish(images, labels, state)
        length = attack.distances(images, labels, state)
        nearer = length < distances
        closest = examples.where(nearer, state["adversarial"], closest)
        distances = tf.where(nearer, length, distances)
    return closest, distances


def lengths(moves, norm):
    moves = np.reshape(moves, [len(moves), -1])
    return np.linalg.norm(moves, np.inf if norm == "linf" else 2, axis=1)


def move(points, weights, values, norm, low=0.0, high=1.0):
    model = threat.ThreatModel(norm, 0.1, low, high)
    points, weights = np.float32(points), np.float32(weights)
    moves = hyperplane.shortest_move(
        tf.constant(points), tf.constant(weights), np.float32(values), model
    )
    return moves.numpy()


def least_maximum(x, w, value, low=0.0, high=1.0):
    """The linf distance by a linear programme; None if out of reach."""
    pixels = len(x)
    bound = -np.ones([pixels, 1])
    solution = optimize.linprog(
        np.append(np.zeros(pixels), 1.0),
        np.block([[np.eye(pixels), bound], [-np.eye(pixels), bound]]),
        np.zeros(2 * pixels),
        np.append(w, 0.0)[None],
        [-value],
        [*zip(low - x, high - x, strict=True), (0, None)],
    )
    return solution.fun if solution.status == 0 else None


def least_length(x, w, value, low=0.0, high=1.0):
    """The l2 distance: each pixel free, or at its lower or upper bound."""
    best = None
    for places in itertools.product([0, 1, 2], repeat=len(x)):
        places = np.array(places)
        fixed = np.where(places == 1, low - x, np.where(places == 2, high, x))
        fixed = np.where(places == 2, high - x, fixed)
        d = np.where(places == 0, 0.0, fixed)
        free = np.where(places == 0, w, 0.0)
        rest = value + w @ d
        if free.any():
            d = d - rest * free / (free @ free)
        elif abs(rest) > 1e-9:
            continue
        inside = (x + d > low - 1e-9).all() and (x + d < high + 1e-9).all()
        if inside and (best is None or np.linalg.norm(d) < best):
            best = np.linalg.norm(d)
    return best


LEAST = {"linf": least_maximum, "l2": least_length}


class TestShortestMove:
    def test_by_hand(self):
        # <w, x> - 3 = -2: both pixels gain; the second meets its bound.
        point, weights, value = [[0.2, 0.4, 0.9]], [[3.0, 0.0, 4.0]], [-0.7]
        # linf: 3 t + 4 * 0.1 = 0.7.
        np.testing.assert_allclose(
            move(point, weights, value, "linf"), [[0.1, 0.0, 0.1]], atol=1e-7
        )
        # l2: t (3^2 + 4^2) = 0.7 would move the last pixel by 0.112.
        np.testing.assert_allclose(
            move(point, weights, value, "l2"), [[0.1, 0.0, 0.1]], atol=1e-7
        )
        # Downwards nothing is in the way: t = 0.7 / 7, and 0.7 / 25.
        np.testing.assert_allclose(
            move(point, weights, [0.7], "linf"), [[-0.1, 0, -0.1]], atol=1e-7
        )
        np.testing.assert_allclose(
            move(point, weights, [0.7], "l2"), [[-0.084, 0, -0.112]], atol=1e-7
        )

    def test_a_hyperplane_out_of_sight(self):
        # What is free once the first pixel is at its bound has next to no
        # weight: a step there would be longer than float32 can say.
        for norm in ("linf", "l2"):
            made = move([[0.5, 0.5, 0.5]], [[1.0, 1e-17, 0.0]], [-1e6], norm)
            np.testing.assert_array_equal(made, [[0.5, 0.5, 0.0]])

    @NORMS
    @pytest.mark.parametrize("low, high", [(0.0, 1.0), (-3.0, 2.0)])
    def test_no_shorter_one_by_brute_force(self, norm, low, high):
        generator = np.random.default_rng(1)
        points = generator.uniform(low, high, (40, 5))
        points[::3, :2] = low
        points[1::3, 1:3] = high
        weights = generator.normal(size=(40, 5))
        weights[::4, 2] = 0.0
        values = generator.normal(size=40) * (high - low)
        moves = move(points, weights, values, norm, low, high)
        reached = 0
        for x, w, value, d in zip(points, weights, values, moves, strict=True):
            least = LEAST[norm](x, w, value, low, high)
            if least is not None:
                reached += 1
                np.testing.assert_allclose(w @ d, -value, atol=3e-6)
                np.testing.assert_allclose(lengths([d], norm), least, atol=3e-6)
        assert 15 < reached < 40
        assert (np.float32(points) + moves >= low - 1e-6).all()
        assert (np.float32(points) + moves <= high + 1e-6).all()

    @NORMS
    def test_the_closest_corner_of_what_is_out_of_reach(self, norm):
        points = [[0.2, 0.4, 0.9], [0.2, 0.4, 0.9]]
        weights = [[1.0, 0.0, -2.0], [1.0, 0.0, -2.0]]
        np.testing.assert_allclose(
            move(points, weights, [-9.0, 9.0], norm),
            [[0.8, 0.0, -0.9], [-0.2, 0.0, 0.1]],
            atol=1e-7,
        )

    @NORMS
    def test_many_pixels_to_the_last_digits(self, norm):
        generator = np.random.default_rng(2)
        points = generator.uniform(size=(6, 784))
        points[:, ::2] = 0.0
        weights = generator.normal(size=(6, 784)) ** 3
        shares = np.array([1e-6, 0.01, 0.1, 0.5, 0.9, 0.999])
        room = np.where(weights > 0, 1 - points, points)
        values = -shares * (np.abs(weights) * room).sum(1)
        moves = move(points, weights, values, norm)
        speed = np.ones_like(weights) if norm == "linf" else np.abs(weights)
        for row in range(6):

            def gain(t, row=row):
                moved = np.minimum(t * speed[row], room[row])
                return np.abs(weights[row]) @ moved + values[row]

            t = optimize.brentq(gain, 0.0, 1e5, xtol=1e-15, rtol=1e-14)
            best = np.minimum(t * speed[row], room[row])
            np.testing.assert_allclose(
                np.abs(moves[row]), best, rtol=2e-4, atol=1e-6
            )

    @NORMS
    @pytest.mark.parametrize("scale", [1e-25, 1e25])
    def test_scale_does_not_matter(self, norm, scale):
        point, weights = [[0.2, 0.4, 0.9]], np.array([[3.0, 0.0, 4.0]])
        np.testing.assert_allclose(
            move(point, scale * weights, [-0.7 * scale], norm),
            [[0.1, 0.0, 0.1]],
            atol=1e-6,
        )

    @NORMS
    def test_without_a_slope_there_is_no_move(self, norm):
        points = np.full([5, 3], 0.5)
        weights = np.zeros([5, 3])
        weights[3:] = 1.0
        weights[2] = np.nan
        values = [1.0, 0.0, 1.0, 0.0, np.nan]
        np.testing.assert_array_equal(
            move(points, weights, values, norm), np.zeros([5, 3])
        )

    @NORMS
    def test_does_not_depend_on_the_others(self, norm):
        generator = np.random.default_rng(3)
        points = generator.uniform(size=(8, 4, 5))
        weights = generator.normal(size=(8, 4, 5))
        values = generator.normal(size=8) * np.logspace(-3, 1, 8)
        moves = move(points, weights, values, norm)
        for row in range(8):
            some = slice(row, row + 1)
            alone = move(points[some], weights[some], values[some], norm)
            np.testing.assert_array_equal(alone, moves[some])


def closest_by_hand(image, label, norm, weights=WEIGHTS, low=0.0, high=1.0):
    """The distance to the nearest other class of a linear network."""
    x = np.float64(image.ravel())
    distances = []
    for other in set(range(weights.shape[1])) - {int(label)}:
        w = np.float64(weights[:, other] - weights[:, label])
        # One side of the hyperplane: a linear or a quadratic programme.
        if norm == "linf":
            least = least_maximum(x, w, w @ x, low, high)
        else:
            least = optimize.minimize(
                lambda d: d @ d,
                np.zeros(len(x)),
                jac=lambda d: 2 * d,
                bounds=list(zip(low - x, high - x, strict=True)),
                constraints={
                    "type": "eq",
                    "fun": lambda d, w=w: w @ (x + d),
                    "jac": lambda d, w=w: w,
                },
                options={"ftol": 1e-12, "maxiter": 500},
            )
            least = np.sqrt(least.fun) if least.success else None
        if least is not None:
            distances.append(least)
    return min(distances, default=np.inf)


class TestClosest:
    @NORMS
    def test_of_a_linear_network(self, norm):
        model = threat.ThreatModel(norm, 0.01)
        closest, distances = map(
            np.array,
            closest_found(linear, IMAGES, LABELS, model, steps=20),
        )
        expected = [
            closest_by_hand(image, label, norm)
            for image, label in zip(IMAGES, LABELS, strict=True)
        ]
        # Steps go 5 % too far, and so come back and past it again and again.
        assert np.isfinite(expected).all()
        assert (distances >= np.multiply(expected, 1 - 1e-4)).all()
        assert (distances <= np.multiply(expected, 1.01)).all()
        np.testing.assert_allclose(
            lengths(closest - IMAGES, norm), distances, rtol=1e-5
        )
        assert (np.argmax(linear(closest), axis=1) != LABELS).all()
        assert ((closest >= 0) & (closest <= 1)).all()
        # Some meet the bounds of the pixels, without which it would be nearer.
        free = [
            closest_by_hand(image, label, norm, low=-99.0, high=99.0)
            for image, label in zip(IMAGES, LABELS, strict=True)
        ]
        bounded = np.array(expected) > np.multiply(free, 1.001)
        assert 0 < bounded.sum() < len(bounded)

    @pytest.mark.parametrize("norm, dual", [("linf", 1), ("l2", 2)])
    def test_of_two_classes_in_closed_form(self, norm, dual):
        # So near to the boundary that no pixel meets its bounds.
        classify = lambda x: linear(x - 0.5)[:, :2]  # noqa: E731
        labels = np.argmax(classify(IMAGES[:5]), axis=1).astype("int64")
        model = threat.ThreatModel(norm, 0.01)
        _, distances = closest_found(
            classify, IMAGES[:5], labels, model, steps=9
        )
        w = WEIGHTS[:, 1] - WEIGHTS[:, 0]
        margins = np.abs((IMAGES[:5] - 0.5).reshape(-1, 12) @ w)
        expected = margins / np.linalg.norm(w, dual)
        np.testing.assert_allclose(distances, expected, rtol=0.01)
        assert (distances.numpy() > expected * (1 - 1e-5)).all()

    @NORMS
    def test_in_another_pixel_range(self, norm):
        narrow = threat.ThreatModel(norm, 0.1)
        wide = threat.ThreatModel(norm, 0.1, pixel_min=-2.0, pixel_max=6.0)
        _, expected = closest_found(linear, IMAGES, LABELS, narrow, steps=5)
        closest, distances = closest_found(
            lambda images: linear((images + 2.0) / 8.0),
            IMAGES * 8.0 - 2.0,
            LABELS,
            wide,
            steps=5,
        )
        np.testing.assert_allclose(distances, 8.0 * expected, rtol=1e-3)
        assert ((closest.numpy() >= -2) & (closest.numpy() <= 6)).all()

    def test_what_cannot_be_broken_and_what_is_broken_already(self):
        constant = lambda x: linear(x) * 0.0 + [2.0, 0, 0, 0]  # noqa: E731
        closest, distances = closest_found(
            constant,
            IMAGES[:2],
            np.array([0, 1]),
            threat.ThreatModel(),
            steps=3,
        )
        np.testing.assert_array_equal(distances, [np.inf, 0.0])
        np.testing.assert_array_equal(closest, IMAGES[:2])

    def test_a_slope_that_is_no_number_is_left_out(self):
        # That of the first pixel, of sqrt |x| at 0; along the others the
        # margin is 0.4 - 3 d - d.
        def classify(images):
            score = 3.0 * (images[:, 1] - 0.5) + (images[:, 2] - 0.5)
            score += tf.sqrt(tf.abs(images[:, 0]))
            return tf.stack([tf.fill(tf.shape(score), 0.4), score], axis=1)

        images, labels = tf.constant([[0.0, 0.5, 0.5]]), tf.constant([0])
        score = lambda labels, logits: logits[:, 1]  # noqa: E731
        slope, _, _ = gradient.input_gradient(classify, images, labels, score)
        np.testing.assert_array_equal(slope, [[np.nan, 3.0, 1.0]])
        closest, distances = closest_found(
            classify, images, labels, threat.ThreatModel(), steps=9
        )
        np.testing.assert_allclose(distances, [0.1], rtol=0.01)
        np.testing.assert_allclose(closest, [[0.0, 0.6, 0.6]], atol=1e-3)

    def test_in_a_graph(self):
        attack = adaptive_boundary.FAB(steps=4, targets=2)
        batch = linear, IMAGES, LABELS, threat.ThreatModel(epsilon=0.3)
        found = tf.function(lambda: attack(*batch))()
        np.testing.assert_allclose(found, attack(*batch), atol=1e-6)
        assert (np.argmax(linear(found), axis=1) != LABELS).any()


@pytest.fixture(scope="module")
def digits():
    """A small trained CNN, and digits that it classifies correctly."""
    model, images, labels = trained.on_digits(
        0,
        lambda: [
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
        ],
        1500,
        rate=0.003,
        epochs=6,
    )
    images, labels = images[1500:], labels[1500:]
    classify = lambda x: model(x, training=False)  # noqa: E731
    right = np.argmax(classify(images), axis=1) == labels
    return classify, images[right][:200], labels[right][:200]


def run(attack, classify, images, labels, batch_size):
    seeds = noise.seeds(0, tf.range(len(images))).numpy()
    return engine.Engine(classify, batch_size).run(
        attack, images, labels, seeds
    )


class TestInTheEngine:
    @NORMS
    def test_breaks_what_lies_within_epsilon(self, norm):
        distances = [
            closest_by_hand(image, label, norm)
            for image, label in zip(IMAGES, LABELS, strict=True)
        ]
        epsilon = np.sort(distances)[4:6].mean()
        model = threat.ThreatModel(norm, epsilon)
        attack = adaptive_boundary.FAB(steps=12).on(linear, model, 4)
        crafted = run(attack, linear, IMAGES, LABELS, 4)
        np.testing.assert_array_equal(crafted.broken, distances < epsilon)
        np.testing.assert_array_equal(
            model.project(crafted.adversarial, IMAGES), crafted.adversarial
        )
        standing = ~crafted.broken
        np.testing.assert_array_equal(
            crafted.adversarial[standing], IMAGES[standing]
        )
        predictions = np.argmax(linear(crafted.adversarial), axis=1)
        np.testing.assert_array_equal(predictions != LABELS, crafted.broken)

    @NORMS
    def test_outside_by_a_hair_is_outside(self, norm):
        image, label = tf.constant(IMAGES[:1]), tf.constant(LABELS[:1])
        closest, [distance] = closest_found(
            linear, image, label, threat.ThreatModel(norm), steps=8
        )
        for share in (1 + 1e-6, 1 - 1e-6):
            model = threat.ThreatModel(norm, float(distance) * share)
            found = adaptive_boundary.FAB(steps=8)(linear, image, label, model)
            expected = closest if share > 1 else image
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("norm, epsilon", [("linf", 0.08), ("l2", 0.5)])
    def test_on_digits_not_weaker_than_pgd(self, digits, norm, epsilon):
        classify, images, labels = digits
        model = threat.ThreatModel(norm, epsilon)
        ours = run(
            adaptive_boundary.FAB(steps=20).on(classify, model, 10),
            classify,
            images,
            labels,
            100,
        )
        theirs = run(
            projected.PGD(steps=100).on(classify, model, 10),
            classify,
            images,
            labels,
            100,
        )
        assert 0.1 < theirs.broken.mean() < 0.9
        assert ours.broken.mean() >= theirs.broken.mean() - 0.01
        np.testing.assert_array_equal(
            model.project(ours.adversarial, images), ours.adversarial
        )

    def test_a_permuted_batch_gives_permuted_results(self, digits):
        classify, images, labels = digits
        model = threat.ThreatModel(epsilon=0.05)
        attack = adaptive_boundary.FAB(steps=8, targets=2).on(
            classify, model, 10
        )
        order = np.random.default_rng(4).permutation(30)
        step = tf.function(attack.step)

        def after(rows):
            x, y = tf.constant(images[rows]), tf.constant(labels[rows])
            state = attack.begin(x, y, SEEDS, 1)
            for taken in range(8):
                state, logits = step(x, y, state, tf.fill([len(rows)], taken))
            return [*state.values(), logits]

        for permuted, plain in zip(
            after(order), after(np.arange(30)), strict=True
        ):
            np.testing.assert_array_equal(permuted, plain.numpy()[order])

    def test_examples_at_different_steps_share_a_batch(self, digits):
        classify, images, labels = digits
        x, y = tf.constant(images[:6]), tf.constant(labels[:6])
        attack = adaptive_boundary.FAB().on(
            classify, threat.ThreatModel(epsilon=0.05), 10
        )
        step = tf.function(attack.step)
        states = [attack.begin(x, y, SEEDS)]
        for taken in range(4):
            states.append(step(x, y, states[-1], tf.fill([6], taken))[0])
        steps = np.array([0, 3, 1, 2, 0, 3])
        mixed = {
            name: tf.stack([states[n][name][i] for i, n in enumerate(steps)])
            for name in states[0]
        }
        following, _ = step(x, y, mixed, tf.constant(steps, tf.int32))
        for name, values in following.items():
            for i, n in enumerate(steps):
                np.testing.assert_array_equal(values[i], states[n + 1][name][i])

    def test_a_step_costs_one_gradient_and_one_more_pass(self):
        passes = []

        def counted(images):
            passes.append(images)
            return linear(images)

        attack = adaptive_boundary.FAB().on(
            counted, threat.ThreatModel(epsilon=0.5), 4
        )
        x, y = tf.constant(IMAGES), tf.constant(LABELS)
        state = attack.begin(x, y, SEEDS)
        assert len(passes) == 1
        attack.begin(x, y, SEEDS, 1)
        # Compiled once for all rounds.
        assert len(passes) == 1
        following, logits = attack.step(x, y, state, tf.zeros([10], tf.int32))
        assert len(passes) == 3
        # The logits are those of the state before the step.
        np.testing.assert_allclose(
            logits, linear(state["adversarial"]), atol=1e-6
        )
        np.testing.assert_allclose(
            following["logits"], linear(following["adversarial"]), atol=1e-6
        )


class TestSettings:
    def test_aims_at_the_strongest_wrong_classes(self):
        logits = tf.constant([[1.0, 4.0, 2.0, 3.0], [9.0, 1.0, 8.0, 7.0]])
        attack = adaptive_boundary.FAB().on(
            lambda x: logits, threat.ThreatModel(), 4
        )
        assert attack.rounds == 3
        assert attack.parameters == {
            "steps": 100,
            "targets": 3,
            "alpha_max": 0.1,
            "eta": 1.05,
            "beta": 0.9,
        }
        x, y = tf.zeros([2, 3]), tf.constant([1, 2])
        targets = [
            attack.begin(x, y, SEEDS, number)["target"] for number in range(3)
        ]
        np.testing.assert_array_equal(
            np.transpose(targets), [[3, 2, 0], [0, 3, 1]]
        )
        assert (
            adaptive_boundary.FAB(targets=2)
            .on(linear, threat.ThreatModel(), 4)
            .rounds
            == 2
        )

    @pytest.mark.parametrize(
        "classes, settings, message",
        [
            (1, {}, "classifier of 1 classes; expected at least 2"),
            (4, {"steps": 0}, "Attack steps is 0"),
            (4, {"targets": 0}, "targets is 0; expected a whole number"),
            (4, {"targets": 1.5}, "targets is 1.5; expected a whole number"),
        ],
    )
    def test_refuses_in_one_sentence(self, classes, settings, message):
        with pytest.raises(ValueError, match=message):
            adaptive_boundary.FAB(**settings).on(
                linear, threat.ThreatModel(), classes
            )

    def test_refuses_whole_numbers_as_pixels(self):
        with pytest.raises(ValueError, match="images are uint8"):
            adaptive_boundary.FAB()(
                linear,
                np.zeros([1, 2, 6, 1], np.uint8),
                LABELS[:1],
                threat.ThreatModel(),
            )
