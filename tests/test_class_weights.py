"""Class weights: read, counted, and in every batch."""

import dataclasses
import pathlib

import numpy as np
import pytest
from sklearn.utils import class_weight
import small_runs

import mart_tf
from mart_tf import data
from mart_tf.data import class_weights


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Three classes: 8, 4 and 2 training images once two are held out."""
    file = tmp_path_factory.mktemp("data") / "uneven.npz"
    labels = np.repeat([0, 1, 2], [10, 4, 2])
    images = np.random.default_rng(0).random((16, 4, 4)).astype("float32")
    np.savez(file, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return f"npz:{file}"


def test_balanced_is_what_scikit_learn_counts(uneven):
    dataset = data.load(uneven, validation_images=2)
    labels = dataset.train.labels
    np.testing.assert_allclose(
        class_weights.of("balanced", dataset),
        class_weight.compute_class_weight(
            "balanced", classes=np.arange(3), y=labels
        ),
        rtol=1e-6,
    )


def test_a_batch_has_them_by_label_and_the_pool_gamma_too(uneven):
    dataset = data.load(uneven, validation_images=0)
    weights = class_weights.of("1,2.5,0", dataset)
    for _, labels, weight in data.training_batches(
        dataset.train, 8, class_weights=weights
    ).take(4):
        np.testing.assert_array_equal(
            weight, np.array([1, 2.5, 0])[labels.numpy()]
        )
    pool = data.Pool(
        name="pool",
        images=dataset.train.images,
        labels=dataset.train.labels,
        labeled_by=None,
        mean_confidence=None,
    )
    for x, labels, weight in data.training_batches(
        dataset.train,
        8,
        class_weights=weights,
        pool=pool,
        unlabeled_weight=0.5,
    ).take(4):
        gamma = np.where(x["index"].numpy() < 16, 1, 0.5)
        np.testing.assert_array_equal(
            weight, gamma * np.array([1, 2.5, 0])[labels.numpy()]
        )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("balancd", "--class_weights is 'balancd'"),
        ("1,-2,1", "--class_weights is -2"),
        ("0,0", "leaves nothing to train on"),
    ],
)
def test_what_is_no_weight_is_refused_by_the_flag(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        mart_tf.train_run(class_weights=text)


def test_what_does_not_fit_the_data_is_refused(uneven):
    dataset = data.load(uneven)
    with pytest.raises(ValueError, match="has 2 weights, and npz:.* 3 classes"):
        class_weights.of("1,2", dataset)
    # A set of TFDS may have a class that no image is of.
    gap = dataclasses.replace(
        dataset, num_classes=4, class_names=("a", "b", "c", "d")
    )
    with pytest.raises(ValueError, match="none of the class d; expected"):
        class_weights.of("balanced", gap)


@pytest.mark.usefixtures("own_directory")
def test_a_run_trains_with_them_and_says_so(capsys):
    settings = small_runs.SMALL | {"epochs": 1, "steps_per_epoch": 1}
    twice = [2] * 10
    run = mart_tf.train_run(**settings, workdir="one", class_weights=twice)
    assert "2,2,2,2,2,2,2,2,2,2, in the loss of training" in (
        capsys.readouterr().out
    )
    plain = mart_tf.train_run(**settings, workdir="two")
    # Twice the loss, of training alone.
    assert run.history["loss"][0] == pytest.approx(
        2 * plain.history["loss"][0], rel=1e-5
    )
    flags = pathlib.Path("one", "flags.cfg").read_text()
    assert "--class_weights=2,2,2,2,2,2,2,2,2,2" in flags


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0, 0.0])
def test_weights_that_no_loss_can_have(weight):
    dataset = data.load("digits")
    said = "class_weights is (.*; expected a number from 0|0 for every)"
    with pytest.raises(ValueError, match=said):
        data.training_batches(dataset.train, 8, class_weights=[weight] * 10)
