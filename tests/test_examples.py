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
import small_runs
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


# Fakes: the packages are large, want accounts, and are not among the tests'.
# Each has the functions that examples/trackers.py calls, and no other, which
# write down how they were called.
_FAKES = {
    "wandb": ["init", "log", "finish"],
    "mlflow": ["set_experiment", "start_run", "log_metrics", "end_run"],
}
_FAKE = """
import json, sys

def recorded(name):
    def call(*arguments, **options):
        with open(__name__ + ".calls", "a") as file:
            print(json.dumps([name, *arguments, options]), file=file)
        # What `wandb.init` returns has the other two.
        return sys.modules[__name__]
    return call

globals().update({{name: recorded(name) for name in {names}}})
"""


def test_trackers_are_told_of_each_epoch(tmp_path):
    shutil.copy(EXAMPLES / "trackers.py", tmp_path)
    for package, names in _FAKES.items():
        fake = tmp_path / f"{package}.py"
        fake.write_text(_FAKE.format(names=names))
    done = programs.run(
        "train",
        *("--defense=natural", "--epochs=2", "--workdir=run"),
        "--callbacks=trackers:wandb:project=one,trackers:mlflow:experiment=two",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    wandb, mlflow = (
        [json.loads(call) for call in path.read_text().splitlines()]
        for path in (tmp_path / "wandb.calls", tmp_path / "mlflow.calls")
    )
    # What the run itself writes, to six digits; the last two Keras logs not.
    epochs = []
    for row in small_runs.rows(tmp_path / "run"):
        values = {name: float(value) for name, value in row.items()}
        step = int(values.pop("epoch"))
        del values["learning_rate"], values["best"]
        epochs.append([pytest.approx(values, rel=1e-5), {"step": step}])
    assert len(epochs) == 2 and "val_natural_accuracy" in values
    assert wandb == [
        ["init", {"project": "one"}],
        *(["log", *epoch] for epoch in epochs),
        ["finish", {}],
    ]
    assert mlflow == [
        ["set_experiment", "two", {}],
        ["start_run", {}],
        *(["log_metrics", *epoch] for epoch in epochs),
        ["end_run", {}],
    ]


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
