"""A classifier in files of other runtimes, and what they withstand."""

import dataclasses
import hashlib

import converted
import keras
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import runtimes
from mart_tf.evaluation import exported
from mart_tf.evaluation import subjects
from mart_tf.serving import card
from mart_tf.serving import endpoints
from mart_tf.serving import formats

converted.need()

from ai_edge_litert import interpreter as litert  # noqa: E402
import onnxruntime  # noqa: E402


@pytest.fixture(scope="module")
def made():
    return converted.digits()


def _predict(made):
    return made.classifier.model.predict(made.images, verbose=0)


def _int8_classes(made):
    """The classes by LiteRT, called here: integers in, integers out."""
    path = str(made.folder / "model_int8.tflite")
    network = litert.Interpreter(model_path=path)
    [given] = network.get_input_details()
    [returned] = network.get_output_details()
    network.resize_tensor_input(given["index"], made.images.shape)
    network.allocate_tensors()
    scale, zero_point = given["quantization"]
    levels = np.round(made.images / np.float32(scale)) + zero_point
    network.set_tensor(given["index"], levels.astype(np.int8))
    network.invoke()
    return network.get_tensor(returned["index"]).argmax(1)


class TestWrite:
    def test_litert_float32_by_its_signature(self, made):
        path = str(made.folder / "model.tflite")
        run = litert.Interpreter(model_path=path).get_signature_runner()
        assert list(run.get_input_details()) == ["images"]
        [scores] = run(images=made.images).values()
        np.testing.assert_allclose(scores, _predict(made), atol=1e-4)

    def test_int8_computes_in_integers_alone(self, made):
        path = str(made.folder / "model_int8.tflite")
        network = litert.Interpreter(
            model_path=path,
            # Nothing is fused or repacked by another backend.
            experimental_op_resolver_type=(
                litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
        )
        [given] = network.get_input_details()
        [returned] = network.get_output_details()
        assert given["dtype"] == returned["dtype"] == np.int8
        # Digits have black and white pixels: a step is one of 255.
        scale, zero = given["quantization"]
        assert (scale, zero) == (pytest.approx(1 / 255, rel=1e-3), -128)
        kinds = {each["dtype"] for each in network.get_tensor_details()}
        assert kinds <= {np.int8, np.int32}
        operations = {each["op_name"] for each in network._get_ops_details()}
        assert not operations & {"QUANTIZE", "DEQUANTIZE"}

    def test_onnx(self, made):
        session = onnxruntime.InferenceSession(
            (made.folder / "model.onnx").read_bytes(),
            providers=["CPUExecutionProvider"],
        )
        [given] = session.get_inputs()
        assert (given.name, given.shape[1:]) == ("images", [8, 8, 1])
        [scores] = session.run(None, {"images": made.images})
        np.testing.assert_allclose(scores, _predict(made), atol=1e-4)

    def test_the_card_knows_each(self, made):
        assert list(made.facts) == list(converted.FILES)
        for name, facts in made.facts.items():
            content = (made.folder / name).read_bytes()
            assert facts["sha256"] == hashlib.sha256(content).hexdigest()
            assert facts["bytes"] == len(content)
        whole, quantized, _ = made.facts.values()
        assert whole["difference"] < 1e-5 < quantized["difference"] < 0.05
        assert whole["same_class"] == 1.0
        same = _int8_classes(made) == _predict(made).argmax(1)
        assert quantized["same_class"] == same.mean()
        assert quantized["calibration_images"] == 100
        assert quantized["bytes"] < whole["bytes"]

    def test_int8_is_the_same_each_time(self, made, tmp_path):
        [_, (path, _)] = formats.write(
            made.classifier,
            tmp_path,
            ["litert"],
            made.images[:20],
            made.calibration,
        )
        again = made.folder / "model_int8.tflite"
        assert path.read_bytes() == again.read_bytes()


def test_undecided_probabilities_in_int8_are_probabilities(tmp_path):
    # Of 100 classes, one at 0.07 and the others near 0.0094, in steps of
    # 1 / 256: the sum of a row is not 1.
    bias = keras.initializers.Constant(np.eye(100, dtype="float32")[3] * 2)
    small = keras.initializers.RandomNormal(0.0, 0.02)
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(100, None, True, small, bias),
    ]
    model = keras.Sequential(
        [keras.Input([8, 8, 1]), *layers, keras.layers.Softmax()]
    )
    names = tuple(map(str, range(100)))
    classifier = endpoints.Classifier(
        model, "probabilities", (8, 8, 1), (0.0, 1.0), names
    )
    images = np.random.default_rng(0).random((8, 8, 8, 1), "float32")
    formats.write(classifier, tmp_path, ["litert"], images, images)
    path = tmp_path / "assets.extra" / "model_int8.tflite"
    network, _ = runtimes.read(path)
    assert network.rounding == pytest.approx(1 / 512)
    assert np.abs(network.answer(images).sum(axis=1) - 1).max() > 0.02
    assert subjects.as_subject(path).outputs == "probabilities"
    assert subjects.as_subject(path, "probabilities", images).classes == 100


