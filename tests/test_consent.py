"""Code that a run names is run where that is allowed, and not before."""

import dataclasses
import pathlib

import numpy as np
import programs
import pytest
import test_record

from mart_tf.runs import config as run_config
from mart_tf.runs import consent
from mart_tf.runs import record


def run_of(**changed):
    """The record of a run in `run`."""
    settings = {"model": "small_cnn", "dataset": "mnist:count=10"} | changed
    config = run_config.Config(workdir="run", **settings)
    pathlib.Path("run").mkdir(exist_ok=True)
    record.write(config, test_record.FACTS)
    return record.read("run")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"model": "wide_resnet:depth=10:width=1"},
        {"model": "some/model.keras"},
        {"model": "c:/some/model.keras"},
        {"dataset": "folder:/data/flowers"},
        {"dataset": "npz:here.npz"},
    ],
)
def test_what_is_the_package_s_own_needs_no_consent(changed):
    consent.check(run_of(**changed), allowed=False)


@pytest.mark.parametrize(
    "changed", [{"model": "mine:network:width=3"}, {"dataset": "mine:stripes"}]
)
def test_other_code_does(changed):
    [(setting, text)] = changed.items()
    with pytest.raises(ValueError, match="give --allow_code") as caught:
        consent.check(run_of(**changed), allowed=False)
    assert f"--{setting}={text}" in str(caught.value)
    consent.check(run_of(**changed), allowed=True)
    # The command line names it.
    consent.check(run_of(**changed), allowed=False, given=[setting])


NETWORK = """
import pathlib
pathlib.Path("it_ran").touch()
import keras

def build(input_shape, num_classes):
    layers = [keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    return keras.Sequential([keras.Input(input_shape), *layers])
"""


def test_nothing_is_imported_to_compare_or_to_refuse(tmp_path):
    (tmp_path / "mine.py").write_text(f"{NETWORK}\nother = lambda *_: build\n")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/ckpt-1.index").touch()
    for changed, program, given, sentence in [
        # A lambda tells its options when its module is imported.
        (
            {"model": "mine:other"},
            "train",
            ["--dataset=digits"],
            "holds a run with other settings (--model was mine:other, now ",
        ),
        (
            {"augment": "crop,mine:other", "dataset": "digits"},
            "train",
            [],
            "holds a run with other settings (--augment was crop,mine:other,",
        ),
        (
            {},
            "evaluate",
            ["--model=run", "--dataset=digits"],
            "--model=run is the workdir of a run; expected --workdir=run",
        ),
    ]:
        run_of(**changed)
        if program != "evaluate":
            given = ["--workdir=run", *given]
        done = programs.run(program, *given, cwd=tmp_path)
        programs.assert_refused(done, sentence)
        assert not pathlib.Path(tmp_path, "it_ran").exists(), program


def test_the_programs_ask(tmp_path):
    (tmp_path / "mine.py").write_text(NETWORK)
    flags = ["--attack_steps=1", "--epochs=1", "--steps_per_epoch=1"]
    flags += ["--epsilon_warmup_epochs=0"]
    done = programs.run(
        "train", *flags, "--model=mine:build", "--workdir=run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    ran = pathlib.Path(tmp_path, "it_ran")
    ran.unlink()
    transferred = ["--attacks=transfer:fgsm"]
    for program, *given in [
        ("evaluate", "--workdir=run", "--attacks=fgsm", "--max_examples=20"),
        ("export", "--workdir=run"),
        ("evaluate", "--workdir=other", "--surrogate=run", *transferred),
        ("label", "--workdir=run", "--subsets=chosen"),
        ("train", "--init_from=run", "--workdir=other", *flags),
    ]:
        done = programs.run(program, *given, cwd=tmp_path)
        programs.assert_refused(done, "run was trained with code of its own")
        assert not ran.exists(), program
    # The same network is asked for anyway.
    done = programs.run(
        "train",
        "--init_from=run",
        "--model=mine:build",
        "--workdir=other",
        *flags,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    done = programs.run(
        "evaluate",
        "--workdir=run",
        "--attacks=fgsm",
        "--max_examples=20",
        "--allow_code",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert ran.exists()
    ran.unlink()
    # A pool is compared with the run's own images.
    np.savez(tmp_path / "pool.npz", image=np.zeros([9, 8, 8], np.uint8))
    own = {"dataset": "mine:build", "model": "digits_cnn"}
    config = dataclasses.replace(record.read("run").config, **own)
    record.write(config, test_record.FACTS)
    pool = ["--pool=npz:pool.npz", "--output=labeled.npz"]
    done = programs.run("label", "--workdir=run", *pool, cwd=tmp_path)
    programs.assert_refused(done, "code of its own, --dataset=mine:build")
    assert not ran.exists()
