"""Bad data through the programs: status 1, one sentence, nothing written."""

import numpy as np
from PIL import Image
import programs
import pytest
import tensorflow_datasets as tfds
import tiny_tfds

GENERATOR = np.random.RandomState(0)


def good():
    """A set of three classes that the programs take."""
    images = GENERATOR.randint(0, 256, (60, 8, 8), "uint8")
    labels = np.arange(60) % 3
    return {
        "x_train": images,
        "y_train": labels,
        "x_test": images[:12],
        "y_test": labels[:12],
    }


def changed(**arrays):
    return {**good(), **arrays}


NPZ = {
    "keys": ({"images": good()["x_train"]}, "x_train"),
    "pickled": (changed(x_train=np.array([{}, 1], object)), "pickle"),
    "integers": (changed(x_train=good()["x_train"].astype("int64")), "int64"),
    "range": (changed(x_train=good()["x_train"].astype("float32")), "255"),
    "nan": (
        changed(x_train=np.full((60, 8, 8), np.nan, "float32")),
        "pixel nan",
    ),
    "labels": (changed(y_test=good()["y_test"] + 5), "label 5"),
    "fractions": (changed(y_train=good()["y_train"] + 0.5), "float64"),
}


@pytest.mark.parametrize("name", NPZ)
def test_npz(name, tmp_path):
    arrays, sentence = NPZ[name]
    np.savez(tmp_path / "data.npz", **arrays)
    assert_refused(tmp_path, "--dataset=npz:data.npz", sentence)


def test_a_file_that_is_not_npz(tmp_path):
    (tmp_path / "data.npz").write_bytes(b"not a zip")
    assert_refused(tmp_path, "--dataset=npz:data.npz", "data.npz")


def picture(path, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = GENERATOR.randint(0, 256, (size, size), "uint8")
    Image.fromarray(pixels).save(path)


def test_an_empty_folder(tmp_path):
    (tmp_path / "data").mkdir()
    assert_refused(tmp_path, "--dataset=folder:data", "data")


def test_a_folder_of_mixed_sizes(tmp_path):
    for name in ("cat", "dog"):
        for number in range(10):
            picture(tmp_path / "data" / name / f"{number}.png", 8 + number % 2)
    assert_refused(tmp_path, "--dataset=folder:data", "size=")


@pytest.mark.parametrize("mode", ["memory", "streaming"])
def test_a_damaged_image(mode, tmp_path):
    for name in ("cat", "dog"):
        for number in range(10):
            picture(tmp_path / "data" / name / f"{number}.png")
    for file in (tmp_path / "data").rglob("*.png"):
        # The header stays, the pixels go.
        file.write_bytes(file.read_bytes()[:60])
    # Streaming, it comes to light when its turn comes: the run has begun.
    process = train(tmp_path, f"--dataset=folder:data:mode={mode}")
    programs.assert_refused(process, ".png cannot be read as an image")


def test_a_damaged_record_in_mid_run(tmp_path):
    values = tiny_tfds.examples(60, (8, 8, 1))
    features = {
        "image": tfds.features.Image(shape=(8, 8, 1)),
        "label": tiny_tfds.LABEL,
    }
    tiny_tfds.prepare(tmp_path / "sets", features=features, train=values)
    (shard,) = (tmp_path / "sets").glob("tiny/1.0.0/*tfrecord*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    process = train(
        tmp_path,
        "--dataset=tiny:mode=streaming",
        f"--data_dir={shard.parents[2]}",
    )
    programs.assert_refused(process, f"{shard} is damaged: a record's checksum")


def train(folder, *given):
    return programs.run(
        "train",
        "--workdir=run",
        "--model=digits_cnn",
        "--batch_size=4",
        "--epochs=1",
        "--epsilon=0.1",
        *given,
        cwd=folder,
    )


def assert_refused(folder, flag, sentence):
    programs.assert_refused(train(folder, flag), sentence)
    assert not (folder / "run").exists()


def test_good_data_trains(tmp_path):
    np.savez(tmp_path / "data.npz", **good())
    process = train(tmp_path, "--dataset=npz:data.npz")
    assert process.returncode == 0, process.stderr
