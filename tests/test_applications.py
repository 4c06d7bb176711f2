"""keras.applications by name: pixels, images, weights, replicas, programs."""

import importlib
import inspect
import json
import subprocess
import sys

import keras
import numpy as np
import programs
import pytest
import small_runs
import tensorflow as tf

import mart_tf
from mart_tf import models
from mart_tf.models import application_names
from mart_tf.models import applications
from mart_tf.models import loading
from mart_tf.models import names
from mart_tf.runs import devices

SMALL = "keras:MobileNetV2:alpha=0.35"
# Epochs of two steps.
RUN = {
    "model": "keras:name=MobileNet:alpha=0.1:size=32:momentum=0.9",
    "defense": "standard",
    "pixel_max": 255.0,
    "attack_steps": 1,
    "batch_size": 512,
    "schedule": "constant",
}


def keras_home(folder):
    """A `setup` of a program for which Keras looks for its files there."""
    place = f"keras.src.backend.config._KERAS_DIR = {str(folder)!r}"
    return f"import keras; {place}"


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, "float32")


def settled(model):
    """The model with batch norms whose statistics are those of a batch.

    With the initial ones a deep network's scores are all but equal.
    """
    kept = [layer.momentum for layer in norms(model)]
    for layer in norms(model):
        layer.momentum = 0.0
    model(images(16, *model.input_shape[1:], seed=1), training=True)
    for layer, momentum in zip(norms(model), kept, strict=True):
        layer.momentum = momentum
    return model


def norms(model):
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def own(alpha=0.35, shape=(32, 32, 3), classes=10, **settings):
    """The network as a user of Keras makes it."""
    return keras.applications.MobileNetV2(
        input_shape=shape,
        alpha=alpha,
        weights=None,
        classes=classes,
        classifier_activation=None,
        **settings,
    )


