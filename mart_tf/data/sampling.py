"""A part of a split that stands for the whole, the same for every program."""

import dataclasses

import numpy as np

from mart_tf import bounds
from mart_tf.data import pipeline
from mart_tf.data import shards
from mart_tf.data import splits

ALL, FIRST, STRATIFIED = "all", "first", "stratified"

# Streams of their own for `splits.hashed`.
_ROWS, _CLASSES = 4, 5


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Some examples of a split, in its order.

    Args:
        images: Float32 `[n, height, width, channels]` in [0, 1].
        labels: Int32 `[n]`.
        rows: Int64 `[n]`, the rows in the source's set.
        kind: "all"; "first", the first n; or "stratified", drawn by class.
        of: How many examples the split has.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    kind: str
    of: int

    def facts(self):
        """What a report says of it, a JSON dict."""
        drawn = self.kind == STRATIFIED
        return {
            "sample": self.kind,
            "of": self.of,
            "rows": self.rows.tolist() if drawn else None,
        }


def sample(split, max_examples=None, seed=0):
    """At most so many examples of a split.

    Where the source stores its examples in an order of chance, as TFDS does
    (MNIST, CIFAR-10), they are the first ones. Elsewhere (a folder lists class
    by class) they are drawn by class over the whole split, see `draw`.

    Args:
        split: A split of a `Dataset`.
        max_examples: How many at most, at least 1; default: all.
        seed: Another draws others.

    Returns:
        A `Sample`.
    """
    size = len(split)
    count = size
    if max_examples is not None:
        count = min(size, bounds.whole("max_examples", max_examples, 1))
    if count == size or split.chance_order:
        images, labels = pipeline.arrays(split, count)
        kind = ALL if count == size else FIRST
        return Sample(images, labels, split.indices[:count], kind, size)
    chosen = split.select(draw(shards.labels_of(split), count, seed))
    images, labels = pipeline.arrays(chosen)
    return Sample(images, labels, chosen.indices, STRATIFIED, size)


def draw(labels, count, seed=0):
    """The places of a stratified sample, rising.

    Of each class as large a share as of the whole, to one example, chosen by
    a hash of (seed, place): no library's version matters, and a larger sample
    of one seed holds the smaller.

    Args:
        labels: Integer classes `[n]`.
        count: How many to draw; of fewer there are, all.
        seed: Another draws others.

    Returns:
        Int64 `[min(n, count)]`.
    """
    classes, of_class, sizes = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    # Within a class by chance; between classes by the share that has been
    # taken of each, from a first share of chance on.
    chance = splits.hashed(np.arange(len(labels)), _ROWS, seed)
    order = np.lexsort((chance, of_class))
    places = np.arange(len(labels)) - np.repeat(sizes.cumsum() - sizes, sizes)
    first = splits.hashed(classes.astype(np.int64), _CLASSES, seed) / 2.0**64
    share = (places + np.repeat(first, sizes)) / np.repeat(sizes, sizes)
    return np.sort(order[np.argsort(share, kind="stable")[:count]])
