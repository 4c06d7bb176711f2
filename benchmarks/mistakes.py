"""Small mistakes made in the code one at a time: does a test notice each?

    python benchmarks/mistakes.py
    python benchmarks/mistakes.py --only=seeds
    python benchmarks/mistakes.py --only=seeds:restarts --processes=2
    python benchmarks/mistakes.py --results=/tmp/mistakes.jsonl

The mistakes lie in `benchmarks/mistakes/AREA.toml`. The files that git tracks
are copied, as they are now, into a temporary folder; there each mistake is
made, the tests that should notice it are run, and the file is put back. The
tests run once without a mistake too: those that fail anyway notice nothing.
Ends with status 1 if a mistake passed unnoticed, or could not be tried.
"""

from concurrent import futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

from absl import app
from absl import flags

_ONLY = flags.DEFINE_list(
    "only",
    None,
    "Which mistakes: names of areas, words that occur in what they say, or "
    "both as AREA:WORDS; default: all.",
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 1, "How many tests run side by side.", lower_bound=1
)
_RESULTS = flags.DEFINE_string(
    "results",
    None,
    "A file that keeps what was found, so that a run that was stopped goes "
    "on. What was found with other sources or tests does not count.",
)

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_FOLDER = pathlib.Path(__file__).resolve().parent / "mistakes"
# Of the slowest tests ten times over: a mistake may make a loop endless.
_SECONDS = 1800
_NOTICED = "noticed"
# What pytest exits with when a test has failed, and when none has.
_FAILED, _PASSED = 1, 0


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One mistake: in `file`, `after` stands where `before` belongs."""

    area: str
    what: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    @property
    def key(self):
        """What tells it from others, and from what it was before."""
        return _digest(repr(dataclasses.astuple(self)).encode())


def main(argv):
    if argv[1:]:
        raise app.UsageError(f"Not understood: {' '.join(argv[1:])}.")
    mistakes = [m for m in read(_FOLDER) if _wanted(m, _ONLY.value)]
    if not mistakes:
        sys.exit(f"No mistake in {_FOLDER} is called {_ONLY.value}.")
    names = tracked(_ROOT)
    judged = Judged(_RESULTS.value, names)
    unnoticed = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        copies = Copies(folder, names, _PROCESSES.value)
        threads = futures.ThreadPoolExecutor(_PROCESSES.value)
        # Who stops it waits for the tests that run, not for all.
        stack.callback(threads.shutdown, cancel_futures=True)
        as_they_are, done = {}, []
        for mistake in mistakes:
            # In this order: what waits for another was begun after it.
            tests = mistake.tests
            if judged.get(mistake.key) is None and tests not in as_they_are:
                as_they_are[tests] = threads.submit(
                    _as_they_are, copies, judged, tests
                )
            done.append(
                threads.submit(_judged, copies, judged, as_they_are, mistake)
            )
        for mistake, future in zip(mistakes, done, strict=True):
            said, seconds = future.result()
            if said != _NOTICED:
                unnoticed.append(mistake)
            print(
                f"{said:11} {seconds:6.1f} s  {mistake.area}: {mistake.what}",
                flush=True,
            )
    print(f"{len(mistakes) - len(unnoticed)} of {len(mistakes)} noticed.")
    return bool(unnoticed)


def read(folder):
    """The mistakes of the TOML files of a folder."""
    return [
        Mistake(area=path.stem, **entry | {"tests": tuple(entry["tests"])})
        for path in sorted(pathlib.Path(folder).glob("*.toml"))
        for entry in tomllib.loads(path.read_text("utf-8"))["mistake"]
    ]


def tracked(root):
    """The files that git tracks below a root and that are there."""
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        sys.exit(f"{root} is no checkout of git: {listed.stderr.strip()}")
    names = listed.stdout.split("\0")
    return [name for name in names if name and (root / name).is_file()]


class Copies:
    """Copies of the checkout, one for each test that runs at a time."""

    def __init__(self, folder, names, count):
        self._free = queue.SimpleQueue()
        folder = pathlib.Path(folder)
        # Tests look for data beside the checkout.
        data = _ROOT.parent / "shared"
        if data.exists():
            (folder / data.name).symlink_to(data)
        for number in range(count):
            copy = folder / f"checkout{number}"
            for name in names:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(_ROOT / name, copy / name)
            self._free.put(copy)

    def run(self, tests, mistake=None):
        """pytest's exit status and the seconds it took.

        Args:
            tests: What pytest is to run.
            mistake: A `Mistake` made meanwhile, or None.
        """
        copy = self._free.get()
        try:
            with _made(copy, mistake):
                return _pytest(copy, tests)
        finally:
            self._free.put(copy)


@contextlib.contextmanager
def _made(copy, mistake):
    if mistake is None:
        yield
        return
    path = copy / mistake.file
    text = path.read_text("utf-8")
    if text.count(mistake.before) != 1:
        sys.exit(
            f"{mistake.area}: {mistake.what}: its `before` occurs "
            f"{text.count(mistake.before)} times in {mistake.file}; expected "
            "once."
        )
    path.write_text(text.replace(mistake.before, mistake.after), "utf-8")
    try:
        yield
    finally:
        path.write_text(text, "utf-8")


def _pytest(copy, tests):
    command = [sys.executable, "-m", "pytest", "-x", "-q"]
    command += ["-p", "no:cacheprovider", *tests]
    # Bytecode goes by seconds and sizes: a mistake may change neither.
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=copy,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # What a test has started ends with it.
        start_new_session=True,
    )
    try:
        status = process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        status = _FAILED
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return status, time.monotonic() - started


class Judged:
    """What earlier runs found with the same sources and tests."""

    def __init__(self, path, names):
        self._path = None if path is None else pathlib.Path(path)
        self._tree = _digest(
            b"".join(
                f"{name} {_digest((_ROOT / name).read_bytes())}\n".encode()
                for name in names
                if name.startswith(("mart_tf/", "tests/"))
            )
        )
        self._kept = {}
        if self._path is not None and self._path.exists():
            for line in self._path.read_text("utf-8").splitlines():
                entry = json.loads(line)
                if entry["tree"] == self._tree:
                    self._kept[entry["key"]] = entry["value"]

    def get(self, key):
        return self._kept.get(key)

    def keep(self, key, value):
        self._kept[key] = value
        if self._path is not None:
            entry = {"tree": self._tree, "key": key, "value": value}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


def _as_they_are(copies, judged, tests):
    """Whether tests pass without a mistake."""
    key = _digest(repr(tests).encode())
    if judged.get(key) is None:
        status, _ = copies.run(tests)
        if status != _PASSED:
            return False
        judged.keep(key, True)
    return True


def _judged(copies, judged, as_they_are, mistake):
    """What came of a mistake, in words, and the seconds of its tests."""
    if judged.get(mistake.key) is None:
        if not as_they_are[mistake.tests].result():
            return "TESTS FAIL", 0.0
        status, seconds = copies.run(mistake.tests, mistake)
        said = {_PASSED: "NOT NOTICED", _FAILED: _NOTICED}
        # Code that cannot be imported, say, is noticed by anything.
        judged.keep(mistake.key, [said.get(status, "NO TEST RAN"), seconds])
    return judged.get(mistake.key)


def _wanted(mistake, only):
    """Whether a mistake is among those that are asked for."""
    for asked in only or [""]:
        area, colon, words = asked.rpartition(":")
        if colon:
            if area == mistake.area and words in mistake.what:
                return True
        elif asked == mistake.area or asked in mistake.what:
            return True
    return False


def _digest(content):
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    app.run(main)
