"""A tree of images: one folder for each class, or a pool without classes."""

import dataclasses
import hashlib
import os
import pathlib
from typing import Literal
import warnings

import numpy as np
import tensorflow as tf

from mart_tf import limits
from mart_tf.data import decoding
from mart_tf.data import held
from mart_tf.data import names
from mart_tf.data import splits

_CHANNELS = {"L": 1, "RGB": 3}
_WORDS = {"L": "greyscale", "RGB": "in colour"}


def load(
    path,
    *,
    size: int | None = None,
    mode: Literal["memory", "streaming"] | None = None,
):
    """Reads `train/<class>/` and `test/<class>/`, or `<class>/`.

    Classes, and the images of a class, are numbered in the order of their
    names. Images are greyscale or colour, all of one kind. A warning says how
    many lie elsewhere, or are of a format that is not read.

    Args:
        path: The folder.
        size: Height and width that every image is resized to (bilinear,
            antialiased); default: the images' own, which must agree.
        mode: "memory" or "streaming"; default: streaming above 2 GiB.

    Raises:
        ValueError: If an image cannot be read, or the images differ in size
            or in kind.
    """
    train, test = names.class_folders(path)
    listed = [_list(half, list(train)) for half in (train, test) if half]
    paths = [image for images, _ in listed for image in images]
    sentence = names.left_out(path, paths)
    if sentence is not None:
        warnings.warn(sentence, stacklevel=2)
    kind, shape = _common(paths, size)
    mode = splits.choose_mode(len(paths), shape, mode)
    halves = [
        FolderSplit(
            paths=np.array(names, object),
            labels=labels,
            indices=np.arange(len(labels), dtype=np.int64),
            kind=kind,
            image_shape=shape,
        )
        for names, labels in listed
    ]
    if mode == "memory":
        halves = [half.in_memory() for half in halves]
    return splits.Source(
        class_names=tuple(train),
        train=halves[0],
        test=halves[1] if test else None,
        mode=mode,
        fingerprint=_fingerprint(listed[0][0]),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSplit(splits.RandomAccess):
    """A split whose images are decoded each time they are asked for.

    Args:
        paths: The files, an array of strings.
        labels: Int32 `[n]`.
        indices: Int64 `[n]`: rows of the source's training or test set.
        kind: Pillow's mode, "L" or "RGB".
        image_shape: Height, width, channels.
    """

    paths: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    kind: str
    image_shape: tuple[int, int, int]

    # Files come class by class.
    chance_order = False

    def __len__(self):
        return len(self.labels)

    def select(self, positions):
        """The split of the examples at `positions`."""
        return dataclasses.replace(
            self,
            paths=self.paths[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
        )

    def read(self, positions, batch_size):
        """Maps batches of positions to batches of examples."""
        with tf.device("CPU:0"):
            paths, labels, indices = (
                tf.constant(array)
                for array in (self.paths, self.labels, self.indices)
            )

        def example(place):
            image = tf.numpy_function(
                lambda path: decoding.pixels(
                    path.decode(), self.kind, self.image_shape
                ),
                [paths[place]],
                tf.uint8,
            )
            image = tf.ensure_shape(image, self.image_shape)
            return image, labels[place], indices[place]

        whole = positions.element_spec.shape[0] is not None
        return (
            positions.unbatch()
            .map(example, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(batch_size, drop_remainder=whole)
        )

    def in_memory(self):
        """The same split with its images decoded once."""
        images = _decoded(self.paths, self.kind, self.image_shape)
        return splits.numbered(images, self.labels)


def load_pool(path, *, size: int | None = None):
    """Reads every image below a folder; what its folders are called is nothing.

    Args:
        path: The folder; its images lie in it, or in folders in it. Rows
            follow the paths in alphabetical order.
        size: As in `load`.

    Returns:
        The fields of a `Pool`, without its name.

    Raises:
        ValueError: As `load`.
    """
    paths = names.images_below(path)
    return {"images": _decoded(paths, *_common(paths, size))}


def _fingerprint(paths):
    """Of the names and sizes of images, each in the folder of its class."""
    told = [
        f"{'/'.join(pathlib.PurePath(path).parts[-2:])} {os.path.getsize(path)}"
        for path in paths
    ]
    return hashlib.sha256(
        "\n".join(told).encode("utf-8", "replace")
    ).hexdigest()


def _decoded(paths, kind, shape):
    """The images, uint8 `[n, *shape]`."""
    what = f"{paths[0]} and the {len(paths) - 1:,} other images"
    images = held.empty(what, [len(paths), *shape], np.uint8)
    decoded = decoding.in_threads(
        lambda path: decoding.pixels(path, kind, shape), paths
    )
    for row, image in enumerate(decoded):
        images[row] = image
    return images


def _list(folders, classes):
    """Paths and int32 labels of the images in the folders, in order."""
    paths, labels = [], []
    for name, folder in folders.items():
        images = sorted(names.image_names(folder))
        paths += [str(folder / image) for image in images]
        labels += [classes.index(name)] * len(images)
    return paths, np.array(labels, np.int32)


def _common(paths, size):
    """The kind and the shape that all images have, from their headers."""
    first_of = {}
    headers = decoding.in_threads(decoding.header, paths)
    for path, (kind, height, width) in zip(paths, headers, strict=True):
        # The first image of each kind and size stands for the others.
        shape = (size or height, size or width)
        if shape[0] * shape[1] > limits.MOST_PIXELS:
            raise ValueError(
                f"{path} has {height}x{width} pixels; expected at most "
                f"{limits.MOST_PIXELS:,}: give all images a smaller size "
                "with the option size, such as :size=64."
            )
        first_of.setdefault((kind, shape), path)
        if len(first_of) > 1:
            raise _unlike(first_of)
    kind, shape = next(iter(first_of))
    return kind, (*shape, _CHANNELS[kind])


def _unlike(first_of):
    """The one sentence for two images that differ in kind or in size."""
    (one, (height, width)), (other, (rows, columns)) = first_of
    path, other_path = first_of.values()
    if one != other:
        return ValueError(
            f"{path} is {_WORDS[one]} and {other_path} is {_WORDS[other]}; "
            "expected one kind: convert the images."
        )
    return ValueError(
        f"{path} has {height}x{width} pixels and {other_path} has "
        f"{rows}x{columns}; give all images one size with the option size, "
        "such as :size=64."
    )
