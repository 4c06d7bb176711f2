"""Augmentations by hand, as lists, and as functions of (seed, epoch, row)."""

import hashlib

import keras
import numpy as np
import pytest
from sklearn import datasets
import splitmix
import tensorflow as tf

from mart_tf import data
from mart_tf import noise
from mart_tf.data import augmentation
from mart_tf.data import augmentation_names
from mart_tf.runs import config as run_config

ROWS = np.arange(600, dtype=np.int64) * 7
SHAPE = (5, 6, 3)


def images():
    # No pixel is 0, so that padding is seen.
    values = np.random.default_rng(0).integers(1, 256, [600, *SHAPE])
    return tf.constant(values.astype(np.uint8))


def augmented(text, seed, epoch, rows=ROWS, shown=None):
    shown = images() if shown is None else shown
    made = augmentation.create(text, shown.shape[1:])
    return augmentation.augment(shown, rows, seed, epoch, made).numpy()


class Scaled(data.Augmentation):
    """Times a number of the example's own, and of its seed."""

    draws = 2

    def __init__(self, least: float = 0.5):
        self.least = least

    def __call__(self, images, numbers):
        factor = self.least + (1.0 - self.least) * numbers[:, :1, None, None]
        return tf.cast(tf.cast(images, tf.float32) * factor, images.dtype)


class Shrinks(data.Augmentation):
    """Makes something else of an image."""

    def __call__(self, images, numbers):
        return images[:, 1:]


class TestByHand:
    def test_crop(self):
        # 1 2    zeros around, and the 2x2 that begins at row 2, column 0.
        # 3 4
        image = tf.reshape(tf.constant([1, 2, 3, 4], tf.uint8), [1, 2, 2, 1])
        crop = data.Crop(padding=1)
        # floor(0.99 * 3) = 2, floor(0.3 * 3) = 0.
        cropped = crop(image, tf.constant([[0.99, 0.3]]))
        np.testing.assert_array_equal(cropped[0, ..., 0], [[0, 3], [0, 0]])
        # The middle of the nine places is the image itself.
        same = crop(image, tf.constant([[0.5, 0.5]]))
        np.testing.assert_array_equal(same, image)

    def test_flip(self):
        image = tf.reshape(tf.range(12.0), [2, 2, 3, 1])
        flipped = data.Flip(0.25)(image, tf.constant([[0.24], [0.25]]))
        np.testing.assert_array_equal(
            flipped[0, ..., 0], [[2, 1, 0], [5, 4, 3]]
        )
        np.testing.assert_array_equal(flipped[1], image[1])

    def test_cutout(self):
        image = tf.ones([4, 4, 5, 2])
        numbers = [
            # Centre (1, 2): rows 0 and 1, columns 1 and 2.
            [0.25, 0.4, 0.0],
            # Centre (0, 4): the border leaves one row and two columns.
            [0.0, 0.8, 0.0],
            # Centre (3, 0): two rows and one column.
            [0.999, 0.0, 0.69],
            # Not cut.
            [0.5, 0.5, 0.7],
        ]
        cut = data.Cutout(2, probability=0.7)(image, tf.constant(numbers))
        expected = np.ones([4, 4, 5, 2])
        expected[0, 0:2, 1:3] = 0
        expected[1, 0:1, 3:5] = 0
        expected[2, 2:4, 0:1] = 0
        np.testing.assert_array_equal(cut, expected)
        # Of an odd size the centre is in the middle.
        cut = data.Cutout(3)(image[:1], tf.constant([[0.5, 0.5, 0.9]]))
        expected = np.ones([4, 5])
        expected[1:4, 1:4] = 0
        np.testing.assert_array_equal(cut[0, ..., 0], expected)

    @pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
    def test_dtypes_are_kept(self, dtype):
        shown = tf.cast(images(), dtype)
        for text in ("crop,flip,cutout:size=3", "cutout:size=5,flip"):
            changed = augmented(text, 0, 0, shown=shown)
            assert changed.dtype == dtype.as_numpy_dtype
            np.testing.assert_array_equal(changed, augmented(text, 0, 0))


