"""TFDS sets read from their shards, against the same sets in memory."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_tfds

from mart_tf import data
from mart_tf.data import shards
from mart_tf.data import splits


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return tiny_tfds.sharded(tmp_path_factory.mktemp("tfds"))


def epoch(batches, count):
    return np.concatenate([x["index"] for x, _, _ in batches.take(count)])


class TestStreaming:
    def test_holds_the_rows_of_memory_mode(self, sharded):
        in_memory = data.load("tiny", data_dir=sharded)
        stream = data.load("tiny:mode=streaming", data_dir=sharded)
        assert in_memory.mode == "memory" and stream.mode == "streaming"
        assert len(stream.train.shards) == 5
        names = ("ant", "bee", "cow")
        assert in_memory.class_names == stream.class_names == names
        for name in ("train", "validation", "test"):
            one, other = getattr(in_memory, name), getattr(stream, name)
            assert len(one) == len(other)
            np.testing.assert_array_equal(one.indices, other.indices)
            for batch, same in zip(
                data.evaluation_batches(one, 7),
                data.evaluation_batches(other, 7),
                strict=True,
            ):
                tf.nest.map_structure(
                    np.testing.assert_array_equal, batch, same
                )

    # Of a pool beside them, so large a share that one part has none of them.
    @pytest.mark.parametrize("pool_fraction", [None, 0.95])
    def test_parts_in_turn_are_the_batch(self, sharded, pool_fraction):
        train = data.load("tiny:mode=streaming", data_dir=sharded).train
        settings = {"seed": 1, "augment": "crop,flip", "start_step": 2}
        if pool_fraction is not None:
            images = np.full([40, *train.image_shape], 9, np.uint8)
            pool = data.Pool("more", images, np.zeros(40, int))
            settings |= {"pool": pool, "pool_fraction": pool_fraction}
        parts = [
            data.training_batches(train, 30, part=(i, 3), **settings).take(5)
            for i in range(3)
        ]
        batches = data.training_batches(train, 30, **settings).take(5)
        for batch, *pieces in zip(batches, *parts, strict=True):
            joined = tf.nest.map_structure(
                lambda *each: tf.concat(each, axis=0), *pieces
            )
            tf.nest.map_structure(np.testing.assert_array_equal, batch, joined)

    def test_an_epoch_holds_each_row_once(self, sharded):
        in_memory = data.load("tiny", data_dir=sharded)
        stream = data.load("tiny:mode=streaming", data_dir=sharded)
        train = in_memory.train
        by_row = dict(zip(train.indices.tolist(), train.images, strict=True))
        batches = data.training_batches(stream.train, 30, seed=1)
        epochs = [[], [], []]
        for step, (x, _, _) in enumerate(batches.take(9)):
            rows = x["index"].numpy()
            epochs[step // 3].append(rows)
            for image, row in zip(x["image"].numpy(), rows, strict=True):
                np.testing.assert_array_equal(
                    image, by_row[row].astype(np.float32) / 255
                )
        epochs = [np.concatenate(rows) for rows in epochs]
        for rows in epochs:
            np.testing.assert_array_equal(np.sort(rows), stream.train.indices)
        assert (epochs[0] != epochs[1]).any()
        assert (epochs[1] != epochs[2]).any()

    @pytest.mark.parametrize("step", [3, 4])
    def test_resumes_within_and_at_the_start_of_an_epoch(self, sharded, step):
        train = data.load("tiny:mode=streaming", data_dir=sharded).train
        options = {"seed": 4, "augment": "crop,flip"}
        tf.random.set_seed(0)
        straight = list(data.training_batches(train, 40, **options).take(6))
        tf.random.set_seed(7)
        resumed = data.training_batches(train, 40, start_step=step, **options)
        rest = straight[step:]
        for batch, same in zip(rest, resumed.take(len(rest)), strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, batch, same)

    def test_the_seed_changes_the_order(self, sharded):
        train = data.load("tiny:mode=streaming", data_dir=sharded).train
        orders = [
            epoch(data.training_batches(train, 45, seed=seed), 2)
            for seed in (0, 1, -5)
        ]
        assert (orders[0] != orders[1]).any()
        assert (orders[0] != orders[2]).any()

    @pytest.mark.parametrize(("count", "buffer"), [(5, 1), (1, 8192)])
    def test_shards_and_buffer_shuffle_alike(
        self, tmp_path, monkeypatch, count, buffer
    ):
        # Five shards and no buffer, then one shard and a buffer.
        monkeypatch.setattr(shards, "SHUFFLE_BUFFER", buffer)
        tiny_tfds.prepare(tmp_path, shards=count, train=tiny_tfds.examples(100))
        train = data.load("tiny:mode=streaming", data_dir=tmp_path).train
        rows = epoch(data.training_batches(train, len(train)), 6)
        orders = {tuple(order) for order in rows.reshape(6, -1)}
        assert len(orders) > 3

    def test_the_remainder_changes_with_the_epoch(self, sharded):
        train = data.load("tiny:mode=streaming", data_dir=sharded).train
        batches = data.training_batches(train, 50)
        rows = [set(x["index"].numpy().tolist()) for x, _, _ in batches.take(3)]
        assert all(len(epoch) == 50 for epoch in rows)
        assert rows[0] != rows[1] != rows[2]

    def test_replicas_share_one_global_batch(self, sharded, strategy):
        train = data.load("tiny:mode=streaming", data_dir=sharded).train
        batches = data.training_batches(train, 10)
        x, _, _ = next(iter(strategy.experimental_distribute_dataset(batches)))
        local = strategy.experimental_local_results(x["index"])
        assert len({len(part) for part in local}) == 1
        np.testing.assert_array_equal(np.concatenate(local), epoch(batches, 1))

    @pytest.mark.parametrize("mode", ["memory", "streaming"])
    def test_a_label_that_is_no_class_is_refused(self, tmp_path, mode):
        strange = list(tiny_tfds.examples(20))
        strange[13]["label"] = -1
        tiny_tfds.prepare(tmp_path, train=strange)
        with pytest.raises(
            ValueError, match="train of tiny holds the label -1"
        ):
            data.arrays(data.load(f"tiny:mode={mode}", data_dir=tmp_path).train)

    def test_is_chosen_by_size(self, sharded, monkeypatch):
        monkeypatch.setattr(splits, "MEMORY_LIMIT", 120 * 20)
        assert data.load("tiny", data_dir=sharded).mode == "memory"
        monkeypatch.setattr(splits, "MEMORY_LIMIT", 120 * 20 - 1)
        assert data.load("tiny", data_dir=sharded).mode == "streaming"
        assert data.load("tiny:mode=memory", data_dir=sharded).mode == "memory"
