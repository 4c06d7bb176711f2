"""Requests run on the C++ runtime in a process without TensorFlow's Python.

`run` starts this file as a program there:

    python -m mart_tf.serving.runner FOLDER

FOLDER holds `request.json`: the `directory`, `signatures`, by name the other
arguments of `c_api.Session`, and `requests`, the name that each of the batches
`inputs_0.npz`, `inputs_1.npz`, ... goes to; the results are left beside them as
`outputs_0.npz`, `outputs_1.npz`, ... An error is one sentence on standard
output (standard error belongs to TensorFlow's log) and exit status 1.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from mart_tf.serving import c_api

# What the array of the lengths of strings is named, before theirs.
_LENGTHS = "lengths of "


def run(directory, signatures, asked):
    """Runs requests on the C++ runtime, in a process of its own.

    Args:
        directory: The version's directory.
        signatures: By name, the `inputs` and `outputs` of `c_api.Session`.
        asked: Pairs of a signature's name and its input, an array.

    Returns:
        A list with the outputs of each request: a dict of arrays.

    Raises:
        ValueError: If the version cannot be loaded or run there.
    """
    request = {
        "directory": str(directory),
        "signatures": signatures,
        "requests": [name for name, _ in asked],
    }
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "request.json").write_text(
            json.dumps(request), encoding="utf-8"
        )
        for index, (name, batch) in enumerate(asked):
            [key] = signatures[name]["inputs"]
            _save(f"{folder}/inputs_{index}.npz", {key: batch})
        _start(folder)
        return [
            _load(f"{folder}/outputs_{index}.npz")
            for index in range(len(asked))
        ]


def _start(folder):
    environment = os.environ | {
        # Found wherever this process found them, installed or not.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # A GPU is this process's, and rounds in another way.
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    process = subprocess.run(
        # -P: what lies in the working directory is no module of its own.
        [sys.executable, "-P", "-m", __name__, folder],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        # Its own sentence, or else the last line of a crash.
        said = process.stdout.split() or process.stderr.split("\n")[-2:]
        raise ValueError(
            "The SavedModel does not run on TensorFlow's C++ runtime: "
            f"{' '.join(said).strip()} (exit status {process.returncode})."
        )


def _save(path, arrays):
    """Writes arrays; strings, which numpy would pickle, end to end."""
    stored = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype == object:
            lengths = [len(text) for text in array.flat]
            stored[_LENGTHS + name] = np.reshape(lengths, array.shape)
            array = np.frombuffer(b"".join(array.flat), np.uint8)
        stored[name] = array
    np.savez(path, **stored)


def _load(path):
    with np.load(path, allow_pickle=False) as arrays:
        loaded = dict(arrays)
    for name in [name for name in loaded if name.startswith(_LENGTHS)]:
        lengths, content = loaded.pop(name), loaded[name.removeprefix(_LENGTHS)]
        stops = np.cumsum(lengths, dtype=np.int64)
        texts = np.empty(lengths.shape, object)
        texts.flat = [
            content[stop - length : stop].tobytes()
            for stop, length in zip(stops, lengths.flat, strict=True)
        ]
        loaded[name.removeprefix(_LENGTHS)] = texts
    return loaded


def main(folder):
    """Runs the requests in a folder, as the module's first lines say."""
    folder = pathlib.Path(folder)
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    with contextlib.ExitStack() as owned:
        sessions = {
            name: owned.enter_context(
                c_api.Session(request["directory"], **tensors)
            )
            for name, tensors in request["signatures"].items()
        }
        for index, name in enumerate(request["requests"]):
            arrays = _load(folder / f"inputs_{index}.npz")
            outputs = sessions[name].run(arrays)
            _save(folder / f"outputs_{index}.npz", outputs)
    if "tensorflow" in sys.modules:
        raise ValueError(
            "Something in this process imported TensorFlow's Python; the run "
            "says nothing about a server, which has none."
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (c_api.StatusError, ValueError) as error:
        print(error)
        sys.exit(1)
