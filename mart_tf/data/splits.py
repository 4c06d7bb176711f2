"""Splits of a data set: which rows they hold, and how rows are read.

A row is the number of an example in the source's own training (or test) set.
A split yields `(images, labels, indices)` batches in two ways: `ordered`, each
row once, and `shuffled`, endless epochs that are a pure function of the seed
and the step.
"""

from collections.abc import Callable
import dataclasses
import functools

import numpy as np
import tensorflow as tf

from mart_tf import bounds
from mart_tf import noise
from mart_tf.data import conversion
from mart_tf.data import held
from mart_tf.data import mapping

MEMORY_LIMIT = 2 * 2**30  # Bytes of decoded pixels; larger data streams.
TEST_FRACTION = 0.2
VALIDATION_FRACTION = 0.1
MAX_VALIDATION = 2000

_SHUFFLE = 0x5348554646  # A stream of its own in the seed's numbers.
_TEST, _VALIDATION = 1, 2


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, split into training, validation and test.

    Args:
        name: The spec without its options.
        image_shape: Height, width, channels; pixels reach the user as float32
            in [0, 1].
        num_classes: Labels lie in `[0, num_classes)`.
        class_names: One for each class.
        train: What training sees.
        validation: Carved from the source's training set; shares no row with
            `train`. Empty if `validation_images` was 0.
        test: The source's test set; where the source has none, a fifth of its
            images, which neither other split holds.
        mode: "memory" or "streaming".
        others: Reads a further split of the source by its name, None where it
            has none of that name; None: the source has no others.
        fingerprint: As of `Source`.
        carved: The names of the splits that the source's training set makes.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]
    train: object
    validation: object
    test: object
    mode: str
    others: Callable | None = None
    fingerprint: str | None = None
    carved: tuple[str, ...] = ("train", "validation")

    def describe(self):
        """One line for the user."""
        sizes = (
            f"{len(self.train):,} training, {len(self.validation):,} "
            f"validation, {len(self.test):,} test"
        )
        shape = "x".join(str(size) for size in self.image_shape)
        where = {"memory": "in memory", "streaming": "streaming"}[self.mode]
        return (
            f"{self.name}: {sizes} images of {shape}, {self.num_classes} "
            f"classes; {where}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What a source read: whole training and test sets.

    Args:
        class_names: The classes, in the order of the labels.
        train: A set such as `memory_split` makes.
        test: The same of the test images; None: a fifth of `train` is carved.
        mode: "memory" or "streaming", how the training images are held.
        others: As of `Dataset`.
        fingerprint: A text that is another once the training set is; None:
            nothing tells.

    Raises:
        ValueError: If training and test images differ in shape, a set in
            memory holds a label that is no class's, or the fingerprint is
            neither a text nor None.
    """

    class_names: tuple[str, ...]
    train: object
    test: object | None
    mode: str = "memory"
    others: Callable | None = None
    fingerprint: str | None = None

    def __post_init__(self):
        self.check("training", self.train)
        if self.test is not None:
            self.check("test", self.test)
        if not isinstance(self.fingerprint, str | None):
            raise ValueError(
                f"The fingerprint of a data set is {self.fingerprint!r}; "
                "expected a text, or None where nothing tells."
            )

    def check(self, name, split):
        """Refuses a set that does not go with the training images.

        Args:
            name: How messages name the set.
            split: What stands for it.

        Raises:
            ValueError: If it is no set, its images have another shape, or it
                is in memory and holds a label that is no class's.
        """
        if not hasattr(split, "image_shape"):
            raise ValueError(
                f"The {name} set is a {type(split).__name__}; expected what "
                "mart_tf.data.memory_split makes of images and labels."
            )
        if tuple(split.image_shape) != tuple(self.train.image_shape):
            raise ValueError(
                f"Training images are of shape {self.train.image_shape} and "
                f"{name} images of {split.image_shape}; expected one shape."
            )
        if isinstance(split, ArraySplit):
            _check_labels(name, split.labels, len(self.class_names))


def _check_labels(name, labels, classes):
    strange = labels[(labels < 0) | (labels >= classes)]
    if strange.size:
        raise ValueError(
            f"The {name} set holds the label {strange[0]}, and there are "
            f"{classes} class names; expected labels from 0 to {classes - 1}."
        )


def assemble(name, source, validation_images=None):
    """Carves the validation split, and the test split where there is none."""
    rows = np.arange(len(source.train))
    if len(rows) < 3:
        raise ValueError(
            f"{name} has {len(rows)} training images; expected at least 3."
        )
    test, carved = source.test, ("train", "validation")
    if test is None:
        carved += ("test",)
        chosen = carve(rows, max(1, round(TEST_FRACTION * len(rows))), _TEST)
        test = source.train.select(chosen)
        rows = np.setdiff1d(rows, chosen)
    if validation_images is None:
        size = max(1, round(VALIDATION_FRACTION * len(rows)))
        size = min(size, MAX_VALIDATION)
    else:
        size = bounds.whole("validation_images", validation_images, 0)
    if size >= len(rows):
        raise ValueError(
            f"validation_images is {size}; expected at least 0 and fewer than "
            f"the {len(rows)} training images of {name}."
        )
    chosen = carve(rows, size, _VALIDATION)
    return Dataset(
        name=name,
        image_shape=source.train.image_shape,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        train=source.train.select(np.setdiff1d(rows, chosen)),
        validation=source.train.select(chosen),
        test=test,
        mode=source.mode,
        others=source.others,
        fingerprint=source.fingerprint,
        carved=carved,
    )


def carve(rows, size, stream):
    """The `size` rows of least hash, sorted.

    The hash is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) of the row's
    number, so that the choice depends on no seed and on no library's version.

    Args:
        rows: Row numbers, an integer array.
        size: How many to choose.
        stream: Another number gives another choice.
    """
    return np.sort(rows[np.argsort(hashed(rows, stream), kind="stable")[:size]])


def hashed(numbers, stream, seed=0):
    """SplitMix64 of numbers, uint64 of their shape.

    Args:
        numbers: An integer array.
        stream: Another number gives another hash.
        seed: So does another seed.
    """
    z = numbers.astype(np.uint64) + np.uint64(stream << 48)
    if seed:
        z += hashed(np.array([seed]), stream)
    z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def choose_mode(count, image_shape, mode=None):
    """The mode asked for, or the one that the size of the pixels asks for."""
    size = count * int(np.prod(image_shape))
    return mode or ("memory" if size <= MEMORY_LIMIT else "streaming")


def permute(positions, count, seed, epoch):
    """Places of `positions` in the permutation of `count` for an epoch.

    Args:
        positions: Int64 tensor `[n]` in `[0, count)`.
        count: How many are permuted.
        seed: An integer, or an int64 scalar.
        epoch: An int64 scalar.

    Returns:
        An int64 tensor `[n]`.
    """
    seed = noise.fold(noise.fold(tf.constant(seed, tf.int64), _SHUFFLE), epoch)
    last = tf.constant(count - 1, tf.int64)
    # One pass has too few cipher rounds: a batch from 58,000 rows sorted by
    # class has 0.74 times the variance of class counts that chance gives. Two
    # passes: 1.01 times.
    for turn in range(2):
        key = tf.bitcast(noise.fold(seed, turn), tf.uint32)
        positions = tf.random.experimental.index_shuffle(positions, key, last)
    return positions


def untuned(batches):
    """A data set whose parallel calls TensorFlow does not tune.

    There are as many as the machine has cores, 16 at most. The thread that
    tunes them sleeps longer and longer, up to a minute, and is not always
    woken when the iterator goes: training and every evaluation would wait for
    it at their end.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


