"""Two workers beside one, a core each; and training on paper.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --sums
    python benchmarks/scaling.py --profiler
    python benchmarks/scaling.py --table

Without flags: images a second of `mart-train` on the small CNN (MART, MNIST's
shape, random pixels) by one worker that has a core to itself, and by two that
have one each, share every batch (`--strategy=multi_worker`) and speak over
the loopback interface; alternating rounds, medians, and the ratio within a
round, which should be at least 1.8. Epochs after the first count: in it the
step is traced. Needs two idle cores, and Linux.

`--sums` holds what a step sums over the workers against the graph that two of
them trace, `--profiler` FLOP against TensorFlow's profiler, `--table` writes
the tables of docs/scaling.md anew.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
from absl import logging
import numpy as np

from mart_tf.runs import events

_TABLE = flags.DEFINE_bool("table", False, "Writes docs/scaling.md's tables.")
_PROFILER = flags.DEFINE_bool("profiler", False, "FLOP, counted from outside.")
_SUMS = flags.DEFINE_bool("sums", False, "What two workers' graphs sum.")
_NETWORK = flags.DEFINE_string("network", "small_cnn", "What is trained.")
_WORKER_DEFENSE = flags.DEFINE_string("defense", "mart", "How.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Of all workers.")
_STEPS = flags.DEFINE_integer("steps", 20, "Of an epoch.")
_EPOCHS = flags.DEFINE_integer("epochs", 3, "The first does not count.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Alternating rounds.")
_LIMIT = flags.DEFINE_float("limit", 900, "Seconds that a run may take.")

LEAST = 1.8
_SHAPE = (28, 28, 1)


def main(_):
    """Does what was asked for."""
    if _TABLE.value:
        write_tables()
    elif _PROFILER.value:
        compare_with_profiler()
    elif _SUMS.value:
        compare_sums()
    else:
        measure()


def write_tables():
    """Puts the tables into docs/scaling.md."""
    import pages
    import tables

    # Not that flags are parsed again.
    logging.set_verbosity(logging.ERROR)
    text = tables.PAGE.read_text(encoding="utf-8")
    text = pages.filled(text, tables.blocks(), tables.PAGE)
    tables.PAGE.write_text(text, encoding="utf-8")


def compare_with_profiler():
    """Prints FLOP of an image in the step of each defense, ours and theirs."""
    import costs
    import profiled

    print(
        f"{'network':10} {'defense':9} {'paper, MFLOP':>12} {'profiler':>9} "
        f"{'mended':>8} {'all ops':>8}   (FLOP beside those on paper)"
    )
    for network, shape in [("digits_cnn", (8, 8, 1)), ("small_cnn", _SHAPE)]:
        found = costs.network(network, shape)
        for defense in ("natural", "standard", "trades", "dynamic", "mart"):
            passes = costs.passes(defense, 10)
            paper = costs.training_flops(found, passes)
            seen = profiled.training_step(network, shape, defense, 10)
            shares = [f"{value / paper - 1:+8.2%}" for value in seen]
            print(
                f"{network:10} {defense:9} {paper / 1e6:12.1f} "
                f"{shares[0]:>9} {shares[1]} {shares[2]}",
                flush=True,
            )


def compare_sums():
    """Prints what the step of two workers sums, on paper and in their graph."""
    import costs

    print(f"{'network':10} {'defense':8} {'':6} {'bytes':>10} {'sums':>5}")
    for network, defense in [
        ("small_cnn", "mart"),
        ("cnn4", "mart"),
        ("cnn4", "natural"),
        ("cnn4", "mma"),
    ]:
        remembered = 1_000 if defense == "mma" else 0
        paper = costs.reduced(
            costs.network(network, _SHAPE),
            costs.passes(defense, 2),
            remembered,
        )
        script = pathlib.Path(__file__).with_name("sums.py")
        command = [sys.executable, str(script), network, defense]
        said = run_workers(command, 2, _LIMIT.value)[0]
        for what, (size, sums) in [
            ("paper", paper),
            ("graph", json.loads(said.splitlines()[-1])),
        ]:
            print(f"{network:10} {defense:8} {what:6} {size:10,} {sums:5}")


def measure():
    """Prints images a second of one worker and of two, and the ratio."""
    rates, ratios = {1: [], 2: []}, []
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder, "random.npz")
        write_images(data, _STEPS.value * _BATCH_SIZE.value)
        for number in range(1, _ROUNDS.value + 1):
            for workers, found in rates.items():
                workdir = pathlib.Path(folder, f"run{workers}")
                run_workers(
                    train_command(data, workdir, workers), workers, _LIMIT.value
                )
                found.append(images_per_second(events.read(workdir)))
                shutil.rmtree(workdir)
            ratios.append(rates[2][-1] / rates[1][-1])
            print(
                f"round {number}: one worker {rates[1][-1]:.1f} images/s, two "
                f"{rates[2][-1]:.1f}, ratio {ratios[-1]:.2f}",
                flush=True,
            )
    one, two = (statistics.median(found) for found in rates.values())
    ratio = statistics.median(ratios)
    print(
        f"medians: one worker {one:.1f} images/s, two {two:.1f}, ratio "
        f"{ratio:.2f}, {'at least' if ratio >= LEAST else 'below'} {LEAST}"
    )


def write_images(path, count):
    """Random images of MNIST's shape, as `--dataset=npz:PATH` reads them."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *_SHAPE), np.uint8)
    labels = np.arange(count) % 10
    few = slice(0, 20)
    np.savez(
        path,
        x_train=images,
        y_train=labels,
        x_test=images[few],
        y_test=labels[few],
    )


