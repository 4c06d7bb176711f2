"""What a machine can compute at most, and what a training step takes of it."""

import time

import keras
import numpy as np
import tensorflow as tf


def mart_passes(attack_steps):
    """Forward passes of a MART step, and what costs as much as one.

    A step of PGD is one forward and one backward pass to the images; a
    training pass is one forward, and backward to activations and to weights;
    MART makes two of those.
    """
    return 2 * attack_steps + 2 * 3


def matrix_product_peak(dtype, size=None):
    """FLOP/s of a large matrix product, the best of several."""
    if size is None:
        size = 8192 if tf.config.list_physical_devices("GPU") else 2048
    a = tf.cast(tf.random.normal([size, size]), dtype)
    product = tf.function(lambda x: tf.reduce_sum(x @ x))
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        float(product(a))
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def forward_flops(model):
    """FLOPs of one image's forward pass: convolutions and dense layers."""
    return sum(map(layer_flops, model.layers))


def layer_flops(layer):
    """FLOPs of one image in a layer: two for each multiplication it adds."""
    if not isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        return 0
    places = np.prod(layer.output.shape[1:-1], dtype=int)
    return 2 * int(np.prod(layer.kernel.shape)) * int(places)
