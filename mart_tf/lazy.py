"""Packages whose public names are imported when they are first used."""

import importlib

_TABLES = {}


def attributes(package, table):
    """`__getattr__` and `__dir__` of such a package.

    Args:
        package: Its name.
        table: Maps each public name to `"package.module:object"`, or, for a
            module, to `"package.module"`.
    """
    _TABLES[package] = table

    def find(name):
        if name not in table:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}"
            )
        return load(table[name])

    def names():
        own = vars(importlib.import_module(package)).items()
        here = {
            name
            for name, value in own
            if name.isupper() or getattr(value, "__module__", "") == package
        }
        return sorted(n for n in {*table, *here} if not n.startswith("_"))

    return find, names


def table_of(package):
    """The table of such a package; {} of any other."""
    importlib.import_module(package)
    return _TABLES.get(package, {})


def load(import_path):
    """The object named by `"package.module:object"`, or the module.

    Raises:
        ValueError: If the module cannot be imported, or has no such object.
    """
    module, _, name = import_path.partition(":")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"Importing {module!r} failed: {error}.") from error
    if name and not hasattr(imported, name):
        raise ValueError(f"The module {module!r} has no {name!r}.")
    return getattr(imported, name) if name else imported
