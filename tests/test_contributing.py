"""The defense of CONTRIBUTING.md, added to a copy of the project."""

import pathlib
import re
import shutil

import programs

ROOT = pathlib.Path(__file__).parents[1]


def blocks():
    """The marked code of "Add a defense", by its mark."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pairs = re.findall(r"<!-- (\w+) -->\n```\w*\n(.*?)```", text, re.DOTALL)
    return dict(pairs)


def test_a_new_defense_touches_no_program(tmp_path):
    for name in ("mart_tf", "tests", "flags"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    code = blocks()
    folder = tmp_path / "mart_tf" / "defenses"
    (folder / "mixed.py").write_text(code["defense"])
    table = (folder / "__init__.py").read_text()
    first = "DEFENSES = {\n"
    assert first in table
    (folder / "__init__.py").write_text(
        table.replace(first, first + code["line"], 1)
    )
    (tmp_path / "flags" / "digits_mixed.cfg").write_text(code["recipe"])
    tests = tmp_path / "tests" / "test_defenses.py"
    tests.write_text(tests.read_text() + "\n\n" + code["test"])

    # What lies where a program stands is what it imports.
    recipe = "--flagfile=flags/digits_mixed.cfg"
    done = programs.run("train", recipe, "--epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/digits_digits_cnn_mixed/run.json").exists()
    done = programs.run("train", "--defense=mixed:natural=1", cwd=tmp_path)
    assert done.returncode == 1
    assert "did you mean 'natural_share'" in done.stderr
    chosen = ("tests/test_defenses.py", "-k", "mixed")
    done = programs.run("pytest", *chosen, cwd=tmp_path)
    assert "3 passed" in done.stdout, done.stdout
