"""A run that is there, opened in Python."""

import math
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import programs
import pytest
import small_runs

import mart_tf
from mart_tf.runs import history

pytestmark = pytest.mark.usefixtures("own_directory")


@pytest.fixture
def run():
    """The workdir of a run of two epochs, its network code of its own."""
    small_runs.trained("run", epochs=2)
    return pathlib.Path("run")


def test_tells_what_was_told_and_reached(run):
    opened = mart_tf.load_run(run)
    assert opened.workdir == run
    assert opened.config.batch_size == 256
    assert opened.threat == mart_tf.ThreatModel("linf", 0.15)
    assert opened.report is None
    assert repr(opened) == "Run('run')"
    assert opened.history["epoch"] == [1, 2]
    assert set(opened.history["best"]) <= {0, 1}
    losses = [float(row["loss"]) for row in small_runs.rows(run)]
    assert opened.history["loss"] == losses


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_classifier_is_what_is_evaluated(run, checkpoint):
    opened = mart_tf.load_run(run, checkpoint, allow_code=True)
    expected = small_runs.weights("run", checkpoint)
    for own, other in zip(
        opened.classifier.get_weights(), expected, strict=True
    ):
        np.testing.assert_array_equal(own, other)
    assert opened.classifier is opened.classifier
    # A plain Keras model: its file needs nothing of ours to be read again.
    opened.classifier.save("saved.keras")
    with zipfile.ZipFile("saved.keras") as archive:
        assert b"mart_tf" not in archive.read("config.json")
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(
        keras.saving.load_model("saved.keras")(images),
        opened.classifier(images),
    )


def test_code_of_its_own_runs_only_if_that_is_allowed(run):
    opened = mart_tf.load_run(run)
    with pytest.raises(ValueError, match="in Python allow_code=True"):
        _ = opened.classifier
    assert opened.history["epoch"] == [1, 2]


def test_a_report_is_read_where_there_is_one(run):
    import made_reports

    made_reports.bare().save(run / "evaluation")
    report = mart_tf.load_run(run).report
    assert report["natural"]["accuracy"] == pytest.approx(0.9)
    (run / "evaluation" / "report.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged or no report"):
        _ = mart_tf.load_run(run).report


def test_a_damaged_best_is_passed_over_with_a_warning(run):
    for file in (run / "checkpoints").glob("ckpt-2.data*"):
        small_runs.damage(file)
    opened = mart_tf.load_run(run, "last", allow_code=True)
    with pytest.warns(UserWarning, match="Taking epoch 1, the one before"):
        _ = opened.classifier


def test_what_is_no_run_is_refused(run):
    with pytest.raises(ValueError, match="absent holds no run.json; expected"):
        mart_tf.load_run("absent")
    with pytest.raises(ValueError, match="Unknown checkpoint 'bset'; did you"):
        mart_tf.load_run(run, "bset")
    with pytest.raises(ValueError, match="a URL; expected a path"):
        mart_tf.load_run("gs://bucket/run")
    (run / "run.json").write_text("{")
    with pytest.raises(ValueError, match="run.json is damaged"):
        mart_tf.load_run(run)


def test_a_run_without_a_finished_epoch(run):
    for file in (run / "checkpoints").rglob("*.sha256"):
        file.unlink()
    os.remove(run / "metrics.csv")
    opened = mart_tf.load_run(run, allow_code=True)
    assert opened.history == {}
    with pytest.raises(ValueError, match="has no finished epoch yet; continue"):
        _ = opened.classifier


def test_columns_are_numbers_and_damage_is_told(run):
    history.write(run, [{"epoch": "1", "a": "nan"}, {"epoch": "2", "a": ""}])
    values = history.columns(run)
    assert values["epoch"] == [1, 2]
    assert all(map(math.isnan, values["a"]))
    history.write(run, [{"epoch": "1", "a": "x"}])
    with pytest.raises(ValueError, match="metrics.csv is damaged .could not"):
        _ = mart_tf.load_run(run).history


def test_opening_imports_no_tensorflow(run):
    script = (
        "import sys, mart_tf\n"
        "run = mart_tf.load_run('run')\n"
        "print(run, run.history['epoch'], run.report)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=programs.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Run('run') [1, 2] None\n"
