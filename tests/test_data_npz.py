"""Files with the arrays of Keras's mnist.npz."""

import numpy as np
import pytest
import tensorflow as tf

from mart_tf import data


def arrays(**changes):
    """The arrays of an npz file of 20 + 6 images in 3 classes."""
    generator = np.random.default_rng(0)
    whole = {
        "x_train": generator.integers(0, 256, [20, 4, 5]).astype(np.uint8),
        "y_train": np.arange(20) % 3,
        "x_test": generator.integers(0, 256, [6, 4, 5]).astype(np.uint8),
        "y_test": np.arange(6) % 3,
    }
    whole.update(changes)
    return {key: value for key, value in whole.items() if value is not None}


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

    def test_reads_booleans(self, tmp_path):
        images = arrays()["x_train"] > 99
        loaded = self.load(tmp_path, x_train=images)
        split = loaded.train
        assert split.images.dtype == np.uint8
        np.testing.assert_array_equal(
            split.images[..., 0], np.where(images[split.indices], 255, 0)
        )

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
                "x_test of .*images.npz holds the pixel -0.5",
            ),
            (
                {"x_test": with_value(np.zeros([6, 4, 5], np.uint8), 1)},
                "x_test of .*images.npz holds uint8 pixels of 0 and 1 alone",
            ),
            ({"x_train": np.zeros([20, 20], np.uint8)}, r"shape \(20, 20\)"),
            ({"x_train": np.zeros([0, 4, 5], np.uint8)}, r"shape \(0, 4, 5\)"),
            ({"x_test": np.zeros([6, 5, 5], np.uint8)}, "expected one shape"),
            (
                {"x_train": np.zeros([20, 3, 32, 32])},
                "x_train of .*images.npz has shape .*, channels before height",
            ),
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
        np.savez(path, **arrays(x_train=np.zeros([20, 99, 99], np.uint8)))
        content = bytearray(path.read_bytes())
        content[100_000:100_004] = b"oops"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="images.npz is damaged"):
            data.load(f"npz:{path}")
        path.write_bytes(content[:-100])
        with pytest.raises(ValueError, match="is not an .npz file, or is dam"):
            data.check(f"npz:{path}")


class TestArrays:
    """The same arrays, as a function returns them."""

    @pytest.mark.parametrize("form", [np.ndarray.tolist, tf.constant])
    def test_lists_and_tensors(self, form):
        x_train, y_train, x_test, y_test = arrays().values()
        pairs = ((x_train / 255, y_train), (x_test / 255, y_test))
        given = tuple(tuple(map(form, pair)) for pair in pairs)
        one, other = (
            data.load(lambda made=made: made) for made in (given, pairs)
        )
        for name in ("train", "validation", "test"):
            made, expected = getattr(one, name), getattr(other, name)
            np.testing.assert_array_equal(made.images, expected.images)
            np.testing.assert_array_equal(made.labels, expected.labels)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"x_test": [[[0.0]], [[0.0, 1.0]]]},
                "x_test, of the type list, is no array of numbers; expected",
            ),
            ({"y_train": [0, [1]]}, "y_train, of the type list, is no array"),
        ],
    )
    def test_refuses(self, changes, message):
        x_train, y_train, x_test, y_test = arrays(**changes).values()
        with pytest.raises(ValueError, match=message) as error:
            data.load(lambda: ((x_train, y_train), (x_test, y_test)))
        assert "\n" not in str(error.value)
