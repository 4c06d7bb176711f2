"""Pseudo-labels: a trained network labels a pool once."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from mart_tf import bounds
from mart_tf import environment
from mart_tf import files
from mart_tf.data import mapping
from mart_tf.data import pipeline
from mart_tf.data import pools
from mart_tf.models import outputs as model_outputs
from mart_tf.models import rebuilding
from mart_tf.models import single


@environment.exact_float32()
def label_pool(
    classifier,
    pool,
    path,
    *,
    labeled_by,
    batch_size=256,
    outputs=None,
    pixel_range=None,
    progress=None,
):
    """Writes a pool with the classes that a classifier gives to its images.

    The labels are argmax p(x) of the natural images, in inference mode and
    float32. Labels that the pool has already are not looked at.

    Args:
        classifier: A Keras classifier, or an `AdversarialClassifier`.
        pool: A `Pool`.
        path: The file to write, for `load_pool("npz:PATH")`: the arrays
            `image`, `label`, `labeled_by` and `mean_confidence`, the mean of
            max_k p_k(x).
        labeled_by: Who gives the labels, such as the workdir of a run.
        batch_size: Images in a forward pass.
        outputs: "logits" or "probabilities", what the classifier returns;
            default: what an `AdversarialClassifier` says, else "logits".
        pixel_range: Least and greatest value of the classifier's pixels;
            default: what an `AdversarialClassifier` says, else (0, 1).
        progress: Called with the number of images labelled so far.

    Returns:
        The labelled `Pool`, named as `load_pool` would.

    Raises:
        ValueError: If the file exists, its folder does not, the classifier
            does not fit the images, or returns NaN. Nothing is written then.
    """
    batch_size = bounds.whole("batch_size", batch_size, 1)
    pools.check_is_pool(pool)
    path = _new_file(path)
    predict = _predictor(classifier, outputs, pixel_range, pool)
    labels = np.empty([len(pool)], np.int64)
    confidences = np.empty([len(pool)], np.float32)
    places = np.arange(batch_size)
    for start in range(0, len(pool), batch_size):
        stop = min(start + batch_size, len(pool))
        # The last batch repeats the last image: one shape is compiled.
        images = mapping.rows(pool.images, np.minimum(start + places, stop - 1))
        predicted, sure = (tensor.numpy() for tensor in predict(images))
        labels[start:stop] = predicted[: stop - start]
        confidences[start:stop] = sure[: stop - start]
        if progress is not None:
            progress(stop)
    unsure = np.flatnonzero(np.isnan(confidences))
    if unsure.size:
        raise ValueError(
            f"The classifier returns NaN for image {unsure[0]} of the pool "
            f"{pool.name}; expected one whose weights are finite."
        )
    labeled = pools.Pool(
        f"npz:{path}",
        pool.images,
        labels,
        str(labeled_by),
        float(confidences.mean()),
    )
    try:
        _write(path, labeled)
    except FileExistsError as error:
        # Made by another while this one was labelled.
        raise _exists(path) from error
    return labeled


def _exists(path):
    return ValueError(
        f"{path} exists; a pool is never overwritten: choose another name, or "
        "remove it first."
    )


def _new_file(path):
    path = pathlib.Path(path).expanduser()
    if os.path.lexists(path):
        raise _exists(path)
    if not path.parent.is_dir():
        raise ValueError(
            f"There is no folder {path.parent} to write {path.name} to; make "
            "it first."
        )
    return path


def _predictor(classifier, outputs, pixel_range, pool):
    """Images of the pool to classes and their probabilities, compiled."""
    pixel_range = model_outputs.pixel_range(classifier, pixel_range)
    pixel_range = pixel_range or (0.0, 1.0)
    model, kind = model_outputs.network(classifier, outputs)
    model_outputs.check_declared(model, kind)
    model = rebuilding.float32_copy(model)
    some = pipeline.pixels(tf.constant(pool.images[:8]))
    scores = single.scored(
        model,
        pipeline.spread(some, pixel_range),
        "The classifier",
        f"the pool {pool.name}",
    )
    model_outputs.check_scores(scores, kind)

    @tf.function(reduce_retracing=False)
    def predict(images):
        images = pipeline.spread(pipeline.pixels(images), pixel_range)
        scores = model(images, training=False)
        probabilities = tf.nn.softmax(model_outputs.logits(scores, kind))
        return (
            tf.argmax(probabilities, axis=1),
            tf.reduce_max(probabilities, axis=1),
        )

    return lambda images: predict(tf.constant(images))


def _write(path, pool):
    with (
        files.whole(path, new=True) as temporary,
        temporary.open("wb") as file,
    ):
        # What was too large for the memory shall not have to fit into it later.
        save = np.savez_compressed
        if mapping.is_mapped(pool.images):
            save = np.savez
        save(
            file,
            image=pool.images,
            label=pool.labels,
            labeled_by=pool.labeled_by,
            mean_confidence=np.float32(pool.mean_confidence),
        )
