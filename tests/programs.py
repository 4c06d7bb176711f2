"""Running a program as a user does, in a process of its own."""

import atexit
import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
# A `setup` of `started` that gives the program two logical CPUs.
TWO_CPUS = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
"""


def environment():
    """This environment, with the package under test first."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    # Wide enough for a sentence a line; tests/test_terminal.py has screens.
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "1000"}


def run(program, *arguments, **options):
    """Runs a program to its end, see `started`; the finished process."""
    with started(program, *arguments, **options) as process:
        return process.finished()


@contextlib.contextmanager
def started(
    program,
    *arguments,
    cwd=".",
    tensorflow=True,
    setup="",
    preload="",
    starter=0,
    **variables,
):
    """Starts a program; yields the `Started` process.

    In a process of its own, forked from one that has imported TensorFlow:
    that takes seconds. What hangs on a start from nothing uses `subprocess`.
    One at a time of each `starter`.

    Args:
        program: Of ours, such as "train"; another module; a path of a script.
        arguments: Its flags.
        cwd: Where it runs.
        tensorflow: If False, who imports it gets an ImportError.
        setup: Python that runs before it.
        preload: A library that is loaded before all others, or "".
        starter: Processes with different ones run beside each other.
        variables: What goes into its environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {n: pathlib.Path(folder, n) for n in ("stdout", "stderr")}
        call = {
            "arguments": [*map(str, [program, *arguments])],
            "cwd": os.path.abspath(cwd),
            "environment": environment() | variables,
            "hidden": [] if tensorflow else ["tensorflow", "keras"],
            "setup": setup,
            **{name: str(file) for name, file in files.items()},
        }
        starter = _starter(preload, starter)
        starter.stdin.write(json.dumps(call) + "\n")
        starter.stdin.flush()
        process = Started(call["arguments"], starter, files)
        try:
            yield process
        finally:
            process.finished()


class Started:
    """A process that runs.

    Attributes:
        pid: Its number.
    """

    def __init__(self, arguments, starter, files):
        self.pid = int(starter.stdout.readline())
        self._arguments = arguments
        self._starter = starter
        self._files = files
        self._finished = None

    def lives(self):
        """Raises a `ProcessLookupError` if it has ended."""
        os.kill(self.pid, 0)

    def said(self, stream):
        """What it has written, "stdout" or "stderr", so far."""
        file = self._files[stream]
        return file.read_text("utf-8") if file.exists() else ""

    def finished(self):
        """Waits for its end; a `subprocess.CompletedProcess`."""
        if self._finished is not None:
            return self._finished
        status = int(self._starter.stdout.readline())
        said = {name: self.said(name) for name in self._files}
        self._finished = subprocess.CompletedProcess(
            self._arguments, status, **said
        )
        return self._finished


@functools.cache
def _starter(preload, place):
    """A process that forks, of each of pytest's workers its own."""
    del place
    starter = subprocess.Popen(
        [sys.executable, pathlib.Path(__file__).with_name("started.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={
            **environment(),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **({"LD_PRELOAD": preload} if preload else {}),
        },
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
