"""A part of a split: the first examples, or a sample of all classes."""

import numpy as np
from PIL import Image
import pytest
import tiny_tfds

from mart_tf import data
from mart_tf.data import sampling


def counts(labels, places):
    return np.bincount(labels[places], minlength=labels.max() + 1).tolist()


class TestDraw:
    def test_takes_of_each_class_its_share(self):
        # As a folder lists them: 60 of one class, 30 of the next, 10.
        labels = np.repeat([0, 1, 2], [60, 30, 10])
        for seed in range(5):
            for count in (10, 50, 90):
                drawn = counts(labels, sampling.draw(labels, count, seed))
                exact = np.array([6, 3, 1]) * count / 10
                assert sum(drawn) == count
                assert np.abs(drawn - exact).max() <= 1
        even = np.arange(1000) // 100
        for count in (10, 200, 1000):
            drawn = counts(even, sampling.draw(even, count, 7))
            assert drawn == [count // 10] * 10

    def test_a_larger_sample_holds_the_smaller(self):
        labels = np.random.default_rng(0).integers(0, 7, 300)
        samples = [set(sampling.draw(labels, n, 3)) for n in range(301)]
        assert [len(places) for places in samples] == list(range(301))
        assert all(a < b for a, b in zip(samples, samples[1:], strict=False))

    def test_every_place_is_as_likely(self):
        labels = np.repeat([0, 1], 20)
        taken = np.zeros(40)
        for seed in range(2000):
            places = sampling.draw(labels, 10, seed)
            assert (np.diff(places) > 0).all()
            taken[places] += 1
        # 500 times, with a standard deviation of 19.
        assert np.abs(taken - 500).max() < 90

    def test_few_of_many_classes(self):
        labels = np.arange(100)
        one, other = (sampling.draw(labels, 3, seed) for seed in (0, 1))
        assert len(one) == 3 and set(one) != set(other)
        assert sampling.draw(labels[:2], 5).tolist() == [0, 1]
        assert sampling.draw(labels[:0], 5).tolist() == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 test images, class by class; the pixels of each are its row."""
    root = tmp_path_factory.mktemp("pets")
    for half, count in (("train", 5), ("test", 20)):
        for place, name in enumerate(("ant", "bee", "cow")):
            (root / half / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full([4, 4, 3], place * count + number, np.uint8)
                image = Image.fromarray(pixels)
                image.save(root / half / name / f"{number:02}.png")
    return root


@pytest.mark.parametrize("mode", ["memory", "streaming"])
def test_a_sample_of_a_folder_holds_every_class(folder, mode):
    test = data.load(f"folder:{folder}:mode={mode}").test
    assert counts(test.labels, np.arange(10)) == [10, 0, 0]
    sample = data.sample(test, 12, seed=3)
    assert (sample.kind, sample.of) == ("stratified", 60)
    assert counts(sample.labels, np.arange(12)) == [4, 4, 4]
    np.testing.assert_array_equal(sample.labels, sample.rows // 20)
    levels = np.round(255 * sample.images[:, 0, 0, 0])
    np.testing.assert_array_equal(levels, sample.rows)
    assert sample.facts() == {
        "sample": "stratified",
        "of": 60,
        "rows": sample.rows.tolist(),
    }
    # The rows of the seed, whatever the program and the mode.
    places = sampling.draw(np.repeat([0, 1, 2], 20), 12, 3)
    np.testing.assert_array_equal(sample.rows, places)
    assert sample.rows.tolist() != data.sample(test, 12).rows.tolist()


def test_all_is_all(folder):
    test = data.load(f"folder:{folder}").test
    for sample in (data.sample(test), data.sample(test, 60, 1)):
        assert sample.facts() == {"sample": "all", "of": 60, "rows": None}
        np.testing.assert_array_equal(sample.rows, np.arange(60))
    with pytest.raises(ValueError, match="max_examples is 0"):
        data.sample(test, 0)


@pytest.mark.parametrize("mode", ["memory", "streaming"])
@pytest.mark.parametrize("test_split", [True, False])
def test_of_what_tfds_has_shuffled_the_first(tmp_path, mode, test_split):
    splits = {"train": tiny_tfds.examples(60), "test": tiny_tfds.examples(30)}
    if not test_split:
        # A fifth of train: 12 images, in its order.
        del splits["test"]
    tiny_tfds.prepare(tmp_path, shards=3, **splits)
    test = data.load(f"tiny:mode={mode}", data_dir=tmp_path).test
    sample = data.sample(test, 7, seed=5)
    facts = {"sample": "first", "of": 30 if test_split else 12, "rows": None}
    assert sample.facts() == facts
    images, labels = data.arrays(test)
    np.testing.assert_array_equal(sample.images, images[:7])
    np.testing.assert_array_equal(sample.labels, labels[:7])
    np.testing.assert_array_equal(sample.rows, test.indices[:7])


@pytest.mark.parametrize("mode", ["memory", "streaming"])
@pytest.mark.parametrize("test_split", [True, False])
def test_of_what_tfds_has_not_shuffled_a_sample(tmp_path, mode, test_split):
    def by_class(count):
        examples = list(tiny_tfds.examples(count))
        return sorted(examples, key=lambda example: example["label"])

    splits = {"train": by_class(60), "test": by_class(30)}
    if not test_split:
        del splits["test"]
    tiny_tfds.prepare(tmp_path, shards=2, disable_shuffling=True, **splits)
    test = data.load(f"tiny:mode={mode}", data_dir=tmp_path).test
    images, labels = data.arrays(test)
    sample = data.sample(test, 6)
    assert sample.kind == "stratified"
    places = np.searchsorted(test.indices, sample.rows)
    np.testing.assert_array_equal(places, sampling.draw(labels, 6))
    np.testing.assert_array_equal(sample.images, images[places])
    np.testing.assert_array_equal(sample.labels, labels[places])
    assert len(set(sample.labels.tolist())) == 3


def test_of_arrays_and_digits_a_sample(tmp_path):
    path = tmp_path / "mine.npz"
    images, labels = np.zeros([40, 4, 4], np.uint8), np.arange(40) // 20
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    sample = data.sample(data.load(f"npz:{path}").test, 10)
    assert counts(sample.labels, np.arange(10)) == [5, 5]
    sample = data.sample(data.load("digits").test, 100)
    assert sample.kind == "stratified"
    assert min(counts(sample.labels, np.arange(100))) >= 9
