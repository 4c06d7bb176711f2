"""Imports point down, flags are read in the programs, imports cost nothing.

Imports are read from the source, those inside functions too. Names in tables
("mart_tf.defenses.mart:MART") are imported on first use and do not count.
"""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

_PROGRAMS = {"train", "evaluate", "export", "label"}


def rooms():
    """What each part may import besides itself, as docs/architecture.md says.

    A new part needs a line there.
    """
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    text = text[text.index("| room |") :].split("\n\n")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines()[2:]]
    return {
        row[0].strip(" `"): set(re.findall(r"`(\w+)`", row[2])) for row in rows
    }


BELOW = rooms()
LIBRARY = set(BELOW) - {"cli"}
BELOW |= {program: set(BELOW) for program in _PROGRAMS}


HEAVY = {
    "cleverhans",
    "matplotlib",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
}


def module_names():
    """Every module of the package, by name, with its file."""
    paths = {}
    for path in sorted((ROOT / "mart_tf").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        paths[".".join(parts)] = path
    return paths


MODULES = module_names()


def _is_for_checkers(node):
    return isinstance(node, ast.If) and (
        ast.unparse(node.test) == "typing.TYPE_CHECKING"
    )


@functools.cache
def imports(module):
    """All that a module imports, as absolute dotted names."""
    imported = set()
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    # What type checkers alone read is a table of names, too.
    tree.body = [node for node in tree.body if not _is_for_checkers(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                imported.add(name if name in MODULES else node.module)
    return imported


def part(module):
    """`mart_tf.attacks.gradient` belongs to the part `attacks`."""
    return module.split(".")[1] if "." in module else ""


def test_rooms_stand_lowest_first():
    order = [name for name in BELOW if name not in _PROGRAMS]
    for place, name in enumerate(order):
        assert BELOW[name] <= set(order[:place]), name


def test_every_part_has_its_place():
    assert {part(module) for module in MODULES} - {""} == set(BELOW)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    inside = {name for name in imports(module) if name.startswith("mart_tf")}
    if module == "mart_tf":
        assert inside == {"mart_tf.lazy"}
        return
    allowed = BELOW[part(module)] | {part(module)}
    wrong = {name for name in inside if part(name) not in allowed}
    assert not wrong, f"{module} imports {wrong}"


def test_the_rules_of_the_table():
    for low, high in [
        ("noise", "threat"),
        ("losses", "attacks"),
        ("attacks", "defenses"),
        ("defenses", "training"),
        ("training", "runs"),
        ("runs", "train"),
        ("reports", "evaluation"),
        ("serving", "export"),
    ]:
        assert low in BELOW[high]
        assert high not in BELOW[low]
    rooms = {"training", "runs", "defenses", "serving"}
    assert not BELOW["evaluation"] & rooms
    assert not BELOW["serving"] & {
        "training",
        "defenses",
        "attacks",
        "evaluation",
    }
    assert not any(BELOW[name] & (_PROGRAMS | {"cli"}) for name in LIBRARY)


def test_no_circles():
    graph = {module: imports(module) & set(MODULES) for module in MODULES}

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    assert not [module for module in graph if module in reached(module)]


def test_flags_are_read_in_the_programs_only():
    readers = {
        part(module)
        for module in MODULES
        if any(name.split(".")[0] == "absl" for name in imports(module))
    }
    assert readers <= {"cli", *_PROGRAMS}


@pytest.mark.parametrize(
    "module", [m for m in MODULES if part(m) in ("attacks", "losses")]
)
def test_attacks_and_losses_know_tensors_only(module):
    roots = {name.split(".")[0] for name in imports(module)}
    assert not roots & {"absl", "io", "json", "keras", "os", "pathlib"}
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        assert not (isinstance(node, ast.Name) and node.id == "open")


def run(script):
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_costs_nothing():
    heavy = HEAVY | {"keras"}
    run(f"import sys, mart_tf; assert not {heavy} & set(sys.modules)")


def test_the_library_does_without_what_only_some_of_it_needs():
    # Keras itself imports matplotlib and scikit-learn where it finds them:
    # None in sys.modules lets nobody find them.
    run(
        "import sys\n"
        f"hidden = {HEAVY - {'tensorflow'}}\n"
        "sys.modules.update(dict.fromkeys(hidden))\n"
        "import mart_tf\n"
        "mart_tf.ThreatModel, mart_tf.losses, mart_tf.AdversarialClassifier\n"
        "mart_tf.attacks.pgd, mart_tf.defenses.MART, mart_tf.models.build\n"
        "mart_tf.data.load, mart_tf.evaluate_robustness\n"
        "mart_tf.export_saved_model\n"
        "assert 'tensorflow' in sys.modules\n"
    )
