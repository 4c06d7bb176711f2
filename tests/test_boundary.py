"""The distance to the boundary, against numpy on a classifier with hills."""

import numpy as np
import scipy.special
import splitmix
import tensorflow as tf

from mart_tf import attacks
from mart_tf import noise
from mart_tf import threat

GENERATOR = np.random.RandomState(0)
EXAMPLES, PIXELS, CLASSES = 40, 5, 3
IMAGES = GENERATOR.rand(EXAMPLES, PIXELS).astype("float32")
HEIGHT = GENERATOR.randn(CLASSES, PIXELS)
PITCH = 3 * GENERATOR.randn(CLASSES, PIXELS)
PHASE = GENERATOR.randn(CLASSES, PIXELS)
SEED, STEPS, LIMIT = 7, 5, 0.2
RADII = np.linspace(0.02, 0.18, EXAMPLES).astype("float32")


def angles(images):
    return PITCH * images[:, None] + PHASE


def scores(images):
    """z_c = sum_i h_ci sin(p_ci x_i + s_ci)."""
    return (HEIGHT * np.sin(angles(images))).sum(-1)


LABELS = scores(IMAGES).argmax(1).astype("int32")
TRUTH = np.eye(CLASSES)[LABELS]


def soft_margin(images):
    z = scores(images)
    wrong = np.where(TRUTH == 1, -np.inf, z)
    return scipy.special.logsumexp(wrong, axis=1) - (z * TRUTH).sum(1)


def slope(images):
    """The gradient of the soft logit margin with respect to the pixels."""
    wrong = np.where(TRUTH == 1, -np.inf, scores(images))
    of_scores = scipy.special.softmax(wrong, axis=1) - TRUTH
    of_pixels = HEIGHT * PITCH * np.cos(angles(images))
    return (of_scores[:, :, None] * of_pixels).sum(1)


def by_hand():
    """Algorithm 1 of MMA training in float64: the distances."""
    images, radius = IMAGES.astype("float64"), RADII[:, None].astype("float64")
    low = np.maximum(images - radius, 0)
    high = np.minimum(images + radius, 1)
    start = np.stack(
        [splitmix.uniform(SEED, row, PIXELS) for row in range(EXAMPLES)]
    )
    end = np.clip(images + radius * (2 * start - 1), low, high)
    for _ in range(STEPS):
        step = 2.5 * radius / STEPS * np.sign(slope(end))
        end = np.clip(end + step, low, high)
    direction = (end - images) / abs(end - images).max(1, keepdims=True)

    def crossed(distance):
        at = np.clip(images + distance[:, None] * direction, 0, 1)
        return soft_margin(at) >= 0

    least, most = np.zeros(EXAMPLES), np.full(EXAMPLES, LIMIT)
    distance = np.minimum(RADII.astype("float64"), LIMIT)
    for _ in range(10):
        beyond = crossed(distance)
        least = np.where(beyond, least, distance)
        most = np.where(beyond, distance, most)
        distance = (least + most) / 2
    return distance


def test_finds_what_the_algorithm_finds():
    def classify(images):
        height, pitch, phase = (
            tf.constant(values, tf.float32) for values in (HEIGHT, PITCH, PHASE)
        )
        return tf.reduce_sum(
            height * tf.sin(pitch * images[:, None] + phase), -1
        )

    crossing, distance = attacks.nearest_crossing(
        classify,
        tf.constant(IMAGES),
        tf.constant(LABELS),
        threat.ThreatModel(),
        epsilon=tf.constant(RADII),
        limit=LIMIT,
        steps=STEPS,
        start="uniform",
        seed=noise.seeds(SEED, tf.range(EXAMPLES)),
    )
    expected = by_hand()
    # Some cross inside their radius, some beyond it, some nowhere.
    assert (expected < RADII).any()
    assert ((expected > RADII) & (expected < 0.99 * LIMIT)).any()
    assert (expected > 0.99 * LIMIT).any()
    np.testing.assert_allclose(distance, expected, atol=1e-5)
    moved = abs(crossing.numpy() - IMAGES).max(1)
    assert (moved <= distance.numpy() + 1e-6).all()
