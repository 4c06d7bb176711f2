"""What computes in float32 turns TF32 off, and back; a GPU's memory grows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import cli
from mart_tf import data
from mart_tf import environment
from mart_tf import labeling
from mart_tf.data import splits
from mart_tf.serving import verification

IMAGES = np.random.default_rng(0).random((6, 2, 2, 1), np.float32)
LABELS = np.arange(6) % 2


def tf32():
    return tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.fixture(params=[True, False])
def before(request):
    """TF32 on, which is TensorFlow's default, and off by the user."""
    default = tf32()
    tf.config.experimental.enable_tensor_float_32_execution(request.param)
    yield request.param
    tf.config.experimental.enable_tensor_float_32_execution(default)


class Watched(keras.layers.Layer):
    """Two scores for an image; notes whether TF32 is on when it computes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, images):
        def note(images):
            self.seen.append(tf32())
            return images

        noted = tf.numpy_function(note, [images], tf.float32)
        return tf.reshape(tf.ensure_shape(noted, images.shape), [-1, 4])[:, :2]


def watched():
    layer = Watched()
    return keras.Sequential([keras.Input([2, 2, 1]), layer]), layer.seen


def test_is_restored_after_an_exception(before):
    with pytest.raises(KeyError), environment.exact_float32():
        assert not tf32()
        raise KeyError
    assert tf32() == before


def test_an_evaluation_is_exact(before):
    model, seen = watched()
    threat = mart_tf.ThreatModel(epsilon=0.1)
    mart_tf.evaluate_robustness(model, (IMAGES, LABELS), threat, [])
    assert seen and not any(seen)
    assert tf32() == before
    with pytest.raises(ValueError, match="batch_size is 0"):
        mart_tf.evaluate_robustness(
            model, (IMAGES, LABELS), threat, [], batch_size=0
        )
    assert tf32() == before


def test_labels_and_subsets_are_exact(before, tmp_path):
    model, seen = watched()
    pool = data.Pool("mine", IMAGES)
    labeling.label_pool(model, pool, tmp_path / "pool.npz", labeled_by="me")
    assert seen and not any(seen)
    seen.clear()
    wrong = IMAGES.reshape(6, 4)[:, :2].argmax(1)
    wrong[:3] = 1 - wrong[:3]
    split = splits.memory_split(IMAGES, wrong)
    labeling.pick_subsets(
        model, split, tmp_path / "subsets", dataset="mine", picked_by="me"
    )
    assert seen and not any(seen)
    assert tf32() == before


def test_verification_is_exact(before, tmp_path, monkeypatch):
    seen = []

    def run(*arguments):
        seen.append(tf32())
        raise ValueError("as a version that fails")

    monkeypatch.setattr(verification, "run", run)
    model = keras.Sequential(
        [
            keras.Input([2, 2, 1]),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(ValueError, match="as a version that fails"):
        mart_tf.export_saved_model(
            model, tmp_path / "served", pixel_range=(0, 1)
        )
    assert seen == [False]
    assert tf32() == before


class TestGrowGpuMemory:
    """No GPU is here: two that TensorFlow is said to see stand for them."""

    @pytest.fixture
    def grown(self, monkeypatch):
        grown = []
        listed = tf.config.list_physical_devices
        monkeypatch.setattr(
            tf.config,
            "list_physical_devices",
            lambda kind=None: ["gpu 0", "gpu 1"] if kind == "GPU" else listed(),
        )
        monkeypatch.setattr(
            tf.config.experimental,
            "set_memory_growth",
            lambda gpu, enable: grown.append((gpu, enable)),
        )
        return grown

    def test_where_the_programs_import_tensorflow(self, grown):
        cli.import_tensorflow(
            1, configure=lambda: grown.append("before it makes its devices")
        )
        assert grown == [
            ("gpu 0", True),
            ("gpu 1", True),
            "before it makes its devices",
        ]

    @pytest.mark.usefixtures("own_directory")
    def test_where_a_run_starts_from_python(self, grown, monkeypatch):
        def stop(*arguments):
            raise KeyError(len(grown))

        monkeypatch.setattr("mart_tf.runs.run.train", stop)
        with pytest.raises(KeyError, match="2"):
            mart_tf.train_run(dataset="digits", workdir="run")

    def test_not_where_a_model_is_evaluated(self, grown):
        network, _ = watched()
        mart_tf.evaluate_robustness(
            network, (IMAGES, LABELS), mart_tf.ThreatModel(epsilon=0.1), []
        )
        assert grown == []

    @pytest.mark.parametrize("fault", [RuntimeError, ValueError])
    def test_leaves_what_is_set_already(self, grown, fault, monkeypatch):
        def set_memory_growth(gpu, enable):
            grown.append(gpu)
            raise fault("made already, or divided into logical ones")

        monkeypatch.setattr(
            tf.config.experimental, "set_memory_growth", set_memory_growth
        )
        environment.grow_gpu_memory()
        assert grown == ["gpu 0", "gpu 1"]
