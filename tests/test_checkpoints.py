"""Checkpoints: what comes back, the best epoch, room on the disk."""

import shutil
import types

import keras
import linear
import numpy as np
import pytest

import mart_tf
from mart_tf.runs import accumulators
from mart_tf.runs import checkpoints
from mart_tf.runs import workers


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
    model.skips.in_row.assign(seed)
    model.memory.weights[0].assign(generator.random(linear.EXAMPLES))
    return model, checkpoints.Checkpoints(path, model, 10)


def state(model):
    return [
        np.array(variable)
        for variable in [
            *model.classifier.weights,
            *model.optimizer.variables,
            *model.memory.weights,
            *model.averages.weights,
            *model.skips.weights,
            model.step,
        ]
    ]


def test_all_that_a_run_goes_on_with_comes_back(tmp_path):
    model, saved = made(tmp_path, seed=1)
    saved.save(3, 0.75)
    other, restored = made(tmp_path, seed=2)
    assert restored.restore() == (3, 0, [])
    for one, two in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(one, two)
    # What a later epoch has to be above.
    assert not restored.is_best(0.75)
    assert restored.is_best(0.76)


def test_where_the_best_has_gone_that_of_later_epochs_is_taken(tmp_path):
    _, saved = made(tmp_path)
    saved.save(1, 0.75)
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    _, saved = made(tmp_path)
    epoch, _, [sentence] = saved.restore()
    assert epoch == 1
    assert "best holds no checkpoint any more" in sentence
    saved.save(2, 0.5)
    saved.save(3, 0.25)
    assert saved.best_epoch == 2


def test_the_first_of_equally_good_epochs_is_the_best(tmp_path):
    model, saved = made(tmp_path)
    for epoch, accuracy in enumerate([0.5, 0.75, 0.75, 0.25, 0.75], start=1):
        model.classifier.weights[1].assign([epoch] * linear.CLASSES)
        saved.save(epoch, accuracy)
    classifier = linear.linear_network()
    restored = checkpoints.restore_classifier(tmp_path, "best", classifier)
    assert restored == (2, [])
    np.testing.assert_array_equal(classifier.weights[1], [2] * linear.CLASSES)
    restored = checkpoints.restore_classifier(tmp_path, "last", classifier)
    assert restored == (5, [])
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
        bias = classifier.weights[1]
        np.testing.assert_array_equal(bias, [value] * linear.CLASSES)


def test_the_tenth_epoch_is_newer_than_the_ninth(tmp_path):
    _, saved = made(tmp_path)
    for epoch in (9, 10):
        saved.save(epoch, 0.1 * epoch)
    assert made(tmp_path)[1].restore() == (10, 0, [])
    classifier = linear.linear_network()
    for kind in ("best", "last"):
        restored = checkpoints.restore_classifier(tmp_path, kind, classifier)
        assert restored == (10, [])
    assert saved.best_epoch == 10


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


def cut_off(prefix):
    """What a kill leaves before the checksum is there."""
    prefix.with_name(f"{prefix.name}.sha256").unlink()


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model, saved = made(tmp_path)
    saved.save(1, 0.5)
    kernel = model.classifier.weights[0]
    kernel.assign(np.full(kernel.shape, np.inf))
    for save in (lambda: saved.save(2, 0.6), lambda: saved.save_within(13)):
        with pytest.raises(ValueError, match="is not finite after"):
            save()
    assert {file.stem for file in tmp_path.rglob("ckpt-*")} == {"ckpt-1"}


def test_a_first_save_that_was_cut_off_is_none(tmp_path):
    _, saved = made(tmp_path)
    saved.save(1, 0.5)
    folder = tmp_path / "checkpoints"
    cut_off(folder / "ckpt-1")
    (folder / "newest.json").unlink()
    _, again = made(tmp_path, seed=1)
    finished, _, [warning] = again.restore()
    assert finished == 0
    assert warning.endswith("ckpt-1, was cut off.")
    # Two without a checksum are no accident of the first save.
    saved.save(1, 0.5)
    saved.save(2, 0.5)
    cut_off(folder / "ckpt-1")
    cut_off(folder / "ckpt-2")
    with pytest.raises(ValueError, match="No sound checkpoint is left"):
        again.restore()


