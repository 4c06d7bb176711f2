"""The BUILD files, made from what the sources need.

    python tests/build_files.py

writes them. Every source has one target, whose deps are the modules that it
imports or names in its strings. In a package, `:init` is `__init__.py`, and
the target with the folder's name is that file with all that its tables name. A
module that these lead back to depends on `:init` alone: Bazel has no circles.
"""

import json
import pathlib

import sources

ROOT = pathlib.Path(__file__).parents[1]

_HEAD = """\
# Written by tests/build_files.py.

{loads}

package(default_visibility = ["//visibility:public"])

filegroup(
    name = "all_files",
    srcs = glob(
        ["**"],
        exclude = ["**/__pycache__/**"],
    ){inner},
)
"""
# Folders without a BUILD file of their own.
_ROOTED = {"docs": "//:docs", "flags": "//:recipes"}


def build_files(root=ROOT):
    """The text of every BUILD file but the root's, by its path."""
    found = sources.Sources(root)
    folders = {path.rpartition("/")[0] for path in found.paths}
    return {
        f"{folder}/BUILD": _text(found, folder, folders) for folder in folders
    }


def _text(found, folder, folders):
    targets = []
    for path in found.paths:
        if path.rpartition("/")[0] == folder:
            targets.append(_target(found, path))
        if path == f"{folder}/__init__.py":
            targets.append(_package(found, path))
    rules = sorted({rule for rule, _ in targets})
    loads = [
        f'load("@rules_python//python:{rule}.bzl", "{rule}")'
        for rule in rules
        if rule != "pytest_test"
    ]
    if "pytest_test" in rules:
        loads.append('load(":pytest_test.bzl", "pytest_test")')
    inner = [
        f"//{other}:all_files"
        for other in sorted(folders)
        if other.rpartition("/")[0] == folder
    ]
    head = _HEAD.format(
        loads="\n".join(loads), inner=f" + {_value(inner)}" if inner else ""
    )
    return "\n".join([head, *(_call(*target) for target in targets)])


def _target(found, path):
    """The rule and the attributes of a source."""
    folder, _, file = path.rpartition("/")
    needed = found.imported[path]
    if file != "__init__.py":
        needed = needed | found.named[path]
    deps = _deps(found, path, needed)
    outside = not path.startswith("mart_tf/")
    root = "mart_tf/__init__.py"
    below = found.imported[root]
    known = outside or path in {root, *below}
    if not known and deps <= set(map(_label, below)):
        # So that every target has the real mart_tf/__init__.py.
        deps = deps | {"//mart_tf:init"}
    rule = "py_binary" if path in found.programs else "py_library"
    if path.startswith("tests/test_"):
        rule = "pytest_test"
    attributes = {"name": _label(path).rpartition(":")[2]}
    if folder == "tests" and rule != "pytest_test":
        attributes["testonly"] = True
    attributes["srcs"] = [file]
    attributes["data"] = _sorted(_data(found, path), folder)
    if outside and rule != "pytest_test":
        attributes["imports"] = ["."]
    if rule == "py_binary":
        attributes["legacy_create_init"] = 0
    attributes["deps"] = _sorted(deps, folder)
    return rule, attributes


def _package(found, path):
    """The target of a package: `__init__.py` and what its tables name."""
    folder = path.rpartition("/")[0]
    deps = _deps(found, path, found.named[path]) | {_label(path)}
    name = folder.rpartition("/")[2]
    return "py_library", {"name": name, "deps": _sorted(deps, folder)}


def _deps(found, path, needed):
    """Labels of the sources that one needs, a package whole if it can be."""
    return {
        _label(source)
        if path in found.reached(source)
        else _label(source).removesuffix(":init")
        for source in needed
    }


def _label(path):
    folder, _, file = path.rpartition("/")
    name = "init" if file == "__init__.py" else file.removesuffix(".py")
    return f"//{folder}:{name}"


def _data(found, path):
    """Labels of the files that a source reads."""
    labels = found.beside(path)
    for name in found.from_root(path):
        entry = name.split("/")[0]
        if entry in _ROOTED:
            labels.add(_ROOTED[entry])
        elif entry == "export":
            labels.add("//export:all_files")
        elif entry not in ("", *sources.FOLDERS):
            labels.add(f"//:{name}")
        elif path.startswith("tests/"):
            labels.add("//:all_files")
    return labels


def _sorted(labels, folder):
    """As buildifier writes and sorts them: those of the folder first."""
    package = f"//{folder}"
    whole = f":{folder.rpartition('/')[2]}"
    short = {
        whole
        if label == package
        else label.removeprefix(package)
        if label.startswith(f"{package}:")
        else label
        for label in labels
    }
    return sorted(
        short,
        key=lambda label: (
            label.startswith("//"),
            label.replace(":", ".").split("."),
        ),
    )


def _call(rule, attributes):
    lines = [
        f"    {name} = {_value(value)},\n"
        for name, value in attributes.items()
        if value != []
    ]
    return f"{rule}(\n{''.join(lines)})\n"


def _value(value):
    if not isinstance(value, list):
        return json.dumps(value) if isinstance(value, str) else str(value)
    if len(value) == 1:
        return f'["{value[0]}"]'
    return "[\n" + "".join(f'        "{v}",\n' for v in value) + "    ]"


def main():
    for path, text in build_files().items():
        (ROOT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
