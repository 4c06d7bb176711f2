"""What `fit` and `evaluate` are given, checked and taken apart."""

import keras
import numpy as np
import tensorflow as tf

from mart_tf import checks
from mart_tf import noise
from mart_tf.defenses import base
from mart_tf.models import outputs as model_outputs
from mart_tf.training import reduction

# A row for every image at most so many times over.
_SPARSEST = 1000


def unpack(data, seed):
    """The `Batch` of a step, and the labels as they were given.

    Args:
        data: What Keras gives `train_step`.
        seed: An int64 scalar that the noise of all examples comes from.
    """
    x, labels, weight = keras.utils.unpack_x_y_sample_weight(data)
    image = x["image"] if isinstance(x, dict) else x
    image = tf.cast(image, tf.float32)
    if image.shape.rank is None or None in image.shape[1:]:
        raise ValueError(
            f"The images come in batches of shape {image.shape}; expected "
            "images of one size that is known: say it in the data set, as "
            "with tf.ensure_shape(image, [height, width, channels])."
        )
    if isinstance(x, dict) and "index" in x:
        example = tf.cast(x["index"], tf.int64)
        if example.shape.rank not in (None, 1):
            raise ValueError(
                f'The "index" comes in batches of shape {example.shape}; '
                "expected [batch], the row of each image."
            )
    else:
        example = reduction.global_positions(image)
    if labels is None:
        raise _no_labels()
    # Without a graph they come as numpy has them.
    classes, labels = _classes(tf.convert_to_tensor(labels), image)
    if weight is None:
        weight = tf.ones(tf.shape(image)[:1])
    batch = base.Batch(
        image=image,
        label=tf.cast(classes, tf.int32),
        weight=tf.reshape(tf.cast(weight, tf.float32), [-1]),
        example=example,
        seeds=noise.seeds(seed, example),
        memory={},
    )
    return batch, labels


def _classes(labels, image):
    """Integer classes `[n]`, and labels of a known shape for the metrics.

    Where one call was given labels `[n]` and another `[n, 1]` or one-hot ones
    of the same type, Keras compiles one step for both, which sees no rank, or
    not how many columns there are.
    """
    shape = labels.shape
    if shape.rank is None or (shape.rank == 2 and shape[1] is None):
        rows = tf.reshape(labels, [tf.shape(image)[0], -1])
        label = tf.where(
            tf.shape(rows)[1] == 1,
            tf.cast(rows[:, 0], tf.int64),
            tf.argmax(rows, axis=1),
        )
        label = tf.ensure_shape(label, image.shape[:1])
        return label, label
    if shape.rank == 2:
        one_hot = shape[1] != 1
        return tf.argmax(labels, axis=1) if one_hot else labels[:, 0], labels
    return labels, labels


def check_training(model, x, y, validation_data):
    """Refuses what `fit` cannot train or validate on; arguments as there.

    Raises:
        ValueError: With one sentence.
    """
    check(model, x, y)
    if isinstance(validation_data, (tuple, list)):
        if len(validation_data) < 2:
            raise ValueError(
                f"validation_data has {len(validation_data)} parts; expected "
                "(images, labels)."
            )
        check(model, *validation_data[:2], what="validation ")
    elif validation_data is not None:
        check(model, validation_data, None, what="validation ")
    if greatest_row(x) is not None:
        model.defense.check_data(len(x["index"]), greatest_row(x) + 1)


