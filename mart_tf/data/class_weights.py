"""How much an example of each class weighs in the loss.

Texts are checked without TensorFlow or numpy.
"""

import typing

from mart_tf import bounds

if typing.TYPE_CHECKING:
    import numpy as np

BALANCED = "balanced"
_FLAG = "--class_weights"


def parse(text):
    """The weights of a text, a list of numbers, or `BALANCED`.

    Args:
        text: "balanced", or a number for each class: "1,1,2.5".

    Raises:
        ValueError: On anything else, a weight below 0, or none above it.
    """
    if text == BALANCED:
        return BALANCED
    weights = [bounds.number(_FLAG, item.strip()) for item in text.split(",")]
    check(_FLAG, weights)
    return weights


def check(name, weights):
    """Refuses weights, a list of numbers, that no loss can have.

    Raises:
        ValueError: On one that is negative or not finite, or none above 0.
    """
    for weight in weights:
        bounds.AT_LEAST_ZERO.check(name, weight)
    if not any(weights):
        raise ValueError(
            f"{name} is 0 for every class, which leaves nothing to train on; "
            "expected a weight above 0."
        )


def of(text, dataset) -> "np.ndarray":
    """The weight of each class, float32 `[classes]`.

    Balanced, class k of K weighs n / (K n_k), with n training images and n_k
    of them of the class, as in scikit-learn: the mean over the training split
    is 1, and all classes weigh the same together.

    Args:
        text: As of `parse`.
        dataset: A `Dataset`.

    Raises:
        ValueError: If there are not as many weights as classes, or a class
            has no training image whose weight could follow from their number.
    """
    import numpy as np

    from mart_tf.data import shards

    weights, classes = parse(text), dataset.num_classes
    if weights != BALANCED:
        if len(weights) != classes:
            raise ValueError(
                f"{_FLAG} has {len(weights)} weights, and {dataset.name} "
                f"{classes} classes; expected one for each, or balanced."
            )
        return np.array(weights, np.float32)
    counts = np.bincount(shards.labels_of(dataset.train), minlength=classes)
    if not counts.all():
        missing = dataset.class_names[int(np.argmin(counts))]
        raise ValueError(
            f"{_FLAG}=balanced divides by the training images of each class, "
            f"and {dataset.name} has none of the class {missing}; expected a "
            "number for each class."
        )
    return (counts.sum() / (classes * counts)).astype(np.float32)
