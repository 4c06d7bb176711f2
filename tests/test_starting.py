"""A run from Python: the program's run, its checks, its sentences."""

import signal
import subprocess
import sys

import keras
import linear
import programs
import pytest
import small_runs
import tensorflow as tf

import mart_tf
from mart_tf.runs import fitting
from mart_tf.runs import history
from mart_tf.runs import record

HOOKS = """
import keras

def stop_after(epoch: int = 1):
    def end(number, logs):
        callback.model.stop_training = number + 1 >= epoch
    callback = keras.callbacks.LambdaCallback(on_epoch_end=end)
    return callback

class lowers(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs):
        assert "val_robust_accuracy" in logs
        rate = self.model.optimizer.learning_rate
        rate.assign(rate / 2)
        logs["said"] = "no number"

def fails():
    def end(epoch, logs):
        raise RuntimeError("no network")
    return keras.callbacks.LambdaCallback(on_epoch_end=end)
"""

pytestmark = pytest.mark.usefixtures("own_directory")


class Interrupts(keras.callbacks.Callback):
    """Ctrl-C after the second step, heeded after the next."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def heeds_ctrl_c():
    """Whoever runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_is_the_run_that_the_program_trains_also_after_ctrl_c(capsys):
    # By what the program calls.
    small_runs.trained("run", epochs=2)
    settings = small_runs.SMALL | {"workdir": "python", "epochs": 2}
    with pytest.raises(KeyboardInterrupt, match="after step 3 of epoch 1"):
        mart_tf.train_run(**settings, callbacks=Interrupts())
    assert "TensorBoard" in capsys.readouterr().out
    defense = mart_tf.defenses.MART()
    run = mart_tf.train_run(**settings, defense=defense, verbose=0)
    assert capsys.readouterr().out == ""
    small_runs.assert_same("run", "python")
    assert run.config.defense == record.read("run").config.defense
    assert run.history == history.columns("run")
    # Its network is a module of the test's own, which the call named.
    assert run.classifier.output_shape == (None, 10)
    # Once more is nothing at all.
    again = mart_tf.train_run(**settings)
    assert "has finished its 2 epochs" in capsys.readouterr().out
    assert again.history == run.history


def test_callbacks_by_name_are_recorded_and_may_stop_a_run(tmp_path, capsys):
    (tmp_path / "hooks.py").write_text(HOOKS)
    named = "hooks:stop_after:epoch=2"
    run = mart_tf.train_run(
        **small_runs.SMALL,
        workdir="run",
        epochs=3,
        steps_per_epoch=2,
        validation_images=0,
        callbacks=named,
    )
    said = capsys.readouterr().out
    assert f"callbacks    {named}" in said
    assert "stopped the run after epoch 2 of 3; the same command goes" in said
    assert "epoch 2, the last, stands for the best" in said
    assert run.history["epoch"] == [1, 2]
    assert run.config.callbacks == named
    flags = (tmp_path / "run" / "flags.cfg").read_text()
    assert f"--callbacks={named}\n" in flags


def test_what_callbacks_do_at_the_end_of_an_epoch_is_saved_with_it(tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    settings = {"steps_per_epoch": 2, "schedule": "constant"}
    settings["callbacks"] = (
        "hooks:lowers,keras.callbacks:EarlyStopping:monitor=val_loss:patience=9"
    )
    small_runs.train("whole", epochs=2, **settings)
    small_runs.train("parts", epochs=1, **settings)
    small_runs.train("parts", epochs=2, **settings)
    small_runs.assert_same("whole", "parts")
    rates = [float(row["learning_rate"]) for row in small_runs.rows("whole")]
    assert rates == pytest.approx([0.05, 0.025])


def test_an_epoch_at_whose_end_a_callback_fails_is_saved(tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    with pytest.raises(RuntimeError, match="no network"):
        small_runs.train(
            "run", epochs=2, steps_per_epoch=2, callbacks="hooks:fails"
        )
    assert [row["epoch"] for row in small_runs.rows("run")] == ["1"]
    assert (tmp_path / "run/checkpoints/ckpt-1.sha256").exists()


def test_a_callback_may_end_the_rest_of_an_epoch():
    def stop(epoch, logs):
        ended.append(epoch)
        model.stop_training = True

    ended = []
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), "natural", linear.THREAT
    )
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    batch = tf.data.Dataset.from_tensors((linear.IMAGES, linear.LABELS))
    place = fitting.Place(steps=2, finished=0, position=1)
    hooks = [keras.callbacks.LambdaCallback(on_epoch_end=stop)]
    fitting._fit(3, lambda start: batch.repeat(), None, model, hooks, place)
    assert ended == [0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"defense": "marrt"}, "Unknown defense 'marrt'; did you mean 'mart'"),
        ({"epochs": 0}, "--epochs is 0; expected a whole number from 1"),
        ({"workdir": "/proc/x"}, "lies on no disk; the run goes there"),
        ({"workdir": "small_network.py"}, "is a file, and no folder"),
        ({"callbacks": "absent:f"}, "'absent', which cannot be found"),
        ({"callbacks": [3]}, "callbacks is a list with a int; expected"),
        ({"init_from": "absent"}, "--init_from=absent does not exist"),
        ({"batch_size": 5000}, "5,?000"),
    ],
)
def test_what_the_program_refuses(arguments, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        mart_tf.train_run(verbose=0, **arguments)
    assert not (tmp_path / "runs").exists()


def test_settings_are_checked_without_tensorflow():
    script = (
        "import sys, mart_tf\n"
        "try:\n"
        "    mart_tf.train_run(dataset='mnist', defense='mart', epoch=3)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=programs.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Unknown setting 'epoch'; did you mean")
