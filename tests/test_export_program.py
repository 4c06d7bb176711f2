"""The export program, as a user calls it."""

import json
import os
import pathlib
import shutil

import converted
import keras
import numpy as np
from PIL import Image
import programs
import pytest
import tensorflow as tf

from mart_tf.models import declared
from mart_tf.runs import workdir
from mart_tf.serving import verification

_SQUARE = "square:queries=1000"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder whose `runs/first` is a run of one epoch on digits."""
    place = tmp_path_factory.mktemp("place")
    done = programs.run(
        "train", "--epochs=1", "--workdir=runs/first", cwd=place
    )
    assert done.returncode == 0, done.stderr
    return place


def _exported(answer):
    """The version that the program says it wrote."""
    assert answer.returncode == 0, answer.stderr
    [line] = [
        line for line in answer.stdout.splitlines() if line.startswith("Wrote ")
    ]
    return line.removeprefix("Wrote ").split(", ")[0]


class TestOfARun:
    def test_serves_the_best_weights_of_the_newest_run(self, place):
        answer = programs.run("export", cwd=place)
        path = _exported(answer)
        assert path == str(place / "runs" / "first" / "export" / "1")
        lines = answer.stdout.splitlines()
        assert lines[0] == "Exporting the newest run, runs/first"
        assert lines[1] == (
            "Threat model: linf, epsilon 0.15, pixels from 0 to 1"
        )
        assert lines[2:7] == [
            "Signature serving_default:",
            "  input images: float32 [batch, 8, 8, 1]",
            "  output class_index: int64 [batch]",
            "  output class_name: string [batch]",
            "  output logits: float32 [batch, 10]",
        ]
        assert "C++ runtime" in lines[-5]
        assert "its 3 warm-up requests too" in lines[-5]
        assert "with PGD-20 on 200 test images" in lines[-4]
        directory = str(pathlib.Path(path).parent)
        assert lines[-2].endswith(f"--model_base_path={directory}")
        assert lines[-1].startswith("Wrote ")
        assert answer.stderr == ""

        classifier, _, _ = workdir.load_classifier(place / "runs" / "first")
        images = np.random.default_rng(1).random((5, 8, 8, 1), np.float32)
        expected = classifier(tf.constant(images)).numpy()
        [result] = verification.run(path, [("serving_default", images)])
        error = np.abs(result["logits"] - expected).max()
        assert error <= 1e-5 * np.abs(expected).max()

    def test_counts_up_where_it_is_told_to_write(self, place, tmp_path):
        (tmp_path / "2").mkdir()
        answer = programs.run(
            "export",
            f"--workdir={place / 'runs' / 'first'}",
            f"--directory={tmp_path}",
            "--checkpoint=last",
        )
        assert _exported(answer) == str(tmp_path / "3")
        assert "the last weights" in answer.stdout
        assert sorted(os.listdir(tmp_path)) == ["2", "3"]
        assert os.listdir(tmp_path / "2") == []


class TestModelCard:
    def test_of_a_run_that_was_not_evaluated(self, place, tmp_path):
        workdir = f"--workdir={place / 'runs' / 'first'}"
        answer = programs.run(
            "export",
            workdir,
            f"--directory={tmp_path}",
            "--attack_examples=0",
            "--warmup_batch_sizes=",
            "--signatures=serving_default",
            "--class_names=a,b,c,d,e,f,g,h,i,j",
        )
        extra = pathlib.Path(_exported(answer), "assets.extra")
        assert "Not attacked: --attack_examples is 0." in answer.stdout
        assert sorted(os.listdir(extra)) == ["model_card.json", "model_card.md"]
        card = json.loads((extra / "model_card.json").read_text())
        assert card["evaluation"] is None
        assert list(card["signatures"]) == ["serving_default"]
        assert card["model"]["class_names"] == list("abcdefghij")
        assert card["warmup_batch_sizes"] == []
        assert card["verification"]["attack"] == (
            "none: --attack_examples is 0."
        )
        assert (
            "Robustness is not known" in (extra / "model_card.md").read_text()
        )

    def test_holds_the_report_of_these_very_weights(self, place, tmp_path):
        run = shutil.copytree(place / "runs" / "first", tmp_path / "run")
        done = programs.run(
            "evaluate",
            f"--workdir={run}",
            "--attacks=fgsm",
            "--max_examples=50",
        )
        assert done.returncode == 0, done.stderr
        report_file = run / "evaluation" / "report.json"
        report = json.loads(report_file.read_text())

        def card():
            path = _exported(programs.run("export", f"--workdir={run}"))
            file = pathlib.Path(path, "assets.extra", "model_card.json")
            return json.loads(file.read_text())

        made = card()
        assert made["evaluation"]["accuracy"] == {
            "natural": report["natural"]["accuracy"],
            "fgsm": report["attacks"][0]["accuracy"],
            "worst_case": report["worst_case"]["accuracy"],
        }
        assert made["evaluation"]["examples"] == 50
        assert made["training"]["defense"].startswith("mart:regularization=5:")
        assert made["training"]["attack_step_size"] == 0.0375
        assert made["training"]["epoch"] == 1
        assert made["verification"]["attacked_examples"] == 200
        assert made["verification"]["attacked_sample"] == "stratified"
        assert (
            made["verification"]["served_accuracy"]
            == made["verification"]["trained_accuracy"]
        )
        # That of another model is none of this one's.
        report["model"]["weights"] = "0" * 64
        report_file.write_text(json.dumps(report))
        assert card()["evaluation"] is None


class TestFormats:
    def test_files_of_other_runtimes_lie_in_the_version(self, place, tmp_path):
        converted.need()
        answer = programs.run(
            "export",
            f"--workdir={place / 'runs' / 'first'}",
            f"--directory={tmp_path}",
            "--formats=saved_model,onnx",
            "--attack_examples=4",
            "--signatures=serving_default",
            "--warmup_batch_sizes=",
        )
        version = _exported(answer)
        assert answer.stderr == ""
        assert "Beside it assets.extra/model.onnx, run by ONNX Runtime" in (
            answer.stdout
        )
        extra = pathlib.Path(version, "assets.extra")
        card = json.loads((extra / "model_card.json").read_text())
        [(name, facts)] = card["files"].items()
        assert name == "model.onnx"
        assert facts["bytes"] == (extra / name).stat().st_size
        assert facts["images"] == 4
        assert facts["accuracy"] == facts["classifier_accuracy"]
        assert list(facts["accuracy"]) == [
            "natural",
            "transfer:pgd:steps=20",
            _SQUARE,
        ]
        assert "## Files of other" in (extra / "model_card.md").read_text()
        # What a server reads is as it was.
        assert sorted(os.listdir(version)) == [
            "assets",
            "assets.extra",
            "fingerprint.pb",
            "saved_model.pb",
            "variables",
        ]
        shown = f"  {_SQUARE}: {facts['accuracy'][_SQUARE]:.2%}, of"
        assert shown in answer.stdout


_PIXELS = ("--pixel_min=0", "--pixel_max=1")


def _save_linear(path, shape, classes, zeros=False):
    kernel = "zeros" if zeros else "glorot_uniform"
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(classes, kernel_initializer=kernel),
    ]
    keras.Sequential([keras.Input(shape), *layers]).save(path)


def _export_file(name, *flags, cwd):
    return programs.run("export", f"--model={name}", *_PIXELS, *flags, cwd=cwd)


@pytest.fixture
def export_two(tmp_path):
    """Exports a network of two classes, on images of ants and bees."""
    images = np.zeros([4, 4, 4], np.uint8)
    for half in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / "data" / half / name
            folder.mkdir(parents=True)
            for number, image in enumerate(images):
                Image.fromarray(image).save(folder / f"{number}.png")
    _save_linear(tmp_path / "two.keras", (4, 4, 1), 2)

    def export(*flags):
        answer = _export_file(
            "two.keras",
            "--dataset=folder:data",
            "--attack_examples=0",
            "--warmup_batch_sizes=",
            *flags,
            cwd=tmp_path,
        )
        return pathlib.Path(tmp_path, _exported(answer))

    return export


def test_a_version_that_is_not_attacked_names_its_classes(export_two):
    file = export_two() / "assets.extra" / "model_card.json"
    card = json.loads(file.read_text())
    assert card["model"]["class_names"] == ["ant", "bee"]
    assert card["verification"]["attack"] == "none: --attack_examples is 0."


def test_a_version_with_other_names_is_evaluated_on_its_data(
    export_two, tmp_path
):
    version = export_two("--class_names=Ameise,Biene")
    answer = programs.run(
        "evaluate",
        f"--model={version}",
        "--dataset=folder:data",
        "--epsilon=0.1",
        "--attacks=fgsm",
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr


def test_a_model_that_does_not_fit_its_images_is_told(tmp_path):
    # A network that knows nothing: its first class for every image.
    _save_linear(tmp_path / "blank.keras", (8, 8, 1), 10, zeros=True)
    names = ",".join("abcdefghij")
    answer = _export_file(
        "blank.keras",
        "--dataset=digits",
        f"--class_names={names}",
        "--warmup_batch_sizes=",
        cwd=tmp_path,
    )
    version = pathlib.Path(tmp_path, _exported(answer))
    assert "is this the right model, in the right pixel range" in answer.stdout
    text = (version / "assets.extra/model_card.json").read_text()
    card = json.loads(text)
    tried = card["verification"]
    assert 0 < tried["natural_accuracy"] < 0.2
    assert f"natural accuracy {tried['natural_accuracy']:.2%}." in answer.stdout
    assert [tried["norm"], tried["attacked_dataset"]] == ["linf", "digits"]
    # Served names are others than the data's, by which it is known again.
    assert card["model"]["class_names"] == list("abcdefghij")
    assert declared.read(version).class_names == list("0123456789")


class TestBadInput:
    """Exit status 1 and one sentence, before TensorFlow is imported."""

    @pytest.fixture
    def refused(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()

        def call(*arguments, **options):
            answer = programs.run(
                "export", *arguments, cwd=folder, tensorflow=False, **options
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

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("--signatures=image_byte", "did you mean 'image_bytes'"),
            ("--warmup_batch_sizes=1,0", "is 0; expected a whole number"),
            ("--class_names=a,b", "holds 2 names, and the run has 10 classes"),
            ("--formats=saved_model,litrt", "did you mean 'litert'"),
            ("--formats=", "lacks saved_model, the version that files of"),
            ("--formats=onnx", "--formats=onnx lacks saved_model, the versi"),
        ],
    )
    def test_what_does_not_fit(self, refused, place, argument, message):
        workdir = f"--workdir={place / 'runs' / 'first'}"
        assert message in refused(workdir, argument)

    def test_a_format_without_images(self, refused, place):
        converted.need()
        message = refused(
            f"--workdir={place / 'runs' / 'first'}",
            "--formats=saved_model,litert",
            "--attack_examples=0",
        )
        assert (
            "--formats=saved_model,litert needs test images, which litert is "
            "compared and attacked on: --attack_examples is 0."
        ) in message

    @pytest.mark.parametrize(
        ("name", "package"),
        [
            ("litert", "ai_edge_litert"),
            ("onnx", "onnxruntime"),
            ("onnx", "tf2onnx"),
        ],
    )
    def test_a_format_without_its_package(self, refused, place, name, package):
        message = refused(
            f"--workdir={place / 'runs' / 'first'}",
            f"--formats=saved_model,{name}",
            setup=f"import sys; sys.modules['{package}'] = None",
        )
        expected = f"expected it: pip install 'mart-tf[{name}]'."
        assert f"the package {package} is not installed; {expected}" in message

    def test_an_unknown_checkpoint(self, refused):
        message = refused("--checkpoint=newest")
        assert "expected one of: best, best_raw, last, last_raw" in message

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--dataset=digits"], "--dataset=digits has 10"),
            (
                ["--dataset=digits", "--attack_examples=0"],
                "--dataset=digits has 10",
            ),
            (["--class_names=a,b"], "--class_names has 2"),
        ],
    )
    def test_other_classes(self, tmp_path, flags, said):
        _save_linear(tmp_path / "seven.keras", (8, 8, 1), 7)
        answer = _export_file("seven.keras", *flags, cwd=tmp_path)
        programs.assert_refused(
            answer,
            f"{said} classes, and the model 7; expected the data set that it "
            "was trained on, or --class_names with a name for each class.",
        )
        assert os.listdir(tmp_path) == ["seven.keras"]

    def test_a_data_set_that_is_not_there(self, refused, tmp_path):
        file = tmp_path / "two.keras"
        file.write_text("not looked at yet")
        message = refused(
            f"--model={file}",
            "--dataset=digit",
            "--attack_examples=0",
            *_PIXELS,
        )
        assert "did you mean 'digits'?" in message

    def test_a_mistyped_flag(self, refused):
        assert "did you mean --directory?" in refused("--directry=x")


def test_help_lists_the_flags(tmp_path):
    answer = programs.run("export", "--help", cwd=tmp_path, tensorflow=False)
    assert answer.returncode == 0
    for flag in ("--workdir", "--directory", "--checkpoint", "--verbosity"):
        assert f"  {flag}\n" in answer.stdout
