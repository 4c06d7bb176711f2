"""Pools: read from every form, labelled by a network, and checked."""

import importlib
import os
import pathlib
import pickle
import subprocess
import sys
import textwrap

import keras
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tiny_tfds

from mart_tf import data
from mart_tf import labeling
from mart_tf import ram
from mart_tf.data import mapping
from mart_tf.data import unpickling

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tfds"


def pixels(count, shape=(4, 5, 3), seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, [count, *shape]).astype(np.uint8)


def refused(spec, message, **options):
    """The sentence for a pool that cannot be loaded."""
    with pytest.raises(ValueError, match=message) as error:
        data.load_pool(spec, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestPool:
    def test_keeps_bytes_and_adds_channels(self):
        images = pixels(6, (4, 5))
        pool = data.Pool("mine", images)
        assert pool.images.dtype == np.uint8 and len(pool) == 6
        np.testing.assert_array_equal(pool.images[..., 0], images)
        assert pool.image_shape == (4, 5, 1)
        assert pool.describe() == "mine: 6 images of 4x5x1, without labels"

    def test_keeps_floats_in_single_precision(self):
        labels = np.arange(6)[:, None] % 3
        pool = data.Pool("mine", pixels(6) / 255, labels, "runs/a", 0.9127)
        assert pool.images.dtype == np.float32
        np.testing.assert_array_equal(pool.labels, [0, 1, 2, 0, 1, 2])
        assert pool.describe() == (
            "mine: 6 images of 4x5x3, with labels by runs/a, mean confidence "
            "0.913"
        )

    def test_booleans_are_black_and_white(self):
        pool = data.Pool("mine", pixels(6) > 99)
        assert pool.images.dtype == np.uint8
        np.testing.assert_array_equal(
            pool.images, np.where(pixels(6) > 99, 255, 0)
        )

    def test_black_images_are_taken(self):
        assert len(data.Pool("mine", np.zeros([6, 4, 5], np.uint8))) == 6

    @pytest.mark.parametrize(
        "shape", [(3, 32, 4), (1, 4, 32), (2, 32, 32), (32, 32, 32)]
    )
    def test_odd_shapes_are_taken(self, shape):
        assert data.Pool("mine", pixels(6, shape)).image_shape == shape

    @pytest.mark.parametrize("form", [list, np.ndarray.tolist, tf.constant])
    def test_takes_what_numpy_makes_an_array_of(self, form):
        images, labels = pixels(6) / 255, np.arange(6)
        pool = data.Pool("mine", form(images), form(labels))
        np.testing.assert_array_equal(pool.images, images.astype("float32"))
        np.testing.assert_array_equal(pool.labels, labels)
        assert isinstance(pool.images, np.ndarray)
        assert isinstance(pool.labels, np.ndarray)

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (
                [pixels(1)[0], pixels(1, (8, 5, 3))[0]],
                None,
                r"images of the pool mine, of the type list, is no array of .*"
                "expected .* as numpy.stack makes of images of one size",
            ),
            (
                tf.ragged.constant([[[1.0]], [[1.0], [0.0]]]),
                None,
                "of the type RaggedTensor, is no array of numbers; expected",
            ),
            (None, None, "of the type NoneType, is no array of numbers"),
            (
                pixels(2),
                [[1], [0, 1]],
                "labels of the pool mine, of the type list, is no array of num",
            ),
            (
                pixels(2),
                np.array([0, 1], object),
                r"the type ndarray, .*; expected whole numbers, \[n\] or",
            ),
            (pixels(2), 1, r"has dtype int64 and shape \(\); expected whole"),
            (pixels(6, (5,)), None, r"pool mine has shape \(6, 5\); expected"),
            (
                pixels(6, (3, 32, 32)),
                None,
                r"pool mine has shape \(6, 3, 32, 32\), channels before .*: "
                r"give its transpose\(0, 2, 3, 1\)",
            ),
            (
                pixels(6, (1, 5, 5)),
                None,
                "has shape .*, channels before height",
            ),
            (pixels(0), None, r"pool mine has shape \(0, 4, 5, 3\)"),
            (pixels(6).astype(int), None, "pool mine has dtype int64"),
            (
                (pixels(6) > 99).astype(np.uint8),
                None,
                "pool mine holds uint8 pixels of 0 and 1 alone; expected 0 to "
                "255: multiply them by 255, or give booleans or floating",
            ),
            (pixels(6) * 1.0, None, r"pool mine holds the pixel .*in \[0, 1\]"),
            (np.full([6, 4, 5], np.nan), None, "holds the pixel nan"),
            (pixels(6), np.arange(5), "6 images and 5 labels; expected one"),
            (pixels(6), np.zeros(6), "pool mine has dtype float64"),
            (pixels(6), np.eye(6, dtype=int), "expected whole numbers"),
        ],
    )
    def test_refuses(self, images, labels, message):
        with pytest.raises(ValueError, match=message):
            data.Pool("mine", images, labels)


