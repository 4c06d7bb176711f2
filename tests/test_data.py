"""The embedded digits, their splits, and names checked without TensorFlow."""

import dataclasses
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sklearn import datasets
import splitmix

from mart_tf import data
from mart_tf.data import parts
from mart_tf.data import splits


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


class TestDigits:
    def test_pixels_are_exact_sixteenths(self, digits):
        source = datasets.load_digits()
        for split in (digits.train, digits.validation, digits.test):
            images, labels = data.arrays(split)
            assert images.dtype == np.float32 and labels.dtype == np.int32
            np.testing.assert_array_equal(
                images[..., 0] * 16, source.images[split.indices]
            )
            np.testing.assert_array_equal(labels, source.target[split.indices])

    def test_every_image_is_in_one_split(self, digits):
        parts = (digits.train, digits.validation, digits.test)
        rows = np.concatenate([split.indices for split in parts])
        np.testing.assert_array_equal(np.sort(rows), np.arange(1797))
        # A fifth is test, a tenth of the rest is validation.
        assert [len(split) for split in parts] == [1294, 144, 359]

    def test_is_described_in_one_line(self, digits):
        assert digits.describe() == (
            "digits: 1,294 training, 144 validation, 359 test images of "
            "8x8x1, 10 classes; in memory"
        )
        assert digits.class_names == tuple("0123456789")


class TestCarve:
    def test_ranks_rows_by_splitmix64(self):
        hashes = splitmix.sequence(0, 100)
        expected = np.sort(np.argsort(hashes)[:30])
        np.testing.assert_array_equal(
            splits.carve(np.arange(100), 30, 0), expected
        )

    def test_never_changes(self):
        # A change here would move every user's validation split.
        chosen = splits.carve(np.arange(60000), 2000, 2)
        assert len(np.unique(chosen)) == 2000
        np.testing.assert_array_equal(chosen[:6], [27, 89, 128, 165, 206, 244])

    def test_a_row_is_chosen_for_its_number_alone(self):
        chosen = splits.carve(np.arange(100), 30, 1)
        kept = np.setdiff1d(np.arange(100), [chosen[0]])
        again = splits.carve(kept, 29, 1)
        np.testing.assert_array_equal(again, chosen[1:])

    def test_as_many_validation_images_as_asked_for(self):
        some = data.load("digits", validation_images=360)
        assert (len(some.validation), len(some.train)) == (360, 1078)
        none = data.load("digits", validation_images=0)
        assert (len(none.validation), len(none.train)) == (0, 1438)
        assert data.arrays(none.validation)[0].shape == (0, 8, 8, 1)
        # The test images are the same: they are carved first.
        np.testing.assert_array_equal(some.test.indices, none.test.indices)

    @pytest.mark.parametrize("with_test", [True, False])
    def test_validation_has_a_limit_and_a_stream_of_its_own(
        self, with_test, monkeypatch
    ):
        # The hash of row r in stream s is SplitMix64's output number r + 1
        # from the state s * 2^48 golden ratios on.
        def ranked(rows, stream):
            start = (stream << 48) * 0x9E3779B97F4A7C15 % 2**64
            return rows[np.argsort(splitmix.sequence(start, 200)[rows])]

        monkeypatch.setattr(splits, "MAX_VALIDATION", 7)
        whole = splits.memory_split(
            np.zeros([200, 2, 2, 1], np.uint8), np.arange(200) % 2
        )
        source = splits.Source(("a", "b"), whole, whole if with_test else None)
        rows = np.arange(200)
        if not with_test:
            test = ranked(rows, 1)[:40]
            rows = np.setdiff1d(rows, test)
        for asked, size in [(None, 7), (40, 40)]:
            made = splits.assemble("mine", source, asked)
            expected = np.sort(ranked(rows, 2)[:size])
            np.testing.assert_array_equal(made.validation.indices, expected)
            np.testing.assert_array_equal(
                made.train.indices, np.setdiff1d(rows, expected)
            )
            if not with_test:
                np.testing.assert_array_equal(made.test.indices, np.sort(test))

    @pytest.mark.parametrize("images", [-1, 1438, 10**6])
    def test_refuses_a_split_that_leaves_nothing(self, images):
        with pytest.raises(ValueError, match=f"validation_images is {images}"):
            data.load("digits", validation_images=images)