class TestNames:
    def test_every_network_of_this_keras_has_its_place(self):
        there = {
            name
            for name in dir(keras.applications)
            if callable(getattr(keras.applications, name))
        }
        assert set(application_names.networks()) == there
        for import_path in application_names.networks().values():
            application_names.PREPROCESSING[
                application_names.module_of(import_path)
            ]

    @pytest.mark.parametrize(
        "spec, short, whole",
        [
            (
                "keras:MobileNetV2",
                "keras:MobileNetV2",
                "keras:MobileNetV2:weights=none:size=none:momentum=none:alpha=1",
            ),
            (
                "keras:name=MobileNetV2:alpha=0.35",
                "keras:MobileNetV2:alpha=0.35",
                "keras:MobileNetV2:weights=none:size=none:momentum=none:alpha=0.35",
            ),
            (
                "keras:MobileNetV3Small:minimalistic=true:size=32",
                "keras:MobileNetV3Small:size=32:minimalistic=true",
                "keras:MobileNetV3Small:weights=none:size=32:momentum=none:alpha=1:"
                "minimalistic=true:dropout_rate=0.2",
            ),
        ],
    )
    def test_the_one_grammar(self, spec, short, whole):
        assert names.canonical(spec) == short
        assert names.complete(spec) == names.complete(short) == whole
        assert names.complete(whole) == whole

    def test_what_is_recorded_is_what_the_network_has(self):
        """Of weights=imagenet Keras's own head, which drops out, is gone."""
        whole = names.complete("keras:MobileNet:weights=imagenet")
        assert "dropout" not in whole
        assert names.complete(whole) == whole
        assert "dropout=0.001" in names.complete("keras:MobileNet")

    @pytest.mark.parametrize("name", sorted(application_names.networks()))
    def test_momentum_is_of_networks_with_batch_norm(self, name):
        source = inspect.getsource(
            sys.modules[getattr(keras.applications, name).__module__]
        )
        spec = f"keras:{name}:momentum=0.5"
        # The second version of ResNet is written in the file of the first.
        if "BatchNormalization(" in source or "resnet.ResNet(" in source:
            names.check(spec)
        else:
            with pytest.raises(ValueError, match="expected no momentum"):
                names.check(spec)

    @pytest.mark.parametrize(
        "spec, message",
        [
            ("keras", "'keras' names no network; expected keras:NAME with one"),
            ("keras:MobileNetV4", "'MobileNetV4'; did you mean 'MobileNetV2'?"),
            ("keras:os:path", "Unknown network of keras.applications 'os'"),
            (
                "keras:VGG16:name=VGG19",
                "twice; expected keras:VGG16 or keras:VGG19.",
            ),
            (
                f"{SMALL}:alhpa=1",
                "no option 'alhpa'; did you mean 'alpha'? its options: "
                "weights, size, momentum, alpha.",
            ),
            ("keras:ResNet50:alpha=1", "its options: weights, size, momentum."),
            ("keras:ResNet50:include_top=false", "no option 'include_top'"),
            ("keras:ResNet50:weights=mine", "expected one of: imagenet, none"),
            ("keras:MobileNet:alpha=0", "alpha=0; expected a number above 0"),
            ("keras:MobileNet:dropout=1", "at least 0 and below 1"),
            ("keras:VGG16:momentum=0.9", "has no batch norm; expected no mom"),
            (
                "keras:MobileNet:weights=imagenet:dropout=0.9",
                "a new head, without dropout; expected no dropout.",
            ),
            (
                "keras:MobileNetV3Small:dropout_rate=0.5:weights=imagenet",
                "expected no dropout_rate.",
            ),
            (f"{SMALL}:momentum=1", "momentum=1; expected a number of at"),
            ("MobileNetV2", "did you mean 'keras:MobileNetV2'?"),
            ("keras.applications:VGG16", "did you mean 'keras:VGG16'?"),
        ],
    )
    def test_refuses_in_one_sentence(self, spec, message):
        with pytest.raises(ValueError) as error:
            names.check(spec)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_checks_without_tensorflow(self):
        code = (
            "import sys; from mart_tf.models import names; "
            f"names.complete({SMALL!r}); "
            "assert not {'keras', 'tensorflow'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_in_python_the_same_is_refused(self):
        with pytest.raises(ValueError, match="did you mean 'MobileNetV2'"):
            models.application((32, 32, 3), 10, "MobileNetV4")
        with pytest.raises(ValueError, match="expected a number above 0"):
            models.application((32, 32, 3), 10, "MobileNetV2", alpha=-1.0)
        with pytest.raises(ValueError, match="expected no momentum"):
            models.application((32, 32, 3), 10, "VGG16", momentum=0.9)
        with pytest.raises(ValueError, match="cannot be built: .*beta"):
            models.application((32, 32, 3), 10, "MobileNetV2", beta=1)


class TestPreprocessing:
    @pytest.mark.parametrize("module", sorted(application_names.PREPROCESSING))
    @pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.0, 255.0), (-1, 3)])
    def test_it_is_the_applications_own(self, module, low, high):
        theirs = importlib.import_module(f"keras.applications.{module}")
        levels = 255 * images(3, 4, 5, 3)
        inputs = keras.Input((4, 5, 3))
        network = keras.Model(
            inputs, applications.preprocessed(inputs, module, (low, high))
        )
        np.testing.assert_allclose(
            network(low + (high - low) / 255 * levels),
            theirs.preprocess_input(levels.copy()),
            rtol=1e-5,
            atol=2e-4,
        )

    def test_the_whole_network_is_the_applications(self):
        """On pixels from 0 to 1 and from 0 to 255."""
        theirs = settled(own())
        levels = 255 * images(4, 32, 32, 3)
        expected = theirs(
            keras.applications.mobilenet_v2.preprocess_input(levels.copy()),
            training=False,
        )
        for high in (1.0, 255.0):
            model = loading.build(
                SMALL, (32, 32, 3), 10, pixel_range=(0.0, high)
            )
            model.set_weights(theirs.get_weights())
            logits = model(levels * high / 255, training=False)
            np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)

    def test_the_preprocessing_inside_a_network_comes_after_ours(self):
        model = loading.build(
            "keras:MobileNetV3Small:minimalistic=true", (32, 32, 3), 10
        )
        inner = [
            layer
            for layer in model.layers
            if isinstance(layer, keras.layers.Rescaling)
        ]
        assert len(inner) == 2
        tail = keras.Model(model.input, inner[1].output)
        np.testing.assert_allclose(
            tail(images(2, 32, 32, 3)),
            2 * images(2, 32, 32, 3) - 1,
            atol=1e-5,
        )

    def test_a_grey_image_is_three_equal_channels(self):
        grey = settled(loading.build(SMALL, (32, 32, 1), 10))
        colour = loading.build(SMALL, (32, 32, 3), 10)
        colour.set_weights(grey.get_weights())
        batch = images(3, 32, 32, 1)
        np.testing.assert_allclose(
            grey(batch, training=False),
            colour(np.repeat(batch, 3, -1), training=False),
            rtol=1e-3,
            atol=1e-4,
        )

    def test_an_attack_goes_through_it(self):
        model = settled(loading.build(f"{SMALL}:size=32", (8, 8, 1), 10))
        threat = mart_tf.ThreatModel(epsilon=1e-3)
        batch, labels = images(4, 8, 8, 1), np.arange(4)
        before = model.get_weights()

        def classify(x):
            return model(x, training=False)

        def loss(x):
            return mart_tf.losses.cross_entropy(labels, classify(x)).numpy()

        adversarial = mart_tf.attacks.fgsm(classify, batch, labels, threat)
        assert (loss(adversarial) > loss(batch)).all()
        # Called as Keras users call it, it does not train either.
        model(batch)
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


