"""benchmarks/gpu.py --tiny: all of its parts, on a CPU."""

import json
import pathlib

import numpy as np
import programs
import pytest

_PROGRAM = pathlib.Path(__file__).parents[1] / "benchmarks" / "gpu.py"

# Of digits_cnn and one image: 3x3 convolutions on 8x8 pixels, on 4x4, and the
# dense layers of the 2x2 that are left; a product and a sum each.
_FLOP = 2 * (
    64 * 9 * (1 * 32 + 32 * 32)
    + 16 * 9 * (32 * 64 + 64 * 64)
    + (4 * 64 * 128 + 128 * 10)
)
# Forward, and backward to images, to activations or to weights: MART attacks
# with 10 steps and trains on two batches. PGD-20 looks before and after too.
_PASSES = {
    "train_step": 10 * 2 + 2 * 3,
    "fit": 10 * 2 + 2 * 3,
    "evaluation": 20 * 2 + 2,
}


def _run(folder, *arguments):
    """Its jobs, and the programs of these, are forked from it one by one."""
    arguments = ("--tiny", "--parallel=1", *arguments)
    return programs.run(_PROGRAM, *arguments, cwd=folder, setup="import forked")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder far from the checkout, and what the first call said there."""
    folder = tmp_path_factory.mktemp("gpu")
    return folder, _run(folder, "--limit=900")


def _results(folder):
    text = (folder / "gpu.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_part_runs_to_its_end(first):
    folder, done = first
    assert done.returncode == 0, done.stdout + done.stderr
    rows = _results(folder)
    kinds = [row["job"]["kind"] for row in rows]
    expected = ["step", "programs", "compare", "train_step", "fit"]
    expected += ["evaluation", "training", "robustness"]
    # Without torch_step, which only runs where PyTorch is installed.
    assert {*kinds} - {"torch_step"} == {*expected}
    by_kind = {row["job"]["kind"]: row["result"] for row in rows}
    compared = by_kind["compare"]
    assert compared["ok"] and compared["apart"] <= 1e-4 < compared["moved"]
    assert by_kind["programs"]["ok"]
    for kind, passes in _PASSES.items():
        rate = by_kind[kind]
        flop = rate["images_per_second"] * passes * _FLOP
        assert rate["tflops"] == pytest.approx(flop / 1e12) and flop > 0
        share = rate["tflops"] / rate["peak_tflops"]
        assert rate["peak_share"] == pytest.approx(share)
        assert f"peak_share {rate['peak_share']:,.4g}" in done.stdout
    assert {*by_kind["robustness"]} == {"natural", "pgd:steps=3"}


def test_a_second_call_measures_nothing_again(first):
    folder, done = first
    before = (folder / "gpu.jsonl").read_text("utf-8")
    again = _run(folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (folder / "gpu.jsonl").read_text("utf-8") == before
    # Its table is the same.
    rows = [
        sorted(line for line in said.splitlines() if " took " not in line)
        for said in (done.stdout, again.stdout)
    ]
    assert rows[0] == rows[1]


def test_what_fails_or_is_not_right_ends_with_status_1(first, tmp_path):
    folder, _ = first
    failed = _run(tmp_path, "--parts=train", "--rate=1", "--train=absent.cfg")
    assert failed.returncode == 1
    rows = _results(folder)
    for row in rows:
        if row["job"]["kind"] == "compare":
            row["result"] |= {"apart": 2e-4, "ok": False}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "gpu.jsonl").write_text(text)
    apart = _run(tmp_path, "--parts=right")
    assert apart.returncode == 1
    assert "apart 0.0002" in apart.stdout
    # A step that leaves no weights: the folder is another.
    kept = [row for row in rows if row["job"]["kind"] != "compare"]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    (tmp_path / "gpu.jsonl").write_text(text)
    missing = _run(tmp_path, "--parts=right")
    assert missing.returncode == 1 and "failed: no weights" in missing.stdout


def test_weights_further_apart_than_a_10000th_are_not_right(
    first, tmp_path, monkeypatch
):
    """What the first call's step left, one weight of it moved."""
    monkeypatch.syspath_prepend(str(_PROGRAM.parent))
    import gpu_jobs

    folder, _ = first
    for name in ("cpu", "two"):
        place = gpu_jobs.weights_file(folder / "runs/gpu", name, "digits_cnn")
        arrays = dict(np.load(place))
        if name == "two":
            arrays["mart/after/0"].flat[0] += 1e-3
        (tmp_path / "runs/gpu").mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / "runs/gpu" / place.name, **arrays)
    kept = [row for row in _results(folder) if row["job"]["kind"] != "compare"]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    (tmp_path / "gpu.jsonl").write_text(text)
    done = _run(tmp_path, "--parts=right")
    assert done.returncode == 1
    assert not _results(tmp_path)[-1]["result"]["ok"]
