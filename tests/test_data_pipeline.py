"""Training and evaluation batches, and their shuffling."""

import itertools

import numpy as np
import pytest
from sklearn import datasets
import tensorflow as tf
import tiny_tfds

from mart_tf import data
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


def assert_parts(batches, count):
    """That the parts of every batch, one after the other, are the batch."""
    parts = [whole(batches(part=(place, count))) for place in range(count)]
    for batch, *pieces in zip(whole(batches()), *parts, strict=True):
        for one, *others in zip(batch, *pieces, strict=True):
            assert {len(other) for other in others} == {len(one) // count}
            np.testing.assert_array_equal(one, np.concatenate(others))


@pytest.mark.parametrize("mode", ["memory", "streaming"])
def test_no_thread_tunes_a_pipeline(mode, tmp_path):
    """One that does may sleep on for a minute when the pipeline ends."""
    tiny_tfds.prepare(tmp_path, train=tiny_tfds.examples(30))
    source = data.load(f"tiny:mode={mode}", data_dir=tmp_path)
    for batches in (
        data.training_batches(source.train, 8, augment="crop,flip"),
        data.evaluation_batches(source.test, 4),
        source.test.ordered(4),
    ):
        assert batches.options().autotune.enabled is False


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
        options = {"seed": 3, "augment": "crop,flip"}
        straight = whole(data.training_batches(split, 4, **options).take(12))
        for start in range(1, 12):
            resumed = data.training_batches(
                split, 4, start_step=start, **options
            )
            for one, other in zip(
                straight[start:], whole(resumed.take(12 - start)), strict=True
            ):
                for expected, resumed in zip(one, other, strict=True):
                    np.testing.assert_array_equal(expected, resumed)

    def test_never_change(self, digits):
        # A change here would break the resumption of every user's run.
        batches = data.training_batches(digits.train, 8)
        np.testing.assert_array_equal(
            indices(batches.take(1))[0],
            [1789, 509, 1007, 1265, 444, 1064, 123, 776],
        )

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
        batches = data.training_batches(digits.train, 10, augment="crop,flip")
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

    @pytest.mark.parametrize("count", [2, 4])
    def test_parts_in_turn_are_the_batch(self, digits, count):
        settings = {"augment": "crop,flip", "start_step": 38}
        assert_parts(
            lambda **part: data.training_batches(
                digits.train, 32, **settings, **part
            ).take(4),
            count,
        )

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
            ({"seed": None}, "seed is None; expected a whole number"),
            ({"pool": "npz:x"}, "The pool is 'npz:x'; expected a Pool, as"),
            ({"class_weights": [1.0] * 9}, "for each class, at least 10 of th"),
            ({"class_weights": "balanced"}, "class_weights is 'balanced'; exp"),
            ({"class_weights": 2.0}, "class_weights is 2.0; expected a number"),
        ],
    )
    def test_refuses_what_is_of_another_kind(self, digits, settings, said):
        with pytest.raises(ValueError, match=said):
            data.training_batches(digits.train, 32, **settings)

    def test_takes_whole_class_weights(self, digits):
        batches = data.training_batches(
            digits.train, 32, class_weights=list(range(10))
        )
        [(_, labels, weights)] = batches.take(1)
        np.testing.assert_array_equal(weights, labels)

    def test_a_data_set_is_no_split(self, digits):
        for read in (
            lambda: data.training_batches(digits, 32),
            lambda: data.steps_per_epoch(digits, 32),
            lambda: data.evaluation_batches(digits, 32),
            lambda: data.arrays(digits),
        ):
            with pytest.raises(ValueError, match="Dataset; expected dataset.t"):
                read()

    def test_refuses_less_than_a_batch(self, digits):
        with pytest.raises(ValueError, match="2000 is larger than the 1294"):
            data.training_batches(digits.train, 2000)
        with pytest.raises(ValueError, match="batch_size is 0; expected"):
            data.training_batches(digits.train, 0)
        with pytest.raises(ValueError, match="start_step is -1; expected"):
            data.training_batches(digits.train, 8, start_step=-1)


def a_pool(count, seed=0, **options):
    """A pool of digit-like images whose first pixel tells the row."""
    images = np.random.default_rng(seed).random([count, 8, 8, 1], np.float32)
    images[:, 0, 0, 0] = np.arange(count) / 4096
    return data.Pool("mine", images, np.arange(count) % 7, **options)