class TestNumbers:
    @pytest.mark.parametrize("seed", [0, 3, -1])
    def test_are_of_a_stream_of_their_own(self, seed):
        # "AUG" in ASCII; without it they were the noise of training's step 5.
        stream = splitmix.fold(splitmix.fold(seed, 0x415547), 5)
        expected = [splitmix.uniform(stream, int(row), 3) for row in ROWS]
        numbers = augmentation.numbers_of(ROWS, seed, 5, 3)
        np.testing.assert_array_equal(numbers, np.stack(expected))

    def test_each_takes_the_next_of_one_sequence(self):
        numbers = augmentation.numbers_of(ROWS, 3, 5, 6).numpy()
        shown = images()
        expected = data.Crop(2)(shown, numbers[:, :2])
        expected = data.Cutout(3)(expected, numbers[:, 2:5])
        expected = data.Flip()(expected, numbers[:, 5:6])
        changed = augmented("crop:padding=2,cutout:size=3,flip", 3, 5)
        np.testing.assert_array_equal(changed, expected)
        # Another order is another list.
        other = augmented("flip,cutout:size=3,crop:padding=2", 3, 5)
        assert (changed != other).any((1, 2, 3)).mean() > 0.95

    def test_two_of_a_name_draw_apart(self):
        cut = augmented("cutout:size=3,cutout:size=3", 0, 0) == 0
        once = augmented("cutout:size=3", 0, 0) == 0
        assert (cut.sum((1, 2, 3)) > once.sum((1, 2, 3))).mean() > 0.7

    def test_reach_every_place_evenly(self):
        numbers = augmentation.numbers_of(np.arange(9000), 0, 0, 3).numpy()
        for places in np.floor(9 * numbers).T.astype(int):
            counts = np.bincount(places, minlength=9)
            assert len(counts) == 9 and np.ptp(counts) < 200
        correlations = np.corrcoef(numbers.T) - np.eye(3)
        assert np.abs(correlations).max() < 0.05

    def test_do_not_depend_on_the_batch(self):
        text = "crop,flip,cutout:size=3"
        together = augmented(text, 0, 1)
        order = np.random.default_rng(1).permutation(600)[:50]
        alone = augmented(text, 0, 1, ROWS[order], tf.gather(images(), order))
        np.testing.assert_array_equal(alone, together[order])

    @pytest.mark.parametrize("text", ["crop", "cutout:size=3"])
    def test_change_with_the_epoch_and_the_seed(self, text):
        one = augmented(text, 0, 0)
        for seed, epoch in ((0, 1), (1, 0)):
            changed = (one != augmented(text, seed, epoch)).any((1, 2, 3))
            assert changed.mean() > 0.8


class TestAsBefore:
    """Crop and flip, bit for bit as when they were one function."""

    @pytest.mark.parametrize(
        ("seed", "epoch", "digest"),
        [
            (0, 0, "e295738f2f15899b"),
            (3, 5, "e31ee8caeda93ffa"),
            (-1, 2, "f009a1ad7aafa3cd"),
        ],
    )
    @pytest.mark.parametrize("spelled", ["crop,flip"])
    def test_images(self, seed, epoch, digest, spelled):
        changed = augmented(spelled, seed, epoch)
        found = hashlib.sha256(changed.tobytes()).hexdigest()
        assert found[:16] == digest

    def test_training_batches(self):
        split = data.load("digits").train.select(np.arange(21))
        found = hashlib.sha256()
        batches = data.training_batches(split, 4, seed=3, augment="crop,flip")
        for inputs, _, _ in batches.take(12):
            found.update(inputs["image"].numpy().tobytes())
        assert found.hexdigest()[:16] == "e88ffce71e5f89cf"