class TestNpz:
    def test_reads_images_alone(self, tmp_path):
        images = pixels(7)
        np.savez(tmp_path / "pool.npz", image=images, extra=np.arange(3))
        spec = f"npz:{tmp_path}/pool.npz"
        data.check_pool(spec)
        pool = data.load_pool(spec)
        np.testing.assert_array_equal(pool.images, images)
        assert pool.images.dtype == np.uint8 and pool.name == spec
        assert pool.labels is pool.labeled_by is pool.mean_confidence is None

    def test_reads_labels_and_who_gave_them(self, tmp_path):
        path = tmp_path / "pool.npz"
        np.savez(
            path, image=pixels(3) / 255, label=[2, 0, 1], labeled_by="runs/a"
        )
        pool = data.load_pool(f"npz:{path}")
        np.testing.assert_array_equal(pool.labels, [2, 0, 1])
        assert pool.labeled_by == "runs/a"

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x_train": pixels(3)}, "has no array image; expected image, and"),
            ({"image": np.array([{}])}, "image of .* pickled Python objects"),
            (
                {"image": pixels(3), "label": np.array([{}] * 3)},
                "label of .* pickled Python objects",
            ),
            (
                {"image": pixels(3), "labeled_by": ["a", "b"]},
                "labeled_by of .*pool.npz is no single text",
            ),
            (
                {"image": pixels(3), "mean_confidence": [0.1, 0.2]},
                "mean_confidence of .*pool.npz is no single number",
            ),
            ({"image": pixels(3) / 2.0}, "pool.npz holds the pixel"),
        ],
    )
    def test_refuses(self, tmp_path, arrays, message):
        np.savez(tmp_path / "pool.npz", **arrays)
        refused(f"npz:{tmp_path}/pool.npz", message)

    def test_refuses_a_damaged_file(self, tmp_path):
        path = tmp_path / "pool.npz"
        np.savez(path, image=pixels(200))
        content = bytearray(path.read_bytes())
        content[5000:5004] = b"oops"
        path.write_bytes(content)
        refused(f"npz:{path}", "pool.npz is damaged")
        path.write_bytes(content[:-100])
        with pytest.raises(ValueError, match="is not an .npz file, or is dam"):
            data.check_pool(f"npz:{path}")


