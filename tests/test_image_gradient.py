"""The gradient to images of one channel, beside its sum written out."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import private
from mart_tf.training import image_gradient

_RNG = np.random.default_rng(0)


def network(kernel_size=3, channels=1, kind=keras.layers.Conv2D, **options):
    layer = kind(4, kernel_size, **options)
    return keras.Sequential([keras.Input((7, 8, channels)), layer])


def unchanged(model):
    return contextlib.nullcontext()


def passed(model, images, upstream=None, scope=unchanged):
    """What a model returns, its gradient to the images, its operations."""

    @tf.function(autograph=False)
    def both(images):
        with scope(model), tf.GradientTape() as tape:
            tape.watch(images)
            outputs = model(images, training=False)
        back = tf.ones_like(outputs) if upstream is None else upstream
        back = tf.cast(back, outputs.dtype)
        return outputs, tape.gradient(outputs, images, back)

    graph = both.get_concrete_function(images).graph
    kinds = [operation.type for operation in graph.get_operations()]
    return *both(images), kinds.count("Conv2DBackpropInput")


def summed(upstream, kernel, padding):
    """Each output's gradient, given to the pixels that it saw."""
    down, across = kernel.shape[:2]
    top, left = (0, 0)
    if padding == "same":
        # TensorFlow has the odd one below and on the right.
        top, left = (down - 1) // 2, (across - 1) // 2
    gradient = np.zeros((len(upstream), 7, 8, 1))
    for row, column in np.ndindex(upstream.shape[1:3]):
        for i, j in np.ndindex(down, across):
            y, x = row + i - top, column + j - left
            if 0 <= y < 7 and 0 <= x < 8:
                gradient[:, y, x, 0] += (
                    upstream[:, row, column] @ kernel[i, j, 0]
                )
    return gradient


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(3, 3), (1, 1), (2, 4), (5, 3)], ids=str)
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_sum(padding, size, precision):
    model = network(size, padding=padding, dtype=precision)
    images = tf.constant(_RNG.random((3, 7, 8, 1), np.float32))
    upstream = _RNG.normal(size=(3, *model.output_shape[1:]))
    own, _, one = passed(model, images, upstream)
    outputs, gradient, none = passed(
        model, images, upstream, image_gradient.as_product
    )
    assert (one, none) == (1, 0)
    np.testing.assert_array_equal(
        tf.cast(outputs, tf.float32), tf.cast(own, tf.float32)
    )
    kernel = np.float64(model.layers[-1].kernel)
    expected = summed(upstream, kernel, padding)
    assert gradient.dtype == tf.float32
    # Up to fifteen products, each rounded to eight places.
    digits = 1e-5 if precision == "float32" else 2**-6
    np.testing.assert_allclose(gradient, expected, rtol=digits, atol=digits)


