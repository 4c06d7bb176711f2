"""The export program, as a user calls it."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mart_tf.serving import verification
from mart_tf.training import workdir

_ROOT = pathlib.Path(__file__).parent.parent


def _call(program, *arguments, folder=None, **environment):
    paths = [environment.pop("PYTHONPATH", None), str(_ROOT)]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run(
        [sys.executable, "-m", f"mart_tf.{program}", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder whose `runs/first` is a run of one epoch on digits."""
    place = tmp_path_factory.mktemp("place")
    done = _call("train", "--epochs=1", "--workdir=runs/first", folder=place)
    assert done.returncode == 0, done.stderr
    return place


def _exported(answer):
    """The version that the program says it wrote."""
    assert answer.returncode == 0, answer.stderr
    [line] = [
        line for line in answer.stdout.splitlines() if line.startswith("Wrote ")
    ]
    return line.removeprefix("Wrote ").split(", the ")[0]


class TestOfARun:
    def test_serves_the_best_weights_of_the_newest_run(self, place):
        answer = _call("export", folder=place)
        path = _exported(answer)
        assert path == str(place / "runs" / "first" / "export" / "1")
        lines = answer.stdout.splitlines()
        assert lines[0] == "Exporting the newest run, runs/first"
        assert lines[2:7] == [
            "Signature serving_default:",
            "  input images: float32 [batch, 8, 8, 1]",
            "  output class_index: int64 [batch]",
            "  output logits: float32 [batch, 10]",
            "  output probabilities: float32 [batch, 10]",
        ]
        assert "C++ runtime" in lines[7]
        directory = str(pathlib.Path(path).parent)
        assert lines[8].endswith(f"--model_base_path={directory}")

        classifier, _, _ = workdir.load_classifier(place / "runs" / "first")
        images = np.random.default_rng(1).random((5, 8, 8, 1), np.float32)
        expected = classifier(tf.constant(images)).numpy()
        [result] = verification.run(path, [images])
        error = np.abs(result["logits"] - expected).max()
        assert error <= 1e-5 * np.abs(expected).max()

    def test_counts_up_where_it_is_told_to_write(self, place, tmp_path):
        (tmp_path / "2").mkdir()
        answer = _call(
            "export",
            f"--workdir={place / 'runs' / 'first'}",
            f"--directory={tmp_path}",
            "--checkpoint=last",
        )
        assert _exported(answer) == str(tmp_path / "3")
        assert "the last weights" in answer.stdout
        assert sorted(os.listdir(tmp_path)) == ["2", "3"]
        assert os.listdir(tmp_path / "2") == []


class TestBadInput:
    """Exit status 1 and one sentence, before TensorFlow is imported."""

    @pytest.fixture
    def refused(self, tmp_path):
        # Any import of TensorFlow would show as another message.
        (tmp_path / "path").mkdir()
        (tmp_path / "path" / "tensorflow.py").write_text("raise SystemExit(9)")
        folder = tmp_path / "folder"
        folder.mkdir()

        def call(*arguments):
            answer = _call(
                "export",
                *arguments,
                folder=folder,
                PYTHONPATH=str(tmp_path / "path"),
            )
            assert answer.returncode == 1, answer
            assert answer.stderr.startswith("mart-export: ")
            assert answer.stderr.count("\n") == 1
            assert os.listdir(folder) == []
            return answer.stderr

        return call

    def test_no_run(self, refused):
        assert "There is no run under runs/" in refused()

    def test_no_such_workdir(self, refused):
        assert "absent holds no run.json" in refused("--workdir=absent")

    def test_a_workdir_that_is_no_run(self, refused, tmp_path):
        assert "holds no run.json" in refused(f"--workdir={tmp_path}")

    def test_the_directory_is_a_file(self, refused, place, tmp_path):
        file = tmp_path / "file"
        file.write_text("mine")
        message = refused(
            f"--workdir={place / 'runs' / 'first'}", f"--directory={file}"
        )
        assert f"{str(file)!r} is not a directory; choose another" in message
        assert file.read_text() == "mine"

    def test_a_url(self, refused, place):
        message = refused(
            f"--workdir={place / 'runs' / 'first'}", "--directory=gs://bucket/x"
        )
        assert "expected a local directory" in message

    def test_an_unknown_checkpoint(self, refused):
        message = refused("--checkpoint=newest")
        assert "should be one of <best|last>" in message

    def test_a_mistyped_flag(self, refused):
        assert "Did you mean: directory" in refused("--directry=x")


def test_help_lists_the_flags(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit(9)")
    answer = _call("export", "--help", PYTHONPATH=str(tmp_path))
    assert answer.returncode == 0
    for flag in ("--workdir", "--directory", "--checkpoint", "--verbosity"):
        assert f"  {flag}\n" in answer.stdout
