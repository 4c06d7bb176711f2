"""An exported version, run where a server would run it."""

import concurrent.futures
import dataclasses
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

import keras
import numpy as np
from PIL import Image
import pytest
import scipy.special
import sklearn.datasets
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import mart_tf
from mart_tf.serving import c_api
from mart_tf.serving import endpoints
from mart_tf.serving import runner
from mart_tf.serving import saved_model
from mart_tf.serving import verification
from mart_tf.serving import versions

_ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def digits():
    images = sklearn.datasets.load_digits().images.astype("float32") / 16.0
    return images[:64, :, :, None]


@pytest.fixture(scope="module")
def classifier(digits):
    """A CNN for digits whose batch statistics are not their initial ones."""
    model = _cnn()
    model(digits, training=True)
    return model


@pytest.fixture(scope="module")
def version(classifier, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export")
    return mart_tf.export_saved_model(classifier, directory, pixel_range=(0, 1))


def _cnn(activation=None):
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    features = keras.layers.Conv2D(16, 3, padding="same")(images)
    features = keras.layers.BatchNormalization(momentum=0.5)(features)
    features = keras.layers.Activation("relu")(features)
    features = keras.layers.Dropout(0.5)(features)
    features = keras.layers.Flatten()(features)
    features = keras.layers.Dense(64, activation="relu")(features)
    scores = keras.layers.Dense(10, activation=activation, dtype="float32")
    return keras.Model(images, scores(features), name="cnn")


def _png_header(width, height):
    """The first bytes of a PNG, as far as its size."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)


def _blank_jpeg(width, height):
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "JPEG")
    return file.getvalue()


def _session(version):
    signature = verification.signature(version)
    return c_api.Session(version, **verification.tensors(signature))


def _served(version, images, name="serving_default"):
    """A version's outputs on the C++ runtime."""
    [result] = verification.run(version, [(name, images)])
    return result


def _content(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file()
    }


class TestCppRuntime:
    """The version in a process that never imports TensorFlow's Python."""

    def test_gives_the_logits_of_keras(self, classifier, version, digits):
        expected = classifier(digits, training=False).numpy()
        largest = np.abs(expected).max()
        for size in (1, 7, 64):
            result = _served(version, digits[:size])
            error = np.abs(result["logits"] - expected[:size]).max()
            assert error <= 1e-5 * largest
            np.testing.assert_allclose(
                result["probabilities"],
                tf.nn.softmax(expected[:size]),
                atol=1e-6,
            )
            np.testing.assert_array_equal(
                result["class_index"], expected[:size].argmax(axis=1)
            )

    def test_outputs_have_the_types_of_the_signature(self, version, digits):
        result = _served(version, digits[:2])
        assert {name: array.dtype for name, array in result.items()} == {
            "logits": np.float32,
            "probabilities": np.float32,
            "class_index": np.int64,
            "class_name": object,
        }

    @pytest.mark.parametrize("shape", [(1, 7, 8, 1), (1, 64), (1, 8, 8, 3), ()])
    def test_refuses_a_wrong_shape(self, version, shape):
        images = np.zeros(shape, np.float32)
        with (
            _session(version) as session,
            pytest.raises(c_api.StatusError) as refused,
        ):
            session.run({"images": images})
        assert refused.value.code == "INVALID_ARGUMENT"
        assert str(refused.value).startswith("INVALID_ARGUMENT: ")

    @pytest.mark.parametrize("dtype", ["float64", "uint8", "int64"])
    def test_refuses_a_wrong_type(self, version, dtype):
        with _session(version) as session:
            with pytest.raises(c_api.StatusError) as refused:
                session.run({"images": np.zeros((1, 8, 8, 1), dtype)})
            assert refused.value.code == "INVALID_ARGUMENT"
            # The session outlives a request that it refused.
            session.run({"images": np.zeros((1, 8, 8, 1), np.float32)})

    def test_refuses_names_and_types_that_it_does_not_know(self, version):
        with _session(version) as session:
            with pytest.raises(ValueError, match=r"expected \['images'\]"):
                session.run({"image": np.zeros((1, 8, 8, 1), np.float32)})
            with pytest.raises(ValueError, match="type float16; expected"):
                session.run({"images": np.zeros((1, 8, 8, 1), np.float16)})
        with pytest.raises(ValueError, match="no tensor 'logits:0'"):
            c_api.Session(version, {}, {"logits": "logits:0"})

    def test_closes_once_no_thread_runs_it(self, version):
        images = np.zeros((4096, 8, 8, 1), np.float32)
        for _ in range(5):
            session = _session(version)
            begun = threading.Event()

            def run(session=session, begun=begun):
                results = []
                try:
                    while True:
                        begun.set()
                        results.append(session.run({"images": images}))
                except ValueError as error:
                    return results, str(error)

            with concurrent.futures.ThreadPoolExecutor(3) as threads:
                runs = [threads.submit(run) for _ in range(3)]
                begun.wait()
                session.close()
            for future in runs:
                results, refused = future.result()
                assert all(len(r["logits"]) == 4096 for r in results)
                assert refused.startswith("The session is closed")

    def test_a_missing_version_is_not_found(self, tmp_path):
        with pytest.raises(c_api.StatusError) as refused:
            c_api.Session(tmp_path / "1", {}, {})
        assert refused.value.code == "NOT_FOUND"

    def test_negative_control_a_module_that_only_python_can_run(
        self, classifier, digits, tmp_path
    ):
        module = tf.Module()
        module.classifier = classifier
        serve = tf.function(
            lambda images: {"logits": classifier(images)},
            input_signature=[tf.TensorSpec([None, 8, 8, 1], name="images")],
            autograph=False,
        )
        directory = str(tmp_path)
        tf.saved_model.save(
            module, directory, signatures={"serving_default": serve}
        )
        loaded = tf.saved_model.load(directory)
        served = loaded.signatures["serving_default"](tf.constant(digits))
        np.testing.assert_allclose(
            served["logits"], classifier(digits), atol=1e-5
        )
        # It loads in the C++ runtime too, and cannot run there.
        _session(directory).close()
        with pytest.raises(ValueError, match="Could not find variable"):
            _served(directory, digits)

    def test_missing_variables_show_when_it_is_run(
        self, version, digits, tmp_path
    ):
        damaged = shutil.copytree(version, tmp_path / "1")
        shutil.rmtree(damaged / "variables")
        with pytest.raises(ValueError, match="does not run on TensorFlow's C"):
            _served(damaged, digits)

    def test_runs_no_module_of_the_working_directory(
        self, version, digits, tmp_path, monkeypatch
    ):
        """Which may be somebody else's, or happen to have such a name."""
        (tmp_path / "zipfile.py").write_text("raise ValueError('run')")
        monkeypatch.chdir(tmp_path)
        assert _served(version, digits)["logits"].shape == (len(digits), 10)

    @pytest.mark.parametrize(
        ("encoded", "said"),
        [
            # What a PNG of a few bytes may say of itself.
            (_png_header(8193, 6144), "more than 50,331,648 pixels"),
            (_png_header(2**31 - 1, 2**31 - 1), "more than 50,331,648 pixels"),
            (_png_header(2**32 - 1, 2**32 - 1), "more than 50,331,648 pixels"),
            (_blank_jpeg(6144, 8193), "more than 50,331,648 pixels"),
            (b"", "neither PNG nor JPEG"),
            (b"GIF89a" + bytes(40), "neither PNG nor JPEG"),
            (b"\x89PNG\r\n\x1a\n", "neither PNG nor JPEG"),
        ],
    )
    def test_an_image_is_refused_before_it_is_decoded(
        self, version, encoded, said
    ):
        signature = verification.signature(version, "image_bytes")
        tensors = verification.tensors(signature)
        with (
            c_api.Session(version, **tensors) as session,
            pytest.raises(c_api.StatusError, match=said) as refused,
        ):
            session.run({"image_bytes": np.array([encoded], object)})
        assert refused.value.code == "INVALID_ARGUMENT"

    def test_a_large_image_is_resized(self, version):
        file = io.BytesIO()
        Image.new("L", (4096, 4096), 255).save(file, "PNG")
        white = np.ones((1, 8, 8, 1), np.float32)
        [default, encoded] = verification.run(
            version,
            [
                ("serving_default", white),
                ("image_bytes", np.array([file.getvalue()], object)),
            ],
        )
        np.testing.assert_allclose(
            default["logits"], encoded["logits"], atol=1e-4
        )

    def test_says_so_where_tensorflow_was_imported(
        self, version, digits, tmp_path
    ):
        tensors = verification.tensors(verification.signature(version))
        request = {
            "directory": version,
            "signatures": {"serving_default": tensors},
            "requests": ["serving_default"],
        }
        (tmp_path / "request.json").write_text(json.dumps(request))
        np.savez(tmp_path / "inputs_0.npz", images=digits)
        # This process did.
        with pytest.raises(ValueError, match="imported TensorFlow's Python"):
            runner.main(tmp_path)

    def test_modules_that_must_not_import_tensorflow(self):
        code = (
            "import sys, mart_tf.serving.runner, mart_tf.serving.versions; "
            "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=True)


class TestVersions:
    def test_numbers_go_up_and_nothing_is_overwritten(self, tmp_path):
        def fill(hidden):
            pathlib.Path(hidden, "saved_model.pb").write_bytes(b"new")

        # The last is 11 in Arabic digits, which int() reads too.
        for name in ("notes", "4", "007", "-9", "12x", "\u0661\u0661"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "saved_model.pb").write_bytes(b"old")
        assert versions.write(tmp_path, fill) == str(tmp_path / "8")
        (tmp_path / "9").write_bytes(b"a file in the way")
        assert versions.write(tmp_path, fill) == str(tmp_path / "10")
        assert (tmp_path / "4" / "saved_model.pb").read_bytes() == b"old"
        assert (tmp_path / "007" / "saved_model.pb").read_bytes() == b"old"
        assert sorted(os.listdir(tmp_path)) == sorted(
            ["notes", "4", "007", "-9", "12x", "\u0661\u0661", "8", "9", "10"]
        )

    def test_exports_at_once_get_numbers_of_their_own(self, tmp_path):
        def export(writer):
            return [
                versions.write(tmp_path, lambda path: _touch(path, writer))
                for _ in range(50)
            ]

        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            written = list(threads.map(export, "abcd"))
        assert {path for paths in written for path in paths} == {
            str(tmp_path / str(number)) for number in range(1, 201)
        }
        for writer, paths in zip("abcd", written, strict=True):
            for path in paths:
                assert os.listdir(path) == [writer]

    def test_a_server_of_another_user_can_read_it(self, tmp_path):
        def fill(hidden):
            os.mkdir(os.path.join(hidden, "variables"))
            _touch(os.path.join(hidden, "variables"), "variables.index")

        before = os.umask(0o077)
        try:
            path = versions.write(tmp_path, fill)
        finally:
            os.umask(before)
        path = pathlib.Path(path)
        modes = {
            name.relative_to(path).as_posix(): name.stat().st_mode & 0o777
            for name in (path, *path.rglob("*"))
        }
        assert modes == {
            ".": 0o755,
            "variables": 0o755,
            "variables/variables.index": 0o644,
        }

    @pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
    def test_a_failure_leaves_nothing(self, tmp_path, error):
        def fill(hidden):
            _touch(hidden, "saved_model.pb")
            raise error

        with pytest.raises(error):
            versions.write(tmp_path / "new" / "export", fill)
        assert os.listdir(tmp_path) == []

    def test_a_file_in_the_way(self, tmp_path):
        file = tmp_path / "file"
        file.write_text("mine")
        for directory in (file, file / "export"):
            with pytest.raises(ValueError, match="is not a directory; choose"):
                versions.check(directory)
        assert file.read_text() == "mine"

    def test_a_version_is_no_place_for_versions(self, tmp_path):
        _touch(tmp_path, "saved_model.pb")
        for place in (tmp_path, f"file://{tmp_path}/"):
            with pytest.raises(ValueError, match="is a version itself, it ho"):
                versions.check(place)

    def test_a_name_that_is_too_long_is_not_looked_into(self, tmp_path):
        # `export` has a sentence for it.
        assert versions.check(tmp_path / ("x" * 300)).parent == tmp_path

    def test_the_home_of_a_user_is_found(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert versions.check("~/served") == tmp_path / "served"

    def test_a_url_is_no_path(self):
        path = pathlib.Path("gs://bucket/models")
        with pytest.raises(ValueError, match="expected a string, such as 'gs"):
            versions.check(path)

    def test_a_url_that_nothing_here_can_write(self):
        with pytest.raises(ValueError, match="cannot be reached: File system"):
            versions.check("unknown://bucket/export")

    @pytest.mark.parametrize("place", ["/proc/export", "/proc/self/export"])
    def test_a_place_where_nothing_can_be_written(self, place):
        # Not even by root, as a read-only directory would be.
        if not os.path.isdir("/proc/self"):
            pytest.skip("There is no /proc here.")
        with pytest.raises(ValueError, match="cannot be written: .*; choose"):
            versions.write(place, lambda hidden: None)


class TestObjectStores:
    """On file://, which TensorFlow writes as it writes a store."""

    @pytest.fixture
    def export(self, tmp_path):
        def fill(folder):
            for name in ("saved_model.pb", "fingerprint.pb"):
                _touch(folder, name)

        return lambda: versions.write(f"file://{tmp_path}/model", fill)

    @pytest.fixture
    def copying(self, monkeypatch):
        """Has something happen before the copies of an export."""
        copy = tf.io.gfile.copy

        def instead(before):
            def copied(source, target):
                before(target)
                copy(source, target)

            monkeypatch.setattr(tf.io.gfile, "copy", copied)

        return instead

    def test_the_graph_comes_last(self, export, copying, tmp_path):
        seen = []
        copying(lambda target: seen.append(os.path.basename(target)))
        assert export() == f"file://{tmp_path}/model/1"
        assert seen == ["fingerprint.pb", "saved_model.pb"]
        assert export().endswith("/2")

    def test_what_another_export_wrote_meanwhile_stays(
        self, export, copying, tmp_path
    ):
        other = tmp_path / "model" / "1" / "fingerprint.pb"

        def publish(target):
            if target.endswith("/1/fingerprint.pb"):
                other.write_bytes(b"theirs")

        copying(publish)
        assert export() == f"file://{tmp_path}/model/2"
        assert other.read_bytes() == b"theirs"
        assert os.listdir(other.parent) == ["fingerprint.pb"]

    @pytest.mark.parametrize(
        "error",
        [tf.errors.UnavailableError(None, None, "gone"), SystemExit(143)],
    )
    def test_a_half_copied_version_goes(self, export, copying, tmp_path, error):
        def fail(target):
            if target.endswith("saved_model.pb"):
                pathlib.Path(target.removeprefix("file://")).write_bytes(b"p")
                raise error

        copying(fail)
        expected = SystemExit if isinstance(error, SystemExit) else ValueError
        with pytest.raises(expected):
            export()
        assert os.listdir(tmp_path / "model") == []

    def test_what_cannot_be_removed_is_named(
        self, export, copying, monkeypatch
    ):
        gone = tf.errors.UnavailableError(None, None, "gone")

        def fail(target):
            if target.endswith("saved_model.pb"):
                raise gone

        def refuse(path):
            raise gone

        copying(fail)
        monkeypatch.setattr(tf.io.gfile, "remove", refuse)
        with (
            pytest.warns(UserWarning, match=r"left in '.*/model/1', and a ser"),
            pytest.raises(ValueError, match="cannot be written: gone; check"),
        ):
            export()


def _touch(folder, name):
    pathlib.Path(folder, name).touch()


class TestExport:
    def test_a_second_export_leaves_the_first_alone(self, classifier, tmp_path):
        first = mart_tf.export_saved_model(
            classifier, tmp_path, pixel_range=(0, 1), verify=False
        )
        before = _content(first)
        second = mart_tf.export_saved_model(
            classifier, tmp_path, pixel_range=(0, 1), verify=False
        )
        assert first == str(tmp_path / "1")
        assert second == str(tmp_path / "2")
        assert _content(first) == before
        assert sorted(os.listdir(tmp_path)) == ["1", "2"]

    def test_says_what_it_saw(self, classifier, tmp_path):
        seen = saved_model.write_version(
            classifier, tmp_path, pixel_range=(0, 1)
        )
        assert seen.warmup == 3
        outputs = (
            "output class_index: int64 [batch]",
            "output class_name: string [batch]",
            "output logits: float32 [batch, 10]",
            "output probabilities: float32 [batch, 10]",
        )
        assert seen.signatures == {
            "serving_default": (
                "input images: float32 [batch, 8, 8, 1]",
                *outputs,
            ),
            "image_bytes": ("input image_bytes: string [batch]", *outputs),
            "classify": (
                "input inputs: string [batch]",
                "output classes: string [batch, 10]",
                "output scores: float32 [batch, 10]",
            ),
        }
        assert 0.0 <= seen.verification["difference"] <= 1e-5
        seen = saved_model.write_version(
            classifier, tmp_path, pixel_range=(0, 1), verify=False
        )
        assert seen.verification == {}

    def test_stores_every_weight_once(self, classifier, version):
        size = sum(
            path.stat().st_size
            for path in pathlib.Path(version, "variables").iterdir()
        )
        weights = 4 * classifier.count_params()
        assert weights <= size <= 1.05 * weights

    def test_can_be_attacked(self, classifier, version, digits):
        # The signature holds its variables weakly.
        loaded = tf.saved_model.load(version)
        serve = loaded.signatures["serving_default"]
        images = tf.constant(digits[:4])
        labels = tf.constant([0, 1, 2, 3])

        def gradient(logits_of):
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, logits_of(images)
                )
            return tape.gradient(loss, images).numpy()

        served = gradient(lambda images: serve(images=images)["logits"])
        assert np.abs(served).max() > 0
        np.testing.assert_allclose(
            served, gradient(classifier), rtol=1e-4, atol=1e-6
        )

    def test_mixed_precision_is_served_in_float32(self, digits, tmp_path):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            mixed = _cnn()
        finally:
            keras.config.set_dtype_policy("float32")
        assert mixed.layers[1].compute_dtype == "bfloat16"
        path = mart_tf.export_saved_model(mixed, tmp_path, pixel_range=(0, 1))
        content = pathlib.Path(path, "saved_model.pb").read_bytes()
        graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
        assert "DT_BFLOAT16" not in str(graph.graph_def)
        same = _cnn()
        same.set_weights(mixed.get_weights())
        result = _served(path, digits)
        expected = same(digits).numpy()
        np.testing.assert_allclose(
            result["logits"], expected, atol=1e-5 * np.abs(expected).max()
        )

    def test_probabilities(self, digits, tmp_path):
        softmax = _cnn(activation="softmax")
        path = mart_tf.export_saved_model(
            softmax, tmp_path, outputs="probabilities", pixel_range=(0, 1)
        )
        result = _served(path, digits)
        expected = softmax(digits).numpy()
        np.testing.assert_allclose(result["probabilities"], expected, atol=1e-6)
        np.testing.assert_allclose(
            scipy.special.log_softmax(result["logits"], axis=1),
            np.log(expected),
            atol=1e-5,
        )

    def test_a_training_model_says_what_its_classifier_returns(
        self, digits, tmp_path
    ):
        softmax = _cnn(activation="softmax")
        model = mart_tf.AdversarialClassifier(
            softmax,
            defense="mart",
            threat=mart_tf.ThreatModel(epsilon=0.1),
            outputs="probabilities",
        )
        path = mart_tf.export_saved_model(model, tmp_path)
        result = _served(path, digits)
        np.testing.assert_allclose(
            result["probabilities"], softmax(digits), atol=1e-6
        )

    def test_a_network_with_a_layer_named_classifier(self, digits, tmp_path):
        class Network(keras.Model):
            def __init__(self):
                super().__init__()
                self.flatten = keras.layers.Flatten()
                self.classifier = keras.layers.Dense(10)

            def call(self, images):
                return self.classifier(self.flatten(images))

        network = Network()
        with pytest.raises(ValueError, match="has no weights yet; call it"):
            mart_tf.export_saved_model(network, tmp_path, pixel_range=(0, 1))
        expected = network(digits).numpy()
        path = mart_tf.export_saved_model(network, tmp_path, pixel_range=(0, 1))
        result = _served(path, digits)
        np.testing.assert_allclose(result["logits"], expected, atol=1e-5)

    def test_of_a_model_made_on_two_devices(self, digits, tmp_path):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = _cnn()
        assert len(model.weights[0].value.values) == 2
        path = mart_tf.export_saved_model(model, tmp_path, pixel_range=(0, 1))
        result = _served(path, digits)
        expected = model(digits).numpy()
        np.testing.assert_allclose(
            result["logits"], expected, atol=1e-5 * np.abs(expected).max()
        )

    @pytest.mark.parametrize("ema", [0.0, 0.5])
    def test_of_a_model_that_trains_on_two_devices(self, digits, tmp_path, ema):
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = mart_tf.AdversarialClassifier(
                _cnn(), threat=mart_tf.ThreatModel(epsilon=0.1), ema=ema
            )
        assert model.settings()["steps"] == 0
        path = mart_tf.export_saved_model(model, tmp_path)
        network = model.averaged()
        # The average is of one device: a chief may make it alone.
        replicas = network.distribute_strategy.num_replicas_in_sync
        assert replicas == (1 if ema else 2)
        expected = network(digits).numpy()
        np.testing.assert_allclose(
            _served(path, digits)["logits"],
            expected,
            atol=1e-5 * np.abs(expected).max(),
        )


def _grey(images):
    """Images in [0, 1] as PNG files, by Pillow."""
    files = np.empty(len(images), object)
    for row, image in enumerate(images):
        file = io.BytesIO()
        levels = np.rint(255.0 * image.squeeze()).astype("uint8")
        Image.fromarray(levels).save(file, "PNG")
        files[row] = file.getvalue()
    return files


class TestPixelRange:
    """A model trained on [0, 255] is served as it was trained."""

    @pytest.mark.parametrize("outputs", ["logits", "probabilities"])
    @pytest.mark.parametrize("rescaling", ["inside", "outside"])
    def test_served_accuracy_of_encoded_images(
        self, outputs, rescaling, tmp_path
    ):
        bunch = sklearn.datasets.load_digits()
        shares = bunch.images[..., None].astype("float32") / 16.0
        # What a PNG can hold.
        images = np.rint(255.0 * shares)
        keras.utils.set_random_seed(0)
        layers = [
            keras.layers.Flatten(),
            keras.layers.Dense(10, kernel_initializer="zeros"),
        ]
        if outputs == "probabilities":
            layers.append(keras.layers.Softmax())
        # Unscaled, gradients of the kernel are 255 times as large.
        rate = 0.5 / 255**2
        if rescaling == "inside":
            layers.insert(0, keras.layers.Rescaling(1 / 255))
            rate = 0.5
        network = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        model = mart_tf.AdversarialClassifier(
            network,
            "standard",
            mart_tf.ThreatModel("linf", 8.0, 0.0, 255.0),
            attack_steps=1,
            outputs=outputs,
        )
        model.compile(keras.optimizers.SGD(rate))
        model.fit(
            images[:1500],
            bunch.target[:1500],
            batch_size=50,
            epochs=3,
            verbose=0,
        )
        scores = network.predict(images[1500:], verbose=0)
        expected = scores.argmax(axis=1)
        assert (expected == bunch.target[1500:]).mean() > 0.7
        probabilities = scores
        if outputs == "logits":
            probabilities = scipy.special.softmax(scores, axis=1)
        # Images read as [0, 1] would be as good as black.
        assert probabilities.max(axis=1).mean() > 0.3

        path = mart_tf.export_saved_model(model, tmp_path)
        [default, encoded] = verification.run(
            path,
            [
                ("serving_default", images[1500:]),
                ("image_bytes", _grey(shares[1500:])),
            ],
        )
        for answer in (default, encoded):
            np.testing.assert_array_equal(answer["class_index"], expected)
            np.testing.assert_allclose(
                answer["probabilities"], probabilities, atol=1e-5
            )

        file = pathlib.Path(path, "assets.extra", "model_card.json")
        card = json.loads(file.read_text())
        assert card["model"]["pixel_range"] == [0.0, 255.0]
        training = card["training"]
        assert training["defense"] == "standard"
        assert (training["norm"], training["epsilon"]) == ("linf", 8.0)
        assert (training["pixel_min"], training["pixel_max"]) == (0.0, 255.0)
        # epsilon / 4, as it was trained; 30 batches in each of 3 epochs.
        assert training["attack_step_size"] == 2.0
        assert training["steps"] == 90
        assert "images of 8 x 8 x 1 in [0, 255]" in (
            file.with_suffix(".md").read_text()
        )

    def test_what_the_model_does_not_tell_is_asked_for(
        self, classifier, tmp_path
    ):
        with pytest.raises(ValueError) as refused:
            mart_tf.export_saved_model(classifier, tmp_path / "export")
        assert str(refused.value) == (
            "The model 'cnn' does not tell the range of its pixels, which "
            "encoded images are spread over; give pixel_range=(0, 1), or "
            "whatever it was trained on, or "
            'signatures=["serving_default"] alone.'
        )
        assert not (tmp_path / "export").exists()
        seen = saved_model.write_version(
            classifier, tmp_path, signatures=["serving_default"], verify=False
        )
        card = pathlib.Path(seen.path, "assets.extra", "model_card.md")
        assert "in a range that is not known to 10" in card.read_text()

    def test_a_range_that_the_model_contradicts(self, classifier, tmp_path):
        model = mart_tf.AdversarialClassifier(
            classifier, threat=mart_tf.ThreatModel(epsilon=0.1)
        )
        with pytest.raises(ValueError, match="said to be 0 to 255, and the Ad"):
            mart_tf.export_saved_model(model, tmp_path, pixel_range=(0, 255))
        mart_tf.export_saved_model(
            model, tmp_path, pixel_range=(0, 1), verify=False
        )


@pytest.fixture(scope="module")
def answered(classifier, version):
    """The network as it is served, requests and true answers by name."""
    served = endpoints.Classifier(
        classifier, "logits", (8, 8, 1), (0.0, 1.0), tuple("0123456789")
    )
    asked = verification.requests(served, endpoints.NAMES, [3])
    results = verification.run(version, asked)
    return served, {
        name: (batch, result)
        for (name, batch), result in zip(asked, results, strict=True)
    }


class TestVerification:
    """Each of these must fail a version, whatever it came from."""

    def test_a_graph_that_scales_in_another_way(
        self, classifier, tmp_path, monkeypatch
    ):
        original = endpoints.decode
        monkeypatch.setattr(
            endpoints,
            "decode",
            lambda encoded, shape, _: original(encoded, shape, (0.0, 1.0)),
        )
        with pytest.raises(ValueError) as refused:
            mart_tf.export_saved_model(
                classifier, tmp_path, pixel_range=(0, 255)
            )
        assert (
            "of the signature 'image_bytes' differ from those of "
            "'serving_default' on the same images by"
        ) in str(refused.value)
        assert os.listdir(tmp_path) == []

    def test_true_answers(self, answered):
        served, answers = answered
        for name, (batch, result) in answers.items():
            assert verification.difference(served, name, batch, result) <= 1e-5
        verification.check_agreement(
            [(name, *answer) for name, answer in answers.items()]
        )

    @pytest.mark.parametrize(
        ("name", "output"),
        [
            ("serving_default", "logits"),
            ("serving_default", "probabilities"),
            ("image_bytes", "logits"),
            ("image_bytes", "probabilities"),
            ("classify", "scores"),
        ],
    )
    @pytest.mark.parametrize("wrong", [np.nan, 1.001])
    def test_one_wrong_number(self, answered, name, output, wrong):
        served, answers = answered
        batch, result = answers[name]
        array = result[output].copy()
        array[1, array[1].argmax()] *= wrong
        changed = {**result, output: array}
        with pytest.raises(ValueError, match=f"The {output} of the signature"):
            verification.difference(served, name, batch, changed)
        if name != "serving_default":
            with pytest.raises(ValueError, match=f"The {output} of .* on the"):
                verification.check_agreement(
                    [
                        ("serving_default", *answers["serving_default"]),
                        (name, batch, changed),
                    ]
                )

    def test_a_network_that_is_served_otherwise(self, answered):
        served, answers = answered
        other = dataclasses.replace(served, model=_cnn())
        for name, (batch, result) in answers.items():
            with pytest.raises(ValueError, match="from the classifier's by"):
                verification.difference(other, name, batch, result)


class TestNothingIsLeft:
    """Causes that are met in practice, not faults put into the code."""

    def test_a_layer_that_cannot_be_traced(self, tmp_path):
        class Network(keras.Model):
            def __init__(self):
                super().__init__()
                self.scores = keras.layers.Dense(10)

            def call(self, images):
                rows = np.asarray(images).reshape(len(images), -1)
                return self.scores(tf.constant(rows))

        model = Network()
        model(np.zeros((1, 8, 8, 1), np.float32))
        with pytest.raises(ValueError, match="cannot be written as a") as bad:
            mart_tf.export_saved_model(
                model, tmp_path / "export", pixel_range=(0, 1)
            )
        assert "\n" not in str(bad.value)
        assert os.listdir(tmp_path) == []

    def test_a_network_that_draws_lots_at_inference(self, tmp_path):
        class Noise(keras.layers.Layer):
            def call(self, images):
                return images + tf.random.normal(tf.shape(images))

        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                Noise(),
                keras.layers.Dense(10),
            ]
        )
        mart_tf.export_saved_model(
            model, tmp_path, pixel_range=(0, 1), verify=False
        )
        with pytest.raises(ValueError, match="differ from the classifier's by"):
            mart_tf.export_saved_model(model, tmp_path, pixel_range=(0, 1))
        assert os.listdir(tmp_path) == ["1"]

    def test_no_space(self, classifier, tmp_path):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(ValueError, match="cannot be written as a"):
                mart_tf.export_saved_model(
                    classifier, tmp_path / "export", pixel_range=(0, 1)
                )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert os.listdir(tmp_path) == []

    def test_killed_before_it_ended(self, classifier, tmp_path):
        model = tmp_path / "model.keras"
        classifier.save(model)
        directory = tmp_path / "export"
        code = (
            "import keras, mart_tf; mart_tf.export_saved_model("
            f"keras.models.load_model({str(model)!r}), {str(directory)!r}, "
            "pixel_range=(0, 1))"
        )
        # Its own session, so that the verifier goes with it.
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=_ROOT,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            start_new_session=True,
        )
        while process.poll() is None and not list(directory.glob(".version*")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        [unfinished] = os.listdir(directory)
        assert unfinished.startswith(".version-")
        path = mart_tf.export_saved_model(
            classifier, directory, pixel_range=(0, 1), verify=False
        )
        assert path == str(directory / "1")


class TestBadInput:
    @pytest.fixture
    def refused(self, tmp_path):
        def export(model, **settings):
            with pytest.raises(ValueError) as refused:
                mart_tf.export_saved_model(
                    model,
                    tmp_path / "export",
                    **{"pixel_range": (0, 1), **settings},
                )
            assert os.listdir(tmp_path) == []
            return str(refused.value)

        return export

    def test_the_directory_is_a_file(self, classifier, tmp_path):
        file = tmp_path / "file"
        file.write_text("mine")
        with pytest.raises(ValueError, match="is not a directory; choose"):
            mart_tf.export_saved_model(classifier, file)
        assert file.read_text() == "mine"

    def test_no_keras_model(self, refused):
        assert "Got a dict to export; expected a Keras model" in refused({})

    def test_kind_of_outputs(self, classifier, refused):
        message = refused(classifier, outputs="probability")
        assert "did you mean 'probabilities'" in message
        assert "are not probabilities" in refused(
            classifier, outputs="probabilities"
        )

    def test_softmax_not_declared(self, refused):
        message = refused(_cnn(activation="softmax"))
        assert 'outputs="probabilities"' in message

    def test_two_inputs(self, refused):
        images, other = keras.Input((4,)), keras.Input((4,))
        scores = keras.layers.Add()([images, other])
        message = refused(keras.Model([images, other], scores))
        assert "has 2 inputs (" in message

    def test_images_of_any_size(self, refused):
        images = keras.Input((None, None, 3))
        scores = keras.layers.GlobalAveragePooling2D()(images)
        message = refused(keras.Model(images, scores))
        assert "takes inputs of shape (None, None, None, 3)" in message

    def test_two_outputs(self, refused):
        images = keras.Input((4,))
        scores = keras.layers.Dense(3)(images)
        message = refused(keras.Model(images, {"a": scores, "b": scores}))
        assert "has 2 outputs (a, b); expected one" in message

    def test_outputs_that_are_no_scores(self, refused):
        images = keras.Input((8, 8, 1))
        message = refused(keras.Model(images, keras.layers.Dense(3)(images)))
        assert "expected [batch, classes]" in message

    def test_damaged_weights(self, refused):
        model = _cnn()
        model.layers[1].kernel.assign(model.layers[1].kernel * np.nan)
        assert "scores that are not finite" in refused(model)