class TestImages:
    @pytest.mark.parametrize("name", sorted(application_names.networks()))
    def test_the_least_size_is_kerass(self, name):
        least = application_names.least_size(name)
        with pytest.raises(ValueError, match=f"at least {least}x{least}"):
            getattr(keras.applications, name)(
                input_shape=(least - 1, least, 3), weights=None, classes=10
            )

    @pytest.mark.parametrize(
        "spec, shape, message",
        [
            (
                SMALL,
                (8, 8, 1),
                "got images of 8x8 pixels; expected at least 32x32: "
                "keras:MobileNetV2:size=32 enlarges them",
            ),
            ("keras:Xception", (70, 71, 3), "keras:Xception:size=71 enlarges"),
            ("keras:InceptionV3:size=74", (8, 8, 1), "expected at least 75"),
            (
                f"{SMALL}:size=32",
                (64, 48, 3),
                "has size=32, and the images have 64x48 pixels; expected at "
                "least 64",
            ),
            (SMALL, (32, 32, 4), "of 4 channels; expected 3"),
            (SMALL, (32, 32), "needs images of shape"),
        ],
    )
    def test_refuses_before_anything_is_built(self, spec, shape, message):
        with pytest.raises(ValueError) as error:
            loading.build(spec, shape, 10)
        assert message in str(error.value)

    def test_size_enlarges_inside(self):
        """As TensorFlow does outside."""
        small = settled(loading.build(f"{SMALL}:size=32", (8, 8, 3), 10))
        large = loading.build(SMALL, (32, 32, 3), 10)
        large.set_weights(small.get_weights())
        batch = images(3, 8, 8, 3)
        np.testing.assert_allclose(
            small(batch, training=False),
            large(tf.image.resize(batch, (32, 32)), training=False),
            rtol=1e-3,
            atol=1e-4,
        )


