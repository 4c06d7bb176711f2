"""examples/: each is run on the digits, with less of everything."""

import json
import runpy
import shutil
import subprocess
import sys

import keras
from PIL import Image
import programs
import pytest
import sklearn.datasets
import snippets

EXAMPLES = programs.ROOT / "examples"


@pytest.fixture
def own_images(tmp_path):
    """Digits as a folder of PNG files a class."""
    bunch = sklearn.datasets.load_digits()
    for row in range(120):
        folder = tmp_path / "images" / str(bunch.target[row])
        folder.mkdir(parents=True, exist_ok=True)
        levels = (bunch.images[row] * 255 / 16).astype("uint8")
        Image.fromarray(levels).save(folder / f"{row}.png")
    return tmp_path / "images"


def test_own_images(own_images, tmp_path):
    script = str(EXAMPLES / "own_images.sh")
    given = ["--model=small_cnn", "--epochs=1", "--attack_steps=1"]
    called = snippets.calls(
        ["bash", script, str(own_images), "a run", *given], tmp_path
    )
    assert [name for name, *_ in called] == [
        "mart-train",
        "mart-evaluate",
        "mart-export",
    ]
    (_, *flags), *others = called
    done = programs.run("train", *flags, "--batch_size=32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a run/run.json").exists()
    # Such a run, by its workdir: test_readme.py evaluates and exports one.
    for call in others:
        assert "--workdir=a run" in call
        snippets.check_flags(call)


def test_own_images_says_what_it_needs(tmp_path):
    done = subprocess.run(
        ["bash", str(EXAMPLES / "own_images.sh"), "images"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "IMAGES WORKDIR" in done.stderr
    assert not list(tmp_path.iterdir())


def test_tf_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tf_data.py", "--epochs=1"])
    runpy.run_path(str(EXAMPLES / "tf_data.py"), run_name="__main__")
    assert "pgd:steps=20" in capsys.readouterr().out
    made = tmp_path / "tf_data"
    model = keras.saving.load_model(made / "best.keras")
    assert model.threat.epsilon == 0.15
    assert (made / "export/1/saved_model.pb").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_trackers(name, tmp_path):
    # Large, and in nobody's way but here: not among the tests' packages.
    package = pytest.importorskip(
        name, reason=f"pip install 'mart-tf[{name}]' for this test"
    )
    shutil.copy(EXAMPLES / "trackers.py", tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    option = {"wandb": "project", "mlflow": "experiment"}[name]
    done = programs.run(
        "train",
        *("--defense=natural", "--epochs=2", "--workdir=run"),
        f"--callbacks=trackers:{name}:{option}=robust",
        cwd=tmp_path,
        WANDB_MODE="offline",
        MLFLOW_TRACKING_URI=store,
    )
    assert done.returncode == 0, done.stderr
    if name == "wandb":
        [written] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
        content = written.read_bytes()
        assert content.count(b"val_natural_accuracy") >= 2
        return
    client = package.MlflowClient(store)
    experiment = client.get_experiment_by_name("robust")
    [made] = client.search_runs([experiment.experiment_id])
    assert made.info.status == "FINISHED"
    for metric in ("loss", "val_natural_accuracy"):
        history = client.get_metric_history(made.info.run_id, metric)
        assert [each.step for each in history] == [1, 2]


def test_notebook(tmp_path, monkeypatch, capsys):
    notebook = json.loads((EXAMPLES / "robust_digits.ipynb").read_text("utf-8"))
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    first, *others = ["".join(cell["source"]) for cell in cells]
    assert first == "EPOCHS = 15"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {"EPOCHS": 1}
    for code in others:
        exec(compile(code, "cell", "exec"), names)
    assert "mart" in capsys.readouterr().out
    assert names["fooling"]["natural"].shape == (297, 8, 8, 1)
    assert (tmp_path / "served/robust_digits/1/saved_model.pb").exists()
