"""Training runs stopped at random moments: do they end as one that never was?

    python benchmarks/killed_runs.py --runs=200 --root=/tmp/killed

Trains small recipes once without a stop: MART, MMA, an average of the weights,
a pool, two logical CPUs (all on the embedded digits), and a TFDS set that is
streamed from its shards. Then runs of each in turn, each stopped one to three
times by SIGKILL, SIGTERM or Ctrl-C, at a moment drawn over the time that a
whole run takes, start and saves included, and started again until it ends.
Checkpoints come every few steps, so that many moments fall into one. Compared
are the tensors of the last and the best checkpoint and metrics.csv, bit for
bit; no more steps may be lost than lie between two checkpoints, none may take
longer than 300 seconds. Prints a line for each run, and ends with status 1 if
one differs, fails, or does not end. Started again, it goes on where it was
stopped.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

from absl import app
from absl import flags
import numpy as np
import programs
import run_states
import small_runs
import tiny_tfds

_RUNS = flags.DEFINE_integer("runs", 200, "How many runs are stopped.")
_FIRST = flags.DEFINE_integer("first", 0, "The number of the first of them.")
_ROOT = flags.DEFINE_string("root", None, "Where the workdirs go.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments and the signals.")

_COMMON = (
    "--model=small_network:build",
    "--attack_steps=2",
    "--batch_size=64",
    "--steps_per_epoch=8",
    "--epochs=3",
    "--precision=float32",
    "--checkpoint_every=3steps",
    "--augment=crop,flip",
)
_EVERY = 3
_DIGITS = "--dataset=digits"
_RECIPES = {
    "mart": (_DIGITS, "--schedule=piecewise:at=2"),
    "mma": (_DIGITS, "--defense=mma", "--schedule=piecewise:at=2"),
    "average": (
        _DIGITS,
        "--ema=0.9",
        "--ema_warmup_epochs=0.3",
        "--epsilon_warmup_epochs=1.5",
    ),
    "pool": (_DIGITS, "--pool=npz:pool.npz", "--schedule=constant"),
    "mirrored": (_DIGITS, "--strategy=mirrored", "--schedule=constant"),
    "streamed": (
        "--dataset=tiny:mode=streaming",
        "--data_dir=tfds",
        "--epsilon=8/255",
    ),
}
# A shell's background jobs ignore Ctrl-C and hand that on; and each step is
# written down.
_SETUP = """
import os
import signal
# Not the program's, that this takes time.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))
from mart_tf import entry
from mart_tf.runs import callbacks
callbacks._EVENT_SECONDS = 0.0
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def main(_):
    root = pathlib.Path(_ROOT.value).absolute()
    root.mkdir(parents=True, exist_ok=True)
    _write_inputs(root)
    file = root / "found.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {line["number"]: line for line in map(json.loads, lines)}
    whole, seconds = {}, {}
    for number in range(_FIRST.value, _FIRST.value + _RUNS.value):
        if number in done:
            continue
        recipe = list(_RECIPES)[number % len(_RECIPES)]
        if recipe not in whole:
            name = f"{recipe}-whole-{_FIRST.value}"
            shutil.rmtree(root / name, ignore_errors=True)
            begun = time.monotonic()
            if said := _finish(root, recipe, name):
                raise RuntimeError(said)
            seconds[recipe] = time.monotonic() - begun
            whole[recipe] = run_states.state(root / name)
        # Of the number alone, however often the script was stopped.
        draw = random.Random(f"{_SEED.value} {number}")
        line = _run(root, recipe, number, draw, seconds[recipe], whole[recipe])
        done[number] = line
        with file.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print(
            f"{number:4d} {recipe:9s} {', '.join(line['stops'])}: "
            f"{line['fault'] or 'equal'}",
            flush=True,
        )
    faults = sorted(number for number in done if done[number]["fault"])
    stops = [stop for line in done.values() for stop in line["stops"]]
    lost = [steps for line in done.values() for steps in line["lost"]]
    # Few runs may end before they are stopped.
    steps = np.asarray(lost or [0])
    print(
        f"{len(done)} runs, {len(stops)} stops; at most {steps.max()} steps "
        f"lost, {steps.mean():.2f} on average; "
        f"{len(faults)} ended otherwise: {faults}"
    )
    return bool(faults)


def _write_inputs(root):
    (root / "small_network.py").write_text(small_runs.NETWORK)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, [300, 8, 8, 1]).astype(np.uint8)
    labels = generator.integers(0, 10, 300)
    np.savez(root / "pool.npz", image=images, label=labels)
    if not (root / "tfds").exists():
        tiny_tfds.prepare(
            root / "tfds",
            shards=5,
            train=tiny_tfds.examples(600),
            test=tiny_tfds.examples(20),
        )


def _run(root, recipe, number, draw, seconds, whole):
    """One run, stopped and finished: what was done, and what went wrong."""
    name = f"{recipe}-{number}"
    shutil.rmtree(root / name, ignore_errors=True)
    stops, fault = [], None
    for _ in range(draw.randint(1, 3)):
        after, kind = draw.uniform(0.0, seconds), draw.choice(_SIGNALS)
        with _started(root, recipe, name) as process:
            time.sleep(after)
            # It may have ended; its number is nobody else's so soon.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, kind)
        status, said = process.finished().returncode, process.finished().stderr
        stops.append(f"{kind.name} at {after:.1f} s ({status})")
        if status not in (0, -kind, 128 + kind) or "Traceback" in said:
            fault = fault or f"{stops[-1]}: {said[-300:]}"
    fault = fault or _finish(root, recipe, name)
    fault = fault or run_states.different(whole, run_states.state(root / name))
    lost = _lost(root / name)
    if any(steps > _EVERY for steps in lost):
        fault = fault or f"{lost} steps were lost, and {_EVERY} at most may be"
    if not fault:
        shutil.rmtree(root / name)
    return {"number": number, "stops": stops, "lost": lost, "fault": fault}


def _started(root, recipe, name):
    return programs.started(
        "train",
        *_COMMON,
        *_RECIPES[recipe],
        f"--workdir={name}",
        cwd=root,
        setup=_SETUP + (programs.TWO_CPUS if recipe == "mirrored" else ""),
        PYTHONPATH=os.pathsep.join([str(programs.ROOT), str(root)]),
    )


def _finish(root, recipe, name):
    """Runs to the end; what went wrong, or None."""
    with _started(root, recipe, name) as process:
        done = process.finished()
    if done.returncode or "Traceback" in done.stderr:
        return f"status {done.returncode}: {done.stderr[-300:]}"
    return None


def _lost(path):
    """How many steps each start of a run took again."""
    lost, taken = [], None
    for event in run_states.events(path):
        if event["event"] == "start":
            if taken is not None:
                lost.append(taken - event["done"])
            taken = event["done"]
        taken = max(taken, event.get("done", 0))
    return lost


if __name__ == "__main__":
    flags.mark_flag_as_required("root")
    app.run(main)
