"""Many runs: which ones a pattern means, what tells them apart."""

import pathlib

import made_reports
import pytest
import small_runs
import test_record

from mart_tf.runs import events
from mart_tf.runs import history
from mart_tf.runs import record
from mart_tf.runs import sweep


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch, own_directory):
    """Three runs, one of them evaluated, and a folder that is none."""
    for name, settings in [
        ("b", {"seed": 1}),
        ("a", {"defense": "trades:regularization=2.5"}),
        ("c", {"epochs": 5, "strategy": "mirrored"}),
    ]:
        path = pathlib.Path("runs", name)
        path.mkdir(parents=True)
        config = small_runs.config_of(path, **{"epochs": 2} | settings)
        record.write(config, test_record.FACTS)
    pathlib.Path("runs/comparison").mkdir()
    made_reports.bare().save("runs/b/evaluation")


def test_a_pattern_means_the_runs_that_it_matches_sorted():
    assert sweep.runs(["runs/*"]) == ["runs/a", "runs/b", "runs/c"]
    assert sweep.runs(["runs/c", "runs/[bc]"]) == ["runs/c", "runs/b"]
    # What is named is taken: the next check says what is wrong with it.
    assert sweep.runs(["nowhere"]) == ["nowhere"]
    pathlib.Path("runs/a*").mkdir()
    assert sweep.runs(["runs/a*"]) == ["runs/a*"]


def test_a_pattern_means_the_reports_that_it_matches():
    assert sweep.reports(["runs/*"]) == ["runs/b"]
    assert sweep.report_of("runs/b") == "runs/b/evaluation"
    assert sweep.reports(["runs/*/evaluation"]) == ["runs/b/evaluation"]
    file = "runs/b/evaluation/report.json"
    assert sweep.reports(["runs/*/evaluation/*.json"]) == [file]
    assert sweep.report_of(file) == file


@pytest.mark.parametrize(
    ("find", "pattern", "sentence"),
    [
        (sweep.runs, "runs/x*", "--workdir=runs/x* matches no run; expected"),
        (sweep.runs, "ru*", "--workdir=ru* matches no run, only something el"),
        (sweep.reports, "runs/[ac]", "--compare=runs/[ac] matches no report,"),
    ],
)
def test_a_pattern_that_matches_none(find, pattern, sentence):
    with pytest.raises(ValueError) as caught:
        find([pattern])
    assert str(caught.value).startswith(sentence)
    assert "in quotes, such as 'runs/sweep/*'." in str(caught.value)


def test_settings_are_told_option_by_option():
    told = {name: sweep.settings(f"runs/{name}") for name in "abc"}
    assert told["a"]["defense"] == "trades"
    assert told["a"]["defense:regularization"] == "2.5"
    assert told["b"]["defense:form"] == "paper"
    assert told["b"]["seed"] == 1
    assert told["c"]["epochs"] == 5
    assert told["c"]["model"] == "small_network:build"
    for absent in ("workdir", "strategy", "regularization"):
        assert absent not in told["c"]
    # These end a run, or change what it does.
    for name in ("early_stopping_patience", "stop_on_collapse", "callbacks"):
        assert name in told["c"]


def test_a_run_that_has_not_ended_is_told():
    def unfinished(created=None):
        return sweep.settings("runs/b", created).get("unfinished")

    row = {"loss": "1", "best": "1"}
    tell = events.Log("runs/b")
    tell("start", done=0)
    history.write("runs/b", [{"epoch": "1"} | row])
    assert unfinished() == "has finished 1 of 2 epochs"
    # It stopped early.
    tell("save", kind="last", number=1, seconds=0.1)
    tell("end", outcome="finished")
    assert unfinished() is None
    assert unfinished("2999-01-01T00:00:00+00:00") is None
    # And went on, but was killed.
    tell("start", done=5)
    assert unfinished() == "has finished 1 of 2 epochs"
    history.write("runs/b", [{"epoch": str(n)} | row for n in (1, 2)])
    assert unfinished() is None
    earlier = unfinished("2020-01-01T00:00:00+00:00")
    assert earlier == "was trained on after its evaluation"


def test_a_report_has_the_settings_of_its_run():
    own = sweep.settings("runs/b")
    assert own["seed"] == 1
    assert sweep.settings("runs/b/evaluation") == own
    assert sweep.settings("runs/b/evaluation/report.json") == own
    made_reports.bare().save("elsewhere")
    assert sweep.settings("elsewhere") == {}
    pathlib.Path("runs/b/run.json").write_text("{}")
    with pytest.raises(ValueError, match="run.json is damaged"):
        sweep.settings("runs/b/evaluation")
