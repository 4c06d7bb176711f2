"""Signals that a run heeds, in processes that get them for real."""

import signal
import subprocess
import sys
import threading

import programs
import pytest

from mart_tf.runs import signals

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


def begun(kind, interrupt=signal.SIG_DFL):
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM, kind],
        env=programs.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
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
        f"Stopped by {number.name} before a step, with nothing to save; the "
        "same command goes on from there.\n"
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
    before, found = signal.getsignal(signal.SIGTERM), []

    def body():
        with signals.heeded() as heeded:
            found.append((heeded.stop, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [(None, before)]
