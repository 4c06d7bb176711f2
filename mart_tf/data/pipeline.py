"""Batches of the one form that training and evaluation take.

({"image": float32 [batch, height, width, channels] in [0, 1],
  "index": int64 [batch], the row in the source's set},
 label int32 [batch], weight float32 [batch])
"""

import operator

import numpy as np
import tensorflow as tf

from mart_tf.data import augmentation


def steps_per_epoch(split, batch_size):
    """How many whole batches an epoch has; the remainder is dropped.

    Raises:
        ValueError: If the split has fewer examples than a batch.
    """
    batch_size = _whole("batch_size", batch_size, 1)
    if len(split) < batch_size:
        raise ValueError(
            f"A batch of {batch_size} is larger than the {len(split)} training "
            "examples; choose a smaller batch_size."
        )
    return len(split) // batch_size


def training_batches(split, batch_size, *, seed=0, augment=False, start_step=0):
    """Endless training batches, a pure function of the seed and the step.

    An epoch is one permutation of the split cut into whole batches. Started at
    `start_step`, the batches are bit for bit those that follow step
    `start_step - 1`.

    Args:
        split: A split of a `Dataset`.
        batch_size: Examples in a batch, at least 1.
        seed: An integer; another gives other permutations and augmentations.
        augment: Whether to pad, crop and flip.
        start_step: Batches already consumed. TFDS data that streams starts at
            the beginning of an epoch alone.

    Returns:
        An infinite `tf.data.Dataset`; its shapes are static, its weights 1.

    Raises:
        ValueError: If a batch is larger than the split, or the start step is
            one that the split cannot start at.
    """
    steps = steps_per_epoch(split, batch_size)
    start_step = _whole("start_step", start_step, 0)
    batches = tf.data.Dataset.zip(
        tf.data.Dataset.counter(start_step),
        split.shuffled(batch_size, seed, start_step),
    )

    def example_batch(step, examples):
        images, labels, indices = examples
        if augment:
            images = augmentation.augment(images, indices, seed, step // steps)
        return _batch(images, labels, indices, tf.ones([batch_size]))

    batches = batches.map(example_batch, num_parallel_calls=tf.data.AUTOTUNE)
    return _finish(batches, tf.data.INFINITE_CARDINALITY)


def evaluation_batches(split, batch_size):
    """Every example exactly once, in order.

    The last batch is filled up with repetitions whose weight is 0 and whose
    index is -1; the weight of every real example is 1.

    Args:
        split: A split of a `Dataset`.
        batch_size: Examples in a batch, at least 1.

    Returns:
        A finite `tf.data.Dataset` with static shapes.
    """
    batch_size = _whole("batch_size", batch_size, 1)

    def fill(images, labels, indices):
        places = tf.range(batch_size)
        size = tf.shape(labels)[0]
        real = places < size
        images, labels, indices = (
            tf.gather(tensor, tf.minimum(places, size - 1))
            for tensor in (images, labels, indices)
        )
        indices = tf.where(real, indices, tf.constant(-1, tf.int64))
        return _batch(images, labels, indices, tf.cast(real, tf.float32))

    batches = split.ordered(batch_size).map(
        fill, num_parallel_calls=tf.data.AUTOTUNE
    )
    return _finish(batches, -(-len(split) // batch_size))


def arrays(split, max_examples=None):
    """The first examples of a split, in order.

    Args:
        split: A split of a `Dataset`.
        max_examples: How many at most, at least 1; default: all.

    Returns:
        Images, float32 `[n, height, width, channels]` in [0, 1], and labels,
        int32 `[n]`.
    """
    count = len(split)
    if max_examples is not None:
        count = min(count, _whole("max_examples", max_examples, 1))
    images = np.empty([count, *split.image_shape], np.float32)
    labels = np.empty([count], np.int32)
    batch_size = 256
    batches = split.ordered(batch_size).take(-(-count // batch_size))
    start = 0
    for some_images, some_labels, _ in batches:
        stop = min(start + batch_size, count)
        images[start:stop] = _pixels(some_images)[: stop - start]
        labels[start:stop] = some_labels[: stop - start]
        start = stop
    return images, labels


def _finish(batches, cardinality):
    # A shuffle buffer or a filter hides how many there are; Keras asks.
    known = tf.data.experimental.assert_cardinality(cardinality)
    return batches.apply(known).prefetch(tf.data.AUTOTUNE)


def _batch(images, labels, indices, weights):
    return {"image": _pixels(images), "index": indices}, labels, weights


def _pixels(images):
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    return images


def _whole(name, value, least):
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(
            f"{name} is {value!r}; expected a whole number of at least {least}."
        )
    return number
