"""Splits, batches and augmentation on the embedded digits and on npz files."""

import itertools
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
from sklearn import datasets
import splitmix
import tensorflow as tf

from mart_tf import data
from mart_tf.data import augmentation
from mart_tf.data import splits


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def whole(batches):
    """A batch as numpy: image, index, label, weight."""
    return [
        (x["image"].numpy(), x["index"].numpy(), y.numpy(), w.numpy())
        for x, y, w in batches
    ]


def indices(batches):
    return [x["index"].numpy() for x, _, _ in batches]


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

    def test_validation_fraction_is_exact(self):
        quarter = data.load("digits", validation_fraction=0.25)
        assert len(quarter.validation) == round(0.25 * 1438)
        none = data.load("digits", validation_fraction=0)
        assert (len(none.validation), len(none.train)) == (0, 1438)
        assert data.arrays(none.validation)[0].shape == (0, 8, 8, 1)

    @pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan"), 0.9999])
    def test_refuses_a_fraction_that_leaves_nothing(self, fraction):
        with pytest.raises(ValueError, match="validation_fraction"):
            data.load("digits", validation_fraction=fraction)


class TestTrainingBatches:
    def test_have_the_one_form(self, digits):
        batches = data.training_batches(digits.train, 32)
        images, labels, weights = batches.element_spec
        assert images == {
            "image": tf.TensorSpec([32, 8, 8, 1], tf.float32),
            "index": tf.TensorSpec([32], tf.int64),
        }
        assert labels == tf.TensorSpec([32], tf.int32)
        assert weights == tf.TensorSpec([32], tf.float32)
        assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
        (image, index, label, weight) = whole(batches.take(1))[0]
        source = datasets.load_digits()
        np.testing.assert_array_equal(image[..., 0] * 16, source.images[index])
        np.testing.assert_array_equal(label, source.target[index])
        np.testing.assert_array_equal(weight, np.ones(32))

    def test_an_epoch_is_a_permutation(self, digits):
        # 1,294 = 2 x 647: two batches hold every example.
        steps = data.steps_per_epoch(digits.train, 647)
        assert steps == 2
        batches = data.training_batches(digits.train, 647).take(3 * steps)
        epochs = np.concatenate(indices(batches)).reshape(3, 1294)
        for epoch in epochs:
            np.testing.assert_array_equal(np.sort(epoch), digits.train.indices)
        for one, other in itertools.combinations(epochs, 2):
            assert (one != other).mean() > 0.99

    def test_the_remainder_changes_with_the_epoch(self, digits):
        batches = indices(data.training_batches(digits.train, 1000).take(2))
        assert all(len(np.unique(rows)) == 1000 for rows in batches)
        assert set(batches[0]) != set(batches[1])

    def test_resume_is_bit_equal_at_every_step(self, digits):
        split = digits.train.select(np.arange(21))
        options = {"seed": 3, "augment": True}
        straight = whole(data.training_batches(split, 4, **options).take(12))
        for start in range(1, 12):
            resumed = data.training_batches(
                split, 4, start_step=start, **options
            )
            for one, other in zip(
                straight[start:], whole(resumed.take(12 - start)), strict=True
            ):
                for expected, found in zip(one, other, strict=True):
                    np.testing.assert_array_equal(expected, found)

    def test_depend_on_the_seed_and_on_no_other(self, digits):
        def first(seed):
            return indices(
                data.training_batches(digits.train, 64, seed=seed).take(1)
            )[0]

        tf.random.set_seed(1)
        zero = first(0)
        tf.random.set_seed(2)
        np.testing.assert_array_equal(first(0), zero)
        assert (first(1) != zero).any() and (first(-1) != zero).any()

    def test_shuffling_is_as_even_as_chance(self):
        # Rows sorted by class: the count of a class in a batch of 500 must
        # vary as for draws without replacement, neither more nor less.
        count, batch = 58000, 500
        positions = tf.range(count, dtype=tf.int64)
        variances = []
        for epoch in range(20):
            rows = splits.permute(positions, count, 0, epoch).numpy()
            classes = (rows * 10 // count).reshape(-1, batch)
            counts = (classes[..., None] == np.arange(10)).sum(1)
            variances.append(counts.var())
        chance = batch * 0.1 * 0.9 * (count - batch) / (count - 1)
        assert 0.95 < np.mean(variances) / chance < 1.05

    @pytest.mark.parametrize("count", [1, 2, 3, 17, 256, 257])
    def test_small_sets_are_permuted_too(self, count):
        positions = tf.range(count, dtype=tf.int64)
        for epoch in range(3):
            rows = splits.permute(positions, count, 0, epoch)
            np.testing.assert_array_equal(np.sort(rows), np.arange(count))

    def test_replicas_share_one_global_batch(self, digits, strategy):
        batches = data.training_batches(digits.train, 10, augment=True)
        expected = whole(batches.take(1))[0]
        (x, y, w) = next(
            iter(strategy.experimental_distribute_dataset(batches))
        )
        for tensor, whole_batch in zip(
            (x["image"], x["index"], y, w), expected, strict=True
        ):
            local = strategy.experimental_local_results(tensor)
            assert len({len(part) for part in local}) == 1
            np.testing.assert_array_equal(np.concatenate(local), whole_batch)

    def test_refuses_less_than_a_batch(self, digits):
        with pytest.raises(ValueError, match="2000 is larger than the 1294"):
            data.training_batches(digits.train, 2000)
        with pytest.raises(ValueError, match="batch_size is 0; expected"):
            data.training_batches(digits.train, 0)
        with pytest.raises(ValueError, match="start_step is -1; expected"):
            data.training_batches(digits.train, 8, start_step=-1)


class TestEvaluationBatches:
    @pytest.mark.parametrize("batch_size", [359, 100, 1, 500])
    def test_see_every_example_once_in_order(self, digits, batch_size):
        batches = data.evaluation_batches(digits.test, batch_size)
        assert int(batches.cardinality()) == -(-359 // batch_size)
        found = whole(batches)
        for image, index, label, weight in found:
            assert image.shape == (batch_size, 8, 8, 1)
            assert index.shape == label.shape == weight.shape == (batch_size,)
        image, index, label, weight = (
            np.concatenate(parts) for parts in zip(*found, strict=True)
        )
        np.testing.assert_array_equal(weight[:359], 1)
        np.testing.assert_array_equal(weight[359:], 0)
        np.testing.assert_array_equal(index[:359], digits.test.indices)
        np.testing.assert_array_equal(index[359:], -1)
        images, labels = data.arrays(digits.test)
        np.testing.assert_array_equal(image[:359], images)
        np.testing.assert_array_equal(label[:359], labels)
        # What fills the batch is a real image with its label.
        np.testing.assert_array_equal(
            image[359:], np.repeat(images[-1:], len(image) - 359, axis=0)
        )

    def test_arrays_gives_the_first_examples(self, digits):
        images, labels = data.arrays(digits.test)
        for count in (1, 256, 300):
            first = data.arrays(digits.test, max_examples=count)
            np.testing.assert_array_equal(first[0], images[:count])
            np.testing.assert_array_equal(first[1], labels[:count])
        assert len(data.arrays(digits.test, 10**6)[1]) == 359
        with pytest.raises(ValueError, match="max_examples is 0"):
            data.arrays(digits.test, 0)


class TestAugmentation:
    rows = np.arange(600, dtype=np.int64) * 7

    def images(self):
        # No pixel is 0, so that padding is seen.
        values = np.random.default_rng(0).integers(1, 256, [600, 5, 6, 3])
        return values.astype(np.uint8)

    def test_equals_pad_crop_and_flip_in_numpy(self):
        images = self.images()
        found = augmentation.augment(tf.constant(images), self.rows, 3, 5)
        assert found.dtype == tf.uint8
        offsets = augmentation.offsets(self.rows, 3, 5)
        padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
        for image, top, left, flip, expected in zip(
            padded, *(o.numpy() for o in offsets), found.numpy(), strict=True
        ):
            crop = image[top : top + 5, left : left + 6]
            np.testing.assert_array_equal(
                crop[:, ::-1] if flip else crop, expected
            )

    def test_offsets_reach_every_place_evenly(self):
        top, left, flip = augmentation.offsets(np.arange(9000), 0, 0)
        for places in (top, left):
            counts = np.bincount(places.numpy(), minlength=9)
            assert len(counts) == 9 and np.ptp(counts) < 200
        assert abs(np.mean(flip) - 0.5) < 0.02
        assert abs(np.corrcoef([top, left, flip])[0, 1]) < 0.05

    def test_does_not_depend_on_the_batch(self):
        images = tf.constant(self.images())
        together = augmentation.augment(images, self.rows, 0, 1)
        order = np.random.default_rng(1).permutation(600)[:50]
        apart = augmentation.augment(
            tf.gather(images, order), self.rows[order], 0, 1
        )
        np.testing.assert_array_equal(apart, tf.gather(together, order))

    def test_changes_with_the_epoch_and_the_seed(self):
        images = tf.constant(self.images())
        one = augmentation.augment(images, self.rows, 0, 0)
        for seed, epoch in ((0, 1), (1, 0)):
            other = augmentation.augment(images, self.rows, seed, epoch)
            changed = (one.numpy() != other.numpy()).any((1, 2, 3))
            assert changed.mean() > 0.95

    def test_training_batches_apply_it_by_epoch(self, digits):
        split = digits.train.select(np.arange(8))
        batches = whole(
            data.training_batches(split, 4, seed=9, augment=True).take(4)
        )
        for step, (image, index, _, _) in enumerate(batches):
            plain = datasets.load_digits().images[index][..., None] / 16
            expected = augmentation.augment(
                tf.constant(plain, tf.float32), index, 9, step // 2
            )
            np.testing.assert_array_equal(image, expected)


def arrays(**changes):
    """The arrays of an npz file of 20 + 6 images in 3 classes."""
    generator = np.random.default_rng(0)
    found = {
        "x_train": generator.integers(0, 256, [20, 4, 5]).astype(np.uint8),
        "y_train": np.arange(20) % 3,
        "x_test": generator.integers(0, 256, [6, 4, 5]).astype(np.uint8),
        "y_test": np.arange(6) % 3,
    }
    found.update(changes)
    return {key: value for key, value in found.items() if value is not None}


def with_value(array, value):
    array = array.copy()
    array.flat[3] = value
    return array


class TestNpz:
    def load(self, tmp_path, **changes):
        path = tmp_path / "images.npz"
        np.savez(path, **arrays(**changes))
        return data.load(f"npz:{path}")

    def test_reads_the_arrays_of_keras(self, tmp_path):
        expected = arrays()
        loaded = self.load(tmp_path)
        assert loaded.image_shape == (4, 5, 1) and loaded.num_classes == 3
        assert loaded.name == f"npz:{tmp_path}/images.npz"
        assert loaded.test.images.dtype == np.uint8
        images, labels = data.arrays(loaded.test)
        np.testing.assert_array_equal(
            images[..., 0], expected["x_test"].astype(np.float32) / 255
        )
        np.testing.assert_array_equal(labels, expected["y_test"])
        assert len(loaded.train) == 18 and len(loaded.validation) == 2
        assert not set(loaded.train.indices) & set(loaded.validation.indices)
        for split in (loaded.train, loaded.validation):
            np.testing.assert_array_equal(
                split.images[..., 0], expected["x_train"][split.indices]
            )

    def test_reads_floats_colour_and_column_labels(self, tmp_path):
        images = np.random.default_rng(1).random([20, 4, 5, 3])
        loaded = self.load(
            tmp_path,
            x_train=images,
            x_test=images[:6].astype(np.float16),
            y_train=(np.arange(20) % 3)[:, None].astype(np.uint8),
        )
        assert loaded.image_shape == (4, 5, 3)
        split = loaded.train
        assert split.images.dtype == np.float32
        np.testing.assert_array_equal(
            split.images, images[split.indices].astype(np.float32)
        )
        np.testing.assert_array_equal(split.labels, split.indices % 3)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x_test": None}, "has no array x_test; expected x_train"),
            ({"y_train": np.array([{}] * 20)}, "y_train .* pickled"),
            ({"x_train": arrays()["x_train"].astype(int)}, "dtype int64"),
            (
                {"x_train": with_value(np.zeros([20, 4, 5]), 255.0)},
                "holds the pixel 255.0",
            ),
            (
                {"x_train": with_value(np.zeros([20, 4, 5]), np.nan)},
                "holds the pixel nan",
            ),
            (
                {"x_test": with_value(np.zeros([6, 4, 5]), -0.5)},
                "x_test holds the pixel -0.5",
            ),
            ({"x_train": np.zeros([20, 20], np.uint8)}, r"shape \(20, 20\)"),
            ({"x_train": np.zeros([0, 4, 5], np.uint8)}, r"shape \(0, 4, 5\)"),
            ({"x_test": np.zeros([6, 5, 5], np.uint8)}, "expected one shape"),
            ({"y_test": np.arange(5) % 3}, "6 images and y_test 5 labels"),
            ({"y_test": np.array([0, 1, 2, 3, 0, 1])}, "holds the label 3"),
            ({"y_test": np.array([0, 1, -1, 2, 0, 1])}, "holds the label -1"),
            ({"y_train": np.arange(20) % 3 - 1}, "holds the label -1"),
            ({"y_train": np.arange(20) % 3 + 1}, "label 1 but no label 0"),
            ({"y_train": np.arange(20) % 3 * 1.0}, "dtype float64"),
            ({"y_train": np.eye(3, dtype=int)[np.arange(20) % 3]}, "shape"),
            ({"y_train": np.zeros(20, int)}, "holds one class"),
        ],
    )
    def test_refuses(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message):
            self.load(tmp_path, **changes)

    def test_refuses_a_damaged_file(self, tmp_path):
        path = tmp_path / "images.npz"
        np.savez(path, **arrays())
        with zipfile.ZipFile(path) as archive:
            place = archive.getinfo("x_train.npy").header_offset + 300
        content = bytearray(path.read_bytes())
        content[place : place + 9] = b"x" * 9
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            data.load(f"npz:{path}")
        path.write_bytes(content[:-100])
        with pytest.raises(ValueError, match="is not an .npz file, or is dam"):
            data.check(f"npz:{path}")


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
            ("digits:sice=8", "has no option 'sice'"),
            ("digits:8", "'8' is not an option"),
            ("folder:/absent:sice=8", "did you mean 'size'"),
            ("folder:/absent:size=0", "size=0; expected at least 1"),
            ("folder:/absent:size=x", "expected a whole number"),
            ("folder:/absent:mode=ram", "expected one of: memory, streaming"),
            ("", "has no name"),
        ],
    )
    def test_refuses(self, tmp_path, spec, message):
        for call in (data.check, data.load):
            with pytest.raises(ValueError, match=message):
                call(spec, data_dir=tmp_path)

    def test_a_download_may_bring_any_name(self, tmp_path):
        data.check("stanford_dogs", data_dir=tmp_path, download=True)

    def test_imports_nothing_heavy(self, tmp_path):
        np.savez(tmp_path / "images.npz", **arrays())
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
