"""Flag sets that nobody should give: one sentence or a correct run?

    python benchmarks/hostile_flags.py --root=/tmp/hostile

Generates flag sets for the four programs, see `hostile.py`. First in this
process up to where TensorFlow would be imported, then in processes of their
own, whose other flags make them short. Looked at are what is said (one sentence
of ours), the time, the greatest memory, and what was written. What is done is
kept in the root: a call that was stopped goes on. Ends with status 1 if one
fails.
"""

import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from absl import flags
import hostile
import hypothesis

_CHUNK = 250
_LONGEST_SECONDS = 2.0
# Flags that make a call of a program short, if it runs.
_SHORT = {
    "train": (
        "--workdir=new",
        "--epochs=1",
        "--steps_per_epoch=2",
        "--attack_steps=2",
        "--batch_size=16",
        "--validation_images=32",
        "--schedule=constant",
        "--defense=natural",
    ),
    "evaluate": ("--max_examples=20", "--attacks=fgsm"),
    "export": ("--attack_examples=0",),
    "label": ("--pool=npz:pool.npz", "--output=made.npz"),
}
# More steps than these are no hang, but take long.
_SHORT_STEPS = 100
_LIMIT_SECONDS = 300
_MORE_MEMORY = 2**30


def _in_process(program, number):
    """One chunk of flag sets; returns how many were refused, by sentence."""
    refused = []

    @hypothesis.seed(number)
    @hostile.settings(_CHUNK)
    @hypothesis.given(hostile.flag_sets(program))
    def examples(arguments):
        started = time.process_time()
        refused.append(hostile.told(program, arguments) != "")
        # Not the wall's: others may be busy.
        assert time.process_time() - started < _LONGEST_SECONDS, arguments

    with tempfile.TemporaryDirectory() as folder, hostile.standing_in(folder):
        examples()
    assert "tensorflow" not in sys.modules
    return {"examples": len(refused), "refused": sum(refused)}


