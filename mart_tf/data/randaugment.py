"""RandAugment: some of fourteen operations, each as strong as the others."""

import math

import numpy as np
import tensorflow as tf

from mart_tf import bounds
from mart_tf.data import augmentation

# As the paper lists them (section 3).
OPERATIONS = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
_GREATEST = bounds.OPTIONS["magnitude"].greatest
# Of Table 6 of Cubuk et al. (CVPR 2019), at the greatest magnitude: degrees,
# pixels a pixel, of 331 pixels, and what an image is blended by.
_DEGREES, _SHEAR, _SHIFT, _BLEND = 30.0, 0.3, 150 / 331, 0.9


class RandAugment(augmentation.Augmentation):
    """Operations of fourteen, drawn with replacement (Cubuk et al., 2020).

    Each is as likely, and has the magnitude's share of the range of Table 6 of
    AutoAugment (CVPR 2019): at 10 a rotation of 30 degrees, a shear of 0.3, a
    shift of 150/331 of the side, color, contrast, brightness and sharpness
    blended by 1.9 or 0.1, 4 bits left, every pixel solarized. What has two
    directions takes each half the time. Pixels are whole grey levels, of 255,
    as in Pillow, whose operations these are; what is moved in is black.

    Args:
        operations: How many an image has, the paper's N, at least 1.
        magnitude: The paper's M, from 0 to 10. torchvision's default, 9 of 30,
            is 3 here.
    """

    def __init__(self, operations: int = 2, magnitude: float = 3.0):
        allowed = bounds.OPTIONS
        self.operations = allowed["operations"].check(
            "randaugment:operations", operations
        )
        self.magnitude = allowed["magnitude"].check(
            "randaugment:magnitude", magnitude
        )
        # Of each operation which it is, and its direction.
        self.draws = 2 * operations

    def check(self, image_shape):
        *sides, channels = image_shape
        if channels not in (1, 3) or min(sides) < 3:
            raise ValueError(
                f"randaugment is of grey or RGB images of at least 3x3 pixels, "
                f"and these are {'x'.join(map(str, image_shape))}."
            )

    def __call__(self, images, numbers):
        levels = images
        if images.dtype.is_floating:
            levels = tf.cast(tf.round(255.0 * images), tf.uint8)
        for drawn in tf.split(numbers, self.operations, axis=1):
            chosen = tf.cast(drawn[:, 0] * len(OPERATIONS), tf.int32)
            backwards = drawn[:, 1] < 0.5
            levels = _changed(levels, chosen, backwards, self.magnitude)
        if images.dtype.is_floating:
            return tf.cast(levels, images.dtype) / 255.0
        return levels


def _changed(levels, chosen, backwards, magnitude):
    """Grey levels after the operation that each image has.

    Args:
        levels: Uint8 tensor `[batch, height, width, channels]`.
        chosen: Int32 tensor `[batch]`, places in `OPERATIONS`.
        backwards: Boolean tensor `[batch]`: the direction.
        magnitude: From 0 to 10.
    """
    share = magnitude / _GREATEST
    sign = tf.where(backwards, -1.0, 1.0)[:, None, None, None]
    # All of a batch at once: one map an operation, and one for those that move.
    changed = _moved(levels, chosen, backwards, share)
    factor = 1.0 + _BLEND * share * sign
    values = tf.cast(levels, tf.int32)
    for name, others in {
        "autocontrast": _stretched(values),
        "equalize": _equalized(values),
        "solarize": tf.where(
            values < round(256 * (1.0 - share)), values, 255 - values
        ),
        "posterize": values - values % 2 ** round(4 * share),
        "color": _blended(_grey(values), values, factor),
        "contrast": _blended(_mean(_grey(values)), values, factor),
        "brightness": _blended(tf.zeros_like(values), values, factor),
        "sharpness": _blended(_smoothed(values), values, factor),
    }.items():
        has_it = (chosen == OPERATIONS.index(name))[:, None, None, None]
        changed = tf.where(has_it, tf.cast(others, tf.uint8), changed)
    return changed


