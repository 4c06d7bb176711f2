"""Running a program as a user does, in a process of its own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def environment():
    """This environment, with the package under test first."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def run(program, *arguments, cwd, timeout=300):
    """Runs `python -m mart_tf.<program>`; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-m", f"mart_tf.{program}", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def assert_refused(process, sentence):
    """Exit status 1, one sentence, no traceback."""
    assert process.returncode == 1, process.stderr
    assert sentence in process.stderr, process.stderr
    assert len(process.stderr.strip().splitlines()) == 1, process.stderr


def timeless(value):
    """A report without what differs from run to run."""
    times = ("created", "seconds", "images_per_second")
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in times}
    if isinstance(value, list):
        return [timeless(inner) for inner in value]
    return value
