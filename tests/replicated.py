"""One training step of the linear network on so many logical CPUs.

    python tests/replicated.py REPLICAS EXAMPLES FILE

How many there are is said before TensorFlow is used: in a process of its own.
FILE, an .npz file, has the new weights.
"""

import sys

import linear
import numpy as np
import tensorflow as tf

from mart_tf.runs import devices


def first(count):
    """Of `linear` what a batch of its first examples alone is worked with."""
    names = ("IMAGES", "LABELS", "ROWS", "SAMPLE_WEIGHT")
    parts = {name: getattr(linear, name)[:count] for name in names}
    return {"EXAMPLES": count, **parts}


def main(replicas, examples, file):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    vars(linear).update(first(examples))
    strategy = devices.strategy("mirrored")
    assert strategy.num_replicas_in_sync == replicas
    weights = linear.train_once(strategy, "standard", index=False)
    np.savez(file, *weights)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
