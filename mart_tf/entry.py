"""Where the installed programs begin.

Their modules take some tenths of a second to import, in which Python would
answer Ctrl-C with a traceback.
"""

import importlib
import os
import signal


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
        os.write(2, f"mart-{name}: stopped by Ctrl-C.\n".encode())
        os._exit(128 + number)

    # Not where it is ignored, by a background job.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, leave)
    module = importlib.import_module(f"mart_tf.{name}")
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    module.main()
