"""Noise: the published generator, and an example's noise is its own."""

import numpy as np
import scipy.stats
import splitmix
import tensorflow as tf

from mart_tf import noise


def test_reference_is_the_published_generator():
    # First outputs of SplitMix64 from state 0, as in the JDK and the paper's
    # reference code.
    np.testing.assert_array_equal(
        splitmix.sequence(0, 3),
        np.array(
            [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
            dtype=np.uint64,
        ),
    )


def test_equals_the_reference():
    seeds = noise.seeds(-5, tf.constant([0, 3, 2**40]))
    values = noise.uniform(seeds, [3, 3, 1]).numpy()
    for row, example in enumerate([0, 3, 2**40]):
        np.testing.assert_array_equal(
            values[row].ravel(), splitmix.uniform(-5, example, 9)
        )
    assert noise.fold(7, -1).numpy() == splitmix.fold(7, -1)


def test_normal_equals_the_reference():
    seeds = noise.seeds(-5, tf.constant([0, 3, 2**40]))
    values = noise.normal(seeds, [3, 3, 1]).numpy()
    for row, example in enumerate([0, 3, 2**40]):
        np.testing.assert_allclose(
            values[row].ravel(), splitmix.normal(-5, example, 9), rtol=1e-6
        )


def test_does_not_depend_on_the_batch_or_on_xla():
    seeds = noise.seeds(1, tf.range(6))
    whole = noise.uniform(seeds, [5, 5])
    order = [4, 1, 5]
    np.testing.assert_array_equal(
        noise.uniform(tf.gather(seeds, order), [5, 5]), tf.gather(whole, order)
    )
    compiled = tf.function(noise.uniform, jit_compile=True)
    np.testing.assert_array_equal(compiled(seeds, [5, 5]), whole)


def test_is_uniform_and_normal_and_uncorrelated():
    seeds = noise.seeds(noise.fold(0, 12), tf.range(200))
    values = noise.uniform(seeds, [28, 28, 1]).numpy().reshape(200, -1)
    assert values.min() >= 0.0 and values.max() < 1.0
    assert scipy.stats.kstest(values.ravel(), "uniform").pvalue > 1e-3
    neighbours = np.corrcoef(values)
    assert np.abs(neighbours - np.eye(200)).max() < 0.2
    normal = noise.normal(seeds, [28, 28, 1]).numpy().ravel()
    assert scipy.stats.kstest(normal, "norm").pvalue > 1e-3
