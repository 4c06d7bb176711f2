"""Damaged files of a workdir: a short form of the benchmark of that name."""

import importlib.util
import pathlib
import random
import shutil

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_DAMAGES = 60


@pytest.fixture(scope="module")
def benchmark():
    file = _ROOT / "benchmarks" / "damaged_workdirs.py"
    spec = importlib.util.spec_from_file_location("damaged_workdirs", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_is_resumed_soundly_or_refused(benchmark, tmp_path):
    asked = benchmark.Asked(tmp_path / "whole")
    # Sound as it is, and a fault is seen where there is one.
    assert not list(asked.faults(tmp_path / "whole"))
    newest = asked.answers.copy()
    assert newest["resumes: epoch 3, step 2"] == 1
    draw = random.Random(5)
    for _ in range(_DAMAGES):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        what = benchmark.damage(copy, draw)
        assert not list(asked.faults(copy)), what
        shutil.rmtree(copy)
    # Both of these happened: it was resumed, and it was refused.
    assert asked.answers["resumes: epoch 3, step 2"] > _DAMAGES / 4
    assert asked.answers["resumes: epoch 3, step 0"]
    assert asked.answers["resumes: refused"]


def test_weights_of_another_epoch_would_be_seen(benchmark, tmp_path):
    asked = benchmark.Asked(tmp_path / "whole")
    folder = tmp_path / "whole" / "checkpoints"
    shutil.rmtree(folder / "within")
    (folder / "newest.json").unlink()
    for file in folder.glob("ckpt-3.*"):
        file.unlink()
    assert "silently goes on from (2, 0)" in "".join(
        asked.faults(tmp_path / "whole")
    )
