"""TFDS sets: MNIST and CIFAR-10 as prepared, and small ones made here."""

import dataclasses
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tiny_tfds

from mart_tf import data
from mart_tf.data import names

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tfds"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"no prepared TFDS data in {SHARED}"
)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return tiny_tfds.sharded(tmp_path_factory.mktemp("tfds"))


@needs_shared
class TestShared:
    def test_mnist_in_memory(self):
        mnist = data.load("mnist", data_dir=SHARED)
        assert mnist.describe() == (
            "mnist: 58,000 training, 2,000 validation, 10,000 test images of "
            "28x28x1, 10 classes; in memory"
        )
        # TFDS stores them in an order of its own, which never changes.
        images, labels = data.arrays(mnist.test, 10)
        np.testing.assert_array_equal(labels, [2, 0, 4, 8, 7, 6, 0, 6, 3, 1])
        assert images.max() == 1.0 and images.dtype == np.float32
        rows = [mnist.train.indices, mnist.validation.indices]
        np.testing.assert_array_equal(
            np.sort(np.concatenate(rows)), np.arange(60000)
        )
        sample = data.sample(mnist.test, 10)
        assert sample.kind == "first"
        np.testing.assert_array_equal(sample.labels, labels)
        stream = data.load("mnist:mode=streaming", data_dir=SHARED)
        np.testing.assert_array_equal(
            stream.validation.indices, mnist.validation.indices
        )
        for split in ("test", "validation"):
            one = getattr(mnist, split)
            streamed = data.arrays(getattr(stream, split), 300)
            np.testing.assert_array_equal(streamed[0], data.arrays(one, 300)[0])
            np.testing.assert_array_equal(streamed[1], data.arrays(one, 300)[1])

    def test_cifar10_streaming(self):
        cifar = data.load("cifar10:mode=streaming", data_dir=SHARED)
        assert cifar.mode == "streaming"
        # What is told of the first 1,000 stays true.
        assert cifar.test.chance_order
        assert cifar.image_shape == (32, 32, 3)
        assert cifar.class_names[0] == "airplane"
        batches = data.training_batches(cifar.train, 64, augment="crop,flip")
        x, y, w = next(iter(batches))
        assert x["image"].shape == (64, 32, 32, 3) and w.shape == (64,)
        held = set(cifar.validation.indices.tolist())
        assert not held & set(x["index"].numpy().tolist())


