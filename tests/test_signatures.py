"""What an exported version answers, at each of its signatures."""

import hashlib
import io
import json
import pathlib
import shutil

import keras
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils
from tensorflow_serving.apis import prediction_log_pb2

import mart_tf
from mart_tf.serving import c_api
from mart_tf.serving import saved_model
from mart_tf.serving import verification
from mart_tf.serving import versions
from mart_tf.serving import warmup

_NAMES = ["zero", "één", "two"]


def _network(shape=(6, 5, 3), classes=3):
    """Untrained: its logits tell images apart well enough."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(4, 3, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(classes),
        ],
        name="net",
    )


@pytest.fixture(scope="module")
def network():
    return _network()


@pytest.fixture(scope="module")
def version(network, tmp_path_factory):
    return mart_tf.export_saved_model(
        network,
        tmp_path_factory.mktemp("export"),
        class_names=_NAMES,
        pixel_range=(-1.0, 1.0),
        warmup=(1, 4),
    )


def _levels(size=1, shape=(6, 5, 3)):
    return np.random.default_rng(0).integers(0, 256, (size, *shape), np.uint8)


def _encoded(levels, kind="PNG", **options):
    """By Pillow: an independent encoder."""
    file = io.BytesIO()
    Image.fromarray(levels.squeeze()).save(file, kind, **options)
    return file.getvalue()


def _batch(values):
    batch = np.empty(len(values), object)
    batch[:] = values
    return batch


def _run(version, name, batch):
    [result] = verification.run(version, [(name, batch)])
    return result


def _card(version):
    path = pathlib.Path(version, "assets.extra/model_card.json")
    return json.loads(path.read_text())


def _assert_close(result, expected):
    largest = np.abs(expected).max()
    assert np.abs(result - expected).max() <= 1e-5 * largest


class TestImageBytes:
    def test_png_is_scaled_to_the_pixel_range(self, network, version):
        levels = _levels(7)
        batch = _batch([_encoded(each) for each in levels])
        result = _run(version, "image_bytes", batch)
        images = (levels / 127.5 - 1.0).astype("f4")
        expected = network(images).numpy()
        _assert_close(result["logits"], expected)
        index = expected.argmax(axis=1)
        assert result["class_index"].tolist() == index.tolist()
        assert [name.decode() for name in result["class_name"]] == [
            _NAMES[place] for place in index
        ]

    def test_jpeg(self, network, version):
        encoded = _encoded(_levels()[0], "JPEG", quality=90)
        decoded = np.asarray(Image.open(io.BytesIO(encoded)), "f4")
        result = _run(version, "image_bytes", _batch([encoded]))
        # Two decoders may round a level apart.
        np.testing.assert_allclose(
            result["logits"],
            network(decoded[None] / 127.5 - 1.0).numpy(),
            atol=0.01,
        )

    def test_opacity_is_a_channel_of_some_networks(self, tmp_path):
        network = _network((6, 5, 4))
        path = mart_tf.export_saved_model(network, tmp_path, pixel_range=(0, 1))
        levels = _levels(shape=(6, 5, 4))
        result = _run(path, "image_bytes", _batch([_encoded(levels[0])]))
        _assert_close(
            result["logits"], network((levels / 255).astype("f4")).numpy()
        )
        # A JPEG has none: its pixels are opaque.
        colours = _levels(shape=(6, 5, 3))[0]
        encoded = tf.io.encode_jpeg(colours, quality=100).numpy()
        accurate = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE")
        whole = np.pad(accurate, [(0, 0), (0, 0), (0, 1)], constant_values=255)
        result = _run(path, "image_bytes", _batch([encoded]))
        _assert_close(
            result["logits"], network((whole[None] / 255).astype("f4")).numpy()
        )

    def test_another_size_is_resized(self, network, version):
        levels = _levels(shape=(12, 15, 3))[0]
        result = _run(version, "image_bytes", _batch([_encoded(levels)]))
        image = tf.image.resize(levels.astype("f4"), [6, 5], antialias=True)
        _assert_close(
            result["logits"], network(image[None] / 127.5 - 1.0).numpy()
        )

    @pytest.mark.parametrize("order", [[0, 1], [1, 0]])
    def test_sizes_may_differ_within_a_batch(self, network, version, order):
        sizes = [(6, 5, 3), (9, 9, 3)]
        levels = [_levels(shape=sizes[place])[0] for place in order]
        batch = _batch([_encoded(each) for each in levels])
        requests = [batch, batch[:1], batch[1:]]
        together, *alone = (
            result["logits"]
            for result in verification.run(
                version, [("image_bytes", each) for each in requests]
            )
        )
        _assert_close(together, np.concatenate(alone))
        # Of an image of the network's size it changes nothing.
        images = [
            tf.image.resize(each.astype("f4"), [6, 5], antialias=True)
            for each in levels
        ]
        _assert_close(together, network(tf.stack(images) / 127.5 - 1.0).numpy())

    def test_grey_images_get_the_channels_of_the_network(
        self, network, version
    ):
        grey = _levels(shape=(6, 5))[0]
        result = _run(version, "image_bytes", _batch([_encoded(grey)]))
        images = np.repeat(grey[None, :, :, None], 3, axis=3).astype("f4")
        _assert_close(result["logits"], network(images / 127.5 - 1.0).numpy())

    @pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n"])
    def test_what_is_no_image(self, version, content):
        with pytest.raises(ValueError, match="INVALID_ARGUMENT"):
            _run(version, "image_bytes", _batch([content]))

    def test_a_wrong_rank(self, version):
        batch = _batch([_encoded(_levels()[0])]).reshape(1, 1)
        with pytest.raises(ValueError, match="INVALID_ARGUMENT"):
            _run(version, "image_bytes", batch)


class TestClassify:
    def test_examples(self, network, version):
        levels = _levels(4)
        examples = []
        for each in levels:
            example = tf.train.Example()
            feature = example.features.feature["image/encoded"]
            feature.bytes_list.value.append(_encoded(each))
            examples.append(example.SerializeToString())
        result = _run(version, "classify", _batch(examples))
        logits = network((levels / 127.5 - 1.0).astype("f4"))
        np.testing.assert_allclose(
            result["scores"], tf.nn.softmax(logits), atol=1e-6
        )
        assert (
            result["classes"].tolist()
            == [[name.encode() for name in _NAMES]] * 4
        )

    def test_an_example_without_an_image(self, version):
        with pytest.raises(ValueError, match="INVALID_ARGUMENT.*encoded"):
            _run(version, "classify", _batch([b""]))

    def test_a_server_knows_it_as_one_for_classify(self, version):
        content = pathlib.Path(version, "saved_model.pb").read_bytes()
        graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
        methods = {
            name: signature.method_name
            for name, signature in graph.signature_def.items()
        }
        predict = "tensorflow/serving/predict"
        assert methods == {
            "serving_default": predict,
            "image_bytes": predict,
            "classify": "tensorflow/serving/classify",
            "__saved_model_init_op": "",
        }

    def test_the_fingerprint_is_of_the_file_as_it_is(self, version, tmp_path):
        written = tf.saved_model.experimental.read_fingerprint(version)
        # TensorFlow's own, of the file as a server finds it.
        again = shutil.copytree(version, tmp_path / "again")
        fingerprinting_utils.write_fingerprint(str(again))
        expected = tf.saved_model.experimental.read_fingerprint(str(again))
        assert written.saved_model_checksum == expected.saved_model_checksum
        content = pathlib.Path(version, "saved_model.pb").read_bytes()
        assert _card(version)["saved_model_sha256"] == (
            hashlib.sha256(content).hexdigest()
        )


class TestWarmup:
    def test_a_record_for_every_signature_and_size(self, version):
        sizes = [
            (name, len(batch))
            for name, batch in warmup.read(pathlib.Path(version))
        ]
        assert sizes == [
            (name, size)
            for name in ("serving_default", "image_bytes", "classify")
            for size in (1, 4)
        ]

    def test_what_is_read_is_what_was_written(self, tmp_path):
        images = np.linspace(0, 1, 6, dtype="f4").reshape(2, 3)
        requests = [
            ("serving_default", images),
            ("image_bytes", _batch([b"a\x00", b""])),
            ("classify", _batch([b"\x00b"])),
        ]
        assert warmup.write(tmp_path, "any", requests) == 3
        for (name, batch), (read_name, read) in zip(
            requests, warmup.read(tmp_path), strict=True
        ):
            assert read_name == name
            assert read.dtype == batch.dtype
            assert read.tolist() == batch.tolist()

    def test_tf_serving_reads_them_with_its_own_messages(self, version):
        path = pathlib.Path(version, warmup.FILE)
        records = tf.data.TFRecordDataset([str(path)]).as_numpy_iterator()
        logs = list(map(prediction_log_pb2.PredictionLog.FromString, records))
        read = warmup.read(version)
        assert len(logs) == len(read) == 6
        for log, (name, batch) in zip(logs, read, strict=True):
            if name == "classify":
                request = log.classify_log.request
                sent = request.input.example_list.examples
                sent = [each.SerializeToString() for each in sent]
                assert sent == batch.tolist()
            else:
                request = log.predict_log.request
                [(key, tensor)] = request.inputs.items()
                assert key in ("images", "image_bytes")
                np.testing.assert_array_equal(tf.make_ndarray(tensor), batch)
            assert request.model_spec.signature_name == name
            # Nothing is there that TF Serving does not know.
            known = log.__class__.FromString(log.SerializeToString())
            known.DiscardUnknownFields()
            assert known == log

    def test_none(self, network, tmp_path):
        path = mart_tf.export_saved_model(
            network, tmp_path, pixel_range=(0, 1), warmup=()
        )
        assert warmup.read(path) == []

    def test_a_record_that_fails_fails_the_version(
        self, network, tmp_path, monkeypatch
    ):
        def write(directory, name, requests):
            return original(directory, name, [("image_bytes", _batch([b"x"]))])

        original = warmup.write
        monkeypatch.setattr(warmup, "write", write)
        with pytest.raises(ValueError, match="does not run on TensorFlow's C"):
            mart_tf.export_saved_model(network, tmp_path, pixel_range=(0, 1))
        assert not list(tmp_path.iterdir())


class TestCheck:
    def test_its_facts_are_in_the_card(self, network, tmp_path):
        seen = []

        def check(hidden):
            seen.append(sorted(path.name for path in tmp_path.iterdir()))
            return {"withstands": "much"}

        written = saved_model.write_version(
            network, tmp_path, pixel_range=(0, 1), check=check
        )
        [[hidden]] = seen
        assert hidden.startswith(".version-")
        card = pathlib.Path(written.path, "assets.extra/model_card.json")
        verified = json.loads(card.read_text())["verification"]
        assert verified["withstands"] == "much"

    def test_its_refusal_leaves_nothing(self, network, tmp_path):
        def check(hidden):
            raise ValueError("It withstands less.")

        with pytest.raises(ValueError, match="withstands less"):
            saved_model.write_version(
                network, tmp_path, pixel_range=(0, 1), check=check
            )
        assert not list(tmp_path.iterdir())


class TestObjectStore:
    """TensorFlow's file system in memory, which knows no rename to rely on."""

    def test_versions_count_up(self, network):
        url = "ram://bucket/models/net"
        first = mart_tf.export_saved_model(
            network, url, pixel_range=(0, 1), verify=False
        )
        second = mart_tf.export_saved_model(
            network, f"{url}/", pixel_range=(0, 1)
        )
        assert [first, second] == [f"{url}/1", f"{url}/2"]
        loaded = tf.saved_model.load(second)
        images = np.zeros([2, 6, 5, 3], "f4")
        serve = loaded.signatures["serving_default"]
        result = serve(images=tf.constant(images))
        _assert_close(result["logits"].numpy(), network(images).numpy())

    def test_the_graph_comes_last(self, tmp_path, monkeypatch):
        copied = []
        copy = tf.io.gfile.copy

        def record(source, destination):
            copied.append(destination)
            copy(source, destination)

        monkeypatch.setattr(tf.io.gfile, "copy", record)

        def fill(local):
            for name in (
                "saved_model.pb",
                "a.txt",
                "variables/variables.index",
            ):
                path = pathlib.Path(local, name)
                path.parent.mkdir(exist_ok=True)
                path.write_text(name)

        versions.write("ram://bucket/order", fill)
        assert len(copied) == 3
        assert copied[-1] == "ram://bucket/order/1/saved_model.pb"

    def test_a_copy_that_fails_leaves_nothing(self, monkeypatch):
        def fail(source, destination):
            raise tf.errors.PermissionDeniedError(
                None, None, "no writing here."
            )

        monkeypatch.setattr(tf.io.gfile, "copy", fail)

        def fill(local):
            pathlib.Path(local, "saved_model.pb").write_text("")

        with pytest.raises(ValueError, match="cannot be written: no writing"):
            versions.write("ram://bucket/fails", fill)
        assert tf.io.gfile.listdir("ram://bucket/fails") == []

    def test_a_file_in_the_way(self):
        with tf.io.gfile.GFile("ram://bucket/file", "w") as file:
            file.write("mine")
        with pytest.raises(ValueError, match="is a file; choose another"):
            versions.check("ram://bucket/file")