class OwnConvolution(keras.layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return 2.0 * super().convolution_op(inputs, kernel)


@pytest.mark.parametrize(
    "model",
    [
        network(channels=3),
        network(strides=2),
        network(dilation_rate=2),
        network(kind=OwnConvolution),
        network(kind=keras.layers.DepthwiseConv2D),
        network(dtype="float64"),
    ],
    ids=["channels", "strides", "dilation", "own", "depthwise", "float64"],
)
def test_what_keras_computes_still(model):
    images = tf.constant(_RNG.random((3, *model.input_shape[1:]), np.float32))
    expected, own_gradient, _ = passed(model, images)
    outputs, gradient, _ = passed(
        model, images, scope=image_gradient.as_product
    )
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(gradient, own_gradient)


def test_images_of_any_size():
    model = keras.Sequential(
        [keras.Input((None, None, 1)), keras.layers.Conv2D(4, 3)]
    )
    images = tf.constant(_RNG.random((3, 7, 8, 1), np.float32))

    def gradient(scope):
        @tf.function(
            autograph=False,
            input_signature=[tf.TensorSpec((None, None, None, 1))],
        )
        def traced(images):
            with scope(model), tf.GradientTape() as tape:
                tape.watch(images)
                outputs = model(images, training=False)
            return tape.gradient(outputs, images)

        return traced(images)

    np.testing.assert_array_equal(
        gradient(image_gradient.as_product), gradient(unchanged)
    )


def test_nothing_stays():
    model = network()
    with image_gradient.as_product(model):
        pass
    assert "convolution_op" not in vars(model.layers[-1])
    images = tf.constant(_RNG.random((3, 7, 8, 1), np.float32))
    assert passed(model, images)[2] == 1


def test_a_gpu_keeps_its_own(monkeypatch):
    model = network()
    images = tf.constant(_RNG.random((3, 7, 8, 1), np.float32))
    # No GPU is at hand: that one is seen is said by a stand-in.
    monkeypatch.setattr(
        tf.config, "get_visible_devices", lambda kind=None: ["a GPU"]
    )
    assert passed(model, images, scope=image_gradient.as_product)[2] == 1


class OwnCall(keras.layers.Conv2D):
    def call(self, inputs):
        return self.convolution_op(inputs=inputs, kernel=self.kernel)


def test_what_is_called_by_keywords_and_has_no_shape():
    @tf.custom_gradient
    def same(features):
        def gradient(upstream):
            return tf.numpy_function(lambda x: x, [upstream], tf.float32)

        return tf.identity(features), gradient

    images = keras.Input((7, 8, 1))
    features = OwnCall(4, 3)(images)
    model = keras.Model(images, keras.layers.Lambda(same)(features))
    values = tf.constant(_RNG.random((3, 7, 8, 1), np.float32))
    expected = passed(model, values)[1]
    _, gradient, none = passed(model, values, scope=image_gradient.as_product)
    assert not none
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_a_method_that_somebody_replaced_stays():
    model = network()
    layer = model.layers[-1]
    own = layer.convolution_op
    layer.convolution_op = lambda *values: 5.0 * own(*values)
    images = tf.constant(_RNG.random((3, 7, 8, 1), np.float32))
    expected = passed(model, images)[1]
    for _ in range(2):
        gradient = passed(model, images, scope=image_gradient.as_product)[1]
        np.testing.assert_array_equal(gradient, expected)


def trained(*layers, call=None):
    """How far one step of MART moved each weight of a network's first layer."""

    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers[0]
            self.others = [*layers[1:], keras.layers.Flatten()]
            self.last = keras.layers.Dense(3)

        @tf.function
        def features(self, images):
            features = (call or self.first)(images)
            for layer in self.others:
                features = layer(features)
            return features

        def call(self, images, training=None):
            return self.last(self.features(images))

    keras.utils.set_random_seed(0)
    model = mart_tf.AdversarialClassifier(
        Network(), "mart", mart_tf.ThreatModel(epsilon=0.1), attack_steps=2
    )
    model.compile(keras.optimizers.SGD(0.1))
    images = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
    model.classifier(images)
    before = [weight.numpy() for weight in layers[0].trainable_weights]
    model.fit(images, np.arange(8) % 3, verbose=0)
    return [
        np.abs(weight.numpy() - first).max()
        for weight, first in zip(
            layers[0].trainable_weights, before, strict=True
        )
    ]


def test_a_function_of_the_networks_own_is_not_traced_for_the_attack():
    # Its trace of the attack would be that of the loss, without gradients.
    assert min(trained(keras.layers.Conv2D(4, 3))) > 0.0
    norm = keras.layers.BatchNormalization()
    moved = trained(norm, call=lambda images: norm(images, training=False))
    assert min(moved) > 0.0


def test_convolutions_of_volumes():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Reshape((8, 8, 1, 1)),
            keras.layers.Conv3D(4, (3, 3, 1)),
        ]
    )
    with image_gradient.as_product(model):
        model(np.zeros((2, 8, 8, 1), np.float32))


@pytest.mark.parametrize("defense", ["standard", "trades", "mart"])
def test_a_training_step_attacks_so_and_learns_as_before(defense, monkeypatch):
    def trained():
        keras.utils.set_random_seed(0)
        network = mart_tf.models.build("digits_cnn", (8, 8, 1), 3)
        model = mart_tf.AdversarialClassifier(
            network, defense, mart_tf.ThreatModel(epsilon=0.1), attack_steps=2
        )
        model.compile(keras.optimizers.SGD(0.1))
        images = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
        for _ in range(2):
            model.train_on_batch(images, np.arange(8) % 3)
        return network.get_weights()

    seen = []
    plain = image_gradient._to_images

    def counted(upstream, kernel, padding):
        seen.append(padding)
        return plain(upstream, kernel, padding)

    monkeypatch.setattr(image_gradient, "_to_images", counted)
    weights = trained()
    assert seen
    monkeypatch.setattr(private, "layers", lambda model: [])
    seen.clear()
    expected = trained()
    assert not seen
    for ours, keras_s in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, keras_s, atol=2e-5)