class TestOtherSets:
    def test_size_resizes_in_both_modes(self, tmp_path):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tiny_tfds.LABEL,
        }
        train = tiny_tfds.examples(30, (None, None, 3))
        tiny_tfds.prepare(tmp_path, features=features, train=train)
        with pytest.raises(ValueError, match="differ in size.*tiny:size=64"):
            data.load("tiny", data_dir=tmp_path)
        in_memory = data.load("tiny:size=3", data_dir=tmp_path)
        stream = data.load("tiny:size=3:mode=streaming", data_dir=tmp_path)
        assert in_memory.image_shape == stream.image_shape == (3, 3, 3)
        # No test split: a fifth of the training images.
        assert len(in_memory.test) == len(stream.test) == 6
        parts = (in_memory.train, in_memory.validation, in_memory.test)
        rows = np.concatenate([split.indices for split in parts])
        np.testing.assert_array_equal(np.sort(rows), np.arange(30))
        for one, other in zip(
            parts, (stream.train, stream.validation, stream.test), strict=True
        ):
            np.testing.assert_array_equal(one.indices, other.indices)
            np.testing.assert_array_equal(
                data.arrays(one)[0], data.arrays(other)[0]
            )

    @pytest.mark.parametrize("mode", ["memory", "streaming"])
    def test_trains_on_the_rows_that_are_asked_for(self, sharded, mode):
        whole = data.load(f"tiny:mode={mode}", data_dir=sharded)
        spec = f"tiny:first=20:count=30:mode={mode}"
        some = data.load(spec, data_dir=sharded)
        assert [len(some.train), len(some.validation)] == [27, 3]
        rows = np.concatenate([some.train.indices, some.validation.indices])
        np.testing.assert_array_equal(np.sort(rows), np.arange(20, 50))
        images, labels = data.arrays(whole.train)
        kept = np.isin(whole.train.indices, some.train.indices)
        arrays = data.arrays(some.train)
        seen = np.isin(some.train.indices, whole.train.indices)
        np.testing.assert_array_equal(arrays[0][seen], images[kept])
        np.testing.assert_array_equal(arrays[1][seen], labels[kept])
        np.testing.assert_array_equal(
            data.arrays(some.test)[0], data.arrays(whole.test)[0]
        )
        with pytest.raises(ValueError, match="first=90 and count=11 ask for"):
            data.check("tiny:first=90:count=11", data_dir=sharded)

    def test_unlabelled_test_images_are_passed_over(self, tmp_path):
        tiny_tfds.prepare(
            tmp_path,
            train=tiny_tfds.examples(20),
            test=tiny_tfds.examples(5, label=-1),
            validation=tiny_tfds.examples(7),
        )
        assert len(data.load("tiny", data_dir=tmp_path).test) == 7

    def test_the_set_says_which_image_is_meant(self, tmp_path):
        mask = tfds.features.Image(shape=(5, 4, 1))
        features = {
            "image": tiny_tfds.GREY,
            "mask": mask,
            "label": tiny_tfds.LABEL,
        }
        values = [
            {**value, "mask": 255 - value["image"]}
            for value in tiny_tfds.examples(9)
        ]
        tiny_tfds.prepare(tmp_path, features=features, train=values)
        # Two images and no word on which is meant.
        with pytest.raises(ValueError, match="features: image, label, mask"):
            data.load("tiny", data_dir=tmp_path)
        path = tmp_path / "tiny" / "1.0.0" / "dataset_info.json"
        info = json.loads(path.read_text())
        keys = [{"featureKey": "mask"}, {"featureKey": "label"}]
        info["supervisedKeys"] = {"tuple": {"items": keys}}
        path.write_text(json.dumps(info))
        for mode in ("memory", "streaming"):
            loaded = data.load(f"tiny:mode={mode}", data_dir=tmp_path)
            images, _ = data.arrays(loaded.train)
            masks = np.stack([value["mask"] for value in values])
            for pixels in images * 255:
                assert (np.abs(pixels - masks) < 0.01).all((1, 2, 3)).any()

    @pytest.mark.parametrize(
        ("features", "values", "message"),
        [
            (
                {"label": tiny_tfds.LABEL},
                [{"label": 0}] * 5,
                "not one image and one class label.*features: label",
            ),
            (
                {
                    "image": tiny_tfds.GREY,
                    "label": tfds.features.Scalar(np.int64),
                },
                tiny_tfds.examples(5),
                "not one image and one class label",
            ),
            (
                {
                    "image": tfds.features.Image(
                        shape=(5, 4, 1), dtype=np.uint16
                    ),
                    "label": tiny_tfds.LABEL,
                },
                tiny_tfds.examples(5, dtype=np.uint16),
                "are uint16 of shape .* expected uint8",
            ),
            (
                {
                    "image": tfds.features.Image(shape=(5, 4, None)),
                    "label": tiny_tfds.LABEL,
                },
                tiny_tfds.examples(5),
                "fixed number of channels",
            ),
            (
                None,
                tiny_tfds.examples(5, label=-1),
                "train of tiny holds the label -1",
            ),
        ],
    )
    def test_refuses_what_it_cannot_use(
        self, tmp_path, features, values, message
    ):
        tiny_tfds.prepare(tmp_path, features=features, train=values)
        with pytest.raises(ValueError, match=message):
            data.load("tiny", data_dir=tmp_path)

    def test_refuses_other_files_and_no_train_split(self, tmp_path):
        tiny_tfds.prepare(
            tmp_path, file_format="array_record", train=tiny_tfds.examples(5)
        )
        tiny_tfds.prepare(tmp_path, name="half", test=tiny_tfds.examples(5))
        with pytest.raises(ValueError, match="array_record.*expected tfrecord"):
            data.load("tiny:mode=streaming", data_dir=tmp_path)
        with pytest.raises(
            ValueError, match="has no split 'train'; expected one of: test"
        ):
            data.load("half", data_dir=tmp_path)

    def test_refuses_a_damaged_file(self, tmp_path):
        tiny_tfds.prepare(tmp_path, train=tiny_tfds.examples(50))
        (record,) = tmp_path.glob("tiny/1.0.0/*.tfrecord*")
        record.write_bytes(record.read_bytes()[:-50])
        with pytest.raises(
            ValueError, match="tfrecord.* checksum does not match"
        ):
            data.load("tiny", data_dir=tmp_path)


