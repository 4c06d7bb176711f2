"""Training runs small enough for seconds, and what they leave.

A test that needs a finished run, and not its making, takes a copy (`trained`):
compiling the step of a run is what costs.
"""

import atexit
import contextlib
import csv
import functools
import io
import pathlib
import shutil
import tempfile

import rich.console
import run_states
import sklearn.datasets

from mart_tf.runs import config as run_config
from mart_tf.runs import run
from mart_tf.runs import workdir

# With dropout and a last batch to drop.
SMALL = {
    "dataset": "digits",
    "model": "small_network:build",
    "attack_steps": 2,
    "batch_size": 256,
    "learning_rate": 0.05,
    "epsilon_warmup_epochs": 1.5,
    "schedule": "piecewise:at=3",
    "precision": "float32",
    "strategy": "single",
}

# What a run finds out of its data, as run.json has it.
FACTS = {
    "policy": "float32",
    "image_shape": [8, 8, 1],
    "num_classes": 10,
    "class_names": list("0123456789"),
}

# What `small_network:build` is, in the directory of a test.
NETWORK = """
import keras

def build(input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(synchronized=True),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(num_classes),
    ])
"""


def config_of(path, **settings):
    """The configuration of a run."""
    return run_config.Config(
        workdir=str(path), **{**SMALL, **settings}
    ).resolved()


def train(path, **settings):
    """Trains in this process; returns what the user saw."""
    config = config_of(path, **settings)
    output = io.StringIO()
    console = rich.console.Console(file=output, width=200)
    run.train(config, workdir.prepare(config), console)
    return output.getvalue()


def trained(path, **settings):
    """What `train` would have done, as a copy; returns what the user saw.

    Args:
        path: A relative path.
        settings: As of `train`, none of them a file of the test's.
    """
    made, said = _made(tuple(sorted((SMALL | settings).items())))
    shutil.copytree(made, path)
    return said


@functools.cache
def _made(settings):
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "small_network.py").write_text(NETWORK)
    with contextlib.chdir(folder):
        said = train("run", **dict(settings))
    return folder / "run", said


def assert_same(one, other):
    """Of two workdirs: every tensor and every row, bit for bit."""
    first, second = run_states.state(one), run_states.state(other)
    assert run_states.different(first, second) is None


def weights(path, checkpoint="last"):
    return workdir.load_classifier(path, checkpoint)[0].get_weights()


def rows(path):
    with pathlib.Path(path, "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def pool_arrays():
    """Images and labels of a pool, mirrored digits for want of others."""
    bunch = sklearn.datasets.load_digits()
    images = (bunch.images[:300, :, ::-1] / 16).astype("float32")
    return images, bunch.target[:300]


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
