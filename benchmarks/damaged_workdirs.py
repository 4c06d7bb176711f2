"""Damages to the files of a workdir: is a run resumed soundly, or refused?

    python benchmarks/damaged_workdirs.py --count=1000 --root=/tmp/damaged

Saves a small run on the embedded digits after three epochs and a bit. Each
damage is done to one file of a copy: bytes flipped, cut off, emptied, deleted,
replaced by rubbish, by JSON of other types, by a folder, a pipe or a link. What
is asked of the copy is what the programs ask: to continue, to be evaluated
(`best` and `last`), and for its status. Sound is

- a sentence in one line, or
- the very weights that were saved at the epoch, or step, that is named; and
  where that is not the newest one, a sentence that says so.

Prints each fault, and ends with status 1 if there is one.
"""

import collections
import dataclasses
import os
import pathlib
import random
import resource
import shutil
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import numpy as np

_COUNT = flags.DEFINE_integer("count", 1000, "How many damages are done.")
_ROOT = flags.DEFINE_string("root", None, "Where the copies go.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the damages.")

EPOCHS, STEPS, POSITION = 3, 4, 2
SETTINGS = {
    "attack_steps": 1,
    "batch_size": 32,
    "epochs": 5,
    "steps_per_epoch": STEPS,
    "validation_images": 40,
    "precision": "float32",
    "schedule": "constant",
    "ema": 0.5,
}
_JSON = (
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"1e999",
    b"[" * 100_000,
    b'\xef\xbb\xbf{"format": 1}',
    b'{"format": 1, "config": null, "facts": null}',
    b'{"format": 1, "config": {"epochs": "many"}, "facts": {}}',
    b'{"last": 1e308, "best": null, "within": [1]}',
    b"epoch,loss\n1," + b"9" * 200_000 + b"\n",
    b'epoch,loss\n"1\n',
)
_SECONDS = 20
_BYTES = 6 << 30


def main(_):
    root = pathlib.Path(_ROOT.value).absolute()
    shutil.rmtree(root, ignore_errors=True)
    # What reads without end gets a MemoryError.
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    whole = root / "whole"
    asked = Asked(whole)
    draw = random.Random(_SEED.value)
    faulty = []
    for number in range(_COUNT.value):
        copy = root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        what = damage(copy, draw)
        for fault in asked.faults(copy):
            faulty.append(number)
            print(f"{number:5d} {what}: {fault}", flush=True)
    print(f"{len(set(faulty))} of {_COUNT.value} damages led to a fault.")
    for answer, times in sorted(asked.answers.items()):
        print(f"{times:6d} {answer}")
    return bool(faulty)


def damage(path, draw):
    """Damages one file below a folder; says how."""
    files = sorted(f for f in path.rglob("*") if f.is_file())
    file = draw.choice(files)
    kind = draw.choice(sorted(_KINDS))
    _KINDS[kind](file, draw)
    return f"{file.relative_to(path)} {kind}"


def _flip(file, draw):
    content = bytearray(file.read_bytes() or b"x")
    for _ in range(draw.choice([1, 1, 1, 8, 64])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def _cut(file, draw):
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content) + 1)])


def _replace(file, draw):
    file.write_bytes(draw.randbytes(draw.choice([0, 1, 64, 5000])))


def _digit(file, draw):
    """Another digit in a text: what only a checksum can see."""
    content = bytearray(file.read_bytes())
    places = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    if places:
        content[draw.choice(places)] = ord(draw.choice("0123456789"))
    file.write_bytes(content)


def _delete(file, draw):
    file.unlink()


def _to_folder(file, draw):
    file.unlink()
    file.mkdir()


def _to_pipe(file, draw):
    file.unlink()
    os.mkfifo(file)


def _to_link(file, draw):
    file.unlink()
    file.symlink_to(draw.choice(["/dev/zero", "nowhere", file.name]))


_KINDS = {
    "flipped": _flip,
    "cut": _cut,
    "replaced": _replace,
    "digit": _digit,
    "json": lambda file, draw: file.write_bytes(draw.choice(_JSON)),
    "deleted": _delete,
    "folder": _to_folder,
    "pipe": _to_pipe,
    "link": _to_link,
}


