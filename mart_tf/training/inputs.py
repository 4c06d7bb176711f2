"""Bad data for `fit` and `evaluate`, refused before work starts."""

import keras
import tensorflow as tf

from mart_tf import checks
from mart_tf.models import outputs as model_outputs


def check(model, x, y, what=""):
    """Refuses bad images and labels, and a network that does not fit them.

    Arrays are looked at whole, of a tf.data set the first batch; other inputs
    (generators, distributed data sets) pass: they can be read only once.

    Args:
        model: The `AdversarialClassifier`.
        x: Images, or `{"image": ..., "index": ...}`, or a tf.data set.
        y: Labels, where `x` does not bring them.
        what: How messages name the data, such as "validation ".

    Raises:
        ValueError: With one sentence.
    """
    sample = _sample(x, y)
    if sample is None:
        return
    images, labels = sample
    checks.images(images, model.threat, what + "images")
    with model.distribute_strategy.scope():
        scores = model.classifier(images[:2].astype("float32"))
    model_outputs.check_scores(scores, model.outputs)
    if labels is not None:
        checks.labels(labels, scores.shape[1], what + "labels")


def _sample(x, y):
    if isinstance(x, tf.data.Dataset):
        first = next(iter(x.take(1)), None)
        if first is None:
            raise ValueError("The data set is empty; expected a batch.")
        x, y, _ = keras.utils.unpack_x_y_sample_weight(first)
    images = x["image"] if isinstance(x, dict) else x
    if not (hasattr(images, "shape") and hasattr(images, "dtype")):
        return None
    as_array = keras.ops.convert_to_numpy
    return as_array(images), None if y is None else as_array(y)
