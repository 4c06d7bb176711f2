"""Batches of the one form that training and evaluation take.

({"image": float32 [batch, height, width, channels] in the pixel range,
  "index": int64 [batch], the row in the source's set; a pool's rows follow},
 label int32 [batch], weight float32 [batch])
"""

import functools
import operator

import numpy as np
import tensorflow as tf

from mart_tf import bounds
from mart_tf import limits
from mart_tf import noise
from mart_tf.data import augmentation
from mart_tf.data import class_weights
from mart_tf.data import pools
from mart_tf.data import shards
from mart_tf.data import splits

_SEED = bounds.Whole(-(2**63), 2**63 - 1)
_POOL = 0x504F4F4C  # A stream of its own in the seed's numbers.


def steps_per_epoch(split, batch_size, pool=None, pool_fraction=0.5):
    """Whole batches in one pass over the labelled examples, with a pool too.

    The remainder is dropped.

    Args:
        split: A split of a `Dataset`.
        batch_size: Examples in a batch, those of the pool among them.
        pool: A `Pool` with labels, or None.
        pool_fraction: The pool's share of a batch.

    Raises:
        ValueError: If the split has fewer examples than a batch takes, or the
            pool cannot be used.
    """
    labeled = _labeled(split, batch_size, pool, pool_fraction)
    return len(split) // labeled


def rows(split, pool=None):
    """One more than the greatest index of `training_batches`.

    Args:
        split: A split of a `Dataset`; its indices are the source's rows.
        pool: A `Pool`, or None; its indices follow those of the split.
    """
    return int(np.max(split.indices)) + 1 + (len(pool) if pool else 0)


