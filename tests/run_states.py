"""What a run leaves, to be compared with what another one left."""

import json
import pathlib

import numpy as np
import tensorflow as tf


def state(path):
    """Tensors by checkpoint and name, and metrics.csv, as bytes.

    Args:
        path: The workdir of a run that has ended.
    """
    path = pathlib.Path(path)
    parts = {"metrics.csv": (path / "metrics.csv").read_bytes()}
    for kind in ("", "best"):
        folder = path / "checkpoints" / kind
        newest = max(
            folder.glob("ckpt-*.index"),
            key=lambda file: int(file.stem.split("-")[1]),
            default=None,
        )
        if newest is None:
            continue
        parts[f"newest {kind}"] = newest.name.encode()
        reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
        for name in reader.get_variable_to_shape_map():
            # How often was saved, and Keras's own bookkeeping of it.
            if "save_counter" in name or "OBJECT_GRAPH" in name:
                continue
            # A text is plain bytes.
            parts[f"{kind} {name}"] = np.array(
                reader.get_tensor(name)
            ).tobytes()
    return parts


def different(one, other):
    """The names of what differs, in words, or None."""
    names = [n for n in one.keys() | other.keys() if one.get(n) != other.get(n)]
    return f"other {', '.join(sorted(names)[:5])}" if names else None


def events(path):
    """What `events.jsonl` of a run holds, but for lines that were cut off."""
    lines = pathlib.Path(path, "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]
