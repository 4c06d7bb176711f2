"""Images a second of the training pipeline alone: does it keep a GPU busy?

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --data_dir=DIR

50,000 images of 32x32x3 in memory, as they are and augmented (padded, cropped,
flipped; by randaugment; by a layer of Keras), and mixed with a pool; with
--data_dir CIFAR-10 of TFDS too, decoded from its shards as it is read. Each is
read for --seconds after the first batches, in alternating rounds; medians, and
the longest time that a pipeline took to end when it was no more wanted. Memory
is the most of the whole process, 147 MiB of it the images.
"""

import functools
import os
import resource
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
from absl import logging
import numpy as np

from mart_tf import data
from mart_tf.data import pools
from mart_tf.data import splits

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Alternating rounds.")
_SECONDS = flags.DEFINE_float("seconds", 5, "Length of a measurement.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TFDS has cifar10; default: without it."
)
_IMAGES, _SHAPE, _CLASSES = 50_000, (32, 32, 3), 10


def main(_):
    """Prints a line for each pipeline."""
    logging.set_verbosity(logging.WARNING)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (_IMAGES, *_SHAPE), "uint8")
    labels = generator.integers(0, _CLASSES, _IMAGES).astype("int32")
    in_memory = splits.memory_split(images, labels)
    pool = pools.Pool(
        name="pool", images=images[:20_000], labels=labels[:20_000]
    )
    cases = {
        "in memory": functools.partial(_batches, in_memory),
        "augmented": functools.partial(
            _batches, in_memory, augment="crop,flip"
        ),
        "with a pool": functools.partial(
            _batches, in_memory, augment="crop,flip", pool=pool
        ),
        "randaugment": functools.partial(
            _batches, in_memory, augment="randaugment"
        ),
        "a Keras layer": functools.partial(
            _batches,
            in_memory,
            augment="keras.layers:RandomRotation:factor=0.1",
        ),
    }
    if _DATA_DIR.value is not None:
        streamed = data.load(
            "cifar10:mode=streaming", data_dir=_DATA_DIR.value
        ).train
        cases["streamed"] = functools.partial(
            _batches, streamed, augment="crop,flip"
        )
    found = {name: [] for name in cases}
    for _ in range(_ROUNDS.value):
        for name, batches in cases.items():
            found[name].append(_measured(batches()))
    print(
        f"{'':13} {'images/s':>10} {'end, s':>8}   batches of "
        f"{_BATCH_SIZE.value}"
    )
    for name, measured in found.items():
        rates, ends = zip(*measured, strict=True)
        print(f"{name:13} {statistics.median(rates):10,.0f} {max(ends):8.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"most memory of the process: {peak:,.0f} MiB")


def _batches(split, **settings):
    return data.training_batches(split, _BATCH_SIZE.value, seed=0, **settings)


def _measured(batches):
    """Images a second, from the tenth batch on; seconds until it has ended."""
    iterator = iter(batches)
    for number, (inputs, _, _) in enumerate(iterator):
        # Read, as a step would.
        inputs["image"].shape[0]
        if number == 10:
            begun = time.perf_counter()
        if number > 10 and time.perf_counter() - begun > _SECONDS.value:
            break
    ended = time.perf_counter()
    rate = (number - 10) * _BATCH_SIZE.value / (ended - begun)
    del iterator
    return rate, time.perf_counter() - ended


if __name__ == "__main__":
    app.run(main)