def training_batches(
    split,
    batch_size,
    *,
    seed=0,
    augment="none",
    start_step=0,
    pool=None,
    pool_fraction=0.5,
    unlabeled_weight=1.0,
    class_weights=None,
    pixel_range=(0.0, 1.0),
    part=(0, 1),
):
    """Endless training batches, a pure function of the seed and the step.

    An epoch is one permutation of the split cut into whole batches. Started at
    `start_step`, the batches are bit for bit those that follow step
    `start_step - 1`.

    A pool gives its share of every batch, spread evenly over its places, so
    that each replica's part is the same mixture. It goes through permutations
    of its own, whatever the length of an epoch. The index of a pool example is
    `rows(split)` plus its row in the pool.

    Args:
        split: A split of a `Dataset`.
        batch_size: Examples in a batch, those of the pool among them; at least
            1, with a pool 2.
        seed: An integer; another gives other permutations and augmentations.
        augment: What is done to the images of each epoch, in order: names as
            `--augment` takes them ("crop,flip"), an `Augmentation`, a layer of
            Keras for images, or a list of these.
        start_step: Batches already consumed.
        pool: A `Pool` with labels, or None.
        pool_fraction: The pool's share of a batch, above 0 and below 1, taken
            to the nearest number of examples.
        unlabeled_weight: The paper's gamma, at least 0: the weight of a pool
            example. A labelled one weighs 1.
        class_weights: What an example's weight is multiplied by, numbers
            `[classes]` by its label, or pseudo-label; None: 1.
        pixel_range: Least and greatest value of a pixel.
        part: Which part of every batch is wanted, counted from 0, and of how
            many equal ones; the parts in turn are the batch.

    Returns:
        An infinite `tf.data.Dataset` with static shapes.

    Raises:
        ValueError: If a batch is larger than the split, the pool cannot be
            used, an augmentation is none for such images, or an argument is
            of another kind.
    """
    labeled = _labeled(split, batch_size, pool, pool_fraction)
    start_step = bounds.whole("start_step", start_step, 0)
    seed = _SEED.check("seed", seed)
    pixel_range = bounds.pixel_range(pixel_range)
    if class_weights is not None:
        class_weights = _weights(class_weights, split, pool)
    augmentations = augmentation.create(augment, split.image_shape)
    order = np.arange(batch_size)
    if pool is not None:
        order = _spread(labeled, batch_size - labeled)
    order = order[_part(batch_size, part)]
    from_split = order < labeled
    # Of a small part of a batch one source may have none.
    sources = []
    if from_split.any():
        own = order[from_split]
        sources.append(
            _examples(split, labeled, seed, augmentations, start_step, own)
        )
    weights = np.ones([len(order)], np.float32)
    if pool is not None:
        pools.check_weight(unlabeled_weight)
        weights[~from_split] = unlabeled_weight
    if not from_split.all():
        others = _examples(
            _pool_split(pool, rows(split)),
            batch_size - labeled,
            int(noise.fold(seed, _POOL)),
            augmentations,
            start_step,
            order[~from_split] - labeled,
        )
        sources.append(others)
    batches = sources[0]
    if len(sources) > 1:
        # Where each is, once those of the split come first.
        places = np.argsort(np.argsort(~from_split, kind="stable"))
        batches = tf.data.Dataset.zip(*sources).map(
            functools.partial(_mixed, places),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def finished(images, labels, indices):
        weight = tf.constant(weights)
        if class_weights is not None:
            weight *= tf.gather(tf.constant(class_weights), labels)
        return _batch(images, labels, indices, weight, pixel_range)

    batches = batches.map(finished, num_parallel_calls=tf.data.AUTOTUNE)
    return _finish(batches, tf.data.INFINITE_CARDINALITY)


def _check_split(split):
    if not hasattr(split, "ordered"):
        raise ValueError(
            f"The split is a {type(split).__name__}; expected dataset.train, "
            "or another split of a data set."
        )


def _weights(given, split, pool):
    """The class weights as float32, one at least for each label at hand."""
    least = 1 + max(
        (
            int(part.labels.max())
            for part in (split, pool)
            # What streams has its labels nowhere.
            if hasattr(part, "labels")
        ),
        default=0,
    )
    try:
        weights = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        weights = np.empty(0)
    if weights.ndim != 1 or len(weights) < least:
        raise ValueError(
            f"class_weights is {bounds.cut(repr(given))}; expected a number "
            f"for each class, at least {least} of them."
        )
    class_weights.check("class_weights", weights.tolist())
    return weights


def _labeled(split, batch_size, pool, pool_fraction):
    """How many examples of a batch are the split's."""
    _check_split(split)
    batch_size = bounds.whole("batch_size", batch_size, 1)
    if pool is None:
        if len(split) < batch_size:
            raise ValueError(
                f"A batch of {batch_size} is larger than the {len(split)} "
                "training examples; choose a smaller batch_size."
            )
        return batch_size
    labeled = batch_size - pools.part_of_batch(
        pool, split.image_shape, batch_size, pool_fraction
    )
    if len(split) < labeled:
        raise ValueError(
            f"A batch of {batch_size} takes {labeled} labelled examples, more "
            f"than the {len(split)} that there are; choose a smaller "
            "batch_size or a larger pool_fraction."
        )
    return labeled


def _part(batch_size, part):
    """The slice of a batch that is one of some equal parts."""
    try:
        index, count = map(operator.index, part)
    except (TypeError, ValueError):
        index, count = 0, 0
    if count < 1 or batch_size % count or not 0 <= index < count:
        raise ValueError(
            f"A batch of {batch_size} has no part {bounds.cut(repr(part))}; "
            "expected its number and that of the equal parts, such as (0, 1)."
        )
    size = batch_size // count
    return slice(index * size, (index + 1) * size)


def _examples(split, count, seed, augmentations, start_step, wanted):
    """Endless batches of images, labels and indices, augmented by epoch.

    Of `count` examples a step those at the places `wanted` come.
    """
    batches = split.shuffled(count, seed, start_step, wanted)
    if not augmentations:
        return batches
    steps = len(split) // count

    def augmented(step, examples):
        images, labels, indices = examples
        images = augmentation.augment(
            images, indices, seed, step // steps, augmentations
        )
        return images, labels, indices

    steps_from = tf.data.Dataset.counter(start_step)
    return tf.data.Dataset.zip(steps_from, batches).map(
        augmented, num_parallel_calls=tf.data.AUTOTUNE
    )


def _pool_split(pool, first_index):
    labels = pool.labels.astype(np.int32)
    places = np.arange(len(pool), dtype=np.int64)
    return splits.ArraySplit(pool.images, places, labels, first_index + places)


def _spread(labeled, part):
    """Which example of (labelled, then pool) each place of a batch takes."""
    places = np.arange(labeled + part + 1)
    pool_before = places * part // (labeled + part)
    from_pool = np.diff(pool_before) > 0
    return np.where(
        from_pool, labeled + pool_before[:-1], (places - pool_before)[:-1]
    )


def _mixed(order, examples, others):
    """One batch of two, its places in the given order."""
    if examples[0].dtype != others[0].dtype:
        examples = (pixels(examples[0]), *examples[1:])
        others = (pixels(others[0]), *others[1:])
    return tuple(
        tf.gather(tf.concat(pair, axis=0), order)
        for pair in zip(examples, others, strict=True)
    )


def evaluation_batches(split, batch_size, pixel_range=(0.0, 1.0), part=(0, 1)):
    """Every example exactly once, in order.

    The last batch is filled up with repetitions whose weight is 0 and whose
    index is -1; the weight of every real example is 1.

    Args:
        split: A split of a `Dataset`.
        batch_size: Examples in a batch, at least 1.
        pixel_range: Least and greatest value of a pixel.
        part: As of `training_batches`.

    Returns:
        A finite `tf.data.Dataset` with static shapes.
    """
    _check_split(split)
    batch_size = bounds.whole("batch_size", batch_size, 1)
    own = np.arange(batch_size)[_part(batch_size, part)]
    pixel_range = bounds.pixel_range(pixel_range)

    def fill(images, labels, indices):
        places = tf.constant(own, tf.int32)
        size = tf.shape(labels)[0]
        real = places < size
        images, labels, indices = (
            tf.gather(tensor, tf.minimum(places, size - 1))
            for tensor in (images, labels, indices)
        )
        indices = tf.where(real, indices, tf.constant(-1, tf.int64))
        weights = tf.cast(real, tf.float32)
        return _batch(images, labels, indices, weights, pixel_range)

    batches = split.ordered(batch_size, is_repeated=True).map(
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

    Raises:
        ValueError: If a file of the split is damaged, or memory too small.
    """
    _check_split(split)
    count = len(split)
    if max_examples is not None:
        count = min(count, bounds.whole("max_examples", max_examples, 1))
    limits.check_ram(
        f"An array of {count:,} images",
        4 * count * int(np.prod(split.image_shape)),
    )
    images = np.empty([count, *split.image_shape], np.float32)
    labels = np.empty([count], np.int32)
    batch_size = 256
    batches = split.ordered(batch_size).take(-(-count // batch_size))
    start = 0
    with shards.damage_reported():
        for some_images, some_labels, _ in batches:
            stop = min(start + batch_size, count)
            images[start:stop] = pixels(some_images)[: stop - start]
            labels[start:stop] = some_labels[: stop - start]
            start = stop
    return images, labels


def _finish(batches, cardinality):
    # A shuffle buffer or a filter hides how many there are; Keras asks.
    known = tf.data.experimental.assert_cardinality(cardinality)
    return splits.untuned(batches.apply(known).prefetch(tf.data.AUTOTUNE))


def _batch(images, labels, indices, weights, pixel_range):
    images = spread(pixels(images), pixel_range)
    return {"image": images, "index": indices}, labels, weights


def pixels(images):
    """Images, uint8 or float32, as float32 in [0, 1]."""
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    return images


def spread(images, pixel_range):
    """Images in [0, 1] over the range that a model takes.

        low + x (high - low)

    Args:
        images: Float32, a tensor or an array.
        pixel_range: low and high.
    """
    low, high = pixel_range
    return images if (low, high) == (0, 1) else low + images * (high - low)
