"""Settings of a run as Python gives them: keywords, and objects for names.

A run on disk has to find everything again that it names, in another process
and from `flags.cfg` alone. So an object becomes the spec that makes it again,
and what no spec makes again is refused.
"""

import dataclasses
import inspect
import os
import sys

import numpy as np

from mart_tf import data
from mart_tf import defenses
from mart_tf import options
from mart_tf import parameters
from mart_tf import places
from mart_tf import training
from mart_tf.runs import config as run_config
from mart_tf.runs import record

_PATHS = ("workdir", "data_dir", "init_from", "model")

# Where an object may stand for a name: the table of names, and an example.
# Where Keras shows what lies in modules of its own.
_KERAS = (
    "keras.applications",
    "keras.optimizers",
    "keras.optimizers.schedules",
)
_NAMED = {
    "augment": (data.AUGMENTATIONS, "crop,flip"),
    "dataset": ({}, "npz:arrays.npz"),
    "pool": ({}, "npz:pool.npz"),
    "model": ({}, "network.keras, which model.save writes"),
    "defense": (defenses.DEFENSES, "mart:regularization=6"),
    "update": (training.UPDATES, "plain"),
    "optimizer": (training.OPTIMIZERS, "sgd:momentum=0.95"),
    "schedule": (training.SCHEDULES, "piecewise:at=75+90"),
}

_EXPECTED = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def config(settings):
    """The `Config` of keyword arguments, its defaults not filled in.

    Args:
        settings: Values by the name of a flag of mart-train; None asks for
            the default. Functions, classes, defenses, updates, optimizers and
            augmentations, also a list of these, may stand for their names,
            and paths and numpy numbers for plain values. An optimizer brings
            its learning rate, which schedules fall from.

    Raises:
        ValueError: On a name that is no flag's, a value of another type, or
            an object that a run cannot name.
    """
    fields = {f.name: f for f in dataclasses.fields(run_config.Config)}
    values = {}
    for name, value in settings.items():
        if name not in fields:
            raise options.unknown("setting", name, fields)
        if value is not None:
            values[name] = _plain(name, value, fields[name].type)
    rate = _rate_of(settings.get("optimizer"))
    if rate is not None and values.setdefault("learning_rate", rate) != rate:
        raise ValueError(
            f"--learning_rate is {values['learning_rate']:g}, and --optimizer "
            f"is an object with a learning rate of {rate:g}; give one of them."
        )
    return run_config.Config(**values)


def _rate_of(optimizer):
    """The learning rate of an optimizer that is an object, else None."""
    if inspect.isclass(optimizer) or not hasattr(optimizer, "learning_rate"):
        return None
    rate = optimizer.get_config()["learning_rate"]
    if not isinstance(rate, float):
        raise ValueError(
            f"--optimizer is an object of {type(optimizer).__name__} with a "
            "schedule as its learning rate; expected one with a number, and "
            "the run's schedule in schedule=, such as 'cosine:warmup=0.1'."
        )
    # Keras keeps it in float32, where 0.1 is 0.10000000149.
    return float(str(np.float32(rate)))


def _plain(name, value, kind):
    """A value as a flag would have it."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        # A number of numpy's.
        value = value.item()
    if name == "augment" and isinstance(value, list | tuple):
        return ",".join(_plain(name, item, kind) for item in value) or "none"
    if name == "class_weights" and isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if name in _NAMED and not isinstance(value, str | bytes | int | float):
        value = _spec(name, value)
    if not record.is_of(value, kind):
        [expected] = [text for t, text in _EXPECTED.items() if _takes(kind, t)]
        raise ValueError(f"--{name} is {value!r}; expected {expected}.")
    if _takes(kind, float):
        return float(value)
    if name in _PATHS and (name != "model" or value.startswith("~")):
        return places.expanded(f"--{name}", value)
    return value


def _takes(kind, plain):
    return kind in (plain, plain | None)


def _spec(name, value):
    """The spec that makes an object again.

    Raises:
        ValueError: If there is none.
    """
    table, example = _NAMED[name]
    is_object = not (inspect.isfunction(value) or inspect.isclass(value))
    thing = type(value) if is_object else value
    path = f"{_public_module(thing)}:{thing.__qualname__}"
    spec = {path: known for known, path in table.items()}.get(path, path)
    # A script's own, and what stands inside a function, nobody else finds.
    found = (
        thing.__qualname__.isidentifier()
        and thing.__module__ != "__main__"
        and parameters.find(thing.__module__) is not None
    )
    if found and is_object:
        spec = _with_options(spec, path, value, table, name)
    if not found or spec is None:
        raise ValueError(
            f"--{name} is {'an object of ' if is_object else ''}"
            f"{path.replace(':', '.')}, which a run that goes on in another "
            f"process cannot make again; expected a name, such as {example}, "
            "or a function or class of a module that can be imported (or its "
            "object, if its options are plain values kept as attributes of "
            "their names)."
        )
    return spec


def _public_module(thing):
    """The module to import a function or class from: Keras's are public."""
    for public in _KERAS:
        exported = getattr(sys.modules.get(public), thing.__qualname__, None)
        if exported is thing:
            return public
    return thing.__module__


def _with_options(spec, path, value, table, name):
    """The spec with the options of an object; None if it does not keep them."""
    # Keras counts what it names: random_crop, and the next random_crop_1. The
    # rate of an optimizer is the run's.
    left_out = ("name",) if path.startswith("keras.") else ()
    left_out += ("learning_rate",) if name == "optimizer" else ()
    try:
        kept = {
            key: getattr(value, key)
            for key, parameter in parameters.of(path).items()
            if key not in left_out and getattr(value, key) != parameter.default
        }
        spec = options.spelled(spec, kept)
        again = options.Names(table, name).resolve(spec).options
        return spec if again == kept else None
    # Whatever its attributes are: a comparison of arrays is no truth value.
    except (ValueError, TypeError, AttributeError):
        return None
