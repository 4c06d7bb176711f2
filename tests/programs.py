"""Running a program as a user does, in a process of its own."""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent


def environment():
    """This environment, with the package under test first."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def run(program, *arguments, cwd=".", tensorflow=True):
    """Runs `python -m mart_tf.<program>`; returns the finished process.

    In a process of its own, forked from one that has imported TensorFlow:
    that takes seconds. What hangs on a start from nothing uses `subprocess`.
    Without `tensorflow`, who imports it gets an ImportError.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {n: pathlib.Path(folder, n) for n in ("stdout", "stderr")}
        call = {
            "arguments": [f"mart_tf.{program}", *map(str, arguments)],
            "cwd": os.path.abspath(cwd),
            "environment": environment(),
            "hidden": [] if tensorflow else ["tensorflow", "keras"],
            **{name: str(file) for name, file in files.items()},
        }
        starter = _starter()
        starter.stdin.write(json.dumps(call) + "\n")
        starter.stdin.flush()
        status = int(starter.stdout.readline())
        said = {
            name: file.read_text("utf-8") if file.exists() else ""
            for name, file in files.items()
        }
    return subprocess.CompletedProcess(call["arguments"], status, **said)


@functools.cache
def _starter():
    """The process that forks; one for each of pytest's workers."""
    starter = subprocess.Popen(
        [sys.executable, pathlib.Path(__file__).with_name("started.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**environment(), "TF_CPP_MIN_LOG_LEVEL": "2"},
        text=True,
    )
    atexit.register(starter.kill)
    return starter


HOLDER = """
import sys, time
from mart_tf import files
with files.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder):
    """Another process that has a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


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
