"""What a user may name as a model, checked without TensorFlow.

A model spec is a name of the table with its options, `keras:NAME` among them,
the path of a `.keras` file, or `package.module:function`.
"""

import numbers
import pathlib

from mart_tf import limits
from mart_tf import models
from mart_tf import options
from mart_tf import ram
from mart_tf.models import application_names

_NAMES = options.Names(
    models.MODELS,
    "model",
    # What the data and the run fill in of the table's functions.
    reserved=("input_shape", "num_classes", "seed", "pixel_range"),
    # Of a user's own function: the shape and the number of classes.
    given=2,
)
_OTHER_FORMS = ("keras:NAME", "FILE.keras", "package.module:function")

# Options of the table's networks that not every value fits: a test of the
# value, and what is expected.
_LIMITS = {
    "wide_resnet": {
        "depth": (
            lambda depth: _is_whole(depth, 10, 1000) and depth % 6 == 4,
            "6n + 4 with a whole n of at least 1, such as 10, 16, 28 or 34, "
            "and at most 1000",
        ),
        "width": (
            lambda width: _is_whole(width, 1, 1000),
            "a whole number of at least 1 and at most 1000",
        ),
    },
}

# About how many parameters the options of a network make, for those that can
# make too many: those of its 3x3 convolutions.
_PARAMETERS = {
    "wide_resnet": lambda depth=34, width=10, **style: (
        (depth - 4) // 6 * 2 * 9 * (16 * width) ** 2 * (1 + 4 + 16)
    ),
}
# float32 weights, gradients, momentum, and a copy while they are saved.
_BYTES_A_PARAMETER = 16


def check(spec):
    """Refuses a model spec that names nothing.

    Args:
        spec: `resnet18`, `path/to/model.keras` or `package.module:function`,
            the first and the last with options.

    Returns:
        What was named: `("table", options.Spec)`, `("application",
        options.Spec)`, `("file", pathlib.Path)` or `("function",
        options.Spec)`.

    Raises:
        ValueError: On an unknown name or option, an option's value that no
            network has, a `.keras` file that is not there, or a module that
            cannot be found.
    """
    if spec.endswith(".keras"):
        return "file", _file(spec)
    if application_names.is_named(spec):
        return "application", application_names.resolve(spec)
    parsed = options.parse(spec)
    own = parsed.name not in models.MODELS
    if own:
        application_names.check_no_other_form(parsed)
    if own and parsed.argument is None:
        names = [
            name for name in models.MODELS if name != application_names.NAME
        ]
        raise options.unknown("model", parsed.name, [*names, *_OTHER_FORMS])
    resolved = _NAMES.resolve(spec)
    if not own:
        check_options(resolved.name, **resolved.options)
    return "function" if own else "table", resolved


def canonical(spec):
    """A model spec in its short form, a table's network's defaults left out."""
    kind, _ = check(spec)
    if kind == "file":
        return spec
    if kind == "application":
        return application_names.canonical(spec)
    return _NAMES.canonical(spec)


def complete(spec):
    """A model spec with every option of a table's network written."""
    kind, _ = check(spec)
    if kind == "file":
        return spec
    if kind == "application":
        return application_names.complete(spec)
    return _NAMES.complete(spec)


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
    if name in _PARAMETERS:
        _check_fits(name, values, _PARAMETERS[name](**values))


def _check_fits(name, values, parameters):
    """Refuses a network that this machine could not hold in training."""
    needed = parameters * _BYTES_A_PARAMETER
    available = ram.machine()
    if needed > available:
        said = ", ".join(f"{key} {value}" for key, value in values.items())
        raise ValueError(
            f"Model {name!r} of {said} has about {parameters:,} parameters, "
            f"which take {needed / 2**30:,.0f} GiB in training, and this "
            f"machine has {available / 2**30:,.0f} GiB; expected a smaller one."
        )


def _is_whole(value, least, greatest):
    return isinstance(value, numbers.Integral) and least <= value <= greatest


def _file(spec):
    path = pathlib.Path(spec)
    if not path.exists():
        raise ValueError(
            f"Model file {spec!r} does not exist; expected a file that "
            "keras.Model.save wrote."
        )
    return limits.regular(path)