class Asked:
    """A sound run, and what a copy of it is asked for.

    Args:
        path: Where the run goes; made here.
    """

    def __init__(self, path):
        from mart_tf import data
        from mart_tf.runs import checkpoints
        from mart_tf.runs import config as run_config
        from mart_tf.runs import run
        from mart_tf.runs import workdir

        self.answers = collections.Counter()
        self._config = run_config.Config(workdir=str(path), **SETTINGS)
        self._config = self._config.resolved()
        config = self._config
        dataset = data.load(
            config.dataset, validation_images=config.validation_images
        )
        self._model = run.compiled_model(
            config, dataset, None, STEPS, "float32"
        )
        workdir.write(
            config, run.facts_of(config, dataset, self._model, "float32")
        )
        saved = checkpoints.Checkpoints(path, self._model, STEPS)
        self._weights = {}
        for epoch in range(1, EPOCHS + 1):
            self._draw(epoch)
            saved.rows.append({"epoch": str(epoch), "loss": "1"})
            saved.save(epoch, 0.5 if epoch == 2 else 0.25)
            self._weights[epoch, 0] = self._state()
        self._draw(EPOCHS + 1)
        saved.take_metrics()
        saved.save_within(EPOCHS * STEPS + POSITION)
        self._weights[EPOCHS, POSITION] = self._state()

    def faults(self, path):
        """What is wrong with what a damaged copy gives, in sentences."""
        for ask in (self._resumes, self._evaluates, self._shows):
            try:
                with _limited(_SECONDS):
                    yield from ask(path)
            except (ValueError, OSError) as error:
                self.answers[f"{ask.__name__[1:]}: refused"] += 1
                if not str(error) or "\n" in str(error).strip():
                    yield f"{ask.__name__}: no sentence: {error!r}"
            # What else comes is what a user would see as a traceback.
            except BaseException as error:
                yield f"{ask.__name__}: {error!r}"[:300]

    def _resumes(self, path):
        from mart_tf.runs import checkpoints
        from mart_tf.runs import workdir

        config = dataclasses.replace(self._config, workdir=str(path))
        if workdir.prepare(config) is None:
            yield "another run would have begun over it"
        self._draw(99)
        saved = checkpoints.Checkpoints(path, self._model, STEPS)
        epoch, position, warnings = saved.restore()
        self.answers[f"resumes: epoch {epoch}, step {position}"] += 1
        yield from self._judge((epoch, position), warnings, self._state())
        if len(saved.rows) != epoch:
            yield f"{len(saved.rows)} rows of {epoch} epochs"

    def _evaluates(self, path):
        from mart_tf.runs import workdir

        for kind, newest in [("best_raw", 2), ("last_raw", EPOCHS)]:
            network, epoch, warnings = workdir.load_classifier(path, kind)
            self.answers[f"evaluates: {kind} of epoch {epoch}"] += 1
            if epoch != newest and not warnings:
                yield f"{kind} is silently of epoch {epoch}"
            expected = self._weights.get((epoch, 0))
            if expected is None or not _equal(
                network.get_weights(), expected[: len(network.weights)]
            ):
                yield f"{kind} has weights that are not those of epoch {epoch}"

    def _shows(self, path):
        from mart_tf.runs import status

        shown = status.lines(path)
        self.answers["shows: status"] += 1
        for name, text in shown:
            if "\n" in name + text:
                yield "a status of several lines"

    def _judge(self, place, warnings, state):
        if place != (EPOCHS, POSITION) and not warnings:
            yield f"silently goes on from {place}"
        expected = self._weights.get(place)
        if place == (0, 0):
            yield "begins anew"
        elif expected is None or not _equal(state, expected):
            yield f"weights that are not those of {place}"

    def _variables(self):
        model = self._model
        return [
            *model.classifier.weights,
            *model.averages.weights,
            *model.optimizer.variables[2:],
        ]

    def _draw(self, seed):
        generator = np.random.default_rng(seed)
        for variable in self._variables():
            variable.assign(generator.random(variable.shape))

    def _state(self):
        return [np.array(variable.numpy()) for variable in self._variables()]


def _equal(one, other):
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


class _limited:
    """Ends what hangs: a TimeoutError after so many seconds."""

    def __init__(self, seconds):
        self._seconds = seconds

    def __enter__(self):
        def end(number, frame):
            raise RuntimeError(f"hangs for {self._seconds} s")

        signal.signal(signal.SIGALRM, end)
        signal.alarm(self._seconds)

    def __exit__(self, *_):
        signal.alarm(0)


if __name__ == "__main__":
    flags.mark_flag_as_required("root")
    app.run(main)
