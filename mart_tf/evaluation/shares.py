"""How many cores share a batch, and the share of each.

A core to itself is worth more to an example than all cores to an operation:
operations wait for their slowest part, and have serial stretches.
"""

import functools
import operator
import os

import tensorflow as tf

# Smaller ones would lose more than they gain.
_SMALLEST = 8


def keep_to_one_core():
    """Keeps each operation on a CPU to one core, so that a share has a core.

    For a process that only evaluates: the setting is the whole process's, and
    TensorFlow takes it before it makes its devices. `count` goes by it, also
    where a caller of the library made it.
    """
    if not tf.config.list_physical_devices("GPU"):
        tf.config.threading.set_intra_op_parallelism_threads(1)


def split(function):
    """A function that takes its batches share by share.

    Args:
        function: Takes and returns nests of tensors `[batch, ...]`. Traced
            for each share.

    Returns:
        A function of the same arguments. Where operations keep to one core,
        as the programs have it, there is a share for each core; else there are
        two, of which one fills the other's serial stretches. There is one on a
        GPU, and where a graph does not know the size of the batch.
    """

    return functools.partial(_by_shares, function)


def _by_shares(function, *batches):
    size = tf.nest.flatten(batches)[0].shape[0]
    parts = count(size)
    if parts == 1:
        return function(*batches)
    ends = [size * number // parts for number in range(parts + 1)]
    done = [
        function(
            *tf.nest.map_structure(operator.itemgetter(slice(*share)), batches)
        )
        for share in zip(ends[:-1], ends[1:], strict=True)
    ]
    return tf.nest.map_structure(
        lambda *values: tf.concat(values, axis=0), *done
    )


def devices():
    """The GPUs by name, where there are several: each takes whole batches."""
    gpus = tf.config.list_logical_devices("GPU")
    return [gpu.name for gpu in gpus] if len(gpus) > 1 else []


def count(size):
    """The number of shares that a batch of a size is worth."""
    if size is None or tf.config.list_physical_devices("GPU"):
        return 1
    cores = 2
    if tf.config.threading.get_intra_op_parallelism_threads() == 1:
        cores = os.cpu_count()
        if hasattr(os, "sched_getaffinity"):
            # Those that this process may use.
            cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, size // _SMALLEST))
