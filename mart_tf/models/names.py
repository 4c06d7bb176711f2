"""What a user may name as a model, checked without TensorFlow.

A model spec is a name of the table with its options, the path of a `.keras`
file, or `package.module:function`.
"""

import numbers
import pathlib

from mart_tf import limits
from mart_tf import models
from mart_tf import options

# Parameters of the table's functions that the data and the run fill in.
_RESERVED = ("input_shape", "num_classes", "seed")
# Of a user's own function: the shape and the number of classes.
_GIVEN = 2
_OTHER_FORMS = ("FILE.keras", "package.module:function")

# Options of the table's networks that not every value fits: a test of the
# value, and what is expected.
_LIMITS = {
    "wide_resnet": {
        "depth": (
            lambda depth: _is_whole(depth, 10) and depth % 6 == 4,
            "6n + 4 with a whole n of at least 1, such as 10, 16, 28 or 34",
        ),
        "width": (
            lambda width: _is_whole(width, 1),
            "a whole number of at least 1",
        ),
    },
}


def check(spec):
    """Refuses a model spec that names nothing.

    Args:
        spec: `resnet18`, `path/to/model.keras` or `package.module:function`,
            the first and the last with options.

    Returns:
        What was named: `("table", options.Spec)`, `("file", pathlib.Path)` or
        `("function", options.Spec)`.

    Raises:
        ValueError: On an unknown name or option, an option's value that no
            network has, a `.keras` file that is not there, or a module that
            cannot be found.
    """
    if spec.endswith(".keras"):
        return "file", _file(spec)
    parsed = options.parse(spec)
    own = parsed.name not in models.MODELS
    if own and parsed.argument is None:
        raise options.unknown(
            "model", parsed.name, [*models.MODELS, *_OTHER_FORMS]
        )
    resolved = options.resolve(
        spec, models.MODELS, "model", _RESERVED, given=_GIVEN
    )
    if not own:
        check_options(resolved.name, **resolved.options)
    return "function" if own else "table", resolved


def canonical(spec):
    """A model spec in its short form, a table's network's defaults left out."""
    if check(spec)[0] == "file":
        return spec
    return options.canonical(
        spec, models.MODELS, "model", _RESERVED, given=_GIVEN
    )


def complete(spec):
    """A model spec with every option of a table's network written."""
    if check(spec)[0] == "file":
        return spec
    return options.complete(
        spec, models.MODELS, "model", _RESERVED, given=_GIVEN
    )


def check_options(name, **values):
    """Refuses values of options with which a network cannot be built.

    Args:
        name: A name of `mart_tf.models.MODELS`.
        **values: Options of that network.

    Raises:
        ValueError: With one sentence.
    """
    limits = _LIMITS.get(name, {})
    for option, value in values.items():
        fits, expected = limits.get(option, (None, None))
        if fits and not fits(value):
            raise ValueError(
                f"Model {name!r} has {option} {value!r}; expected {expected}."
            )


def _is_whole(value, least):
    return isinstance(value, numbers.Integral) and value >= least


def _file(spec):
    path = pathlib.Path(spec)
    if not path.exists():
        raise ValueError(
            f"Model file {spec!r} does not exist; expected a file that "
            "keras.Model.save wrote."
        )
    return limits.regular(path)
