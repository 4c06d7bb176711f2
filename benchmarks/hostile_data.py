"""Generated files that hurt, opened by the thousand: what becomes of them.

    python benchmarks/hostile_data.py --examples=20000

Kinds of files and ways of damage are those of tests/hostile_files.py, in equal
parts. A row for each kind: how many loaded, how many ended in one sentence, and
the longest that one took. A file that ends otherwise is printed with its
traceback.
"""

import collections
import pathlib
import resource
import sys
import tempfile
import time
import traceback

from absl import app
from absl import flags
import hypothesis

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

import hostile_files

_EXAMPLES = flags.DEFINE_integer(
    "examples", 20_000, "Files in all.", lower_bound=len(hostile_files.FORMS)
)


def main(argv):
    del argv
    each = -(-_EXAMPLES.value // len(hostile_files.FORMS))
    began, failed = time.monotonic(), 0
    # TensorFlow and what else is imported on first use, then what files take.
    for form in hostile_files.FORMS:
        _try(form, 20)
    before = _peak()
    print(
        f"{'kind':10} {'files':>6} {'loaded':>7} {'refused':>8} {'longest':>8}"
    )
    for form in hostile_files.FORMS:
        endings, longest, faults = _try(form, each)
        failed += faults
        print(
            f"{form:10} {endings.total():6} {endings['loaded']:7} "
            f"{endings['refused']:8} {longest:6.2f} s"
        )
    print(
        f"{failed} ended otherwise; {time.monotonic() - began:.0f} s in all; "
        f"peak memory {(_peak() - before) / 2**20:.2f} GiB above that of the "
        f"first files, {before / 2**20:.2f} GiB"
    )
    sys.exit(failed > 0)


def _try(form, count):
    """How many ended how, the longest time, and the number of failures."""
    endings, times = collections.Counter(), [0.0]
    seen = []

    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(hostile_files.FORMS[form][0])
    def attempt(content):
        seen[:] = [content]
        ending, _, seconds = hostile_files.attempt(form, content, folder)
        endings[ending] += 1
        times.append(seconds)

    with tempfile.TemporaryDirectory() as folder:
        try:
            attempt()
        except Exception:
            # Whatever no user should see.
            traceback.print_exc()
            print(f"{form}: {seen[0][:400]!r}")
            return endings, max(times), 1
    return endings, max(times), 0


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    app.run(main)