def check(model, x, y, what=""):
    """Refuses bad images and labels, and a network that does not fit them.

    Arrays are looked at whole, of a tf.data set or a PyDataset the first
    batch; other inputs (generators, distributed data sets) pass: they can be
    read only once.

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
    scores = _checked_scores(model, images[:2].astype("float32"))
    checks.labels(labels, scores.shape[1], what + "labels")
    # Subclassed classifiers are built by their first call, which this was.
    model.build_for(None)


def check_outputs(model, image_shape):
    """Refuses a network that returns another kind of scores than it says.

    Args:
        model: The `AdversarialClassifier`.
        image_shape: Shape of an image.
    """
    threat = model.threat
    _checked_scores(
        model,
        np.random.default_rng(0)
        .uniform(threat.pixel_min, threat.pixel_max, [2, *image_shape])
        .astype("float32"),
    )


def _checked_scores(model, images):
    with model.distribute_strategy.scope():
        try:
            scores = model.classifier(images)
        # What a user's layers raise can be anything.
        except Exception:
            taken = getattr(model.classifier, "input_shape", None)
            if isinstance(taken, tuple):
                checks.shape(images, taken[1:], model.classifier.name)
            raise
    model_outputs.check_scores(scores, model.outputs)
    return scores


def single(x):
    """What `fit` takes as one input; Keras takes a list of one array too.

    Raises:
        ValueError: If it is a list of several.
    """
    if not isinstance(x, (list, tuple)) or not x:
        return x
    if not all(hasattr(each, "shape") for each in x):
        return x
    if len(x) > 1:
        raise ValueError(
            f"The input is a {type(x).__name__} of {len(x)} arrays; expected "
            "one array of images, as in fit(images, labels)."
        )
    return x[0]


def blank(x):
    """An image of zeros of the shape that `fit` or `predict` is given.

    None where only a step can see it: of a generator, or of any shape.
    """
    if isinstance(x, tf.data.Dataset):
        x = keras.utils.unpack_x_y_sample_weight(x.element_spec)[0]
    elif isinstance(x, keras.utils.PyDataset):
        x = keras.utils.unpack_x_y_sample_weight(x[0])[0]
    shape = getattr(_image(x), "shape", None)
    if not shape or None in tuple(shape)[1:]:
        return None
    return tf.zeros([1, *tuple(shape)[1:]])


def are_weighted(
    x, shuffle=True, class_weight=None, sample_weight=None, *args, **kwargs
):
    """Whether `fit`, given these, weighs its examples."""
    given = class_weight is not None or sample_weight is not None
    spec = getattr(x, "element_spec", None)
    return given or (isinstance(spec, tuple) and len(spec) == 3)


def with_rows(defense, x):
    """Arrays with the row of each example, where the defense asks for it.

    Raises:
        ValueError: If the defense asks for rows and the input has none.
    """
    if not defense.needs_rows or _has_rows(x):
        return x
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        raise _no_rows(defense)
    images = _image(x)
    if not hasattr(images, "shape"):
        # A generator is read only once: its first batch tells.
        return x
    rows = np.arange(len(images), dtype="int64")
    return {"image": images, "index": rows}


def check_rows(defense, batch):
    """Refuses a batch without rows where the defense asks for them."""
    if defense.needs_rows and not _has_rows(
        keras.utils.unpack_x_y_sample_weight(batch)[0]
    ):
        raise _no_rows(defense)


def _no_labels():
    return ValueError(
        "There are no labels; expected fit(images, labels), or batches of "
        "(images, labels)."
    )


def _no_rows(defense):
    name = type(defense).__name__
    return ValueError(
        f"The defense {name} needs the row of each training example, and the "
        'input tells none; expected batches of ({"image": images, "index": '
        "rows}, labels), or arrays, whose rows are counted."
    )


def greatest_row(x):
    """The greatest row of arrays `{"image": ..., "index": ...}`, else None.

    Raises:
        ValueError: If the rows cannot number training examples.
    """
    if not isinstance(x, dict) or not hasattr(x.get("index"), "shape"):
        return None
    rows = np.asarray(x["index"])
    # A table is made as long as the greatest row.
    if (
        not np.issubdtype(rows.dtype, np.integer)
        or rows.min() < 0
        or rows.max() >= _SPARSEST * len(rows)
    ):
        raise ValueError(
            f'The "index" of the training data is {rows.dtype}, from '
            f"{rows.min()} to {rows.max()}, for {len(rows)} images; expected "
            "whole numbers from 0, the rows of the images in their data set."
        )
    return int(rows.max())


def _has_rows(x):
    if isinstance(x, tf.data.Dataset):
        x = keras.utils.unpack_x_y_sample_weight(x.element_spec)[0]
    elif isinstance(x, keras.utils.PyDataset):
        x = keras.utils.unpack_x_y_sample_weight(x[0])[0]
    return isinstance(x, dict) and "index" in x


def _image(x):
    """The images of what `fit` takes.

    Raises:
        ValueError: If a dict does not have them.
    """
    if not isinstance(x, dict):
        return x
    if "image" not in x:
        raise ValueError(
            f"The input is a dict of {', '.join(map(repr, x))}; expected "
            '"image" among them.'
        )
    return x["image"]


def _sample(x, y):
    if isinstance(x, tf.data.Dataset):
        checks.form(x)
        first = next(iter(x.take(1)), None)
        if first is None:
            raise ValueError("The data set is empty; expected a batch.")
        x, y, _ = keras.utils.unpack_x_y_sample_weight(first)
    elif isinstance(x, keras.utils.PyDataset):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(x[0])
    images = _image(x)
    if not (hasattr(images, "shape") and hasattr(images, "dtype")):
        return None
    if y is None:
        raise _no_labels()
    as_array = keras.ops.convert_to_numpy
    return as_array(images), as_array(y)
