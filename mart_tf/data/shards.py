"""Reading a split from tfrecord shards, without holding it in memory."""

from collections.abc import Callable
import contextlib
import dataclasses
import math
import os
import re

import numpy as np
import tensorflow as tf

from mart_tf import limits
from mart_tf import noise
from mart_tf.data import splits

SHUFFLE_BUFFER = 8192  # Encoded examples held while shuffling.

_INTERLEAVED, _BLOCK = 16, 16  # Shards read at once, records at a time.
_STREAM = 0x425546  # A stream of its own in the seed's numbers.
# Of a record without content: its length and two checksums.
_LEAST_RECORD = 16


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedSplit:
    """Rows of a TFDS split; a row is a record's place in the shards' order.

    Args:
        shards: The files, in order.
        starts: The row of each shard's first record, and one past the last.
        keep: Bool, one for each row of the TFDS split: whether it belongs to
            this split.
        decode: Serialized example -> image uint8, label int32.
        image_shape: Height, width, channels.
        chance_order: As that of an `ArraySplit`.
    """

    shards: tuple[str, ...]
    starts: tuple[int, ...]
    keep: np.ndarray
    decode: Callable
    image_shape: tuple[int, int, int]
    chance_order: bool = False

    def __len__(self):
        return int(np.count_nonzero(self.keep))

    @property
    def indices(self):
        """The rows, int64, in order."""
        return np.flatnonzero(self.keep)

    def select(self, positions):
        """The split of the examples at `positions`, in the shards' order."""
        keep = np.zeros_like(self.keep)
        keep[self.indices[positions]] = True
        return dataclasses.replace(self, keep=keep)

    def ordered(self, batch_size, is_repeated=False):
        """Every example once, in order; the last batch may be smaller.

        A small part of what the shards hold is read from them once, where it
        will be asked for again: from then on its records are in memory.
        """
        order = tf.range(len(self.shards), dtype=tf.int64)
        records = self._records(order, 1)
        if is_repeated and self._is_small_part():
            records = records.cache()
        return splits.untuned(self._examples(records).batch(batch_size))

    def _is_small_part(self):
        size = len(self) * math.prod(self.image_shape)
        return len(self) < len(self.keep) / 2 and size <= splits.MEMORY_LIMIT

    def shuffled(self, batch_size, seed, start_step, wanted):
        """Endless whole batches: permuted shards, then a shuffle buffer.

        Of each batch the examples at the places `wanted`, int64 `[n]`, come;
        others are read, and not decoded.
        """
        steps = len(self) // batch_size
        stream = noise.fold(tf.constant(seed, tf.int64), _STREAM)

        def epoch_records(epoch):
            shards = tf.range(len(self.shards), dtype=tf.int64)
            order = splits.permute(shards, len(self.shards), seed, epoch)
            # Dataset.shuffle mixes the graph's seed in, which is otherwise
            # what the user gave to tf.random.set_seed.
            tf.compat.v1.set_random_seed(1)
            return (
                self._records(order, _INTERLEAVED)
                .shuffle(SHUFFLE_BUFFER, noise.fold(stream, epoch))
                .take(steps * batch_size)
            )

        epochs = tf.data.Dataset.counter(start_step // steps)
        records = epochs.flat_map(epoch_records)
        # What was seen of an epoch is read once more, and not decoded.
        records = records.skip(start_step % steps * batch_size)
        if len(wanted) < batch_size:
            records = (
                records.batch(batch_size, drop_remainder=True)
                .map(lambda *batch: [tf.gather(part, wanted) for part in batch])
                .unbatch()
            )
        return self._examples(records).batch(len(wanted), drop_remainder=True)

    def _records(self, order, shards_at_once):
        """Pairs of row and serialized example, shards in the given order."""
        with tf.device("CPU:0"):
            shards = tf.constant(self.shards)
            starts = tf.constant(self.starts, tf.int64)
            keep = tf.constant(self.keep)

        def records(shard):
            start, stop = starts[shard], starts[shard + 1]
            # A file that cannot be opened would be tried for ever below.
            path = tf.numpy_function(_readable, [shards[shard]], tf.string)
            path.set_shape([])
            # TensorFlow's own error tells the place in a file, and not which.
            whole = tf.data.TFRecordDataset(path).ignore_errors()
            missing = tf.data.Dataset.from_tensors(b"")
            rows = tf.data.Dataset.range(start, stop)
            return tf.data.Dataset.zip(rows, whole.concatenate(missing)).map(
                lambda row, record: (row, _present(record, path))
            )

        return (
            tf.data.Dataset.from_tensor_slices(order)
            .interleave(
                records,
                cycle_length=shards_at_once,
                block_length=_BLOCK,
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .filter(lambda row, record: keep[row])
        )

    def _examples(self, records):
        def example(row, record):
            image, label = self.decode(record)
            return image, label, row

        return records.map(example, num_parallel_calls=tf.data.AUTOTUNE)


def _readable(path):
    limits.opened(path.decode()).close()
    return path


def _present(record, path):
    """The record, or the end of the pipeline with a sentence about its file."""
    return tf.cond(
        tf.equal(record, b""),
        lambda: tf.numpy_function(_refuse, [path], tf.string),
        lambda: record,
    )


def _refuse(path):
    raise damage(path.decode())


def damage(path):
    """The error of a shard that cannot be read to its end."""
    limits.regular(path)
    return ValueError(
        f"{path} is damaged: a record's checksum does not match, or records "
        "are missing; restore the file, or prepare the set again."
    )


def check(paths, lengths):
    """Refuses shards that cannot hold the records they are said to hold.

    Args:
        paths: The files.
        lengths: How many records each has.

    Raises:
        ValueError: If one is no regular file, or too small.
    """
    for path, length in zip(paths, lengths, strict=True):
        size = os.path.getsize(limits.regular(path))
        if not 0 <= length <= size // _LEAST_RECORD:
            raise ValueError(
                f"{path} has {limits.in_words(size)}, and dataset_info.json "
                f"counts {length:,} examples in it; expected at least "
                f"{_LEAST_RECORD} bytes for each: prepare the set again."
            )


def find_damage(paths):
    """The error of the first of some shards that cannot be read, or None."""
    for path in paths:
        try:
            for _ in tf.data.TFRecordDataset(path).batch(1024):
                pass
        except tf.errors.OpError:
            return damage(path)
    return None


def labels_of(split):
    """The labels of a whole split, int32; one that streams is read for them."""
    if hasattr(split, "labels"):
        return split.labels
    batches = split.ordered(256)
    with damage_reported():
        return np.concatenate([labels.numpy() for _, labels, _ in batches])


@contextlib.contextmanager
def damage_reported():
    """Turns the end of a pipeline into the sentence that ended it.

    Raises:
        ValueError: Where a file of the data was damaged.
    """
    try:
        yield
    except tf.errors.OpError as error:
        sentence = re.search(r"ValueError: (.+)", error.message)
        if not sentence:
            raise
        raise ValueError(sentence[1]) from error
