"""What is attacked: anything that turns images into scores.

A Keras model, a `.keras` file, an exported SavedModel, or what only answers: a
file that another runtime computes, a model that is served elsewhere.
"""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from mart_tf import checks
from mart_tf import choices
from mart_tf import options
from mart_tf import runtimes
from mart_tf.evaluation import other_runtimes
from mart_tf.evaluation import shares
from mart_tf.models import loading
from mart_tf.models import outputs as model_outputs
from mart_tf.models import placed
from mart_tf.models import rebuilding
from mart_tf.models import signatures
from mart_tf.models import single

_LOG_PROBABILITIES = (
    "It gives probabilities, no logits: the attacks see their logarithms."
)
_NO_GRADIENTS = "It gives no gradients: only attacks that need none can run."


@dataclasses.dataclass(frozen=True)
class Subject:
    """A classifier under attack.

    Args:
        classify: Maps images, float32 `[batch, ...]`, to logits, float32
            `[batch, classes]`, in inference mode; one lasting callable.
        name: For the report.
        classes: Number of classes.
        outputs: What it returns, "logits" or "probabilities".
        parameters: Number of weights, or None.
        gradients: Whether it can be differentiated by its images.
        weights: Called without arguments, its weights as arrays; None where
            nobody can see them.
        in_python: Whether Python computes it, one batch after the other.
        note: What a reader of the report must know, or None.
        pixel_range: Least and greatest value of a pixel, where the model says
            it, else None.
        on_device: Makes of a device's name a `classify` with weights of its
            own there; None where the model has one place.
    """

    classify: Callable
    name: str
    classes: int
    outputs: str
    parameters: int | None
    gradients: bool
    weights: Callable | None = None
    in_python: bool = False
    note: str | None = None
    pixel_range: tuple | None = None
    on_device: Callable | None = None

    @functools.cached_property
    def classify_in_shares(self):
        """`classify` on shares of a batch, one lasting callable too."""
        return shares.split(self.classify)


def as_subject(model, outputs=None, images=None):
    """The `Subject` that a model in any form is.

    It is tried on two images: what it returns is checked, and whether it has
    gradients is found out.

    Args:
        model: A `Subject`, which is returned as it is; a Keras classifier or
            an AdversarialClassifier; the path, `str`
            or `pathlib.Path`, of a `.keras`, `.tflite` or `.onnx` file, of a
            SavedModel, or of a directory of numbered versions, of which the
            newest is taken; or a callable from images to scores, in
            TensorFlow or in numpy.
        outputs: "logits" or "probabilities", what the model returns; default:
            what an AdversarialClassifier or a SavedModel's signature says;
            else of a path what it shows, of an object "logits".
        images: Natural examples, `[n, ...]`, to try it on; default: random
            ones in the range that the model says, else in [0, 1], where it
            tells their shape.

    Returns:
        A `Subject`. A Keras model computes in float32.

    Raises:
        ValueError: If it is none of these or cannot be read, a SavedModel has
            no usable signature, the model fails on the images, or its outputs
            are not what is declared.
    """
    if isinstance(model, Subject):
        return model
    if outputs is not None and outputs not in choices.OUTPUTS:
        raise options.unknown("kind of outputs", str(outputs), choices.OUTPUTS)
    if isinstance(model, (str, os.PathLike)):
        return _from_path(pathlib.Path(model), outputs, images)
    classifier, kind = model_outputs.unwrap(model, outputs)
    if isinstance(classifier, keras.Model):
        pixel_range = model_outputs.pixel_range(model)
        name = classifier.name
        return _from_keras(classifier, kind, images, name, pixel_range)
    if callable(classifier):
        return _from_callable(classifier, kind, images)
    raise ValueError(
        f"The model is a {type(model).__name__}; expected a Keras model, a "
        "mart_tf.AdversarialClassifier, the path of a .keras, .tflite or "
        ".onnx file or of a SavedModel, or a function from images to scores."
    )


def _from_path(path, outputs, images):
    if (path / "run.json").is_file():
        raise ValueError(
            f"{str(path)!r} is the workdir of a run; expected a model: give "
            "the workdir to mart-evaluate, or load its classifier first."
        )
    if path.is_dir():
        scores, facts, variables = signatures.read(path, outputs)
        return _tried(
            scores,
            images,
            **facts,
            weights=lambda: [each.numpy() for each in variables],
        )
    if path.is_file() and path.suffix == ".keras":
        saved = loading.read(str(path))
        model, kind = model_outputs.unwrap(saved, outputs)
        pixel_range = model_outputs.pixel_range(saved)
        if outputs is None and loading.ends_in_softmax(model):
            # Nobody is there who could have declared it.
            kind = "probabilities"
        return _from_keras(model, kind, images, str(path), pixel_range)
    if path.is_file() and runtimes.of(path):
        scores, facts = other_runtimes.read(path)
        return _tried(scores, images, outputs=outputs, **facts)
    fault = "is no model" if path.exists() else "does not exist"
    raise ValueError(
        f"{str(path)!r} {fault}; expected a .keras, .tflite or .onnx file, a "
        "SavedModel's directory, or a directory of numbered versions."
    )


