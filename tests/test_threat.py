"""The threat model: exact bounds, starts, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf

from mart_tf import noise
from mart_tf import threat


def bounds(images, epsilon, low=0.0, high=1.0):
    epsilon = np.float32(epsilon)
    lower = np.maximum(images - epsilon, np.float32(low))
    return lower, np.minimum(images + epsilon, np.float32(high))


def random_images(*shape):
    return np.random.RandomState(0).rand(*shape).astype("float32")


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
    assert model.random_start(images, seeds, kind="none") is images


def test_a_gradient_that_is_not_finite_gives_no_step():
    model = threat.ThreatModel()
    step = model.ascent(tf.constant([np.nan, np.inf, -2.0, 0.0, 1e-30]))
    np.testing.assert_array_equal(step, [0.0, 0.0, -1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"epsilon": 0}, "epsilon is 0.0; expected a radius above 0"),
        ({"epsilon": 1.5}, "at most 1.0, the pixel range"),
        ({"epsilon": float("nan")}, "expected a finite number"),
        ({"epsilon": "big"}, "expected a finite number"),
        ({"norm": "l2"}, "Unknown norm 'l2'"),
        ({"pixel_min": 1.0}, "expected pixel_min below pixel_max"),
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
