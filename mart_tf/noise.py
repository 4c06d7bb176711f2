"""Random numbers that belong to an example, not to its place in a batch.

Each example has a seed of two integers; its numbers are the SplitMix64
sequence (Steele, Lea and Flood, OOPSLA 2014) started from a hash of them. So
an example's noise is the same on one replica or eight, in a re-packed batch,
in a resumed run, and with or without XLA: the arithmetic is integer and exact.
"""

import math

import tensorflow as tf

_GAMMA = 0x9E3779B97F4A7C15


def seeds(seed, examples):
    """One seed per example from a common seed and the examples' numbers.

    Args:
        seed: An integer, or an integer tensor: scalar, or shape `[batch]`.
        examples: Integer tensor `[batch]`: data set rows, or positions.

    Returns:
        An int64 tensor `[batch, 2]`, what `uniform` and `normal` take.
    """
    examples = tf.cast(examples, tf.int64)
    seed = tf.broadcast_to(tf.cast(seed, tf.int64), tf.shape(examples))
    return tf.stack([seed, examples], axis=1)


def fold(seed, number):
    """A new int64 seed from a seed and a number (a step, a stream)."""
    return tf.bitcast(_mix(_mix(_unsigned(seed)) + _unsigned(number)), tf.int64)


def uniform(seeds, shape):
    """Uniform numbers in [0, 1), float32, on a grid of 2^-24.

    Args:
        seeds: Integer tensor `[batch, 2]`, one seed per example.
        shape: Shape of an example, integers.

    Returns:
        A float32 tensor `[batch, *shape]`.
    """
    shape = [int(size) for size in shape]
    count = math.prod(shape)
    start = _mix(_mix(_unsigned(seeds[:, 0])) + _unsigned(seeds[:, 1]))
    # Each 64-bit output gives two 24-bit fractions.
    places = tf.cast(tf.range(1, (count + 1) // 2 + 1), tf.uint64)
    bits = _mix(start[:, None] + places * _constant(_GAMMA))
    halves = tf.reshape(
        tf.bitcast(bits, tf.uint32), [-1, 2 * ((count + 1) // 2)]
    )[:, :count]
    fractions = tf.bitwise.right_shift(halves, tf.constant(8, tf.uint32))
    # uint32 has no float cast everywhere; 24 bits fit an int32.
    values = tf.cast(tf.cast(fractions, tf.int32), tf.float32) * 2.0**-24
    return tf.reshape(values, [-1, *shape])


def normal(seeds, shape):
    """Standard normal numbers, float32, by the Box-Muller transform.

    Args and result are those of `uniform`.
    """
    # In float32 the last bits of these functions hang on a number's place in
    # the tensor, because vectorised kernels treat its tail otherwise.
    pairs = tf.cast(uniform(seeds, [2, *shape]), tf.float64)
    # 1 - u lies in (0, 1]: the logarithm is finite.
    radius = tf.sqrt(-2.0 * tf.math.log1p(-pairs[:, 0]))
    return tf.cast(radius * tf.cos(2.0 * math.pi * pairs[:, 1]), tf.float32)


def _mix(z):
    z = _xor_shift(z, 30) * _constant(0xBF58476D1CE4E5B9)
    z = _xor_shift(z, 27) * _constant(0x94D049BB133111EB)
    return _xor_shift(z, 31)


def _xor_shift(z, places):
    return tf.bitwise.bitwise_xor(
        z, tf.bitwise.right_shift(z, _constant(places))
    )


def _constant(value):
    return tf.constant(value, tf.uint64)


def _unsigned(value):
    # A bitcast, because a negative seed must not be undefined behaviour.
    return tf.bitcast(tf.cast(value, tf.int64), tf.uint64)
