"""One batch of images in, one of scores out: what every network must be."""

from mart_tf import errors


def is_adversarial(model):
    """Whether a model is an `AdversarialClassifier`, known by what it has.

    A user's own model may call its last layer `classifier`, and every Keras
    model has `outputs`; only an AdversarialClassifier's is a string.
    """
    return isinstance(getattr(model, "outputs", None), str)


def check(model):
    """Refuses a network with several inputs or outputs, which it names.

    A subclassed network tells neither before it is called: see `returned`.

    Args:
        model: A Keras model.

    Raises:
        ValueError: With one sentence.
    """
    for kind, expected in [
        ("input", "one, a batch of images"),
        ("output", "one, scores of shape [batch, classes]"),
    ]:
        tensors = getattr(model, f"{kind}s", None)
        if not isinstance(tensors, (list, tuple)) or len(tensors) == 1:
            continue
        # A dict's keys are what its user calls them; else Keras names an
        # output by its layer.
        names = getattr(model, kind)
        if not isinstance(names, dict):
            names = getattr(model, f"{kind}_names", None)
        names = names or [tensor.name for tensor in tensors]
        raise _several(model.name, "has", kind, names, expected)


def scored(network, images, name, of):
    """What a network returns for images, once it is known to take them.

    Args:
        network: A Keras model.
        images: Float32 `[n, ...]`.
        name: How a message begins, such as "The classifier".
        of: Whose images they are, such as "the data set".

    Raises:
        ValueError: If the network has several inputs or outputs, takes images
            of another shape, or fails on these.
    """
    check(network)
    shape = tuple(images.shape[1:])
    # A subclassed network tells none.
    taken = getattr(network, "input_shape", None)
    if taken is not None and not _takes(taken, shape):
        raise ValueError(
            f"{name} takes inputs of shape {taken}; the images of {of} have "
            f"shape {shape}: choose another, or build it for these images."
        )
    try:
        scores = network(images, training=False)
    except Exception as error:
        # Whatever a layer of the user's raises for a shape that it cannot take.
        raise ValueError(
            f"{name} fails on the images of {of}, of shape {shape}: "
            f"{errors.first_line(error)}"
        ) from error
    return returned(scores, network.name)


def _takes(expected, shape):
    if not isinstance(expected, tuple) or len(expected) != 1 + len(shape):
        return False
    pairs = zip(expected[1:], shape, strict=True)
    return all(size in (None, own) for size, own in pairs)


def returned(scores, name):
    """What a network returned, once it is known to be one output.

    Args:
        scores: What a call gave.
        name: How the message names the network.

    Raises:
        ValueError: If it is a tuple, a dict, or a list of batches, of however
            many. A list of numbers is one output.
    """
    if isinstance(scores, list):
        if not any(len(getattr(each, "shape", ())) > 1 for each in scores):
            return scores
    elif not isinstance(scores, (tuple, dict)):
        return scores
    expected = "one tensor, scores of shape [batch, classes]"
    names = scores if isinstance(scores, dict) else ()
    if len(scores) == 1:
        raise ValueError(
            f"The model {name!r} returns a {type(scores).__name__} of 1 "
            f"output; expected {expected}: return what is in it."
        )
    names = names or [f"output {number}" for number in range(len(scores))]
    raise _several(name, "returns", "output", names, expected)


def _several(name, verb, kind, names, expected):
    listed = ", ".join(map(str, names))
    return ValueError(
        f"The model {name!r} {verb} {len(names)} {kind}s ({listed}); expected "
        f"{expected}: make a keras.Model of one of them."
    )
