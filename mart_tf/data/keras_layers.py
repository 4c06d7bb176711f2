"""Keras's layers for images as augmentations: seeded by the example."""

import keras
import numpy as np
import tensorflow as tf

from mart_tf.data import augmentation

# Images that show whether a layer draws from a state of its own.
_TRIED = 16
# What a layer is shown, Keras's own `value_range`.
_LEVELS = (0, 255)


class KerasLayer(augmentation.Augmentation):
    """A layer such as `keras.layers.RandomRotation(0.1)`, an image at a time.

    A layer transforms a batch by numbers of one seed. Here each example has a
    seed of its own, so what an image becomes does not hang on those beside it.
    The layer sees levels from 0 to 255, and a `value_range` is that.

    Args:
        layer: One with Keras's `get_random_transformation` and
            `transform_images`, whose draws are all of the seed it is given.
    """

    # Two times 24 bits of a seed.
    draws = 2

    def __init__(self, layer):
        self.layer = layer

    def check(self, image_shape):
        name = type(self.layer).__name__
        if isinstance(self.layer, keras.layers.CutMix | keras.layers.MixUp):
            raise ValueError(
                f"The augmentation {name} mixes the labels of images too, and "
                "attack and loss take one class an image."
            )
        levels = getattr(self.layer, "value_range", _LEVELS)
        if not np.array_equal(levels, _LEVELS):
            raise ValueError(
                f"The augmentation {name} has value_range={levels}; expected "
                f"{_LEVELS}, Keras's own: it is shown levels from 0 to 255, "
                "whatever the images' pixel range is."
            )
        images = tf.random.stateless_uniform([_TRIED, *image_shape], [0, 0])
        numbers = augmentation.numbers_of(tf.range(_TRIED), 0, 0, self.draws)
        once, again = self(images, numbers), self(images, numbers)
        if once.shape == again.shape and not tf.reduce_all(once == again):
            raise ValueError(
                f"The augmentation {name} does not take the seed that it is "
                "given: it draws from a state of its own, and a run with it "
                "would not resume bit for bit. Other layers of Keras take "
                "theirs, and so does randaugment."
            )

    def __call__(self, images, numbers):
        greatest = 1.0 if images.dtype.is_floating else 255.0
        levels = tf.cast(images, tf.float32) * (255.0 / greatest)
        seeds = tf.cast(numbers * 2.0**24, tf.int32)
        changed = tf.map_fn(
            self._changed, (levels, seeds), fn_output_signature=tf.float32
        )
        changed = tf.clip_by_value(changed, 0.0, 255.0) / (255.0 / greatest)
        if not images.dtype.is_floating:
            changed = tf.round(changed)
        return tf.cast(changed, images.dtype)

    def _changed(self, example):
        image, seed = example
        batch = image[None]
        change = self.layer.get_random_transformation(
            batch, training=True, seed=_Given(seed)
        )
        changed = self.layer.transform_images(batch, change, training=True)
        return tf.cast(changed[0], tf.float32)


class _Given(keras.random.SeedGenerator):
    """Keras's form of a seed, its state a tensor and its count Python's.

    Args:
        seed: Int32 tensor of two whole numbers below 2^24.
    """

    def __init__(self, seed):
        # No variable: none may be made inside a map of a data set.
        self._seed, self._drawn = seed, 0

    def next(self, ordered=True):
        self._drawn += 1
        return self._seed + [0, self._drawn << 24]
