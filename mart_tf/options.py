"""The one grammar for everything that has a name and options.

    name
    name:key=value:key=value
    name:argument:key=value        (folder:/data/flowers, cleverhans:pgd)

Lists are comma-separated. A value is read by the type of the parameter that it
sets: the signature is read from the source file of the class or function that
the name stands for, so that a program can check its flags before TensorFlow
is imported, and a new defense, network or attack needs no code in a program.
"""

import ast
import dataclasses
import difflib
import functools
import importlib
import pathlib

_PACKAGE = pathlib.Path(__file__).parent
_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Spec:
    """A parsed `name:argument:key=value`; `text` is what the user wrote."""

    text: str
    name: str
    argument: str | None = None
    options: dict = dataclasses.field(default_factory=dict)


def parse(text):
    """Splits one spec into its name, its argument and its raw options.

    Args:
        text: `name`, then `:argument` at most once, then `:key=value` parts.
            An argument may itself hold colons (a path may).

    Returns:
        A `Spec` whose option values are strings.

    Raises:
        ValueError: If the name is empty, a key repeats, or a part that is not
            `key=value` follows one that is.
    """
    name, *parts = str(text).strip().split(":")
    if not name:
        raise ValueError(
            f"{text!r} has no name; expected name or name:key=value."
        )
    options = {}
    while parts and _is_option(parts[-1]):
        key, value = parts.pop().split("=", 1)
        if key in options:
            raise ValueError(f"{text!r} sets {key!r} twice; set it once.")
        options[key] = value
    stray = [part for part in parts if _is_option(part)]
    if stray:
        raise ValueError(
            f"{text!r} has {parts[-1]!r} after {stray[0]!r}; expected "
            "key=value parts, separated by colons, at the end."
        )
    argument = ":".join(parts) if parts else None
    if argument == "":
        raise ValueError(f"{text!r} ends in a colon; expected key=value there.")
    return Spec(str(text), name, argument, dict(reversed(options.items())))


def _is_option(part):
    return part.split("=", 1)[0].isidentifier() and "=" in part


def split_list(text):
    """The specs of a comma-separated list, empty items refused."""
    items = [item.strip() for item in str(text).split(",")]
    if not all(items):
        raise ValueError(
            f"{text!r} has an empty item; expected names separated by commas."
        )
    return items


def unknown(kind, name, names):
    """The one sentence for a name that is in no table, nearest suggested."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(
        f"Unknown {kind} {name!r}; {hint}expected one of: "
        f"{', '.join(sorted(names))}."
    )


def resolve(text, table, kind, reserved=()):
    """Checks a spec against a table of names, without importing anything.

    Args:
        text: The spec.
        table: Maps each name to `"package.module:object"`.
        kind: What the table holds, for messages ("defense").
        reserved: Parameters that the caller fills in, not the user.

    Returns:
        A `Spec` with option values of the types that the signature asks for.

    Raises:
        ValueError: On an unknown name or option, or a value of another type.
    """
    spec = parse(text)
    if spec.name not in table:
        raise unknown(kind, spec.name, table)
    if spec.argument is not None:
        raise ValueError(
            f"{text!r}: {spec.argument!r} is not an option; expected key=value."
        )
    parameters = signature(table[spec.name])
    allowed = [name for name in parameters if name not in reserved]
    options = {}
    for key, value in spec.options.items():
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            listed = ", ".join(allowed) or "none"
            raise ValueError(
                f"{kind.capitalize()} {spec.name!r} has no option {key!r}; "
                f"{hint}its options: {listed}."
            )
        options[key] = _read(f"{spec.name}:{key}", value, parameters[key])
    return dataclasses.replace(spec, options=options)


def canonical(text, table, kind, reserved=()):
    """A spec in its short form: options by the signature, defaults left out."""
    spec = resolve(text, table, kind, reserved)
    values = {
        key: spec.options[key]
        for key, parameter in signature(table[spec.name]).items()
        if spec.options.get(key, parameter.default) != parameter.default
    }
    return _spelled(spec.name, values)


def complete(text, table, kind, reserved=(), derived=None):
    """A spec with every option written, so that it says what holds.

    Args:
        text, table, kind, reserved: As in `resolve`.
        derived: Of the options whose default is None and stands for something
            else, a function from the options before it to what that is.

    Returns:
        The spec as text; reading it gives the same values, whatever the
        defaults are then.
    """
    spec = resolve(text, table, kind, reserved)
    values = {}
    for key, parameter in signature(table[spec.name]).items():
        if key in reserved:
            continue
        value = spec.options.get(key, parameter.default)
        if value is None and key in (derived or {}):
            value = derived[key](values)
        if value is not None or "None" in parameter.annotation:
            values[key] = value
    return _spelled(spec.name, values)


def _spelled(name, values):
    parts = [f"{key}={_written(value)}" for key, value in values.items()]
    return ":".join([name, *parts])


def load(target):
    """The class or function named by `"package.module:object"`."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a signature: its annotation as text, and its default."""

    annotation: str
    default: object = _REQUIRED

    @property
    def required(self):
        return self.default is _REQUIRED


