"""What a user may name as a model, checked without TensorFlow.

A model spec is a name of the table with its options, the path of a `.keras`
file, or `package.module:function`.
"""

import importlib.util
import os
import pathlib
import sys

from mart_tf import models
from mart_tf import options

# Parameters of the table's functions that the data and the run fill in.
_RESERVED = ("input_shape", "num_classes", "seed")
_OTHER_FORMS = ("FILE.keras", "package.module:function")


def check(spec):
    """Refuses a model spec that names nothing.

    Args:
        spec: `resnet18`, `path/to/model.keras` or `package.module:function`.

    Returns:
        What was named: `("table", options.Spec)`, `("file", pathlib.Path)` or
        `("function", (module, name))`.

    Raises:
        ValueError: On an unknown name or option, a `.keras` file that is not
            there, or a module that cannot be found.
    """
    if spec.endswith(".keras"):
        return "file", _file(spec)
    parsed = options.parse(spec)
    if parsed.name in models.MODELS:
        return "table", options.resolve(spec, models.MODELS, "model", _RESERVED)
    if parsed.argument is None or parsed.options:
        raise options.unknown(
            "model", parsed.name, [*models.MODELS, *_OTHER_FORMS]
        )
    return "function", (_module(spec, parsed.name), parsed.argument)


def _file(spec):
    path = pathlib.Path(spec)
    if not path.is_file():
        raise ValueError(
            f"Model file {spec!r} does not exist; expected a file that "
            "keras.Model.save wrote."
        )
    return path


def _module(spec, module):
    # A console script does not look for modules where the user stands.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    package = module.split(".")[0]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"Model {spec!r} names the module {package!r}, which cannot be "
            "found; expected one in this directory or installed."
        )
    return module
