"""Checkpoints: what comes back, the best epoch, room on the disk."""

import shutil
import types

import keras
import linear
import numpy as np
import pytest

import mart_tf
from mart_tf.runs import checkpoints
from mart_tf.runs import run


def made(path, seed=0):
    """A model with weights of its own, momentum, rows; its checkpoints."""
    network = linear.linear_network()
    model = mart_tf.AdversarialClassifier(
        network, "mma", linear.THREAT, ema=0.5, rows=linear.EXAMPLES
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    generator = np.random.default_rng(seed)
    for variable in [
        *network.weights,
        *model.optimizer.variables[2:],
        *model.averages.weights,
    ]:
        variable.assign(generator.random(variable.shape))
    model.step.assign(10 + seed)
    model.memory.weights[0].assign(generator.random(linear.EXAMPLES))
    return model, checkpoints.Checkpoints(path, model)


def state(model):
    return [
        np.array(variable)
        for variable in [
            *model.classifier.weights,
            *model.optimizer.variables,
            *model.memory.weights,
            *model.averages.weights,
            model.step,
        ]
    ]


def test_all_that_a_run_goes_on_with_comes_back(tmp_path):
    model, saved = made(tmp_path, seed=1)
    saved.save(3, 0.75)
    other, restored = made(tmp_path, seed=2)
    assert restored.restore() == (3, [])
    for one, two in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(one, two)
    # What a later epoch has to be above.
    assert not restored.is_best(0.75)
    assert restored.is_best(0.76)


def test_the_first_of_equally_good_epochs_is_the_best(tmp_path):
    model, saved = made(tmp_path)
    for epoch, accuracy in enumerate([0.5, 0.75, 0.75, 0.25, 0.75], start=1):
        model.classifier.weights[1].assign([epoch] * linear.CLASSES)
        saved.save(epoch, accuracy)
    classifier = linear.linear_network()
    found = checkpoints.restore_classifier(tmp_path, "best", classifier)
    assert found == (2, [])
    np.testing.assert_array_equal(classifier.weights[1], [2] * linear.CLASSES)
    found = checkpoints.restore_classifier(tmp_path, "last", classifier)
    assert found == (5, [])
    # The newest and one more.
    kept = sorted(file.stem for file in tmp_path.rglob("ckpt-*.index"))
    assert kept == ["ckpt-1", "ckpt-2", "ckpt-4", "ckpt-5"]


def test_the_average_is_of_the_same_epoch_as_the_weights(tmp_path):
    model, saved = made(tmp_path)
    for epoch, accuracy in [(1, 0.75), (2, 0.5)]:
        model.classifier.weights[1].assign([epoch] * linear.CLASSES)
        model.averages.weights[1].assign([10 * epoch] * linear.CLASSES)
        saved.save(epoch, accuracy)
    classifier = linear.linear_network()
    for kind, averaged, value in [
        ("best", True, 10),
        ("best_raw", True, 1),
        ("last", True, 20),
        ("last_raw", True, 2),
        ("best", False, 1),
        ("last", False, 2),
    ]:
        checkpoints.restore_classifier(tmp_path, kind, classifier, averaged)
        found = classifier.weights[1]
        np.testing.assert_array_equal(found, [value] * linear.CLASSES)


def test_the_tenth_epoch_is_newer_than_the_ninth(tmp_path):
    _, saved = made(tmp_path)
    for epoch in (9, 10):
        saved.save(epoch, 0.1 * epoch)
    assert made(tmp_path)[1].restore() == (10, [])
    classifier = linear.linear_network()
    for kind in ("best", "last"):
        found = checkpoints.restore_classifier(tmp_path, kind, classifier)
        assert found == (10, [])
    assert run._best_epoch(tmp_path) == 10


def test_a_disk_needs_room_for_two(tmp_path, monkeypatch):
    # Kernel and bias, with momentum and average; iterations and the rate; rows.
    weights = 4 * (linear.PIXELS * linear.CLASSES + linear.CLASSES)
    size = 3 * weights + 8 + 4 + 4 * linear.EXAMPLES
    model, saved = made(tmp_path)

    def free(number):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _: types.SimpleNamespace(free=number)
        )

    free(2 * size - 1)
    with pytest.raises(OSError, match="make room and run the same command"):
        saved.save(1, 0.5)
    # The best one is the network and its average: there was room for it.
    assert [file.stem for file in tmp_path.rglob("ckpt-*.index")] == ["ckpt-1"]
    assert not list(tmp_path.glob("checkpoints/ckpt-*"))
    free(2 * size)
    saved.save(1, 0.5)
    assert list(tmp_path.glob("checkpoints/ckpt-1.index"))
