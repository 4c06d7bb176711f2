"""The MART step beside PyTorch's, in alternating rounds.

    pip install -e .[benchmarks]
    python benchmarks/versus_pytorch.py
    python benchmarks/versus_pytorch.py --torch_python=OTHER/bin/python

Images a second of the compiled step here (`train_step.py`) and in PyTorch
(`torch_step.py`): its best, channels last, in bfloat16 by autocast, with and
without torch.compile; and as the authors released theirs, channels first, in
float32. A process each, all started before the first round and measuring one
after the other; medians, and the medians of the ratios within a round.
"""

import pathlib
import statistics
import subprocess
import sys

from absl import app
from absl import flags

_NETWORKS = flags.DEFINE_list(
    "networks", ["small_cnn", "resnet18"], "small_cnn, resnet18."
)
_PRECISIONS = flags.DEFINE_list(
    "precisions", ["float32", "bfloat16"], "float32, bfloat16."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Alternating rounds.")
_SECONDS = flags.DEFINE_float("seconds", 5, "Least length of a measurement.")
_COMPILE = flags.DEFINE_bool(
    "compile", True, "Whether torch.compile is tried; it needs a C++ compiler."
)
_TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "The Python that has PyTorch."
)

_OURS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
_FOLDER = pathlib.Path(__file__).resolve().parent


class Side:
    """A process that measures when it is asked."""

    def __init__(self, python, script, *arguments):
        self._process = subprocess.Popen(
            [
                python,
                str(_FOLDER / script),
                "--serve",
                f"--batch_size={_BATCH_SIZE.value}",
                f"--seconds={_SECONDS.value}",
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer("ready")

    def rate(self):
        """Images a second, measured now."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer("rate"))

    def end(self):
        """Lets the process end."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self, word):
        for line in self._process.stdout:
            if line.startswith(word):
                return line.removeprefix(word)
        sys.exit(f"{' '.join(self._process.args)}: ended.")


def main(_):
    """Prints a table for each network and precision."""
    for network in _NETWORKS.value:
        for precision in _PRECISIONS.value:
            _compare(network, precision)


def _compare(network, precision):
    sides = {
        "ours": Side(
            sys.executable,
            "train_step.py",
            f"--networks={network}",
            f"--precisions={_OURS[precision]}",
        )
    }
    form = [f"--network={network}", f"--precision={precision}"]
    forms = {"PyTorch": ["--nocompile"]}
    if _COMPILE.value:
        forms["PyTorch, compiled"] = ["--compile"]
    if precision == "float32":
        forms["PyTorch, as released"] = ["--nocompile", "--nochannels_last"]
    for name, more in forms.items():
        sides[name] = Side(_TORCH_PYTHON.value, "torch_step.py", *form, *more)
    found = {name: [] for name in sides}
    for _ in range(_ROUNDS.value):
        for name, side in sides.items():
            found[name].append(side.rate())
    for side in sides.values():
        side.end()
    print(f"\n{network}, {precision}, batches of {_BATCH_SIZE.value}")
    for name, rates in found.items():
        ratio = statistics.median(
            ours / other
            for ours, other in zip(found["ours"], rates, strict=True)
        )
        print(
            f"{name:22} {statistics.median(rates):8.1f} images/s, "
            f"ours is {ratio:.2f} times as fast"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    app.run(main)
