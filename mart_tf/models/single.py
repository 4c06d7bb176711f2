"""One batch of images in, one of scores out: what every network must be."""


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
