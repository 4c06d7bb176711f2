"""What one of several workers sums over all of them in a training step.

    TF_CONFIG=... python benchmarks/sums.py cnn4 mart

A worker of `scaling.py --sums`: traces the step, with an attack of two steps,
and prints bytes and number of the collective sums in its graph.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

import mart_tf

_SHAPE = (28, 28, 1)
_BATCH, _ROWS = 4, 1_000


def main(network, defense):
    """Prints `[bytes, sums]`."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = mart_tf.AdversarialClassifier(
            mart_tf.models.build(network, _SHAPE, 10),
            defense,
            mart_tf.ThreatModel(epsilon=0.3),
            attack_steps=2,
            rows=_ROWS,
        )
        model.compile(keras.optimizers.SGD(0.01))
        model.optimizer.build(model.trainable_variables)

    @tf.function
    def step(images, rows, labels):
        batch = {"image": images, "index": rows}, labels
        return strategy.run(model.train_step, (batch,))

    graph = step.get_concrete_function(
        tf.TensorSpec([_BATCH, *_SHAPE]),
        tf.TensorSpec([_BATCH], tf.int64),
        tf.TensorSpec([_BATCH], tf.int32),
    ).graph
    summed = [
        operation.inputs[0]
        for operation in graph.get_operations()
        if operation.type.startswith("CollectiveReduce")
    ]
    size = sum(t.shape.num_elements() * t.dtype.size for t in summed)
    print(json.dumps([size, len(summed)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
