"""One training step of the linear network on so many logical CPUs.

    python tests/replicated.py STRATEGY REPLICAS EXAMPLES FILE

How many there are is said before TensorFlow is used: in a process of its own.
STRATEGY is a name in `tf.distribute`; FILE, an .npz file, has the new weights.
"""

import sys

import linear
import numpy as np
import tensorflow as tf


def first(count):
    """Of `linear` what a batch of its first examples alone is worked with."""
    names = ("IMAGES", "LABELS", "ROWS", "SAMPLE_WEIGHT")
    parts = {name: getattr(linear, name)[:count] for name in names}
    return {"EXAMPLES": count, **parts}


def main(name, replicas, examples, file):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    vars(linear).update(first(examples))
    strategy = getattr(tf.distribute, name)()
    assert strategy.num_replicas_in_sync == replicas
    weights = linear.train_once(strategy, "standard", index=False)
    np.savez(file, *weights)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
