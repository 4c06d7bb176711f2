"""Pools that a network gave nearly all one class, by numbers of images."""

import dataclasses

import numpy as np
import pytest
import tiny_tfds

from mart_tf import data
from mart_tf.labeling import collapse


@pytest.fixture
def told():
    """Whether a pool of so many images of a class and of others is told of."""

    def told(dataset, most, others, label=3):
        rest = np.arange(others) % 2 if label > 1 else np.arange(others) * 0
        labels = np.concatenate([np.full(most, label), rest])
        images = np.zeros((len(labels), 8, 8), np.uint8)
        pool = data.Pool("npz:mine.npz", images, labels)
        sentence = collapse.warning("runs/labeler", pool, dataset)
        if sentence is None:
            return False
        assert f"gives {most} of the {most + others:,} images" in sentence
        assert f"the class {dataset.class_names[label]}, which" in sentence
        return True

    return told


def uneven(path, share):
    """Two classes, the second with a share of 400 training images."""
    labels = (np.arange(400) < 400 * share).astype(int)
    images = np.random.default_rng(0).random((400, 8, 8), np.float32)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return data.load(f"npz:{path}")


def test_of_ten_classes_nine_parts_in_ten_are_others(told):
    # A tenth of the training images show a 3: of 300, 270 should show another,
    # and 27 are a tenth of these.
    digits = data.load("digits")
    assert told(digits, 300, 0)
    assert told(digits, 275, 25)
    assert not told(digits, 271, 29)
    assert not told(digits, 150, 150)


def test_too_few_to_tell(told):
    # 9.9 and 10.8 others are expected.
    digits = data.load("digits")
    assert not told(digits, 11, 0)
    assert told(digits, 12, 0)


def test_what_the_training_images_are_already(told, tmp_path):
    # Of 1,000, half should be others, or a twentieth.
    even = uneven(tmp_path / "even.npz", 0.5)
    assert told(even, 970, 30, label=1)
    assert not told(even, 940, 60, label=1)
    most = uneven(tmp_path / "most.npz", 0.95)
    assert told(most, 997, 3, label=1)
    assert not told(most, 990, 10, label=1)
    # The rare one, of all: 95 in a hundred should be others.
    assert told(uneven(tmp_path / "few.npz", 0.05), 920, 80, label=1)


def test_of_data_that_streams_the_held_out_part_is_read(told, tmp_path):
    tiny_tfds.prepare(
        tmp_path, train=tiny_tfds.examples(50), test=tiny_tfds.examples(20)
    )
    dataset = data.load("tiny:mode=streaming", data_dir=tmp_path)
    assert told(dataset, 300, 0, label=1)


def test_of_a_set_whose_labels_are_not_known_nothing_is_told(tmp_path):
    """As of one that streams, all of whose images are trained on."""
    whole = uneven(tmp_path / "a.npz", 0.5)
    dataset = dataclasses.replace(
        whole, train=object(), validation=whole.test.select(range(0))
    )
    pool = data.Pool("p", np.zeros((50, 8, 8), np.uint8), np.zeros(50, int))
    assert collapse.warning("runs/labeler", pool, dataset) is None