class TestPool:
    def test_batches_of_one_labelled_epoch(self, digits):
        # 1,294 = 2 x 647 labelled examples, beside 3 x 647 of the pool.
        pool = a_pool(1000)
        settings = {"pool": pool, "pool_fraction": 0.5}
        steps = data.steps_per_epoch(digits.train, 1294, **settings)
        assert steps == 2
        first = data.rows(digits.train)
        assert first == digits.train.indices.max() + 1
        assert data.rows(digits.train, pool) == first + 1000
        batches = data.training_batches(
            digits.train, 1294, unlabeled_weight=0.3, **settings
        )
        assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
        epoch = whole(batches.take(steps))
        source, seen = datasets.load_digits(), []
        for image, index, label, weight in epoch:
            # Every second example is the pool's.
            np.testing.assert_array_equal(index >= first, [False, True] * 647)
            mine, rows = index[::2], index[1::2] - first
            np.testing.assert_array_equal(
                image[::2, ..., 0] * 16, source.images[mine]
            )
            np.testing.assert_array_equal(label[::2], source.target[mine])
            np.testing.assert_array_equal(image[1::2], pool.images[rows])
            np.testing.assert_array_equal(label[1::2], rows % 7)
            np.testing.assert_array_equal(weight[::2], np.ones(647))
            np.testing.assert_array_equal(
                weight[1::2], np.full(647, 0.3, np.float32)
            )
            assert len(set(rows)) == 647
            seen.append(mine)
        np.testing.assert_array_equal(
            np.sort(np.concatenate(seen)), digits.train.indices
        )

    def test_the_pool_keeps_epochs_of_its_own(self, digits):
        # Five batches of 4 of the 21 are one of its epochs; an epoch of the
        # labelled data has three.
        split, pool = digits.train.select(np.arange(12)), a_pool(21)
        assert data.steps_per_epoch(split, 8, pool) == 3
        first = data.rows(split)
        rows = np.stack(
            indices(data.training_batches(split, 8, pool=pool).take(15))
        )
        of_pool = rows[:, 1::2].reshape(3, 20) - first
        assert all(len(set(epoch)) == 20 for epoch in of_pool)
        assert len({tuple(epoch) for epoch in of_pool}) == 3
        of_split = rows[:, ::2].reshape(5, 12)
        for epoch in of_split:
            np.testing.assert_array_equal(np.sort(epoch), split.indices)

    def test_labelled_examples_come_as_without_a_pool(self, digits):
        settings = {"seed": 6, "augment": "crop,flip", "start_step": 50}
        alone = data.training_batches(digits.train, 16, **settings)
        mixed = data.training_batches(
            digits.train, 32, pool=a_pool(40), **settings
        )
        for one, other in zip(
            whole(alone.take(40)), whole(mixed.take(40)), strict=True
        ):
            for expected, pooled in zip(one, other, strict=True):
                np.testing.assert_array_equal(expected, pooled[::2])

    def test_resume_is_bit_equal(self, digits):
        split = digits.train.select(np.arange(21))
        options = {"seed": 3, "augment": "crop,flip", "pool": a_pool(10)}
        straight = whole(data.training_batches(split, 8, **options).take(12))
        # In the first epochs, at the labelled data's second, in later ones.
        for start in (1, 5, 9):
            resumed = data.training_batches(
                split, 8, start_step=start, **options
            )
            for one, other in zip(
                straight[start:], whole(resumed.take(12 - start)), strict=True
            ):
                for expected, resumed in zip(one, other, strict=True):
                    np.testing.assert_array_equal(expected, resumed)

    def test_the_seed_moves_the_pool_too(self, digits):
        pool = a_pool(100)

        one, other = (
            data.training_batches(digits.train, 100, seed=seed, pool=pool)
            for seed in (0, 1)
        )
        rows, others = (indices(b.take(1))[0][1::2] for b in (one, other))
        np.testing.assert_array_equal(indices(one.take(1))[0][1::2], rows)
        assert (rows != others).mean() > 0.9

    def test_the_pool_has_an_order_of_its_own(self, digits):
        # As many examples as the labelled data: the same stream would take
        # the same places of both.
        split, pool = digits.train.select(np.arange(60)), a_pool(60)
        [rows] = indices(data.training_batches(split, 120, pool=pool).take(1))
        places = np.searchsorted(split.indices, rows[::2])
        of_pool = rows[1::2] - data.rows(split)
        for order in (places, of_pool):
            np.testing.assert_array_equal(np.sort(order), np.arange(60))
        assert (places != of_pool).mean() > 0.8

    def test_augments_the_pool_by_its_own_epochs(self, digits):
        # Each batch takes all of the pool: the labelled data's epoch has ten.
        split, pool = digits.train.select(np.arange(40)), a_pool(4)
        batches = data.training_batches(
            split, 8, augment="crop,flip", pool=pool
        )
        by_epoch = []
        for image, index, _, _ in whole(batches.take(5)):
            order = np.argsort(index[1::2])
            by_epoch.append(image[1::2][order])
        for one, other in itertools.combinations(by_epoch, 2):
            assert (one != other).any((1, 2, 3)).sum() >= 3

    @pytest.mark.parametrize(
        ("batch_size", "fraction", "part"),
        [(8, 0.5, 4), (8, 0.75, 6), (7, 0.5, 4), (8, 0.01, 1), (8, 0.99, 7)],
    )
    def test_the_mixture_is_even(self, digits, batch_size, fraction, part):
        settings = {"pool": a_pool(50), "pool_fraction": fraction}
        batches = data.training_batches(digits.train, batch_size, **settings)
        first = data.rows(digits.train)
        assert data.steps_per_epoch(
            digits.train, batch_size, **settings
        ) == 1294 // (batch_size - part)
        from_pool = indices(batches.take(1))[0] >= first
        assert from_pool.sum() == part
        # Any stretch of a batch holds its share, to less than one example.
        for start, stop in itertools.combinations(range(batch_size + 1), 2):
            share = (stop - start) * part / batch_size
            assert abs(from_pool[start:stop].sum() - share) < 1

    def test_replicas_see_the_same_mixture(self, digits, strategy):
        pool, first = a_pool(50), data.rows(digits.train)
        batches = data.training_batches(digits.train, 16, pool=pool)
        expected = whole(batches.take(1))[0]
        (x, y, w) = next(
            iter(strategy.experimental_distribute_dataset(batches))
        )
        for part in strategy.experimental_local_results(x["index"]):
            assert (part.numpy() >= first).mean() == 0.5
        for tensor, whole_batch in zip(
            (x["image"], x["index"], y, w), expected, strict=True
        ):
            local = strategy.experimental_local_results(tensor)
            np.testing.assert_array_equal(np.concatenate(local), whole_batch)

    def test_bytes_beside_floats(self, digits):
        # Bytes beside bytes stay bytes until the batch is whole.
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, [30, 8, 8, 1]).astype(np.uint8)
        labels = np.zeros(30, np.int32)
        pool = data.Pool("mine", images, labels)
        as_floats = images.astype(np.float32) / 255
        for split in (digits.train, splits.memory_split(images, labels)):
            first = data.rows(split)
            batches = data.training_batches(split, 8, pool=pool)
            for image, index, _, _ in whole(batches.take(3)):
                np.testing.assert_array_equal(
                    image[1::2], as_floats[index[1::2] - first]
                )
        np.testing.assert_array_equal(image[::2], as_floats[index[::2]])

    @pytest.mark.parametrize("fraction", [0.05, 0.9])
    @pytest.mark.parametrize("kind", ["uint8", "float32"])
    def test_parts_may_have_none_of_one_source(self, digits, fraction, kind):
        images = a_pool(50).images
        if kind == "uint8":
            images = (255 * images).astype(kind)
        pool = data.Pool("mine", images, np.arange(50) % 7)
        assert_parts(
            lambda **part: data.training_batches(
                digits.train, 30, pool=pool, pool_fraction=fraction, **part
            ).take(3),
            15,
        )

    @pytest.mark.parametrize("count", [2, 5])
    def test_parts_in_turn_are_the_batch(self, digits, count):
        assert_parts(
            lambda **part: data.training_batches(
                digits.train,
                30,
                augment="crop,flip",
                pool=a_pool(50),
                pool_fraction=0.3,
                unlabeled_weight=0.5,
                **part,
            ).take(3),
            count,
        )

    def test_labelled_data_may_stream(self, tmp_path):
        tiny_tfds.prepare(tmp_path, shards=3, train=tiny_tfds.examples(60))
        train = data.load("tiny:mode=streaming", data_dir=tmp_path).train
        images = np.random.default_rng(0).random([30, 5, 4, 1])
        pool = data.Pool("mine", images, np.zeros(30, int))
        steps = data.steps_per_epoch(train, 20, pool)
        assert steps == len(train) // 10
        batches = data.training_batches(train, 20, pool=pool)
        straight = whole(batches.take(2 * steps))
        rows = np.concatenate([index[::2] for _, index, _, _ in straight])
        for epoch in rows.reshape(2, -1):
            assert len(set(epoch)) == 10 * steps
            assert set(epoch) <= set(train.indices)
        resumed = data.training_batches(train, 20, pool=pool, start_step=steps)
        for one, other in zip(
            straight[steps:], whole(resumed.take(steps)), strict=True
        ):
            for expected, streamed in zip(one, other, strict=True):
                np.testing.assert_array_equal(expected, streamed)

    @pytest.mark.parametrize(
        ("pool", "settings", "message"),
        [
            (a_pool(3), {}, "mine has 3 images, fewer than the 4 that it"),
            (a_pool(9), {"pool_fraction": 1.5}, "pool_fraction is 1.5; exp"),
            (a_pool(9), {"unlabeled_weight": -1}, "unlabeled_weight is -1"),
            (a_pool(9), {"batch_size": 1}, "batch_size is 1; with a pool"),
            (a_pool(9), {"batch_size": 0}, "batch_size is 0; expected"),
            (
                a_pool(2000),
                {"batch_size": 3000},
                "takes 1500 labelled examples, more than the 1294",
            ),
            (
                data.Pool("mine", np.zeros([9, 8, 8, 1])),
                {},
                "mine has no labels to train on; label it once with mart-label",
            ),
            (
                data.Pool("mine", np.zeros([9, 8, 8, 3]), np.zeros(9, int)),
                {},
                r"mine have shape \(8, 8, 3\); the data set's have \(8, 8, 1\)",
            ),
        ],
    )
    def test_refuses(self, digits, pool, settings, message):
        settings = {"batch_size": 8, "pool": pool, **settings}
        with pytest.raises(ValueError, match=message):
            data.training_batches(digits.train, **settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pixel_range": 255}, r"The pixel range is 255; expected a least"),
        ({"pixel_range": (0,)}, r"The pixel range is \(0,\); expected"),
        ({"pixel_range": (1, 0)}, r"The pixel range is \(1, 0\); expected"),
        ({"part": 1}, "A batch of 8 has no part 1; expected its number and"),
        ({"part": (0, 0)}, r"has no part \(0, 0\); expected"),
        ({"part": (2, 2)}, r"has no part \(2, 2\); expected"),
        ({"part": (0.5, 2)}, r"has no part \(0.5, 2\); expected"),
    ],
)
def test_refuses_what_is_no_range_and_no_part(digits, given, message):
    for batches in (data.training_batches, data.evaluation_batches):
        with pytest.raises(ValueError, match=message):
            batches(digits.train, 8, **given)


