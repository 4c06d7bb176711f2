"""Two logical CPUs for every test process, so that replicas are real."""

import gc
import math
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
import small_runs
import tensorflow as tf

from mart_tf.evaluation import measuring
from mart_tf.evaluation import pieces
from mart_tf.runs import curves
from mart_tf.runs import devices
from mart_tf.runs import tensorboard_logs

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

# What is imported stays: collecting it again and again takes a tenth of the
# time of a test that traces a step. What a trace makes is collected seldom: at
# Python's own thresholds that takes a twentieth.
gc.collect()
gc.freeze()
gc.set_threshold(100_000, 20, 20)


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch):
    """Runs without TensorBoard's logs and curves, a fifth of a small one.

    Where these are tested, a fixture of this name is in the place of this one.
    """
    monkeypatch.setattr(tensorboard_logs, "create", lambda *arguments: [])
    monkeypatch.setattr(curves, "save", lambda path: f"{path}/curves.html")


@pytest.fixture(params=["single", "mirrored"])
def strategy(request):
    """The default strategy, then a mirrored one over two logical CPUs."""
    return devices.strategy(request.param)


@pytest.fixture
def own_directory(tmp_path, monkeypatch):
    """A working directory of the test's own, with a network for small runs."""
    (tmp_path / "small_network.py").write_text(small_runs.NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def pieces_left(monkeypatch):
    """After how many pieces, a batch each, an evaluation is stopped: `[0]`."""
    monkeypatch.setattr(pieces, "_STEPS", 1)
    monkeypatch.setattr(pieces, "_LEAST_BATCHES", 1)
    done, left = measuring.Measurement._piece, [math.inf]

    def counted(self, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return done(self, *arguments)

    monkeypatch.setattr(measuring.Measurement, "_piece", counted)
    return left
