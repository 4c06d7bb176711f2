"""TensorBoard's logs of a run, read back from the event files."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import small_runs
import tensorflow as tf

import mart_tf
from mart_tf.runs import record
from mart_tf.runs import tensorboard_logs

pytest.importorskip(
    "tensorboard", reason="pip install 'mart-tf[tensorboard]' for these tests"
)

pytestmark = pytest.mark.usefixtures("own_directory")


@pytest.fixture
def nothing_drawn():
    """In the place of the fixture of all tests: here they are the subject."""


def read(folder):
    """The values of all event files of a folder, by tag: (step, tensor)."""
    found = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                tensor = tf.make_ndarray(value.tensor)
                plugin = value.metadata.plugin_data
                found.setdefault(value.tag, []).append(
                    (event.step, tensor, plugin)
                )
    return found


def numbers(found, tag):
    """The steps and the numbers of a tag."""
    return {step: float(tensor) for step, tensor, _ in found[tag]}


@pytest.fixture(scope="module")
def stopped_and_finished(tmp_path_factory):
    """A run of two epochs that was stopped in the middle of the first."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "small_network.py").write_text(small_runs.NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        settings = small_runs.SMALL | {"workdir": "run", "epochs": 2}

        def stop(batch, logs):
            if batch == 2:
                raise KeyboardInterrupt

        breaks = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        with pytest.raises(KeyboardInterrupt):
            mart_tf.train_run(
                **settings,
                checkpoint_every="1steps",
                callbacks=breaks,
                verbose=0,
            )
        run = mart_tf.train_run(**settings, verbose=0)
        return folder / "run", run.history


def test_metrics_of_every_epoch_once(stopped_and_finished):
    path, history = stopped_and_finished
    training = read(path / "tensorboard" / "train")
    validation = read(path / "tensorboard" / "validation")
    for found, prefix in ((training, ""), (validation, "val_")):
        for name in ("loss", "natural_accuracy", "robust_accuracy"):
            shown = numbers(found, f"epoch_{name}")
            assert [step for step, *_ in found[f"epoch_{name}"]] == [1, 2]
            np.testing.assert_allclose(
                list(shown.values()), history[prefix + name], rtol=1e-4
            )
    assert set(numbers(training, "epoch_images_per_second")) == {1, 2}


def test_epsilon_is_that_of_the_attack_of_training():
    small_runs.train("natural", epochs=2, defense="natural")
    found = read(pathlib.Path("natural", "tensorboard"))
    assert "epsilon" not in found
    assert "learning_rate" in found
    # Margins of its own, and no ramp.
    small_runs.train("mma", epochs=2, defense="mma")
    found = read(pathlib.Path("mma", "tensorboard"))
    assert set(numbers(found, "epsilon").values()) == {np.float32(0.15)}


def test_rate_and_epsilon_follow_the_schedule_by_step(stopped_and_finished):
    path, _ = stopped_and_finished
    found = read(path / "tensorboard")
    # 1,294 images in batches of 256: 5 steps an epoch. The ramp takes 1.5
    # epochs, 8 steps, to 0.15; the rate falls with epoch 3.
    steps = range(10)
    assert numbers(found, "epsilon") == pytest.approx(
        {step: 0.15 * min(step / 8, 1) for step in steps}
    )
    assert numbers(found, "learning_rate") == pytest.approx(
        dict.fromkeys(steps, 0.05)
    )


def test_a_rate_that_a_callback_sets_is_that_of_the_epoch_after():
    pathlib.Path("lower.py").write_text(
        "import keras\n\nclass Lower(keras.callbacks.Callback):\n"
        "    def on_epoch_end(self, epoch, logs=None):\n"
        "        self.model.optimizer.learning_rate = 0.01\n"
    )
    small_runs.train(
        "lowered",
        epochs=2,
        steps_per_epoch=1,
        schedule="constant",
        callbacks="lower:Lower",
    )
    found = read(pathlib.Path("lowered/tensorboard"))
    assert numbers(found, "learning_rate") == pytest.approx({0: 0.05, 1: 0.01})
    rates = [float(r["learning_rate"]) for r in small_runs.rows("lowered")]
    assert rates == [0.05, 0.01]