def test_no_augmentation(digits):
    given = [
        next(iter(data.training_batches(digits.train, 8, **settings)))
        for settings in ({}, {"augment": None}, {"augment": "none"})
    ]
    for other in given[1:]:
        tf.nest.map_structure(np.testing.assert_array_equal, given[0], other)


class TestEvaluationBatches:
    @pytest.mark.parametrize("batch_size", [359, 100, 1, 500])
    def test_see_every_example_once_in_order(self, digits, batch_size):
        batches = data.evaluation_batches(digits.test, batch_size)
        assert int(batches.cardinality()) == -(-359 // batch_size)
        seen = whole(batches)
        for image, index, label, weight in seen:
            assert image.shape == (batch_size, 8, 8, 1)
            assert index.shape == label.shape == weight.shape == (batch_size,)
        image, index, label, weight = (
            np.concatenate(parts) for parts in zip(*seen, strict=True)
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

    def test_parts_in_turn_are_the_batch(self, digits):
        assert_parts(
            lambda **part: data.evaluation_batches(
                digits.test, 100, (0.0, 255.0), **part
            ),
            4,
        )

    def test_refuses_a_part_that_is_none(self, digits):
        for part in [(0, 3), (2, 2), (-1, 2)]:
            with pytest.raises(
                ValueError, match=r"no part \(-?\d, \d\); expected"
            ):
                data.evaluation_batches(digits.test, 100, part=part)

    def test_arrays_gives_the_first_examples(self, digits):
        images, labels = data.arrays(digits.test)
        for count in (1, 256, 300):
            first = data.arrays(digits.test, max_examples=count)
            np.testing.assert_array_equal(first[0], images[:count])
            np.testing.assert_array_equal(first[1], labels[:count])
        assert len(data.arrays(digits.test, 10**6)[1]) == 359
        with pytest.raises(ValueError, match="max_examples is 0"):
            data.arrays(digits.test, 0)
