"""Too large a batch: one sentence, with one that may fit."""

import keras
import numpy as np
import programs
import pytest
import small_runs
import tensorflow as tf

import mart_tf
from mart_tf import cli
from mart_tf import errors
from mart_tf.serving import verification

# A network that asks for 256 TiB at more than 64 images: checks ask it for
# that many.
HUNGRY = """
import keras
import tensorflow as tf

@keras.saving.register_keras_serializable("hungry")
class Hungry(keras.layers.Layer):
    def call(self, images):
        size = tf.where(tf.shape(images)[0] > 64, 2 ** 46, 1)
        return images + tf.reduce_max(tf.fill([size], images[0, 0, 0, 0]))

def build(input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape),
        Hungry(),
        keras.layers.Flatten(),
        keras.layers.Dense(num_classes),
    ])
"""

pytestmark = pytest.mark.usefixtures("own_directory")


@pytest.fixture(autouse=True)
def hungry(tmp_path):
    (tmp_path / "hungry.py").write_text(HUNGRY)


def test_of_a_training():
    settings = small_runs.SMALL | {"model": "hungry:build"}
    with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
        mart_tf.train_run(**settings, workdir="run", verbose=0)
    said = cli.told(raised.value)
    assert said.startswith(
        "There is not enough memory for this; expected a --batch_size of at "
        "most 128 (256 did not fit), a smaller network or smaller images. "
        "(OOM when allocating tensor with shape[70368744177664]"
    )
    # What a person reads who called it from Python.
    [note] = raised.value.__notes__
    assert said.startswith(note)


def test_of_an_evaluation():
    keras.utils.set_random_seed(0)
    network = mart_tf.models.build("hungry:build", (4, 4, 1), 10)
    images = np.zeros((200, 4, 4, 1), np.float32)
    with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
        mart_tf.evaluate_robustness(
            network,
            (images, np.arange(200) % 10),
            mart_tf.ThreatModel(epsilon=0.1),
            "fgsm",
            batch_size=200,
        )
    assert "--batch_size of at most 100 (200 did" in cli.told(raised.value)


def test_of_an_export():
    """What it advises is a flag that it has, and helps."""
    network = mart_tf.models.build("hungry:build", (8, 8, 1), 10)
    network.save("hungry.keras")

    def export(*flags):
        return programs.run(
            "export",
            "--model=hungry.keras",
            *("--pixel_min=0", "--pixel_max=1", "--dataset=digits"),
            *flags,
            setup="import sys; sys.path.insert(0, '.'); import hungry",
        )

    sentence = "at most 100 (200 did not fit), a smaller network or smaller i"
    refused = export()
    assert refused.returncode == 1
    assert f"expected a --batch_size of {sentence}" in refused.stderr
    exported = export("--batch_size=50")
    assert exported.returncode == 0, exported.stderr


def test_of_the_requests_of_a_warm_up(monkeypatch):
    def compare(*_):
        raise MemoryError("x")

    monkeypatch.setattr(verification, "compare", compare)
    network = mart_tf.models.build("digits_cnn", (8, 8, 1), 10)
    with pytest.raises(MemoryError) as raised:
        mart_tf.export_saved_model(
            network, "export", pixel_range=(0, 1), warmup=[1, 32]
        )
    sentence = "a --warmup_batch_sizes of at most 16 (32 did not fit), a smal"
    assert sentence in cli.told(raised.value)


@pytest.mark.parametrize(
    ("size", "devices", "expected"),
    [
        (128, 1, "expected a --batch_size of at most 64 (128 did not fit), a"),
        (101, 1, "a --batch_size of at most 50 (101 did not fit), a smaller"),
        # Of 24, each of four devices has 6; of 12, 3; of 8, 2.
        (24, 4, "a --batch_size of at most 12 (24 did not fit), a smaller"),
        (20, 4, "a --batch_size of at most 8 (20 did not fit), a smaller"),
        (4, 4, "expected a smaller network or smaller images. (x)"),
        (1, 1, "expected a smaller network or smaller images. (x)"),
    ],
)
def test_half_of_it_in_whole_images_for_each_device(size, devices, expected):
    with (
        pytest.raises(MemoryError) as raised,
        errors.batch_that_fits(size, devices),
    ):
        raise MemoryError("x")
    assert expected in cli.told(raised.value)


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        ("No space left on device", "make room and run the same command again"),
        ("Disk quota exceeded", "make room and run the same command again"),
        ("Too many open files", "raise their limit (ulimit -n)"),
    ],
)
def test_a_full_disk_is_no_want_of_memory(said, helps):
    error = tf.errors.ResourceExhaustedError(None, None, f"run/ckpt; {said}")
    with pytest.raises(type(error)), errors.batch_that_fits(32):
        raise error
    assert not errors.is_out_of_memory(error)
    assert cli.told(error) == f"run/ckpt; {said}; {helps}."


def test_of_another_error_nothing_is_said():
    with pytest.raises(KeyError) as raised, errors.batch_that_fits(128):
        raise KeyError("x")
    assert not hasattr(raised.value, "__notes__")
