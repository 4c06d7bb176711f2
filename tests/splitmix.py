"""SplitMix64 in numpy, the reference for the noise of mart_tf."""

import numpy as np


def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _unsigned(value):
    return np.asarray(value, np.int64).view(np.uint64)


def sequence(seed, count):
    """The first outputs of SplitMix64 from a state."""
    places = np.arange(1, count + 1, dtype=np.uint64)
    return _mix(np.uint64(seed) + places * np.uint64(0x9E3779B97F4A7C15))


def fold(seed, number):
    """`mart_tf.noise.fold`."""
    with np.errstate(over="ignore"):
        return _mix(_mix(_unsigned([seed])) + _unsigned([number]))[0].astype(
            np.int64
        )


def uniform(seed, example, count):
    """`mart_tf.noise.uniform` for one example of `count` numbers."""
    with np.errstate(over="ignore"):
        start = _mix(_mix(_unsigned([seed])) + _unsigned([example]))[0]
        bits = sequence(start, (count + 1) // 2)
    halves = bits.view(np.uint32)[:count] >> np.uint32(8)
    return halves.astype(np.float32) * np.float32(2.0**-24)


def normal(seed, example, count):
    """`mart_tf.noise.normal` for one example of `count` numbers.

    Box and Muller (1958), with 1 - u under the logarithm: u may be 0.
    """
    pairs = uniform(seed, example, 2 * count).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log(1.0 - pairs[:count]))
    return radius * np.cos(2.0 * np.pi * pairs[count:])