class TestMapped:
    """Images that stay in their file: uncompressed, uint8 or float32."""

    def arrays(self, dtype):
        images = np.random.default_rng(0).integers(0, 256, [3000, 8, 8])
        if dtype == "uint8":
            return images.astype(dtype), np.arange(3000) % 7
        return (images / 255).astype(dtype), np.arange(3000) % 7

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_batches_are_those_of_memory(self, tmp_path, strategy, dtype):
        images, labels = self.arrays(dtype)
        stored, packed = tmp_path / "stored.npz", tmp_path / "packed.npz"
        np.savez(stored, label=labels, image=images)
        np.savez_compressed(packed, label=labels, image=images)
        stored, packed = (data.load_pool(f"npz:{p}") for p in (stored, packed))
        assert mapping.is_mapped(stored.images)
        assert not mapping.is_mapped(packed.images)
        assert stored.images.shape == (3000, 8, 8, 1)
        np.testing.assert_array_equal(stored.images, packed.images)
        split = data.load("digits").train
        settings = [{}, {"start_step": 40}, {"part": (1, 2)}]
        for each in settings:
            one, other = (
                data.training_batches(
                    split, 128, seed=3, pool=pool, augment="crop", **each
                ).take(50)
                for pool in (stored, packed)
            )
            assert one.element_spec == other.element_spec
            for mapped, loaded in zip(one, other, strict=True):
                tf.nest.map_structure(
                    np.testing.assert_array_equal, mapped, loaded
                )
        batches = data.training_batches(split, 128, seed=3, pool=stored)
        expected = next(iter(batches))[0]["image"]
        x, *_ = next(iter(strategy.experimental_distribute_dataset(batches)))
        local = strategy.experimental_local_results(x["image"])
        np.testing.assert_array_equal(np.concatenate(local), expected)

    def test_pixels_of_0_and_1_alone_are_refused_as_in_memory(self, tmp_path):
        images = np.zeros([3000, 8, 8], np.uint8)
        images[2999] = 1
        for save in (np.savez, np.savez_compressed):
            save(tmp_path / "pool.npz", image=images)
            with pytest.raises(ValueError, match="uint8 pixels of 0 and 1"):
                data.load_pool(f"npz:{tmp_path}/pool.npz")

    @pytest.mark.parametrize(
        "images",
        [
            pixels(4).astype("float64") / 255,
            (pixels(4) / 255).astype(">f4"),
            np.asfortranarray(pixels(4)),
        ],
        ids=["float64", "big-endian", "columns"],
    )
    def test_others_are_read_whole(self, tmp_path, images):
        np.savez(tmp_path / "pool.npz", image=images)
        pool = data.load_pool(f"npz:{tmp_path}/pool.npz")
        assert not mapping.is_mapped(pool.images)
        assert "disk" not in pool.describe()
        np.testing.assert_array_equal(pool.images, images.astype("float32"))

    @pytest.mark.parametrize("place", [0, 1500, 2999])
    def test_a_pixel_out_of_range_is_found(self, tmp_path, place):
        images, _ = self.arrays("float32")
        images[place, 7, 7] = np.nan
        np.savez(tmp_path / "pool.npz", image=images)
        refused(f"npz:{tmp_path}/pool.npz", "holds the pixel nan")

    def test_an_archive_behind_other_bytes(self, tmp_path):
        images, _ = self.arrays("uint8")
        path = tmp_path / "pool.npz"
        np.savez(path, image=images)
        path.write_bytes(b"x" * 999 + path.read_bytes())
        pool = data.load_pool(f"npz:{path}")
        assert mapping.is_mapped(pool.images)
        np.testing.assert_array_equal(pool.images, images[..., None])

    def test_one_that_says_it_is_longer_than_it_is(self, tmp_path):
        images, _ = self.arrays("uint8")
        path = tmp_path / "pool.npz"
        np.savez(path, image=images[:2999])
        content = bytearray(path.read_bytes())
        # In the array's own header, and as the size that the archive's list
        # says a member has once it is expanded.
        at = content.index(b"(2999, 8, 8)")
        content[at : at + 12] = b"(3000, 8, 8)"
        place = content.rindex(b"PK\x01\x02") + 24
        size = int.from_bytes(content[place : place + 4], "little")
        content[place : place + 4] = (size + 64).to_bytes(4, "little")
        path.write_bytes(content)
        refused(f"npz:{path}", "pool.npz is damaged .image.npy has two sizes")

    def test_of_no_more_memory_than_there_is(self, tmp_path, monkeypatch):
        images, labels = self.arrays("uint8")
        monkeypatch.setattr(ram, "available", lambda: 100_000)
        path = tmp_path / "pool.npz"
        np.savez(path, image=images, label=labels)
        assert len(data.load_pool(f"npz:{path}")) == 3000
        np.savez(path, image=images / 255)
        message = "1.5 MiB of memory, and 97.7 KiB are free; save its images as"
        refused(f"npz:{path}", message)
        np.savez_compressed(path, image=images)
        message = (
            "187.6 KiB of memory, .* free; write it without compression, a"
        )
        with pytest.raises(ValueError, match=message):
            data.check_pool(f"npz:{path}")

    def test_pages_are_given_back(self, tmp_path):
        if not pathlib.Path("/proc/self/smaps").exists():
            pytest.skip("needs Linux's /proc/self/smaps")
        path = tmp_path / "pool.npz"
        np.savez(path, image=np.full([4000, 64, 64], 2, np.uint8))
        pool = data.load_pool(f"npz:{path}")

        def resident():
            lines = pathlib.Path("/proc/self/smaps").read_text().splitlines()
            [place] = [n for n, line in enumerate(lines) if str(path) in line]
            [line] = [x for x in lines[place : place + 9] if "Rss:" in x]
            return 1024 * int(line.split()[1])

        assert resident() == 0
        pool.images.sum()
        assert resident() > 4000 * 64 * 64 / 2
        assert mapping.rows(pool.images, [5, 3000]).sum() == 4 * 64 * 64
        assert resident() == 0
        for part in mapping.parts(pool.images):
            assert part.sum() == 2 * len(part) * 64 * 64
            # What is beside a page comes with it.
            assert resident() < 4000 * 64 * 64 / 2
        assert resident() == 0

    def test_a_map_that_was_written_to_is_the_users(self, tmp_path):
        np.save(tmp_path / "images.npy", pixels(40))
        mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
        np.subtract(255, mapped, out=mapped)
        inverted = np.array(mapped)
        assert not mapping.is_mapped(mapped[..., :1])
        pool = data.Pool("inverted", mapped, np.zeros(40, int))
        np.testing.assert_array_equal(mapped, inverted)
        np.testing.assert_array_equal(pool.images, inverted)

    def test_label_pool_writes_one_that_can_stay_on_disk_too(self, tmp_path):
        path = tmp_path / "pool.npz"
        np.savez(path, image=pixels(40))
        pool = data.load_pool(f"npz:{path}")
        labeled = labeling.label_pool(
            linear(), pool, tmp_path / "labeled.npz", labeled_by="x"
        )
        read = data.load_pool(labeled.name)
        assert mapping.is_mapped(read.images)
        np.testing.assert_array_equal(read.images, pool.images)
        np.testing.assert_array_equal(read.labels, labeled.labels)


class TestFolder:
    def test_folders_mean_nothing(self, tmp_path):
        images = pixels(5)
        names = ["b/cat/0.png", "a.png", "b/1.PNG", ".git/x.png", "b/._y.png"]
        for name, image in zip(names, images, strict=True):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        data.check_pool(f"folder:{tmp_path}")
        pool = data.load_pool(f"folder:{tmp_path}")
        np.testing.assert_array_equal(pool.images, images[[1, 2, 0]])
        assert pool.labels is None
        small = data.load_pool(f"folder:{tmp_path}:size=2")
        assert small.image_shape == (2, 2, 3)

    def test_refuses(self, tmp_path):
        for call in (data.check_pool, data.load_pool):
            with pytest.raises(ValueError, match="holds no image; expected"):
                call(f"folder:{tmp_path}")
        (tmp_path / "a.png").write_text("no image")
        refused(f"folder:{tmp_path}", "a.png cannot be read as an image")
        refused(f"folder:{tmp_path}:mode=memory", "has no option 'mode'")
        refused(
            f"folder:{tmp_path}:size=0", "expected a whole number from 1 to"
        )


