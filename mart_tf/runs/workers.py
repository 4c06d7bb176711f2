"""What the processes of a run decide together, so that all do the same.

A collective operation waits for every process: whoever saves, stops or reads
the sum of a metric alone leaves the others waiting. What only one of them
knows (a signal, the time) is therefore gathered first, and the same rule then
gives every one of them the same answer.
"""

import contextlib
import dataclasses
import signal
import zlib

import numpy as np
import tensorflow as tf

from mart_tf import environment
from mart_tf.runs import devices

# Flags that may differ between the processes of a run.
_OWN = ("workdir", "data_dir", "download")
# Processes that a sentence names.
_SHOWN = 3

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
        members: The `cluster.Members`.
    """

    def __init__(self, strategy, members):
        super().__init__(strategy)
        self._addresses = members.addresses
        self.count = len(members.addresses)
        self.index = members.index
        self.is_chief = members.is_chief
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
                f"process {place} at {address}"
                for place, address in enumerate(self._addresses)
                if place != self.index
            ]
            shown = " or ".join(others)
            if len(others) > _SHOWN:
                shown = f"one of the other {len(others)}"
            raise Lost(
                f"A process of this run has gone, {shown}; its own last line "
                "may say why. Start all of them again with the same command: "
                "the run goes on from its last save."
            ) from error


def trainers(members, strategy, console):
    """The `Workers` that train a run, this process among them.

    Args:
        members: The `cluster.Members`, or None: this process alone. With
            members TensorFlow may not have been used yet, and the call waits
            for the last of them to come.
        strategy: The `--strategy`.
        console: A `rich.console.Console`, which is told who is waited for.

    Raises:
        ValueError: If this process cannot listen at its address.
    """
    if members is None:
        return Workers(devices.strategy(strategy))

    def say(text):
        console.print(text, highlight=False, soft_wrap=True)

    say(f"This is {members.describe()}; waiting for the others.")
    # TensorFlow waits without looking at signals: Ctrl-C ends the process.
    before = _on_interrupt(signal.SIG_DFL)
    try:
        together = Cluster(devices.strategy(strategy, members), members)
    except tf.errors.OpError as error:
        raise ValueError(
            f"TensorFlow cannot join the cluster of TF_CONFIG as "
            f"{members.describe()}: {error.message}. Is the port free, and do "
            "the processes reach each other?"
        ) from error
    finally:
        _on_interrupt(before)
    if not members.is_chief:
        say(
            f"All are there; the chief, at {members.addresses[0]}, tells of "
            "the run and writes its workdir."
        )
    return together


def _on_interrupt(handler):
    """Sets who answers Ctrl-C; who did before, None if that is not known."""
    if handler is None:
        return None
    try:
        return signal.signal(signal.SIGINT, handler)
    except ValueError:
        # Not the main thread.
        return None


def check_alike(workers, config, facts, done):
    """Refuses processes that would not train the same run.

    Args:
        workers: The `Workers`.
        config: The `Config`.
        facts: What is known of data and network, plain values by name.
        done: How many steps of the run are done.

    Raises:
        ValueError: In every process, naming one that differs and in what.
    """
    said = _said(config, facts)
    own = [zlib.crc32(repr(value).encode()) for value in said.values()]
    rows = workers.gathered([*own, done])
    for place, row in enumerate(rows):
        if row[-1] != rows[0][-1]:
            raise ValueError(
                f"Process {place} finds step {row[-1]} of the run in its "
                f"--workdir, and the chief step {rows[0][-1]}; it must be one "
                "folder that all processes share."
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


def _said(config, facts):
    """What must be alike in all processes that train a run, by its name."""
    flags = {
        f"--{name}": value
        for name, value in dataclasses.asdict(config).items()
        if name not in _OWN
    }
    versions = {
        f"the version of {package}": version
        for package, version in environment.versions().items()
    }
    shown = {name.replace("_", " "): value for name, value in facts.items()}
    return flags | versions | shown
