"""The one grammar for everything that has a name and options.

    name
    name:key=value:key=value
    name:argument:key=value        (folder:/data/flowers, cleverhans:pgd)

Lists are comma-separated. A value is read by the type of the parameter that it
sets: the signature is read from the source file of the class or function that
the name stands for, so that a program can check its flags before TensorFlow
is imported, and a new defense, network or attack needs no code in a program.
Where an annotation is missing the default tells the type; where that is None,
or missing too, the value is a number, true or false if it reads as one, else
text.
"""

import ast
import contextlib
import dataclasses
import difflib
import math
import re

from mart_tf import bounds
from mart_tf import lazy
from mart_tf import parameters as known_parameters

_NUMBER = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A parsed `name:argument:key=value`.

    Args:
        text: What the user wrote.
        name: A name of a table, or `package.module:Name`.
        argument: A path, or what else is no `key=value`.
        options: Values by key.
        import_path: `"package.module:object"` that the name stands for, once
            it is known.
    """

    text: str
    name: str
    argument: str | None = None
    options: dict = dataclasses.field(default_factory=dict)
    import_path: str | None = None


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


@dataclasses.dataclass(frozen=True)
class Names:
    """What specs of one kind may name, and which options may be set.

    Nothing that is named is imported.

    Args:
        table: Maps each name to `"package.module:object"`; what a user names
            so is taken too.
        kind: What the table holds, for messages ("defense").
        reserved: Parameters that the caller fills in, not the user.
        given: How many the caller gives by position to what a user wrote,
            whatever they are called there; default: as many as are reserved.
        more: Parameters that can be set beside those of the signature, by
            name.
    """

    table: dict
    kind: str
    reserved: tuple = ()
    given: int | None = None
    more: dict = dataclasses.field(default_factory=dict)

    def resolve(self, text):
        """Checks a spec.

        Returns:
            A `Spec` with its import path, and option values of the types that
            the signature asks for.

        Raises:
            ValueError: On an unknown name or option, a value of another type,
                or an option without a default that is left out.
        """
        return self._resolved(text)[0]

    def canonical(self, text):
        """A spec in its short form: options in order, defaults left out."""
        spec, allowed = self._resolved(text)
        values = {
            key: spec.options[key]
            for key, parameter in allowed.items()
            if spec.options.get(key, parameter.default) != parameter.default
        }
        return spelled(spec.name, values)

    def complete(self, text, derived=None):
        """A spec with every option written, so that it says what holds.

        Args:
            text: The spec.
            derived: Of the options whose default is None and stands for
                something else, a function from the options before it to what
                that is, of which 1.5 * 0.15 is written as 0.225.

        Returns:
            The spec as text; reading it gives these values, whatever the
            defaults are then.
        """
        spec, allowed = self._resolved(text)
        values = {}
        for key, parameter in allowed.items():
            value = spec.options.get(key, parameter.default)
            if value is None and key in (derived or {}):
                value = derived[key](values)
                value = _decimal(value) if isinstance(value, float) else value
            if value is not None or "None" in parameter.annotation:
                values[key] = value
        return spelled(spec.name, values)

    def _resolved(self, text):
        """A checked spec, and the parameters that it may set, by name."""
        spec, kind = self._named(parse(text)), self.kind.capitalize()
        if spec.argument is not None:
            raise ValueError(
                f"{text!r}: {spec.argument!r} is not an option; expected "
                "key=value."
            )
        try:
            allowed = self._options(spec)
        except ValueError as error:
            raise ValueError(f"{kind} {text!r}: {error}") from error
        options = {}
        for key, value in spec.options.items():
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                listed = ", ".join(allowed) or "none"
                raise ValueError(
                    f"{kind} {spec.name!r} has no option {key!r}; {hint}its "
                    f"options: {listed}."
                )
            options[key] = _read(
                f"{spec.name}:{key}",
                value,
                allowed[key],
                spec.name in self.table,
            )
        for key, parameter in allowed.items():
            if parameter.required and key not in options:
                raise ValueError(
                    f"{kind} {text!r} says no {key}; expected "
                    f"{spec.name}:{key}=VALUE."
                )
        return dataclasses.replace(spec, options=options), allowed

    def _options(self, spec):
        """The parameters that a user may set, by name."""
        parameters = known_parameters.of(spec.import_path)
        reserved = self.reserved
        if spec.name not in self.table:
            expected = reserved[: self.given]
            reserved = list(parameters)[: len(expected)]
            if len(reserved) < len(expected):
                raise ValueError(
                    f"it takes {len(parameters)} parameters; expected these "
                    f"first: {', '.join(expected)}."
                )
        own = {key: v for key, v in parameters.items() if key not in reserved}
        return {**self.more, **own}

    def _named(self, spec):
        """The spec with its import path, by the table or of a user's module."""
        table = self.table
        if spec.name in table:
            return dataclasses.replace(spec, import_path=table[spec.name])
        name, *rest = (spec.argument or "").split(":", 1)
        if not name.isidentifier():
            raise unknown(self.kind, spec.name, [*table, "package.module:Name"])
        if known_parameters.find(spec.name) is None:
            names = f", or one of: {', '.join(sorted(table))}" if table else ""
            raise ValueError(
                f"{self.kind.capitalize()} {spec.text!r} names the module "
                f"{spec.name!r}, which cannot be found; expected one in this "
                f"directory or installed{names}."
            )
        whole = f"{spec.name}:{name}"
        return dataclasses.replace(
            spec,
            name=whole,
            argument=rest[0] if rest else None,
            import_path=whole,
        )