def test_a_later_save_that_was_cut_off_is_not_seen(tmp_path):
    model, saved = made(tmp_path)
    saved.save(1, 0.5)
    before = state(model)
    newest = (tmp_path / "checkpoints" / "newest.json").read_text()
    model.step.assign(99)
    saved.save(2, 0.6)
    # As if the kill had come in the middle of both saves.
    for folder in ("checkpoints", "checkpoints/best"):
        cut_off(tmp_path / folder / "ckpt-2")
    (tmp_path / "checkpoints" / "newest.json").write_text(newest)
    other, again = made(tmp_path, seed=2)
    assert again.restore() == (1, 0, [])
    for one, two in zip(before, state(other), strict=True):
        np.testing.assert_array_equal(one, two)
    classifier = linear.linear_network()
    for kind in ("last", "best"):
        restored = checkpoints.restore_classifier(tmp_path, kind, classifier)
        assert restored == (1, [])


@pytest.mark.parametrize("kind", ["last", "best"])
@pytest.mark.parametrize("files", ["ckpt-3.index", "ckpt-3.data*", "ckpt-3.*"])
def test_one_that_has_gone_is_missed(tmp_path, kind, files):
    _, saved = made(tmp_path)
    for epoch in (1, 2, 3):
        saved.save(epoch, 0.1 * epoch)
    folder = tmp_path / "checkpoints" / ("best" if kind == "best" else "")
    for file in folder.glob(files):
        file.unlink()
    epoch, [warning] = checkpoints.restore_classifier(
        tmp_path, kind, linear.linear_network()
    )
    assert epoch == 2
    assert f"{folder / 'ckpt-3'} is damaged" in warning


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"0" * 64, b"\n"])
def test_a_garbled_checksum_is_passed_over(tmp_path, content):
    _, saved = made(tmp_path)
    saved.save(1, 0.5)
    saved.save(2, 0.6)
    (tmp_path / "checkpoints" / "ckpt-2.sha256").write_bytes(content)
    finished, _, [warning] = saved.restore()
    assert finished == 1
    assert "ckpt-2 is damaged (its checksum does not match)" in warning