def _moved(levels, chosen, backwards, share):
    """Rotated, sheared and shifted, nearest neighbours."""
    height, width = levels.shape[1:3]
    transforms = np.stack(
        [
            [_transform(name, sign * share, height, width) for sign in (1, -1)]
            for name in OPERATIONS
        ]
    )
    places = tf.stack([chosen, tf.cast(backwards, tf.int32)], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=levels,
        transforms=tf.gather_nd(tf.constant(transforms, tf.float32), places),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )


def _transform(name, share, height, width):
    """Where a pixel comes from, as TensorFlow takes it: eight numbers."""
    matrix, shift = np.eye(2), np.zeros(2)
    if name == "rotate":
        angle = math.radians(_DEGREES * share)
        cos, sin = math.cos(angle), math.sin(angle)
        matrix = np.array([[cos, -sin], [sin, cos]])
        middle = np.array([width, height]) / 2
        shift = middle - matrix @ middle
    elif name == "shear_x":
        matrix[0, 1] = _SHEAR * share
    elif name == "shear_y":
        matrix[1, 0] = _SHEAR * share
    elif name == "translate_x":
        shift[0] = round(_SHIFT * share * width)
    elif name == "translate_y":
        shift[1] = round(_SHIFT * share * height)
    # Of the centres of pixels, not of their corners.
    shift = shift + matrix @ [0.5, 0.5] - 0.5
    return [*matrix[0], shift[0], *matrix[1], shift[1], 0.0, 0.0]


def _stretched(values):
    """Each channel from 0 to 255, unless it is of one level."""
    low = tf.reduce_min(values, [1, 2], keepdims=True)
    width = tf.reduce_max(values, [1, 2], keepdims=True) - low
    stretched = 255 * (values - low) // tf.maximum(width, 1)
    return tf.where(width > 0, stretched, values)


def _equalized(values):
    """Each channel by its histogram, as Pillow's `ImageOps.equalize`."""
    shape = tf.shape(values)
    height, width, channels = values.shape[1:]
    flat = tf.reshape(tf.transpose(values, [0, 3, 1, 2]), [-1, height * width])
    counts = tf.math.bincount(flat, minlength=256, maxlength=256, axis=-1)
    greatest = tf.reduce_max(flat, axis=1, keepdims=True)
    # All pixels but those of the greatest level there is.
    step = tf.gather(counts, greatest, batch_dims=1)
    step = (height * width - step) // 255
    before = tf.cumsum(counts, axis=1, exclusive=True)
    table = (step // 2 + before) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    changed = tf.gather(table, flat, batch_dims=1)
    changed = tf.reshape(changed, [shape[0], channels, height, width])
    return tf.transpose(changed, [0, 2, 3, 1])


def _grey(values):
    """The luma of ITU-R 601-2, in whole levels."""
    if values.shape[-1] == 1:
        return values
    luma = tf.reduce_sum(values * [19595, 38470, 7471], -1, keepdims=True)
    return tf.broadcast_to((luma + 2**15) // 2**16, tf.shape(values))


def _mean(values):
    """The mean of each image, in whole levels."""
    count = values.shape[1] * values.shape[2]
    total = tf.reduce_sum(values[..., :1], [1, 2], keepdims=True)
    mean = (2 * total + count) // (2 * count)
    return tf.broadcast_to(mean, tf.shape(values))


def _smoothed(values):
    """A pixel five times and its neighbours once; the border as it is."""
    height, width = values.shape[1:3]
    total = 4 * values[:, 1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            total += values[
                :, row : row + height - 2, column : column + width - 2
            ]
    edges = [[0, 0], [1, 1], [1, 1], [0, 0]]
    inside = tf.pad(tf.ones_like(total, tf.bool), edges)
    return tf.where(inside, tf.pad((2 * total + 13) // 26, edges), values)


def _blended(others, values, factor):
    """The others at factor 0, the image at 1, beyond it at more."""
    others = tf.cast(others, tf.float32)
    blended = others + factor * (tf.cast(values, tf.float32) - others)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.int32)
