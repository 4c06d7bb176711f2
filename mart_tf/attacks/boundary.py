"""The distance to the decision boundary along the direction of an attack."""

import tensorflow as tf

from mart_tf import losses
from mart_tf.attacks import gradient

_BISECTIONS = 10
# A step of PGD, as a share of epsilon / steps.
_STEP = 2.5


def nearest_crossing(
    classify, images, labels, threat, *, epsilon, limit, steps, start, seed
):
    """Where each example crosses the boundary (Ding et al., ICLR 2020).

    Algorithm 1 of MMA training: PGD of `steps` steps of 2.5 epsilon / steps
    on the soft logit margin

        SLM(x) = log sum_{k != y} exp z_k(x) - z_y(x)

    inside a radius of the example's own gives a direction; ten bisections
    along it, from 0 to `limit`, the first at that radius, find the distance at
    which SLM is 0.

    Args:
        classify: Maps images to logits `[batch, classes]`.
        images: Natural examples, float32 `[batch, ...]`.
        labels: Integer classes `[batch]`.
        threat: The `ThreatModel`; its epsilon is not used.
        epsilon: Radius of each example's attack, `[batch]`, above 0.
        limit: Greatest distance looked at, a scalar.
        steps: Steps of PGD.
        start: Random start of PGD, as in `pgd`.
        seed: As in `pgd`.

    Returns:
        The examples at the crossing, of the images' shape, and their distance
        `[batch]`, above 0 and at most `limit`: within `limit` / 2^10 of a
        crossing, or of `limit` where there is none.
    """
    end = gradient.pgd(
        classify,
        images,
        labels,
        threat,
        steps=steps,
        step_size=_STEP * epsilon / steps,
        objective=losses.soft_margin,
        random_start=start,
        epsilon=epsilon,
        seed=seed,
    )
    length = threat.radius(images, threat.distance(end, images))
    direction = tf.math.divide_no_nan(end - images, length)

    def at(distance):
        moved = images + threat.radius(images, distance) * direction
        return threat.project(moved, images, limit)

    def halve(low, high, distance):
        crossed = losses.soft_margin(labels, classify(at(distance))) >= 0.0
        low = tf.where(crossed, low, distance)
        high = tf.where(crossed, distance, high)
        return low, high, (low + high) / 2.0

    low = tf.zeros_like(epsilon)
    high = tf.fill(tf.shape(epsilon), tf.cast(limit, tf.float32))
    distance = tf.minimum(epsilon, high)
    for _ in range(_BISECTIONS):
        low, high, distance = halve(low, high, distance)
    return tf.stop_gradient(at(distance)), tf.stop_gradient(distance)
