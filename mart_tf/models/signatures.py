"""An exported SavedModel, asked through its own signature."""

import tensorflow as tf

from mart_tf import choices
from mart_tf import errors
from mart_tf.models import declared

_SIGNATURE = "serving_default"


def read(path, outputs=None):
    """What a SavedModel's signature `serving_default` computes.

    The output that is taken is the one named `outputs`, else "logits", else
    "probabilities", else the only one that there is.

    Args:
        path: A `pathlib.Path`: the directory of a SavedModel, or of numbered
            versions, of which the newest is taken.
        outputs: "logits" or "probabilities"; default: what the output's name
            says.

    Returns:
        A function from images, float32 `[batch, ...]`, to the scores that the
        signature gives; a dict of `name`, the directory, `input_shape` of one
        image or None, `outputs` or None, `parameters`, the number of weights,
        and `pixel_range`, what its model card says, or None; and the weights
        that the scores follow from, a tuple of variables.

    Raises:
        ValueError: If there is none, it cannot be read, or its signature does
            not turn one batch of images, in floats, into scores.
    """
    name = str(declared.newest_version(path))
    try:
        loaded = tf.saved_model.load(name)
    # TensorFlow raises a different class for each kind of damage.
    except Exception as error:
        cause = errors.first_line(error)
        raise ValueError(
            f"The SavedModel {name!r} cannot be read; expected a whole one, "
            f"its variables included: {cause}"
        ) from error
    if _SIGNATURE not in loaded.signatures:
        listed = ", ".join(sorted(loaded.signatures)) or "none"
        raise ValueError(
            f"The SavedModel {name!r} has no signature {_SIGNATURE!r} (its "
            f"signatures: {listed}); expected one from images to scores, as "
            "mart_tf.export_saved_model writes it."
        )
    signature = loaded.signatures[_SIGNATURE]
    key, spec = _input(name, signature)
    output = _output(name, signature, outputs)

    def scores(images):
        # A signature does not keep its variables alive: what was loaded does.
        serve = loaded.signatures[_SIGNATURE]
        return serve(**{key: tf.cast(images, spec.dtype)})[output]

    said = declared.read(path)
    sizes = [variable.shape.num_elements() for variable in signature.variables]
    facts = {
        "name": name,
        "input_shape": (
            None if spec.shape.rank is None else tuple(spec.shape[1:])
        ),
        "outputs": outputs or (output if output in choices.OUTPUTS else None),
        "parameters": sum(sizes),
        "pixel_range": said and said.pixel_range,
    }
    return scores, facts, signature.variables


def _input(name, signature):
    """The one input that takes images: its name and its `TensorSpec`."""
    inputs = signature.structured_input_signature[1]
    if len(inputs) == 1:
        [(key, spec)] = inputs.items()
        any_batch = spec.shape.rank is None or spec.shape[:1] == [None]
        if spec.dtype.is_floating and any_batch:
            return key, spec
    taken = [f"{spec.dtype.name} {spec.shape}" for spec in inputs.values()]
    raise ValueError(
        f"The signature {_SIGNATURE!r} of {name!r} takes "
        f"{' and '.join(taken) or 'nothing'}; expected one input, images in "
        "floats, in batches of any size."
    )


def _output(name, signature, outputs):
    """The name of the output that is taken."""
    keys = list(signature.structured_outputs)
    for key in (outputs, *choices.OUTPUTS):
        if key in keys:
            return key
    if len(keys) == 1:
        return keys[0]
    raise ValueError(
        f"The signature {_SIGNATURE!r} of {name!r} gives "
        f"{', '.join(sorted(keys)) or 'nothing'}; expected an output logits "
        "or probabilities, or no other than the scores."
    )
