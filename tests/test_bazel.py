"""The BUILD files. Bazel itself is run by `.ci/bazel/run`."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("benchmarks", "export", "mart_tf", "tests")


def test_a_folder_has_one():
    # More below it would hide its files from the globs above.
    files = [path for f in FOLDERS for path in (ROOT / f).rglob("BUILD")]
    folders = {path.parent for path in files}
    assert folders == {ROOT / folder for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS)
def test_rules_are_loaded_as_bazel_9_asks(folder):
    text = (ROOT / folder / "BUILD").read_text(encoding="utf-8")
    used = set(re.findall(r"^ *(py_\w+)\(", text, re.MULTILINE))
    loaded = re.findall(
        r'^load\("@rules_python//python:(\w+)\.bzl", "(\w+)"\)$',
        text,
        re.MULTILINE,
    )
    assert loaded == sorted((rule, rule) for rule in used)


def test_rules_python_is_all_that_is_fetched():
    text = (ROOT / "MODULE.bazel").read_text(encoding="utf-8")
    assert re.findall(r'bazel_dep\(name = "(\w+)"', text) == ["rules_python"]


def test_each_program_can_be_run():
    text = (ROOT / "mart_tf/BUILD").read_text(encoding="utf-8")
    programs = {
        path.stem
        for path in (ROOT / "mart_tf").glob("[a-z]*.py")
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    }
    listed = re.search(r"for program in \[(.*?)\]", text, re.DOTALL).group(1)
    assert set(re.findall(r'"(\w+)"', listed)) == programs