def _from_keras(model, outputs, images, name, pixel_range):
    model_outputs.check_declared(model, outputs)
    classifier = rebuilding.float32_copy(model)
    shape = getattr(classifier, "input_shape", None)

    def scores(images):
        return classifier(images, training=False)

    return _tried(
        scores,
        images,
        name=name,
        input_shape=shape[1:] if isinstance(shape, tuple) else None,
        outputs=outputs,
        parameters=classifier.count_params(),
        weights=classifier.get_weights,
        pixel_range=pixel_range,
        on_device=functools.partial(placed.on_device, classifier),
    )


def _from_callable(function, outputs, images):
    name = getattr(function, "__name__", type(function).__name__)
    images = _two(images, None, None, name)
    scores, notes = function, []
    try:
        # As the attacks will call it. One that returns an array would answer
        # ever after with what it returned here.
        tf.function(lambda images: _one_tensor(function(images)))(images)
    # It may do anything with a tensor that has no values yet.
    except Exception as error:
        notes.append(
            f"TensorFlow cannot trace it ({_cause(error)}): it is called with "
            "arrays."
        )
        scores = _answering(function, images, name)
    return _tried(
        scores,
        images,
        name=name,
        input_shape=None,
        outputs=outputs,
        parameters=None,
        in_python=scores is not function,
        notes=notes,
    )


def _answering(function, images, name):
    """A function that takes or gives arrays, as an operation of a graph."""
    failures = []
    for convert in (np.asarray, tf.constant):
        try:
            answered = function(convert(images.numpy()))
            tried = np.asarray(single.returned(answered, name), np.float32)
            break
        # What a user's function raises can be anything.
        except Exception as error:
            failures.append(error)
    else:
        raise _failing(name, images, failures[0]) from failures[0]

    def answer(images):
        return np.asarray(function(convert(images)), np.float32)

    def scores(images):
        answers = tf.numpy_function(answer, [images], tf.float32)
        return tf.ensure_shape(answers, [images.shape[0], *tried.shape[1:]])

    _check_shape(tried, images, name)
    return scores


def _tried(
    scores,
    images,
    *,
    name,
    input_shape,
    outputs,
    pixel_range=None,
    on_device=None,
    notes=(),
    rounding=0.0,
    **facts,
):
    """The `Subject`, once it has scored two images."""
    images = _two(images, input_shape, pixel_range, name)
    try:
        answers = scores(images)
        if not isinstance(answers, (tuple, list, dict)):
            answers = _one_tensor(answers)
    # What a user's layers and functions raise can be anything.
    except Exception as error:
        raise _failing(name, images, error) from error
    answers = single.returned(answers, name)
    _check_shape(answers, images, name)
    if np.isnan(answers).any():
        raise ValueError(
            f"{name!r} gives scores that are NaN, for images in the pixel "
            "range; expected a trained model with finite weights."
        )
    if outputs is None:
        is_softmax = loading.are_probabilities(answers, rounding)
        outputs = "probabilities" if is_softmax else "logits"
    model_outputs.check_scores(answers, outputs, rounding)
    gradients = _differentiable(scores, images)
    if not gradients:
        notes = [*notes, _NO_GRADIENTS]
    if outputs == "probabilities":
        # Behind a softmax of Keras's own lie logits, which do not sum to 1.
        logits = model_outputs.logits(answers, outputs)
        if loading.are_probabilities(tf.exp(logits)):
            notes = [_LOG_PROBABILITIES, *notes]

    def classified(scores):
        return lambda images: model_outputs.logits(scores(images), outputs)

    return Subject(
        classified(scores),
        name=name,
        classes=answers.shape[1],
        outputs=outputs,
        gradients=gradients,
        note=" ".join(notes) or None,
        pixel_range=pixel_range,
        on_device=on_device and (lambda device: classified(on_device(device))),
        **facts,
    )


def _differentiable(scores, images):
    try:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            total = tf.reduce_sum(scores(images))
        return tape.gradient(total, images) is not None
    except LookupError:
        # An operation has none; a compiled function tells that going forward.
        return False


def _two(images, shape, pixel_range, name):
    """Two images to try a model on, a float32 tensor."""
    if images is None:
        if shape is None or None in shape:
            raise ValueError(
                f"{name!r} does not tell the shape of an image; give a few to "
                "try it on, as images."
            )
        low, high = pixel_range or (0.0, 1.0)
        images = np.random.default_rng(0).uniform(low, high, (2, *shape))
    images = tf.constant(np.asarray(images[:2], np.float32))
    if shape is not None:
        checks.shape(images, shape, name)
    return images


def _one_tensor(answers):
    if not tf.is_tensor(answers):
        raise TypeError(f"it returns a {type(answers).__name__}, not a tensor")
    return answers


def _check_shape(answers, images, name):
    if len(answers.shape) != 2 or len(answers) != len(images):
        raise ValueError(
            f"{name!r} gives scores of shape {tuple(answers.shape)} for "
            f"{len(images)} images; expected [{len(images)}, classes]."
        )


def _failing(name, images, error):
    return ValueError(
        f"{name!r} fails on images of shape {tuple(images.shape)}; expected "
        f"scores of shape [batch, classes]: {_cause(error)}"
    )


def _cause(error):
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    if lines[:1] == ["in user code:"]:
        # Where TensorFlow was tracing, the cause comes last.
        return lines[-1][:200]
    return ": ".join([type(error).__name__, *lines[:1]])[:200]
