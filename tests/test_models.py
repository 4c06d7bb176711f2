"""Networks: counts, initial weights, padding, precision, loading, refusals."""

import itertools
import math
import random
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from mart_tf import models
from mart_tf.models import loading
from mart_tf.models import names
from mart_tf.models import outputs as model_outputs
from mart_tf.models import preactivation
from mart_tf.models import rebuilding
from mart_tf.models import resnet
from mart_tf.models import small


@pytest.fixture(scope="module")
def resnet18():
    return resnet.resnet18()


@pytest.fixture(scope="module")
def resnet50():
    return resnet.resnet50()


@pytest.fixture(scope="module")
def wide_resnet():
    return preactivation.wide_resnet(depth=10, width=2)


def tiny_wide_resnet(input_shape=(8, 8, 3), num_classes=10, seed=0):
    return preactivation.wide_resnet(
        input_shape, num_classes, depth=10, width=1, seed=seed
    )


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, "float32")


def trainable_parameters(model):
    return sum(math.prod(w.shape) for w in model.trainable_weights)


def randomized(model, seed=0):
    """The model with other weights where they all start at zero."""
    random = np.random.default_rng(seed)
    model.set_weights(
        [
            w if w.any() else random.normal(0.1, 0.3, w.shape) ** 2
            for w in model.get_weights()
        ]
    )
    return model


def in_bfloat16(values):
    """Values that bfloat16 holds, in float32."""
    return tf.cast(tf.cast(values, "bfloat16"), "float32")


class Rounded(keras.layers.Layer):
    """Rounds to bfloat16, and what flows back through it."""

    def call(self, x):
        round_both = tf.custom_gradient(lambda x: (in_bfloat16(x), in_bfloat16))
        return round_both(x)