def train_command(data, workdir, workers):
    """The command of each worker: all have the same."""
    strategy = "single" if workers == 1 else "multi_worker"
    return [
        sys.executable,
        "-m",
        "mart_tf.train",
        f"--strategy={strategy}",
        f"--workdir={workdir}",
        f"--dataset=npz:{data}",
        f"--model={_NETWORK.value}",
        f"--defense={_WORKER_DEFENSE.value}",
        f"--batch_size={_BATCH_SIZE.value}",
        f"--epochs={_EPOCHS.value}",
        f"--steps_per_epoch={_STEPS.value}",
        "--validation_images=0",
        "--epsilon=0.3",
        "--precision=float32",
    ]


def run_workers(command, workers, limit):
    """Runs a command as so many processes of a core each, to their end.

    Each of several finds in TF_CONFIG where all of them listen, and which of
    them it is.

    Args:
        command: The same for all.
        workers: How many; there must be as many cores.
        limit: Seconds that they may take.

    Returns:
        What each wrote to its standard output.

    Raises:
        SystemExit: If there are too few cores, or one fails or is not done
            in time; the others are ended.
    """
    cores = sorted(os.sched_getaffinity(0))[:workers]
    if len(cores) < workers:
        sys.exit(f"{workers} workers need as many cores; here is {len(cores)}.")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    with contextlib.ExitStack() as stack:
        started, outputs = [], []
        for index, core in enumerate(cores):
            environment = dict(os.environ)
            # Not this process's own place in some cluster.
            environment.pop("TF_CONFIG", None)
            if workers > 1:
                task = {"type": "worker", "index": index}
                environment["TF_CONFIG"] = json.dumps(
                    {"cluster": {"worker": addresses}, "task": task}
                )
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *command],
                env=environment,
                stdout=output,
                stderr=errors,
            )
            stack.callback(_end, process)
            started.append(process)
            outputs.append((output, errors))
        _wait(started, time.monotonic() + limit)
        codes = [process.poll() for process in started]
        said = [tuple(map(_text, pair)) for pair in outputs]
    name = " ".join(command)
    for index, code in enumerate(codes):
        if code:
            told = "".join(said[index])[-3000:]
            sys.exit(f"Worker {index} of {name} failed:\n{told}")
    if None in codes:
        sys.exit(f"{name} was not done in {limit:g} s.")
    return [output for output, _ in said]


def _end(process):
    process.kill()
    process.wait()


def _wait(processes, end):
    """Until all are done, one has failed, or the time is over."""
    while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes):
            return
        time.sleep(0.1)


def _text(file):
    file.seek(0)
    return file.read()


def free_ports(count):
    """Ports of the loopback interface that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def images_per_second(found):
    """Training speed after the first epoch, the saves among it.

    Args:
        found: The events of a run that was not continued, see
            `mart_tf.runs.events`.
    """
    start = next(event for event in found if event["event"] == "start")
    ends = [event for event in found if event["event"] == "epoch"]
    first, last = ends[0], ends[-1]
    seconds = (last["time"] - first["time"]).total_seconds()
    return (last["done"] - first["done"]) * start["batch_size"] / seconds


if __name__ == "__main__":
    app.run(main)