@functools.cache
def signature(target):
    """Parameters of `"mart_tf.module:object"`, read from the source.

    Returns:
        A dict from parameter name to `Parameter`, `self` left out.
    """
    module, name = target.split(":")
    relative = module.split(".")[1:]
    path = _PACKAGE.joinpath(*relative).with_suffix(".py")
    if not path.exists():
        path = _PACKAGE.joinpath(*relative, "__init__.py")
    definitions = {
        node.name: node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    node = definitions[name]
    if isinstance(node, ast.ClassDef):
        inside = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        node = next((n for n in inside if n.name == "__init__"), None)
        if node is None:
            return {}
    return _parameters(node.args)


def _parameters(arguments):
    positional = arguments.posonlyargs + arguments.args
    missing = len(positional) - len(arguments.defaults)
    defaults = [None] * missing + arguments.defaults + arguments.kw_defaults
    found = {}
    for argument, default in zip(
        positional + arguments.kwonlyargs, defaults, strict=True
    ):
        if argument.arg == "self":
            continue
        annotation = argument.annotation
        found[argument.arg] = Parameter(
            ast.unparse(annotation) if annotation else "",
            _REQUIRED if default is None else _literal(default),
        )
    return found


def _literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        # A computed default: its value is not needed to check an option.
        return None


def _read(where, text, parameter):
    """Converts an option's text by the type of its parameter."""
    kind = parameter.annotation.replace("| None", "").strip()
    if not kind and parameter.default not in (None, _REQUIRED):
        kind = type(parameter.default).__name__
    if text.lower() == "none" and (
        parameter.default is None or "None" in parameter.annotation
    ):
        return None
    if kind.startswith("Literal["):
        allowed = ast.literal_eval(kind[len("Literal") :])
        if text not in allowed:
            raise unknown(f"value of {where}", text, allowed)
        return text
    if kind not in _READERS:
        return text
    reader, expected = _READERS[kind]
    try:
        return reader(text)
    except ValueError:
        raise ValueError(
            f"{where}={text}: expected {expected}, got {text!r}."
        ) from None


def _read_bool(text):
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def _written(value):
    if isinstance(value, tuple):
        return "+".join(map(_written, value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    # A flag's words: true, false, none.
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def read_number(text):
    """The number of "0.3" or "8/255", as the field writes a radius."""
    numerator, _, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except ZeroDivisionError:
        raise ValueError(text) from None


_READERS = {
    "bool": (_read_bool, "true or false"),
    "int": (int, "a whole number"),
    "float": (read_number, "a number, such as 0.5 or 8/255"),
    "tuple[int, ...]": (
        lambda text: tuple(int(part) for part in text.split("+")),
        "whole numbers joined by +, such as 75+90",
    ),
    "tuple[str, ...]": (
        lambda text: tuple(text.split("+")),
        "names joined by +",
    ),
}