class TestTrainingBatches:
    def test_by_epoch(self):
        split = data.load("digits").train.select(np.arange(8))
        text = "crop,flip,cutout:size=3"
        batches = data.training_batches(split, 4, seed=9, augment=text)
        for step, (inputs, _, _) in enumerate(batches.take(4)):
            rows = inputs["index"].numpy()
            plain = datasets.load_digits().images[rows][..., None] / 16
            expected = augmented(
                text, 9, step // 2, rows, tf.constant(plain, tf.float32)
            )
            np.testing.assert_array_equal(inputs["image"], expected)

    def test_resume_parts_and_replicas(self, strategy):
        split = data.load("digits").train.select(np.arange(21))

        def batches(**settings):
            return data.training_batches(
                split,
                4,
                seed=3,
                augment=["cutout:size=4", Scaled(0.25), data.Flip(0.3)],
                **settings,
            )

        straight = [x["image"].numpy() for x, _, _ in batches().take(9)]
        for start in (1, 5, 8):
            resumed = batches(start_step=start).take(9 - start)
            for one, (x, _, _) in zip(straight[start:], resumed, strict=True):
                np.testing.assert_array_equal(one, x["image"])
        parts = [batches(part=(place, 2)).take(9) for place in range(2)]
        for one, *halves in zip(straight, *parts, strict=True):
            whole = np.concatenate([x["image"] for x, _, _ in halves])
            np.testing.assert_array_equal(one, whole)
        x, _, _ = next(
            iter(strategy.experimental_distribute_dataset(batches()))
        )
        local = strategy.experimental_local_results(x["image"])
        np.testing.assert_array_equal(np.concatenate(local), straight[0])

    def test_none(self):
        split = data.load("digits").train
        for nothing in ("none", []):
            [(inputs, _, _)] = data.training_batches(
                split, 4, augment=nothing
            ).take(1)
            rows = inputs["index"].numpy()
            np.testing.assert_array_equal(
                inputs["image"][..., 0],
                datasets.load_digits().images[rows] / 16,
            )


class TestSpecs:
    @pytest.mark.parametrize(
        ("given", "whole"),
        [
            ("crop,flip", "crop:padding=4,flip:probability=0.5"),
            (" flip , crop:padding=2", "flip:probability=0.5,crop:padding=2"),
            ("cutout:size=16", "cutout:size=16:probability=1"),
            ("none", "none"),
        ],
    )
    def test_say_all_their_options(self, given, whole):
        assert augmentation_names.complete(given) == whole
        assert augmentation_names.complete(whole) == whole
        config = run_config.Config(augment=given).resolved()
        assert config.augment == whole

    def test_of_a_data_set(self):
        for name, whole in [
            ("cifar10", "crop:padding=4,fl"),
            ("mnist", "none"),
        ]:
            filled = run_config.Config(dataset=name).filled()
            assert filled.augment.startswith(whole)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("crp", "Unknown augmentation 'crp'; did you mean 'crop'"),
            ("crop,,flip", "has an empty item"),
            ("", "has an empty item"),
            ("crop,none", "has none beside others; expected names"),
            ("cutout", "says no size; expected cutout:size=VALUE"),
            ("crop:pading=2", "no option 'pading'; did you mean 'padding'"),
            ("crop:padding=0", "crop:padding is 0; expected a whole number"),
            ("cutout:size=x", "size=x: expected a whole number, got 'x'"),
            ("flip:vertical=true", "has no option 'vertical'"),
            ("mixup", "no augmentation 'mixup': it mixes the labels"),
            ("crop,CutMix:alpha=1", "'CutMix': it mixes the labels of images"),
            ("rand_augment", "did you mean 'randaugment'"),
        ],
    )
    def test_refused_without_tensorflow(self, text, sentence):
        with pytest.raises(ValueError, match=sentence):
            augmentation_names.complete(text)

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            (
                "crop:padding=6",
                "padding=6, and the images have 5x6 pixels; exp",
            ),
            ("cutout:size=6", "size=6, and the images have 5x6 pixels; expect"),
            (
                "flip:probability=1.5",
                "probability is 1.5; expected a number fr",
            ),
            (Shrinks(), r"Shrinks made uint8 \(2, 4, 6, 3\) of uint8 \(2, 5"),
            (keras.layers.Flatten(), "is a Flatten; expected a subclass of ma"),
        ],
    )
    def test_refused_before_a_batch(self, given, sentence):
        with pytest.raises(ValueError, match=sentence):
            augmentation.create(given, SHAPE)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: data.Crop(0),
            lambda: data.Crop(True),
            lambda: data.Cutout(2.0),
            lambda: data.Flip(float("nan")),
            lambda: data.Cutout(2, "always"),
        ],
    )
    def test_options_out_of_range(self, make):
        with pytest.raises(ValueError, match="; expected a "):
            make()


def test_an_own_one_may_draw_more_from_its_numbers():
    # A seed of each example's own, for as many numbers as a shape asks for.
    class Noisy(data.Augmentation):
        def __call__(self, images, numbers):
            own = tf.cast(numbers[:, 0] * 2**24, tf.int64)
            field = noise.uniform(noise.seeds(1, own), images.shape[1:])
            return tf.where(field < 0.1, tf.zeros_like(images), images)

    changed = augmented([Noisy()], 0, 0)
    assert 0.05 < (changed == 0).mean() < 0.15