class TestCheck:
    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("digit", "Unknown dataset 'digit'; did you mean 'digits'"),
            ("mnits", "Unknown dataset 'mnits'; did you mean 'mnist'"),
            ("stanford_dogs", "no set of this name is prepared in .*--down"),
            ("mnist", "'mnist' is not prepared in .*--download.*--data_dir"),
            ("folder", "'folder' names no path; expected folder:PATH"),
            ("npz", "expected npz:PATH"),
            ("npz:/absent.npz", "There is no file /absent.npz"),
            ("folder:/absent", "There is no folder /absent"),
            ("/absent.npz", "did you mean 'npz:/absent.npz'"),
            ("/tmp", "did you mean 'folder:/tmp'"),
            ("digits:sice=8", "has no option 'sice'"),
            ("digits:8", "'8' is not an option"),
            ("mnist:(0)", "of: a TFDS name, digits, folder, npz, package.mod"),
            ("mnist:train[:10%]", "names a part of a split; expected options,"),
            ("mnist:[0]:size=8", "such as mnist:count=6000:size=8 for the"),
            ("folder:/absent:sice=8", "did you mean 'size'"),
            ("folder:/absent:size=0", "size is 0; expected a whole"),
            ("folder:/absent:size=x", "expected a whole number"),
            ("folder:/absent:mode=ram", "expected one of: memory, streaming"),
            ("", "has no name"),
        ],
    )
    def test_refuses(self, tmp_path, spec, message):
        for call in (data.check, data.load):
            with pytest.raises(ValueError, match=message):
                call(spec, data_dir=tmp_path)

    def test_refuses_a_place_that_is_none(self):
        with pytest.raises(ValueError, match="data_dir is 5; expected the pat"):
            data.load("mnist", data_dir=5)

    @pytest.mark.parametrize("given", [np.zeros([4, 8, 8, 1]), list, None])
    def test_refuses_a_pool_that_has_no_name(self, given):
        with pytest.raises(ValueError, match="expected a name such as npz:po"):
            data.load_pool(given)

    @pytest.mark.parametrize("download", [False, True])
    @pytest.mark.parametrize(
        ("spec", "mended"),
        [
            ("mnist:3.0.1", "mnist"),
            ("mnist:3.*.*", "mnist"),
            ("mnist/3.0.1", "mnist"),
            ("mnist:3.0.1:size=8", "mnist:size=8"),
            ("mnist_corrupted/fog:1.0.0", "mnist_corrupted/fog"),
            ("mnist_corrupted/fog/1.0.0", "mnist_corrupted/fog"),
        ],
    )
    def test_refuses_a_version(self, tmp_path, spec, mended, download):
        with pytest.raises(ValueError) as error:
            data.check(spec, data_dir=tmp_path, download=download)
        assert str(error.value) == (
            f"Dataset {spec!r} names a version; expected none, since the "
            f"newest that is prepared below {tmp_path} is read: write {mended}."
        )

    @pytest.mark.parametrize(
        ("spec", "mended"),
        [
            ("tfds", "mnist"),
            ("tfds:kmnist", "kmnist"),
            ("tfds:kmnist:3.0.1", "kmnist"),
            ("tfds:kmnist:size=8", "kmnist:size=8"),
        ],
    )
    def test_a_set_is_called_by_its_bare_name(self, spec, mended):
        for call, kind in ((data.check, "Dataset"), (data.check_pool, "Pool")):
            with pytest.raises(ValueError) as error:
                call(spec)
            assert str(error.value) == (
                f"{kind} {spec!r} names TFDS itself; expected the bare name of "
                f"a set, such as {mended}."
            )

    def test_a_configuration_may_be_a_number(self, tmp_path):
        with pytest.raises(ValueError, match="Unknown dataset 'voc/2007'; exp"):
            data.check("voc/2007", data_dir=tmp_path)

    def test_a_download_may_bring_any_name(self, tmp_path):
        data.check("stanford_dogs", data_dir=tmp_path, download=True)

    def test_imports_nothing_heavy(self, tmp_path):
        numbers = np.arange(6)
        keys = ("x_train", "y_train", "x_test", "y_test")
        np.savez(tmp_path / "images.npz", **dict.fromkeys(keys, numbers))
        code = f"""
            import sys
            from mart_tf import data
            data.check("digits")
            data.check("npz:{tmp_path}/images.npz")
            for bad in ("mnits", "mnist", "folder:{tmp_path}", "npz:/absent"):
                try:
                    data.check(bad, data_dir={str(tmp_path)!r})
                except ValueError:
                    continue
                raise AssertionError(bad)
            heavy = {{"tensorflow", "tensorflow_datasets", "numpy", "keras"}}
            assert not heavy & set(sys.modules), heavy & set(sys.modules)
        """
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], check=True
        )


