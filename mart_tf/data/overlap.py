"""Whether a pool holds images that a run is measured on."""

import collections
import hashlib
import warnings

import numpy as np

from mart_tf.data import mapping
from mart_tf.data import shards

# Sets have a few duplicates. So few change an accuracy by a point at most.
_HARMLESS = 0.01


def check_apart(pool, dataset):
    """Refuses a pool that holds a data set's test or validation split.

    Images are the same if they round to the same 256 grey levels. Fewer than
    are refused bring a warning with their number.

    Args:
        pool: A `Pool`.
        dataset: A `Dataset`.

    Raises:
        ValueError: If more than 1 % of the pool, or of one of the two splits,
            is in both.
    """
    if pool.image_shape != tuple(dataset.image_shape):
        return
    held = collections.Counter(
        _key(image) for part in mapping.parts(pool.images) for image in part
    )
    for name in ("test", "validation"):
        split = getattr(dataset, name)
        with shards.damage_reported():
            shared = [
                key
                for images, _, _ in split.ordered(256)
                for key in map(_key, images.numpy())
                if key in held
            ]
        if not shared:
            continue
        # The pool may have some of them many times.
        of_pool = sum(held[key] for key in set(shared)) / len(pool)
        sentence = (
            f"The pool {pool.name} holds {len(shared):,} of the "
            f"{len(split):,} images of the {name} split of {dataset.name}; "
            "expected others: accuracy would be measured on what was "
            "trained on."
        )
        if max(len(shared) / len(split), of_pool) > _HARMLESS:
            raise ValueError(sentence)
        warnings.warn(sentence, stacklevel=2)


def _key(image):
    levels = image
    if image.dtype != np.uint8:
        levels = np.rint(255.0 * image).astype(np.uint8)
    return hashlib.blake2b(levels.tobytes(), digest_size=16).digest()
