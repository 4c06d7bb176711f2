"""A run whose own data set is no more what it was trained on."""

import pathlib
import shutil

import numpy as np
from PIL import Image
import programs
import pytest

FLAGS = (
    "--dataset=folder:data",
    "--model=plain:build",
    "--defense=natural",
    "--epsilon=0.1",
    "--epochs=1",
    "--batch_size=8",
    "--workdir=run",
)

NETWORK = """
import keras

def build(input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Flatten(),
        keras.layers.Dense(num_classes),
    ])
"""


def _write(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (4, 4), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture(scope="module", params=["carved", "own"])
def trained(request, tmp_path_factory):
    """A finished run on a folder, its test split carved or its own."""
    place = tmp_path_factory.mktemp(request.param)
    (place / "plain.py").write_text(NETWORK)
    halves = ["."] if request.param == "carved" else ["train", "test"]
    for half in halves:
        for number in range(60):
            name = ("ant", "bee", "cat")[number % 3]
            _write(place / "data" / half / name / f"{number:02}.png", number)
    done = programs.run("train", *FLAGS, cwd=place)
    assert done.returncode == 0, done.stderr
    return request.param, place


@pytest.fixture
def run(trained, tmp_path):
    """A copy to change: what its test split is, and where it lies."""
    kind, place = trained
    return kind, shutil.copytree(place, tmp_path / "copy")


def _add_an_image(data):
    _write(data / "ant" / "00_first.png", 1000)


def _rename_a_class(data):
    (data / "ant").rename(data / "zebra")


def _add_a_class(data):
    _write(data / "dog" / "0.png", 1001)


def _go_on(place):
    flags = [flag for flag in FLAGS if "epochs" not in flag]
    return programs.run("train", *flags, "--epochs=2", cwd=place)


def _evaluate(place, *flags):
    return programs.run(
        "evaluate",
        "--workdir=run",
        "--attacks=fgsm",
        "--allow_code",
        *flags,
        cwd=place,
    )


def _export(place):
    return programs.run("export", "--workdir=run", "--allow_code", cwd=place)


_CHANGES = {
    _add_an_image: "has changed; restore it, or train again in another",
    _rename_a_class: "is not as it was when run was trained: the class 'ant'",
    _add_a_class: "it has 4 classes, and had 3; restore it",
}


def _changed(run, change):
    kind, place = run
    data = place / "data"
    for half in [data] if kind == "carved" else [data / "train", data / "test"]:
        change(half)
    return kind, place, pathlib.Path(place, "run", "run.json").read_bytes()


@pytest.mark.parametrize("change", _CHANGES)
def test_is_not_gone_on_with(run, change):
    _, place, before = _changed(run, change)
    done = _go_on(place)
    programs.assert_refused(done, _CHANGES[change])
    assert (place / "run" / "run.json").read_bytes() == before


def test_an_image_in_the_place_of_another(run):
    kind, place = run
    path = place / "data" / ("." if kind == "carved" else "train") / "ant"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path / "00.png")
    programs.assert_refused(_go_on(place), "its training set has changed;")


@pytest.mark.parametrize("change", _CHANGES)
@pytest.mark.parametrize("program", [_evaluate, _export])
def test_is_neither_evaluated_nor_exported(run, change, program):
    kind, place, _ = _changed(run, change)
    done = program(place)
    if change is _add_an_image and kind == "own":
        # More test images, none of which was trained on.
        assert done.returncode == 0, done.stderr
        return
    programs.assert_refused(done, _CHANGES[change])


def test_is_evaluated_where_it_is_named(run):
    """As any other data set: who names it knows what it is."""
    _, place, _ = _changed(run, _add_an_image)
    done = _evaluate(place, "--dataset=folder:data", "--output=named")
    assert done.returncode == 0, done.stderr
    done = _evaluate(place, "--split=train")
    programs.assert_refused(done, "its training set has changed; restore")


def test_goes_on_where_nothing_has(run):
    _, place = run
    assert _go_on(place).returncode == 0
    assert _evaluate(place).returncode == 0
