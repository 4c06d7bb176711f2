"""What is evaluated: a classifier in float32, and examples as arrays."""

import keras
import numpy as np
import tensorflow as tf

from mart_tf import checks
from mart_tf.models import loading
from mart_tf.models import outputs as model_outputs


def classifier(model, outputs=None):
    """The Keras classifier to attack, computing in float32.

    Args:
        model: A Keras classifier, or an AdversarialClassifier, an object
            with a `classifier` and its `outputs`.
        outputs: "logits" or "probabilities", what the classifier returns;
            default: what `model` says, else "logits".

    Returns:
        The classifier, in float32, and its outputs.

    Raises:
        ValueError: If it is not a Keras model, or ends in a softmax that was
            not declared.
    """
    model, outputs = model_outputs.unwrap(model, outputs)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"The model is a {type(model).__name__}; expected a keras.Model "
            "or a mart_tf.AdversarialClassifier."
        )
    model_outputs.check_declared(model, outputs)
    return loading.float32_copy(model), outputs


def logits_of(model, outputs):
    """Images to float32 logits, in inference mode: one lasting callable."""

    def classify(images):
        return model_outputs.logits(model(images, training=False), outputs)

    return classify


def arrays(dataset, max_examples=None):
    """Images and labels of a data set, as numpy arrays.

    Args:
        dataset: `(images, labels)` arrays, or a batched tf.data.Dataset of
            `(images, labels)` or `({"image", "index"}, label, weight)`.
        max_examples: Take no more than this many, the first ones.

    Raises:
        ValueError: If there are none, too few labels, or no end of them.
    """
    if max_examples is not None and max_examples < 1:
        raise ValueError(
            f"max_examples is {max_examples}; expected at least 1, or None "
            "for all."
        )
    if isinstance(dataset, tf.data.Dataset):
        images, labels = _collect(dataset, max_examples)
    elif isinstance(dataset, (tuple, list)) and len(dataset) == 2:
        images, labels = (np.asarray(part) for part in dataset)
    else:
        raise ValueError(
            f"The dataset is a {type(dataset).__name__}; expected a tuple "
            "(images, labels) of arrays or a batched tf.data.Dataset."
        )
    if len(images) != len(labels):
        raise ValueError(
            f"There are {len(images)} images and {len(labels)} labels; "
            "expected one label for each image."
        )
    return images[:max_examples], labels[:max_examples]


def check(images, labels, threat, model, outputs, class_names=None):
    """Refuses examples that do not fit the threat model or the classifier.

    Args:
        images: Array `[n, ...]`.
        labels: Integer classes `[n]` or `[n, 1]`, or one-hot.
        threat: The `ThreatModel`.
        model: The Keras classifier.
        outputs: What it returns, "logits" or "probabilities".
        class_names: Names of the classes, or None.

    Returns:
        Images, float32 and inside the pixel range to the last bit; labels,
        int32 `[n]`; the number of classes.

    Raises:
        ValueError: On anything else, one sentence each.
    """
    checks.images(images, threat)
    images = np.clip(
        images.astype(np.float32),
        np.float32(threat.pixel_min),
        np.float32(threat.pixel_max),
    )
    expected = getattr(model, "input_shape", None)
    if isinstance(expected, tuple) and not _fits(images.shape, expected):
        raise ValueError(
            f"The images have shape {images.shape[1:]}; the classifier takes "
            f"{expected[1:]}."
        )
    scores = model(images[:8], training=False)
    model_outputs.check_scores(scores, outputs)
    classes = scores.shape[1]
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"The classifier has {classes} outputs and the data "
            f"{len(class_names)} classes; expected as many."
        )
    return images, checks.labels(labels, classes), classes


def _fits(shape, expected):
    return len(shape) == len(expected) and all(
        wanted in (None, size)
        for size, wanted in zip(shape[1:], expected[1:], strict=True)
    )


def _collect(dataset, max_examples):
    endless = dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    if endless and max_examples is None:
        raise ValueError(
            "The dataset never ends; give max_examples, or leave out repeat()."
        )
    images, labels, count = [], [], 0
    for batch in dataset:
        inputs, label, weight = keras.utils.unpack_x_y_sample_weight(batch)
        image = inputs["image"] if isinstance(inputs, dict) else inputs
        # Rows of weight 0 fill a last batch up.
        rows = ... if weight is None else weight.numpy().ravel() != 0
        images.append(image.numpy()[rows])
        labels.append(label.numpy()[rows])
        count += len(images[-1])
        if max_examples is not None and count >= max_examples:
            break
    if not images:
        raise ValueError("The dataset is empty; expected at least one batch.")
    return np.concatenate(images), np.concatenate(labels)