def _drawn(program, count):
    """Flag sets for processes of their own, short where they run.

    Three in four are refused before TensorFlow is imported; they come first.
    """
    taken, refused = {}, {}

    @hypothesis.seed(1)
    @hypothesis.settings(
        hostile.settings(20 * count), phases=[hypothesis.Phase.generate]
    )
    @hypothesis.given(hostile.flag_sets(program, most=2))
    def examples(more):
        arguments = [*_SHORT[program], *more]
        # What no command line can hold.
        text = "".join(arguments)
        if "\0" not in text and len(text) < 2**16 and _is_short(arguments):
            said = hostile.told(program, arguments)
            (refused if said else taken)[tuple(more)] = arguments

    with tempfile.TemporaryDirectory() as folder, hostile.standing_in(folder):
        examples()
    draw = random.Random(1)
    return [
        arguments
        for some, share in ((refused, count - count // 4), (taken, count // 4))
        for arguments in draw.sample(list(some.values()), min(share, len(some)))
    ]


def _is_short(arguments):
    """Whether a call would end soon: no large number of steps in bounds."""
    for argument in arguments:
        for part in argument.replace("=", ":").replace("/", ":").split(":"):
            with contextlib.suppress(ValueError, OverflowError):
                if _SHORT_STEPS < float(part) <= 1_000_000:
                    return False
    return not any("autoattack" in a or a == "--attacks" for a in arguments)


def _as_process(program, arguments, folder):
    """Runs a program as a user does; what came of it, and its memory."""
    before = hostile.listed(folder)
    outside = {name: set(os.listdir(name)) for name in ("/", "/dev/shm")}
    started = time.time()
    with open(os.path.join(folder, "..", "said"), "w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", f"mart_tf.{program}", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "HOME": os.path.join(folder, "home")},
        )
        hung = []

        def stop(*_):
            hung.append(True)
            process.kill()

        signal.signal(signal.SIGALRM, stop)
        signal.alarm(_LIMIT_SECONDS)
        _, status, usage = os.wait4(process.pid, 0)
        signal.alarm(0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    return {
        "program": program,
        "arguments": [a[:200] for a in arguments],
        "status": process.returncode,
        "hung": bool(hung),
        "said": text[-3000:],
        "seconds": round(time.time() - started, 1),
        "memory": usage.ru_maxrss * 1024,
        "written": len(hostile.listed(folder) - before),
        "outside": [
            f"{name}/{entry}"
            for name, entries in outside.items()
            for entry in set(os.listdir(name)) - entries
            if name == "/"
        ],
    }


def _fault(run, peak):
    """What is wrong with what came of a process, or None."""
    if run["hung"]:
        return "hangs"
    if run["memory"] > peak + _MORE_MEMORY:
        return f"needs {run['memory'] / 2**30:.1f} GiB"
    if run["outside"]:
        return f"writes {run['outside']}"
    lines = [
        line
        for line in run["said"].strip().splitlines()
        if "Warning: " not in line
    ]
    if run["status"] == 0:
        return None
    if run["status"] != 1 or len(lines) != 1:
        return "says no sentence"
    if run["written"]:
        return "is refused, and has written"
    try:
        hostile.check_sentence(lines[0].partition(": ")[2])
    except AssertionError:
        return "says a sentence that is not ours"
    return None


def _processes(root, done, write, count):
    """Calls of each program, in copies of a place with a real run."""
    place = root / "place"
    if not place.exists():
        shutil.rmtree(root / "new_place", ignore_errors=True)
        hostile.make_place(root / "new_place")
        shutil.rmtree(root / "new_place/runs/first")
        arguments = [*_SHORT["train"][1:], "--workdir=runs/first"]
        run = _as_process("train", arguments, root / "new_place")
        assert run["status"] == 0, run
        os.rename(root / "new_place", place)
    calls = []
    for program in hostile.PROGRAMS:
        drawn = [list(_SHORT[program]), *_drawn(program, count // 4)]
        for number, arguments in enumerate(drawn):
            calls.append((number, program, arguments))
    for number, program, arguments in sorted(calls):
        key = f"process {program} {number}"
        if key in done:
            continue
        shutil.rmtree(root / "copy", ignore_errors=True)
        subprocess.run(["cp", "-a", place, root / "copy"], check=True)
        write(key, _as_process(program, arguments, root / "copy"))


def main():
    root, examples, processes = _arguments(sys.argv[1:])
    root.mkdir(parents=True, exist_ok=True)
    record = root / "done.jsonl"
    done = {}
    if record.exists():
        for line in record.read_text().splitlines():
            entry = json.loads(line)
            done[entry["key"]] = entry

    def write(key, ended):
        done[key] = {"key": key, **ended}
        with record.open("a") as file:
            file.write(json.dumps(done[key]) + "\n")

    before = _ram()
    for number in range(-(-examples // (_CHUNK * len(hostile.PROGRAMS)))):
        for program in hostile.PROGRAMS:
            key = f"in process {program} {number}"
            if key not in done:
                write(key, _in_process(program, number))
    grown = _ram() - before
    if processes:
        _processes(root, done, write, processes)
    sys.exit(_summary(done, grown))


def _arguments(arguments):
    values = flags.FlagValues()
    root = flags.DEFINE_string(
        "root", "/tmp/hostile", "Where it works.", flag_values=values
    )
    examples = flags.DEFINE_integer(
        "examples", 20_000, "Flag sets in this process.", flag_values=values
    )
    processes = flags.DEFINE_integer(
        "processes", 300, "And in processes.", flag_values=values
    )
    values(["hostile_flags", *arguments])
    return pathlib.Path(root.value), examples.value, processes.value


def _ram():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _summary(done, grown):
    chunks = [e for key, e in done.items() if key.startswith("in process")]
    tried = sum(chunk["examples"] for chunk in chunks)
    refused = sum(chunk["refused"] for chunk in chunks)
    print(f"In process: {tried} flag sets, {refused} refused in a sentence.")
    print(f"The process grew by {grown / 2**20:.0f} MiB.")
    faults = 0
    for program in hostile.PROGRAMS:
        entries = [
            entry
            for key, entry in done.items()
            if key.startswith(f"process {program} ")
        ]
        if not entries:
            continue
        peak = done[f"process {program} 0"]["memory"]
        for entry in entries:
            fault = _fault(entry, peak)
            if fault:
                faults += 1
                print(f"{program} {entry['arguments']} {fault}:")
                print(f"  {entry['said'][-300:]}")
        ran = sum(entry["status"] == 0 for entry in entries)
        print(
            f"{program}: {len(entries)} processes, {ran} ran, "
            f"{len(entries) - ran} did not; normal peak "
            f"{peak / 2**30:.2f} GiB, greatest "
            f"{max(e['memory'] for e in entries) / 2**30:.2f} GiB; longest "
            f"{max(e['seconds'] for e in entries):.0f} s."
        )
    print(f"{faults} faults.")
    return 1 if faults else 0


if __name__ == "__main__":
    main()
