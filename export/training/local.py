"""Processes on this machine that train one run together, to try it out.

    python export/training/local.py 2 --workdir=runs/two --epochs=3

The first argument is how many, the others are those of mart-train. Each
process gets the TF_CONFIG that Kubeflow or Vertex AI would give it, and its
lines are shown with its number before them. Ctrl-C and SIGTERM reach all. The
exit status is 0 if that of each is, else the first other one.

Several GPUs of one machine need no processes: mart-train takes them all.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

_GREATEST = 64


def main(arguments):
    """Runs the processes to their end; the exit status."""
    count, flags = _arguments(arguments)
    hosts = _addresses(count)
    processes = []

    def forward(number, frame):
        for process in processes:
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": hosts}, "task": task}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "mart_tf.train", *flags],
                env=os.environ | {"TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # A terminal's Ctrl-C would reach them twice.
                start_new_session=True,
            )
        )
    readers = [
        threading.Thread(target=_show, args=(index, process.stdout))
        for index, process in enumerate(processes)
    ]
    for reader in readers:
        reader.start()
    statuses = [process.wait() for process in processes]
    for reader in readers:
        reader.join()
    # One that a signal ended has a negative status.
    return next((128 - s if s < 0 else s for s in statuses if s), 0)


def _arguments(arguments):
    first = arguments[0] if arguments else ""
    if not first.isascii() or not first.isdigit() or int(first) < 2:
        sys.exit(
            f"local.py: how many processes is {first!r}; expected a number "
            "from 2 on, then the flags of mart-train."
        )
    if int(first) > _GREATEST:
        sys.exit(f"local.py: {first} processes are more than {_GREATEST}.")
    return int(first), ["--strategy=multi_worker", *arguments[1:]]


def _addresses(count):
    """As many free ports of this machine, as host:port."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return [f"127.0.0.1:{port}" for port in ports]


def _show(index, lines):
    for line in lines:
        print(f"[{index}] {line}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
