"""Batch norm as one operation, beside its equation in float64."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import private
from mart_tf.training import fused_norm

_CHANNELS = 3
_RNG = np.random.default_rng(0)
_IMAGES = _RNG.normal(size=(4, 5, 6, _CHANNELS)).astype(np.float32)
_UPSTREAM = _RNG.normal(size=_IMAGES.shape).astype(np.float32)
_MEAN = _RNG.normal(size=_CHANNELS)
# Epsilon counts: the first variance is no larger.
_VARIANCE = np.array([1e-6, 0.5, 2.0])
_GAMMA = np.array([0.5, -1.5, 2.0])
_BETA = np.array([0.1, 0.0, -3.0])
_EPSILON = 1e-5


def norm(scale=True, center=True, kind=keras.layers.BatchNormalization, **own):
    layer = kind(epsilon=_EPSILON, scale=scale, center=center, **own)
    model = keras.Sequential([keras.Input(_IMAGES.shape[1:]), layer])
    layer.set_weights([_GAMMA] * scale + [_BETA] * center + [_MEAN, _VARIANCE])
    return model


def unchanged(model):
    return contextlib.nullcontext()


def passed(model, images, training=False, scope=unchanged):
    """What a model returns, its gradient to the images, its operations."""

    @tf.function(autograph=False)
    def both(images):
        with scope(model), tf.GradientTape() as tape:
            tape.watch(images)
            outputs = model(images, training=training)
        upstream = tf.cast(_UPSTREAM, outputs.dtype)
        return outputs, tape.gradient(outputs, images, upstream)

    graph = both.get_concrete_function(images).graph
    kinds = [operation.type for operation in graph.get_operations()]
    outputs, gradient = both(images)
    return outputs, gradient, kinds.count("FusedBatchNormV3")


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_the_equation(scale, center):
    model = norm(scale, center)
    outputs, gradient, fused = passed(
        model, tf.constant(_IMAGES), scope=fused_norm.fused
    )
    assert fused == 2
    factor = (_GAMMA if scale else 1.0) / np.sqrt(_VARIANCE + _EPSILON)
    offset = _BETA if center else 0.0
    expected = (np.float64(_IMAGES) - _MEAN) * factor + offset
    # The first channel is 300 times as large.
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(gradient, _UPSTREAM * factor, rtol=1e-5)


def test_bfloat16_is_as_keras_computes_it():
    model = norm(dtype="mixed_bfloat16")
    images = tf.cast(_IMAGES, tf.bfloat16)
    own, own_gradient, none = passed(model, images)
    outputs, gradient, fused = passed(model, images, scope=fused_norm.fused)
    assert (none, fused) == (0, 2)
    assert outputs.dtype == gradient.dtype == tf.bfloat16
    # One unit in the last of eight places.
    for ours, keras_s in [(outputs, own), (gradient, own_gradient)]:
        np.testing.assert_allclose(
            tf.cast(ours, tf.float32),
            tf.cast(keras_s, tf.float32),
            rtol=2**-7,
            atol=2**-7,
        )


class OwnNorm(keras.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize(
    ("model", "training"),
    [
        (norm(), True),
        (norm(kind=OwnNorm), False),
        (norm(dtype="float64"), False),
    ],
    ids=["training", "a class of one's own", "float64"],
)
def test_what_keras_computes_still(model, training):
    before = model.get_weights()
    expected, own_gradient, _ = passed(model, tf.constant(_IMAGES), training)
    after = model.get_weights()
    model.set_weights(before)
    outputs, gradient, fused = passed(
        model, tf.constant(_IMAGES), training, fused_norm.fused
    )
    assert not fused
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(gradient, own_gradient)
    for ours, keras_s in zip(model.get_weights(), after, strict=True):
        np.testing.assert_array_equal(ours, keras_s)


def test_another_axis_and_no_images():
    for shape, axis in [((3, 5, 6), 1), ((3,), -1)]:
        layer = keras.layers.BatchNormalization(axis=axis)
        model = keras.Sequential([keras.Input(shape), layer])
        layer.set_weights([_GAMMA, _BETA, _MEAN, _VARIANCE])
        images = tf.ones((2, *shape))
        expected = model(images, training=False)
        with fused_norm.fused(model):
            outputs = model(images, training=False)
        np.testing.assert_array_equal(outputs, expected)


def test_nothing_stays():
    model = norm()
    with fused_norm.fused(model):
        pass
    assert "call" not in vars(model.layers[-1])
    assert passed(model, tf.constant(_IMAGES))[2] == 0


@pytest.mark.parametrize("defense", ["standard", "trades", "mart"])
def test_a_training_step_attacks_so_and_learns_as_before(defense, monkeypatch):
    def trained():
        keras.utils.set_random_seed(0)
        network = mart_tf.models.build(
            "wide_resnet:depth=10:width=1:activation=silu", (8, 8, 3), 3
        )
        model = mart_tf.AdversarialClassifier(
            network,
            defense,
            mart_tf.ThreatModel(epsilon=0.1),
            attack_steps=2,
        )
        model.compile(keras.optimizers.SGD(0.1))
        images = np.random.default_rng(0).random((8, 8, 8, 3), np.float32)
        for _ in range(2):
            model.train_on_batch(images, np.arange(8) % 3)
        evaluated = model.evaluate(
            images, np.arange(8) % 3, verbose=0, return_dict=True
        )
        return network.get_weights(), evaluated

    seen = []
    plain = tf.raw_ops.FusedBatchNormV3

    def counted(**arguments):
        seen.append(arguments["x"].shape)
        return plain(**arguments)

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", counted)
    weights, evaluated = trained()
    assert seen
    # A network without a batch norm that the scope would know.
    monkeypatch.setattr(private, "layers", lambda model: [])
    seen.clear()
    expected, shown = trained()
    assert not seen
    for ours, keras_s in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, keras_s, atol=2e-5)
    for name, value in shown.items():
        np.testing.assert_allclose(evaluated[name], value, atol=1e-3)
