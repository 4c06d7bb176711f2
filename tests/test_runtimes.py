"""Files that LiteRT and ONNX Runtime compute, read and attacked."""

import json
import shutil

import converted
import keras
import numpy as np
import programs
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import cli
from mart_tf import evaluate
from mart_tf import runtimes
from mart_tf.evaluation import subjects
from mart_tf.models import declared

converted.need()

from ai_edge_litert import interpreter as litert  # noqa: E402
import onnx  # noqa: E402

_THREAT = mart_tf.ThreatModel(epsilon=0.15)


@pytest.fixture(scope="module")
def made():
    return converted.digits()


def _predict(made, images):
    return made.classifier.model.predict(images, verbose=0)


class TestNetworks:
    @pytest.mark.parametrize("name", ["model.tflite", "model.onnx"])
    def test_answers_as_the_network(self, made, name):
        network, content = runtimes.read(made.folder / name)
        assert (network.input_shape, network.classes) == ((8, 8, 1), 10)
        assert content == (made.folder / name).read_bytes()
        for size in (1, 7, 3):
            images = made.images[:size]
            scores = network.answer(images)
            assert scores.dtype == np.float32
            np.testing.assert_allclose(
                scores, _predict(made, images), atol=1e-4
            )

    def test_integers_stand_for_what_the_file_says(self, made):
        network, _ = runtimes.read(made.folder / "model_int8.tflite")
        scores = network.answer(made.images)
        expected = _predict(made, made.images)
        path = str(made.folder / "model_int8.tflite")
        [returned] = litert.Interpreter(path).get_output_details()
        scale, zero_point = returned["quantization"]
        integers = scores / scale + zero_point
        np.testing.assert_allclose(integers, integers.round(), atol=1e-3)
        assert integers.round().min() >= -128 and integers.round().max() <= 127
        assert np.abs(scores - expected).max() < 0.05 * np.abs(expected).max()

    def test_a_file_of_one_image_at_a_time(self, made, tmp_path):
        path = tmp_path / "one.tflite"
        spec = [tf.TensorSpec((1, 8, 8, 1), tf.float32)]
        made.classifier.model.export(
            path, format="litert", verbose=False, input_signature=spec
        )
        network, _ = runtimes.read(path)
        np.testing.assert_allclose(
            network.answer(made.images[:5]),
            _predict(made, made.images[:5]),
            atol=1e-4,
        )


class TestBadFiles:
    @pytest.mark.parametrize("name", converted.FILES)
    @pytest.mark.parametrize("share", [0.0, 0.5])
    def test_one_that_is_cut_off(self, made, name, share, tmp_path):
        content = (made.folder / name).read_bytes()
        path = tmp_path / name
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="expected a whole file") as error:
            subjects.as_subject(path)
        assert "\n" not in str(error.value)

    def test_a_tflite_file_of_something_else(self, tmp_path):
        @tf.function(input_signature=[tf.TensorSpec((1, 8), tf.float32)] * 2)
        def add(one, other):
            return one + other

        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [add.get_concrete_function()]
        )
        path = tmp_path / "add.tflite"
        path.write_bytes(converter.convert())
        with pytest.raises(ValueError, match="it has 2 inputs and 1 outputs"):
            runtimes.read(path)

    @pytest.mark.parametrize(
        ("kind", "shape", "sentence"),
        [
            (onnx.TensorProto.INT64, ["n", 4], "'x' is a tensor\\(int64\\)"),
            (onnx.TensorProto.FLOAT, [5, 4], r"it maps \[5, 4\] to \[5, 4\]"),
            (onnx.TensorProto.FLOAT, ["n", 4, 4], "it maps .'n', 4, 4. to"),
        ],
    )
    def test_an_onnx_file_of_something_else(
        self, kind, shape, sentence, tmp_path
    ):
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Abs", ["x"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", kind, shape)],
            [onnx.helper.make_tensor_value_info("y", kind, shape)],
        )
        opset = [onnx.helper.make_opsetid("", 18)]
        path = tmp_path / "abs.onnx"
        model = onnx.helper.make_model(
            graph, opset_imports=opset, ir_version=10
        )
        onnx.save(model, path)
        with pytest.raises(ValueError, match=sentence):
            runtimes.read(path)

    def test_images_of_another_shape(self, made):
        with pytest.raises(ValueError, match=r"takes \(8, 8, 1\)"):
            subjects.as_subject(
                made.folder / "model.onnx", images=np.zeros((2, 9, 9, 1))
            )


