"""What images in memory take, and how much memory there is."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny_tfds

from mart_tf import data
from mart_tf import ram
from mart_tf.data import held

# The most that a process has held is asked for anew.
_TRAINS = """
import pathlib, sys
import tensorflow as tf
from mart_tf import data

def most():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM"))

def batches(spec):
    dataset = data.load(spec)
    for split in (dataset.train, dataset.validation):
        batches = data.training_batches(split, 100, augment="flip")
        next(iter(batches))
        batches = data.evaluation_batches(split, 100)
        next(iter(batches))

batches("npz:small.npz")
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = most()
batches("npz:large.npz")
print(most() - before)
"""


def _set(folder, name, count):
    labels = np.arange(count) % 2
    images = np.full([count, 64, 64, 1], 7, np.uint8)
    arrays = {"x_train": images, "y_train": labels}
    arrays |= {"x_test": images[:2], "y_test": labels[:2]}
    np.savez(folder / name, **arrays)


def test_a_set_is_in_memory_once(tmp_path):
    _set(tmp_path, "small.npz", 2_000)
    _set(tmp_path, "large.npz", 2**15)
    size = 2**15 * 64 * 64 / 1024
    done = subprocess.run(
        [sys.executable, "-c", _TRAINS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.9 * size < int(done.stdout) < 1.5 * size


class TestHeld:
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_a_tensor_is_over_its_memory(self, dtype):
        array = held.empty("It", [5, 3], dtype)
        array[...] = np.arange(15).reshape(5, 3)
        tensor = held.tensor(array)
        np.testing.assert_array_equal(tensor, array)
        view = np.asarray(tensor)
        assert view.ctypes.data == array.ctypes.data
        np.testing.assert_array_equal(tf.gather(tensor, [4, 0]), array[[4, 0]])
        del array
        np.testing.assert_array_equal(tensor[1], [3, 4, 5])

    def test_no_tensor_is_over_other_memory(self):
        # TensorFlow would end the process at the first operation.
        block = held.empty("It", [65], "uint8")
        for array in (block[1:], block[::2]):
            with pytest.raises(ValueError, match="not one of"):
                held.tensor(array)

    @pytest.mark.parametrize(
        "given",
        [
            np.ones([3, 4], np.float64),
            np.ones([3, 4], np.float32)[:, ::2],
            np.asfortranarray(np.ones([3, 4], np.float32)),
            np.ones([3, 4], ">f4"),
            np.broadcast_to(np.float32(1), [3, 4]),
            np.frombuffer(np.ones(12, np.float32).tobytes(), np.float32),
        ],
    )
    def test_what_lies_otherwise_is_copied(self, given):
        array = held.of("It", given, "float32")
        assert not np.shares_memory(array, given)
        assert array.dtype == np.float32 and array.dtype.isnative
        np.testing.assert_array_equal(held.tensor(array), given)
        assert held.of("It", array, "float32") is array

    def test_what_does_not_fit_is_refused(self, monkeypatch):
        monkeypatch.setattr(ram, "available", lambda: 2**10)
        with pytest.raises(ValueError, match=r"^It takes 1.5 KiB of memory"):
            held.empty("It", [1536], "uint8")

    def test_the_splits_of_a_source_share_an_array(self):
        dataset = data.load("digits")
        halves = dataset.train, dataset.validation, dataset.test
        assert len({half.array.ctypes.data for half in halves}) == 1
        rows = np.concatenate([half.indices for half in halves])
        np.testing.assert_array_equal(np.sort(rows), np.arange(1797))
        part = dataset.test.select(range(3, 5)).select([1])
        np.testing.assert_array_equal(part.images, dataset.test.images[4:5])


class TestValidationOfAStream:
    def test_is_read_once(self, tmp_path):
        tiny_tfds.sharded(tmp_path)
        dataset = data.load("tiny:mode=streaming", data_dir=tmp_path)
        batches = data.evaluation_batches(dataset.validation, 7)
        first = list(batches)
        for shard in tmp_path.rglob("*train.tfrecord*"):
            shard.unlink()
        second = list(batches)
        assert len(first) == len(second) == 2
        tf.nest.map_structure(np.testing.assert_array_equal, first, second)

    def test_the_whole_of_the_shards_is_not_kept(self, tmp_path):
        tiny_tfds.sharded(tmp_path)
        dataset = data.load("tiny:mode=streaming", data_dir=tmp_path)
        batches = data.evaluation_batches(dataset.test, 7)
        assert len(list(batches)) == 3
        for shard in tmp_path.rglob("*test.tfrecord*"):
            shard.unlink()
        with pytest.raises(tf.errors.OpError, match="There is no file"):
            list(batches)


class TestControlGroups:
    def write(self, root, cgroup, files):
        for name, content in {"proc/self/cgroup": cgroup, **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def test_version_2_the_group_and_those_it_is_in(self, tmp_path):
        groups = "sys/fs/cgroup"
        self.write(
            tmp_path,
            "0::/slurm/job/step\n",
            {
                f"{groups}/slurm/memory.max": "max\n",
                f"{groups}/slurm/memory.current": "900\n",
                f"{groups}/slurm/memory.stat": "inactive_file 1\n",
                f"{groups}/slurm/job/memory.max": "1000\n",
                f"{groups}/slurm/job/memory.current": "600\n",
                f"{groups}/slurm/job/memory.stat": "anon 5\ninactive_file 50\n",
                f"{groups}/slurm/job/step/memory.max": "2000\n",
                f"{groups}/slurm/job/step/memory.current": "500\n",
                f"{groups}/slurm/job/step/memory.stat": "anon 5\n",
            },
        )
        assert ram._groups(tmp_path) == [(2000, 500), (1000, 550)]

    def test_version_1_in_a_container_that_sees_its_own_as_the_root(
        self, tmp_path
    ):
        groups = "sys/fs/cgroup/memory"
        self.write(
            tmp_path,
            "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n0::/docker/a\n",
            {
                f"{groups}/memory.limit_in_bytes": "4000\n",
                f"{groups}/memory.usage_in_bytes": "3500\n",
                f"{groups}/memory.stat": "cache 9\ntotal_inactive_file 100\n",
            },
        )
        assert ram._groups(tmp_path) == [(4000, 3400)]

    @pytest.mark.parametrize("cgroup", ["", "1:cpu:/\n"])
    def test_none(self, tmp_path, cgroup):
        self.write(tmp_path, cgroup, {})
        assert ram._groups(tmp_path) == []
        assert ram._groups(tmp_path / "nowhere") == []

    def test_what_is_used_of_a_limit_is_not_free(self, monkeypatch):
        monkeypatch.setattr(ram, "_groups", lambda: [(4000, 3500)])
        assert ram.available() == 500
        assert ram.machine() == 4000

    def test_without_a_limit_it_is_the_machines(self, monkeypatch):
        monkeypatch.setattr(ram, "_groups", list)
        assert 0 < ram.available() <= ram.machine() < float("inf")

    def test_of_this_machine_it_is_no_more_than_it_has(self):
        lines = pathlib.Path("/proc/meminfo").read_text("ascii").splitlines()
        total = int(lines[0].split()[1]) * 1024
        assert 0 < ram.available() <= ram.machine() <= total
