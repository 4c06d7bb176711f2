"""A classifier from what a user names: a table's, a file's, a function's."""

import inspect
import os
import re

import keras
import numpy as np
import tensorflow as tf

from mart_tf import errors
from mart_tf import options
from mart_tf.models import hdf5
from mart_tf.models import names
from mart_tf.models import rebuilding
from mart_tf.models import single

# Activations, and operations of these names, whose values are bounded.
_BOUNDED = {"sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softsign", "relu6"}

# Half a step of integers that may stand for probabilities, at most.
_COARSEST = 1 / 256


def build(
    spec: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    seed: int = 0,
    precision: str = "float32",
    anew: bool = False,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    pretrained: bool = True,
) -> keras.Model:
    """The classifier that a spec names, for a data set's images and classes.

    Args:
        spec: A name of `mart_tf.models.MODELS` with options, the path of a
            `.keras` file, or `package.module:function` with options, which
            is called as `function(input_shape, num_classes, **options)`.
        input_shape: Shape of an image, `(height, width, channels)`.
        num_classes: Number of classes.
        seed: Determines the initial weights of a network of the table, and of
            a file's where it starts anew.
        precision: "float32" or "mixed_bfloat16", what the layers compute in;
            the weights and the logits are float32 in both. A user's network
            is rebuilt from its configuration where its precision is another.
        anew: Whether the network of a `.keras` file gets new weights, see
            `rebuilding.renewed`; default: it keeps those of the file.
        pixel_range: Least and greatest value of a pixel, for networks that
            normalize inside: those of keras.applications, and what has an
            option `normalize`.
        pretrained: False where other weights come after: those that
            `weights=imagenet` names are then not read.

    Returns:
        A `keras.Model` from images to scores `[batch, num_classes]`.

    Raises:
        ValueError: On a spec that names nothing, or a network that does not
            fit the images, the classes or the precision.
    """
    if precision not in rebuilding.PRECISIONS:
        raise options.unknown(
            "precision", str(precision), rebuilding.PRECISIONS
        )
    try:
        return _build(
            os.fspath(spec),
            input_shape,
            num_classes,
            seed,
            precision,
            anew,
            {"pixel_range": pixel_range, "pretrained": pretrained},
        )
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ValueError(
            f"Model {spec!r} does not fit into the memory of this machine, on "
            f"images of {'x'.join(map(str, input_shape))}; expected a smaller "
            "network or smaller images."
        ) from error


def _build(spec, input_shape, num_classes, seed, precision, anew, of_the_run):
    kind, resolved = names.check(spec)
    input_shape = tuple(int(size) for size in input_shape)
    if kind in ("table", "application"):
        if len(input_shape) != 3:
            raise ValueError(
                f"Model {spec!r} needs images of shape (height, width, "
                f"channels); the data set's have shape {input_shape}."
            )
        if anew and resolved.options.get("weights") == "imagenet":
            raise ValueError(
                f"Model {spec!r} begins with trained weights, and new ones are "
                "asked for; expected weights=none, or no --init_from=none."
            )
        function = options.load(resolved.import_path)
        taken = inspect.signature(function).parameters
        given = {k: v for k, v in of_the_run.items() if k in taken}
        with rebuilding.policy(precision):
            return function(
                input_shape, num_classes, seed=seed, **resolved.options, **given
            )
    # A user's code may set a policy of its own: it does not outlive this.
    with rebuilding.policy("float32"):
        if kind == "file":
            model = read(spec)
            if single.is_adversarial(model):
                model = model.averaged()
            if anew:
                model = rebuilding.renewed(model, seed)
            _check_fit(spec, model, input_shape, num_classes)
        else:
            # The function's own initialisers follow the seed too.
            with rebuilding.seeded(seed):
                model = _call(resolved, input_shape, num_classes)
                # What its first call builds, this builds.
                _check_fit(spec, model, input_shape, num_classes)
    return rebuilding.with_precision(model, precision)


def ends_in_softmax(model, images=None):
    """Whether a network returns probabilities rather than logits.

    True if its last operation is a softmax, or else if every row of its
    output for `images` is non-negative and sums to 1.

    Args:
        model: A built `keras.Model`.
        images: A small float32 batch in the model's pixel range; default: 8
            random images in [0, 1], where the model tells their shape.
    """
    last = _last_operation(model)
    if type(last).__name__ == "Softmax":
        return True
    if getattr(last, "activation", None) is keras.activations.softmax:
        return True
    if images is None:
        shape = getattr(model, "input_shape", None)
        if not shape or None in shape[1:]:
            return False
        images = np.random.default_rng(0).random((8, *shape[1:]), "float32")
    return are_probabilities(model(images, training=False))


def squashed(model):
    """The name of the bounded activation that a model ends in, or None.

    Of the scores that it leaves a softmax makes nearly equal probabilities, and
    where it is flat it has no gradient to follow. A softmax is none of them.
    """
    last = _last_operation(model)
    names = [type(last).__name__]
    names.append(getattr(getattr(last, "activation", None), "__name__", ""))
    for name in names:
        # Operations are named `Sigmoid`, functions `sigmoid`.
        plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        if plain in _BOUNDED:
            return plain
    return None


def are_probabilities(scores, rounding=0.0):
    """Whether every row is non-negative and sums to 1.

    Args:
        scores: `[..., classes]`.
        rounding: How far each may be from what it stands for, as integers in
            a file are.
    """
    scores = np.asarray(scores, "float32")
    # A softmax in bfloat16 sums to 1 within 0.4 %.
    allowed = 1e-2
    if rounding <= _COARSEST:
        allowed += rounding * scores.shape[-1]
    sums_to_one = np.abs(scores.sum(axis=-1) - 1.0) < allowed
    return bool((scores >= 0.0).all() and sums_to_one.all())


def read(path):
    """The model of a `.keras` file.

    Raises:
        ValueError: If the file cannot be read, or expands too far.
    """
    hdf5.check_model(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        # Keras raises a different class for each kind of damage.
        raise ValueError(
            f"Model file {path!r} cannot be read; expected a file that "
            "keras.Model.save wrote, its custom layers registered: "
            f"{errors.first_line(error)}"
        ) from error


def _call(spec, input_shape, num_classes):
    function = options.load(spec.import_path)
    model = function(input_shape, num_classes, **spec.options)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Model {spec.text!r} returned a {type(model).__name__}; expected "
            "function(input_shape, num_classes) to return a keras.Model."
        )
    return model


def _check_fit(spec, model, input_shape, num_classes):
    """Refuses a network that does not fit the images or the classes."""
    image = np.zeros((1, *input_shape), "float32")
    outputs = single.scored(model, image, f"Model {spec!r}", "the data set")
    shape = getattr(outputs, "shape", None)
    if shape is None or len(shape) != 2:
        returned = type(outputs).__name__ if shape is None else tuple(shape)
        raise ValueError(
            f"Model {spec!r} returns {returned} for one image; expected one "
            "output of shape [batch, classes]."
        )
    if outputs.shape[1] != num_classes:
        raise ValueError(
            f"Model {spec!r} has {outputs.shape[1]} outputs and the data set "
            f"{num_classes} classes; expected as many outputs as classes."
        )


def _last_operation(model):
    """What makes a model's output; a subclassed model does not tell."""
    while isinstance(model, keras.Sequential) or hasattr(model, "operations"):
        sequential = isinstance(model, keras.Sequential)
        model = (model.layers if sequential else model.operations)[-1]
    return model
