"""What can be attacked, from a Keras model to a function that only answers."""

import gc
import pathlib

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

import mart_tf
from mart_tf import attacks
from mart_tf.evaluation import engine
from mart_tf.evaluation import subjects

_CLASSES = 10


@pytest.fixture(scope="module")
def images():
    digits = sklearn.datasets.load_digits().images.astype("float32") / 16.0
    return digits[:32, :, :, None]


@pytest.fixture(scope="module")
def labels():
    return sklearn.datasets.load_digits().target[:32].astype("int32")


@pytest.fixture(scope="module")
def model(images, labels):
    """A small trained network that behaves otherwise in training."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(_CLASSES),
        ],
        name="digits",
    )
    network.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    network.fit(images, labels, epochs=5, verbose=0)
    return network


@pytest.fixture(scope="module")
def versions(model, tmp_path_factory):
    """A directory with the version 1 of the trained network."""
    directory = tmp_path_factory.mktemp("export")
    mart_tf.export_saved_model(
        model, directory, pixel_range=(0, 1), verify=False
    )
    return directory


def _gradient(classify, images, labels):
    gradient, _, _ = attacks.input_gradient(
        classify, tf.constant(images), labels
    )
    return gradient.numpy()


def _save(directory, function, shape=(None, 8, 8, 1), dtype=tf.float32):
    """A SavedModel whose `serving_default` is the function."""
    module = tf.Module()
    spec = tf.TensorSpec(shape, dtype, name="images")
    module.serve = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, str(directory), module.serve)
    return directory


def _sums(images):
    """Logits without weights: sums over 2 of the 8 rows, and of the rest."""
    rows = tf.reduce_sum(images, axis=[2, 3])
    rest = tf.reduce_sum(rows[:, 2:], axis=1, keepdims=True)
    return 3.0 * tf.concat([rows[:, :2], rest], axis=1)


class TestKeras:
    def test_the_trained_network_in_inference_mode(self, model, images):
        subject = subjects.as_subject(model)
        assert subject.name == "digits"
        assert subject.classes == 10
        assert subject.outputs == "logits"
        assert subject.parameters == model.count_params()
        assert subject.gradients
        assert subject.note is None
        np.testing.assert_array_equal(
            subject.classify(images), model(images, training=False)
        )

    def test_an_adversarial_classifier_says_what_it_returns(self, images):
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(_CLASSES, activation="softmax"),
            ]
        )
        model = mart_tf.AdversarialClassifier(
            network, "mart", threat=_threat(), outputs="probabilities"
        )
        subject = subjects.as_subject(model)
        assert subject.outputs == "probabilities"
        probabilities = tf.nn.softmax(subject.classify(images))
        np.testing.assert_allclose(probabilities, network(images), atol=1e-6)
        # Keras keeps the logits behind its softmax: nothing to say.
        assert subject.note is None
        with pytest.raises(ValueError, match="ends in a softmax"):
            subjects.as_subject(network)

    def test_a_file(self, model, images, tmp_path):
        path = tmp_path / "model.keras"
        model.save(path)
        for given in (path, str(path)):
            subject = subjects.as_subject(given)
            assert subject.name == str(path)
            np.testing.assert_array_equal(
                subject.classify(images),
                subjects.as_subject(model).classify(images),
            )

    def test_computes_in_float32(self, images):
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(16, dtype="mixed_bfloat16"),
                keras.layers.Dense(_CLASSES),
            ]
        )
        kernel, bias, last_kernel, last_bias = network.get_weights()
        expected = images.reshape(-1, 64) @ kernel + bias
        expected = expected @ last_kernel + last_bias
        assert np.abs(network(images) - expected).max() > 1e-4
        np.testing.assert_allclose(
            subjects.as_subject(network).classify(images), expected, atol=1e-5
        )

    def test_a_network_without_gradients(self, images):
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Lambda(tf.round, output_shape=(8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(_CLASSES),
            ]
        )
        subject = subjects.as_subject(network)
        assert not subject.gradients
        assert "attacks that need none" in subject.note

    def test_several_outputs(self, images, tmp_path):
        entry = keras.Input((8, 8, 1))
        flat = keras.layers.Flatten()(entry)
        network = keras.Model(
            entry,
            [
                keras.layers.Dense(_CLASSES, name=name)(flat)
                for name in ("first", "second")
            ],
        )
        network.save(tmp_path / "two.keras")
        for given in (network, tmp_path / "two.keras"):
            with pytest.raises(ValueError, match=r"has 2 outputs \(first, sec"):
                mart_tf.evaluate_robustness(
                    given, (images, np.zeros(32, int)), _threat(), ["fgsm"]
                )

    def test_images_of_any_size_need_images(self, images):
        network = keras.Sequential(
            [
                keras.Input((None, None, 1)),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(_CLASSES),
            ]
        )
        with pytest.raises(ValueError, match="does not tell the shape"):
            subjects.as_subject(network)
        assert subjects.as_subject(network, images=images).gradients
        with pytest.raises(ValueError, match=r"have shape \(8, 8\); the"):
            subjects.as_subject(network, images=images[..., 0])


class TestSavedModel:
    def test_gives_what_the_network_gives(
        self, model, versions, images, labels
    ):
        subject = subjects.as_subject(versions)
        assert subject.name == str(versions / "1")
        assert subject.classes == 10
        assert subject.outputs == "logits"
        assert subject.parameters == model.count_params()
        assert subject.gradients
        assert subject.note is None
        # What was loaded must outlive this call.
        gc.collect()
        keras_subject = subjects.as_subject(model)
        np.testing.assert_allclose(
            subject.classify(images), keras_subject.classify(images), atol=1e-6
        )
        gradient = _gradient(keras_subject.classify, images, labels)
        assert np.abs(gradient).max() > 1e-3
        np.testing.assert_allclose(
            _gradient(subject.classify, images, labels), gradient, atol=1e-6
        )

    def test_pgd_breaks_the_same_examples(
        self, model, versions, images, labels
    ):
        adversarials = [
            attacks.pgd(
                subject.classify, images, labels, _threat(), steps=5, seed=0
            )
            for subject in (
                subjects.as_subject(model),
                subjects.as_subject(versions),
            )
        ]
        keras_broken, served_broken = (
            np.argmax(model(adversarial), axis=1) != labels
            for adversarial in adversarials
        )
        assert 0 < keras_broken.sum() < len(labels)
        np.testing.assert_array_equal(served_broken, keras_broken)

    def test_the_newest_version_is_taken(self, tmp_path):
        for name, factor in [("2", 1.0), ("10", 2.0)]:
            _save(
                tmp_path / name,
                lambda images, factor=factor: {
                    "logits": factor * _sums(images)
                },
            )
        # Neither is a version: one is not whole, the other has no number.
        (tmp_path / "11").mkdir()
        (tmp_path / "newest").mkdir()
        subject = subjects.as_subject(tmp_path)
        assert pathlib.Path(subject.name).name == "10"
        assert subjects.as_subject(tmp_path / "2").name == str(tmp_path / "2")
        # 2 * 3 * 8 pixels of 1 in the first row.
        white = np.ones((1, 8, 8, 1), np.float32)
        assert subject.classify(white).numpy()[0, 0] == 48.0

    def test_probabilities_only(self, images, labels, tmp_path):
        _save(
            tmp_path,
            lambda images: {"probabilities": tf.nn.softmax(_sums(images))},
        )
        subject = subjects.as_subject(tmp_path)
        assert subject.outputs == "probabilities"
        assert subject.note == (
            "It gives probabilities, no logits: the attacks see their "
            "logarithms."
        )
        logits = _sums(images)
        np.testing.assert_allclose(
            subject.classify(images),
            logits - tf.reduce_logsumexp(logits, axis=1, keepdims=True),
            atol=1e-4,
        )
        np.testing.assert_allclose(
            _gradient(subject.classify, images, labels % 3),
            _gradient(_sums, images, labels % 3),
            atol=1e-4,
        )

    def test_one_output_of_any_name(self, images, tmp_path):
        _save(tmp_path / "a", lambda images: {"output_0": _sums(images)})
        subject = subjects.as_subject(tmp_path / "a")
        assert (subject.outputs, subject.note) == ("logits", None)
        np.testing.assert_allclose(subject.classify(images), _sums(images))
        _save(
            tmp_path / "b",
            lambda images: {"output_0": tf.nn.softmax(_sums(images))},
        )
        subject = subjects.as_subject(tmp_path / "b")
        assert subject.outputs == "probabilities"
        assert "logarithms" in subject.note

    def test_a_signature_without_gradients(self, tmp_path):
        _save(tmp_path, lambda images: {"logits": _sums(tf.round(images))})
        subject = subjects.as_subject(tmp_path)
        assert not subject.gradients
        assert "gives no gradients" in subject.note

    def test_an_operation_that_has_no_gradient(self, images, tmp_path):
        def coarse(images):
            # TensorFlow raises here, where others give None.
            return _sums(tf.image.resize(images, (4, 4), "area"))

        _save(tmp_path, lambda images: {"logits": coarse(images)})
        assert not subjects.as_subject(tmp_path).gradients
        assert not subjects.as_subject(coarse, images=images).gradients
        served = tf.function(coarse)
        assert not subjects.as_subject(served, images=images).gradients

    @pytest.mark.parametrize(
        ("function", "shape", "dtype", "message"),
        [
            (
                lambda images: {"scores": _sums(images), "rows": images[:, 0]},
                (None, 8, 8, 1),
                tf.float32,
                "gives rows, scores; expected an output logits",
            ),
            (
                lambda images: {"logits": _sums(tf.cast(images, tf.float32))},
                (None, 8, 8, 1),
                tf.uint8,
                r"takes uint8 \(None, 8, 8, 1\); expected one input, images in",
            ),
            (
                lambda images: {"logits": _sums(images)},
                (4, 8, 8, 1),
                tf.float32,
                r"takes float32 \(4, 8, 8, 1\); expected one input",
            ),
            (
                lambda images: {"logits": images[:, :, 0, 0] * 0.0 + 0.125},
                (None, 8, 8, 1),
                tf.float32,
                "returns probabilities",
            ),
        ],
    )
    def test_refuses_a_signature(
        self, function, shape, dtype, message, tmp_path
    ):
        _save(tmp_path, function, shape, dtype)
        with pytest.raises(ValueError, match=message):
            subjects.as_subject(tmp_path)

    def test_refuses_one_without_a_signature(self, tmp_path):
        module = tf.Module()
        serve = tf.function(
            lambda images: {"logits": _sums(images)},
            input_signature=[tf.TensorSpec((None, 8, 8, 1))],
        )
        tf.saved_model.save(module, str(tmp_path), {"other": serve})
        with pytest.raises(ValueError) as refused:
            subjects.as_subject(tmp_path)
        assert str(refused.value) == (
            f"The SavedModel {str(tmp_path)!r} has no signature "
            "'serving_default' (its signatures: other); expected one from "
            "images to scores, as mart_tf.export_saved_model writes it."
        )

    def test_refuses_what_is_damaged(self, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(b"damaged")
        with pytest.raises(ValueError, match="cannot be read; expected a"):
            subjects.as_subject(tmp_path)


class TestCallable:
    def test_a_tensorflow_function(self, images, labels):
        subject = subjects.as_subject(_sums, images=images)
        assert subject.name == "_sums"
        assert subject.classes >= 2
        assert subject.parameters is None
        assert subject.gradients
        assert subject.note is None
        assert _gradient(subject.classify, images, labels % 3).any()

    def test_declared_probabilities(self, images):
        def softmax(images):
            return tf.nn.softmax(_sums(images))

        with pytest.raises(ValueError, match="returns probabilities"):
            subjects.as_subject(softmax, images=images)
        subject = subjects.as_subject(softmax, "probabilities", images)
        assert subject.gradients
        assert "logarithms" in subject.note
        with pytest.raises(ValueError, match="are not probabilities"):
            subjects.as_subject(_sums, "probabilities", images)

    @pytest.mark.parametrize(
        "function",
        [
            # Served elsewhere: arrays in, lists out.
            lambda images: _sums(tf.constant(images.tolist())).numpy().tolist(),
            lambda images: np.asarray(_sums(images)).astype("float64"),
            # Wants a tensor, and looks into it.
            lambda images: _sums(images.numpy()[: images.shape.as_list()[0]]),
        ],
    )
    def test_one_that_only_answers(self, function, images):
        subject = subjects.as_subject(function, images=images)
        assert not subject.gradients
        assert "TensorFlow cannot trace it (" in subject.note
        assert subject.note.endswith("only attacks that need none can run.")
        # The engine compiles it for one batch shape, and fills the last up.
        classes = engine.Engine(subject.classify, 5).predict(images)
        np.testing.assert_array_equal(classes, np.argmax(_sums(images), axis=1))

        traced = tf.function(subject.classify)
        concrete = traced.get_concrete_function(tf.TensorSpec((5, 8, 8, 1)))
        assert concrete.output_shapes == [5, 3]

    def test_predict_of_a_keras_model(self, model, images):
        subject = subjects.as_subject(
            lambda images: model.predict(images, verbose=0), images=images
        )
        assert not subject.gradients
        np.testing.assert_allclose(
            tf.function(subject.classify)(images),
            model(images, training=False),
            atol=1e-6,
        )

    def test_one_that_answers_another_number_of_rows_later(self, images):
        subject = subjects.as_subject(
            lambda images: np.asarray(_sums(images[:2])), images=images
        )
        with pytest.raises(tf.errors.InvalidArgumentError):
            subject.classify(images[:5])

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (
                lambda images: images.missing,
                r"fails on images of shape \(2, 8, 8, 1\); expected scores of "
                r"shape \[batch, classes\]: AttributeError",
            ),
            (lambda images: {"logits": images}, "returns a dict of 1 output"),
            (lambda images: (images, images), r"returns 2 outputs \(output 0"),
            (lambda images: np.zeros(3), r"shape \(3,\) for 2 images; expecte"),
            (lambda images: _sums(images)[:1], r"shape \(1, 3\) for 2 images"),
            (lambda images: images, r"shape \(2, 8, 8, 1\) for 2 images"),
            (lambda images: _sums(images)[:, :1], "at least 2 classes"),
        ],
    )
    def test_refuses(self, function, message, images):
        with pytest.raises(ValueError, match=message) as refused:
            subjects.as_subject(function, images=images)
        assert "\n" not in str(refused.value)

    def test_needs_images(self):
        with pytest.raises(ValueError, match="give a few to try it on"):
            subjects.as_subject(_sums)


class TestNoSubject:
    def test_a_workdir(self, tmp_path):
        (tmp_path / "run.json").write_text("{}", encoding="utf-8")
        (tmp_path / "export").mkdir()
        with pytest.raises(ValueError, match="is the workdir of a run; expec"):
            subjects.as_subject(tmp_path)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("missing", "does not exist; expected a .keras, .tfl"),
            ("file.h5", "is no model; expected a .keras, .tflite"),
            ("damaged.keras", "cannot be read; expected a file that keras"),
            ("folder", "holds no SavedModel; expected saved_model.pb in it"),
        ],
    )
    def test_a_path(self, name, message, tmp_path):
        (tmp_path / "file.h5").touch()
        (tmp_path / "damaged.keras").touch()
        (tmp_path / "folder" / "1").mkdir(parents=True)
        with pytest.raises(ValueError, match=message):
            subjects.as_subject(str(tmp_path / name))

    def test_something_else(self):
        with pytest.raises(ValueError, match="The model is a int; expected a "):
            subjects.as_subject(3)
        with pytest.raises(ValueError, match="did you mean 'logits'"):
            subjects.as_subject(_sums, "logit")


def _threat():
    return mart_tf.ThreatModel(epsilon=0.05)
