"""Weights of an exported SavedModel into the network that it was made of."""

import collections
import pathlib
import re

import numpy as np
import tensorflow as tf

from mart_tf.models import loading
from mart_tf.models import rebuilding
from mart_tf.models import signatures
from mart_tf.models import single
from mart_tf.models import weights

# Of what an answer changes from image to image; rounding stays below it.
_SAME = 0.01
# Of the greatest score: what changes less is rounding itself.
_CONSTANT = 1e-4
_NUMBERED = re.compile(r"(.*?)(?:_([0-9]{1,9}))?", re.DOTALL)


def load(classifier, path):
    """Takes the weights of a SavedModel of the same network, or none.

    They are told apart by their names, those that Keras numbered (dense_3) by
    the order of the numbers; then the network has to answer a few images as the
    signature `serving_default` does, which therefore runs.

    Args:
        classifier: A built Keras model, whose weights change.
        path: The directory of a SavedModel, or of numbered versions, of which
            the newest is taken.

    Returns:
        The names of the layers with weights: all were taken.

    Raises:
        ValueError: If it cannot be read, is of another network, or answers
            otherwise; then nothing has changed.
    """
    softmax = loading.ends_in_softmax(classifier)
    scores, facts, variables = signatures.read(
        pathlib.Path(path), "probabilities" if softmax else "logits"
    )
    pairs = _pairs(classifier.weights, variables)
    before = classifier.get_weights()
    reason = pairs if isinstance(pairs, str) else None
    if reason is None:
        for mine, other in pairs:
            mine.assign(other.numpy())
        reason = _difference(classifier, scores, facts)
    if reason is not None:
        classifier.set_weights(before)
        raise ValueError(
            f"The SavedModel {facts['name']!r} does not fit the network "
            f"{classifier.name!r}: {reason}; expected one that was exported of "
            "the same network, or a .keras file or a workdir, of which the "
            "layers that fit are taken."
        )
    return weights.names(classifier)


def _pairs(weights, variables):
    """Pairs of a weight and what is loaded into it, or why there are none."""
    sides = [
        [(each.path.split("/"), each) for each in weights],
        [(each.name.split(":")[0].split("/"), each) for each in variables],
    ]
    # Models around a layer are part of its path, or not, as Keras built it.
    depth = next((n for n in range(2, 20) if _unique(sides, n)), None)
    if depth is None:
        return "some of the weights share their names with others"
    mine, others = (_by_order(side, depth) for side in sides)
    for key in sorted(mine.keys() ^ others.keys()):
        name, _ = mine.get(key) or others.get(key)
        has, lacks = "the network", "it"
        if key in others:
            has, lacks = lacks, has
        return f"{has} has weights {name}, which {lacks} lacks"
    for key, (name, weight) in mine.items():
        there, here = tuple(others[key][1].shape), tuple(weight.shape)
        if there != here:
            return f"{name} is {there} there and {here} here"
    return [(weight, others[key][1]) for key, (_, weight) in mine.items()]


def _unique(sides, depth):
    """Whether the last parts of a path tell all weights apart, on each side."""
    return all(
        len({tuple(path[-depth:]) for path, _ in side}) == len(side)
        for side in sides
    )


def _by_order(named, depth):
    """Weights by the last parts of their paths.

    Each number that Keras may have counted (dense_3) is replaced by its place
    among those of the same name.

    Args:
        named: Pairs of a path, a list, and a weight.
        depth: How many parts are looked at.

    Returns:
        A dict from what takes the place of a path to pairs of the path, as
        text, and the weight.
    """
    parts = [
        [_NUMBERED.fullmatch(part) for part in path[-depth:]]
        for path, _ in named
    ]
    numbers = collections.defaultdict(set)
    for part in (part for path in parts for part in path):
        numbers[part[1]].add(int(part[2] or -1))
    order = {stem: sorted(counted) for stem, counted in numbers.items()}
    return {
        tuple((p[1], order[p[1]].index(int(p[2] or -1))) for p in matches): (
            "/".join(path),
            weight,
        )
        for matches, (path, weight) in zip(parts, named, strict=True)
    }


def _difference(classifier, scores, facts):
    """How a network and a signature answer differently, or None."""
    # A subclassed network does not tell.
    ours = getattr(classifier, "input_shape", None)
    ours, theirs = ours and ours[1:], facts["input_shape"]
    # TensorFlow ends the process over images of another rank.
    if not tf.TensorShape(ours).is_compatible_with(theirs):
        return f"it takes images of shape {theirs}, and the network of {ours}"
    shape = next((s for s in (ours, theirs) if s and None not in s), None)
    if shape is None:
        return "neither tells the shape of an image, and nothing can be tried"
    low, high = facts["pixel_range"] or (0.0, 1.0)
    # Dark ones and bright ones, since noise of one brightness looks alike.
    powers = np.geomspace(0.2, 5.0, 8).reshape(8, *[1] * len(shape))
    shares = np.random.default_rng(0).random((8, *shape)) ** powers
    images = tf.constant(low + shares * (high - low), tf.float32)
    network = rebuilding.float32_copy(classifier)
    answer = single.returned(network(images, training=False), classifier.name)
    expected = np.asarray(scores(images))
    answer = np.asarray(answer)
    if answer.shape != expected.shape:
        return f"scores are {expected.shape} there and {answer.shape} here"
    changes = np.ptp(expected, axis=0).max()
    if not changes > _CONSTANT * np.abs(expected).max():
        return "it answers all images alike, and nothing can be compared"
    gap = np.abs(answer - expected).max() / changes
    if not gap <= _SAME:
        return (
            "with its weights the network gives other scores than it does, by "
            f"{gap:.2g} of what they change from image to image"
        )
    return None
