"""What makes a robust accuracy doubtful before any attack: the classifier.

The first of the signs that Athalye et al. (ICML 2018) and Croce et al. (ICML
2022) look for: answers that are random, that depend on the other images of a
batch, and gradients that are 0.
"""

import numpy as np
import tensorflow as tf

from mart_tf import attacks

_IMAGES = 64
# Of the greatest logit: rounding stays below it, on a GPU too.
_ROUNDING = 1e-3


def of(subject, images, labels):
    """Sentences on what is doubtful, for a person; none where nothing is.

    Args:
        subject: A `subjects.Subject`.
        images: float32 array `[n, ...]`; the first 64 are looked at.
        labels: int32 array `[n]`.
    """
    images, labels = images[:_IMAGES], labels[:_IMAGES]
    first = _logits(subject, images)
    gap = _difference(first, _logits(subject, images))
    if gap > _ROUNDING:
        yield (
            "Two passes over the same images differ, in their logits by up to "
            f"{gap:.2g} of the greatest: {subject.name} draws random numbers, "
            "or changes as it is asked (dropout or noise in inference mode?). "
            "An attack that follows one draw overrates it: evaluate it "
            "without, or run autoattack:version=rand."
        )
    half = len(images) // 2
    if half and gap <= _ROUNDING:
        # In a batch of the same size, of other images.
        others = np.concatenate([images[:half], images[: len(images) - half]])
        gap = _difference(first[:half], _logits(subject, others)[:half])
        if gap > _ROUNDING:
            yield (
                "The answer to an image depends on the other images of its "
                f"batch, by up to {gap:.2g} of the greatest logit: "
                f"{subject.name} normalizes by the batch (batch normalization "
                "in training mode?), and accuracies hang on how images are "
                "batched."
            )
    if subject.gradients:
        flat = _without_gradient(subject, images, labels)
        if flat.any():
            yield (
                f"At {flat.sum()} of {len(images)} images the gradient is "
                "exactly 0: what follows it cannot move there, and its "
                "accuracies say nothing; run square, or spsa."
            )


def _logits(subject, images):
    return np.asarray(subject.classify(tf.constant(images)))


def _difference(one, other):
    """The greatest difference, in units of the greatest finite logit."""
    differs = np.abs(one - other)[np.isfinite(one) & np.isfinite(other)]
    scale = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    return float(differs.max(initial=0.0) / (scale or 1.0))


def _without_gradient(subject, images, labels):
    slopes, *_ = attacks.input_gradient(
        subject.classify, tf.constant(images), tf.constant(labels)
    )
    axes = tuple(range(1, images.ndim))
    return ~np.any(np.asarray(slopes) != 0.0, axis=axes)