class TestOwn:
    """What a function of the user's own may return."""

    @pytest.fixture
    def returns(self, tmp_path, monkeypatch):
        """The spec of a function that returns what it is given."""
        (tmp_path / "own_pool.py").write_text("def made(): return RETURNED\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        own = importlib.import_module("own_pool")

        def returns(returned):
            own.RETURNED = returned
            return "own_pool:made"

        yield returns
        del sys.modules["own_pool"]

    @pytest.mark.parametrize(
        "form",
        [
            lambda images, labels: (images, labels),
            lambda images, labels: [images, labels],
            lambda images, labels: {"images": images, "labels": labels},
            lambda images, labels: {"image": images, "label": labels},
        ],
    )
    def test_images_and_labels(self, returns, form):
        images, labels = pixels(3), np.arange(3)
        pool = data.load_pool(returns(form(images, labels)))
        np.testing.assert_array_equal(pool.images, images)
        np.testing.assert_array_equal(pool.labels, labels)
        assert pool.name == "own_pool:made" and pool.labeled_by is None

    def test_images_alone(self, returns):
        for form in (pixels(3), {"image": pixels(3)}, (pixels(3), None)):
            pool = data.load_pool(returns(form))
            np.testing.assert_array_equal(pool.images, pixels(3))
            assert pool.labels is None

    def test_who_gave_the_labels(self, returns):
        fields = {"labels": np.arange(3), "labeled_by": "me"}
        fields["mean_confidence"] = 0.5
        pool = data.load_pool(returns({"image": pixels(3), **fields}))
        assert (pool.labeled_by, pool.mean_confidence) == ("me", 0.5)

    @pytest.mark.parametrize(
        ("returned", "given"),
        [
            (None, "None"),
            ((pixels(3), np.arange(3), "me"), "a tuple of 3"),
            ((pixels(3),), "a tuple of 1"),
            ([], "a list of 0"),
            ({}, "a dict with nothing"),
            ({"label": np.arange(3)}, "a dict with label"),
            ({"images": pixels(3), 0: 1}, "a dict with images, 0"),
            ({"images": pixels(3), "name": "me"}, "a dict with images, name"),
            (
                {"images": pixels(3), "image": pixels(3)},
                "a dict with images, image",
            ),
        ],
    )
    def test_refuses(self, returns, returned, given):
        assert refused(returns(returned), "own_pool") == (
            f"The pool own_pool:made returned {given}; expected an array of "
            "images, (images, labels), or a dict with images and perhaps "
            "labels, labeled_by and mean_confidence."
        )

    def test_refuses_what_is_no_array(self, returns):
        refused(returns(3), r"pool own_pool:made has shape \(\); expected")
        refused(returns(object()), "own_pool:made, of the type object, is no")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    tiny_tfds.prepare(
        folder,
        shards=3,
        train=tiny_tfds.examples(50),
        unlabelled=tiny_tfds.examples(20, label=-1),
    )
    return folder


class TestApart:
    """30 + 4 images are trained and validated on, 40 tested on."""

    @pytest.fixture(scope="class")
    @classmethod
    def mine(cls, tmp_path_factory):
        path = tmp_path_factory.mktemp("mine") / "mine.npz"
        np.savez(
            path,
            x_train=pixels(40),
            y_train=np.arange(40) % 2,
            x_test=pixels(40, seed=1),
            y_test=np.arange(40) % 2,
        )
        return data.load(f"npz:{path}")

    @pytest.mark.parametrize("scale", [1, 255])
    def test_refuses_the_test_split_in_any_form(self, mine, scale):
        images = np.concatenate([pixels(300, seed=2), pixels(40, seed=1)[::-1]])
        if scale != 1:
            images = images / scale
        with pytest.raises(
            ValueError,
            match="pool p holds 40 of the 40 images of the test split of npz:",
        ):
            data.check_apart(data.Pool("p", images), mine)

    def test_refuses_the_validation_split(self, mine):
        pool = data.Pool("p", pixels(40))
        with pytest.raises(ValueError, match="4 of the 4 .* validation split"):
            data.check_apart(pool, mine)

    def test_takes_other_images(self, mine):
        data.check_apart(data.Pool("p", pixels(40, seed=3)), mine)
        # The same numbers in another shape.
        other = pixels(40, seed=1).reshape(40, 5, 4, 3)
        data.check_apart(data.Pool("p", other), mine)
        # Those that are trained on do not spoil a measurement.
        data.check_apart(data.Pool("p", mine.train.images), mine)

    def of_test_images(self, folder, count):
        """A set that trains on its test images, and these."""
        images, labels = pixels(count), np.arange(count) % 2
        np.savez(
            folder / "mine.npz",
            x_train=images,
            y_train=labels,
            x_test=images,
            y_test=labels,
        )
        mine = data.load(f"npz:{folder}/mine.npz", validation_images=0)
        return mine, images

    def test_a_duplicate_in_a_hundred_is_told(self, tmp_path):
        mine, images = self.of_test_images(tmp_path, 200)
        new = pixels(198, seed=3)
        pool = data.Pool("p", np.concatenate([images[:2], new]))
        with pytest.warns(UserWarning, match="p holds 2 of the 200 images of"):
            data.check_apart(pool, mine)
        pool = data.Pool("p", np.concatenate([images[:3], new]))
        with pytest.raises(ValueError, match="holds 3 of the 200 images"):
            data.check_apart(pool, mine)

    def test_a_few_test_images_many_times_are_refused(self, tmp_path):
        mine, images = self.of_test_images(tmp_path, 2000)
        pool = data.Pool("p", np.repeat(images[:10], 20, axis=0))
        # Half a per cent of the split, and all of the pool.
        with pytest.raises(ValueError, match="holds 10 of the 2,000 images"):
            data.check_apart(pool, mine)


class TestTfds:
    def test_rows_are_those_of_the_data_set(self, prepared):
        source = data.load("tiny", data_dir=prepared)
        by_row = {}
        for split in (source.train, source.validation, source.test):
            by_row.update(zip(split.indices, split.images, strict=True))
        pool = data.load_pool("tiny", data_dir=prepared)
        assert len(pool) == 50 and pool.labels is None
        for row, image in enumerate(pool.images):
            np.testing.assert_array_equal(image, by_row[row])
        some = data.load_pool("tiny:first=30:count=13", data_dir=prepared)
        np.testing.assert_array_equal(some.images, pool.images[30:43])
        rest = data.load_pool("tiny:first=30", data_dir=prepared)
        np.testing.assert_array_equal(rest.images, pool.images[30:])

    def test_reads_a_split_without_labels(self, prepared):
        pool = data.load_pool("tiny:split=unlabelled:size=3", data_dir=prepared)
        assert pool.images.shape == (20, 3, 3, 1) and pool.labels is None

    def test_reads_a_set_without_labels(self, tmp_path):
        features = {"image": tiny_tfds.GREY}
        values = [{"image": e["image"]} for e in tiny_tfds.examples(5)]
        tiny_tfds.prepare(tmp_path, features=features, train=values)
        assert len(data.load_pool("tiny", data_dir=tmp_path)) == 5

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("tiny:split=test", "no split 'test'; expected one of: train, unl"),
            ("tiny:first=40:count=11", "has 50 images; first=40 and count=11"),
            ("tiny:first=-1", "has 50 images; first=-1"),
            ("tiny:first=50", "has 50 images; first=50"),
            ("tiny:count=0", "count=0"),
            ("tiny:count=x", "expected a whole number"),
            ("tiny:split=train[1000:2000]", "expected key=value parts"),
            ("tiny:mode=memory", "has no option 'mode'"),
            ("tniy", "Unknown pool 'tniy'; did you mean 'tiny'"),
            ("digits", "expected folder:PATH, npz:PATH, pickle:PATH or a TFDS"),
            ("mnist", "'mnist' is not prepared in .*--download"),
            ("npz", "Pool 'npz' names no path; expected npz:PATH"),
            ("npz:/absent.npz", "There is no file /absent.npz"),
            ("folder:/absent", "There is no folder /absent"),
            ("pickle:/absent.p", "There is no file /absent.p"),
        ],
    )
    def test_refuses_before_reading(self, prepared, spec, message):
        refused(spec, message, data_dir=prepared)
        with pytest.raises(ValueError, match=message):
            data.check_pool(spec, data_dir=prepared)

    def test_refuses_a_damaged_set(self, tmp_path):
        tiny_tfds.prepare(tmp_path, train=tiny_tfds.examples(50))
        (record,) = tmp_path.glob("tiny/1.0.0/*.tfrecord*")
        record.write_bytes(record.read_bytes()[:-50])
        refused("tiny", "tfrecord.* checksum does not match", data_dir=tmp_path)
        (tmp_path / "tiny/1.0.0/dataset_info.json").write_text("{")
        refused("tiny", "info.json is missing or damaged", data_dir=tmp_path)

    @pytest.mark.skipif(
        not SHARED.is_dir(), reason=f"no prepared TFDS data in {SHARED}"
    )
    def test_rows_of_mnist(self):
        pool = data.load_pool("mnist:first=1000:count=200", data_dir=SHARED)
        assert pool.describe() == (
            "mnist:first=1000:count=200: 200 images of 28x28x1, without labels"
        )
        stream = data.load("mnist:mode=streaming", data_dir=SHARED).train
        images, _ = data.arrays(stream, 1100)
        rows = stream.indices[:1100]
        chosen = rows >= 1000
        np.testing.assert_array_equal(
            images[chosen],
            pool.images[rows[chosen] - 1000].astype(np.float32) / 255,
        )