class TestChecksums:
    """The third of five training shards has a flipped bit."""

    @pytest.fixture
    def broken(self, sharded, tmp_path):
        shutil.copytree(sharded, tmp_path, dirs_exist_ok=True)
        shard = sorted(tmp_path.glob("tiny/1.0.0/*train*"))[2]
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        return shard

    def refused(self, shard):
        message = f"{shard} is damaged: a record's checksum does not match"
        return pytest.raises(ValueError, match=message)

    def test_in_memory(self, broken, tmp_path):
        for call in (data.load, data.load_pool):
            with self.refused(broken):
                call("tiny", data_dir=tmp_path)

    def test_streaming(self, broken, tmp_path):
        loaded = data.load("tiny:mode=streaming", data_dir=tmp_path)
        assert len(data.arrays(loaded.test)[0]) == 20
        with self.refused(broken):
            data.arrays(loaded.train)
        dull = dataclasses.replace(loaded.train, chance_order=False)
        with self.refused(broken):
            data.sample(dull, 5)
        with pytest.raises(tf.errors.OpError, match=f"{broken} is damaged"):
            for _ in data.training_batches(loaded.train, 10).take(20):
                pass

    def test_a_shard_that_is_gone_in_mid_run(self, sharded, tmp_path):
        shutil.copytree(sharded, tmp_path, dirs_exist_ok=True)
        loaded = data.load("tiny:mode=streaming", data_dir=tmp_path)
        shard = sorted(tmp_path.glob("tiny/1.0.0/*train*"))[2]
        shard.unlink()
        with pytest.raises(ValueError, match=f"^There is no file {shard}"):
            data.arrays(loaded.train)
        with pytest.raises(tf.errors.OpError, match="There is no file"):
            for _ in data.training_batches(loaded.train, 10).take(20):
                pass

    @pytest.mark.parametrize("mode", ["memory", "streaming"])
    def test_records_that_are_missing(self, sharded, tmp_path, mode):
        shutil.copytree(sharded, tmp_path, dirs_exist_ok=True)
        path = tmp_path / "tiny/1.0.0/dataset_info.json"
        info = json.loads(path.read_text())
        (train,) = [s for s in info["splits"] if s["name"] == "train"]
        train["shardLengths"][1] = "21"
        path.write_text(json.dumps(info))
        if mode == "streaming":
            loaded = data.load("tiny:mode=streaming", data_dir=tmp_path)
            with pytest.raises(ValueError, match="00001-of-.* are missing"):
                data.arrays(loaded.train)
        train["shardLengths"][1] = str(10**12)
        path.write_text(json.dumps(info))
        with pytest.raises(ValueError, match="counts 1,000,000,000,000 exam"):
            data.load(f"tiny:mode={mode}", data_dir=tmp_path)

    def test_a_pipe_for_a_shard(self, sharded, tmp_path):
        shutil.copytree(sharded, tmp_path, dirs_exist_ok=True)
        shard = min(tmp_path.glob("tiny/1.0.0/*train*"))
        shard.unlink()
        os.mkfifo(shard)
        with pytest.raises(ValueError, match="is a named pipe"):
            data.load("tiny", data_dir=tmp_path)


class TinyDownload(tfds.core.GeneratorBasedBuilder):
    """A set that TFDS can prepare without a network."""

    VERSION = tfds.core.Version("2.0.0")

    def _info(self):
        # dataset_info_from_configs wants a package around the module.
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": tiny_tfds.GREY, "label": tiny_tfds.LABEL}
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from enumerate(tiny_tfds.examples(12))


