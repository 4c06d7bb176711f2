"""Two processes that train one run, as TF_CONFIG has them on two machines."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import time

import clusters
import numpy as np
import pytest
import run_states
import small_runs

pytestmark = pytest.mark.usefixtures("own_directory")

# Without dropout, whose masks belong to a replica.
NETWORK = small_runs.NETWORK.replace("keras.layers.Dropout(0.3),", "")
SETTINGS = {
    "model": "even_network:build",
    "batch_size": 64,
    "epochs": 2,
    "ema": 0.9,
    "checkpoint_every": "4steps",
}


@pytest.fixture(autouse=True)
def network(own_directory):
    pathlib.Path("even_network.py").write_text(NETWORK)


def begun(path, *flags, **options):
    """Both processes of a run, as `clusters.begun` has them."""
    settings = small_runs.SMALL | SETTINGS | {"workdir": path}
    settings |= {"strategy": "multi_worker"}
    given = [f"--{name}={value}" for name, value in settings.items()]
    return clusters.begun(*given, *flags, **options)


def ended(path, *flags, **options):
    """Runs both processes to their end."""
    with begun(path, *flags, **options) as both:
        return [process.finished() for process in both]


def newest(path):
    """The newest step in the middle of an epoch that is saved, or 0."""
    file = pathlib.Path(path, "checkpoints/newest.json")
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text()).get("within", 0)
    return 0


@contextlib.contextmanager
def training(path):
    """Both processes of a run, once they have saved something."""
    before = newest(path)
    with begun(path) as both:
        for _ in range(12_000):
            if newest(path) > before:
                break
            time.sleep(0.01)
        yield both


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that two processes have trained, and what they said."""
    folder = tmp_path_factory.mktemp("whole")
    with contextlib.chdir(folder):
        pathlib.Path("even_network.py").write_text(NETWORK)
        both = ended("two")
    for process in both:
        assert process.returncode == 0, process.stderr
    return folder / "two", both


def test_two_processes_train_what_one_does(whole):
    small_runs.train("one", **SETTINGS)
    path, (chief, worker) = whole
    assert "2 CPU" in chief.stdout
    assert "epoch 2/2" in chief.stdout
    # One of them tells.
    assert "epoch" not in worker.stdout
    assert "the chief, at 127.0.0.1:" in worker.stdout
    for checkpoint in ("best", "best_raw", "last", "last_raw"):
        one = small_runs.weights("one", checkpoint)
        two = small_runs.weights(path, checkpoint)
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(small_runs.rows("one"), small_runs.rows(path), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(
                float(a[name]), float(b[name]), rtol=1e-5, err_msg=name
            )


def test_a_process_that_is_stopped_or_lost_ends_the_others_and_all_go_on(whole):
    # The scheduler takes one that is not the chief.
    with training("run") as both:
        os.kill(both[1].pid, signal.SIGTERM)
        for process in both:
            done = process.finished()
            assert done.returncode == 128 + signal.SIGTERM
            assert done.stderr.startswith(
                "mart-train: Stopped by SIGTERM of process 1 after step "
            )
            assert done.stderr.endswith(
                "the same command goes on from there.\n"
            )
            assert done.stderr.count("\n") == 1
    # Its machine fails.
    for place in (1, 0):
        with training("run") as both:
            os.kill(both[place].pid, signal.SIGKILL)
            killed = time.monotonic()
            assert both[place].finished().returncode == -signal.SIGKILL
            left = both[1 - place].finished()
        assert time.monotonic() - killed < 60
        assert left.returncode == 138
        assert left.stderr.startswith(
            f"mart-train: A process of this run has gone, process {place} at "
        )
        assert left.stderr.count("\n") == 1
    chief, worker = ended("run")
    assert chief.returncode == 0, chief.stderr
    assert worker.returncode == 0, worker.stderr
    assert "Continuing run after step " in chief.stdout
    small_runs.assert_same(whole[0], "run")
    ends = [
        e["outcome"] for e in run_states.events("run") if e["event"] == "end"
    ]
    # The chief that was killed wrote none.
    assert ends == ["stopped", "failed", "finished"]


# The rate of a user's own, infinite after step 24; and process 1 has a clock
# that runs faster.
DIVERGING = """
import json, os, time

import keras

if json.loads(os.environ["TF_CONFIG"])["task"]["index"]:
    real = time.monotonic
    time.monotonic = lambda: 1.5 * real()

@keras.saving.register_keras_serializable()
class Infinite(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return keras.ops.where(step < 24, 0.01, float("inf"))

def infinite(learning_rate, steps_per_epoch, epochs):
    return Infinite()
"""


def test_processes_that_diverge_say_so_at_the_same_step():
    pathlib.Path("own_rate.py").write_text(DIVERGING)
    steps = set()
    for process in ended(
        "run", "--schedule=own_rate:infinite", "--batch_size=16"
    ):
        assert process.returncode == 1, process.stderr
        assert "steps in a row were skipped up to step" in process.stderr
        steps.add(process.stderr.split("up to step")[1].split()[0])
    assert len(steps) == 1


def test_processes_that_differ_are_refused(whole):
    for process in ended("run", others=["--seed=1"]):
        assert process.returncode == 1
        assert process.stderr == (
            "mart-train: Process 1 differs from the chief in --seed; start all "
            "processes with the same flags, data and versions.\n"
        )
    assert not pathlib.Path("run/run.json").exists()
    shutil.copytree(whole[0], "run")
    for process in ended("run", "--epochs=3", others=["--workdir=other"]):
        assert process.returncode == 1
        assert process.stderr == (
            "mart-train: Process 1 finds step 0 of the run in its --workdir, "
            "and the chief step 40; it must be one folder that all processes "
            "share.\n"
        )