class TestRefused:
    def test_int8_of_ranges_that_do_not_fit(self, made, tmp_path):
        blank = np.zeros((10, 8, 8, 1), np.float32)
        with pytest.raises(ValueError) as error:
            formats.write(
                made.classifier, tmp_path, ["litert"], made.images, blank
            )
        assert "model_int8.tflite on LiteRT gives the clas" in str(error.value)
        assert "expected at least 90%, and nothing was" in str(error.value)

    def test_a_file_of_other_weights(self, made, tmp_path, monkeypatch):
        other = keras.models.clone_model(made.classifier.model)
        export = other.export
        # As a converter would that reads the weights of another model.
        monkeypatch.setattr(
            type(made.classifier.model),
            "export",
            lambda _, *arguments, **options: export(*arguments, **options),
        )
        with pytest.raises(ValueError, match="differ from the classifier's"):
            formats.write(
                made.classifier, tmp_path, ["onnx"], made.images, None
            )

    @pytest.mark.parametrize(
        ("name", "file"), [("litert", "model.tflite"), ("onnx", "model.onnx")]
    )
    def test_a_network_that_a_format_cannot_hold(self, name, file, tmp_path):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Lambda(tf.math.lgamma, output_shape=(8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ],
            name="odd",
        )
        images = np.full((4, 8, 8, 1), 0.5, np.float32)
        classifier = converted.as_classifier(model)
        with pytest.raises(ValueError) as error:
            formats.write(classifier, tmp_path, [name], images, images)
        sentence = str(error.value)
        assert f"The model 'odd' cannot be had as {file}, in fl" in sentence
        assert f"leave {name} out of --formats: " in sentence
        assert "\n" not in sentence


class TestTrial:
    @pytest.fixture
    def trial(self, made, monkeypatch):
        monkeypatch.setattr(exported, "SEARCH", "square:queries=20")
        return exported.Trial(
            subjects.as_subject(made.classifier.model),
            made.images[:40],
            made.labels[:40],
            mart_tf.ThreatModel(epsilon=0.1),
        )

    def test_what_withstands_is_the_same_in_float32(self, made, trial):
        whole = trial.accuracies()
        assert list(whole) == ["natural", exported.CARRIED, exported.SEARCH]
        assert max(list(whole.values())[1:]) < whole["natural"]
        assert trial.accuracies(made.folder / "model.onnx") == whole
        # Of int8 an image or two may fall otherwise.
        quantized = trial.accuracies(made.folder / "model_int8.tflite")
        for attack, accuracy in whole.items():
            assert abs(quantized[attack] - accuracy) <= 0.1

    def test_square_is_for_linf_alone(self, made, trial):
        threat = mart_tf.ThreatModel("l2", 1.0)
        trial = dataclasses.replace(trial, threat=threat)
        accuracies = trial.accuracies(made.folder / "model.tflite")
        assert list(accuracies) == ["natural", exported.CARRIED]

    def test_a_saved_model_of_other_weights(self, made, trial, tmp_path):
        other = keras.models.clone_model(made.classifier.model)
        version = mart_tf.export_saved_model(
            other, tmp_path, pixel_range=(0, 1), verify=False
        )
        with pytest.raises(ValueError, match="expected the same, and nothing"):
            trial.attack_both(version)


def test_the_card_shows_both_accuracies(tmp_path):
    facts = {
        "precision": "int8",
        "same_class": 0.995,
        "accuracy": {"natural": 0.975, "square": 0.5},
        "classifier_accuracy": {"natural": 0.98, "square": 0.55},
    }
    text = "\n".join(card._files({"model_int8.tflite": facts}))
    assert "| natural | 97.50% of the classifier's 98.00% |" in text
    assert "| square | 50.00% of the classifier's 55.00% |" in text
    assert "| precision | int8 |" in text
