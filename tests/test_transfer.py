"""Starting from trained weights: which layers are taken, and what is said."""

import os
import subprocess
import sys

import keras
import numpy as np
import programs
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import models
from mart_tf.models import weights
from mart_tf.runs import checkpoints
from mart_tf.runs import config as run_config
from mart_tf.runs import initialization
from mart_tf.runs import workdir

THREAT = mart_tf.ThreatModel(epsilon=0.1)
IMAGES = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)


def digits_cnn(classes=10, seed=0):
    """The network of the digits, no weight of it zero."""
    network = models.digits_cnn(num_classes=classes, seed=seed)
    generator = np.random.default_rng(seed)
    for weight in network.weights:
        weight.assign(weight + 0.1 * generator.random(weight.shape))
    return network


def normalized(classes=10, names=True, seed=0):
    """A network with batch norm; nested, as users nest theirs."""

    def named(name):
        return {"name": name} if names else {}

    body = keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, **named("conv")),
            keras.layers.BatchNormalization(**named("norm")),
            keras.layers.Flatten(),
            keras.layers.Dense(8, **named("hidden")),
        ],
        **named("body"),
    )
    network = keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            body,
            keras.layers.Dropout(0.5),
            keras.layers.Dense(classes, **named("logits")),
        ]
    )
    generator = np.random.default_rng(seed)
    network.set_weights(
        [generator.random(w.shape, np.float32) for w in network.get_weights()]
    )
    return network


def copies(network):
    return [np.array(weight) for weight in network.get_weights()]


def assert_same(weights, others):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)


class TestInitialize:
    def test_a_whole_network(self):
        classifier, source = digits_cnn(seed=0), digits_cnn(seed=1)
        taken, left = weights.initialize(classifier, source, "the source")
        assert taken == ["conv1", "conv2", "conv3", "conv4", "dense1", "logits"]
        assert left == []
        assert_same(classifier.get_weights(), source.get_weights())

    def test_another_number_of_classes_leaves_the_last_layer(self):
        classifier, source = digits_cnn(7), digits_cnn(10, seed=1)
        before = copies(classifier)
        taken, left = weights.initialize(classifier, source, "the source")
        assert taken == ["conv1", "conv2", "conv3", "conv4", "dense1"]
        assert left == [
            ("logits", "(128, 10) and (10,) there, (128, 7) and (7,) here")
        ]
        assert_same(classifier.get_weights()[:-2], source.get_weights()[:-2])
        assert_same(classifier.get_weights()[-2:], before[-2:])

    @pytest.mark.parametrize("names", [True, False])
    def test_batch_norm_statistics_and_nested_models(self, names):
        # Layers that Keras names have other numbers in the second network.
        source = normalized(names=names, seed=1)
        classifier = normalized(7, names=names, seed=2)
        taken, left = weights.initialize(classifier, source, "the source")
        assert len(taken) == 3
        assert [layer for layer, _ in left] == [classifier.layers[-1].name]
        bodies = [network.layers[0] for network in (classifier, source)]
        # Gamma, beta, mean, variance.
        assert len(bodies[0].layers[1].get_weights()) == 4
        assert_same(*(body.get_weights() for body in bodies))

    def test_a_flat_network_into_a_nested_one(self):
        source = normalized(seed=1)
        flat = keras.Sequential(
            [keras.Input([8, 8, 1]), *normalized(seed=2).layers[0].layers]
        )
        taken, left = weights.initialize(flat, source, "the source")
        assert taken == ["conv", "norm", "hidden"]
        assert left == []
        assert_same(flat.get_weights(), source.layers[0].get_weights())

    def test_layers_that_the_source_does_not_have(self):
        source = normalized(seed=1)
        classifier = normalized(seed=2)
        classifier.layers[-1].name = "scores"
        _, left = weights.initialize(classifier, source, "the source")
        assert left == [("scores", "absent there")]

    def test_no_layer_fits(self):
        classifier, source = digits_cnn(), normalized()
        source.layers[-1].name = "scores"
        before = copies(classifier)
        with pytest.raises(ValueError) as caught:
            weights.initialize(classifier, source, "runs/first")
        message = str(caught.value)
        assert message.startswith("No layer of runs/first fits the network ")
        assert "conv1: absent there" in message
        assert_same(classifier.get_weights(), before)

    def test_weights_of_a_model_and_of_layers_in_layers(self):
        source, classifier = Subclassed(), Subclassed()
        for network in (source, classifier):
            network(tf.zeros([1, 4]))
        for weight in source.weights:
            weight.assign(weight + 1.0)
        taken, left = weights.initialize(classifier, source, "the source")
        assert (len(taken), left) == (3, [])
        assert_same(classifier.get_weights(), source.get_weights())

    def test_on_replicas_from_outside_the_scope(self, strategy):
        with strategy.scope():
            classifier = digits_cnn()
        source = digits_cnn(seed=1)
        weights.initialize(classifier, source, "the source")
        for weight, other in zip(
            classifier.weights, source.weights, strict=True
        ):
            for replica in strategy.experimental_local_results(weight.value):
                np.testing.assert_array_equal(replica, other)