class TestWeights:
    # ConvNeXt has layers in Sequentials.
    @pytest.mark.parametrize("network", [SMALL, "keras:ConvNeXtTiny"])
    def test_initial_weights_follow_the_seed_alone(self, network):
        first = loading.build(network, (32, 32, 3), 10, seed=3)
        keras.utils.set_random_seed(7)
        keras.layers.Dense(3)
        again = loading.build(network, (32, 32, 3), 10, seed=3)
        other = loading.build(network, (32, 32, 3), 10, seed=4)
        for a, b, c in zip(
            first.weights, again.weights, other.weights, strict=True
        ):
            np.testing.assert_array_equal(a, b)
            if np.unique(a).size > 1:
                assert not np.array_equal(a, c)
        if network == SMALL:
            assert first.count_params() == own().count_params()

    def test_weights_that_are_none_of_its_own(self):
        with pytest.raises(ValueError) as error:
            models.application(
                (32, 32, 3), 10, "MobileNetV2", weights="my.weights.h5"
            )
        assert str(error.value) == (
            "Model keras:MobileNetV2 has weights='my.weights.h5'; expected "
            "none or imagenet. Those of a file: --init_from=FILE, or "
            "load_weights."
        )

    def test_layers_that_keras_numbers(self):
        """Whatever was built before."""
        build = "keras:Xception"
        first = loading.build(build, (71, 71, 3), 4)
        keras.layers.Conv2D(3, 3)
        again = loading.build(build, (71, 71, 3), 4)
        for a, b in zip(first.weights, again.weights, strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(
        "spec", [SMALL, "keras:MobileNetV3Small:minimalistic=true"]
    )
    def test_float32_logits_of_a_bfloat16_network(self, spec):
        model = loading.build(spec, (32, 32, 3), 5, precision="mixed_bfloat16")
        settled(model)
        logits = model(images(4, 32, 32, 3), training=False)
        assert logits.dtype == tf.float32
        assert {weight.dtype for weight in model.weights} == {"float32"}
        assert norms(model)[0].compute_dtype == "bfloat16"
        assert model.get_layer("preprocess").compute_dtype == "float32"
        bits = np.asarray(logits).view("uint32")
        assert (bits & 0xFFFF).any()

    def test_imagenet_weights_from_the_disk(self, tmp_path):
        """A file where Keras looks, of other numbers than ImageNet's."""
        code = f"""
import keras, numpy as np, pathlib
from mart_tf.models import loading
spec = {SMALL + ":weights=imagenet"!r}
base = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35,
    weights=None, include_top=False, pooling="avg")
base.set_weights([np.full(w.shape, 0.5 + 0.1 * w.ndim, "float32")
    for w in base.get_weights()])
folder = pathlib.Path({str(tmp_path)!r}, "models")
folder.mkdir()
name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
base.save(folder / name)
read = loading.build(spec, (32, 32, 3), 4)
for a, b in zip(read.get_weights(), base.get_weights()):
    np.testing.assert_array_equal(a, b)
kernel, bias = read.get_weights()[-2:]
assert kernel.shape == (1280, 4) and kernel.std() > 0 and not bias.any()
pathlib.Path(folder / name).unlink()
again = loading.build(spec, (32, 32, 3), 4, pretrained=False)
assert [w.shape for w in again.weights] == [w.shape for w in read.weights]
again.set_weights(read.get_weights())
x = np.ones((2, 32, 32, 3), "float32")
np.testing.assert_array_equal(read(x, training=False),
    again(x, training=False))
"""
        (tmp_path / "read.py").write_text(code)
        done = programs.run(tmp_path / "read.py", setup=keras_home(tmp_path))
        assert done.returncode == 0, done.stderr

    def test_a_failing_download_is_one_sentence(self, tmp_path):
        done = programs.run(
            "train",
            f"--model={SMALL}:size=32:weights=imagenet",
            cwd=tmp_path,
            setup=keras_home(tmp_path),
            # Nobody listens there.
            https_proxy="http://127.0.0.1:9",
        )
        assert done.returncode == 1
        said = done.stderr.strip().splitlines()[-1]
        file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top"
        assert f"needs {file}.h5, which could not be downloaded" in said
        assert "into ~/.keras/models" in said
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "runs").exists()


