"""How a report spells an attack: its class, its options, their values."""

import functools
import inspect
import zlib

import numpy as np


def name(attack):
    """The class and what was set otherwise than by default, as in a spec."""
    parts = [type(attack).__name__]
    for option, parameter in options(attack).items():
        value = said(getattr(attack, option, parameter.default))
        if value != said(parameter.default):
            several = isinstance(value, list)
            value = "+".join(map(str, value)) if several else value
            parts.append(f"{option}={value}")
    return ":".join(parts)


def options(attack):
    """Its options, a dict of `inspect.Parameter` by name."""
    return dict(inspect.signature(type(attack)).parameters)


def said(value):
    """A setting as a report can hold it: of a function its name.

    Of an array its shape and a checksum: too long to be written out. What else
    is no number and no list, such as a path, is a text.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple | list):
        return [said(part) for part in value]
    if isinstance(value, functools.partial):
        named = [f"{name}={part}" for name, part in value.keywords.items()]
        inside = ", ".join([*map(str, value.args), *named])
        return f"{said(value.func)}({inside})"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if hasattr(value, "shape"):
        content = np.asarray(value)
        if not content.ndim:
            return content.item()
        checksum = zlib.crc32(content.tobytes())
        return f"{content.dtype}{list(content.shape)}#{checksum:08x}"
    return str(value)
