"""The shortest moves of points onto hyperplanes, inside the pixel range."""

import tensorflow as tf

from mart_tf import threat as threat_model


@tf.function(reduce_retracing=False)
def shortest_move(points, weights, values, threat):
    """Projection onto a hyperplane and the box (Croce and Hein, ICML 2020).

    What FAB solves exactly in every step, with d = z - x and the linear
    function's value at x:

        min ||d||  s.t.  <w, d> + value = 0,  pixel_min <= x + d <= pixel_max

    in the threat model's norm. Every pixel moves along the steepest ascent
    (or descent) until it meets its bound, however far the others go:

        |d_i| = min(t a_i, room_i),   linf: a_i = 1,   l2: a_i = |w_i|

    (a_i = 0 where w_i = 0). What is gained, sum_i |w_i| |d_i|, is concave and
    piecewise linear in t, so that Newton's method from t = 0 climbs to the
    solution without passing it: each step fixes more pixels at their bounds,
    and the one that fixes no more is exact.

    Args:
        points: Float32 tensor `[batch, ...]`, x, inside the pixel range.
        weights: Float32 tensor of the same shape, w.
        values: Float32 tensor `[batch]`, the linear function at the points.
            A weight or a value that is not finite counts as 0.
        threat: The `ThreatModel`; its epsilon is not used.

    Returns:
        d, of the points' shape. Where the hyperplane does not meet the box,
        the move to the nearest corner: all pixels of weight other than 0 at
        their bounds. Where all weights are 0, no move.
    """
    axes = threat_model.pixel_axes(points)
    weights = threat_model.finite(weights)
    values = threat_model.finite(values)
    # Over the dual norm: the products of what a confident network's gradients
    # are, 1e-20, would vanish.
    scale = threat.dual_norm(weights)
    goal = tf.math.divide_no_nan(tf.abs(values), scale)
    direction = threat.ascent(weights)
    speed = tf.abs(direction)
    weights = tf.abs(
        tf.math.divide_no_nan(weights, threat.radius(points, scale))
    )
    direction *= threat.radius(points, -tf.sign(values))
    room = tf.where(
        direction > 0.0, threat.pixel_max - points, points - threat.pixel_min
    )
    gain, most = weights * speed, weights * room

    def newton(length, _):
        free = threat.radius(points, length) * speed < room
        rest = goal - tf.reduce_sum(tf.where(free, 0.0, most), axes)
        slope = tf.reduce_sum(tf.where(free, gain, 0.0), axes)
        following = tf.where(slope > 0.0, rest / slope, length.dtype.max)
        # Else times a speed of 0, where a weight is 0, it would be NaN.
        following = tf.minimum(following, length.dtype.max)
        # Rounding alone can lead back: then the solution is reached.
        return tf.maximum(following, length), following > length

    length, _ = tf.while_loop(
        lambda _, moving: tf.reduce_any(moving),
        newton,
        (tf.zeros_like(goal), tf.ones_like(goal, tf.bool)),
    )
    moved = tf.minimum(threat.radius(points, length) * speed, room)
    return tf.sign(direction) * moved
