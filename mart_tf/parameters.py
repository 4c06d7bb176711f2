"""What a class or function takes, read from its source without importing it.

So a program checks `--defense=my_module:MyDefense:key=value` before TensorFlow
is imported, for a user's own class as for the package's.
"""

import ast
import dataclasses
import functools
import inspect
import os
import pathlib
import sys

from mart_tf import lazy

_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a signature: its annotation as text, and its default."""

    annotation: str
    default: object = _REQUIRED

    @property
    def required(self):
        return self.default is _REQUIRED


def find(module):
    """Where a module would be imported from, None if it is nowhere.

    The working directory is looked in too: a console script leaves it out.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    spec, places = None, None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        # All finders: an editable install may have one of its own.
        asked = (finder.find_spec(name, places) for finder in sys.meta_path)
        spec = next(filter(None, asked), None)
        if spec is None:
            return None
        places = spec.submodule_search_locations or []
    return spec


@functools.cache
def of(import_path):
    """Parameters of `"package.module:object"`.

    A constructor that a class inherits is looked for in its bases; what no
    source tells, importing does.

    Returns:
        A dict from parameter name to `Parameter`, `self` left out.

    Raises:
        ValueError: If the module has no such class or function.
    """
    module, _, name = import_path.partition(":")
    if _is_ours(module) and name in lazy.table_of(module):
        return of(lazy.table_of(module)[name])
    node = _definitions(module).get(name)
    if isinstance(node, ast.FunctionDef):
        return _of_arguments(node.args)
    if isinstance(node, ast.ClassDef):
        inside = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        own = [n for n in inside if n.name == "__init__"]
        if own:
            return _of_arguments(own[0].args)
    if isinstance(node, ast.ClassDef) and not _is_dataclass(node):
        bases = [
            _import_path(module, base)
            for base in node.bases
            if ast.unparse(base) != "object"
        ]
        if None not in bases:
            # The first that has one, as Python looks for it.
            return next(filter(None, map(of, bases)), {})
    if node is None and not _may_hold(_tree(module), name):
        raise ValueError(f"The module {module!r} has no {name!r}.")
    return _imported(import_path)


def reexported(module):
    """What a module takes from others, without importing any.

    Returns:
        A dict from the name that it has there to `"package.module:object"`.
    """
    return {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def _may_hold(tree, name):
    """Whether a module has a name that it does not define as a class."""
    if not tree.body:
        return True
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
    return bool({name, "*", "__getattr__"} & bound)


def _is_dataclass(node):
    """Whether a decorator writes the constructor."""
    return any("dataclass" in ast.unparse(n) for n in node.decorator_list)


def _is_ours(module):
    """Whether it is a package of this one: importing it costs nothing."""
    spec = find(module) if module.split(".")[0] == "mart_tf" else None
    return spec is not None and bool(spec.submodule_search_locations)


def _definitions(module):
    """The classes and functions of a module's source, by name."""
    return {
        node.name: node
        for node in _tree(module).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


@functools.cache
def _tree(module):
    spec = find(module)
    path = pathlib.Path((spec and spec.origin) or "")
    if path.suffix != ".py":
        return ast.Module([], [])
    return ast.parse(path.read_text(encoding="utf-8"))


def _import_path(module, base):
    """`"package.module:object"` of a base class as a source writes it."""
    first, _, rest = ast.unparse(base).partition(".")
    if first in _definitions(module) and not rest:
        return f"{module}:{first}"
    for node in ast.walk(_tree(module)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for alias in node.names:
            if isinstance(node, ast.Import):
                whole, bound = alias.name, alias.asname
                path = ast.unparse(base)
                if bound:
                    path = path.replace(bound, whole, 1)
                if path.startswith(f"{whole}."):
                    inner, _, name = path.rpartition(".")
                    return f"{inner}:{name}" if find(inner) else None
            elif (alias.asname or alias.name) == first and node.module:
                if rest:
                    inner, _, name = rest.rpartition(".")
                    parts = [node.module, alias.name, *filter(None, [inner])]
                    return f"{'.'.join(parts)}:{name}"
                return f"{node.module}:{alias.name}"
    return None


def _imported(import_path):
    imported = lazy.load(import_path)
    try:
        signature = inspect.signature(imported)
    except TypeError as error:
        raise ValueError(f"{import_path} is no class or function.") from error
    return {
        key: Parameter(
            ""
            if parameter.annotation is parameter.empty
            else inspect.formatannotation(parameter.annotation),
            _REQUIRED
            if parameter.default is parameter.empty
            else parameter.default,
        )
        for key, parameter in signature.parameters.items()
        if parameter.kind
        not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _of_arguments(arguments):
    positional = arguments.posonlyargs + arguments.args
    missing = len(positional) - len(arguments.defaults)
    defaults = [None] * missing + arguments.defaults + arguments.kw_defaults
    parameters = {}
    for argument, default in zip(
        positional + arguments.kwonlyargs, defaults, strict=True
    ):
        if argument.arg == "self":
            continue
        annotation = argument.annotation
        parameters[argument.arg] = Parameter(
            ast.unparse(annotation) if annotation else "",
            _REQUIRED if default is None else _literal(default),
        )
    return parameters


def _literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        # A computed default: its value is not needed to check an option.
        return None
