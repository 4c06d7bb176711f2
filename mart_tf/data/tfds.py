"""Image classification sets of TensorFlow Datasets (TFDS)."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import sys
from typing import Literal

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from mart_tf import limits
from mart_tf.data import held
from mart_tf.data import names
from mart_tf.data import shards
from mart_tf.data import splits


def download(name, data_dir):
    """Lets TFDS fetch and prepare a set; returns its directory.

    Raises:
        ValueError: If TFDS does not know the set or cannot prepare it.
    """
    try:
        builder = tfds.builder(name, data_dir=os.fspath(data_dir))
        builder.download_and_prepare(file_format="tfrecord")
    except Exception as error:
        # Whatever a network, an archive or a builder of TFDS may raise.
        raise ValueError(
            f"TFDS cannot prepare {name!r} in {data_dir}: {_reason(error)}"
        ) from error
    return builder.data_path


def load(
    path,
    *,
    size: int | None = None,
    mode: Literal["memory", "streaming"] | None = None,
    first: int = 0,
    count: int | None = None,
):
    """Reads a prepared set: its train split, and its test split.

    Where TFDS has no test split with labels, its validation split is the test
    split; where it has neither, one is carved from train.

    Args:
        path: The directory of one version, which holds `dataset_info.json`.
        size: Height and width that every image is resized to (bilinear,
            antialiased); default: the images' own, which must agree.
        mode: "memory" or "streaming"; default: streaming above 2 GiB.
        first: The first row of the train split that is read, from 0.
        count: How many are; default: all from there on.

    Raises:
        ValueError: If the set is not one of uint8 images with a class label
            each, its images differ in size and `size` is not given, or there
            are no such rows.
    """
    reader = _reader(_builder(path), size)
    with _damage_reported(reader, path):
        source = _source(reader, mode)
    rows = np.arange(*names.tfds_rows(path, "train", first, count))
    return dataclasses.replace(source, train=source.train.select(rows))


def load_pool(
    path,
    *,
    split: str = "train",
    first: int = 0,
    count: int | None = None,
    size: int | None = None,
):
    """Reads the images of some rows of a split; labels there may be are not.

    Args:
        path: The directory of one version, which holds `dataset_info.json`.
        split: Name of the split.
        first: The first row, from 0, in the order of the split's records.
        count: How many; default: all from there on.
        size: As in `load`.

    Returns:
        The fields of a `Pool`, without its name.

    Raises:
        ValueError: If there are no such rows, or as `load`.
    """
    first, stop = names.tfds_rows(path, split, first, count)
    reader = _reader(_builder(path), size, labeled=False)
    with _damage_reported(reader, path):
        reader.info(split)
        images, _ = reader.read(f"{split}[{first}:{stop}]", stop - first)
    return {"images": images}


def load_test(path):
    """The test split of a prepared set, in memory, and its classes' names.

    Where TFDS has no test split with labels, it is the validation split.

    Args:
        path: As in `load`.

    Raises:
        ValueError: As `load`, or if there is neither.
    """
    reader = _reader(_builder(path), None)
    with _damage_reported(reader, path):
        split = reader.test_split()
        if split is None:
            present = ", ".join(reader.builder.info.splits)
            raise ValueError(
                f"{path} has no split test or validation with labels (its "
                f"splits: {present}); expected one to measure on."
            )
        return reader.in_memory(split), reader.class_names


def _builder(path):
    """TFDS's reader of a prepared set, once its files can be opened."""
    for file in sorted(pathlib.Path(path).iterdir()):
        if not file.is_dir():
            limits.regular(file)
    _check_classes(pathlib.Path(path, "features.json"))
    try:
        return tfds.builder_from_directory(path)
    except Exception as error:
        # TFDS parses several files of its own there.
        raise ValueError(
            f"{path} is no set that TFDS can read ({_reason(error)}); "
            "prepare it again."
        ) from error


def _check_classes(file):
    """Refuses features whose modules TFDS would import: whose code runs."""
    if not file.exists():
        return
    left = [limits.read_json(file)]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
            # The second is the name of the first in sets of earlier TFDS.
            named = [value.get(key) for key in ("pythonClassName", "type")]
            for name in filter(lambda name: isinstance(name, str), named):
                module = name.rpartition(".")[0]
                own = module.split(".")[0] == "tensorflow_datasets"
                if module and not own and module not in sys.modules:
                    raise ValueError(
                        f"{file} names {name[:80]!r}, whose module TFDS "
                        "would import; expected features of TFDS's own. If you "
                        "know the module, import it before, in a data set of "
                        "your own, --dataset=my_module:load."
                    )
        elif isinstance(value, list):
            left += value


