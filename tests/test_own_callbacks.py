"""Callbacks of a user's own: what names them, and what is no callback."""

import os
import pathlib
import signal
import sys

import keras
import pytest
import small_runs

import mart_tf
from mart_tf import parameters
from mart_tf.runs import config as run_config
from mart_tf.runs import own_callbacks

MODULE = """
import keras

def one(monitor: str = "loss", patience: int = 2):
    made.append(keras.callbacks.EarlyStopping(monitor, patience=patience))
    return made[-1]

def two():
    return [one(), one("val_loss")]

def nothing():
    return None

def a_class():
    return keras.callbacks.EarlyStopping

made = []
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "named_hooks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    parameters.of.cache_clear()
    yield "named_hooks"
    sys.modules.pop("named_hooks", None)


def test_are_recorded_without_importing_them(module):
    text = "named_hooks:one:patience=02, named_hooks:two"
    config = run_config.Config(callbacks=text)
    assert config.resolved().callbacks == "named_hooks:one,named_hooks:two"
    assert module not in sys.modules
    assert run_config.Config().resolved().callbacks is None


def test_each_is_called_once_with_its_options(module):
    listed = own_callbacks.create("named_hooks:one:patience=5,named_hooks:two")
    assert listed == sys.modules[module].made
    assert [each.patience for each in listed] == [5, 2, 2]
    assert [each.monitor for each in listed] == ["loss", "loss", "val_loss"]


def test_keras_s_own():
    name = (
        "keras.callbacks:EarlyStopping:monitor=val_robust_accuracy:mode=max:"
        "baseline=0.2"
    )
    config = run_config.Config(callbacks=name).resolved()
    assert config.callbacks == name
    [stopping] = own_callbacks.create(config.callbacks)
    assert isinstance(stopping, keras.callbacks.EarlyStopping)
    assert stopping.monitor == "val_robust_accuracy"
    assert stopping.baseline == 0.2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("one", "Unknown callback 'one'; .*one of: package.module:Name"),
        ("named_hook:one", "'named_hook', which cannot be found; expected"),
        ("named_hooks:absent", "'named_hooks' has no 'absent'"),
        ("named_hooks:one:patiance=3", "did you mean 'patience'"),
        ("named_hooks:one:patience=x", "patience=x: expected a whole number"),
        ("named_hooks:one,", "has an empty item"),
        ("", "has an empty item"),
    ],
)
def test_what_is_no_name_is_refused_at_once(module, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        run_config.Config(callbacks=text).resolved()
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("name", "what"),
    [("nothing", "a NoneType"), ("a_class", "the class EarlyStopping")],
)
def test_what_returns_no_callback_is_refused(module, name, what):
    with pytest.raises(ValueError) as caught:
        own_callbacks.create(f"named_hooks:{name}")
    assert str(caught.value) == (
        f"--callbacks=named_hooks:{name} returned {what}; expected a "
        "keras.callbacks.Callback, or a list of them."
    )
    with pytest.raises(ValueError, match="callbacks is a list with a int; exp"):
        own_callbacks.listed([3], "callbacks is")


@pytest.mark.usefixtures("own_directory")
def test_one_that_sets_the_rate_of_a_schedule_is_refused():
    """Keras refuses it only when it first acts, epochs later."""
    plateau = keras.callbacks.ReduceLROnPlateau("val_robust_accuracy")
    with pytest.raises(ValueError) as caught:
        mart_tf.train_run(**small_runs.SMALL, callbacks=[plateau])
    assert str(caught.value) == (
        "The callback ReduceLROnPlateau sets the learning rate, which "
        "--schedule=piecewise:at=3:factor=0.1:warmup_epochs=0 gives; expected "
        "--schedule=constant with it."
    )
    assert not pathlib.Path("run").exists()


@pytest.mark.usefixtures("own_directory")
def test_the_rate_that_one_sets_when_an_epoch_begins_is_what_is_recorded():
    rates = [0.01, 0.02]
    run = mart_tf.train_run(
        **small_runs.SMALL
        | {"epochs": 2, "steps_per_epoch": 1, "schedule": "constant"},
        callbacks=[
            keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch])
        ],
    )
    assert run.history["learning_rate"] == pytest.approx(rates)


class _Told(keras.callbacks.Callback):
    """What it is told of training, and a stop after some steps."""

    def __init__(self, steps=None):
        super().__init__()
        self.told, self._left = [], steps

    def on_train_begin(self, logs=None):
        self.told.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        if self._left is not None:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGTERM)

    def on_train_end(self, logs=None):
        self.told.append(f"end {sorted(logs)[-1]}")


@pytest.mark.usefixtures("own_directory")
def test_training_begins_and_ends_once_where_it_goes_on_within_an_epoch():
    def train(*, steps=None):
        told = _Told(steps)
        settings = small_runs.SMALL | {"epochs": 3, "workdir": "run"}
        try:
            mart_tf.train_run(**settings, callbacks=[told])
        except SystemExit:
            told.told.append("stopped")
        return told.told

    assert train(steps=2) == ["begin", "epoch 0", "stopped"]
    # Two calls of fit: what is left of the first epoch, and the others.
    whole = ["begin", "epoch 0", "epoch 1", "epoch 2"]
    assert train() == [*whole, "end val_robust_accuracy"]


class _Stops(keras.callbacks.Callback):
    """Ends training in the second step of the second epoch."""

    def on_train_begin(self, logs=None):
        self.epochs = self.params["epochs"]

    def on_epoch_begin(self, epoch, logs=None):
        self._last = epoch == 1

    def on_train_batch_end(self, batch, logs=None):
        if self._last and batch == 1:
            self.model.stop_training = True


@pytest.mark.usefixtures("own_directory")
def test_one_that_stops_within_an_epoch_stops_at_its_end():
    settings = small_runs.SMALL | {"epochs": 3, "workdir": "run"}
    run = mart_tf.train_run(**settings, callbacks=[_Stops()])
    assert len(run.history["loss"]) == 2
    mart_tf.train_run(**settings)
    # No batch of the second epoch was left out.
    small_runs.trained("whole", epochs=3)
    small_runs.assert_same("whole", "run")


@pytest.mark.usefixtures("own_directory")
def test_what_is_told_of_the_run_is_there_after_a_stop_in_validation():
    class Kills(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    settings = small_runs.SMALL | {"epochs": 1, "workdir": "run"}
    with pytest.raises(SystemExit):
        mart_tf.train_run(**settings, callbacks=[Kills()])
    reads = _Stops()
    mart_tf.train_run(**settings, callbacks=[reads])
    assert reads.epochs == 1