class TestPresence:
    def test_finds_the_newest_version(self, tmp_path):
        for version in ("1.9.0", "1.10.0", "2.0.0.incompleteABC"):
            folder = tmp_path / "tiny" / version
            folder.mkdir(parents=True)
            (folder / "dataset_info.json").write_text("{}")
        (tmp_path / "tiny" / "3.0.0").mkdir()
        place = names.prepared_directory("tiny", tmp_path)
        assert place == tmp_path / "tiny" / "1.10.0"

    def test_finds_a_configuration(self, tmp_path):
        for name in ("fog", "snow"):
            folder = tmp_path / "tiny" / name / "1.0.0"
            folder.mkdir(parents=True)
            split = {"name": "train", "shardLengths": ["5"]}
            info = json.dumps({"splits": [split]})
            (folder / "dataset_info.json").write_text(info)
            if name == "fog":
                place = names.prepared_directory("tiny", tmp_path)
                assert place == folder
        data.check("tiny/snow", data_dir=tmp_path)
        with pytest.raises(ValueError, match="name one: tiny/fog, tiny/snow"):
            data.check("tiny", data_dir=tmp_path)

    def test_looks_where_tfds_looks(self, sharded, tmp_path, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(sharded))
        data.check("tiny")
        with pytest.raises(ValueError, match="did you mean 'tiny'"):
            data.check("tinny")
        with pytest.raises(ValueError, match="no set of this name"):
            data.check("tiny", data_dir=tmp_path)
        monkeypatch.delenv("TFDS_DATA_DIR")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ValueError, match="tensorflow_datasets, which does"):
            data.check("mnist")

    def test_touches_no_network(self, sharded, monkeypatch):
        def connect(*arguments):
            raise AssertionError(f"connects to {arguments}")

        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket, "getaddrinfo", connect)
        assert data.load("tiny", data_dir=sharded).num_classes == 3
        with pytest.raises(ValueError, match="is not prepared in"):
            data.load("cifar100", data_dir=sharded)

    def test_says_nothing(self, sharded):
        code = f"""
            from mart_tf import data
            import tensorflow as tf
            tf.constant(0)
            print("begin", flush=True)
            for mode in ("memory", "streaming"):
                loaded = data.load(f"tiny:mode={{mode}}",
                                   data_dir={str(sharded)!r})
                data.arrays(loaded.test, 3)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.stdout.split("begin\n")[1] == ""

    def test_downloads_only_if_asked(self, tmp_path):
        with pytest.raises(ValueError, match="Unknown dataset"):
            data.load("tiny_download", data_dir=tmp_path)
        for _ in range(2):
            loaded = data.load(
                "tiny_download", data_dir=tmp_path, download=True
            )
            assert len(loaded.train) + len(loaded.validation) == 10
        data.check("tiny_download", data_dir=tmp_path)

    @pytest.mark.parametrize("key", ["pythonClassName", "type"])
    def test_features_whose_module_would_be_imported(
        self, sharded, tmp_path, monkeypatch, key
    ):
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / "foreign.py").write_text("open('ran', 'w')")
        monkeypatch.chdir(tmp_path)
        shutil.copytree(sharded, tmp_path / "data")
        file = tmp_path / "data" / "tiny" / "1.0.0" / "features.json"
        content = json.loads(file.read_text())
        image = content["featuresDict"]["features"]["image"]
        del image["pythonClassName"]
        image[key] = "foreign.Image"
        file.write_text(json.dumps(content))
        said = r"features.json names 'foreign.Image', whose module TFDS would"
        with pytest.raises(ValueError, match=said):
            data.load("tiny", data_dir="data")
        assert not pathlib.Path("ran").exists()

    def test_a_name_that_tfds_does_not_know(self, tmp_path):
        with pytest.raises(ValueError, match="TFDS cannot prepare 'no_such'"):
            data.load("no_such", data_dir=tmp_path, download=True)
