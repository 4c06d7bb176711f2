"""Packages whose public names are imported when they are first used."""

import importlib


def attributes(package, targets):
    """`__getattr__` and `__dir__` of such a package.

    Args:
        package: Its name.
        targets: Maps each public name to `"package.module:object"`, or, for a
            module, to `"package.module"`.
    """

    def find(name):
        if name not in targets:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}"
            )
        module, _, inner = targets[name].partition(":")
        found = importlib.import_module(module)
        return getattr(found, inner) if inner else found

    def names():
        own = vars(importlib.import_module(package))
        constants = {name for name in own if name.isupper()}
        return sorted({*targets, *constants} - {n for n in own if n[0] == "_"})

    return find, names
