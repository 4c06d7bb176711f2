"""Overfitting: when it is named, when a run ends early, and goes on."""

import dataclasses
import pathlib

import numpy as np
import pytest
import small_runs

import mart_tf
from mart_tf import data
from mart_tf.runs import config as run_config
from mart_tf.runs import fitting
from mart_tf.runs import overfitting
from mart_tf.runs import overfitting_callbacks
from mart_tf.runs import workdir

pytestmark = pytest.mark.usefixtures("own_directory")


# What a collapse is to a run: after two epochs the network knows nothing.
RUIN = """
import keras

class Ruin(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            for weight in self.model.classifier.trainable_weights:
                weight.assign(0.0 * weight)
"""
NO_SPLIT = {"validation_images": 0, "epsilon": 0.01, "defense": "nfgsm"}


def told(hook_settings, *values, natural=(), training=()):
    """What is said of each of some epochs, and whether the run stops."""

    class Kept:
        rows = []

    class Model:
        stop_training = False

        class defense:
            selects_by = "robust_accuracy"

    said = []
    config = run_config.Config(validation_images=1000)
    config = dataclasses.replace(config, **hook_settings)
    hook = overfitting_callbacks.Overfitting(Kept, config, 10, said.append)
    hook.set_model(Model)
    for epoch, value in enumerate(values):
        row = {"val_robust_accuracy": str(value)}
        if natural:
            row["val_natural_accuracy"] = str(natural[epoch])
        if training:
            row["robust_accuracy"] = str(training[epoch])
        Kept.rows.append(row)
        hook.on_epoch_end(len(Kept.rows) - 1)
    return said, Model.stop_training


def test_accuracies_are_those_of_the_column():
    rows = [{"robust_accuracy": "0.9", "val_robust_accuracy": "0.25"}]
    assert overfitting.accuracies(rows, "val_robust_accuracy") == [0.25]
    assert overfitting.accuracies(rows, "val_natural_accuracy") == []
    # As a table has it whose first rows are of an earlier version.
    rows = [{"val_robust_accuracy": ""}]
    assert overfitting.accuracies(rows, "val_robust_accuracy") == []


@pytest.mark.parametrize(
    "values, patience, expected",
    [
        ([], 1, False),
        ([0.1], 1, False),
        ([0.2, 0.1], 1, True),
        # As good is not better.
        ([0.2, 0.2], 1, True),
        ([0.2, 0.1, 0.3], 1, False),
        ([0.2, 0.1], 2, False),
        ([0.2, 0.1, 0.1], 2, True),
        ([0.2, 0.1, 0.1], 0, False),
    ],
)
def test_patience_counts_the_epochs_since_the_best(values, patience, expected):
    assert overfitting.is_stopped(values, patience) == expected


def test_a_collapse_is_the_first_fall_below_half_of_the_best():
    values = [0.1, 0.4, 0.38, 0.19, 0.02, 0.3]
    found = [overfitting.collapse(values[:n], 1000, 10) for n in range(7)]
    assert found == [None, None, None, None, 4, 4, 4]


@pytest.mark.parametrize(
    ("values", "images"),
    [
        # One image of 19.
        ([1 / 19, 0.0], 19),
        # 4 images of 10, then 1: what chance may do.
        ([0.4, 0.1], 10),
        # From chance of ten classes down: nothing had been learned.
        ([0.11, 0.04], 1000),
        ([], 1000),
        ([0.5], 1000),
    ],
)
def test_noise_is_no_collapse(values, images):
    assert overfitting.collapse(values, images, 10) is None


def test_a_gap_within_the_splits_error_is_none():
    # Of 100 images an accuracy of 1/2 has a standard error of 5 points.
    assert overfitting.gap([0.5, 0.41], 100) == 0.0
    assert overfitting.gap([0.5, 0.39], 100) == pytest.approx(0.11)
    assert overfitting.gap([0.5, 0.41], 10_000) == pytest.approx(0.09)
    assert overfitting.gap([], 100) == 0.0


def test_a_collapse_is_said_once_of_the_epoch_that_is_kept():
    [said], stopped = told({}, 0.4, 0.1, 0.05, 0.3, 0.1)
    assert "fell to 10.0 %, from 40.0 % in epoch 1, which is kept" in said
    assert "--stop_on_collapse would end it here" in said
    assert not stopped
    [said], stopped = told({"stop_on_collapse": True}, 0.4, 0.1)
    assert "--stop_on_collapse" not in said
    assert stopped


