"""What an attack is called with: converted once, and refused in sentences."""

import numbers

import tensorflow as tf

from mart_tf import checks
from mart_tf import choices
from mart_tf import noise
from mart_tf.attacks import scopes

# In it nobody looks at the values of images and labels. Of a training step: one
# with a bad image is skipped and counted, eagerly too, and a batch says little
# of the range of all.
unseen = scopes.Scope()


def are_seen():
    """Whether images and labels are at hand, and to be looked at."""
    return tf.executing_eagerly() and not unseen.holds


def floats(images, threat):
    """Images as float32.

    Raises:
        ValueError: If they are integers; where they are seen also if the
            threat model's pixel range does not fit them: the first projection
            would cut them off.
    """
    images = tf.convert_to_tensor(images)
    if not images.dtype.is_floating:
        raise ValueError(
            f"The images are {images.dtype.name}; expected floats in the "
            "threat model's pixel range, such as images / 255."
        )
    images = tf.cast(images, tf.float32)
    if are_seen() and len(images):
        checks.images(images, threat)
    return images


def integers(labels, images, classify):
    """Labels as int32.

    Args:
        labels: Integer classes `[batch]`.
        images: What they are of, a tensor `[batch, ...]`.
        classify: Maps images to logits: where the labels are seen, those of
            one image tell how many classes there are.

    Raises:
        ValueError: If they are no integers, of another rank than 1, another
            number than the images; where they are seen also if the network
            has no such class.
    """
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer or labels.shape.rank not in (None, 1):
        raise ValueError(
            f"The labels are {labels.dtype.name} of shape {labels.shape}; "
            "expected integer classes, [batch]."
        )
    if not labels.shape.is_compatible_with(images.shape[:1]):
        raise ValueError(
            f"There are {len(images)} images and {len(labels)} labels; "
            "expected one label for each image."
        )
    if are_seen():
        checks.labels(labels, classify(images[:1]).shape[-1])
    return tf.cast(labels, tf.int32)


def example_seeds(seed, images):
    """One seed per example `[batch, 2]` from what `pgd` takes as its seed.

    Raises:
        ValueError: If it is neither one integer nor two for each image.
    """
    count = tf.shape(images)[0]
    if seed is None:
        return tf.random.uniform(
            [count, 2], maxval=tf.int64.max, dtype=tf.int64
        )
    if isinstance(seed, numbers.Integral):
        seed = int(choices.SEED.check("seed", seed))
    seed = tf.convert_to_tensor(seed)
    wide = seed.shape.is_compatible_with([images.shape[0], 2])
    if not seed.dtype.is_integer or not (wide or seed.shape.rank == 0):
        raise ValueError(
            f"seed is {seed.dtype.name} of shape {seed.shape}; expected an "
            "integer, or two for each image, [batch, 2]."
        )
    return noise.seeds(seed, tf.range(count)) if not seed.shape.rank else seed