class TestUnderAttack:
    def test_the_report_says_what_kind_of_model_it_is(self, made):
        report = mart_tf.evaluate_robustness(
            made.folder / "model.tflite",
            (made.images[:20], made.labels[:20]),
            _THREAT,
            ["square:queries=2"],
        )
        assert report.results[1].access == "queries"
        assert "gives no gradients" in report.warnings[-1]

    def test_is_known_by_its_bytes(self, made, tmp_path):
        path = made.folder / "model_int8.tflite"
        subject = subjects.as_subject(path)
        assert (subject.gradients, subject.in_python) == (False, True)
        assert subject.weights()[0].tobytes() == path.read_bytes()

    @pytest.mark.parametrize("attack", ["fgsm", "apgd", "cleverhans:pgd"])
    def test_attacks_that_need_gradients_are_refused(self, made, attack):
        data = made.images[:4], made.labels[:4]
        with pytest.raises(ValueError, match="gives none; expected square or"):
            mart_tf.evaluate_robustness(
                made.folder / "model.tflite", data, _THREAT, [attack]
            )

    def test_a_softmax_is_seen(self, made, tmp_path):
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), made.classifier.model]
        )
        model.add(keras.layers.Softmax())
        spec = [tf.TensorSpec((None, 8, 8, 1), tf.float32)]
        path = tmp_path / "soft.onnx"
        model.export(path, "onnx", verbose=False, input_signature=spec)
        assert subjects.as_subject(path).outputs == "probabilities"


class TestTheProgram:
    @pytest.fixture
    def version(self, made, tmp_path):
        """A version as mart-export leaves it, as far as it is read here."""
        extra = tmp_path / "export" / "1" / "assets.extra"
        shutil.copytree(made.folder, extra)
        card = {
            "model": {"pixel_range": [0.0, 1.0]},
            "training": {"norm": "linf", "epsilon": 0.1},
        }
        (extra / "model_card.json").write_text(json.dumps(card))
        return tmp_path

    def test_takes_the_threat_model_of_the_card_beside_it(
        self, version, monkeypatch
    ):
        monkeypatch.chdir(version)
        path = "export/1/assets.extra/model_int8.tflite"
        arguments = [f"--model={path}", "--dataset=digits"]
        for name in evaluate.FLAGS:
            evaluate.FLAGS[name].unparse()
        cli.parse("mart-evaluate", evaluate.FLAGS, arguments)
        [task] = evaluate.checked()
        assert (task.norm, task.epsilon) == ("linf", 0.1)
        assert task.pixel_range == (0.0, 1.0)
        # A version that is served never changes.
        output = "export/1-model_int8.tflite-evaluation"
        assert str(task.output) == output

    def test_a_card_elsewhere_says_nothing(self, version, tmp_path):
        path = version / "export" / "1" / "assets.extra" / "model.onnx"
        assert declared.read(path).epsilon == 0.1
        shutil.copy(path, tmp_path)
        assert declared.read(tmp_path / "model.onnx") is None

    @pytest.mark.parametrize(
        ("name", "package", "extra"),
        [
            ("model.tflite", "ai_edge_litert", "litert"),
            ("model.onnx", "onnxruntime", "onnx"),
        ],
    )
    def test_a_runtime_that_is_not_there(self, version, name, package, extra):
        path = f"export/1/assets.extra/{name}"
        done = programs.run(
            "evaluate",
            f"--model={path}",
            "--dataset=digits",
            cwd=version,
            tensorflow=False,
            setup=f"import sys; sys.modules['{package}'] = None",
        )
        programs.assert_refused(
            done,
            f"the package {package} is not installed; expected it: pip "
            f"install 'mart-tf[{extra}]'.",
        )
