"""A Keras classifier written as a SavedModel version, for TF Serving."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import operator
import os

import keras
import numpy as np
import tensorflow as tf

from mart_tf import errors
from mart_tf import private
from mart_tf.models import outputs as model_outputs
from mart_tf.models import rebuilding
from mart_tf.models import single
from mart_tf.serving import card
from mart_tf.serving import endpoints
from mart_tf.serving import verification
from mart_tf.serving import versions
from mart_tf.serving import warmup as warmup_records

# Batch sizes that a version is tried with, beside those of its warm-up.
_TRIED = (1, 3)


@dataclasses.dataclass(frozen=True)
class Version:
    """A version that was written.

    Attributes:
        path: Its directory.
        signatures: Lines that describe each signature, by name.
        warmup: Number of warm-up records.
        verification: What its card says was tried. If it was verified:
            `requests`, how many, and `difference`, the largest between its
            logits on the C++ runtime and the classifier's, as a share of
            their largest magnitude; and what the check said.
        files: What its card says of files of other formats, by name.
    """

    path: str
    signatures: dict
    warmup: int
    verification: dict
    files: dict


def export_saved_model(
    model: keras.Model,
    directory: str | os.PathLike,
    *,
    outputs: str | None = None,
    class_names: Sequence[str] | None = None,
    pixel_range: tuple[float, float] | None = None,
    signatures: Sequence[str] | None = None,
    warmup: Iterable[int] = (1,),
    verify: bool = True,
) -> str:
    """Writes a classifier as the next SavedModel version in a directory.

    Args:
        model: A Keras classifier, or an `AdversarialClassifier`, which says
            itself what its classifier returns, the range of its pixels, its
            threat model, its defense and every setting.
        directory: Where the versions 1, 2, ... lie; made if it is missing. A
            path, or a URL such as gs://bucket/models/digits.
        outputs: What the classifier returns: "logits" or "probabilities";
            default: what an `AdversarialClassifier` says, else "logits".
        class_names: A name for each class; default: their numbers.
        pixel_range: Least and greatest value of a pixel, which encoded images
            are spread over: asked for where a plain Keras classifier takes
            them; default: what an `AdversarialClassifier` says.
        signatures: Which of "serving_default", "image_bytes" and "classify";
            default: all that the classifier can give.
        warmup: Batch sizes of the requests that a server replays at its
            start, at each signature.
        verify: Whether to run the version in a separate process on
            TensorFlow's C++ runtime, its warm-up too, and compare it with the
            classifier, before it can be seen. It takes about two seconds.

    Returns:
        The path of the new version, a string.

    Raises:
        ValueError: If the classifier cannot be exported, does not fit what is
            said of it, cannot give a signature, the directory cannot hold
            versions, or the version fails the verification. Nothing is left
            behind.
    """
    return write_version(
        model,
        directory,
        outputs=outputs,
        class_names=class_names,
        pixel_range=pixel_range,
        signatures=signatures,
        warmup=warmup,
        verify=verify,
    ).path


def write_version(
    model,
    directory,
    *,
    outputs=None,
    class_names=None,
    pixel_range=None,
    signatures=None,
    warmup=(1,),
    verify=True,
    check=None,
    others=None,
    facts=None,
):
    """`export_saved_model`, with more to say, and what was seen.

    Args:
        model, directory, outputs, class_names, pixel_range, signatures,
            warmup, verify: See `export_saved_model`.
        check: Called with the path of the version before it can be seen;
            returns facts for the card, or raises, and nothing is left.
        others: Called after it with the path and the `endpoints.Classifier`;
            writes files of other formats beside the graph, and returns what
            the card says of each, by name.
        facts: More for the model card, a JSON dict.

    Returns:
        A `Version`.
    """
    pixel_range = model_outputs.pixel_range(model, pixel_range)
    facts = {**_training(model), **(facts or {})}
    model, outputs = model_outputs.unwrap(model, outputs)
    versions.check(directory)
    image_shape = _image_shape(model)
    served = rebuilding.float32_copy(model)
    classes = _classes(served, image_shape, outputs, pixel_range or (0.0, 1.0))
    classifier = endpoints.Classifier(
        served,
        outputs,
        image_shape,
        pixel_range,
        _class_names(class_names, classes),
    )
    names = endpoints.names(classifier, signatures)
    sizes = _batch_sizes(warmup, len(names))
    described, tried, files = {}, {}, {}

    def fill(hidden):
        _save(classifier, names, hidden)
        requests = verification.requests(classifier, names, sizes)
        if requests:
            warmup_records.write(hidden, "classifier", requests)
        for name in names:
            signature = verification.signature(hidden, name)
            described[name] = _describe(signature)
        if verify:
            # The warm-up as a server will find it.
            requests = warmup_records.read(hidden)
            requests += verification.requests(
                classifier,
                names,
                [size for size in _TRIED if size not in sizes],
            )
            with errors.batch_that_fits(
                max(sizes, default=1), option="--warmup_batch_sizes"
            ):
                difference = verification.compare(hidden, classifier, requests)
            tried.update(requests=len(requests), difference=difference)
        if check is not None:
            tried.update(check(hidden))
        if others is not None:
            files.update(others(hidden, classifier))
        made = card.describe(classifier, hidden, described, sizes)
        card.write(
            hidden, {**made, **facts, "verification": tried, "files": files}
        )

    path = versions.write(directory, fill)
    return Version(path, described, len(names) * len(sizes), tried, files)


def _training(model):
    """What an `AdversarialClassifier` says of its training, for the card."""
    if single.is_adversarial(model):
        return {"training": model.settings()}
    return {}


def _image_shape(model):
    """The shape of one image, from a model that was built."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Got a {type(model).__name__} to export; expected a Keras model."
        )
    single.check(model)
    shape = getattr(model, "input_shape", None)
    if shape is None:
        # A subclassed model knows only what it was first called with.
        shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError(
            f"The model {model.name!r} has no weights yet; call it once on a "
            "batch of images before it is exported."
        )
    sizes = shape[1:] if isinstance(shape, (tuple, list)) else ()
    if not sizes or not all(isinstance(size, int) for size in sizes):
        raise ValueError(
            f"The model {model.name!r} takes inputs of shape {shape}; expected "
            "one batch of images of a fixed size, such as (None, 32, 32, 3)."
        )
    return tuple(sizes)


