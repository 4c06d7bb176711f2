"""What the package and the programs say of themselves, at once."""

import importlib.metadata
import pathlib
import subprocess
import sys

import programs
import pytest

from mart_tf import entry

VERSIONS = ", ".join(
    f"{name} {importlib.metadata.version(package)}"
    for name, package in [
        ("mart_tf", "mart-tf"),
        ("TensorFlow", "tensorflow"),
        ("Keras", "keras"),
    ]
)


def said(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mart_tf", *arguments],
        env=programs.environment(),
        capture_output=True,
        text=True,
    )


def test_the_package_says_what_there_is():
    done = said()
    assert done.returncode == 0 and done.stderr == ""
    for program in entry.PROGRAMS:
        assert f"  mart-{program} " in done.stdout
        assert hasattr(entry, program)
    places = dict(
        line.split(": ")
        for line in done.stdout.splitlines()
        if line.endswith(("flags", "docs", "export"))
    )
    assert len(places) == 3
    assert all(pathlib.Path(place).is_dir() for place in places.values())
    assert VERSIONS in done.stdout


def test_the_package_takes_no_other_argument():
    assert said("--version").stdout.startswith(VERSIONS)
    done = said("--epochs=3")
    programs.assert_refused(done, "python -m mart_tf takes no --epochs=3;")


@pytest.mark.parametrize("program", entry.PROGRAMS)
def test_programs_say_their_version_without_tensorflow(program):
    done = programs.run(program, "--version", tensorflow=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"mart-{program}, {VERSIONS}")
    done = programs.run(program, "--version=7", tensorflow=False)
    programs.assert_refused(done, "--version is '7'; expected true or false")
