"""The metrics of an unfinished epoch, so that its row ends as it would have."""

import numpy as np
import tensorflow as tf


class Accumulators:
    """What a model's metrics hold, on every replica, kept aside.

    Of each replica its own, for in floats the sum of the parts that each goes
    on from hangs on how it is divided.

    Args:
        model: A Keras model whose metrics are built.
        workers: The `workers.Workers` that train it.

    Attributes:
        saved: A float32 variable `[replicas, values]`, for a checkpoint.
    """

    def __init__(self, model, workers):
        self._workers = workers
        self._strategy = model.distribute_strategy
        self._variables = [
            variable.value
            for metric in model.metrics
            for variable in metric.variables
        ]
        replicas = self._strategy.num_replicas_in_sync
        size = sum(int(np.prod(v.shape)) for v in self._variables)
        self.saved = tf.Variable(tf.zeros([replicas, size]), trainable=False)

    def take(self):
        """Keeps what they hold now, in every process at the same step."""
        columns = [
            [np.ravel(part) for part in self._parts(variable)]
            for variable in self._variables
        ]
        rows = np.zeros(self.saved.shape, np.float32)
        rows[self._own] = [
            np.concatenate(row) for row in zip(*columns, strict=True)
        ]
        self.saved.assign(self._workers.summed(rows))

    def restore(self, values):
        """Takes what `saved` was, `[replicas, values]`, of as many or others.

        With another number of replicas all goes to the first: the sum is the
        same up to rounding.
        """
        if len(values) != self.saved.shape[0]:
            whole = values.sum(axis=0)
            values = np.zeros(self.saved.shape, np.float32)
            values[0] = whole
        self.saved.assign(values)

    def give(self):
        """Gives each what was kept of it."""
        rows, place = self.saved.numpy()[self._own], 0
        for variable in self._variables:
            size = int(np.prod(variable.shape))
            for part, row in zip(self._parts(variable), rows, strict=True):
                part.assign(row[place : place + size].reshape(part.shape))
            place += size

    @property
    def _own(self):
        """The rows of this process's replicas."""
        count = self._workers.replicas
        return slice(
            self._workers.index * count, (self._workers.index + 1) * count
        )

    def _parts(self, variable):
        return self._strategy.experimental_local_results(variable)
