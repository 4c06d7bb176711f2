"""What the processes of a run decide together, so that all do the same.

A collective operation waits for every process: whoever saves, stops or reads
the sum of a metric alone leaves the others waiting. What only one of them
knows (a signal, the time) is therefore gathered first, and the same rule then
gives every one of them the same answer.
"""

import contextlib
import signal
import time
import zlib

import numpy as np
import tensorflow as tf

# Seconds between two questions, at the speed of the chief.
_BETWEEN = 2.0

# What TensorFlow raises where a process of the cluster has gone.
_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Lost(Exception):
    """A process of the cluster has gone, and this one cannot go on.

    Attributes:
        status: The exit status, one that Kubeflow's TFJob takes for "start it
            again".
    """

    status = 138


class Workers:
    """The processes of a run; here one alone, which asks nobody.

    Attributes:
        count: How many there are.
        index: The place of this one.
        is_chief: Whether it writes the workdir, and tells its user.
        replicas: How many devices each of them has.
    """

    count, index, is_chief = 1, 0, True

    def __init__(self, strategy):
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync

    @property
    def part(self):
        """This process's part of a batch: its place, and of how many."""
        return self.index, self.count

    def gathered(self, values):
        """What every process has, int64 `[count, n]`, of its own `[n]`."""
        return np.asarray([values], np.int64)

    def summed(self, rows):
        """The sum over the processes of an array."""
        return rows

    def distributed(self, batches):
        """What `fit` takes for batches of this process's part."""
        return batches

    @contextlib.contextmanager
    def unbroken(self):
        """A scope whose body fails with `Lost` where a process has gone."""
        yield


class Cluster(Workers):
    """Processes under a `MultiWorkerMirroredStrategy`.

    Args:
        strategy: The strategy.
        cluster: The `cluster.Cluster`.
    """

    def __init__(self, strategy, cluster):
        super().__init__(strategy)
        self._cluster = cluster
        self.count = len(cluster.addresses)
        self.index = cluster.index
        self.is_chief = cluster.is_chief
        self.replicas = strategy.num_replicas_in_sync // self.count
        self._sum = tf.function(self._everywhere)

    def gathered(self, values):
        own = np.zeros([self.count, len(values)], np.int64)
        own[self.index] = values
        return self.summed(own)

    def summed(self, rows):
        # Only the first device of each has something to give.
        return self._sum(tf.constant(rows)).numpy()

    def _everywhere(self, rows):
        def on_replica():
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % self.replicas == 0
            own = tf.where(first, rows, tf.zeros_like(rows))
            return context.all_reduce("sum", own)

        results = self.strategy.run(on_replica)
        return self.strategy.experimental_local_results(results)[0]

    def distributed(self, batches):
        if self.replicas > 1:
            size = batches.element_spec[1].shape[0]
            batches = batches.rebatch(size // self.replicas)
        return self.strategy.distribute_datasets_from_function(
            lambda context: batches
        )

    @contextlib.contextmanager
    def unbroken(self):
        try:
            yield
        except _GONE as error:
            others = [
                f"{place} ({address})"
                for place, address in enumerate(self._cluster.addresses)
                if place != self.index
            ]
            raise Lost(
                f"Of the {self.count} processes that train together one has "
                f"gone, of {', '.join(others)}: its own last line may say why. "
                "Start all of them again with the same command: the run goes "
                "on from its last save."
            ) from error


def connected(cluster, make_strategy):
    """The workers of a cluster, once all of them are there.

    Args:
        cluster: A `cluster.Cluster`.
        make_strategy: Makes the strategy; TensorFlow waits in it until the
            last process has come.

    Raises:
        ValueError: If this process cannot listen at its address.
    """
    # TensorFlow waits without looking at signals: Ctrl-C ends the process.
    before = _on_interrupt(signal.SIG_DFL)
    try:
        return Cluster(make_strategy(), cluster)
    except tf.errors.OpError as error:
        raise ValueError(
            f"TensorFlow cannot join the cluster of TF_CONFIG as "
            f"{cluster.describe()}: {error.message}. Is the port free, and do "
            "the processes reach each other?"
        ) from error
    finally:
        _on_interrupt(before)


def _on_interrupt(handler):
    try:
        return signal.signal(signal.SIGINT, handler)
    except ValueError:
        # Not the main thread.
        return None


def check_alike(workers, path, said, done):
    """Refuses processes that would not train the same run.

    Args:
        workers: The `Workers`.
        path: The workdir.
        said: What must be alike, plain values by name: the same names in
            every process.
        done: How many steps of the run are done.

    Raises:
        ValueError: In every process, naming one that differs and in what.
    """
    own = [zlib.crc32(repr(value).encode()) for value in said.values()]
    rows = workers.gathered([*own, done])
    for place, row in enumerate(rows):
        if row[-1] != rows[0][-1]:
            raise ValueError(
                f"Process {place} finds step {row[-1]} of the run in {path}, "
                f"and the chief step {rows[0][-1]}; --workdir must be a folder "
                "that all processes share."
            )
        others = [
            name
            for name, value, chiefs in zip(
                said, row[:-1], rows[0][:-1], strict=True
            )
            if value != chiefs
        ]
        if others:
            raise ValueError(
                f"Process {place} differs from the chief in "
                f"{', '.join(others)}; start all processes with the same "
                "flags, data and versions."
            )


class Asking:
    """Whether to save and to stop, the same in every process.

    Args:
        workers: The `Workers`.
        signals: The `signals.Signals` of this process.

    Attributes:
        stop: The signal that asks to stop, of whichever process, or None.
        of: The place of that process.
        save: Whether one asks to save.
    """

    def __init__(self, workers, signals):
        self._workers = workers
        self._signals = signals
        self.rest()

    def rest(self):
        """Nothing is asked for; the next call of `is_wanted` asks again."""
        self.stop, self.of, self.save = None, 0, False
        self._calls = self._between = 0
        self._when = time.monotonic()

    def is_wanted(self, due, now=False):
        """Whether to save here: it is due, or a signal asks for it.

        Several processes ask each other every two seconds, in between it is
        not.

        Args:
            due: Whether the chief finds that it is time; that of others does
                not count.
            now: Whether to ask in any case, the same in every process.
        """
        self._calls += 1
        alone = self._workers.count == 1
        if not (alone or now or self._calls >= self._between):
            return False
        own = [due, self._signals.stop or 0, self._signals.save]
        self._signals.save = False
        rows = self._workers.gathered([*own, self._pause()])
        due, self._between = rows[0][0], rows[0][3]
        self._calls, self._when = 0, time.monotonic()
        self.save = bool(rows[:, 2].any())
        self.of = int(np.argmax(rows[:, 1] > 0))
        number = int(rows[self.of, 1])
        self.stop = signal.Signals(number) if number else None
        return bool(due or number or self.save)

    def _pause(self):
        """How many calls of `is_wanted` take as long as should be between."""
        seconds = (time.monotonic() - self._when) / self._calls
        return max(1, min(10**6, round(_BETWEEN / max(seconds, 1e-6))))