def test_a_sound_one_of_the_same_step_is_not_written_over(tmp_path):
    model, saved = made(tmp_path)
    saved.take_metrics()
    saved.save_within(15)
    folder = tmp_path / "checkpoints" / "within"
    before = {file: file.stat().st_ino for file in folder.iterdir()}
    saved.save_within(15)
    assert {file: file.stat().st_ino for file in folder.iterdir()} == before
    # One that is damaged is.
    expected = state(model)
    [data] = folder.glob("ckpt-15.data*")
    data.write_bytes(b"")
    saved.save_within(15)
    other, again = made(tmp_path, seed=1)
    assert again.restore() == (0, 15, [])
    for one, two in zip(expected, state(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_save_removes_what_older_ones_have_left_and_nothing_else(tmp_path):
    _, saved = made(tmp_path)
    folder = tmp_path / "checkpoints"
    for epoch in (1, 2, 3):
        saved.save(epoch, None)
    # Cut off, and of a later epoch that the run went back behind.
    (folder / "ckpt-7_temp").mkdir()
    (folder / "ckpt-7_temp" / "part").touch()
    for name in ("ckpt-5.index", "ckpt-best.index", "notes.txt"):
        (folder / name).touch()
    saved.save(4, None)
    assert {file.name.partition(".")[0] for file in folder.iterdir()} == {
        "ckpt-3",
        "ckpt-4",
        "ckpt-best",
        "newest",
        "notes",
    }


@pytest.mark.parametrize(
    "name", ["ckpt-x.index", "ckpt-.sha256", "ckpt-9e9.index", "ckpt-1_temp"]
)
def test_stray_files_are_no_checkpoints(tmp_path, name):
    _, saved = made(tmp_path)
    saved.save(1, 0.5)
    for folder in ("checkpoints", "checkpoints/best"):
        (tmp_path / folder / name).write_bytes(b"stray")
    assert saved.restore() == (1, 0, [])
    assert saved.best_epoch == 1


@pytest.mark.parametrize("content", ["", "[]", "null", '{"last": "x"}', "{"])
def test_a_garbled_list_of_the_newest_does_no_harm(tmp_path, content):
    _, saved = made(tmp_path)
    saved.save(1, 0.5)
    (tmp_path / "checkpoints" / "newest.json").write_text(content)
    assert saved.restore() == (1, 0, [])
    saved.save(2, 0.4)
    assert saved.restore() == (2, 0, [])


def test_the_middle_of_an_epoch_comes_back_with_its_metrics(tmp_path):
    model, saved = made(tmp_path, seed=1)
    saved.save(3, 0.75)
    model.step.assign(34)
    saved.rate.assign(0.25)
    for number, metric in enumerate(model.metrics):
        for variable in metric.variables:
            variable.assign(3.0 + number)
    saved.take_metrics()
    saved.save_within(34)
    kept = state(model)
    model.reset_metrics()
    other, restored = made(tmp_path, seed=2)
    assert restored.restore() == (3, 4, [])
    for one, two in zip(kept, state(other), strict=True):
        np.testing.assert_array_equal(one, two)
    assert float(restored.rate) == 0.25
    restored.give_metrics()
    for number, metric in enumerate(other.metrics):
        for variable in metric.variables:
            assert float(variable.value) == 3.0 + number
    # The end of the epoch leaves it behind, and a later epoch too.
    saved.save(4, 0.5)
    assert not (tmp_path / "checkpoints" / "within").exists()
    assert restored.restore() == (4, 0, [])


def test_a_middle_that_is_behind_the_last_epoch_is_not_gone_back_to(tmp_path):
    _, saved = made(tmp_path)
    saved.save_within(7)
    within = tmp_path / "checkpoints" / "within"
    kept = tmp_path / "kept"
    shutil.copytree(within, kept)
    saved.save(1, 0.5)
    # As if the kill had come before it was removed.
    shutil.copytree(kept, within)
    assert saved.restore() == (1, 0, [])


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_damaged_middle_is_passed_over(tmp_path, epochs):
    _, saved = made(tmp_path)
    for epoch in range(epochs):
        saved.save(epoch + 1, 0.5)
    saved.save_within(10 * epochs + 3)
    saved.save_within(10 * epochs + 6)
    within = tmp_path / "checkpoints" / "within"
    file = within / f"ckpt-{10 * epochs + 6}.index"
    file.write_bytes(file.read_bytes()[:-1])
    finished, position, [warning] = saved.restore()
    assert (finished, position) == (epochs, 3)
    assert "its checksum does not match" in warning
    for file in within.glob("*.index"):
        file.write_bytes(b"")
    finished, position, warnings = saved.restore()
    assert (finished, position, len(warnings)) == (epochs, 0, 2)


def test_a_middle_without_its_checksum_is_missed(tmp_path):
    _, saved = made(tmp_path, seed=1)
    saved.save(1, 0.5)
    saved.take_metrics()
    saved.save_within(13)
    (tmp_path / "checkpoints" / "within" / "ckpt-13.sha256").unlink()
    epoch, position, [warning] = saved.restore()
    assert (epoch, position) == (1, 0)
    assert "within/ckpt-13 is damaged" in warning


def test_metrics_of_other_replicas_keep_their_sum(tmp_path):
    model, _ = made(tmp_path)
    kept = accumulators.Accumulators(
        model, workers.Workers(model.distribute_strategy)
    )
    size = kept.saved.shape[1]
    kept.restore(np.arange(2 * size, dtype=np.float32).reshape(2, size))
    kept.give()
    held = [float(v.value) for m in model.metrics for v in m.variables]
    assert held == [2.0 * place + size for place in range(size)]