def _decimal(value):
    """The decimal number that a float is but for its last bits."""
    short = float(f"{value:.12g}")
    return short if math.isclose(short, value, rel_tol=1e-15) else value


def spelled(name, values):
    """A spec as text: a name, and plain values by option."""
    parts = [f"{key}={_written(value)}" for key, value in values.items()]
    return ":".join([name, *parts])


def load(import_path):
    """The class or function named by `"package.module:object"`."""
    return lazy.load(import_path)


def _read(where, text, parameter, ours):
    """Converts an option's text by the type of its parameter.

    Numbers that are `ours` have bounds; what a user's own class takes, it
    knows itself.
    """
    kind = parameter.annotation.replace("| None", "").strip()
    if not kind and not (parameter.required or parameter.default is None):
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
    if not kind:
        return _read_any(text)
    if kind not in _READERS:
        return text
    reader, expected = _READERS[kind]
    try:
        value = reader(text)
    except ValueError:
        raise ValueError(
            f"{where}={bounds.cut(text)}: expected {expected}, got "
            f"{bounds.shown(text)}."
        ) from None
    if ours:
        _check_bounds(where, kind, value)
    return value


def _check_bounds(where, kind, value):
    """Refuses a number, or one of several, beyond its bounds."""
    if kind == "tuple[int, ...]":
        for part in value:
            _check_bounds(where, "int", part)
    elif kind in bounds.OF_TYPE:
        option = where.rpartition(":")[2]
        limit = bounds.OPTIONS.get(option, bounds.OF_TYPE[kind])
        limit.check(where, value)


def _read_any(text):
    """A number, true or false, or else the text, of no type that is told.

    What begins with a 0 that no number has, such as 007, is a text.
    """
    if _NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    with contextlib.suppress(ValueError):
        return _read_bool(text)
    return text


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


_READERS = {
    "bool": (_read_bool, "true or false"),
    "int": (int, "a whole number"),
    "float": (bounds.read_number, "a number, such as 0.5 or 8/255"),
    # Of a default alone, such as (0, 255).
    "tuple": (
        lambda text: tuple(map(_read_any, text.split("+"))),
        "values joined by +, such as 0+255",
    ),
    "tuple[int, ...]": (
        lambda text: tuple(int(part) for part in text.split("+")),
        "whole numbers joined by +, such as 75+90",
    ),
    "tuple[str, ...]": (
        lambda text: tuple(text.split("+")),
        "names joined by +",
    ),
}