class Touches:
    """Pickled so that reading it the usual way creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def array_of_python_2(array):
    """The part of a pickle that numpy 1 under Python 2 wrote of an array."""
    code, content = array.dtype.str.encode(), array.tobytes()
    sizes = b"".join(b"K" + bytes([size]) for size in array.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01(" + sizes + b"t"
        b"cnumpy\ndtype\nU\x02" + code[1:] + b"K\x00K\x01\x87R"
        b"(K\x03U\x01" + code[:1] + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + len(content).to_bytes(4, "little") + content + b"tb"
    )


class TestPickle:
    def write(self, tmp_path, content):
        path = tmp_path / "pool.pickle"
        if not isinstance(content, bytes):
            content = pickle.dumps(content)
        path.write_bytes(content)
        return f"pickle:{path}"

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
    def test_reads_every_protocol_of_both_numpys(
        self, tmp_path, protocol, core
    ):
        images, labels = pixels(9, (32, 32, 3)), np.arange(9) % 4
        content = pickle.dumps(
            {
                "data": images,
                "extrapolated_targets": labels,
                "prediction_model": "resnet",
                "epoch": np.int64(7),
                "scores": [0.5, {"a": (1, None)}],
            },
            protocol,
        )
        if protocol < 4:
            content = content.replace(b"numpy._core", core.encode())
        spec = self.write(tmp_path, content)
        data.check_pool(spec)
        pool = data.load_pool(spec)
        assert pool.images.dtype == np.uint8
        np.testing.assert_array_equal(pool.images, images)
        np.testing.assert_array_equal(pool.labels, labels)
        assert unpickling.load(tmp_path / "pool.pickle")["epoch"] == 7

    def test_reads_what_python_2_wrote(self, tmp_path):
        images, labels = pixels(9), np.arange(9)
        content = (
            b"\x80\x02}(U\x04data" + array_of_python_2(images) + b"U\x14"
            b"extrapolated_targets" + array_of_python_2(labels) + b"u."
        )
        # The usual reader takes it too, and bytes are `str` in it.
        same = pickle.loads(content, encoding="bytes")
        np.testing.assert_array_equal(same[b"data"], images)
        pool = data.load_pool(self.write(tmp_path, content))
        np.testing.assert_array_equal(pool.images, images)
        np.testing.assert_array_equal(pool.labels, labels)

    @pytest.mark.parametrize("protocol", [2, 4, 5])
    @pytest.mark.parametrize(
        "array",
        [
            np.asfortranarray(pixels(4)),
            pixels(4).transpose(2, 0, 1, 3),
            pixels(4)[::2],
            np.arange(6, dtype=">i2").reshape(2, 3),
            np.linspace(0, 1, 5, dtype=np.float16),
            np.array([True, False]),
            np.array(["ant", "bee"]),
            np.float32(0.3),
        ],
    )
    def test_arrays_of_every_order_and_kind(self, tmp_path, protocol, array):
        path = tmp_path / "arrays.pickle"
        path.write_bytes(pickle.dumps({"array": array}, protocol))
        loaded = unpickling.load(path)["array"]
        assert loaded.dtype == array.dtype
        np.testing.assert_array_equal(loaded, array)

    def test_labels_may_be_missing(self, tmp_path):
        pool = data.load_pool(self.write(tmp_path, {"data": pixels(3)}))
        assert pool.labels is None

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_executes_nothing(self, tmp_path, protocol):
        trap = tmp_path / "trap"
        content = pickle.dumps(
            {"data": pixels(3), "extrapolated_targets": Touches(trap)}, protocol
        )
        pickle.loads(content)
        assert trap.is_dir()
        trap.rmdir()
        message = refused(
            self.write(tmp_path, content), f"holds {os.name}.mkdir; a pool's"
        )
        assert "nothing of it was executed" in message
        assert not trap.exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"cos\nsystem\n(S'true'\ntR.", "holds os.system"),
            (b"cbuiltins\neval\n(S'1'\ntR.", "holds builtins.eval"),
            (b"(S'true'\nios\nsystem\n.", "holds os.system"),
            (b"cnumpy\nload\n(S'a'\ntR.", "holds numpy.load"),
            (b"cnumpy._core.multiarray\nfromfile\n.", "multiarray.fromfile"),
            (b"c_codecs\nencode\n(S'a'\nS'zip'\ntR.", "the encoding 'zip'"),
            (pickle.dumps({"data": np.array([{}])}), "the kind 'O8'"),
            (pickle.dumps({"data": np.zeros(2, "u1,O")}), "the kind 'V9'"),
            # What begins like a number's kind, and is one of more than that.
            (b"cnumpy\ndtype\n(S'u1,O'\nI00\nI01\ntR.", "the kind 'u1,O'"),
            (b"cnumpy\ndtype\n(S'f8[2]'\nI00\nI01\ntR.", "kind 'f8.2.'"),
            (pickle.dumps({"data": np.array(["2020"], "M8[D]")}), "kind 'M8'"),
            (pickle.dumps({"data": np.ma.array([1])}), "holds numpy.ma.core"),
            (pickle.dumps({"data": [1, 2]}), "holds no array data; expected"),
            (
                pickle.dumps({"data": pixels(1), "extrapolated_targets": [0]}),
                "holds no array extrapolated_targets",
            ),
            (pickle.dumps({"image": pixels(3)}), "holds no array data"),
            (pickle.dumps(pixels(3)), "holds no dict"),
            (pickle.dumps({"data": pixels(3)})[:-20], "or is damaged"),
            (b"PK\x03\x04", "is not a pickle of arrays, or"),
            (b"", "is not a pickle of arrays, or"),
            # A dtype's state that is none of a number's.
            (
                b"cnumpy\ndtype\n(S'u1'\nI00\nI01\ntR(I3\nS'O'\ntb.",
                "is not a pickle of arrays, or",
            ),
        ],
    )
    def test_refuses_all_but_arrays(self, tmp_path, content, message):
        refused(self.write(tmp_path, content), message)

    def test_only_arrays_have_a_state(self, tmp_path):
        # An instance of encoded bytes beside the images, with BUILD's state.
        images = pickle.dumps(pixels(3), 2)[2:-1]
        bytes_in = b"c_codecs\nencode\n(S'a'\nS'latin1'\ntR"
        for state in (b"N", b"(dS'value'\nS'b'\ns", b"(N(dS'value'\nNst"):
            content = b"\x80\x02}(U\x04data" + images + b"U\x05other"
            spec = self.write(tmp_path, content + bytes_in + b"u.")
            np.testing.assert_array_equal(
                data.load_pool(spec).images, pixels(3)
            )
            spec = self.write(tmp_path, content + bytes_in + state + b"bu.")
            refused(spec, "is not a pickle of arrays, or is damaged")

    def test_a_state_changes_nothing_that_lasts(self, tmp_path):
        # BUILD with (None, {name: value}) sets attributes of what it is given.
        for name in (b"cnumpy\ndtype\n", b"c_codecs\nencode\n"):
            content = name + b"(N(dS'__init__'\ncnumpy\nndarray\nstb."
            refused(self.write(tmp_path, content), "is damaged")
        images = pixels(3)
        pool = data.load_pool(self.write(tmp_path, {"data": images}))
        np.testing.assert_array_equal(pool.images, images)


def test_checks_import_nothing_heavy(tmp_path, prepared):
    np.savez(tmp_path / "pool.npz", image=pixels(3))
    (tmp_path / "pool.pickle").write_bytes(pickle.dumps({}))
    (tmp_path / "a.png").write_text("an image, for all that a name tells")
    code = f"""
        import sys
        from mart_tf import data
        data.check_pool("npz:{tmp_path}/pool.npz")
        data.check_pool("pickle:{tmp_path}/pool.pickle")
        data.check_pool("folder:{tmp_path}")
        data.check_pool("tiny:first=3:count=5", data_dir={str(prepared)!r})
        data.check_pool("absent", data_dir="/absent", download=True)
        heavy = {{"tensorflow", "tensorflow_datasets", "numpy", "keras"}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def linear(shape=(4, 5, 3), classes=3, softmax=False, seed=0):
    """A linear classifier with weights of its own."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(
                classes,
                activation="softmax" if softmax else None,
                kernel_initializer=keras.initializers.RandomNormal(),
            ),
        ]
    )


class TestLabelPool:
    @pytest.mark.parametrize("batch_size", [4, 10, 64])
    def test_writes_what_the_network_says(self, tmp_path, batch_size):
        network, path = linear(), tmp_path / "pool.npz"
        pool = data.Pool("mine", pixels(10))
        counts = []
        labeled = labeling.label_pool(
            network,
            pool,
            path,
            labeled_by="runs/natural",
            batch_size=batch_size,
            progress=counts.append,
        )
        kernel, bias = (w.astype(np.float64) for w in network.get_weights())
        logits = pixels(10).reshape(10, -1) / 255 @ kernel + bias
        odds = np.exp(logits - logits.max(1, keepdims=True))
        confidence = (1 / odds.sum(1)).mean()
        assert counts[-1] == 10 and len(counts) == -(-10 // batch_size)
        read = data.load_pool(f"npz:{path}")
        for each in (labeled, read):
            assert each.name == f"npz:{path}"
            assert each.labeled_by == "runs/natural"
            assert each.images.dtype == np.uint8
            np.testing.assert_array_equal(each.images, pool.images)
            np.testing.assert_array_equal(each.labels, logits.argmax(1))
            assert each.mean_confidence == pytest.approx(confidence, abs=1e-5)
        assert [child.name for child in tmp_path.iterdir()] == ["pool.npz"]

    def test_computes_in_float32_and_inference_mode(self, tmp_path):
        network = linear()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            mixed = keras.Sequential(
                [
                    keras.Input((4, 5, 3)),
                    keras.layers.Dropout(0.9),
                    keras.layers.Flatten(),
                    keras.layers.Dense(3),
                ]
            )
        finally:
            keras.config.set_dtype_policy("float32")
        mixed.set_weights(network.get_weights())
        pool = data.Pool("mine", pixels(200))
        one, other = (
            labeling.label_pool(net, pool, tmp_path / name, labeled_by="x")
            for net, name in ((network, "a.npz"), (mixed, "b.npz"))
        )
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.mean_confidence == pytest.approx(other.mean_confidence)

    def test_probabilities_are_declared(self, tmp_path):
        network, path = linear(softmax=True), tmp_path / "pool.npz"
        pool = data.Pool("mine", pixels(10))
        with pytest.raises(ValueError, match="ends in a softmax"):
            labeling.label_pool(network, pool, path, labeled_by="x")
        labeled = labeling.label_pool(
            network, pool, path, labeled_by="x", outputs="probabilities"
        )
        logits = labeling.label_pool(
            linear(), pool, tmp_path / "other.npz", labeled_by="x"
        )
        np.testing.assert_array_equal(labeled.labels, logits.labels)
        assert labeled.mean_confidence == pytest.approx(logits.mean_confidence)

    def test_never_overwrites(self, tmp_path):
        path = tmp_path / "pool.npz"
        path.write_text("mine")
        pool = data.Pool("mine", pixels(10))
        with pytest.raises(ValueError, match="exists; a pool is never overwr"):
            labeling.label_pool(linear(), pool, path, labeled_by="x")
        assert path.read_text() == "mine"

    def test_nor_what_appears_meanwhile(self, tmp_path):
        path = tmp_path / "pool.npz"
        pool = data.Pool("mine", pixels(10))
        with pytest.raises(ValueError, match="exists; a pool is never overwr"):
            labeling.label_pool(
                linear(),
                pool,
                path,
                labeled_by="x",
                progress=lambda done: path.write_text("another's"),
            )
        assert path.read_text() == "another's"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failure_leaves_nothing(self, tmp_path, monkeypatch):
        def fail(file, **arrays):
            file.write(b"half of it")
            raise OSError("No space left on device")

        monkeypatch.setattr(np, "savez_compressed", fail)
        pool = data.Pool("mine", pixels(10))
        with pytest.raises(OSError, match="No space"):
            labeling.label_pool(
                linear(), pool, tmp_path / "pool.npz", labeled_by="x"
            )
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (
                lambda: linear((8, 8, 1)),
                r"\(None, 8, 8, 1\); the images of the pool mine have shape",
            ),
            (lambda: linear((60,)), r"takes inputs of shape \(None, 60\)"),
            (lambda: "resnet18", "The classifier is a str; expected a keras"),
        ],
    )
    def test_refuses_what_does_not_fit(self, tmp_path, network, message):
        pool = data.Pool("mine", pixels(10))
        with pytest.raises(ValueError, match=message):
            labeling.label_pool(
                network(), pool, tmp_path / "pool.npz", labeled_by="x"
            )
        assert not list(tmp_path.iterdir())

    def test_refuses_nan_and_bad_arguments(self, tmp_path):
        network, pool = linear(), data.Pool("mine", pixels(10))
        path = tmp_path / "pool.npz"
        with pytest.raises(ValueError, match="expected a Pool, as"):
            labeling.label_pool(network, pixels(10), path, labeled_by="x")
        with pytest.raises(ValueError, match="The pixel range is 255; expec"):
            labeling.label_pool(
                network, pool, path, labeled_by="x", pixel_range=255
            )
        with pytest.raises(ValueError, match="batch_size is 0; expected"):
            labeling.label_pool(
                network, pool, path, labeled_by="x", batch_size=0
            )
        absent = tmp_path / "absent" / "pool.npz"
        with pytest.raises(ValueError, match="There is no folder .*absent"):
            labeling.label_pool(network, pool, absent, labeled_by="x")
        kernel, bias = network.get_weights()
        network.set_weights([kernel, bias * np.nan])
        with pytest.raises(ValueError, match="NaN for image 0 of the pool min"):
            labeling.label_pool(network, pool, path, labeled_by="x")
        assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


class TestCheckFit:
    def pool(self, count=20, shape=(8, 8, 1), labels=None):
        return data.Pool(
            "mine",
            pixels(count, shape),
            np.arange(count) % 10 if labels is None else labels,
        )

    def test_passes_what_fits(self, digits):
        data.check_fit(self.pool(), digits, 32)
        data.check_fit(self.pool(1), digits, 2)
        data.check_fit(self.pool(4), digits, 32, 0.125, 0.0)

    @pytest.mark.parametrize(
        ("given", "settings", "message"),
        [
            (
                {"shape": (8, 8, 3)},
                {},
                r"mine have shape \(8, 8, 3\); the data",
            ),
            ({"count": 15}, {}, "15 images, fewer than the 16 .* batch of 32"),
            ({"labels": np.full(20, 10)}, {}, "label 10; digits has .* 0 to 9"),
            ({"labels": np.full(20, -1)}, {}, "holds the label -1"),
            ({}, {"pool_fraction": 0.0}, "pool_fraction is 0.0; expected"),
            ({}, {"pool_fraction": 1.0}, "pool_fraction is 1.0; expected"),
            ({}, {"pool_fraction": float("nan")}, "pool_fraction is nan"),
            ({}, {"pool_fraction": "half"}, "pool_fraction is 'half'; expec"),
            ({}, {"unlabeled_weight": "1"}, "unlabeled_weight is '1'; expec"),
            ({}, {"batch_size": 1}, "batch_size is 1; with a pool, expected"),
            ({}, {"unlabeled_weight": -0.1}, "unlabeled_weight is -0.1"),
            ({}, {"unlabeled_weight": float("inf")}, "unlabeled_weight is inf"),
        ],
    )
    def test_refuses(self, digits, given, settings, message):
        settings = {"batch_size": 32, **settings}
        with pytest.raises(ValueError, match=message) as error:
            data.check_fit(self.pool(**given), digits, **settings)
        assert "\n" not in str(error.value)

    def test_says_how_to_label(self, digits):
        pool = data.Pool("mnist:split=test", pixels(20, (8, 8, 1)))
        advice = (
            "label it once with mart-label --workdir=RUN "
            "--pool=mnist:split=test --output=pool.npz and give "
            "--pool=npz:pool.npz"
        )
        with pytest.raises(ValueError, match=advice):
            data.check_fit(pool, digits, 32)
