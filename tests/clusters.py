"""Processes that train one run together, forked as those of `programs` are."""

import contextlib
import json
import os
import socket

import programs


@contextlib.contextmanager
def begun(*flags, others=(), cwd=".", count=2):
    """Starts `mart-train` in several processes; yields them, the chief first.

    Args:
        flags: Flags of all.
        others: More flags of those that are not the chief.
        cwd: Where they run, and where modules of the test's own lie.
        count: How many.
    """
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        hosts = [f"127.0.0.1:{port.getsockname()[1]}" for port in ports]
    path = os.pathsep.join([str(programs.ROOT), os.path.abspath(cwd)])
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                programs.started(
                    "train",
                    *flags,
                    *(others if index else ()),
                    cwd=cwd,
                    starter=index,
                    PYTHONPATH=path,
                    TF_CONFIG=json.dumps(
                        {
                            "cluster": {"worker": hosts},
                            "task": {"type": "worker", "index": index},
                        }
                    ),
                )
            )
            for index in range(count)
        ]
