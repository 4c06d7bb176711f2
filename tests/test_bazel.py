"""The BUILD files: every source in one target, deps equal to imports.

Bazel itself is run by `.ci/bazel/run`. A BUILD file is read here as Python,
whose syntax it shares.
"""

import ast
import collections
import re

import build_files
import pytest
import sources

ROOT = build_files.ROOT
PATHS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in sources.FOLDERS
    for path in (ROOT / folder).rglob("BUILD")
)
RULES = ("py_binary", "py_library", "pytest_test")


def calls(text):
    """The calls of a BUILD file, as (name, arguments, named arguments)."""
    for node in ast.parse(text).body:
        call = node.value
        named = {
            keyword.arg: ast.literal_eval(keyword.value)
            for keyword in call.keywords
            if not isinstance(keyword.value, (ast.BinOp, ast.Call))
        }
        yield call.func.id, list(map(ast.literal_eval, call.args)), named


def targets():
    """The Python targets of the checkout, by label."""
    found = {}
    for path in PATHS:
        package = f"//{path.removesuffix('/BUILD')}"
        for rule, _, named in calls((ROOT / path).read_text("utf-8")):
            if rule in RULES:
                found[f"{package}:{named['name']}"] = named
    return found


def whole(label, package):
    """A label in full: ":noise" and "//mart_tf" lack a part."""
    if label.startswith(":"):
        return package + label
    return label if ":" in label else f"{label}:{label.split('/')[-1]}"


TARGETS = targets()
DEPS = {
    label: {
        whole(dep, label.partition(":")[0]) for dep in named.get("deps", ())
    }
    for label, named in TARGETS.items()
}


def test_the_files_are_as_the_sources_ask():
    wanted = build_files.build_files()
    assert sorted(wanted) == PATHS
    stale = [
        path for path in PATHS if (ROOT / path).read_text() != wanted[path]
    ]
    assert not stale, "stale: run `python tests/build_files.py`"