def test_two_replicas_have_the_statistics_of_one():
    batch, labels = images(8, 32, 32, 3), np.arange(8) % 4
    # The second replica's are darker: its own statistics would be others.
    batch[4:] *= 0.2
    trained = []
    for kind in ("single", "mirrored"):
        with devices.strategy(kind).scope():
            model = mart_tf.AdversarialClassifier(
                loading.build(
                    "keras:MobileNet:alpha=0.1:momentum=0.5", (32, 32, 3), 4
                ),
                "natural",
                mart_tf.ThreatModel(epsilon=0.03),
            )
            model.compile(keras.optimizers.SGD(0.1))
        assert model.distribute_strategy.num_replicas_in_sync == len(
            [*trained, model]
        )
        data = tf.data.Dataset.from_tensors((batch, labels)).unbatch().batch(8)
        model.fit(data, shuffle=False, verbose=0)
        trained.append(model.classifier)
    one, two = trained
    assert len(norms(two)) == 27
    assert all(layer.synchronized for layer in norms(two))
    for first, second in zip(norms(one), norms(two), strict=True):
        for name in ("moving_mean", "moving_variance"):
            np.testing.assert_allclose(
                getattr(first, name),
                getattr(second, name),
                rtol=1e-3,
                atol=1e-5,
            )
    # By hand: half of the first layer's mean over all pixels of the batch.
    kernel = (
        loading.build("keras:MobileNet:alpha=0.1", (32, 32, 3), 4)
        .get_layer("conv1")
        .kernel.numpy()
    )
    padded = np.pad(2 * batch - 1, ((0, 0), (0, 1), (0, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    means = np.einsum("bhwcij,ijco->bhwo", windows[:, ::2, ::2], kernel)
    np.testing.assert_allclose(
        norms(two)[0].moving_mean, 0.5 * means.mean((0, 1, 2)), rtol=1e-3
    )


class TestPrograms:
    @pytest.fixture(scope="class")
    def workdir(self, tmp_path_factory):
        """A run that was continued after its first epoch."""
        path = tmp_path_factory.mktemp("run") / "mobile"
        small_runs.train(path, **RUN, epochs=1)
        before = small_runs.weights(path)
        said = small_runs.train(path, **RUN, epochs=2)
        assert "after epoch 1 of 2" in said
        moved = [
            np.abs(one - other).max()
            for one, other in zip(before, small_runs.weights(path), strict=True)
        ]
        assert 0.0 < np.median(moved) < 1.0
        return path

    def test_the_run_says_every_option(self, workdir):
        config = json.loads((workdir / "run.json").read_text())["config"]
        assert config["model"] == (
            "keras:MobileNet:weights=none:size=32:momentum=0.9:alpha=0.1:"
            "depth_multiplier=1:dropout=0.001"
        )

    def test_it_is_evaluated(self, workdir):
        done = programs.run(
            "evaluate",
            f"--workdir={workdir}",
            "--attacks=fgsm",
            "--max_examples=20",
        )
        assert done.returncode == 0, done.stderr

    def test_it_is_exported_and_needs_nothing_of_ours(self, workdir, tmp_path):
        classifier = mart_tf.load_run(workdir).classifier
        scale = classifier.get_layer("preprocess").scale
        np.testing.assert_allclose(scale, 3 * [2 / 255])
        batch = 255 * images(3, 8, 8, 1)
        expected = classifier(batch, training=False).numpy()
        classifier.save(tmp_path / "network.keras")
        np.save(tmp_path / "batch.npy", batch)
        np.save(tmp_path / "expected.npy", expected)
        done = programs.run("export", f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
        code = """
import sys, keras, numpy as np, tensorflow as tf
batch, expected = np.load("batch.npy"), np.load("expected.npy")
network = keras.saving.load_model("network.keras")
np.testing.assert_allclose(network(batch), expected, rtol=1e-4, atol=1e-5)
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
name, = served.structured_input_signature[1]
logits = served(**{name: tf.constant(batch)})["logits"]
np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
assert "mart_tf" not in sys.modules
"""
        (tmp_path / "use.py").write_text(code)
        done = programs.run(
            tmp_path / "use.py", workdir / "export" / "1", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr


def test_new_weights_and_trained_ones_are_not_both_to_be_had():
    spec = "keras:MobileNetV2:weights="
    with pytest.raises(ValueError, match="new ones are asked for; expected"):
        loading.build(f"{spec}imagenet", (32, 32, 3), 10, anew=True)
