"""A classifier from what a user names, and in the precision that is asked."""

import contextlib
import inspect

import keras
import numpy as np
import tensorflow as tf

from mart_tf import errors
from mart_tf import options
from mart_tf.models import hdf5
from mart_tf.models import names
from mart_tf.models import single

PRECISIONS = ("float32", "mixed_bfloat16")

_HALF = ("bfloat16", "float16")
_FLOAT_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", *_HALF)


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
            `renewed`; default: it keeps those of the file.
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
    if precision not in PRECISIONS:
        raise options.unknown("precision", str(precision), PRECISIONS)
    try:
        return _build(
            spec,
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
        function = options.load(resolved.import_path)
        taken = inspect.signature(function).parameters
        given = {k: v for k, v in of_the_run.items() if k in taken}
        with _policy(precision):
            return function(
                input_shape, num_classes, seed=seed, **resolved.options, **given
            )
    # A user's code may set a policy of its own: it does not outlive this.
    with _policy("float32"):
        if kind == "file":
            model = read(spec)
            if single.is_adversarial(model):
                model = model.averaged()
            if anew:
                model = renewed(model, seed)
        else:
            # The function's own initialisers follow the seed too.
            keras.utils.set_random_seed(seed)
            model = _call(resolved, input_shape, num_classes)
    _check_fit(spec, model, input_shape, num_classes)
    return with_precision(model, precision)


def with_precision(model, precision):
    """The same network with the same weights, computing in `precision`.

    In "mixed_bfloat16" the last layer with weights and what follows it stay
    in float32, so that the logits do.

    Args:
        model: A built `keras.Model`.
        precision: "float32" or "mixed_bfloat16".

    Returns:
        The model itself if it computes so already (one layer in bfloat16 and
        none in float16 is mixed_bfloat16), else a new `keras.Model`, rebuilt
        from its configuration.

    Raises:
        ValueError: If the model cannot be rebuilt from its configuration.
    """
    if _computes_in(model, precision):
        return model
    head = () if precision == "float32" else _head(model)
    try:
        config = keras.saving.serialize_keras_object(model)
        with _policy(precision):
            # Safe mode guards against configurations from elsewhere; this
            # one comes from an object of this process.
            rebuilt = keras.saving.deserialize_keras_object(
                _rewritten(config, precision, head), safe_mode=False
            )
        take_weights(rebuilt, model)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _no_rebuild(model, precision) from error
    if not _computes_in(rebuilt, precision):
        raise _no_rebuild(model, precision)
    return rebuilt


def renewed(model, seed):
    """The same network with initial weights, as its own initializers draw.

    Seeds that these bring along give way to the one given. What a layer has
    learned of its data by `adapt`, such as the mean of a `Normalization`, is
    no weight to train, and stays.

    Args:
        model: A built `keras.Model`.
        seed: Determines the weights.

    Returns:
        A new `keras.Model`, rebuilt from its configuration.

    Raises:
        ValueError: If the model cannot be rebuilt from its configuration.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
        keras.utils.set_random_seed(seed)
        rebuilt = keras.saving.deserialize_keras_object(
            _unseeded(config), safe_mode=False
        )
        for new, old in zip(_flatten(rebuilt), _flatten(model), strict=True):
            if hasattr(old, "adapt"):
                take_weights(new, old)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _no_rebuild(model, "new") from error
    return rebuilt


def copy(model):
    """The same network with the same weights, in variables of its own.

    Args:
        model: A built `keras.Model`.

    Returns:
        A new `keras.Model`, rebuilt from its configuration.

    Raises:
        ValueError: If the model cannot be rebuilt from its configuration.
    """
    try:
        rebuilt = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(model), safe_mode=False
        )
        take_weights(rebuilt, model)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"Model {model.name!r} cannot be copied by its configuration, to "
            "give the copy other weights; register its custom classes with "
            "keras.saving.register_keras_serializable and give them "
            "get_config."
        ) from error
    return rebuilt


def float32_copy(model):
    """The same network with the same weights, all of it in float32.

    Args:
        model: A built `keras.Model`, its layers in any precision.

    Returns:
        The model itself if nothing in it is mixed, else a new `keras.Model`.

    Raises:
        ValueError: If the model cannot be rebuilt from its configuration.
    """
    return with_precision(model, "float32")


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


def are_probabilities(scores):
    """Whether every row is non-negative and sums to 1."""
    scores = np.asarray(scores, "float32")
    # A softmax in bfloat16 sums to 1 within 0.4 %.
    sums_to_one = np.abs(scores.sum(axis=-1) - 1.0) < 1e-2
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
    single.check(model)
    expected = getattr(model, "input_shape", None)
    if expected is not None and not _shapes_agree(expected, input_shape):
        raise ValueError(
            f"Model {spec!r} takes inputs of shape {expected}; the data set's "
            f"images have shape {input_shape}: choose another model, or build "
            "it for these images."
        )
    try:
        outputs = model(np.zeros((1, *input_shape), "float32"), training=False)
    except Exception as error:
        # Whatever a layer of the user's raises for a shape that it cannot take.
        raise ValueError(
            f"Model {spec!r} fails on the data set's images, of shape "
            f"{input_shape}: {errors.first_line(error)}"
        ) from error
    shape = getattr(single.returned(outputs, spec), "shape", None)
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


def _shapes_agree(expected, input_shape):
    if not isinstance(expected, tuple) or len(expected) != len(input_shape) + 1:
        return False
    pairs = zip(expected[1:], input_shape, strict=True)
    return all(size in (None, given) for size, given in pairs)


@contextlib.contextmanager
def _policy(name):
    """Keras's policy for new layers, put back afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _flatten(layer):
    """The layers of a model in order, those of nested models included."""
    inner = getattr(layer, "layers", None)
    if not inner:
        return [layer]
    return [leaf for child in inner for leaf in _flatten(child)]


def _computes_in(model, precision):
    dtypes = {layer.compute_dtype for layer in _flatten(model)}
    if precision == "float32":
        return dtypes.isdisjoint(_HALF)
    return "bfloat16" in dtypes and "float16" not in dtypes


def _head(model):
    """Names of the last layer with weights and of those that follow it."""
    head = set()
    for layer in reversed(_flatten(model)):
        head.add(layer.name)
        if layer.weights:
            break
    return head


def _rewritten(config, policy, head):
    """A serialized model with every float policy replaced by `policy`."""
    if isinstance(config, (list, tuple)):
        return type(config)(_rewritten(c, policy, head) for c in config)
    if not isinstance(config, dict):
        return config
    inner = config.get("config")
    if config.get("class_name") == "DTypePolicy":
        known = inner["name"] in _FLOAT_POLICIES
        return {**config, "config": {"name": policy}} if known else config
    if isinstance(inner, dict) and inner.get("name") in head:
        policy = "float32"
    if policy == "float32" and config.get("dtype") in _HALF:
        config = {**config, "dtype": policy}
    return {k: _rewritten(value, policy, head) for k, value in config.items()}


def take_weights(new, old):
    """Gives a layer or model the weights of its like."""
    new.set_weights(old.get_weights())
    for layer in _flatten(new):
        # A Normalization computes with what it made of its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _unseeded(config, initializer=False):
    """A serialized model whose initializers draw from the global seed."""
    if isinstance(config, (list, tuple)):
        return type(config)(_unseeded(c, initializer) for c in config)
    if not isinstance(config, dict):
        return config
    return {
        key: None
        if initializer and key == "seed"
        else _unseeded(value, initializer or key.endswith("initializer"))
        for key, value in config.items()
    }


def _last_operation(model):
    """What makes a model's output; a subclassed model does not tell."""
    while isinstance(model, keras.Sequential) or hasattr(model, "operations"):
        sequential = isinstance(model, keras.Sequential)
        model = (model.layers if sequential else model.operations)[-1]
    return model


def _no_rebuild(model, precision):
    return ValueError(
        f"Model {model.name!r} cannot be rebuilt in {precision} from its "
        "configuration; register its custom classes with "
        "keras.saving.register_keras_serializable and give them get_config, "
        f"or build it in {precision}."
    )
