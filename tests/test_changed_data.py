"""A run whose own data set is no more what it was trained on."""

import dataclasses
import functools
import json
import shutil

import numpy as np
from PIL import Image
import programs
import pytest
import small_runs

from mart_tf import data
from mart_tf.data import parts
from mart_tf.data import sources
from mart_tf.runs import trained as trained_network

FLAGS = (
    "--dataset=folder:data",
    "--model=digits_cnn",
    "--defense=natural",
    "--epsilon=0.1",
    "--epochs=1",
    "--batch_size=8",
    "--workdir=run",
)


def _write(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Makes a finished run on a folder, its test split carved or its own."""

    @functools.cache
    def train(kind):
        place = tmp_path_factory.mktemp(kind)
        for half in ["."] if kind == "carved" else ["train", "test"]:
            for number in range(60):
                name = ("ant", "bee", "cat")[number % 3]
                path = place / "data" / half / name / f"{number:02}.png"
                _write(path, number)
        done = programs.run("train", *FLAGS, cwd=place)
        assert done.returncode == 0, done.stderr
        return place

    return train


@pytest.fixture
def place(request, trained, tmp_path):
    """A copy to change of a run whose test split is carved, or is its own."""
    kind = getattr(request, "param", "carved")
    return shutil.copytree(trained(kind), tmp_path / "copy")


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
        *flags,
        cwd=place,
    )


def _export(place):
    return programs.run("export", "--workdir=run", cwd=place)


_CHANGES = {
    _add_an_image: "set that its training images are of has changed (from ",
    _rename_a_class: "is not as it was when run was trained: the class 'ant'",
    _add_a_class: "it has 4 classes, and had 3; restore it",
}


_OWN = pytest.mark.parametrize("place", ["own"], indirect=True)


@pytest.mark.parametrize("change", _CHANGES)
def test_is_not_gone_on_with(place, change):
    before = (place / "run" / "run.json").read_bytes()
    change(place / "data")
    programs.assert_refused(_go_on(place), _CHANGES[change])
    assert (place / "run" / "run.json").read_bytes() == before


def test_an_image_in_the_place_of_another(place):
    black = Image.fromarray(np.zeros((8, 8), np.uint8))
    black.save(place / "data" / "ant" / "00.png")
    programs.assert_refused(_go_on(place), _CHANGES[_add_an_image])


@pytest.mark.parametrize("change", _CHANGES)
@pytest.mark.parametrize("program", [_evaluate, _export])
def test_is_neither_evaluated_nor_exported(place, change, program):
    change(place / "data")
    programs.assert_refused(program(place), _CHANGES[change])


@_OWN
def test_a_test_set_of_its_own_may_change(place):
    """And train too: no image of it comes into the test set."""
    _add_an_image(place / "data" / "train")
    _add_an_image(place / "data" / "test")
    for program in (_evaluate, _export):
        done = program(place)
        assert done.returncode == 0, done.stderr
    done = _evaluate(place, "--split=train")
    programs.assert_refused(
        done, "another workdir, or name a copy of it with --dataset."
    )
    programs.assert_refused(_go_on(place), _CHANGES[_add_an_image])


def test_is_evaluated_as_a_copy(place):
    """As any other data set: who names it knows what it is."""
    _add_an_image(place / "data")
    # Its own name alone says no more than the run does.
    done = _evaluate(place, "--dataset=folder:./data/:mode=streaming")
    programs.assert_refused(done, _CHANGES[_add_an_image])
    shutil.copytree(place / "data", place / "copy")
    done = _evaluate(place, "--dataset=folder:copy", "--output=named")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "ant",
            "zant",
            "0 of folder:copy is 'bee', and of run 'ant'; expected",
        ),
        ("cat", "cow", "2 of folder:copy is 'cow', and of run 'cat'; expected"),
    ],
)
def test_another_set_has_the_classes_of_the_run(place, old, new, sentence):
    shutil.copytree(place / "data", place / "copy")
    (place / "copy" / old).rename(place / "copy" / new)
    done = _evaluate(place, "--dataset=folder:copy")
    programs.assert_refused(done, sentence)
    assert not (place / "run" / "evaluation").exists()


@pytest.mark.parametrize(
    ("own", "given", "fits"),
    [
        ("abc", "abc", True),
        ("abc", "acb", False),
        ("abc", "abd", False),
        # Numbers say nothing, unless both have them.
        ("abc", "012", True),
        ("012", "abc", True),
        ("012", "021", False),
        (None, "abc", True),
        # The network's number is known later.
        ("abc", "ab", True),
    ],
)
def test_names_of_classes(own, given, fits):
    dataset = dataclasses.replace(data.load("digits"), class_names=tuple(given))
    task = trained_network.of_model("m.keras", None, (0, 1), "o")
    task = dataclasses.replace(task, class_names=own and list(own))
    if fits:
        task.check_classes(dataset)
        return
    with pytest.raises(ValueError, match="expected the same classes in the sa"):
        task.check_classes(dataset)


@pytest.mark.parametrize(
    ("said", "names"),
    [({"class_names": ["a", "b"]}, ["a", "b"]), ({}, None)],
)
def test_an_exported_version_tells_its_classes(tmp_path, said, names):
    model = {"pixel_range": [0, 1]} | said
    card = json.dumps({"model": model, "training": None})
    (tmp_path / "model_card.json").write_text(card)
    file = tmp_path / "model.onnx"
    task = trained_network.of_model(file, "digits", (0, 1), "o")
    assert task.class_names == names


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("digits", "digits", True),
        ("mnist:first=0", "mnist:mode=memory", True),
        ("mnist:count=1000", "mnist", False),
        ("mnist", "digits", False),
        ("folder:data", "folder:./x/../data/", True),
        ("folder:data", "folder:data:size=8", False),
        ("folder:data", "npz:data", False),
        ("test_changed_data:own:count=3", "test_changed_data:own", True),
        ("test_changed_data:own:count=4", "test_changed_data:own", False),
    ],
)
def test_specs_of_the_same_rows(one, other, same):
    assert sources.is_same(one, other) == same


def own(count: int = 3):
    """A data set by name, which is never made."""


def test_the_validation_split_is_that_of_the_run(tmp_path, monkeypatch):
    """Also where the data set is named, not a tenth of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small_network.py").write_text(small_runs.NETWORK)
    small_runs.trained("run", validation_images=40)
    flags = ("--split=validation", "--dataset=digits", "--allow_code")
    done = programs.run(
        "evaluate", "--workdir=run", "--attacks=fgsm", *flags, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    file = tmp_path / "run" / "evaluation-validation" / "report.json"
    assert json.loads(file.read_text("utf-8"))["natural"]["examples"] == 40


def test_is_exported_unattacked(place):
    _add_an_image(place / "data")
    programs.assert_refused(
        _export(place), "or give --attack_examples=0, which attacks no version"
    )
    done = programs.run(
        "export", "--workdir=run", "--attack_examples=0", cwd=place
    )
    assert done.returncode == 0, done.stderr


def test_an_npz_file_is_known_by_what_is_trained_on(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (9, 4, 4), np.uint8),
        "y_train": np.arange(9) % 3,
        "x_test": generator.integers(0, 256, (3, 4, 4), np.uint8),
        "y_test": np.arange(3),
    }

    def fingerprint(save=np.savez, **changes):
        save(tmp_path / "data.npz", **(arrays | changes))
        return data.load(f"npz:{tmp_path}/data.npz").fingerprint

    before = fingerprint()
    assert fingerprint(np.savez_compressed) == before
    # A label of the test set is mended, or images are added to it.
    assert fingerprint(y_test=np.array([0, 2, 2])) == before
    assert fingerprint(y_train=arrays["y_train"][::-1]) != before
    assert fingerprint(x_train=255 - arrays["x_train"]) != before


def test_a_validation_split_of_tfds_own_is_not_trained_on():
    digits = data.load("digits")
    own = dataclasses.replace(
        digits, others=lambda name: {"validation": digits.test}.get(name)
    )
    named = {name: parts.parse(name) for name in ("train", "validation")}
    assert parts.is_trained_on(digits, named["validation"])
    assert not parts.is_trained_on(own, named["validation"])
    assert parts.is_trained_on(own, named["train"])
    # Of the data that a run held images out of, it is these.
    for part in named.values():
        assert parts.is_trained_on(own, part, held_out=True)
    validation = named["validation"]
    assert parts.select(own, validation) is digits.test
    assert parts.select(own, validation, held_out=True) is digits.validation


@pytest.mark.parametrize("given", [5, b"1"])
def test_a_fingerprint_is_a_text(given):
    half = data.memory_split(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3))
    with pytest.raises(ValueError, match="expected a text, or None"):
        data.Source(
            class_names=("a", "b", "c"),
            train=half,
            test=None,
            fingerprint=given,
        )


def test_goes_on_where_nothing_has_changed(place):
    assert _go_on(place).returncode == 0
    assert _evaluate(place).returncode == 0
