"""The evaluate program, as a user calls it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import programs
import pytest

import mart_tf
from mart_tf import data
from mart_tf import evaluate

RUN = "runs/first"
FILES = [
    "accuracy.png",
    "classes.png",
    "examples.png",
    "loss.png",
    "outcomes.npz",
    "report.html",
    "report.json",
    "report.md",
    "steps.png",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder whose `runs/first` is a run of one epoch on digits."""
    folder = tmp_path_factory.mktemp("trained")
    done = programs.run("train", "--epochs=1", f"--workdir={RUN}", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def place(trained, tmp_path):
    """A copy of it for one test."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def _report(folder, run=RUN):
    path = folder / run / "evaluation" / "report.json"
    return json.loads(path.read_text("utf-8"))


class TestOfARun:
    def test_without_flags_the_newest_run_under_all_attacks(self, place):
        done = programs.run("evaluate", cwd=place)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == f"Evaluating the newest run, {RUN}"
        assert f"Wrote {RUN}/evaluation: {', '.join(FILES)}" in lines
        # The results come last.
        assert lines[-1].split()[:2] == ["worst", "case"]
        folder = place / RUN / "evaluation"
        assert sorted(os.listdir(folder)) == FILES

        content = _report(place)
        assert [entry["name"] for entry in content["attacks"]] == [
            "fgsm",
            "pgd:steps=20",
            "pgd:steps=100",
            "cw",
            "cleverhans:fgm",
            "cleverhans:pgd",
            "cleverhans:bim",
            "cleverhans:mim",
        ]
        assert content["model"]["workdir"] == RUN
        assert content["model"]["checkpoint"] == "best"
        assert content["model"]["defense"].startswith("mart:regularization=5:")
        assert content["data"]["dataset"] == "digits"
        assert content["data"]["split"] == "test"
        assert content["data"]["class_names"] == list("0123456789")
        assert content["natural"]["examples"] == 359
        # The row that the table shows is the one of the file.
        for entry in content["attacks"]:
            [row] = [
                line.split()
                for line in lines
                if line.split()[:1] == [entry["name"]] and "to" in line
            ]
            assert row[1] == f"{entry['accuracy']:.2%}"

    def test_several_runs_side_by_side_under_another_threat(self, place):
        shutil.copytree(place / RUN, place / "runs" / "second")
        done = programs.run(
            "evaluate",
            f"--workdir={RUN},runs/seco*",
            "--attacks=natural,fgsm",
            "--epsilon=8/255",
            "--max_examples=40",
            "--batch_size=16",
            "--seed=5",
            "--checkpoint=last",
            "--save_adversarial",
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
        assert "evaluation: accuracy.png, adversarial, classes" in done.stdout
        reports = [_report(place, run) for run in (RUN, "runs/second")]
        for content in reports:
            assert content["threat_model"]["epsilon"] == 8 / 255
            assert content["settings"]["seed"] == 5
            assert content["settings"]["batch_size"] == 16
            assert content["natural"]["examples"] == 40
            assert content["model"]["checkpoint"] == "last"
            sample = data.sample(data.load("digits").test, 40, seed=5)
            facts = content["data"]
            assert facts["sample"] == "stratified" and facts["of"] == 359
            assert facts["rows"] == sample.rows.tolist()
        with np.load(place / RUN / "evaluation" / "outcomes.npz") as arrays:
            np.testing.assert_array_equal(arrays["labels"], sample.labels)
        assert len(set(sample.labels)) == 10
        lines = [line.split() for line in done.stdout.splitlines()]
        natural, worst = (
            f"{100 * reports[0][key]['accuracy']:.2f}"
            for key in ("natural", "worst_case")
        )
        # Both runs are the same network.
        start = lines.index(["accuracy", "in", "%", "first", "second"])
        assert lines[start + 2 :] == [
            ["natural", natural, natural],
            ["fgsm", worst, worst],
            ["worst", "case", worst, worst],
        ]
        # The same table of what is there now, in files.
        table = (place / "comparison" / "compare.csv").read_text()
        (place / "comparison" / "notes.txt").write_text("mine")
        done = programs.run("evaluate", "--compare=runs/*", cwd=place)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == (
            "Wrote comparison: compare.csv, compare.html, compare.json, "
            "compare.md, compare.png"
        )
        assert (place / "comparison" / "compare.csv").read_text() == table

    def test_refuses_data_of_another_shape(self, place):
        np.savez(
            place / "other.npz",
            x_train=np.zeros([20, 9, 9, 1], np.uint8),
            y_train=np.arange(20) % 10,
            x_test=np.zeros([20, 9, 9, 1], np.uint8),
            y_test=np.arange(20) % 10,
        )
        _assert_refused(
            place,
            ["--dataset=npz:other.npz"],
            "(9, 9, 1)",
        )


class TestOfOtherModels:
    def test_a_saved_model_gives_the_accuracies_of_its_run(self, place):
        done = programs.run("export", f"--workdir={RUN}", cwd=place)
        assert done.returncode == 0, done.stderr
        common = [
            "--attacks=fgsm,pgd:steps=5,square:queries=50",
            "--max_examples=100",
        ]
        done = programs.run("evaluate", *common, cwd=place)
        assert done.returncode == 0, done.stderr
        done = programs.run(
            "evaluate",
            f"--model={RUN}/export/1",
            "--dataset=digits",
            f"--surrogate={RUN}",
            "--output=served",
            *common,
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
        trained = _report(place)
        served = json.loads((place / "served" / "report.json").read_text())
        assert served["threat_model"] == trained["threat_model"]
        assert served["model"]["path"] == f"{RUN}/export/1"
        assert served["model"]["surrogate"]["name"] == "digits_cnn"
        accuracies = [
            [entry["accuracy"] for entry in report["attacks"][:3]]
            for report in (trained, served)
        ]
        assert accuracies[0] == accuracies[1]
        assert [entry["name"] for entry in served["attacks"][3:]] == [
            "transfer:fgsm",
            "transfer:pgd:steps=10:steps_per_epsilon=4",
            "transfer:pgd:steps=20",
            "transfer:cw",
        ]

        done = programs.run(
            "evaluate", f"--compare={RUN}/evaluation,served", cwd=place
        )
        assert done.returncode == 0, done.stderr
        assert sorted(os.listdir(place / "comparison")) == [
            "compare.csv",
            "compare.html",
            "compare.json",
            "compare.md",
            "compare.png",
        ]
        table = (place / "comparison" / "compare.md").read_text("utf-8")
        assert "transfer:cw" in table

    def test_a_keras_file_of_a_whole_adversarial_classifier(self, place):
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(10, kernel_initializer="zeros"),
            ]
        )
        threat = mart_tf.ThreatModel(epsilon=0.1)
        model = mart_tf.AdversarialClassifier(network, "mart", threat)
        model.save(place / "whole.keras")
        done = programs.run(
            "evaluate",
            "--model=whole.keras",
            "--dataset=digits",
            "--attacks=fgsm",
            "--max_examples=50",
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
        folder = place / "whole.keras-evaluation"
        content = json.loads((folder / "report.json").read_text())
        # Its own, not that of the data set.
        assert content["threat_model"]["epsilon"] == 0.1
        assert any("chance" in text for text in content["warnings"])
        assert "chance" in done.stdout


def test_a_run_where_one_stands_has_its_folders_name(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "first")
    paths = [".", "../second/"]
    headings = [evaluate._heading(path, paths) for path in paths]
    assert headings == ["first", "second"]


class TestKilled:
    def test_goes_on_where_it_was(self, place):
        """SIGKILL again and again: the report is that of a whole run."""
        arguments = [
            "--attacks=pgd:steps=20,pgd:steps=200,pgd:steps=400,apgd",
            "--batch_size=50",
            "--seed=7",
        ]
        done = programs.run("evaluate", "--output=whole", *arguments, cwd=place)
        assert done.returncode == 0, done.stderr
        assert not (place / "whole" / "partial").exists()
        partial = place / "cut" / "partial"
        cut = ["--output=cut", *arguments]
        for kept in (1, 3):
            with programs.started("evaluate", *cut, cwd=place) as process:
                # Killed as soon as one more piece is there.
                while len(list(partial.glob("*.npz"))) < kept:
                    process.lives()
                    time.sleep(0.01)
                os.kill(process.pid, signal.SIGKILL)
            assert not (place / "cut" / "report.json").exists()
        done = programs.run("evaluate", *cut, cwd=place)
        assert done.returncode == 0, done.stderr
        assert not partial.exists()
        reports = [
            programs.timeless(
                json.loads((place / name / "report.json").read_text("utf-8"))
            )
            for name in ("whole", "cut")
        ]
        # Which examples share a batch hangs on the cores' speed, and the last
        # bits of a gradient may hang on an example's place.
        traces = [report.pop("traces") for report in reports]
        for whole, cut in zip(*traces, strict=True):
            assert whole.pop("losses") == pytest.approx(cut.pop("losses"), 1e-5)
            assert whole == cut
        assert reports[0] == reports[1]

    def test_refuses_to_mix_with_other_settings(self, place):
        folder = place / RUN / "evaluation" / "partial"
        folder.mkdir(parents=True)
        (folder / "identity.json").write_text('{"seed": 3}', "utf-8")
        np.savez(folder / "piece.npz", broken=[True])
        _assert_refused(place, ["--attacks=fgsm"], "an unfinished evaluation")


def _assert_refused(folder, arguments, sentence, tensorflow=True):
    """One sentence, exit status 1, and nothing written."""
    before = sorted(folder.rglob("*"))
    done = programs.run(
        "evaluate", *arguments, cwd=folder, tensorflow=tensorflow
    )
    programs.assert_refused(done, sentence)
    assert done.stderr.startswith("mart-evaluate: ")
    assert sorted(folder.rglob("*")) == before


class TestBadInput:
    @pytest.mark.parametrize(
        ("argument", "sentence"),
        [
            ("--attacks=pdg", "Unknown attack 'pdg'; did you mean 'pgd'?"),
            ("--attacks=autoatack", "did you mean 'autoattack'?"),
            ("--attacks=transfer:pgd", "there is none; expected --surrogate"),
            ("--attacks=transfer", "Unknown attack 'transfer'"),
            ("--epsilon_sweep=0.1,x", "--epsilon_sweep is 'x'; expected a num"),
            ("--epsilon_sweep=0.1,2", "--epsilon_sweep is 2; expected a rad"),
            ("--model=gone.keras", "--model=gone.keras does not exist"),
            ("--surrogate=gone", "--surrogate=gone does not exist"),
            ("--compare=gone", "gone"),
            ("--compare=x*", "--compare=x* matches no report; expected a pat"),
            ("--compare=runs/first", "runs/first/evaluation is not there; ex"),
            ("--workdir=x*", "--workdir=x* matches no run; expected a pattern"),
            ("--compare=gone --seed=1", "--seed says nothing beside"),
            ("--output=runs/first/run.json", "run.json is a file"),
            ("--output=", "--output is empty; expected a path."),
            ("--attacks=cleverhans:pdg", "did you mean 'pgd'?"),
            ("--attacks=pgd:stps=3", "did you mean 'steps'?"),
            ("--attacks=pgd:steps=0", "pgd:steps is 0; expected a whole"),
            (
                "--attacks=autoattack:version=best",
                "value of autoattack:version",
            ),
            ("--attacks=pgd:steps=1.5", "expected a whole number, got '1.5'"),
            ("--epsilon=0", "--epsilon is 0; expected a radius above 0"),
            ("--epsilon=1.5", "--epsilon is 1.5; expected a radius above 0"),
            ("--epsilon=nan", "--epsilon is nan; expected a radius above 0"),
            ("--epsilon=big", "--epsilon is 'big'; expected a number"),
            ("--norm=l2", "--norm=l2"),
            ("--batch_size=0", "--batch_size is 0; expected a whole"),
            ("--max_examples=0", "--max_examples is 0; expected"),
            ("--checkpoint=newest", "did you mean 'best'?"),
            ("--workdir=nowhere", "nowhere holds no run.json"),
            ("--workdir=runs/first,", "has an empty item"),
            ("--dataset=digit", "did you mean 'digits'?"),
            ("--dataset=npz:nothing.npz", "nothing.npz"),
            ("--data_dri=x", "did you mean --data_dir?"),
            ("now", "Unexpected argument 'now'"),
        ],
    )
    def test_is_refused_before_tensorflow(self, trained, argument, sentence):
        _assert_refused(trained, argument.split(" "), sentence, False)

    def test_reports_of_several_runs_lie_in_them(self, place):
        shutil.copytree(place / RUN, place / "runs" / "second")
        (place / "runs" / "second" / "evaluation").write_text("")
        _assert_refused(
            place,
            [f"--workdir={RUN},runs/second", "--output=table"],
            "evaluate runs/second alone, with --output=DIR.",
        )

    def test_there_is_no_run(self, tmp_path):
        _assert_refused(tmp_path, [], "There is no run under runs/")

    def test_a_run_without_a_finished_epoch(self, place):
        shutil.rmtree(place / RUN / "checkpoints")
        _assert_refused(place, [], "has no finished epoch yet")

    def test_damaged_checkpoints(self, place):
        for path in (place / RUN / "checkpoints").rglob("*.data*"):
            path.write_bytes(path.read_bytes()[:-100])
        before = sorted(place.rglob("*"))
        done = programs.run("evaluate", "--attacks=fgsm", cwd=place)
        programs.assert_refused(done, "damaged")
        assert sorted(place.rglob("*")) == before


def test_flags_are_read_without_tensorflow():
    heavy = ["tensorflow", "keras", "matplotlib", "cleverhans", "sklearn"]
    code = f"""
import sys
from mart_tf import evaluate
try:
    evaluate.main(["mart-evaluate", "--help"])
except SystemExit as stop:
    assert stop.code == 0
assert not set({heavy}) & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=programs.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("--workdir", "--attacks", "--max_examples", "--seed"):
        assert f"\n  {name}\n" in done.stdout
    assert "cleverhans:mim" in done.stdout