class TestBadInput:
    @pytest.fixture
    def refused(self, network, tmp_path):
        def call(model=None, **options):
            with pytest.raises(ValueError) as error:
                mart_tf.export_saved_model(
                    model or network,
                    tmp_path,
                    **{"pixel_range": (0, 1), **options},
                )
            assert not list(tmp_path.iterdir())
            return str(error.value)

        return call

    def test_class_names(self, refused):
        message = refused(class_names=["a", "b"])
        assert "There are 2 class names, and the model has 3" in message

    @pytest.mark.parametrize(
        "bad", [(1, 1), (1, 0), (0, np.inf), (np.nan, 1), (0,)]
    )
    def test_pixel_range(self, refused, bad):
        assert refused(pixel_range=bad).startswith("The pixel range is (")

    def test_an_unknown_signature(self, refused):
        message = refused(signatures=["serving_default", "image_byte"])
        assert "did you mean 'image_bytes'" in message

    def test_without_the_first_signature(self, refused):
        message = refused(signatures=["classify"])
        assert "lack 'serving_default', which a server looks for" in message

    def test_a_signature_that_the_model_cannot_give(self, refused, tmp_path):
        two = _network((6, 5, 2))
        message = refused(two, signatures=["serving_default", "image_bytes"])
        assert "the model takes 2 channels, where PNG" in message
        flat = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
        message = refused(flat, signatures=["serving_default", "classify"])
        assert "the model takes inputs of shape (7,)" in message
        # Not asked for, they are left out.
        written = saved_model.write_version(flat, tmp_path)
        assert list(written.signatures) == ["serving_default"]

    @pytest.mark.parametrize("bad", [(0,), (1.5,), (-1,)])
    def test_warmup(self, refused, bad):
        assert "expected whole numbers of at least 1" in refused(warmup=bad)

    def test_too_much_warmup(self, refused):
        assert "than the 1000 that a server takes" in refused(
            warmup=range(1, 400)
        )


def test_strings_pass_the_c_api(version):
    signature = verification.signature(version, "image_bytes")
    session = c_api.Session(version, **verification.tensors(signature))
    encoded = _encoded(_levels()[0])
    with session:
        # A short string lies in its place, a long one elsewhere.
        for batch in (np.array([encoded]), _batch([encoded] * 3)):
            result = session.run({"image_bytes": batch})
            assert len(result["class_name"]) == len(batch)
        empty = session.run({"image_bytes": np.zeros(0, object)})
        assert empty["class_name"].shape == (0,)
        with pytest.raises(ValueError, match="objects that are not bytes"):
            session.run({"image_bytes": np.array(["text"], object)})
