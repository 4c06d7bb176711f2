"""Weights of a trained Keras model into another, as far as the layers agree."""

import collections
import re
import warnings

import keras

from mart_tf import limits
from mart_tf.models import hdf5
from mart_tf.models import loading
from mart_tf.models import outputs


def read(path):
    """The classifier of a `.keras` file, an `AdversarialClassifier`'s too.

    Raises:
        ValueError: If the file cannot be read.
    """
    model, _ = outputs.unwrap(loading.read(str(path)))
    return model


def initialize(classifier, source, name):
    """Copies the weights of every layer that two models have in common.

    A layer is taken if the source has one of the same name with weights of
    the same shapes. Nested models are taken apart; batch-norm statistics are
    weights too. Layers that share a name, or that Keras named (dense_3), are
    told apart by their order in the model.

    Args:
        classifier: A built Keras model, whose weights change.
        source: A built Keras model.
        name: How a message names the source.

    Returns:
        The names of the layers that were taken, and of those that were left
        as they were: a list, and a list of pairs with the reason.

    Raises:
        ValueError: If no layer fits; then nothing has changed.
    """
    theirs = _with_weights(source)
    taken, left = [], []
    for key, (layer, weights) in _with_weights(classifier).items():
        _, original = theirs.get(key, (None, None))
        if original is None:
            left.append((layer, "absent there"))
        elif _shapes(weights) != _shapes(original):
            left.append(
                (
                    layer,
                    f"{_shapes(original)} there, {_shapes(weights)} here",
                )
            )
        else:
            taken.append(layer)
            for mine, other in zip(weights, original, strict=True):
                mine.assign(other)
    if not taken:
        listed = "; ".join(f"{layer}: {reason}" for layer, reason in left)
        raise ValueError(
            f"No layer of {name} fits the network {classifier.name!r} "
            f"({listed}); initialise from a network with layers of the same "
            "names and shapes, or train that network itself, with --model."
        )
    return taken, left


def load_weights(classifier, path):
    """Reads a `.weights.h5` file of the same network, whole or not at all.

    Args:
        classifier: A built Keras model, whose weights change.
        path: A file that `keras.Model.save_weights` wrote.

    Returns:
        The names of the layers with weights: all were taken.

    Raises:
        ValueError: If the file is damaged or of another network; then nothing
            has changed.
    """
    before = classifier.get_weights()
    count = _count_weights(path)
    try:
        # Keras passes over what is in the file and not in the network.
        if count != len(before):
            raise ValueError(
                f"it holds {count} arrays, and the network has {len(before)}."
            )
        with warnings.catch_warnings(action="ignore"):
            classifier.load_weights(path)
    except Exception as error:
        # Keras and h5py raise a different class for each kind of mismatch.
        classifier.set_weights(before)
        raise ValueError(
            f"Weights file {str(path)!r} does not fit the network "
            f"{classifier.name!r}; expected what its own save_weights writes "
            "(of a .keras file or a workdir, the layers that fit are taken): "
            f"{_one_line(error)}"
        ) from error
    return names(classifier)


def names(model):
    """The names of the layers that have weights of their own, in order."""
    return [layer for layer, _ in _with_weights(model).values()]


def _count_weights(path):
    """The number of arrays in a file, those of an optimizer left out."""
    try:
        with limits.opened(path) as file:
            arrays = hdf5.arrays(path, file)
    except hdf5.DAMAGE as error:
        raise ValueError(
            f"Weights file {str(path)!r} cannot be read; expected what "
            f"keras.Model.save_weights writes: {_one_line(error)}"
        ) from error
    return sum(not name.startswith("optimizer/") for name in arrays)


def _with_weights(model):
    """The layers that have weights of their own, and these, in order.

    Returns:
        A dict from what tells a layer from the others of any model like this
        one to its name and its own weights.
    """
    counts = collections.Counter()
    layers = {}
    for layer in _flatten(model):
        inner = layer.layers if isinstance(layer, keras.Model) else []
        of_others = {id(w) for child in inner for w in child.weights}
        own = [w for w in layer.weights if id(w) not in of_others]
        if own:
            name = _common_name(layer)
            counts[name] += 1
            layers[name, counts[name]] = layer.name, own
    return layers


def _flatten(model):
    """A model and all the layers in it, each once, in order."""
    by_id = {id(model): model}
    for layer in model.layers if isinstance(model, keras.Model) else []:
        by_id |= {id(inner): inner for inner in _flatten(layer)}
    return list(by_id.values())


def _common_name(layer):
    """A layer's name, without the number that Keras counts in a process."""
    kind = re.sub(r"_\d+$", "", layer.name)
    chosen_by_keras = kind.replace("_", "") == type(layer).__name__.lower()
    return kind if chosen_by_keras else layer.name


def _one_line(error):
    return " ".join(str(error).split())[:200]


def _shapes(weights):
    return " and ".join(str(tuple(weight.shape)) for weight in weights)
