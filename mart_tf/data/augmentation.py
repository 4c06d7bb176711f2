"""Pad, crop and flip: a pure function of the seed, the epoch and the row.

The augmentation of He et al. (CVPR 2016), section 4.2, on CIFAR-10: 4 pixels of
zeros on each side, a random crop of the original size, and a horizontal flip of
half of the images.
"""

import tensorflow as tf

from mart_tf import noise

PADDING = 4
_STREAM = 0x415547  # A stream of its own in the seed's numbers.


def offsets(indices, seed, epoch):
    """What happens to each example in an epoch.

    Args:
        indices: Int64 tensor `[batch]`, the examples' rows.
        seed: An integer.
        epoch: An integer or an int64 scalar.

    Returns:
        Three tensors `[batch]`: the top row and the left column of the crop in
        the padded image, int32 in [0, 8], and whether it is flipped, bool.
    """
    stream = noise.fold(tf.constant(seed, tf.int64), _STREAM)
    draws = noise.uniform(noise.seeds(noise.fold(stream, epoch), indices), [3])
    places = tf.cast(draws[:, :2] * (2 * PADDING + 1), tf.int32)
    return places[:, 0], places[:, 1], draws[:, 2] < 0.5


def augment(images, indices, seed, epoch):
    """The examples as an epoch sees them.

    Args:
        images: Tensor `[batch, height, width, channels]` of any dtype.
        indices: Int64 tensor `[batch]`, the examples' rows.
        seed: An integer.
        epoch: An integer or an int64 scalar.

    Returns:
        A tensor of the images' shape and dtype.
    """
    height, width = images.shape[1:3]
    top, left, flip = offsets(indices, seed, epoch)
    rows = top[:, None] + tf.range(height)
    columns = tf.range(width)
    columns = tf.where(flip[:, None], columns[::-1], columns) + left[:, None]
    around = [PADDING, PADDING]
    images = tf.pad(images, [[0, 0], around, around, [0, 0]])
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)