class Block(keras.layers.Layer):
    """A layer with a layer and a weight of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)
        self.scale = self.add_weight(shape=[], name="scale")

    def call(self, inputs):
        return self.scale * self.dense(inputs)


class Subclassed(keras.Model):
    """A model with two blocks and a weight of its own."""

    def __init__(self):
        super().__init__()
        self.blocks = [Block(), Block()]
        self.temperature = self.add_weight(shape=[], name="temperature")

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.temperature * inputs


class TestWeightsFile:
    @pytest.mark.parametrize("make", [digits_cnn, normalized])
    def test_of_the_same_network(self, tmp_path, make):
        path = str(tmp_path / "trained.weights.h5")
        source = make(seed=1)
        # The file of a compiled model holds its optimizer too.
        source.compile("adam")
        source.optimizer.build(source.trainable_variables)
        source.save_weights(path)
        classifier = make(seed=2)
        sentence = initialization.apply(classifier, path)
        count = 6 if make is digits_cnn else 4
        assert sentence == (
            f"Initialised from {path}: all {count} layers with weights."
        )
        assert_same(classifier.get_weights(), source.get_weights())

    @pytest.mark.parametrize(
        "make, reason",
        [
            (lambda: digits_cnn(7), "could not be loaded"),
            (lambda: normalized(), "it holds 12 arrays, and the network has"),
            # Keras itself would pass over the layers that are not there.
            (
                lambda: keras.Sequential(digits_cnn().layers[:3]),
                "it holds 12 arrays, and the network has 4",
            ),
        ],
    )
    def test_of_another_network(self, tmp_path, make, reason):
        path = str(tmp_path / "trained.weights.h5")
        digits_cnn(seed=1).save_weights(path)
        classifier = make()
        before = copies(classifier)
        with pytest.raises(ValueError) as caught:
            initialization.apply(classifier, path)
        message = str(caught.value)
        assert message.startswith(f"Weights file {path!r} does not fit the ")
        assert reason in message
        assert "\n" not in message
        assert_same(classifier.get_weights(), before)

    def test_damaged(self, tmp_path):
        path = tmp_path / "trained.weights.h5"
        digits_cnn().save_weights(str(path))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="cannot be read; .*truncated"):
            initialization.apply(digits_cnn(), str(path))


class TestKerasFile:
    def test_another_number_of_classes(self, tmp_path):
        path = str(tmp_path / "trained.keras")
        source = normalized(seed=1)
        source.save(path)
        classifier = normalized(7, seed=2)
        assert initialization.apply(classifier, path) == (
            f"Initialised from {path}: 3 of 4 layers with weights, conv, "
            "norm, hidden. Left as they were: logits ((8, 10) and (10,) "
            "there, (8, 7) and (7,) here)."
        )
        bodies = [network.layers[0] for network in (classifier, source)]
        assert_same(*(body.get_weights() for body in bodies))

    def test_of_a_model_that_trained_the_classifier(self, tmp_path):
        path = str(tmp_path / "trained.keras")
        source = digits_cnn(seed=1)
        model = mart_tf.AdversarialClassifier(source, "standard", THREAT)
        model(IMAGES)
        model.save(path)
        classifier = digits_cnn(seed=2)
        sentence = initialization.apply(classifier, path)
        assert sentence.endswith("all 6 layers with weights.")
        assert_same(classifier.get_weights(), source.get_weights())
        # The file says its threat model, and the pixels in it.
        sentence = initialization.apply(classifier, path, "", (-1.0, 1.0))
        assert "pixels from 0 to 1, and here they go from -1 to 1" in sentence

    def test_damaged(self, tmp_path):
        path = tmp_path / "trained.keras"
        with tf.io.gfile.GFile(str(path), "w") as file:
            file.write("PK")
        with pytest.raises(ValueError, match="does not begin as a .keras"):
            initialization.apply(digits_cnn(), str(path))


@pytest.fixture
def run(tmp_path):
    """A workdir with one checkpoint of an untrained network."""
    config = run_config.Config(
        workdir=str(tmp_path / "run"), epochs=1
    ).resolved()
    network = digits_cnn(seed=1)
    model = mart_tf.AdversarialClassifier(network, "standard", THREAT)
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    facts = {
        "policy": "float32",
        "image_shape": [8, 8, 1],
        "num_classes": 10,
        "class_names": [],
    }
    workdir.write(config, facts)
    checkpoints.Checkpoints(config.workdir, model, 10).save(3, 0.5)
    return config.workdir, network


class TestWorkdir:
    def test_takes_the_best_weights(self, run):
        path, source = run
        classifier = digits_cnn(seed=2)
        assert initialization.apply(classifier, path) == (
            f"Initialised from {path}, best weights, epoch 3: all 6 layers "
            "with weights."
        )
        assert_same(classifier.get_weights(), source.get_weights())

    def test_other_pixels_are_told_of(self, run):
        path, source = run
        same = initialization.apply(digits_cnn(), path, pixel_range=(0.0, 1.0))
        assert same.endswith("all 6 layers with weights.")
        assert initialization.apply(
            digits_cnn(), path, pixel_range=(0.0, 255.0)
        ) == (
            f"{same} It was trained on pixels from 0 to 1, and here they go "
            "from 0 to 255: expected --pixel_min=0 --pixel_max=1, unless both "
            "networks scale them inside."
        )

    def test_another_number_of_classes(self, run):
        path, source = run
        classifier = digits_cnn(7)
        sentence = initialization.apply(classifier, path)
        assert "5 of 6 layers with weights, conv1, conv2," in sentence
        assert "Left as they were: logits ((128, 10)" in sentence
        assert_same(classifier.get_weights()[:-2], source.get_weights()[:-2])


class TestCheck:
    """What is refused before TensorFlow is imported."""

    def test_names_the_kinds(self, run, tmp_path):
        path, network = run
        network.save(tmp_path / "a.keras")
        network.save_weights(tmp_path / "a.weights.h5")
        network.export(tmp_path / "versions" / "1", verbose=False)
        script = (
            "import sys\n"
            "from mart_tf.runs import initialization\n"
            "print([initialization.check(text) for text in sys.argv[1:]])\n"
            "assert 'tensorflow' not in sys.modules\n"
            "assert 'keras' not in sys.modules\n"
        )
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                script,
                path,
                str(tmp_path / "a.keras"),
                str(tmp_path / "a.weights.h5"),
                str(tmp_path / "versions"),
                str(tmp_path / "versions" / "1"),
            ],
            env=programs.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        kinds = ["workdir", "model", "weights", "saved_model", "saved_model"]
        assert done.stdout == f"{kinds}\n"

    @pytest.mark.parametrize(
        "name, content, sentence",
        [
            ("absent", None, "does not exist; expected the workdir of a run"),
            ("absent.keras", None, "does not exist"),
            ("model.h5", b"\x89HDF\r\n\x1a\n", "is neither a workdir nor"),
            ("a.keras", b"not a zip", "does not begin as a .keras file"),
            ("a.weights.h5", b"\x89HDX", "does not begin as a .h5 file"),
        ],
    )
    def test_refuses_files(self, tmp_path, name, content, sentence):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            initialization.check(str(path))

    def test_refuses_a_folder_that_is_no_run(self, tmp_path):
        with pytest.raises(ValueError, match=r"holds no run\.json"):
            initialization.check(str(tmp_path))

    def test_refuses_a_run_without_a_finished_epoch(self, run):
        path, _ = run
        folder = os.path.join(path, "checkpoints")
        for name in os.listdir(folder):
            # The last file of a save: until then there is none.
            if name.endswith(".sha256"):
                os.remove(os.path.join(folder, name))
        with pytest.raises(ValueError, match="has no finished epoch yet"):
            initialization.check(path)
