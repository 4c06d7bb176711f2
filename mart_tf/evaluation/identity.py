"""What tells a model under attack from every other."""

import numpy as np
import tensorflow as tf

from mart_tf import noise
from mart_tf.data import archives
from mart_tf.evaluation import unfinished

# How many images are asked for, and how many more between them.
_ASKED = 250
# Of how many of them the scores are kept, beside the classes.
_SCORED = 4


def of(subject, images, threat, width):
    """The weights of a model and its answers, a JSON list; or None.

    Weights alone do not say what is computed with them: a layer without any,
    before the same network, makes another model, and may leave its answers to
    natural images as they are; behind it, it may leave the classes. Of a model
    that shows no weights, and draws random numbers that no seed of
    TensorFlow's decides, there is nothing to know it by.

    Args:
        subject: A `subjects.Subject`.
        images: Natural examples, float32 array `[n, ...]`.
        threat: The `ThreatModel`: the model is asked inside it too.
        width: How many a pass takes; with another one it is the same model.
    """
    some = tf.constant(images[:_ASKED])
    between = threat.random_start(some, noise.seeds(0, tf.range(len(some))))
    answers = [_answers(subject, asked, width) for asked in (some, between)]
    if subject.weights is None:
        if None in answers:
            return None
        return [subject.name, subject.outputs, answers]
    return [subject.outputs, archives.digest(subject.weights()), answers]


def _answers(subject, images, width):
    """Classes, and some scores; None where they are others when asked again.

    A model that draws from TensorFlow's generator gives the same ones.
    """

    def ask():
        tf.random.set_seed(0)
        return np.concatenate(
            [
                subject.classify(images[i : i + width])
                for i in range(0, len(images), width)
            ]
        )

    first, second = ask(), ask()
    if not unfinished.close(first, second):
        return None
    return {
        "classes": np.argmax(first, axis=1).tolist(),
        unfinished.SCORES: [
            [float(score) if np.isfinite(score) else None for score in scores]
            for scores in first[:_SCORED]
        ],
    }
