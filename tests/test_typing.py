"""py.typed holds: mypy reads the public API as a user's typed code calls it."""

import importlib
import re
import subprocess
import sys

import programs
import pytest

from mart_tf import lazy

CONSUMER = programs.ROOT / "tests/typed_consumer.py"
LAZY = [
    "mart_tf",
    *(f"mart_tf.{name}" for name in ("attacks", "data", "defenses")),
    *(f"mart_tf.{name}" for name in ("evaluation", "labeling", "models")),
    "mart_tf.training",
]


def test_a_typed_user_is_told_of_mistakes_and_of_nothing_else(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}"]
    done = subprocess.run(
        [*command, str(CONSUMER)],
        cwd=programs.ROOT,
        capture_output=True,
        text=True,
    )
    told = re.findall(r":(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.M)
    lines = CONSUMER.read_text("utf-8").splitlines()
    expected = [
        (str(number), line.partition("# error: ")[2])
        for number, line in enumerate(lines, start=1)
        if "# error: " in line
    ]
    assert len(expected) >= 6
    assert told == expected, done.stdout + done.stderr


@pytest.mark.parametrize("package", LAZY)
def test_checkers_see_what_is_imported_on_first_use(package):
    source = importlib.import_module(package).__file__
    with open(source, encoding="utf-8") as file:
        text = file.read()
    block = text.partition("if typing.TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    seen = re.findall(r"from ([\w.]+) import (?:\(\s*)?(\w+) as (\w+)", block)
    paths = {
        public: path.replace(":", ".")
        for public, path in lazy.table_of(package).items()
    }
    assert {name: f"{module}.{thing}" for module, thing, name in seen} == paths


def test_each_lazy_package_is_among_them():
    found = {
        ".".join(path.parent.relative_to(programs.ROOT).parts)
        for path in (programs.ROOT / "mart_tf").rglob("__init__.py")
        if "lazy.attributes(" in path.read_text("utf-8")
    }
    assert found == set(LAZY)
