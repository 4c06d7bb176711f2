"""Starting from the weights of a SavedModel: verified, or refused."""

import re
import shutil

import keras
import numpy as np
import programs
import pytest
import tensorflow as tf

import mart_tf
from mart_tf.models import rebuilding
from mart_tf.models import saved_model_weights
from mart_tf.runs import initialization


def network(classes=5, seed=0, names=True, swapped=False, softmax=False):
    """A nested network with batch norm and two layers of the same shapes."""

    def named(name):
        return {"name": name} if names else {}

    layers = keras.layers
    alike = [layers.Dense(8, "relu", **named(name)) for name in ("a", "b")]
    body = keras.Sequential(
        [
            layers.Conv2D(4, 3, **named("conv")),
            layers.BatchNormalization(**named("norm")),
            layers.Flatten(),
            layers.Dense(8, **named("hidden")),
        ],
        **named("body"),
    )
    made = keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            body,
            layers.Dropout(0.5),
            *(reversed(alike) if swapped else alike),
            layers.Dense(classes, **named("logits")),
            *([layers.Softmax()] if softmax else []),
        ]
    )
    generator = np.random.default_rng(seed)
    made.set_weights(
        [
            generator.normal(0.3, 0.2, w.shape).astype("float32") ** 2
            for w in made.get_weights()
        ]
    )
    return made


def exported(model, path, how="export", outputs="logits"):
    """Writes a SavedModel; returns where, a string."""
    if how == "mart-export":
        mart_tf.export_saved_model(
            model, path, outputs=outputs, pixel_range=(0, 1), verify=False
        )
    elif how == "export":
        model.export(path, verbose=False)
    else:
        tf.saved_model.save(model, path)
    return str(path)


def assert_same(model, others):
    for one, other in zip(model.get_weights(), others, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("how", ["mart-export", "export", "save"])
def test_the_same_network_whoever_wrote_it(tmp_path, how, names):
    source = network(seed=1, names=names)
    path = exported(source, tmp_path / "written", how)
    # Layers that Keras names have other numbers by now.
    classifier = network(seed=2, names=names)
    assert initialization.apply(classifier, path) == (
        f"Initialised from {path}: all 6 layers with weights."
    )
    assert_same(classifier, source.get_weights())


def test_a_network_of_a_user_in_mixed_precision(tmp_path):
    source = network(seed=1)
    path = exported(source, tmp_path / "written")
    classifier = rebuilding.with_precision(network(seed=2), "mixed_bfloat16")
    saved_model_weights.load(classifier, path)
    assert_same(classifier, source.get_weights())


@pytest.mark.parametrize("precision", rebuilding.PRECISIONS)
def test_a_network_of_the_table_in_every_precision(tmp_path, precision):
    source = mart_tf.models.build("preact_resnet18", (8, 8, 1), 3, seed=1)
    path = exported(source, tmp_path / "written")
    classifier = mart_tf.models.build(
        "preact_resnet18", (8, 8, 1), 3, seed=2, precision=precision
    )
    taken = saved_model_weights.load(classifier, path)
    assert len(taken) == 38
    assert_same(classifier, source.get_weights())


@pytest.mark.parametrize("how", ["mart-export", "export"])
def test_probabilities(tmp_path, how):
    source = network(seed=1, softmax=True)
    path = exported(source, tmp_path / "written", how, outputs="probabilities")
    classifier = network(seed=2, softmax=True)
    saved_model_weights.load(classifier, path)
    assert_same(classifier, source.get_weights())


def refusal(classifier, path):
    """The sentence; nothing of the network has changed."""
    before = classifier.get_weights()
    with pytest.raises(ValueError) as caught:
        initialization.apply(classifier, path)
    assert_same(classifier, before)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_names_that_fit_and_a_network_that_answers_otherwise(tmp_path):
    path = exported(network(seed=1), tmp_path / "written")
    message = refusal(network(seed=2, swapped=True), path)
    assert message.startswith(f"The SavedModel {path!r} does not fit the netw")
    assert "with its weights the network gives other scores than" in message
    assert "expected one that was exported of the same network" in message


def test_another_network(tmp_path):
    path = exported(network(seed=1), tmp_path / "written")
    message = refusal(network(7), path)
    assert "logits/kernel is (8, 5) there and (8, 7) here;" in message
    smaller = keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            keras.layers.Flatten(),
            keras.layers.Dense(5, name="logits"),
        ]
    )
    message = refusal(smaller, path)
    assert re.search(r"it has weights sequential\w*/a/bias, which the", message)
    path = exported(smaller, tmp_path / "smaller")
    message = refusal(network(), path)
    assert re.search(r"the network has weights sequential\w*/a/bias,", message)


def test_answers_that_tell_nothing(tmp_path):
    source = network(seed=1)
    source.layers[-1].kernel.assign(tf.zeros([8, 5]))
    path = exported(source, tmp_path / "written")
    assert "it answers all images alike, and nothing can be" in refusal(
        network(seed=2), path
    )


def test_images_of_another_shape(tmp_path):
    def pooled(*first):
        return keras.Sequential(
            [
                *first,
                keras.layers.Conv2D(4, 3, name="conv"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3, name="logits"),
            ]
        )

    path = exported(pooled(keras.Input([8, 8, 1])), tmp_path / "written")
    flat = pooled(keras.Input([64]), keras.layers.Reshape([8, 8, 1]))
    said = "it takes images of shape (8, 8, 1), and the network of"
    assert f"{said} (64,);" in refusal(flat, path)
    assert f"{said} (9, 9, 1);" in refusal(pooled(keras.Input([9, 9, 1])), path)


class Block(keras.layers.Layer):
    """A layer in a layer: its weights go by the name of the model alone."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def call(self, inputs):
        return self.dense(inputs)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Block(), Block()]
        self(tf.zeros([1, 4]))

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


def test_weights_that_no_name_tells_apart(tmp_path):
    path = exported(Subclassed(), tmp_path / "written")
    assert "some of the weights share their names with others;" in refusal(
        Subclassed(), path
    )


def test_damaged(tmp_path):
    path = exported(network(), tmp_path / "written")
    shutil.rmtree(tmp_path / "written" / "variables")
    assert "cannot be read; expected a whole one, its variables" in refusal(
        network(), path
    )


def test_no_signature(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable(tf.ones([3]), name="kernel")
    path = exported(module, tmp_path / "written", "save")
    assert "has no signature 'serving_default'" in refusal(network(), path)


def test_as_a_user_calls_it(tmp_path):
    source = mart_tf.models.build("digits_cnn", (8, 8, 1), 10, seed=1)
    generator = np.random.default_rng(0)
    for weight in source.weights:
        weight.assign(weight + 0.1 * generator.random(weight.shape))
    exported(source, tmp_path / "served", "mart-export")
    done = programs.run(
        "train",
        *("--init_from=served", "--workdir=run"),
        *("--defense=natural", "--epochs=1", "--learning_rate=1e-9"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "Initialised from served: all 6 layers with weights." in said
