"""The line of an epoch: its rate is that of training alone."""

import io
import time

import linear
import pytest
import rich.console

import mart_tf
from mart_tf.runs import callbacks

LOGS = {"loss": 1.0, "val_natural_accuracy": 0.5}


@pytest.fixture
def clock(monkeypatch):
    """The time, in seconds, as a test sets it."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def at(seconds):
        now[0] = float(seconds)

    return at


def test_the_time_of_the_validation_is_not_trainings(clock):
    output = io.StringIO()
    progress = callbacks.Progress(
        rich.console.Console(file=output, width=200),
        batch_size=40,
        steps=30,
        epochs=3,
        done=0,
    )
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT
    )
    progress.set_model(model)
    # 1,200 images in 6 seconds; then in 12, without a validation.
    clock(100)
    progress.on_epoch_begin(0)
    clock(106)
    progress.on_test_begin()
    clock(110)
    progress.on_epoch_end(0, LOGS)
    progress.on_epoch_begin(1)
    clock(122)
    progress.on_epoch_end(1, LOGS)
    first, second = output.getvalue().splitlines()
    assert first.startswith("epoch 1/3  loss 1.0000  natural 50")
    assert first.endswith("  200 images/s")
    assert second.startswith("epoch 2/3")
    assert second.endswith("  100 images/s")


def test_an_epoch_that_goes_on_has_the_rate_of_its_own_steps(clock):
    output = io.StringIO()
    progress = callbacks.Progress(
        rich.console.Console(file=output, width=200),
        batch_size=40,
        steps=30,
        epochs=3,
        done=40,
    )
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT
    )
    progress.set_model(model)
    # The 20 steps that are left, 800 images, in 8 seconds.
    clock(100)
    progress.on_epoch_begin(1)
    clock(108)
    progress.on_epoch_end(1, {"loss": 1.0, "natural_accuracy": 0.5})
    assert " 100 images/s" in output.getvalue()
