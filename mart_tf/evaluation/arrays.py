"""The examples of an evaluation, as arrays that fit the model."""

import keras
import numpy as np
import tensorflow as tf

from mart_tf import checks


def arrays(dataset, max_examples=None):
    """Images and labels of a data set, as numpy arrays.

    Args:
        dataset: `(images, labels)` arrays, or a batched tf.data.Dataset of
            `(images, labels)` or `({"image", "index"}, label, weight)`.
        max_examples: Take no more than this many, the first ones.

    Returns:
        Images, labels, and whether there are more than these.

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
        images, labels = (
            _array(name, part)
            for name, part in zip(("images", "labels"), dataset, strict=True)
        )
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
    more = max_examples is not None and len(images) > max_examples
    return images[:max_examples], labels[:max_examples], more


def check_images(images, threat):
    """Images, float32 and inside the pixel range to the last bit.

    Raises:
        ValueError: If they are integers, not finite, or outside the range by
            more than rounding.
    """
    checks.images(images, threat)
    return np.clip(
        images.astype(np.float32),
        np.float32(threat.pixel_min),
        np.float32(threat.pixel_max),
    )


def check_labels(labels, classes, class_names=None):
    """Labels, int32 `[n]`.

    Args:
        labels: Integer classes `[n]` or `[n, 1]`, or one-hot.
        classes: Number of classes.
        class_names: Names of the classes, or None.

    Raises:
        ValueError: If a label or the names are not of these classes.
    """
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"The classifier has {classes} outputs and the data "
            f"{len(class_names)} classes; expected as many."
        )
    return checks.labels(labels, classes)


def _array(name, values):
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(
            f"The {name} are of several shapes; expected one array."
        ) from None


def _collect(dataset, max_examples):
    checks.form(dataset)
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
        # One more than are taken tells whether there are more.
        if max_examples is not None and count > max_examples:
            break
    if not images:
        raise ValueError("The dataset is empty; expected at least one batch.")
    return np.concatenate(images), np.concatenate(labels)
