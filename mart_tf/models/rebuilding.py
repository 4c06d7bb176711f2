"""A network built again: in another precision, from new weights, as a copy."""

import contextlib
import random

import keras
import numpy as np

from mart_tf import private

PRECISIONS = ("float32", "mixed_bfloat16")

_HALF = ("bfloat16", "float16")
_FLOAT_POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", *_HALF)


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
        with policy(precision):
            rebuilt = _again(model, _rewritten, precision, head)
        take_weights(rebuilt, model)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _no_rebuild(model, precision) from error
    if not _computes_in(rebuilt, precision):
        raise _no_rebuild(model, precision)
    return rebuilt


def renewed(model, seed):
    """The same network with initial weights, as its own initializers draw.

    Seeds that these bring along give way to the one given. What training does
    not change stays: a layer that is frozen (`trainable=False`) keeps its
    weights, and a `Normalization` the mean that it has learned by `adapt`.

    Args:
        model: A built `keras.Model`.
        seed: Determines the weights.

    Returns:
        A new `keras.Model`, rebuilt from its configuration.

    Raises:
        ValueError: If the model cannot be rebuilt from its configuration.
    """
    try:
        with seeded(seed):
            rebuilt = _again(model, _unseeded)
        pairs = zip(private.layers(rebuilt), private.layers(model), strict=True)
        for new, old in pairs:
            if hasattr(old, "adapt") or not old.trainable:
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
        rebuilt = _again(model)
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


def take_weights(new, old):
    """Gives a layer or model the weights of its like."""
    new.set_weights(old.get_weights())
    for layer in private.layers(new):
        # A Normalization computes with what it made of its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


@contextlib.contextmanager
def seeded(seed):
    """Random numbers of a seed; Python's and numpy's go on as before after it.

    Keras's and TensorFlow's begin with the seed: they have no state to keep.
    """
    python = random.getstate()
    of_numpy = np.random.get_state()  # noqa: NPY002 - what others use
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)  # noqa: NPY002


@contextlib.contextmanager
def policy(name):
    """Keras's policy for new layers, put back afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _again(model, change=lambda config: config, *how):
    """A model made from the changed configuration of another."""
    config = keras.saving.serialize_keras_object(model)
    # Safe mode guards against configurations from elsewhere; this one comes
    # from an object of this process.
    return keras.saving.deserialize_keras_object(
        change(config, *how), safe_mode=False
    )


def _flatten(layer):
    """The layers of a model in order, those of nested models included."""
    inner = getattr(layer, "layers", None)
    if not inner:
        return [layer]
    return [leaf for child in inner for leaf in _flatten(child)]


def _computes_in(model, precision):
    dtypes = {
        layer.compute_dtype
        for layer in private.layers(model)
        # What a model computes in is up to its layers.
        if not getattr(layer, "layers", None)
    }
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


def _no_rebuild(model, precision):
    return ValueError(
        f"Model {model.name!r} cannot be rebuilt in {precision} from its "
        "configuration; register its custom classes with "
        "keras.saving.register_keras_serializable and give them get_config, "
        f"or build it in {precision}."
    )