def test_every_source_is_in_one_target():
    counts = collections.Counter(
        f"{label[2:].partition(':')[0]}/{source}"
        for label, named in TARGETS.items()
        for source in named.get("srcs", ())
    )
    on_disk = {
        path.relative_to(ROOT).as_posix()
        for folder in sources.FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    assert set(counts) == on_disk
    assert set(counts.values()) == {1}


def test_deps_are_targets():
    for label, deps in DEPS.items():
        assert deps <= set(TARGETS), label


def test_no_import_statement_is_without_its_dep():
    """Line by line, with no help from what wrote the BUILD files."""
    pattern = re.compile(r"^ *from (mart_tf[\w.]*) import (\w+)", re.MULTILINE)
    seen = 0
    for label, named in TARGETS.items():
        package = label.partition(":")[0]
        for source in named.get("srcs", ()):
            text = (ROOT / package[2:] / source).read_text("utf-8")
            for module, name in pattern.findall(text):
                folder = module.replace(".", "/")
                inner = f"//{folder}:{name}"
                above, _, last = folder.rpartition("/")
                accepted = {
                    inner,
                    f"//{folder}/{name}:{name}",
                    f"//{folder}/{name}:init",
                    f"//{above}:{last}",
                    f"//{folder}:{last}",
                    f"//{folder}:init",
                }
                if inner in TARGETS:
                    accepted = {inner}
                assert DEPS[label] & accepted, (label, module, name)
                seen += 1
    assert seen > 300


def test_every_module_has_the_root_package():
    """Else an installed mart_tf could take its place."""

    def reached(label):
        return {label}.union(*map(reached, DEPS[label]))

    for label in set(TARGETS) - reached("//mart_tf:init"):
        if label.startswith("//mart_tf"):
            assert "//mart_tf:init" in reached(label), label


def test_rules_are_loaded_as_bazel_9_asks():
    files = [ROOT / path for path in PATHS]
    for path in [*files, ROOT / "tests/pytest_test.bzl"]:
        text = path.read_text("utf-8")
        used = set(re.findall(r"^ *(py_\w+)\(", text, re.MULTILINE))
        loaded = re.findall(
            r'^load\("@rules_python//python:(\w+)\.bzl", "(\w+)"\)$',
            text,
            re.MULTILINE,
        )
        assert loaded == sorted((rule, rule) for rule in used), path
    module = (ROOT / "MODULE.bazel").read_text("utf-8")
    assert re.findall(r'bazel_dep\(name = "(\w+)"', module) == ["rules_python"]


def test_programs_and_tests_can_be_run():
    kinds = {
        (rule, f"//{path.removesuffix('/BUILD')}:{named['name']}")
        for path in PATHS
        for rule, _, named in calls((ROOT / path).read_text("utf-8"))
        if rule in RULES
    }
    for program in ("evaluate", "export", "label", "train"):
        assert ("py_binary", f"//mart_tf:{program}") in kinds
    for path in (ROOT / "tests").glob("test_*.py"):
        assert ("pytest_test", f"//tests:{path.stem}") in kinds


def test_tables_of_names_bring_what_they_name():
    assert "//mart_tf/attacks:auto_pgd" in DEPS["//mart_tf/attacks:attacks"]
    assert (
        "//mart_tf/evaluation:init" in DEPS["//mart_tf/evaluation:evaluation"]
    )
    assert "//mart_tf/defenses:mart" in DEPS["//mart_tf/defenses:defenses"]
    page = TARGETS["//mart_tf/reports:page"]
    assert page["data"] == ["report.html.jinja"]
    assert "//:recipes" in TARGETS["//tests:test_recipes"]["data"]


MADE = {
    "mart_tf/__init__.py": "_MODULES = ('low',)\n",
    "mart_tf/low.py": "import math\n",
    "mart_tf/late.py": "def f():\n    from mart_tf import low\n",
    "mart_tf/main.py": (
        "from mart_tf import tables\nif __name__ == '__main__':\n    f()\n"
    ),
    "mart_tf/tables/__init__.py": (
        '"""Names "mart_tf.late:f" in prose."""\n'
        "from mart_tf import low\nNAMES = {'a': 'mart_tf.tables.a:f'}\n"
    ),
    "mart_tf/tables/a.py": "from mart_tf import tables\nF = 'a.json'\n",
    "mart_tf/tables/a.json": "{}",
    "tests/helper.py": "import json\n",
    "tests/test_a.py": (
        "import helper\nfrom mart_tf.tables import a\n"
        "C = f'import mart_tf.late; {a}'\nD = ROOT / 'flags' / 'a.cfg'\n"
    ),
}


@pytest.fixture
def made(tmp_path):
    for name, text in MADE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def needs(root, folder):
    """The deps and data of the targets of a made folder, by name."""
    text = build_files.build_files(root)[f"{folder}/BUILD"]
    return {
        named["name"]: named.get("deps", []) + named.get("data", [])
        for rule, _, named in calls(text)
        if rule in RULES
    }


def test_a_made_checkout_worked_by_hand(made):
    assert needs(made, "mart_tf") == {
        "init": [],
        "mart_tf": [":init", ":low"],
        "low": [":init"],
        "late": [":low"],
        "main": ["//mart_tf/tables"],
    }
    assert needs(made, "mart_tf/tables") == {
        "init": ["//mart_tf:low"],
        "tables": [":a", ":init"],
        # The whole package would close a circle.
        "a": [":init", "a.json"],
    }
    assert needs(made, "tests") == {
        "helper": [],
        "test_a": [
            ":helper",
            "//mart_tf:late",
            "//mart_tf/tables:a",
            "//:recipes",
        ],
    }


def test_a_new_import_is_noticed(made):
    before = build_files.build_files(made)
    (made / "mart_tf/low.py").write_text("from mart_tf import late\n")
    (made / "mart_tf/late.py").write_text("")
    assert needs(made, "mart_tf")["low"] == [":late"]
    assert build_files.build_files(made) != before
