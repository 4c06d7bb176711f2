"""events.jsonl, and the status that is read from it."""

import datetime
import json

import programs
import pytest
from test_record import FACTS

from mart_tf.runs import config as run_config
from mart_tf.runs import events
from mart_tf.runs import history
from mart_tf.runs import record
from mart_tf.runs import status


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    config = run_config.Config(workdir=str(path), model="digits_cnn")
    record.write(config.resolved(), FACTS)
    return path


def shown(path):
    return dict(status.lines(path))


def test_lines_come_back_whatever_lies_between_them(run):
    tell = events.Log(run)
    with tell.running(epochs=2):
        tell("epoch", epoch=1, val_loss=float("nan"))
    file = run / "events.jsonl"
    with file.open("ab") as stream:
        stream.write(b'{"time": "2026-01-01T00:00')
    tell("save", kind="last", number=1, seconds=0.5)
    with file.open("ab") as stream:
        stream.write(b'[]\nnull\n{"time": 3}\n' + b"[" * 100_000 + b"\n")
    happened = events.read(run)
    names = ["start", "epoch", "end", "save"]
    assert [event["event"] for event in happened] == names
    assert happened[1]["val_loss"] is None
    assert happened[2]["outcome"] == "finished"
    now = datetime.datetime.now(datetime.UTC)
    assert 0 <= (now - happened[3]["time"]).total_seconds() < 60
    # Each line is JSON for others too, but for what was cut off.
    first = json.loads(file.read_text().splitlines()[0])
    assert first["epochs"] == 2


@pytest.mark.parametrize(
    ("error", "ending"),
    [(ValueError("It was bad."), "failed"), (KeyboardInterrupt(), "stopped")],
)
def test_how_a_run_ends_is_written(run, error, ending):
    tell = events.Log(run)
    with pytest.raises(type(error)), tell.running():
        raise error
    last = events.read(run)[-1]
    assert (last["event"], last["outcome"]) == ("end", ending)
    assert last["sentence"] == str(error)
    assert shown(run)["state"].startswith(ending)


def test_a_run_goes_on_without_its_log(run):
    (run / "events.jsonl").mkdir()
    events.Log(run)("save", kind="last")


def test_the_status_of_a_run(run):
    assert shown(run)["state"] == "not running; it has not taken a step"
    tell = events.Log(run)
    facts = {"epochs": 4, "steps": 100, "batch_size": 50, "done": 0}
    tell("start", process=1, host="here", **facts)
    tell("progress", done=90, images_per_second=500.0)
    tell("skip", done=95, skipped=2)
    tell("epoch", epoch=1, done=100)
    tell("progress", done=150, images_per_second=1000.0)
    tell("skip", done=150, skipped=1)
    tell("save", kind="within", number=140, seconds=0.25)
    rows = [
        {"epoch": "1", "val_natural_accuracy": "0.9", "best": "1"},
        {"epoch": "2", "val_natural_accuracy": "0.8", "best": "0"},
    ]
    history.write(run, rows)
    lines = shown(run)
    assert (
        lines["state"] == "not running, and no end was written: it was killed"
    )
    assert lines["progress"] == "step 150 of 400 (38 %), epoch 2 of 4"
    assert lines["skipped"] == "3 steps: not finite"
    assert lines["last epoch"] == "2: validation, natural 80.0 %"
    assert lines["best epoch"] == "1: validation, natural 90.0 %"
    assert lines["saved"].startswith("step 140, 0:00:0")
    # Without a split nothing chooses.
    config = run_config.Config(workdir=str(run), validation_images=0)
    record.write(config.resolved(), FACTS)
    row = {"natural_accuracy": "0.166", "val_natural_accuracy": "", "best": "1"}
    history.write(run, [{"epoch": "1"} | row])
    last = shown(run)["last epoch"]
    assert last == "1: training, natural 16.6 %"
    assert "best epoch" not in shown(run)
    holder = programs.hold(run)
    try:
        lines = shown(run)
    finally:
        holder.kill()
    assert lines["state"].startswith(f"running ({holder.pid} on ")
    # 250 steps of 50 images at 1,000 a second.
    assert lines["progress"].endswith(
        "; 1,000 images/s, 0:00:12 left without validation"
    )


def test_the_status_before_the_last_step(run):
    tell = events.Log(run)
    facts = {"epochs": 10, "steps": 1000, "batch_size": 50, "done": 0}
    tell("start", process=1, host="here", **facts)
    tell("progress", done=9999, images_per_second=500.0)
    # One of 10,000 images is wrong.
    history.write(run, [{"epoch": "1", "val_natural_accuracy": "0.9999"}])
    lines = shown(run)
    assert lines["progress"] == "step 9,999 of 10,000 (99 %), epoch 10 of 10"
    assert lines["last epoch"] == "1: validation, natural 99.9 %"


@pytest.mark.parametrize(
    ("images", "best", "values", "said"),
    [
        (1000, "1", ["0.5", "0.4"], True),
        # What may be noise, what natural accuracy chose, and no split.
        (10, "1", ["0.5", "0.4"], False),
        (1000, "2", ["0.5", "0.4"], False),
        (0, "1", ["", ""], False),
    ],
)
def test_robust_overfitting_is_shown(run, images, best, values, said):
    config = run_config.Config(workdir=str(run), validation_images=images)
    record.write(config.resolved(), FACTS)
    rows = [
        {
            "epoch": str(place),
            "val_robust_accuracy": value,
            "best": str(int(str(place) == best)),
        }
        for place, value in enumerate(values, 1)
    ]
    history.write(run, rows)
    assert shown(run).get("overfitting") == (
        "Robust overfitting: epoch 2, the last, is 10.0 points below the best, "
        "epoch 1, on the validation split."
        if said
        else None
    )


def test_it_is_shown_of_more_than_nine_epochs(run):
    config = run_config.Config(workdir=str(run), validation_images=1000)
    record.write(config.resolved(), FACTS)
    values = [0.3 + 0.01 * place for place in range(10)] + [0.2]
    rows = [
        {
            "epoch": str(place),
            "val_robust_accuracy": str(value),
            "best": str(int(place <= 10)),
        }
        for place, value in enumerate(values, 1)
    ]
    history.write(run, rows)
    assert "below the best, epoch 10" in shown(run)["overfitting"]


def test_the_program_shows_it_without_tensorflow(run):
    done = programs.run("train", f"--status={run}", tensorflow=False)
    assert done.returncode == 0, done.stderr
    assert f"workdir      {run}" in done.stdout
    done = programs.run("train", f"--status={run}", "--epochs=3")
    programs.assert_refused(done, "--epochs says nothing beside --status")
    done = programs.run("train", f"--status={run}/none", tensorflow=False)
    programs.assert_refused(done, "holds no run.json")
