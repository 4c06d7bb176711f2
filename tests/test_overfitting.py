"""Overfitting: when it is named, when a run ends early, and goes on."""

import pytest
import small_runs

from mart_tf.runs import overfitting

pytestmark = pytest.mark.usefixtures("own_directory")


def rows_of(*values):
    return [{"val_robust_accuracy": str(value)} for value in values]


def test_accuracies_are_those_of_the_validation_split():
    rows = [{"robust_accuracy": "0.9", "val_robust_accuracy": "0.25"}]
    assert overfitting.accuracies(rows, "robust_accuracy") == [0.25]
    assert overfitting.accuracies(rows, "natural_accuracy") == []


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


def test_a_collapse_is_told_once():
    values = [0.1, 0.4, 0.38, 0.19, 0.02, 0.3]
    told = [
        count
        for count in range(1, len(values) + 1)
        if overfitting.is_catastrophic(values[:count], 1000, 10)
    ]
    assert told == [4]


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
    assert not overfitting.is_catastrophic(values, images, 10)


def test_a_gap_within_the_splits_error_is_none():
    # Of 100 images an accuracy of 1/2 has a standard error of 5 points.
    assert overfitting.gap([0.5, 0.41], 100) == 0.0
    assert overfitting.gap([0.5, 0.39], 100) == pytest.approx(0.11)
    assert overfitting.gap([0.5, 0.41], 10_000) == pytest.approx(0.09)
    assert overfitting.gap([], 100) == 0.0


def test_a_collapse_is_said_of_the_epoch_that_is_kept():
    class Kept:
        rows = rows_of(0.4, 0.1)

    class Model:
        stop_training = False

        class defense:
            selects_by = "robust_accuracy"

    said = []
    hook = overfitting.Overfitting(Kept, 0, 1000, 10, said.append)
    hook.set_model(Model)
    hook.on_epoch_end(1)
    assert "fell to 10.0 %, from 40.0 % in epoch 1, which is kept" in said[0]
    assert not Model.stop_training


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
