"""What tells a model under attack from every other."""

import numpy as np
import tensorflow as tf

from mart_tf import noise
from mart_tf.evaluation import unfinished

# How many images are asked for, and how many more between them.
_ASKED = 250
# Of the greatest logit: rounding stays below it, on a GPU too.
_ROUNDING = 1e-3


def of(subject, images, threat):
    """The weights of a model and its answers, a JSON list.

    Weights alone do not say what is computed with them: a layer without any,
    before the same network, makes another model, and may leave its answers to
    natural images as they are.

    Args:
        subject: A `subjects.Subject`.
        images: Natural examples, float32 array `[n, ...]`, so many at most as
            a pass takes.
        threat: The `ThreatModel`: the model is asked inside it too.
    """
    some = tf.constant(images[:_ASKED])
    between = threat.random_start(some, noise.seeds(0, tf.range(len(some))))
    answers = [_classes(subject, asked) for asked in (some, between)]
    if subject.weights is None:
        return [subject.name, subject.outputs, answers]
    return [subject.outputs, unfinished.digest(subject.weights()), answers]


def _classes(subject, images):
    """The class of each image; None of a model that draws random numbers."""
    first, second = (np.asarray(subject.classify(images)) for _ in range(2))
    scale = np.abs(first[np.isfinite(first)]).max(initial=0.0)
    if not np.allclose(first, second, 0.0, _ROUNDING * scale, equal_nan=True):
        return None
    return np.argmax(first, axis=1).tolist()
