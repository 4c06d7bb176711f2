"""Training runs whose disk fails, or which are killed, at one change of it.

What the C library is asked to make, write, rename or remove in the workdir is
counted by `failing_disk.c`, and the N-th is where the process is killed, where
the power fails (killed, and files that were written and not flushed to the
disk are left empty, as file systems with delayed allocation leave them), or
from where on the disk is full. The run is then started again, and must end as
one that nothing happened to.
"""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sysconfig
import tempfile

import programs
import run_states

_SAVED = re.compile(r"rename \S+ checkpoints/(within/)?ckpt-(\d+)\.sha256")

# Two epochs of three steps, one of them saved in its middle.
_SETTINGS = (
    "--dataset=digits",
    "--model=small_network:build",
    "--attack_steps=1",
    "--batch_size=64",
    "--steps_per_epoch=3",
    "--epochs=2",
    "--checkpoint_every=2steps",
    "--precision=float32",
    "--strategy=single",
    "--schedule=piecewise:at=2",
    "--workdir=run",
)
_STEPS = 3

_NETWORK = """
import keras

def build(input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(num_classes),
    ])
"""


def compiler():
    """A C compiler, or None."""
    return shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])


@functools.cache
def _library():
    """The path of the library to preload."""
    file = pathlib.Path(tempfile.mkdtemp(), "failing_disk.so")
    source = pathlib.Path(__file__).with_suffix(".c")
    subprocess.run(
        [compiler(), "-shared", "-fPIC", "-O1", "-o", file, source, "-ldl"],
        check=True,
    )
    return str(file)


class Recipe:
    """A run, and what it is when nothing happens to it.

    Args:
        folder: Where it and what is tried go.
        flags: Its flags, beside those of every such run.

    Attributes:
        changes: What it changes in its workdir, in order; what begins with a
            "+" takes room.
    """

    def __init__(self, folder, *flags):
        self._folder = pathlib.Path(folder).resolve()
        self._flags = flags
        place = self._place("whole")
        done = self._train(place, "full", 0)
        assert done.returncode == 0, done.stderr
        self._whole = run_states.state(place / "run")
        self.changes = _changes(place)

    def fault(self, how, at):
        """What went wrong in a run with a failure, in words, or None.

        Args:
            how: "kill", "power", or "full".
            at: The number of the change, from 1; for "full" of those alone
                that take room.
        """
        place = self._place(f"{how}-{at}")
        failed = self._train(place, how, at)
        fault = _of_failure(how, failed)
        changes = _changes(place)
        # The last is the one that did not happen.
        changes = changes if how == "full" else changes[:-1]
        saved = _saved(changes)
        if how == "power":
            _empty(place / "run", changes)
        before = len(_starts(place))
        again = self._train(place, how, 0)
        if again.returncode or again.stderr.strip():
            fault = fault or f"again: {again.returncode}, {again.stderr[-300:]}"
        # Where nothing was left to do, nothing was started.
        elif any(done < saved for done in _starts(place)[before:]):
            fault = fault or f"step {saved} was saved, and is lost"
        if not fault:
            fault = run_states.different(
                self._whole, run_states.state(place / "run")
            )
        if not fault:
            shutil.rmtree(place)
        return fault

    def _place(self, name):
        place = self._folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / "small_network.py").write_text(_NETWORK)
        return place

    def _train(self, place, how, at):
        return programs.run(
            "train",
            *_SETTINGS,
            *self._flags,
            cwd=place,
            preload=_library(),
            FAILING_DISK_FOLDER=str(place / "run"),
            FAILING_DISK_HOW="full" if how == "full" else "kill",
            FAILING_DISK_AT=str(at),
            FAILING_DISK_LOG=str(place / "changes"),
            PYTHONPATH=os.pathsep.join([str(programs.ROOT), str(place)]),
        )


def _starts(place):
    """How many steps were taken before each start, as far as is known."""
    file = place / "run" / "events.jsonl"
    events = run_states.events(file.parent) if file.exists() else []
    return [event["done"] for event in events if event["event"] == "start"]


def _changes(place):
    return (place / "changes").read_text().splitlines()


def _of_failure(how, process):
    """What a run did wrong as its disk failed, or None."""
    if how != "full":
        return None if process.returncode == -9 else "it was not killed"
    # What is not worth a run's end may be missing.
    if process.returncode == 0:
        return None
    lines = process.stderr.strip().splitlines()
    wrong = "memory" in process.stderr
    if process.returncode != 1 or len(lines) != 1 or wrong:
        return f"{process.returncode}: {process.stderr.strip()[-500:]}"
    return None


def _empty(folder, changes):
    """Takes what was written into a folder and not flushed to the disk."""
    unflushed = set()
    for change in changes:
        call, name, *new = change.removeprefix("+").split(" ")
        if call in ("write", "fwrite"):
            unflushed.add(name)
        elif call == "rename" and name in unflushed:
            unflushed = unflushed - {name} | set(new)
        elif call in ("fsync", "unlink", "rename"):
            unflushed -= {name, *new}
    for name in unflushed:
        if (folder / name).exists():
            os.truncate(folder / name, 0)


def _saved(changes):
    """After how many steps the newest checkpoint was written to its end."""
    saves = map(_SAVED.fullmatch, changes)
    steps = [
        int(match[2]) * (1 if match[1] else _STEPS) for match in saves if match
    ]
    return max(steps, default=0)
