"""Signals that a run heeds, in processes that get them for real."""

import signal
import subprocess
import sys
import threading

import programs
import pytest

from mart_tf.runs import signals

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}

PROGRAM = """
import sys, time
from mart_tf.runs import signals
with signals.heeded() as seen:
    seen.heeded = sys.argv[1] == "steps"
    try:
        print("begun", flush=True)
        while sys.stdin.readline():
            stop = seen.stop and seen.stop.name
            print(stop, seen.save, flush=True)
    except signals.Stopped as stopped:
        print(stopped, flush=True)
        sys.exit(stopped.status)
print("ended", flush=True)
time.sleep(60)
"""


# As code that calls Python back from C, and there loses exceptions.
CALLED_BACK = """
import ctypes, os, sys, time
from mart_tf.runs import signals
def leave(stopped):
    print(stopped, flush=True)
    os._exit(stopped.status)
@ctypes.CFUNCTYPE(None)
def called_back():
    print("begun", flush=True)
    while True:
        time.sleep(0.01)
with signals.heeded(leave) as seen:
    seen.farewells += [lambda stopped: print("goes", stopped.status), len]
    called_back()
print("lost", flush=True)
"""

# As TensorFlow, in which Ctrl-C may come out as this.
ANOTHER = """
import time
from mart_tf import cli, train
def main():
    print("begun", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise SystemError("bad argument to internal function")
cli.run("mart-train", "", train.FLAGS, main, ["mart-train"])
"""


def begun(kind, interrupt=signal.SIG_DFL, program=PROGRAM):
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program, kind],
        env=programs.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),
    )
    assert process.stdout.readline() == "begun\n"
    return process


def seen(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_kept_and_the_second_ends_at_once(number):
    process = begun("steps")
    assert seen(process) == "None False"
    process.send_signal(number)
    assert seen(process) == f"{number.name} False"
    process.send_signal(number)
    assert process.wait(timeout=10) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_the_first_step_it_stops_at_once(number):
    process = begun("none")
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert output == (
        f"Stopped by {NAMES[number]} before a step, with nothing to save; the "
        "same command goes on from there.\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_left_from_within_what_loses_exceptions(number):
    process = begun("", program=CALLED_BACK)
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    # A farewell that fails, as `len` does, keeps nobody.
    assert output == (
        f"goes {128 + number}\nStopped by {NAMES[number]} before a step, with "
        "nothing to save; the same command goes on from there.\n"
    )


def test_ctrl_c_that_comes_out_as_another_error_is_ctrl_c():
    process = begun("", program=ANOTHER)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 130
    assert error == ("mart-train: stopped by Ctrl-C. Nothing was written.\n")


# As a person who presses Ctrl-C while the program's modules are imported.
IMPORTING = """
import os, signal, sys
from mart_tf import entry

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == "mart_tf.runs.config":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Impatient())
entry.train()
"""


def test_ctrl_c_while_a_program_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING],
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 130
    assert done.stderr == (
        "mart-train: stopped by Ctrl-C. Nothing was written.\n"
    )


def test_usr1_asks_to_save():
    process = begun("none")
    process.send_signal(signal.SIGUSR1)
    assert seen(process) == "None True"
    process.kill()
    process.wait()


def test_what_a_shell_ignores_for_a_background_job_is_ignored():
    process = begun("steps", signal.SIG_IGN)
    process.send_signal(signal.SIGINT)
    assert seen(process) == "None False"
    process.kill()
    process.wait()


def test_afterwards_signals_are_what_they_were():
    process = begun("steps")
    process.stdin.close()
    assert process.stdout.readline() == "ended\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM


def test_a_thread_leaves_them_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def body():
        with signals.heeded() as heeded:
            seen.append((heeded.stop, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