@contextlib.contextmanager
def _damage_reported(reader, path):
    try:
        yield
    except tf.errors.OpError as error:
        shown = [
            os.fspath(shard)
            for split in reader.builder.info.splits.values()
            for shard in split.filepaths
        ]
        raise shards.find_damage(shown) or ValueError(
            f"{path} cannot be read: its images are damaged; prepare the set "
            "again."
        ) from error


def _source(reader, mode):
    names = reader.split_names()
    infos = [reader.info(name) for name in names]
    count = sum(info.num_examples for info in infos)
    mode = splits.choose_mode(count, reader.image_shape, mode)
    if mode == "memory":
        read = [reader.in_memory(name) for name in names]
    else:
        read = [reader.streaming(name) for name in names]
    return splits.Source(
        class_names=reader.class_names,
        train=read[0],
        test=read[1] if len(read) > 1 else None,
        mode=mode,
        # Asked for the validation split twice: is there one, and what is it.
        others=functools.cache(functools.partial(_other, reader, mode)),
        # Of another minor version the examples are the same: TFDS's promise.
        fingerprint=f"version {reader.builder.version.major}, "
        f"{infos[0].num_examples} examples",
    )


def _other(reader, mode, name):
    """A split by name, None where the set has none of that name."""
    if name not in reader.builder.info.splits:
        return None
    with _damage_reported(reader, reader.builder.data_path):
        if mode == "memory":
            return reader.in_memory(name)
        return reader.streaming(name)


def _reason(error):
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


@dataclasses.dataclass(frozen=True)
class _Reader:
    """A prepared set, and which of its features are image and label.

    Without a label feature, every label is -1.
    """

    builder: tfds.core.DatasetBuilder
    image: str
    label: str | None
    image_shape: tuple[int, int, int]

    @property
    def class_names(self):
        return tuple(self.builder.info.features[self.label].names)

    @property
    def chance_order(self):
        """Whether TFDS shuffled the set when it was prepared, as it does."""
        return not self.builder.info.disable_shuffling

    @property
    def decoders(self):
        """Leaves images that are not asked for, such as masks, undecoded."""
        return {
            name: tfds.decode.SkipDecoding()
            for name, feature in self.builder.info.features.items()
            if isinstance(feature, tfds.features.Image) and name != self.image
        }

    def pair(self, example):
        """The image, uint8 of `image_shape`, and the label, int32."""
        image = example[self.image]
        if image.shape != self.image_shape:
            image = tf.image.resize(image, self.image_shape[:2], antialias=True)
            image = tf.saturate_cast(tf.round(image), tf.uint8)
            image = tf.ensure_shape(image, self.image_shape)
        label = example[self.label] if self.label else -1
        return image, tf.cast(label, tf.int32)

    def decode(self, serialized):
        """The pair of a serialized example."""
        return self.pair(
            self.builder.info.features.deserialize_example(
                serialized, decoders=self.decoders
            )
        )

    def pairs(self, split):
        """The pairs of a split in the order of its records."""
        order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        records = self.builder.as_dataset(
            split=split,
            shuffle_files=False,
            read_config=order,
            decoders=self.decoders,
        )
        return splits.untuned(
            records.map(self.pair, num_parallel_calls=tf.data.AUTOTUNE)
        )

    def info(self, split):
        """What TFDS knows of a split, held against its files."""
        info = self.builder.info.splits[split]
        shards.check(info.filepaths, info.shard_lengths)
        return info

    def split_names(self):
        """The names of the train split and, if there is one, the test split."""
        present = self.builder.info.splits
        if "train" not in present or not present["train"].num_examples:
            raise ValueError(
                f"{self.builder.name} has no train split; expected one with "
                f"images (its splits: {', '.join(present)})."
            )
        test = self.test_split()
        return ["train"] if test is None else ["train", test]

    def test_split(self):
        """The name of the split to measure on, None where there is none."""
        present = self.builder.info.splits
        for name in ("test", "validation"):
            if name in present and present[name].num_examples:
                # Competitions publish test images with the label -1.
                _, label = next(iter(self.pairs(f"{name}[:1]")))
                if label >= 0:
                    return name
        return None

    def in_memory(self, split):
        """The split, decoded once by TFDS's reader."""
        count = self.info(split).num_examples
        images, labels = self.read(split, count)
        strange = labels[(labels < 0) | (labels >= len(self.class_names))]
        if strange.size:
            self.refuse(split, strange[0])
        return splits.memory_split(images, labels, self.chance_order)

    def refuse(self, split, label):
        """Raises the sentence about a label that is no class's."""
        raise ValueError(
            f"The split {split} of {self.builder.name} holds the label "
            f"{label}; expected labels from 0 to {len(self.class_names) - 1}."
        )

    def checked(self, split, serialized):
        """`decode`, or the end of the pipeline with a sentence."""
        image, label = self.decode(serialized)

        def refused():
            # It raises: the type is that of what never comes back.
            return tf.numpy_function(
                functools.partial(self.refuse, split), [label], tf.int32
            )

        known = (label >= 0) & (label < len(self.class_names))
        label = tf.ensure_shape(tf.cond(known, lambda: label, refused), [])
        return image, label

    def read(self, split, count):
        """The images and labels of `count` examples, as arrays."""
        images = held.empty(
            f"The split {split} of {self.builder.name}",
            [count, *self.image_shape],
            np.uint8,
        )
        labels = np.empty([count], np.int32)
        start = 0
        for some_images, some_labels in self.pairs(split).batch(256):
            stop = start + len(some_labels)
            images[start:stop], labels[start:stop] = some_images, some_labels
            start = stop
        return images, labels

    def streaming(self, split):
        """The split, read again from its shards each time."""
        info = self.info(split)
        starts = np.cumsum([0, *info.shard_lengths])
        return shards.ShardedSplit(
            shards=tuple(os.fspath(shard) for shard in info.filepaths),
            starts=tuple(starts.tolist()),
            keep=np.ones([info.num_examples], bool),
            decode=functools.partial(self.checked, split),
            image_shape=self.image_shape,
            chance_order=self.chance_order,
        )


