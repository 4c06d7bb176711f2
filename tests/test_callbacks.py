"""What a run says, saves and records: by the clock, and after each epoch."""

import io
import time

import keras
import linear
import numpy as np
import pytest
import rich.console
import tensorflow as tf

import mart_tf
from mart_tf.runs import callbacks
from mart_tf.runs import checkpoints
from mart_tf.runs import config as run_config
from mart_tf.runs import fitting
from mart_tf.runs import history
from mart_tf.runs import signals
from mart_tf.runs import workers

LOGS = {"loss": 1.0, "val_natural_accuracy": 0.5}


@pytest.fixture
def clock(monkeypatch):
    """The time, in seconds, as a test sets it."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def at(seconds):
        now[0] = float(seconds)

    return at


def compiled(defense="natural"):
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), defense, linear.THREAT
    )
    model.compile(keras.optimizers.SGD(0.1))
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def told():
    """What a run tells its log, in order."""
    return []


@pytest.fixture
def tell(told):
    return lambda event, **facts: told.append((event, facts))


def progress_after(done):
    """What shows a run of 3 epochs of 30 steps, and where it does."""
    output = io.StringIO()
    progress = callbacks.Progress(
        rich.console.Console(file=output, width=200),
        batch_size=40,
        steps=30,
        epochs=3,
        done=done,
    )
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT
    )
    progress.set_model(model)
    return progress, output


def test_the_time_of_the_validation_is_not_trainings(clock):
    progress, output = progress_after(0)
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
    progress, output = progress_after(40)
    # The 20 steps that are left, 800 images, in 8 seconds.
    clock(100)
    progress.on_epoch_begin(1)
    clock(108)
    progress.on_epoch_end(1, {"loss": 1.0, "natural_accuracy": 0.5})
    assert " 100 images/s" in output.getvalue()


def test_nearly_all_images_are_not_all(clock):
    output = io.StringIO()
    progress = callbacks.Progress(
        rich.console.Console(file=output, width=200),
        batch_size=40,
        steps=30,
        epochs=3,
        done=0,
    )
    progress.set_model(
        mart_tf.AdversarialClassifier(
            linear.linear_network(), threat=linear.THREAT
        )
    )
    progress.on_epoch_begin(0)
    clock(6)
    progress.on_epoch_end(
        0,
        {
            "loss": 0.1,
            # Wrong, or right, on one image of 10,000.
            "natural_accuracy": np.float32(0.9999),
            "robust_accuracy": np.float32(0.0001),
        },
    )
    assert "natural 99.9 %  robust 0.1 %" in output.getvalue()


@pytest.fixture
def within(tmp_path, clock, tell):
    """Of a run that saves as often as by default, 10 steps an epoch."""
    model = compiled()
    hook = callbacks.Within(
        checkpoints.Checkpoints(tmp_path, model, 10, tell),
        signals.Signals(),
        run_config.Config().interval(),
        fitting.Place(steps=10, finished=0, position=0),
        tell,
        workers.Workers(model.distribute_strategy),
    )
    hook.set_model(model)
    return hook


def saved(told):
    """After which steps a run was saved."""
    return [facts["number"] for event, facts in told if event == "save"]


def test_the_middle_of_an_epoch_is_saved_every_ten_minutes(within, clock, told):
    clock(1000)
    within.on_epoch_begin(0)
    clock(1050)
    within.on_epoch_end(0)
    # From the end of an epoch on, which is saved itself.
    within.on_epoch_begin(1)
    for batch, (seconds, saves) in enumerate(
        [
            (599, []),
            (600, [12]),
            (601, [12]),
            (1199, [12]),
            (1210, [12, 15]),
            (1809, [12, 15]),
            (1810, [12, 15, 17]),
        ]
    ):
        clock(1050 + seconds)
        within.on_train_batch_begin(batch)
        within.on_train_batch_end(batch)
        assert saved(told) == saves
    assert {facts["kind"] for _, facts in told} == {"within"}


@pytest.mark.parametrize(("seconds", "saves"), [(59, [9]), (60, [9, 10])])
def test_validation_begins_with_a_save_a_minute_after_the_last(
    within, clock, told, seconds, saves
):
    clock(1000)
    within.on_epoch_begin(0)
    for batch, now in [(8, 1700), (9, 1700 + seconds)]:
        clock(now)
        within.on_train_batch_begin(batch)
        within.on_train_batch_end(batch)
    assert saved(told) == [9]
    within.on_test_begin()
    assert saved(told) == saves


def test_progress_is_told_each_minute(clock, told, tell):
    events = callbacks.Events(tell, batch_size=122, done=40)
    model = compiled()
    events.set_model(model)
    clock(1000)
    events.on_epoch_begin(4)
    for batch, seconds in enumerate([1, 20, 30, 59, 61, 62, 120.5, 122]):
        if batch == 5:
            model.logs.count(tf.constant(True))
        clock(1000 + seconds)
        events.on_train_batch_end(batch)
    events.on_epoch_end(4, {"loss": 0.25, "skipped": 1.0})
    assert told == [
        # 5 steps in 61 seconds, then 3 in as many.
        ("progress", {"done": 45, "images_per_second": 10.0}),
        ("progress", {"done": 48, "images_per_second": 6.0}),
        # Told once.
        ("skip", {"done": 48, "skipped": 1}),
        ("epoch", {"epoch": 5, "done": 48, "loss": 0.25, "skipped": 1.0}),
    ]


@pytest.mark.parametrize(
    ("defense", "best", "kept"),
    [
        # Its third epoch is as good as the second, which stays.
        ("natural", ["1", "1", "0", "0"], 2),
        ("mart", ["1", "1", "1", "0"], 3),
    ],
)
def test_the_best_epoch_goes_by_the_accuracy_that_the_defense_names(
    tmp_path, defense, best, kept
):
    model = compiled(defense)
    record = callbacks.Record(
        tmp_path, checkpoints.Checkpoints(tmp_path, model, 10)
    )
    record.set_model(model)
    for epoch, (natural, robust) in enumerate(
        [(0.90, 0.1), (0.97, 0.2), (0.97, 0.4), (0.95, 0.3)]
    ):
        model.classifier.weights[1].assign([epoch + 1] * linear.CLASSES)
        record.on_epoch_end(
            epoch,
            {"val_natural_accuracy": natural, "val_robust_accuracy": robust},
        )
    rows = history.read(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["best"] for row in rows] == best
    classifier = linear.linear_network()
    restored = checkpoints.restore_classifier(tmp_path, "best", classifier)
    assert restored == (kept, [])
    np.testing.assert_array_equal(
        classifier.weights[1], [kept] * linear.CLASSES
    )