class RandomAccess:
    """A split whose rows can be read in any order."""

    def ordered(self, batch_size, is_repeated=False):
        """Every example once, in order; the last batch may be smaller.

        Args:
            batch_size: Examples in a batch.
            is_repeated: Whether the data set will be iterated more than once.
        """
        del is_repeated  # What is in memory, or read one by one, stays so.
        positions = tf.data.Dataset.range(len(self)).batch(batch_size)
        return untuned(self.read(positions, batch_size))

    def shuffled(self, batch_size, seed, start_step, wanted):
        """Endless whole batches from step `start_step` on.

        Of each batch the examples at the places `wanted`, int64 `[n]`, come.
        """
        count, steps = len(self), len(self) // batch_size

        def positions(step):
            places = step % steps * batch_size + tf.constant(wanted, tf.int64)
            return permute(places, count, seed, step // steps)

        steps_from = tf.data.Dataset.counter(start_step)
        return self.read(steps_from.map(positions), len(wanted))


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit(RandomAccess):
    """Some images of an array, which is in memory or mapped from a file.

    The splits of a source share its array: none has a copy.

    Args:
        array: As `conversion.images` gives it, `[m, height, width, channels]`:
            uint8, or float32 in [0, 1].
        places: Int64 `[n]`: where its images lie in the array.
        labels: Int32 `[n]`.
        indices: Int64 `[n]`: the rows in the source's training or test set.
        chance_order: Whether the source stores its examples in an order of
            chance, so that the first ones stand for all.
    """

    array: np.ndarray
    places: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    chance_order: bool = False

    def __len__(self):
        return len(self.labels)

    @property
    def image_shape(self):
        return tuple(self.array.shape[1:])

    @property
    def images(self):
        """A copy of its images, `[n, height, width, channels]`."""
        return mapping.rows(self.array, self.places)

    def select(self, positions):
        """The split of the examples at `positions`."""
        return dataclasses.replace(
            self,
            places=self.places[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
        )

    def read(self, positions, batch_size):
        """Maps batches of positions to batches of examples."""
        del batch_size  # The positions come in batches of that size.
        # The input pipeline runs on the CPU, also where a GPU is visible.
        with tf.device("CPU:0"):
            columns = [
                tf.constant(column)
                for column in (self.places, self.labels, self.indices)
            ]
        is_mapped = mapping.is_mapped(self.array)
        images_at = self._from_file if is_mapped else self._from_memory()

        def examples(some):
            places, labels, indices = (tf.gather(c, some) for c in columns)
            return images_at(places), labels, indices

        options = tf.data.Options()
        # Rewriting the pipeline copies the tensors in it, all the images.
        options.experimental_optimization.apply_default_optimizations = False
        return positions.map(
            examples, num_parallel_calls=tf.data.AUTOTUNE
        ).with_options(options)

    def _from_memory(self):
        images = held.tensor(self.array)
        return lambda places: tf.gather(images, places)

    def _from_file(self, places):
        images = tf.numpy_function(
            functools.partial(mapping.rows, self.array),
            [places],
            self.array.dtype,
        )
        images.set_shape([*places.shape, *self.image_shape])
        return images


def memory_split(images, labels, chance_order=False):
    """A whole training or test set in memory: its rows are numbered from 0.

    Args:
        images: As `Pool` takes them: uint8 from 0 to 255, booleans, or
            floating point in [0, 1], with or without channels.
        labels: Integers `[n]` or `[n, 1]`, an array or what becomes one.
        chance_order: Whether the order is by chance, so that the first images
            are a fair sample.

    Raises:
        ValueError: If images or labels are anything else, or there are not as
            many of each.
    """
    images = conversion.images("The array of images", images)
    labels = conversion.labels("The array of labels", labels)
    if len(images) != len(labels):
        raise ValueError(
            f"There are {len(images)} images and {len(labels)} labels; "
            "expected as many of each."
        )
    return numbered(images, labels, chance_order)


def numbered(images, labels, chance_order=False):
    """An `ArraySplit` of all of some images, as `conversion` gives them.

    Args:
        images: `[n, height, width, channels]`.
        labels: Integers `[n]`.
        chance_order: As of `ArraySplit`.
    """
    rows = np.arange(len(labels), dtype=np.int64)
    return ArraySplit(images, rows, labels.astype(np.int32), rows, chance_order)
