"""Adam (Kingma and Ba, ICLR 2015) on a batch, each example at its own step."""

import tensorflow as tf

from mart_tf import threat as threat_model

_MEAN_DECAY = 0.9
_SQUARE_DECAY = 0.999
_SMALL = 1e-8


def step(slope, mean, square, count):
    """The step of length about 1 in each pixel, along the slope.

        mean / (1 - 0.9^count) / (sqrt(square / (1 - 0.999^count)) + 1e-8)

    Args:
        slope: Gradients, float32 `[batch, ...]`, finite.
        mean, square: Means of the slopes so far and of their squares, of the
            same shape; at first 0.
        count: The number of the step from 1, float32, `[batch, 1, ...]`.

    Returns:
        The step, 0 where it is not finite, and the new means.
    """
    mean += (1.0 - _MEAN_DECAY) * (slope - mean)
    square += (1.0 - _SQUARE_DECAY) * (tf.square(slope) - square)
    taken = (mean / (1.0 - _MEAN_DECAY**count)) / (
        tf.sqrt(square / (1.0 - _SQUARE_DECAY**count)) + _SMALL
    )
    # The square of a huge slope is infinite.
    return threat_model.finite(taken), mean, square