def test_where_natural_accuracy_falls_too_training_has_diverged():
    # MART on MNIST with --schedule=onecycle --learning_rate=0.1.
    values, natural = (0.338, 0.102, 0.088), (0.968, 0.102, 0.088)
    [said], _ = told({}, *values, natural=natural)
    assert said == (
        "Training diverged: robust accuracy on the validation split fell to "
        "10.2 %, from 33.8 % in epoch 1, which is kept as the best. Natural "
        "accuracy fell with it. A smaller learning rate prevents it; so may a "
        "longer warm-up. The run goes on; --stop_on_collapse would end it here."
    )
    [said], _ = told({}, 0.4, 0.1, natural=(0.7, 0.75))
    assert said.startswith("Catastrophic overfitting: robust accuracy")


def test_robust_overfitting_is_said_once_while_training_goes_on():
    # Of 1,000 images an accuracy of 1/2 has a standard error of 1.6 points.
    [said], stopped = told({}, 0.4, 0.5, 0.48, 0.45, 0.44, 0.49, 0.4)
    assert said == (
        "Robust overfitting: epoch 4 is 5.0 points below the best, epoch 2, on "
        "the validation split."
    )
    assert not stopped
    assert told({}, 0.4, 0.5, 0.48) == ([], False)


def test_what_training_loses_too_is_no_overfitting():
    # MART on MNIST at a rate of 0.05, epochs 7 and 8.
    [said], _ = told({}, 0.942, 0.9145, training=(0.9362, 0.9158))
    assert said == (
        "Robust accuracy fell: epoch 2 is 2.7 points below the best, epoch 1, "
        "on the validation split, and 2.0 in training."
    )
    [said], _ = told({}, 0.942, 0.9145, training=(0.9362, 0.9462))
    assert said.startswith("Robust overfitting: epoch 2 is 2.7 points below")


def test_without_a_split_one_batch_is_watched_and_a_collapse_ends_the_run():
    pathlib.Path("ruin.py").write_text(RUIN)
    settings = {**NO_SPLIT, "epochs": 4, "callbacks": "ruin:Ruin"}
    said = small_runs.train("run", stop_on_collapse=True, **settings)
    assert (
        "Training diverged: robust accuracy on the first batch of training "
        "fell to"
    ) in said
    assert "Accuracy in training fell with it." in " ".join(said.split())
    assert "in epoch 2; the last epoch is kept, as no split is held" in said
    assert "Stopped at the collapse, after epoch 3 of 4" in said
    assert len(small_runs.rows("run")) == 3
    said = small_runs.train("run", stop_on_collapse=True, **settings)
    assert "run has stopped at its collapse, after epoch 3; there is" in said
    said = small_runs.train("run", **settings)
    assert "diverged" not in said
    assert len(small_runs.rows("run")) == 4


def test_the_watched_batch_is_the_runs_first_and_training_does_not_see_it(
    monkeypatch,
):
    small_runs.train("whole", epochs=2, **NO_SPLIT)
    small_runs.train("parts", epochs=1, **NO_SPLIT)
    small_runs.train("parts", epochs=2, **NO_SPLIT)
    small_runs.assert_same("whole", "parts")

    model = mart_tf.AdversarialClassifier(
        workdir.load_classifier("whole", "last")[0],
        threat=mart_tf.ThreatModel("linf", 0.01),
        attack_steps=2,
    )
    model.compile()
    split = data.load("digits", validation_images=0).train
    batch = data.training_batches(split, 256).take(1)
    results = model.evaluate(batch, return_dict=True, verbose=0)
    last = small_runs.rows("whole")[-1]
    assert float(last[overfitting.OF_BATCH]) == pytest.approx(
        results["robust_accuracy"], abs=1e-6
    )

    monkeypatch.setattr(fitting, "_of_batch", lambda training: [])
    small_runs.train("unwatched", epochs=2, **NO_SPLIT)
    assert overfitting.OF_BATCH not in small_runs.rows("unwatched")[0]
    for one, other in zip(
        small_runs.weights("whole"),
        small_runs.weights("unwatched"),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_training_without_an_attack_is_not_watched():
    said = small_runs.train(
        "run", epochs=1, validation_images=0, defense="natural"
    )
    assert "Finished" in said
    assert overfitting.OF_BATCH not in small_runs.rows("run")[0]


def test_a_run_ends_early_and_goes_on_when_asked():
    # Nothing is learned: no epoch is better than the first.
    settings = {"epochs": 4, "learning_rate": 1e-9}
    said = small_runs.train("run", early_stopping_patience=1, **settings)
    assert "Stopped early, after epoch 2 of 4" in said
    assert len(small_runs.rows("run")) == 2
    said = small_runs.train("run", early_stopping_patience=1, **settings)
    assert "run has stopped early, after epoch 2; there is nothing" in said
    small_runs.train("run", **settings)
    assert len(small_runs.rows("run")) == 4


def test_refuses_to_look_at_a_split_that_is_not_there():
    with pytest.raises(ValueError, match="hold some images out"):
        small_runs.config_of(
            "run", early_stopping_patience=3, validation_images=0
        )