def _classes(model, image_shape, outputs, pixel_range):
    """The number of classes, once the model's scores make sense."""
    low, high = pixel_range
    shares = np.random.default_rng(0).random((3, *image_shape), np.float32)
    images = (low + shares * (high - low)).astype(np.float32)
    scores = single.returned(
        model(tf.constant(images), training=False), model.name
    )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"The model {model.name!r} returns scores that are not finite "
            f"for images in [{low:g}, {high:g}]; expected a trained "
            "classifier."
        )
    model_outputs.check_declared(model, outputs)
    model_outputs.check_scores(scores, outputs)
    return scores.shape[1]


def _class_names(names, classes):
    names = range(classes) if names is None else names
    names = tuple(
        # As data sets in TensorFlow and numpy have them.
        name.decode("utf-8") if isinstance(name, bytes) else str(name)
        for name in names
    )
    if len(names) != classes:
        raise ValueError(
            f"There are {len(names)} class names, and the model has {classes} "
            "classes; expected a name for each."
        )
    return names


def _batch_sizes(sizes, signatures):
    given = sizes
    try:
        sizes = sorted({operator.index(size) for size in sizes})
    except TypeError:
        sizes = [0]
    if min(sizes, default=1) < 1:
        raise ValueError(
            f"The warm-up's batch sizes are {given}; expected whole numbers of "
            "at least 1, or none."
        )
    if len(sizes) * signatures > warmup_records.MOST:
        raise ValueError(
            f"{len(sizes)} batch sizes at {signatures} signatures are more "
            f"warm-up records than the {warmup_records.MOST} that a server "
            "takes; give fewer sizes."
        )
    return sizes


def _save(classifier, names, directory):
    # Without track(): it stores every weight twice (keras#23553).
    archive = keras.export.ExportArchive()
    functions = endpoints.functions(classifier, names)
    for name, (function, spec) in functions.items():
        archive.add_endpoint(name, function, [spec])
    try:
        archive.write_out(directory, verbose=False)
    # What a user's own layers raise while they are traced can be anything.
    except Exception as error:
        cause = errors.first_line(error)
        raise ValueError(
            f"The model {classifier.model.name!r} cannot be written as a "
            f"SavedModel: {type(error).__name__}: {cause}"
        ) from error
    if endpoints.CLASSIFY in names:
        _mark_classify(directory)


def _mark_classify(directory):
    """Says of a signature that a server's Classify may call it.

    TensorFlow 2 writes every signature as one for Predict.
    """
    path = verification.graph_file(directory)
    saved_model = private.saved_model(path.read_bytes())
    signatures = saved_model.meta_graphs[0].signature_def
    method = tf.saved_model.CLASSIFY_METHOD_NAME
    signatures[endpoints.CLASSIFY].method_name = method
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    # fingerprint.pb is of the file as it was.
    private.write_fingerprint(directory)


def _describe(signature):
    lines = []
    for kind in ("inputs", "outputs"):
        for name, info in sorted(getattr(signature, kind).items()):
            shape = ", ".join(
                "batch" if dim.size < 0 else str(dim.size)
                for dim in info.tensor_shape.dim
            )
            dtype = tf.dtypes.as_dtype(info.dtype).name
            lines.append(f"{kind[:-1]} {name}: {dtype} [{shape}]")
    return tuple(lines)
