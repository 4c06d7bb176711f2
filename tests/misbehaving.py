"""Servers that misbehave, over real sockets.

`listening` runs a function on each connection of a TCP server, once the request
is there; the rest are such functions, and the frames of HTTP/2 that gRPC needs.
"""

import contextlib
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from unittest import mock

import numpy as np
import programs


def prediction(**changes):
    """What a model that mart-export wrote says of an image."""
    good = {
        "logits": [0.0, 2.0, 1.0],
        "probabilities": [0.1, 0.6, 0.3],
        "class_index": 1,
        "class_name": "one",
    }
    return {**good, **changes}


def answer(*predictions):
    """A JSON answer in REST's row format."""
    return json.dumps({"predictions": predictions}).encode()


def http(content=b"", status="200 OK", length=None, headers=()):
    """An HTTP answer; without a length where that is "none"."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length != "none":
        lines.append(f"Content-Length: {length or len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def says(content):
    """Sends some bytes, and waits for the client to go."""

    def say(connection):
        connection.sendall(content)
        _wait(connection)

    return say


def says_and_closes(content):
    """Sends some bytes."""
    return lambda connection: connection.sendall(content)


def repeats(start, block, pause=0.0):
    """Sends some bytes, and then a block again and again."""

    def repeat(connection):
        connection.sendall(start)
        while True:
            connection.sendall(block)
            if pause:
                time.sleep(pause)

    return repeat


def trickles(content, pause=0.1):
    """Sends a byte at a time: each read succeeds, the answer never ends."""

    def trickle(connection):
        for place in range(len(content)):
            connection.sendall(content[place : place + 1])
            time.sleep(pause)
        _wait(connection)

    return trickle


def resets(connection):
    """Ends the connection as a crash does."""
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def _wait(connection):
    while connection.recv(65536):
        pass


def reads_http(connection):
    """Reads a request of HTTP/1.1; False if the client has gone."""
    content = b""
    while b"\r\n\r\n" not in content:
        block = connection.recv(65536)
        if not block:
            return False
        content += block
    head, body = content.split(b"\r\n\r\n", 1)
    size = int(head.lower().split(b"content-length:")[1].split()[0])
    while len(body) < size:
        body += connection.recv(65536)
    return True


def reads_http2(connection):
    """Reads up to the headers of a gRPC call, which opens a stream."""
    connection.sendall(frame(4))
    content = b""
    place = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    while True:
        block = connection.recv(65536)
        if not block:
            return False
        content += block
        while place + 9 <= len(content):
            if content[place + 3] == 1:
                return True
            size = int.from_bytes(content[place : place + 3], "big")
            place += 9 + size


def reads_nothing(connection):
    """Takes the connection, and nothing from it."""
    return True


@contextlib.contextmanager
def listening(misbehave, reads=reads_http):
    """Serves connections until the block ends.

    Args:
        misbehave: What is done with each connection, after its request.
        reads: How its request is read.

    Yields:
        The address, "HOST:PORT".
    """
    opened = []

    def serve(connection):
        # The client that goes, and the end of the block.
        with contextlib.suppress(OSError), connection:
            if reads(connection):
                misbehave(connection)

    def accept(server):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                opened.append(connection)
                threading.Thread(
                    target=serve, args=(connection,), daemon=True
                ).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, args=(server,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def frame(kind, content=b"", flags=0, stream=0):
    """A frame of HTTP/2: 0 data, 1 headers, 4 settings."""
    length = struct.pack(">I", len(content))[1:]
    return length + struct.pack(">BBI", kind, flags, stream) + content


def http2(headers, content=b"", ends=True):
    """The frames of an answer to the first call of a connection."""
    # Each name is preceded by the mark of a field without an index.
    block = b"".join(
        b"\x00"
        + bytes([len(name)])
        + name.encode()
        + bytes([len(value)])
        + value.encode()
        for name, value in headers.items()
    )
    flags = 4 | (ends and not content)
    frames = frame(1, block, flags, 1)
    if content:
        frames += frame(0, content, int(ends), 1)
    return frames


# A process's peak counts that of the one it was forked from: here a small one.
_MEASURED = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], timeout=60).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak // 1024, file=sys.stderr)
sys.exit(status)
"""


def run(*command):
    """Runs a program of Python's in a process of its own.

    Returns:
        The finished process, and the most memory that it held, in MiB.
    """
    python = [sys.executable, "-S", "-c", _MEASURED, sys.executable]
    done = subprocess.run(
        [*python, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**programs.environment(), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    *lines, peak = done.stderr.splitlines()
    done.stderr = "\n".join(lines)
    return done, int(peak)


def call(module, *arguments):
    """Runs a client's program in this process, within 10 seconds.

    Returns:
        What it ends with, 0 or its sentence, and the lines that it printed.
    """
    program = module.__name__
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    started = time.monotonic()
    with (
        mock.patch.object(sys, "argv", [program, *map(str, arguments)]),
        contextlib.redirect_stdout(out),
    ):
        try:
            module.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
    assert time.monotonic() - started < 10
    out.seek(0)
    return status, out.read().splitlines()


def assert_sentence(sentence, part):
    """One sentence of a client's that holds a part, and no escape codes."""
    assert isinstance(sentence, str)
    lines = sentence.split("\n")
    assert all(len(line) <= 80 or " " not in line for line in lines), lines
    sentence = " ".join(lines)
    assert re.match(r"(rest|grpc)_client: ", sentence)
    assert part in sentence, sentence
    assert sentence.isprintable()
    assert len(sentence) < 1000


def write_images(folder):
    """A .npy file of two images."""
    path = folder / "images.npy"
    np.save(path, np.zeros((2, 4, 4, 1), np.float32))
    return path