def test_settings_are_a_table_and_hyperparameters(stopped_and_finished):
    path, _ = stopped_and_finished
    found = read(path / "tensorboard")
    (_, text, _), *_ = found["flags"]
    lines = text.item().decode().splitlines()
    assert lines[:2] == ["| flag | value |", "| --- | --- |"]
    assert any(line.startswith("| defense | mart:") for line in lines)
    assert "| learning_rate | 0.05 |" in lines

    from tensorboard.plugins.hparams import plugin_data_pb2

    def content(tag):
        _, _, plugin = found[tag][0]
        assert plugin.plugin_name == "hparams"
        return plugin_data_pb2.HParamsPluginData.FromString(plugin.content)

    session = content("_hparams_/session_start_info").session_start_info
    said = {
        name: value.string_value or value.number_value or value.bool_value
        for name, value in session.hparams.items()
    }
    config = dataclasses.asdict(record.read(path).config)
    assert "workdir" not in said
    assert said["epochs"] == 2
    for name in ("model", "learning_rate", "seed", "augment"):
        assert said[name] == config[name]
    # A number, so that a sweep over it has an axis.
    assert said["defense"] == "mart"
    assert said["defense:regularization"] == 5.0
    assert said["schedule:at"] == 3.0
    experiment = content("_hparams_/experiment").experiment
    assert [
        (metric.name.tag, metric.name.group)
        for metric in experiment.metric_infos
    ][:2] == [
        ("epoch_natural_accuracy", "validation"),
        ("epoch_robust_accuracy", "validation"),
    ]


def test_the_same_images_are_shown_after_each_epoch(stopped_and_finished):
    path, _ = stopped_and_finished
    found = read(path / "tensorboard")["adversarial"]
    assert [step for step, *_ in found] == [1, 2]
    grids = []
    for _, (width, height, png), _ in found:
        grids.append(tf.io.decode_png(png).numpy())
        # Eight digits of 8 pixels, each eightfold, with 2 beside them.
        assert (int(width), int(height)) == (8 * 68, 3 * 68)
    first, second = grids
    natural = slice(0, 68)
    np.testing.assert_array_equal(first[natural], second[natural])
    assert (first[natural] != first[68:136]).any()
    # Another network, other adversarial examples.
    assert (first[68:136] != second[68:136]).any()


def test_a_grid_worked_by_hand(monkeypatch):
    monkeypatch.setattr(tensorboard_logs, "_SIDE", 1)
    natural = np.array([[[[0.0], [100.0]]]], np.float32)
    adversarial = np.array([[[[20.0], [90.0]]]], np.float32)
    threat = mart_tf.ThreatModel(epsilon=20.0, pixel_max=200.0)
    shown = tensorboard_logs.grid(natural, adversarial, threat)
    # Of 200; +20 is white, -10 a quarter.
    assert shown[2, 2:4, 0].tolist() == [0, 128]
    assert shown[7, 2:4, 0].tolist() == [26, 115]
    assert shown[12, 2:4, 0].tolist() == [255, 64]
    two = dataclasses.replace(threat, norm="l2")
    shown = tensorboard_logs.grid(natural, adversarial, two)
    assert shown[12, 2:4, 0].tolist() == [255, 64]


def test_a_run_without_validation_shows_no_images():
    mart_tf.train_run(
        **small_runs.SMALL,
        workdir="run",
        epochs=1,
        steps_per_epoch=1,
        validation_images=0,
        verbose=0,
    )
    found = read(pathlib.Path("run", "tensorboard"))
    assert "adversarial" not in found
    assert set(numbers(found, "epsilon")) == {0}