def of_training(model, batch):
    """Logits of a batch in training, and a loss's gradients end to end."""
    labels = np.arange(len(batch)) % model.output_shape[-1]
    with tf.GradientTape() as tape:
        logits = model(batch, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(np.any(gradient) for gradient in gradients)
    return np.asarray(logits), np.concatenate([*map(np.ravel, gradients)])


def apart(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def scatter_norms(model, seed):
    """Gives each batch norm other weights and statistics."""
    random = np.random.default_rng(seed)
    for layer in norms(model):
        shape = layer.gamma.shape
        layer.set_weights(
            [
                random.normal(1.0, 0.2, shape),
                random.normal(0.0, 0.3, shape),
                random.normal(0.0, 0.3, shape),
                random.uniform(0.5, 2.0, shape),
            ]
        )


def norms(model):
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def convolve(x, kernel, stride, same=False):
    """A convolution padded by half the kernel on every side.

    With `same`, at stride 2 and an even size, below and right only.
    """
    size = kernel.shape[0]
    half = size // 2
    around = (0, half) if same and stride == 2 else (half, half)
    x = np.pad(x, ((0, 0), around, around, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel)


def preactivation_in_numpy(
    model, batch, activation=lambda x: np.maximum(x, 0.0), same=False, blocks=1
):
    """A network of blocks that begin with batch norm, in inference mode."""

    def convolution(x, name, stride=1):
        return convolve(x, model.get_layer(name).kernel.numpy(), stride, same)

    def activated(x, name):
        gamma, beta, mean, variance = model.get_layer(name).get_weights()
        x = gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta
        return activation(x)

    stages = sum("_1_add" in layer.name for layer in model.layers)
    x = convolution(batch, "stem")
    for stage, block in itertools.product(
        range(1, stages + 1), range(1, blocks + 1)
    ):
        stride = 2 if stage > 1 and block == 1 else 1
        name = f"stage{stage}_{block}"
        first = activated(x, f"{name}_norm1")
        second = convolution(first, f"{name}_conv1", stride)
        second = activated(second, f"{name}_norm2")
        second = convolution(second, f"{name}_conv2")
        if x.shape[-1] != second.shape[-1]:
            x = convolution(first, f"{name}_shortcut", stride)
        x = x + second
    kernel, bias = model.get_layer("logits").get_weights()
    return activated(x, "norm").mean((1, 2)) @ kernel + bias


def residual_in_numpy(model, batch, counts, strides):
    """A network of blocks relu(F(x) + shortcut(x)), in inference mode.

    Args:
        model: The network, for its weights.
        batch: Images.
        counts: How many blocks each stage has.
        strides: Of the convolutions in the first block of each later stage.
    """

    def convolution(x, name, stride=1):
        x = convolve(x, model.get_layer(name).kernel.numpy(), stride)
        gamma, beta, mean, variance = model.get_layer(
            f"{name}_norm"
        ).get_weights()
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    x = np.maximum(convolution(batch, "stem"), 0.0)
    for stage, count in enumerate(counts, 1):
        for block in range(1, count + 1):
            name, inner = f"stage{stage}_{block}", x
            is_halved = stage > 1 and block == 1
            for number, stride in enumerate(strides, 1):
                if number > 1:
                    inner = np.maximum(inner, 0.0)
                inner = convolution(
                    inner, f"{name}_conv{number}", stride if is_halved else 1
                )
            if is_halved or x.shape[-1] != inner.shape[-1]:
                x = convolution(x, f"{name}_shortcut", 2 if is_halved else 1)
            x = np.maximum(inner + x, 0.0)
    kernel, bias = model.get_layer("logits").get_weights()
    return x.mean((1, 2)) @ kernel + bias


@keras.saving.register_keras_serializable("tests")
class _Frozen(keras.layers.Layer):
    """A user's layer that has layers: one learned before, one is frozen."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.scale = keras.layers.Normalization()
        self.features = keras.layers.Dense(4, trainable=False)

    def build(self, shape):
        self.scale.build(shape)
        self.features.build(shape)

    def call(self, images):
        return keras.ops.mean(self.features(self.scale(images)), axis=(1, 2))


class TestArchitectures:
    def test_parameter_counts(self, resnet18, resnet50):
        assert trainable_parameters(small.small_cnn()) == 312_202
        assert trainable_parameters(small.digits_cnn()) == 99_178
        assert trainable_parameters(small.cnn4()) == 421_834
        assert trainable_parameters(small.cnn8()) == 1_639_794
        assert trainable_parameters(resnet18) == 11_173_962
        assert trainable_parameters(resnet50) == 23_520_842

    @pytest.mark.parametrize(
        "options, count",
        [
            ({}, 46_160_474),
            ({"depth": 34, "width": 8}, 29_551_578),
            ({"depth": 28, "width": 10}, 36_479_194),
            ({"depth": 28, "width": 4}, 5_849_050),
        ],
    )
    def test_parameter_counts_of_wide_resnets(self, options, count):
        model = preactivation.wide_resnet(**options)
        assert trainable_parameters(model) == count

    def test_small_cnn_layer_by_layer(self):
        model = small.small_cnn()
        shapes = [layer.output.shape[1:] for layer in model.layers]
        assert shapes == [
            (28, 28, 1),
            (26, 26, 32),
            (24, 24, 32),
            (12, 12, 32),
            (10, 10, 64),
            (8, 8, 64),
            (4, 4, 64),
            (1024,),
            (200,),
            (200,),
            (200,),
            (10,),
        ]
        assert model.get_layer("dropout").rate == 0.5
        assert model.get_layer("logits").activation is keras.activations.linear

    def test_cnn4_layer_by_layer(self):
        model = small.cnn4()
        assert [(x.name, x.output.shape[1:]) for x in model.layers] == [
            ("images", (28, 28, 1)),
            ("conv1", (28, 28, 32)),
            ("conv1_norm", (28, 28, 32)),
            ("conv1_relu", (28, 28, 32)),
            ("pool1", (14, 14, 32)),
            ("conv2", (14, 14, 64)),
            ("conv2_norm", (14, 14, 64)),
            ("conv2_relu", (14, 14, 64)),
            ("pool2", (7, 7, 64)),
            ("flatten", (3136,)),
            ("dense1", (128,)),
            ("dense1_relu", (128,)),
            ("logits", (10,)),
        ]
        for name in ("conv1", "conv2", "dense1", "logits"):
            layer = model.get_layer(name)
            assert layer.activation is keras.activations.linear

    def test_cnn8_normalizes_all_layers_but_the_last(self):
        model = small.cnn8()
        names = [x.name for x in model.layers if x.weights]
        inner = [f"conv{index}" for index in range(1, 7)] + ["dense1"]
        pairs = [(name, f"{name}_norm") for name in inner]
        assert names == [*(name for pair in pairs for name in pair), "logits"]
        for name, shape in [
            ("conv2_relu", (32, 32, 64)),
            ("conv4_relu", (16, 16, 128)),
            ("conv6_relu", (8, 8, 196)),
            ("flatten", (4 * 4 * 196,)),
            ("dense1_relu", (256,)),
        ]:
            assert model.get_layer(name).output.shape[1:] == shape

    def test_resnet_halves_the_image_three_times(self, resnet18):
        shapes = [
            resnet18.get_layer(f"stage{stage}_2_relu2").output.shape[1:]
            for stage in (1, 2, 3, 4)
        ]
        assert shapes == [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]

    def test_resnet_has_no_convolution_bias_and_one_shortcut_a_stage(
        self, resnet18
    ):
        convolutions = [
            layer
            for layer in resnet18.layers
            if isinstance(layer, keras.layers.Conv2D)
        ]
        assert not any(layer.use_bias for layer in convolutions)
        shortcuts = [c.name for c in convolutions if c.kernel_size == (1, 1)]
        assert shortcuts == [f"stage{s}_1_shortcut" for s in (2, 3, 4)]
        assert len(convolutions) == 17 + 3

    def test_resnet50_strides_in_the_middle_of_a_bottleneck(self, resnet50):
        convolutions = [
            layer
            for layer in resnet50.layers
            if isinstance(layer, keras.layers.Conv2D)
        ]
        assert not any(layer.use_bias for layer in convolutions)
        assert len(convolutions) == 1 + 3 * (3 + 4 + 6 + 3) + 4
        assert {c.name for c in convolutions if c.strides == (2, 2)} == {
            f"stage{stage}_1_{part}"
            for stage in (2, 3, 4)
            for part in ("conv2", "shortcut")
        }
        shapes = [
            resnet50.get_layer(f"stage{stage}_{count}_relu3").output.shape[1:]
            for stage, count in [(1, 3), (2, 4), (3, 6), (4, 3)]
        ]
        assert shapes == [
            (32, 32, 256),
            (16, 16, 512),
            (8, 8, 1024),
            (4, 4, 2048),
        ]
        assert resnet50.get_layer("stage1_1_conv1").kernel.shape == (
            *(1, 1),
            *(64, 64),
        )
        assert resnet50.output_shape == (None, 10)

    @pytest.mark.parametrize("width", [1, 2])
    def test_wide_resnet_equals_its_definition(self, width):
        # Width 1 has no convolution in the first stage's shortcut.
        model = preactivation.wide_resnet((7, 6, 3), 4, depth=10, width=width)
        scatter_norms(model, width)
        batch = images(3, 7, 6, 3)
        logits = model(batch, training=False)
        np.testing.assert_allclose(
            logits, preactivation_in_numpy(model, batch), rtol=1e-4, atol=1e-5
        )
        shortcuts = [x.name for x in model.layers if "shortcut" in x.name]
        first = ["stage1_1_shortcut"] * (width > 1)
        assert shortcuts == [*first, "stage2_1_shortcut", "stage3_1_shortcut"]

    def test_the_styles_of_newer_recipes_equal_their_definition(self):
        """SiLU, images normalized inside, "same" padding at stride 2."""
        model = preactivation.wide_resnet(
            (8, 8, 3),
            4,
            depth=10,
            width=1,
            activation="silu",
            normalize="cifar10",
            padding="same",
        )
        scatter_norms(model, 0)
        batch = images(3, 8, 8, 3)
        # As published for PyTorch's transforms.Normalize.
        mean = np.array([0.4914, 0.4822, 0.4465])
        deviation = np.array([0.2471, 0.2435, 0.2616])
        expected = preactivation_in_numpy(
            model,
            (batch - mean) / deviation,
            lambda x: x / (1 + np.exp(-x)),
            same=True,
        )
        np.testing.assert_allclose(
            model(batch, training=False), expected, rtol=1e-4, atol=1e-5
        )

    def test_a_normalization_follows_the_pixel_range(self):
        """The same grey levels give the same logits, however they are told."""
        spec = "wide_resnet:depth=10:width=1:normalize=cifar10"
        shares = images(3, 8, 8, 3)
        logits = []
        for low, high in ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)):
            model = models.build(spec, (8, 8, 3), 4, pixel_range=(low, high))
            scatter_norms(model, 0)
            pixels = low + (high - low) * shares
            logits.append(model(pixels, training=False).numpy())
        np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(logits[2], logits[0], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("network", "counts", "strides"),
        [
            (resnet.resnet18, (2, 2, 2, 2), (2, 1)),
            (resnet.resnet50, (3, 4, 6, 3), (1, 2, 1)),
        ],
    )
    def test_a_resnet_equals_its_definition(self, network, counts, strides):
        model = network((8, 8, 3), 4)
        scatter_norms(model, 0)
        batch = images(2, 8, 8, 3)
        expected = residual_in_numpy(model, batch, counts, strides)
        assert np.ptp(expected) > 0.01
        np.testing.assert_allclose(
            model(batch, training=False), expected, rtol=1e-3, atol=1e-4
        )

    def test_preact_resnet18_equals_its_definition(self):
        model = preactivation.preact_resnet18((8, 8, 3), 4)
        scatter_norms(model, 0)
        batch = images(2, 8, 8, 3)
        expected = preactivation_in_numpy(model, batch, blocks=2)
        np.testing.assert_allclose(
            model(batch, training=False), expected, rtol=1e-4, atol=1e-5
        )
        whole = preactivation.preact_resnet18()
        # That of Rice et al.: 11,171,146 without their last batch norm.
        assert trainable_parameters(whole) == 11_171_146 + 2 * 512

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"activation": "swish"}, "Unknown activation 'swish'"),
            ({"normalize": "imagenet"}, "Unknown normalize 'imagenet'"),
            ({"padding": "valid"}, "Unknown padding 'valid'"),
            (
                {"normalize": "cifar10", "input_shape": (8, 8, 1)},
                "of three channels, and images of 1; expected normalize=none",
            ),
        ],
    )
    def test_refuses_a_style_that_no_network_has(self, options, message):
        with pytest.raises(ValueError, match=message):
            preactivation.preact_resnet18(**options)

    @pytest.mark.parametrize(
        "network, name",
        [
            ("resnet18", "stage2_1_conv1"),
            ("resnet50", "stage4_1_conv2"),
            ("wide_resnet", "stage3_1_conv1"),
        ],
    )
    def test_stride_two_pads_all_round(self, network, name, request):
        # A 3x3 kernel of ones counts the pixels it covers. On 4x4 pixels,
        # padded by 1, windows start at -1 and 1 and cover 2 and 3 rows;
        # Keras's "same" would start at 0 and 2 and give 9, 6, 6, 4.
        model = request.getfixturevalue(network)
        convolution = model.get_layer(name)
        kernel = np.zeros(convolution.kernel.shape, "float32")
        kernel[:, :, 0, 0] = 1.0
        copy = keras.layers.Conv2D.from_config(convolution.get_config())
        pad = model.get_layer(f"{name}_pad")
        copy.build((None, 6, 6, kernel.shape[2]))
        copy.set_weights([kernel])
        counted = copy(pad(np.ones((1, 4, 4, kernel.shape[2]), "float32")))
        np.testing.assert_array_equal(counted[0, :, :, 0], [[4, 6], [6, 9]])
        assert convolution.strides == (2, 2)

    def test_batch_norm_is_pytorchs_and_synchronized(
        self, resnet18, resnet50, wide_resnet
    ):
        for model, count in [
            (resnet18, 20),
            (resnet50, 53),
            (wide_resnet, 2 * 3 + 1),
            (small.cnn4(), 2),
            (small.cnn8(), 7),
        ]:
            inside = norms(model)
            assert len(inside) == count
            assert {
                (n.momentum, n.epsilon, n.synchronized) for n in inside
            } == {(0.9, 1e-5, True)}

    def test_resnet_under_attack_keeps_its_statistics(self):
        model = resnet.resnet18((8, 8, 3), 4)
        before = model.get_weights()
        start = tf.constant(images(2, 8, 8, 3))

        @tf.function
        def climb():
            def step(i, x):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    total = tf.reduce_sum(model(x, training=False)[:, 0])
                return i + 1, x + 0.1 * tf.sign(tape.gradient(total, x))

            return tf.while_loop(lambda i, _: i < 3, step, (0, start))[1]

        climbed = climb()
        assert np.abs(climbed - start).max() > 0.25
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    @pytest.mark.parametrize(
        "function, least",
        [
            (small.small_cnn, 16),
            (small.digits_cnn, 4),
            (small.cnn4, 4),
            (small.cnn8, 8),
        ],
    )
    def test_smallest_images(self, function, least):
        model = function((least, least, 3), 7)
        assert model(images(2, least, least, 3)).shape == (2, 7)
        with pytest.raises(ValueError, match=f"at least {least}x{least}"):
            function((least, least - 1, 3), 7)


def assert_normal(kernel, variance):
    """Drawn from N(0, sqrt(variance)), of 30,000 numbers or more."""
    scaled = kernel.numpy() / math.sqrt(variance)
    # The standard error of the deviation is at most 0.4 %.
    assert abs(scaled.std() - 1.0) < 0.02
    assert abs(scaled.mean()) < 0.02
    # A truncated normal has nothing beyond 2.3 after rescaling.
    assert 0.0017 < (np.abs(scaled) > 3).mean() < 0.0038


class TestInitialWeights:
    def test_convolutions_are_kaiming_normal_and_untruncated(self):
        kernel = small.small_cnn().get_layer("conv4").kernel
        assert_normal(kernel, 2 / (3 * 3 * 64))

    def test_batch_norm_cnns_are_kaiming_normal_with_zero_biases(self):
        for model, fan_in in [
            (small.cnn4(), {"dense1": 7 * 7 * 64}),
            (small.cnn8(), {"conv3": 9 * 64, "conv6": 9 * 196}),
        ]:
            for name, inputs in fan_in.items():
                assert_normal(model.get_layer(name).kernel, 2 / inputs)
            for weight in model.weights:
                if weight.name in ("bias", "beta"):
                    assert not weight.numpy().any()

    @pytest.mark.parametrize(
        ("name", "shape"),
        [
            ("small_cnn", (16, 16, 3)),
            ("digits_cnn", (8, 8, 1)),
            ("cnn4", (16, 16, 3)),
            ("cnn8", (16, 16, 3)),
            ("resnet18", (8, 8, 3)),
            ("wide_resnet:depth=10:width=2", (8, 8, 3)),
        ],
    )
    def test_the_first_loss_is_near_that_of_equal_scores(self, name, shape):
        # As in training; log 10 = 2.30, and large logits kill hidden units.
        model = loading.build(name, shape, 10)
        logits = model(images(64, *shape), training=True)
        p = tf.nn.softmax(logits).numpy()
        assert 2.2 < -np.log(p[np.arange(64), np.arange(64) % 10]).mean() < 2.6

    def test_wide_resnet_is_normal_by_its_outputs(self):
        model = preactivation.wide_resnet(depth=10, width=8)
        for name, outputs in [
            ("stage1_1_conv1", 9 * 128),
            ("stage2_1_shortcut", 256),
            ("stage3_1_conv2", 9 * 512),
        ]:
            assert_normal(model.get_layer(name).kernel, 2 / outputs)
        for layer in norms(model):
            assert (layer.gamma.numpy() == 1.0).all()
            assert not layer.beta.numpy().any()
        logits = model.get_layer("logits")
        assert not logits.bias.numpy().any()
        bound = 512**-0.5
        assert 0.99 * bound < np.abs(logits.kernel.numpy()).max() <= bound

    def test_dense_layers_are_uniform_up_to_one_over_root_fan_in(self):
        model = small.small_cnn()
        for name, fan_in in [("dense1", 1024), ("dense2", 200)]:
            bound = fan_in**-0.5
            layer = model.get_layer(name)
            for weight in (layer.kernel.numpy(), layer.bias.numpy()):
                assert np.abs(weight).max() <= bound
                assert np.abs(weight).max() > 0.97 * bound
                assert abs(weight.std() / (bound / math.sqrt(3)) - 1) < 0.15

    def test_zero_biases_and_zero_last_layer(self):
        for model in (small.small_cnn(), small.digits_cnn()):
            for name in ("conv1", "conv2", "conv3", "conv4", "logits"):
                assert not model.get_layer(name).bias.numpy().any()
            assert not model.get_layer("logits").kernel.numpy().any()
            assert not model(images(2, *model.input_shape[1:])).numpy().any()

    def test_resnet_is_uniform_up_to_one_over_root_fan_in(
        self, resnet18, resnet50
    ):
        for model, name, fan_in in [
            (resnet18, "stem", 27),
            (resnet18, "stage2_1_shortcut", 64),
            (resnet18, "stage4_2_conv2", 9 * 512),
            (resnet18, "logits", 512),
            (resnet50, "stage1_1_conv3", 64),
            (resnet50, "stage4_3_conv1", 2048),
            (resnet50, "logits", 2048),
        ]:
            kernel = model.get_layer(name).kernel.numpy()
            assert 0.99 < np.abs(kernel).max() * math.sqrt(fan_in) <= 1.0
            # A uniform variable's deviation is its bound over root 3.
            scaled = kernel.std() * math.sqrt(3 * fan_in)
            assert abs(scaled - 1.0) < 0.04
        preact = preactivation.preact_resnet18()
        kernel = preact.get_layer("stage4_2_conv2").kernel.numpy()
        assert 0.99 < np.abs(kernel).max() * math.sqrt(9 * 512) <= 1.0
        for model, fan_in in [
            (resnet18, 512),
            (resnet50, 2048),
            (preact, 512),
        ]:
            bias = model.get_layer("logits").bias.numpy()
            assert 0.0 < np.abs(bias).max() <= fan_in**-0.5

    @pytest.mark.parametrize(
        "function, shape",
        [
            (small.small_cnn, (16, 16, 1)),
            (small.digits_cnn, (8, 8, 1)),
            (small.cnn4, (8, 8, 1)),
            (small.cnn8, (8, 8, 3)),
            (resnet.resnet18, (4, 4, 1)),
            (tiny_wide_resnet, (4, 4, 3)),
        ],
    )
    def test_a_function_of_the_seed(self, function, shape):
        keras.utils.set_random_seed(1)
        first = function(shape, seed=3)
        keras.utils.set_random_seed(2)
        again = function(shape, seed=3)
        other = function(shape, seed=4)
        # A name that Keras made up would count the layers made so far.
        names = [layer.name for layer in first.layers]
        assert names == [layer.name for layer in again.layers]
        for a, b, c in zip(
            first.weights, again.weights, other.weights, strict=True
        ):
            np.testing.assert_array_equal(a, b)
            if np.unique(a).size > 1:
                assert not np.array_equal(a, c)

    def test_a_network_that_its_first_call_builds_is_of_the_seed(
        self, tmp_path, monkeypatch
    ):
        (tmp_path / "mine_lazy.py").write_text(
            "import keras\n\nclass Scores(keras.layers.Layer):\n"
            "    def build(self, shape):\n"
            "        self.kernel = self.add_weight(shape=(shape[-1], 3))\n\n"
            "    def call(self, x):\n"
            "        return x @ self.kernel\n\n"
            "def build(input_shape, num_classes):\n"
            "    return keras.Sequential([keras.layers.Flatten(), Scores()])\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        state = random.getstate()
        one, same, another = (
            loading.build("mine_lazy:build", (2, 2, 1), 3, seed=seed)
            for seed in (0, 0, 1)
        )
        one, same, another = (
            each.get_weights()[0] for each in (one, same, another)
        )
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, another)
        # The caller's own random numbers go on as before.
        assert random.getstate() == state

    def test_renewing_leaves_the_callers_random_numbers_alone(self):
        keras.utils.set_random_seed(7)
        expected = random.random(), np.random.rand()  # noqa: NPY002
        keras.utils.set_random_seed(7)
        rebuilding.renewed(small.digits_cnn((8, 8, 1)), seed=1)
        assert expected == (random.random(), np.random.rand())  # noqa: NPY002

    def test_layers_of_one_shape_differ(self, resnet18):
        first = resnet18.get_layer("stage1_1_conv1").kernel.numpy()
        second = resnet18.get_layer("stage1_1_conv2").kernel.numpy()
        assert not np.array_equal(first, second)


class TestPrecision:
    @pytest.mark.parametrize(
        "name, shape",
        [
            ("small_cnn", (16, 16, 1)),
            ("digits_cnn", (8, 8, 1)),
            ("cnn4", (8, 8, 1)),
            ("cnn8", (8, 8, 3)),
            ("resnet18", (8, 8, 3)),
            ("resnet50", (8, 8, 3)),
            ("wide_resnet:depth=10:width=1", (8, 8, 3)),
        ],
    )
    def test_float32_logits_and_weights_of_a_bfloat16_network(
        self, name, shape
    ):
        model = loading.build(name, shape, 5, precision="mixed_bfloat16")
        logits = randomized(model)(images(4, *shape))
        assert logits.dtype == tf.float32
        assert {weight.dtype for weight in model.weights} == {"float32"}
        convolution = next(
            layer
            for layer in model.layers
            if isinstance(layer, keras.layers.Conv2D)
        )
        assert convolution.compute_dtype == "bfloat16"
        # Rounding to bfloat16 would leave the lower 16 bits at zero.
        bits = np.asarray(logits).view("uint32")
        assert (bits & 0xFFFF).any()

    def test_a_bfloat16_network_is_the_float32_one_rounded_at_each_layer(self):
        spec, shape = "wide_resnet:depth=10:width=1", (8, 8, 3)
        mixed = loading.build(spec, shape, 5, precision="mixed_bfloat16")
        plain = loading.build(spec, shape, 5)

        def call(layer, *inputs, **options):
            made = layer(*inputs, **options)
            return made if layer.name == "logits" else Rounded()(made)

        rounded = keras.models.clone_model(plain, call_function=call)
        weights, batch = mixed.get_weights(), images(4, *shape)
        plain.set_weights(weights)
        # The last layer's are float32 in both.
        halved = [*map(in_bfloat16, weights[:-2]), *weights[-2:]]
        rounded.set_weights(halved)
        logits, gradients = of_training(mixed, batch)
        expected = of_training(rounded, in_bfloat16(batch))
        np.testing.assert_allclose(logits, expected[0], atol=1e-5)
        # Of oneDNN 0.004; Eigen sums a kernel's gradient in bfloat16: 0.02.
        assert apart(gradients, expected[1]) < 0.03
        unlike = of_training(plain, batch)
        assert np.abs(logits - unlike[0]).max() > 1e-3
        assert apart(gradients, unlike[1]) > 0.1

    def test_the_policy_does_not_leak(self):
        loading.build("digits_cnn", (8, 8, 1), 10, precision="mixed_bfloat16")
        with pytest.raises(ValueError):
            loading.build(
                "small_cnn", (8, 8, 1), 10, precision="mixed_bfloat16"
            )
        assert keras.config.dtype_policy().name == "float32"

    @pytest.mark.parametrize(
        "name, shape",
        [
            ("small_cnn", (16, 16, 1)),
            ("resnet18", (8, 8, 3)),
            ("wide_resnet:depth=10:width=1", (8, 8, 3)),
        ],
    )
    def test_float32_copy_is_the_float32_network(self, name, shape):
        mixed = loading.build(name, shape, 5, precision="mixed_bfloat16")
        plain = loading.build(name, shape, 5)
        plain.set_weights(randomized(mixed).get_weights())
        copy = rebuilding.float32_copy(mixed)
        batch = images(4, *shape)
        expected = plain(batch, training=False).numpy()
        np.testing.assert_array_equal(copy(batch, training=False), expected)
        assert not np.array_equal(mixed(batch, training=False), expected)

    def test_a_float32_network_is_its_own_copy(self):
        model = small.digits_cnn()
        assert rebuilding.float32_copy(model) is model

    def test_nested_layers_and_a_cast_inside_the_graph(self):
        inner = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(16, activation="relu", dtype="float16"),
            ]
        )
        inputs = keras.Input((8, 8, 1))
        x = keras.ops.cast(inner(inputs), "bfloat16")
        x = keras.layers.Dense(8, dtype="mixed_bfloat16")(x)
        model = keras.Model(inputs, keras.layers.Dense(3)(x))
        copy = rebuilding.float32_copy(randomized(model))
        batch = images(4, 8, 8, 1)
        w = [np.asarray(weight, "float32") for weight in model.get_weights()]
        x = np.maximum(batch.reshape(4, 64) @ w[0] + w[1], 0.0)
        expected = (x @ w[2] + w[3]) @ w[4] + w[5]
        np.testing.assert_allclose(copy(batch), expected, rtol=1e-5, atol=1e-6)

    def test_a_users_network_in_bfloat16_keeps_its_head_in_float32(self):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(4, 3),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
                keras.layers.Softmax(),
            ]
        )
        mixed = rebuilding.with_precision(model, "mixed_bfloat16")
        assert [layer.compute_dtype for layer in mixed.layers] == [
            "bfloat16",
            "bfloat16",
            "float32",
            "float32",
        ]
        batch = images(2, 8, 8, 1)
        np.testing.assert_allclose(mixed(batch), model(batch), atol=0.02)
        assert model.layers[0].compute_dtype == "float32"

    def test_a_normalization_keeps_the_mean_that_it_learned(self):
        mean = keras.layers.Normalization(axis=None, dtype="mixed_bfloat16")
        seen = images(50, 8, 8, 1)
        mean.adapt(seen)
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                mean,
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        batch = images(3, 8, 8, 1)
        kernel, bias = network.layers[-1].get_weights()
        shares = (batch.reshape(3, 64) - seen.mean()) / seen.std()
        np.testing.assert_allclose(
            rebuilding.float32_copy(network)(batch),
            shares @ kernel + bias,
            rtol=1e-4,
            atol=1e-5,
        )

    @pytest.mark.parametrize("own", [None, "mixed_bfloat16"])
    def test_a_layer_inside_of_a_layer(self, own):
        @keras.saving.register_keras_serializable("layers_in_layers")
        class Outer(keras.layers.Layer):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.inner = keras.layers.Dense(3, dtype=own)

            def build(self, shape):
                self.inner.build(shape)

            def call(self, inputs):
                return self.inner(inputs)

        with rebuilding.policy("mixed_bfloat16"):
            outer = Outer(dtype="float32")
        model = keras.Sequential([keras.Input((2,)), outer])
        if own:
            with pytest.raises(ValueError, match="cannot be rebuilt in float3"):
                rebuilding.float32_copy(model)
            return
        copy = rebuilding.float32_copy(model)
        assert copy.layers[0].inner.compute_dtype == "float32"
        batch = images(4, 2)
        kernel, bias = model.get_weights()
        np.testing.assert_allclose(
            copy(batch), batch @ kernel + bias, rtol=1e-6
        )

    def test_a_network_that_cannot_be_rebuilt(self):
        class Unregistered(keras.layers.Layer):
            def call(self, inputs):
                return inputs

        model = keras.Sequential(
            [keras.Input((2,)), Unregistered(dtype="mixed_bfloat16")]
        )
        with pytest.raises(ValueError, match="cannot be rebuilt in float32"):
            rebuilding.float32_copy(model)


class TestSoftmax:
    def build(self, *last):
        return keras.Sequential(
            [
                keras.Input((4, 4, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
                *last,
            ]
        )

    def test_logits(self, resnet18):
        assert not loading.ends_in_softmax(small.small_cnn())
        assert not loading.ends_in_softmax(resnet18)
        assert not loading.ends_in_softmax(self.build())

    @pytest.mark.parametrize(
        "last",
        [
            [keras.layers.Softmax()],
            [keras.layers.Dense(2, activation="softmax")],
            [keras.layers.Activation("softmax")],
            [keras.layers.Softmax(), keras.layers.Reshape((3,))],
        ],
    )
    def test_probabilities(self, last):
        model = self.build(*last)
        assert loading.ends_in_softmax(model)
        inputs = keras.Input((4, 4, 1))
        assert loading.ends_in_softmax(keras.Model(inputs, model(inputs)))

    def test_an_operation_and_a_subclassed_network(self):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.ops.softmax(inputs))
        assert loading.ends_in_softmax(model)

        class Subclassed(keras.Model):
            def call(self, inputs):
                return tf.nn.softmax(inputs)

        batch = images(4, 3)
        assert loading.ends_in_softmax(Subclassed(), batch)
        assert not loading.ends_in_softmax(Subclassed())

    def test_networks_of_two_replicas(self):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = resnet.resnet18((8, 8, 3))
            softmax = self.build(
                keras.layers.Softmax(), keras.layers.Reshape((3,))
            )
        assert not loading.ends_in_softmax(model)
        assert loading.ends_in_softmax(softmax)

    @pytest.mark.parametrize(
        ("last", "name"),
        [
            ([keras.layers.Dense(2, activation="sigmoid")], "sigmoid"),
            ([keras.layers.Activation("tanh")], "tanh"),
            (
                [keras.layers.Dense(2, activation="hard_sigmoid")],
                "hard_sigmoid",
            ),
            ([keras.layers.ReLU(), keras.layers.Dense(2)], None),
            ([keras.layers.Softmax()], None),
        ],
    )
    def test_bounded_scores_are_told(self, last, name):
        model = self.build(*last)
        assert loading.squashed(model) == name
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.ops.sigmoid(inputs))
        assert loading.squashed(model) == "sigmoid"

    def test_bounded_scores_are_refused(self):
        model = self.build(keras.layers.Dense(3, activation="sigmoid"))
        with pytest.raises(ValueError, match="in a sigmoid, which bounds its"):
            model_outputs.check_declared(model, "logits")

    def test_a_softmax_inside_is_not_at_the_end(self):
        model = self.build(keras.layers.Softmax(), keras.layers.Dense(3))
        assert not loading.ends_in_softmax(model)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A directory with a user's own network, where the user stands."""
    (tmp_path / "our_networks.py").write_text(
        textwrap.dedent("""
            import keras

            def linear(input_shape, num_classes):
                return keras.Sequential([
                    keras.Input(input_shape),
                    keras.layers.Flatten(),
                    keras.layers.Dense(num_classes),
                ])

            def two_too_many(input_shape, num_classes):
                return linear(input_shape, num_classes + 2)

            def map_of_scores(input_shape, num_classes):
                return keras.Sequential([
                    keras.Input(input_shape), keras.layers.Conv2D(4, 1)
                ])

            def two_heads(input_shape, num_classes):
                images = keras.Input(input_shape)
                flat = keras.layers.Flatten()(images)
                return keras.Model(images, [
                    keras.layers.Dense(num_classes, name=name)(flat)
                    for name in ("left", "right")
                ])

            def nothing(input_shape, num_classes):
                return None
        """)
    )
    broken = "import no_such_module\nf = None\n"
    (tmp_path / "broken_networks.py").write_text(broken)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("our_networks", "broken_networks"):
        sys.modules.pop(name, None)


class TestBuild:
    def test_a_name_of_the_table(self):
        model = loading.build("digits_cnn", (8, 8, 1), 10, seed=5)
        expected = small.digits_cnn((8, 8, 1), 10, seed=5)
        for a, b in zip(model.weights, expected.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        assert models.build is loading.build

    def test_a_keras_file(self, tmp_path):
        path = str(tmp_path / "model.keras")
        saved = randomized(small.digits_cnn())
        saved.save(path)
        batch = images(3, 8, 8, 1)
        model = loading.build(path, (8, 8, 1), 10)
        np.testing.assert_array_equal(model(batch), saved(batch))
        mixed = loading.build(path, (8, 8, 1), 10, precision="mixed_bfloat16")
        assert mixed.get_layer("conv1").compute_dtype == "bfloat16"
        assert mixed(batch).dtype == tf.float32

    def test_a_keras_file_anew(self, tmp_path):
        path = str(tmp_path / "model.keras")
        mean = keras.layers.Normalization(axis=None)
        mean.adapt(images(50, 8, 8, 1))
        seeded = keras.initializers.HeNormal(seed=3)
        saved = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                mean,
                keras.layers.Conv2D(3, 3, kernel_initializer=seeded),
                keras.layers.BatchNormalization(),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        saved(images(8, 8, 8, 1), training=True)
        saved.save(path)
        first, again, other = (
            loading.build(path, (8, 8, 1), 10, seed=seed, anew=True)
            for seed in (1, 1, 2)
        )
        for a, b in zip(first.weights, again.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        for layer in (1, 4):
            kernels = [
                model.layers[layer].kernel for model in (first, other, saved)
            ]
            for a, b in itertools.combinations(kernels, 2):
                assert np.abs(a - b).max() > 0.01
        # Batch norm learned its statistics in training, the first layer those
        # of the data before it.
        assert not np.any(first.layers[2].moving_mean)
        np.testing.assert_array_equal(first.layers[0].mean, mean.mean)

    def frozen(self):
        features = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(4, 3),
                keras.layers.BatchNormalization(),
                keras.layers.Flatten(),
            ]
        )
        features(images(8, 8, 8, 1), training=True)
        features.trainable = False
        return keras.Sequential([features, keras.layers.Dense(10)])

    def frozen_inside_a_layer(self):
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), _Frozen(), keras.layers.Dense(10)]
        )
        model.layers[0].scale.adapt(images(9, 8, 8, 1))
        return model

    @pytest.mark.parametrize("made", [frozen, frozen_inside_a_layer])
    def test_what_is_frozen_is_not_drawn_anew(self, made, tmp_path):
        """Nothing would train it: it would stay as it was drawn."""
        saved = made(self)
        path = str(tmp_path / "frozen.keras")
        saved.save(path)
        anew = loading.build(path, (8, 8, 1), 10, seed=1, anew=True)
        assert len(anew.trainable_weights) == 2
        for new, old in zip(anew.weights[:-2], saved.weights[:-2], strict=True):
            np.testing.assert_array_equal(new, old)
        gap = np.abs(anew.layers[-1].kernel - saved.layers[-1].kernel)
        assert gap.max() > 0.01

    def test_a_function(self, project):
        model = loading.build("our_networks:linear", (8, 8, 1), 4)
        assert model(images(2, 8, 8, 1)).shape == (2, 4)

    @pytest.mark.parametrize(
        "spec, sentence",
        [
            ("resnet81", r"Unknown model 'resnet81'; did you mean 'resnet18'"),
            ("resnet18:depth=3", r"'resnet18' has no option 'depth'"),
            ("resnet18:seed=3", r"'resnet18' has no option 'seed'"),
            ("vgg:depth=11", r"Unknown model 'vgg'; expected one of"),
            ("absent.keras", r"'absent\.keras' does not exist"),
            ("no_such_module:f", r"module 'no_such_module', which cannot be"),
            ("broken_networks:f", r"mporting 'broken_networks' failed"),
            ("our_networks:f", r"module 'our_networks' has no 'f'"),
            ("our_networks:nothing", r"returned a NoneType"),
            ("our_networks:two_heads", r"has 2 outputs \(left, right\); expec"),
            ("our_networks:two_too_many", r"has 12 outputs and .* 10 classes"),
            ("our_networks:map_of_scores", r"returns \(1, 8, 8, 4\) for one"),
            ("small_cnn", r"images of 8x8 pixels; expected at least 16x16"),
            ("wide_resnet:dept=10", r"did you mean 'depth'"),
            ("wide_resnet:depth=ten", r"depth=ten: expected a whole number"),
            ("wide_resnet:depth=33", r"has depth 33; expected 6n \+ 4 with"),
            ("wide_resnet:depth=4", r"has depth 4; expected 6n \+ 4 with"),
            ("wide_resnet:depth=-2", r"has depth -2; expected 6n \+ 4 with"),
            ("wide_resnet:width=0", r"has width 0; expected a whole number"),
        ],
    )
    def test_refusals(self, project, spec, sentence):
        with pytest.raises(ValueError, match=sentence) as caught:
            loading.build(spec, (8, 8, 1), 10)
        assert "\n" not in str(caught.value)

    def test_a_damaged_file(self, tmp_path):
        path = tmp_path / "model.keras"
        path.write_bytes(b"not a zip archive")
        with pytest.raises(ValueError, match="cannot be read"):
            loading.build(str(path), (8, 8, 1), 10)

    def test_images_of_another_shape(self, project):
        path = str(project / "model.keras")
        small.digits_cnn().save(path)
        with pytest.raises(
            ValueError, match=r"the data set have shape \(28, 28, 1\)"
        ):
            loading.build(path, (28, 28, 1), 10)
        with pytest.raises(ValueError, match=r"needs images of shape"):
            loading.build("digits_cnn", (64,), 10)

    def test_a_network_that_fails_on_the_images(self, project):
        # Any size fits the input, but only 256 pixels the layers.
        model = keras.Sequential(
            [
                keras.Input((None, None, 1)),
                keras.layers.Reshape((256,)),
                keras.layers.Dense(10),
            ]
        )
        model.save("large.keras")
        with pytest.raises(ValueError, match="fails on the images of the da"):
            loading.build("large.keras", (8, 8, 1), 10)

    def test_an_unknown_precision(self):
        with pytest.raises(ValueError, match="did you mean 'mixed_bfloat16'"):
            loading.build("digits_cnn", (8, 8, 1), 10, precision="bfloat16")

    @pytest.mark.parametrize("depth", [32, 34.0, "34"])
    def test_a_depth_that_no_wide_resnet_has(self, depth):
        with pytest.raises(ValueError, match="such as 10, 16, 28 or 34"):
            preactivation.wide_resnet(depth=depth)

    def test_names_are_checked_without_tensorflow(self, project):
        kind, spec = names.check("our_networks:linear")
        assert (kind, spec.import_path) == ("function", "our_networks:linear")
        assert names.check("digits_cnn")[0] == "table"
        # Importing a module that is None raises ImportError.
        code = textwrap.dedent("""
            import sys
            sys.modules["tensorflow"] = sys.modules["keras"] = None
            from mart_tf.models import names
            names.check("wide_resnet:depth=10:width=1")
            try:
                names.check("wide_resnet:depth=12")
            except ValueError as error:
                print(error)
        """)
        search = [str(path) for path in sys.path if path]
        process = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            env={"PYTHONPATH": ":".join(search)},
            capture_output=True,
            text=True,
        )
        assert process.stdout == (
            "Model 'wide_resnet' has depth 12; expected 6n + 4 with a whole n "
            "of at least 1, such as 10, 16, 28 or 34, and at most 1000.\n"
        )
