"""The README: its commands and snippets are run, as a reader would."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import programs
import pytest

README = (programs.ROOT / "README.md").read_text(encoding="utf-8")


def block(marker):
    """The fenced block after `<!-- marker -->`."""
    pattern = rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```"
    return re.search(pattern, README, re.DOTALL).group(1)


def run(command, cwd, **environment):
    done = subprocess.run(
        command,
        cwd=cwd,
        env=programs.environment() | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_python_snippet(tmp_path):
    said = run([sys.executable, "-c", block("test: python")], tmp_path)
    assert "pgd" in said
    assert (tmp_path / "served/digits/1/saved_model.pb").exists()


def test_programs_snippet(tmp_path):
    scripts = pathlib.Path(sys.executable).parent
    if not (scripts / "mart-train").exists():
        pytest.skip("mart_tf is not installed: its programs are not on disk")
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-ec", block("test: bash")]
    said = run(command, tmp_path, PATH=path)
    assert "cleverhans:pgd" in said
    assert (tmp_path / "runs/small/export/1/saved_model.pb").exists()


def test_ci_runs_the_test_command():
    script = (programs.ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "<!-- tests -->" in script
    command = block("tests").strip()
    assert "\n" not in command and command.startswith("python3 -m venv")


def test_demo_from_a_bare_clone(tmp_path):
    """Command one: environment, two runs, a table, an export.

    A fifth of the epochs: minutes less, and the defense shows already.
    """
    clone = tmp_path / "clone"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=programs.ROOT,
        capture_output=True,
        text=True,
    )
    if tracked.returncode:
        pytest.skip("not a git checkout: there is nothing to clone")
    for name in tracked.stdout.splitlines():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(programs.ROOT / name, clone / name)
    command = block("demo").replace(
        "python3 -m venv", f"{sys.executable} -m venv", 1
    )
    assert command.count("bin/mart-train") == 2
    command = command.replace("bin/mart-train", "bin/mart-train --epochs=6")
    # Of TensorFlow's modules those that are used are compiled, and once.
    compiling = {"PIP_COMPILE": "0", "PYTHONDONTWRITEBYTECODE": ""}
    said = run(["bash", "-ec", command], clone, PYTHONPATH="", **compiling)
    robust = {
        name: json.loads(
            (
                clone / f"runs/digits_digits_cnn_{name}/evaluation/report.json"
            ).read_text()
        )
        for name in ("natural", "mart")
    }
    accuracy = {
        name: {a["name"]: a["accuracy"] for a in report["attacks"]}
        for name, report in robust.items()
    }
    gain = accuracy["mart"]["pgd:steps=20"]
    gain -= accuracy["natural"]["pgd:steps=20"]
    assert gain >= 0.30
    assert "pgd:steps=20" in said
    assert (
        clone / "runs/digits_digits_cnn_mart/export/1/saved_model.pb"
    ).exists()
