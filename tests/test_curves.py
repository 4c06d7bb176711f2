"""The curves of a run: what they say, and where they are drawn."""

import os
import pathlib
import warnings

from matplotlib import image
import programs
import pytest
import small_runs
import test_record

from mart_tf.reports import training
from mart_tf.runs import curves
from mart_tf.runs import history
from mart_tf.runs import record

NAMES = ["curves.html", "curves.png"]


@pytest.fixture
def nothing_drawn():
    """In the place of the fixture of all tests: here they are the subject."""


def course(**changes):
    """Ten epochs, of which the sixth is the best, overfitting after it."""
    epochs = list(range(1, 11))
    numbers = {
        "epoch": epochs,
        "loss": [2.0 - 0.1 * epoch for epoch in epochs],
        "natural_accuracy": [0.5 + 0.04 * epoch for epoch in epochs],
        "robust_accuracy": [0.2 + 0.05 * epoch for epoch in epochs],
        "val_natural_accuracy": [0.5 + 0.03 * epoch for epoch in epochs],
        "val_robust_accuracy": [0.4 - 0.02 * abs(6 - e) for e in epochs],
        "learning_rate": [0.1] * 7 + [0.01] * 3,
        "best": [1] * 6 + [0] * 4,
    }
    fields = {
        "title": "runs/a <b>: mart",
        "history": numbers,
        "best": 6,
        "epochs": 10,
        "epsilon": 0.3,
        "ramp": 2.0,
        "settings": [("defense", "mart:regularization=5"), ("pool", None)],
    }
    return training.Course(**fields | changes)


def without(*names):
    kept = course().history
    return {name: v for name, v in kept.items() if name not in names}


def test_robust_overfitting_is_said():
    best, overfitting = training.sentences(course())
    assert best == "The best epoch is 6."
    assert "training images went from 50.0 % to 70.0 %" in overfitting
    assert "validation split from 40.0 % to 32.0 %" in overfitting
    assert "overfits robustly (Rice et al., ICML 2020)" in overfitting


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"best": 10}, ["The best epoch is 10."]),
        (
            {"best": 10, "epochs": 12},
            ["10 of 12 epochs are finished.", "The best epoch is 10."],
        ),
        (
            {"best": None},
            ["No validation split chose an epoch: the last one counts."],
        ),
        # Natural training attacks nothing.
        (
            {"history": without("robust_accuracy")},
            ["The best epoch is 6."],
        ),
    ],
)
def test_nothing_is_said_of_what_is_not_known(changes, expected):
    assert training.sentences(course(**changes)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"best": None, "history": without("val_robust_accuracy", "best")},
        {"ramp": 0.0, "history": without("learning_rate", "natural_accuracy")},
        # Nothing is attacked.
        {"ramp": None, "history": without("robust_accuracy")},
        # The first epoch of a warm-up, and a damaged file.
        {"history": course().history | {"learning_rate": [0.0] * 10}},
        {"history": course().history | {"learning_rate": [float("nan")] * 10}},
        # A ramp that has not ended, one epoch, and what was not finite.
        {
            "ramp": 4.0,
            "best": 1,
            "history": {"epoch": [1], "loss": [float("nan")]},
        },
    ],
)
def test_the_page_is_whole_whatever_is_known(changes, tmp_path):
    made = course(**changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = training.drawing(made)
    (tmp_path / "curves.png").write_bytes(figure.png)
    assert image.imread(tmp_path / "curves.png").std() > 0.05
    page = training.html(made, figure)
    assert "runs/a &lt;b&gt;: mart" in page
    assert "data:image/png;base64," in page
    assert "mart:regularization=5" in page
    for outside in ("http://", "https://", "<script"):
        assert outside not in page
    assert page.count('<tr><th scope="row">') == len(
        made.history["epoch"]
    ) + len(made.settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ramp": 0.0}, "from the first step"),
        ({"ramp": 4.0}, "reached after 4 epochs"),
        ({"ramp": 40.0}, "25 % of it reached in epoch 10"),
        ({"ramp": None}, "nothing is attacked in training"),
    ],
)
def test_the_page_says_how_far_epsilon_has_come(changes, said):
    made = course(epsilon=8 / 255, **changes)
    page = training.html(made, training.drawing(made))
    assert f"<dd>epsilon 8/255<small>{said}</small></dd>" in page


@pytest.mark.parametrize(
    ("settings", "ramp", "told"),
    [
        ({}, 1.5, "reached after 1.5 epochs"),
        ({"defense": "mma"}, 0.0, "from the first step"),
        ({"defense": "natural"}, None, "nothing is attacked in training"),
    ],
)
def test_a_ramp_is_told_where_training_has_one(
    own_directory, settings, ramp, told
):
    said = small_runs.train("run", epochs=2, **settings)
    said = " ".join(said.split())
    assert ("epsilon warm-up 1.5 epochs" in said) == bool(ramp)
    assert told in pathlib.Path("run/curves.html").read_text("utf-8")
    assert record.read("run").epsilon_ramp == ramp


@pytest.fixture
def run(tmp_path, monkeypatch, own_directory):
    """A run that is in its third epoch of four."""
    config = small_runs.config_of("run", epochs=4)
    pathlib.Path("run").mkdir()
    record.write(config, test_record.FACTS)
    numbers = course().history
    rows = [
        {name: f"{values[place]:.6g}" for name, values in numbers.items()}
        for place in range(2)
    ]
    history.write("run", rows)
    return "run"


def test_are_drawn_of_a_run_that_goes_on_without_tensorflow(run):
    done = programs.run("train", f"--curves={run}", tensorflow=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run/curves.html\n"
    page = pathlib.Path(run, "curves.html").read_text("utf-8")
    assert "2 of 4 epochs are finished. The best epoch is 2." in " ".join(
        page.replace("<p>", " ").replace("</p>", " ").split()
    )
    assert set(NAMES) < set(os.listdir(run))


def test_a_run_draws_them_at_its_end(own_directory):
    said = small_runs.train("run", epochs=2)
    assert "Curves: run/curves.html" in said
    assert set(NAMES) < set(os.listdir("run"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--curves=nowhere"], "nowhere holds no run.json; expected the work"),
        (["--curves=run", "--epochs=3"], "--epochs says nothing beside --cur"),
        (["--curves=run"], "run has no finished epoch yet, and curves begin"),
    ],
)
def test_bad_input_is_one_sentence(run, flags, sentence):
    pathlib.Path(run, "metrics.csv").unlink()
    before = sorted(os.listdir(run))
    done = programs.run("train", *flags, tensorflow=False)
    programs.assert_refused(done, sentence)
    assert sorted(os.listdir(run)) == before


def test_a_damaged_history_is_told(run):
    pathlib.Path(run, "metrics.csv").write_text("epoch,loss\n1,x\n")
    with pytest.raises(ValueError, match="metrics.csv is damaged"):
        curves.save(run)
