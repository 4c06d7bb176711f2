"""The threat model: exact bounds, starts, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf

from mart_tf import attacks
from mart_tf import noise
from mart_tf import threat


def bounds(images, epsilon, low=0.0, high=1.0):
    epsilon = np.float32(epsilon)
    lower = np.maximum(images - epsilon, np.float32(low))
    return lower, np.minimum(images + epsilon, np.float32(high))


def random_images(*shape):
    return np.random.RandomState(0).rand(*shape).astype("float32")


def lengths(adversarial, images):
    """Euclidean distances, in float64: `[batch]`."""
    offset = np.asarray(adversarial, "float64") - np.asarray(images, "float64")
    return np.sqrt((offset**2).reshape(len(offset), -1).sum(axis=1))


def l2(epsilon, **pixels):
    return threat.ThreatModel("l2", epsilon, **pixels)


def test_projects_onto_the_bounds_exactly():
    model = threat.ThreatModel(epsilon=0.1)
    images = random_images(20, 4, 4, 1)
    far = images + 4 * random_images(20, 4, 4, 1) - 2
    projected = model.project(far, images).numpy()
    lower, upper = bounds(images, 0.1)
    assert (projected >= lower).all() and (projected <= upper).all()
    np.testing.assert_array_equal(projected, np.clip(far, lower, upper))


def test_a_radius_per_example_overrides():
    model = threat.ThreatModel(epsilon=0.5)
    images = np.full((3, 2, 2, 1), 0.5, "float32")
    projected = model.project(
        images + 1, images, tf.constant([0.0, 0.1, 0.2])
    ).numpy()
    np.testing.assert_allclose(
        projected[:, 0, 0, 0], [0.5, 0.6, 0.7], rtol=1e-6
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_arrays_of_float64_are_float32_here(norm):
    # Of one pixel, where both norms are the same.
    model = threat.ThreatModel(norm, 0.25)
    images, others = np.array([[0.5], [0.5]]), np.array([[0.125], [0.625]])
    projected = model.project(others, images)
    assert projected.dtype == tf.float32
    np.testing.assert_allclose(projected, [[0.25], [0.625]], rtol=1e-6)
    distance = model.distance(projected, images)
    np.testing.assert_allclose(distance, [0.25, 0.125], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "int32", "float16"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_of_any_number_is_float32_here(norm, dtype):
    model = threat.ThreatModel(norm, 0.5)
    given = np.array([[3, -4], [0, 0]], dtype)
    expected = given.astype("float32")
    for function in (model.ascent, model.dual_norm):
        assert function(given).dtype == tf.float32
        np.testing.assert_array_equal(function(given), function(expected))


def test_other_pixel_ranges():
    model = threat.ThreatModel(epsilon=8, pixel_min=-1, pixel_max=255)
    images = np.array([[0.0, 250.0, 100.0]], "float32")
    projected = model.project(images + 20, images).numpy()
    np.testing.assert_array_equal(projected, [[8.0, 255.0, 108.0]])


@pytest.mark.parametrize("kind, spread", [("uniform", 0.2), ("gaussian", 0.01)])
def test_random_starts(kind, spread):
    model = threat.ThreatModel(epsilon=0.2)
    images = np.full((8, 16, 16, 1), 0.5, "float32")
    seeds = noise.seeds(3, tf.range(8))
    start = model.random_start(images, seeds, kind=kind).numpy()
    offset = np.abs(start - images)
    assert 0.3 * spread < offset.max() <= spread + 1e-7
    assert len(np.unique(offset[:, 0, 0, 0])) == 8
    same = model.random_start(images, seeds, kind="none")
    np.testing.assert_array_equal(same.numpy(), images)


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.2), ("l2", 3.0)])
@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_a_start_is_the_same_in_every_pixel_range(norm, epsilon, kind):
    images = random_images(4, 8, 8, 1)
    seeds = noise.seeds(3, tf.range(4))
    one = threat.ThreatModel(norm, epsilon)
    grey = threat.ThreatModel(norm, 255 * epsilon, -100.0, 155.0)
    start = one.random_start(images, seeds, kind=kind).numpy()
    other = grey.random_start(255 * images - 100, seeds, kind=kind).numpy()
    np.testing.assert_allclose((other + 100) / 255, start, atol=1e-6)
    if kind == "gaussian":
        # Clipped to the range, which few pixels are so near to.
        assert np.std(start - images) == pytest.approx(0.001, rel=0.1)


def test_a_gradient_that_is_not_finite_gives_no_step():
    model = threat.ThreatModel()
    step = model.ascent(tf.constant([np.nan, np.inf, -2.0, 0.0, 1e-30]))
    np.testing.assert_array_equal(step, [0.0, 0.0, -1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epsilon": 0}, "epsilon is 0; expected a radius above 0"),
        ({"epsilon": 1.5}, "at most 1, the range of the pixels"),
        ({"epsilon": float("nan")}, "expected a finite number"),
        ({"epsilon": "big"}, "expected a finite number"),
        ({"norm": "l3"}, "Unknown norm 'l3'; did you mean 'l2'?"),
        ({"norm": "l2", "epsilon": 0}, "epsilon is 0; expected a radius"),
        ({"norm": "l2", "epsilon": np.inf}, "expected a finite number"),
        ({"pixel_min": 1.0}, "pixel_min is 1 and pixel_max 1; expected"),
    ],
)
def test_refuses_in_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        threat.ThreatModel(**settings)


def test_is_frozen_and_comparable():
    model = threat.ThreatModel(epsilon=8 / 255)
    assert model == threat.ThreatModel()
    with pytest.raises(AttributeError):
        model.epsilon = 0.5


def test_norms_by_hand():
    values = tf.constant([[[3.0], [-4.0]], [[0.0], [0.0]]])
    zero = tf.zeros_like(values)
    cube, ball = threat.ThreatModel(epsilon=0.5), l2(0.5)
    np.testing.assert_allclose(cube.distance(zero, values), [4.0, 0.0])
    np.testing.assert_allclose(cube.dual_norm(values), [7.0, 0.0])
    np.testing.assert_allclose(ball.distance(zero, values), [5.0, 0.0])
    np.testing.assert_allclose(ball.dual_norm(values), [5.0, 0.0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_dual_norm_is_what_a_unit_step_gains(norm):
    model = threat.ThreatModel(norm, 0.1)
    gradient = tf.constant(random_images(5, 4, 3, 2) - 0.5)
    step = model.ascent(gradient)
    np.testing.assert_allclose(
        model.distance(step, tf.zeros_like(step)), np.ones(5), rtol=1e-6
    )
    np.testing.assert_allclose(
        tf.reduce_sum(step * gradient, axis=[1, 2, 3]),
        model.dual_norm(gradient),
        rtol=1e-6,
    )


class TestL2:
    def test_projects_as_worked_by_hand(self):
        images = tf.constant([[0.5, 0.5], [0.9, 0.5], [0.5, 0.5]])
        # Offsets (0.3, 0.4) of length 0.5; (0.6, -0.24), of which the pixel
        # range leaves (0.1, -0.24) of length 0.26; (0.06, 0.08).
        far = images + [[0.3, 0.4], [0.6, -0.24], [0.06, 0.08]]
        np.testing.assert_allclose(
            l2(0.13).project(far, images),
            # 0.26 of the first, half of the second, all of the third.
            [[0.578, 0.604], [0.95, 0.38], [0.56, 0.58]],
            rtol=1e-6,
        )

    def test_what_is_inside_stays_to_the_last_bit(self):
        images = random_images(6, 5, 5, 1)
        near = np.clip(images + 0.01 * random_images(6, 5, 5, 1), 0, 1)
        model = l2(0.5)
        np.testing.assert_array_equal(model.project(near, images), near)
        once = model.project(1 - images, images)
        np.testing.assert_array_equal(model.project(once, images), once)

    @pytest.mark.parametrize("compiled", [False, True])
    @pytest.mark.parametrize("radius", [0.01, 0.1, 0.5])
    @pytest.mark.parametrize(
        "pixels", [{}, {"pixel_min": -100.0, "pixel_max": 155.0}]
    )
    def test_rounding_never_leaves_the_ball(self, pixels, radius, compiled):
        low, high = pixels.get("pixel_min", 0.0), pixels.get("pixel_max", 1.0)
        model = l2(radius * (high - low), **pixels)
        project = tf.function(model.project, jit_compile=compiled)
        random = random_images(4, 32, 32, 3)
        # The same sum at every pixel rounds the same way at every pixel: in
        # plain float32 it leaves the ball by 7e-6 of its radius.
        even = np.full_like(random, 0.7)
        for images, far in [
            (random, random[::-1]),
            (even, even + 0.2),
            (even, even - 0.2),
        ]:
            images, far = (
                (low + (high - low) * part).astype("float32")
                for part in (images, far)
            )
            projected = project(far, images).numpy()
            distance = lengths(projected, images)
            assert (distance <= model.epsilon * (1 + 1e-6)).all()
            assert (distance >= model.epsilon * (1 - 1e-3)).all()
            assert projected.min() >= low and projected.max() <= high

    def test_a_radius_per_example_overrides(self):
        images = np.full((3, 2, 2, 1), 0.5, "float32")
        radius = tf.constant([0.0, 0.1, 0.2])
        model = l2(5.0)
        inside = model.project(images + 0.4, images, radius)
        np.testing.assert_allclose(lengths(inside, images), radius, atol=1e-6)
        start = model.random_start(
            images, noise.seeds(0, tf.range(3)), radius
        ).numpy()
        distance = lengths(start, images)
        assert (distance <= radius.numpy() * (1 + 1e-6)).all()
        assert (distance[1:] > 0).all()

    @pytest.mark.parametrize("size", [1e-37, 1e-20, 1.0, 1e20, 1e37])
    def test_gradients_of_any_size_give_a_unit_step(self, size):
        step = l2(0.5).ascent(size * tf.constant([[3.0, -4.0]]))
        np.testing.assert_allclose(step, [[0.6, -0.8]], rtol=1e-6)

    def test_a_zero_or_infinite_gradient_gives_no_step(self):
        gradient = [[0.0, 0.0], [np.nan, 2.0], [-np.inf, 0.0], [np.nan, np.nan]]
        np.testing.assert_array_equal(
            l2(0.5).ascent(tf.constant(gradient)),
            [[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]],
        )

    def test_uniform_starts_fill_the_ball_evenly(self):
        images = np.full((4000, 3), 0.5, "float32")
        seeds = noise.seeds(1, tf.range(4000))
        # The pixel range does not bind.
        model = l2(2.0, pixel_min=-9.0, pixel_max=9.0)
        offset = model.random_start(images, seeds).numpy() - images
        radius = lengths(offset, np.zeros_like(offset)) / 2.0
        assert radius.max() <= 1 + 1e-6
        # The share of the volume within r is r^3, so r^3 is uniform: mean
        # 1/2 with error 1 / sqrt(12 n), variance 1/12.
        error = 1 / np.sqrt(12 * 4000)
        assert abs((radius**3).mean() - 0.5) < 4 * error
        assert (radius**3).var() == pytest.approx(1 / 12, rel=0.05)
        # No direction is preferred, at no radius: the mean square of a
        # coordinate of a uniform direction is 1/3.
        direction = offset / lengths(offset, 0 * offset)[:, None]
        assert np.abs(direction.mean(axis=0)).max() < 4 / np.sqrt(3 * 4000)
        for part in (radius**3 < 0.5, radius**3 >= 0.5):
            np.testing.assert_allclose(
                (direction[part] ** 2).mean(axis=0), 1 / 3, atol=0.03
            )

    def test_the_length_of_a_start_tells_nothing_of_its_direction(self):
        seeds = noise.seeds(2, tf.range(4000))
        model = l2(2.0, pixel_min=-9.0, pixel_max=9.0)
        images = np.zeros((4000, 2), "float32")
        offset = model.random_start(images, seeds).numpy()
        radius = lengths(offset, images)
        # Compared with its own square, a direction's sign cancels.
        correlation = np.corrcoef(radius**2, offset[:, 0] / radius)[0, 1]
        assert abs(correlation) < 4 / np.sqrt(4000)
        share = (offset[:, 0] / radius) ** 2
        assert abs(np.corrcoef(radius**2, share)[0, 1]) < 4 / np.sqrt(4000)

    def test_starts_belong_to_the_example(self):
        images = random_images(6, 4, 4, 1)
        seeds = noise.seeds(3, tf.range(6))
        model = l2(0.5)
        for kind in ("uniform", "gaussian"):
            whole = model.random_start(images, seeds, kind=kind).numpy()
            part = model.random_start(
                images[[4, 1]], tf.gather(seeds, [4, 1]), kind=kind
            )
            np.testing.assert_array_equal(part, whole[[4, 1]])
            assert (lengths(whole, images) <= 0.5 * (1 + 1e-6)).all()
        same = model.random_start(images, seeds, kind="none")
        np.testing.assert_array_equal(same.numpy(), images)

    @pytest.mark.parametrize("start", ["uniform", "gaussian", "none"])
    def test_attacks_find_the_optimum_of_a_linear_network(self, start):
        weights = tf.constant(random_images(12, 2) - 0.5)
        images = tf.constant(0.4 + 0.2 * random_images(8, 12))
        labels = tf.constant([0, 1] * 4)
        # The cross-entropy of one class rises along the other's weights less
        # its own; the box is too far away to bind.
        towards = (weights[:, 1] - weights[:, 0]).numpy()
        towards = towards / np.linalg.norm(towards)
        signs = np.where(labels.numpy() == 0, 1.0, -1.0)[:, None]
        model = l2(0.3)
        best = images + 0.3 * signs * towards
        found = attacks.pgd(
            lambda x: x @ weights,
            images,
            labels,
            model,
            # Each step at least halves the distance to the optimum.
            steps=20,
            step_size=0.3,
            random_start=start,
            seed=0,
        )
        np.testing.assert_allclose(found, best, atol=1e-5)
        np.testing.assert_allclose(
            attacks.fgsm(lambda x: x @ weights, images, labels, model),
            best,
            atol=1e-6,
        )

    def test_attacks_take_a_radius_and_a_step_per_example(self):
        weights = tf.constant([[1.0, -1.0], [-1.0, 2.0]])
        images = tf.fill([3, 2], 0.5)
        radius = tf.constant([0.0, 0.1, 0.2])
        found = attacks.pgd(
            lambda x: x @ weights,
            images,
            tf.zeros([3], tf.int32),
            l2(0.4),
            steps=5,
            epsilon=radius,
            random_start="none",
        )
        # Class 0 loses along (-2, 3).
        direction = np.array([-2.0, 3.0]) / np.sqrt(13)
        np.testing.assert_allclose(
            found, images + radius[:, None] * direction, atol=1e-6
        )

    def test_no_gradient_reaches_the_weights_through_the_attack(self):
        # Unlike a sign, a normalised gradient has a derivative.
        weights = tf.Variable(random_images(4, 2))
        images = tf.constant(random_images(3, 4))
        labels = tf.constant([0, 1, 0])
        with tf.GradientTape(persistent=True) as tape:
            totals = [
                tf.reduce_sum(attack(lambda x: x @ weights))
                for attack in (
                    lambda f: attacks.fgsm(f, images, labels, l2(0.1)),
                    lambda f: attacks.pgd(f, images, labels, l2(0.1), steps=2),
                )
            ]
        assert [tape.gradient(total, weights) for total in totals] == [None] * 2


def test_a_start_that_is_none_of_these_is_refused():
    images = tf.zeros([1, 2, 2, 1])
    with pytest.raises(ValueError, match="Unknown random start 'gausian'"):
        threat.ThreatModel().random_start(images, [[0, 0]], kind="gausian")
    with pytest.raises(ValueError, match="expected a finite number"):
        threat.ThreatModel(epsilon=10**400)