class TestSource:
    """One that a user's own function returns is looked at as all are."""

    def _made(self, train, test=None, names=("a", "b", "c")):
        return lambda: splits.Source(
            names,
            splits.memory_split(*train),
            test and splits.memory_split(*test),
        )

    @pytest.mark.parametrize(
        ("train", "test", "said"),
        [
            (
                (np.zeros([9, 4, 4, 1], np.uint8), np.arange(9) % 4),
                None,
                "The training set holds the label 3, and there are 3 class",
            ),
            (
                (np.zeros([9, 4, 4, 1], np.uint8), np.arange(9) % 3),
                (np.zeros([9, 4, 4, 1], np.uint8), np.arange(9) % 3 - 1),
                "The test set holds the label -1, and there are 3 class names",
            ),
            (
                (np.full([9, 4, 4, 1], 255.0, np.float32), np.arange(9) % 3),
                None,
                "The array of images holds the pixel 255.0; expected float",
            ),
            (
                (np.zeros([9, 4, 4, 1], np.uint8), np.arange(9) % 3),
                (np.zeros([9, 5, 4, 1], np.uint8), np.arange(9) % 3),
                r"of shape \(4, 4, 1\) and test images of \(5, 4, 1\)",
            ),
        ],
    )
    def test_is_refused(self, train, test, said):
        with pytest.raises(ValueError, match=said):
            data.load(self._made(train, test))

    @pytest.mark.parametrize(
        ("labels", "said"),
        [
            (np.arange(9) + 0.7, "has dtype float64 and shape (9,); expected"),
            (np.eye(9, dtype=int), "and shape (9, 9); expected whole numbers"),
            (np.arange(8), "There are 9 images and 8 labels; expected as many"),
            (np.arange(10), "There are 9 images and 10 labels"),
        ],
    )
    def test_labels_are_looked_at(self, labels, said):
        images = np.zeros([9, 4, 4, 1], np.uint8)
        with pytest.raises(ValueError, match=re.escape(said)):
            splits.memory_split(images, labels)

    @pytest.mark.parametrize(
        ("images", "said"),
        [
            (np.full([9, 4, 4, 1], 254, np.int32), "has dtype int32; expected"),
            (np.full([9, 4, 4, 1], 2.0), "holds the pixel 2.0; expected float"),
            (np.zeros([9, 3, 8, 8], np.uint8), "channels before height"),
            ([["a"]], "expected [n, height, width] or [n, height, width, chan"),
        ],
    )
    def test_images_are_looked_at(self, images, said):
        with pytest.raises(ValueError, match=re.escape(said)):
            splits.memory_split(images, np.arange(9) % 3)

    def test_images_in_other_forms(self):
        """float64 without channels, and booleans: batches of float32."""
        half = np.full([9, 4, 4], 0.5)
        for images, pixel in ((half, 0.5), (half > 0.1, 1.0)):
            split = data.memory_split(images, np.arange(9) % 3)
            [(inputs, _, _)] = data.training_batches(split, 4).take(1)
            image = inputs["image"]
            assert (image.shape, image.dtype) == ((4, 4, 4, 1), "float32")
            assert (image.numpy() == pixel).all()

    def test_labels_in_a_column(self):
        """As keras.datasets.cifar10 has them."""
        images = np.zeros([9, 4, 4, 1], np.uint8)
        labels = np.arange(9) % 3
        dataset = data.load(self._made((images, labels[:, None])))
        [batch] = data.training_batches(dataset.train, 4).take(1)
        assert batch[1].shape == [4]
        _, given = data.arrays(dataset.test)
        np.testing.assert_array_equal(given, labels[dataset.test.indices])

    def test_an_instance(self):
        images = np.random.default_rng(0).random([9, 4, 4])
        make = self._made((images, np.arange(9) % 3))
        one, other = data.load(make(), validation_images=2), data.load(make)
        assert one.name == "Source"
        assert (len(one.train), len(one.validation), len(one.test)) == (5, 2, 2)
        np.testing.assert_array_equal(one.test.images, other.test.images)

    @pytest.mark.parametrize("given", [3, ([1], [2])])
    def test_another_object_is_refused(self, given):
        said = "expected a name such as npz:.*, or a mart_tf.data.Source"
        with pytest.raises(ValueError, match=said):
            data.load(given)

    def test_a_half_that_is_no_set(self):
        said = "training set is a tuple; expected what .*memory_split makes"
        with pytest.raises(ValueError, match=said):
            splits.Source(("a", "b"), (np.zeros(3), np.zeros(3)), None)

    @pytest.mark.parametrize(
        ("images", "labels", "said"),
        [
            (np.full([4, 4, 4], 0.5), [0, 1, 2, 1], None),
            (
                np.full([4, 4, 4], 0.5),
                [0, 1, 3, 1],
                "fog set holds the label 3",
            ),
            (np.full([4, 5, 4], 0.5), [0, 1, 2, 1], "and fog images of"),
        ],
    )
    def test_other_splits_are_looked_at(self, images, labels, said):
        source = self._made((np.full([9, 4, 4], 0.5), np.arange(9) % 3))()
        others = {"fog": splits.memory_split(images, labels)}
        source = dataclasses.replace(source, others=others.get)
        dataset = data.load(source)
        fog = parts.parse("fog[:3]")
        if said is None:
            split = parts.select(dataset, fog)
            assert split.images.shape == (3, 4, 4, 1)
            with pytest.raises(ValueError, match="has no split 'rain'"):
                parts.select(dataset, parts.parse("rain"))
            return
        with pytest.raises(ValueError, match=said):
            parts.select(dataset, fog)

    def test_is_kept_as_splits_are(self):
        images = np.full([9, 4, 4], 0.5)
        loaded = data.load(self._made((images, np.arange(9) % 3)))
        assert loaded.train.images.dtype == np.float32
        assert loaded.image_shape == (4, 4, 1)
