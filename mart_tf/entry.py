"""Where the installed programs begin.

Their modules take some tenths of a second to import, in which Python would
answer Ctrl-C with a traceback.
"""

import importlib
import os
import signal

# What each is for, in the order in which they are used.
PROGRAMS = {
    "train": "trains a classifier against adversarial examples",
    "evaluate": "attacks it, and reports how robust it is",
    "export": "writes it as a SavedModel for TF Serving, and proves it",
    "label": "labels images, or picks training examples, by it",
}


def train():
    """`mart-train`."""
    _run("train")


def evaluate():
    """`mart-evaluate`."""
    _run("evaluate")


def export():
    """`mart-export`."""
    _run("export")


def label():
    """`mart-label`."""
    _run("label")


def _run(name):
    def leave(number, frame):
        os.write(
            2,
            f"mart-{name}: stopped by Ctrl-C. Nothing was written.\n".encode(),
        )
        os._exit(128 + number)

    # Not where it is ignored, by a background job.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, leave)
    module = importlib.import_module(f"mart_tf.{name}")
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    module.main()