def _reader(builder, size, labeled=True):
    """Finds image and label, and checks that they can be used."""
    info = builder.info
    if info.file_format is not tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"{builder.name} is stored as {info.file_format.value} files; "
            "expected tfrecord: prepare it with file_format='tfrecord'."
        )
    image, label = _keys(info) if labeled else (_image_key(info), None)
    feature = info.features[image]
    height, width, channels = feature.shape
    if feature.np_dtype != np.uint8 or channels is None:
        raise ValueError(
            f"The images of {builder.name} are {np.dtype(feature.np_dtype)} "
            f"of shape {feature.shape}; expected uint8 with a fixed number of "
            "channels."
        )
    if size is None and None in feature.shape:
        raise ValueError(
            f"The images of {builder.name} differ in size; give them one with "
            "the option size, such as "
            f"{builder.name}:size=64."
        )
    shape = (size or height, size or width, channels)
    return _Reader(builder, image, label, shape)


def _keys(info):
    """The names of the features that are the image and its class label."""
    features = info.features
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    named = info.supervised_keys
    if named and len(named) == 2:
        pairs = zip(named, kinds, strict=True)
        if all(isinstance(features[name], kind) for name, kind in pairs):
            return named
    by_kind = [
        [name for name in features if isinstance(features[name], kind)]
        for kind in kinds
    ]
    if [len(names) for names in by_kind] != [1, 1]:
        listed = ", ".join(sorted(features))
        raise ValueError(
            f"{info.name} has not one image and one class label for each "
            f"example (its features: {listed}); expected an image "
            "classification set."
        )
    return by_kind[0][0], by_kind[1][0]


def _image_key(info):
    """The name of the feature that is the image."""
    features = info.features
    named = (info.supervised_keys or [None])[0]
    images = [
        n for n in features if isinstance(features[n], tfds.features.Image)
    ]
    if named in images:
        return named
    if len(images) != 1:
        raise ValueError(
            f"{info.name} has not one image for each example (its features: "
            f"{', '.join(sorted(features))}); expected a set of images."
        )
    return images[0]
