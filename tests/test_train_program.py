"""The train program: a run, its resume, its faults, and what it refuses."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import programs
import pytest
import rich.console
import sklearn.datasets
import tensorflow as tf

from mart_tf import data
from mart_tf import defenses
from mart_tf import options
from mart_tf import train as train_program
from mart_tf.runs import callbacks
from mart_tf.runs import config as run_config
from mart_tf.runs import devices
from mart_tf.runs import record
from mart_tf.runs import run
from mart_tf.runs import signals
from mart_tf.runs import workdir
from mart_tf.training import watch

# Small enough for seconds, with dropout and a last batch to drop.
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
    "class_names": [],
}

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


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    (tmp_path / "small_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def train(path, **settings):
    """Trains in this process; returns what the user saw."""
    config = run_config.Config(
        workdir=str(path), **{**SMALL, **settings}
    ).resolved()
    output = io.StringIO()
    console = rich.console.Console(file=output, width=200)
    run.train(config, workdir.prepare(config), console)
    return output.getvalue()


def weights(path, checkpoint="last"):
    return workdir.load_classifier(path, checkpoint)[0].get_weights()


_STATE = ("classifier/", "averages/", "optimizer/", "step/", "memory/")


def saved_state(path):
    newest = max(
        pathlib.Path(path, "checkpoints").glob("ckpt-*.index"),
        key=lambda file: int(file.stem.split("-")[1]),
    )
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    names = reader.get_variable_to_shape_map()
    return {
        name: reader.get_tensor(name)
        for name in names
        if name.startswith(_STATE)
    }


def assert_same_run(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    first, second = saved_state(one), saved_state(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert rows(one) == rows(other)


def pool_arrays():
    """Images and labels of a pool, mirrored digits for want of others."""
    bunch = sklearn.datasets.load_digits()
    images = (bunch.images[:300, :, ::-1] / 16).astype("float32")
    return images, bunch.target[:300]


def rows(path):
    with pathlib.Path(path, "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_and_its_continuation_equal_a_run_without_a_stop():
    train("whole", epochs=4)
    train("parts", epochs=2)
    said = train("parts", epochs=4)
    assert "Continuing parts after epoch 2 of 4" in said
    assert_same_run("whole", "parts")
    # The schedule lowers the rate from the third epoch on.
    rates = [float(row["learning_rate"]) for row in rows("whole")]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.005, 0.005], rtol=1e-5)
    assert "has finished its 4 epochs" in train("parts", epochs=4)


def test_what_a_defense_keeps_of_each_example_continues_too():
    # MMA's margins by row, those of the pool's rows among them.
    images, labels = pool_arrays()
    np.savez("pool.npz", image=images, label=labels)
    settings = {
        "defense": "mma",
        "pool": "npz:pool.npz",
        "unlabeled_weight": 0.5,
        "optimizer": "sgd:nesterov=true",
        # A pass over the 1,294 labelled images would be 10.
        "steps_per_epoch": 7,
    }
    said = train("whole", epochs=3, **settings)
    assert "npz:pool.npz: 300 images of 8x8x1, with labels" in said
    assert "3 epochs of 7 steps" in said
    assert "50 % of each batch, weight 0.5" in said
    train("parts", epochs=1, **settings)
    train("parts", epochs=3, **settings)
    assert_same_run("whole", "parts")
    state = saved_state("parts")
    [step] = [state[name] for name in state if name.startswith("step/")]
    assert step == 21
    # The rate falls with the third epoch, after 14 steps.
    rates = [float(row["learning_rate"]) for row in rows("parts")]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.005], rtol=1e-5)
    kept = state["memory/0/.ATTRIBUTES/VARIABLE_VALUE"]
    changed = np.flatnonzero(kept != np.float32(0.15))
    # The data set's rows end at 1,796.
    assert (changed < 1797).any()
    assert (changed >= 1797).any()
    assert "margin" in rows("parts")[0]
    np.savez("pool.npz", image=images, label=labels[::-1])
    with pytest.raises(ValueError, match="pool.npz has changed since"):
        train("parts", epochs=4, **settings)


def test_a_run_starts_from_trained_weights():
    train("first", epochs=1)
    said = train("second", epochs=1, init_from="first", learning_rate=1e-9)
    assert "Initialised from first, best weights, epoch 1: all" in said
    # The convolution: the statistics of batch norm go on moving.
    np.testing.assert_allclose(
        weights("first")[0], weights("second")[0], atol=1e-6
    )
    # A run that continues needs its source no more.
    shutil.rmtree("first")
    said = train("second", epochs=2, init_from="first", learning_rate=1e-9)
    assert "Continuing second after epoch 1" in said


def test_a_keras_file_brings_its_weights_or_starts_anew():
    from mart_tf import models

    model = models.build("digits_cnn", (8, 8, 1), 10, seed=5)
    model.save("network.keras")
    settings = {"model": "network.keras", "epochs": 1, "learning_rate": 1e-9}
    for seed in (0, 1):
        said = train(f"trained-{seed}", seed=seed, **settings)
        assert (
            "Starting from the weights of network.keras, as they were saved, "
            "whatever the seed; --init_from=none starts anew."
        ) in said
        np.testing.assert_allclose(
            weights(f"trained-{seed}")[0], model.get_weights()[0], atol=1e-6
        )
    settings["init_from"] = "none"
    for path, seed in [("anew-0", 0), ("again-0", 0), ("anew-1", 1)]:
        said = train(path, seed=seed, **settings)
        assert "Starting anew: the seed gives network.keras initial" in said
    kernels = [weights(path)[0] for path in ("anew-0", "again-0", "anew-1")]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    for other in (kernels[2], model.get_weights()[0]):
        assert np.abs(kernels[0] - other).max() > 0.1
    # One that continues has weights.
    said = train("anew-1", **{**settings, "seed": 1, "epochs": 2})
    assert "Continuing anew-1 after epoch 1" in said
    assert "anew:" not in said


def test_a_cosine_run_does_not_grow():
    train("run", epochs=2, schedule="cosine")
    with pytest.raises(ValueError, match="whose schedule cosine ends there"):
        train("run", epochs=3, schedule="cosine")


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"pool": "npz:bare.npz"}, "has no labels to train on"),
        ({"pool": "npz:wide.npz"}, "have shape"),
        ({"pool": "npz:few.npz"}, "fewer than the"),
        ({"pool": "npz:other.npz"}, "holds the label 10"),
        (
            {"pool": "npz:test.npz"},
            "holds 359 of the 359 images of the test split of digits",
        ),
        ({"defense": "trades", "random_start": "none"}, "no gradient at x"),
        (
            {"defense": "mart:regularized_fraction=2"},
            "expected a number from 0 to 1",
        ),
    ],
)
def test_refuses_a_pool_or_a_defense_that_does_not_fit(settings, sentence):
    images, labels = pool_arrays()
    np.savez("bare.npz", image=images)
    np.savez("wide.npz", image=np.zeros([300, 8, 9, 1], "uint8"), label=labels)
    np.savez("few.npz", image=images[:3], label=labels[:3])
    np.savez("other.npz", image=images, label=labels + 1)
    test = data.load("digits").test
    np.savez("test.npz", image=test.images, label=test.labels)
    with pytest.raises(ValueError, match=sentence):
        train("run", epochs=1, **settings)
    assert not pathlib.Path("run").exists()


def test_the_workdir_holds_what_the_design_says():
    said = train("run", epochs=3)
    files = {str(p.relative_to("run")) for p in pathlib.Path("run").rglob("*")}
    assert {"flags.cfg", "run.json", "metrics.csv", "checkpoints"} <= files
    kept = sorted(pathlib.Path("run/checkpoints").glob("ckpt-*.index"))
    assert [file.stem for file in kept] == ["ckpt-2", "ckpt-3"]
    assert "digits: 1,294 training" in said
    assert "epoch   3/3  loss" in said
    record = json.loads(pathlib.Path("run/run.json").read_text())
    assert record["config"]["epsilon"] == 0.15
    assert record["facts"]["num_classes"] == 10
    assert record["versions"]["tensorflow"] == tf.__version__
    best = max(rows("run"), key=lambda row: float(row["val_robust_accuracy"]))
    assert best["best"] == "1"
    # flags.cfg replays: the same configuration, not one flag different.
    process = programs.run(
        "train", "--flagfile=run/flags.cfg", cwd=pathlib.Path.cwd()
    )
    assert process.returncode == 0, process.stderr
    assert "has finished its 3 epochs" in process.stdout


def test_two_replicas_train_the_same_weights():
    # Without dropout, whose masks belong to a replica.
    settings = {"epochs": 2, "model": "digits_cnn"}
    train("one", **settings)
    assert "2 CPU" in train("two", **{**settings, "strategy": "mirrored"})
    for a, b in zip(weights("one"), weights("two"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(rows("one"), rows("two"), strict=True):
        np.testing.assert_allclose(
            float(a["loss"]), float(b["loss"]), rtol=1e-4
        )


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
def test_every_epoch_is_one_permutation_of_the_training_split(
    strategy, monkeypatch
):
    # What fit hands to the step, not what the pipeline promises: under a
    # strategy Keras consumes iterators of its own.
    seen = []

    def remember(indices):
        seen.extend(indices.ravel().tolist())

    class Watching(callbacks.Progress):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            seen.append(None)

    original = run.adversarial.AdversarialClassifier.train_step

    def train_step(self, data):
        tf.numpy_function(remember, [data[0]["index"]], [])
        return original(self, data)

    monkeypatch.setattr(
        run.adversarial.AdversarialClassifier, "train_step", train_step
    )
    monkeypatch.setattr(callbacks, "Progress", Watching)
    train("run", epochs=2, strategy=strategy)
    first = seen[: seen.index(None)]
    second = seen[seen.index(None) + 1 : -1]
    # 1,294 images make 5 batches of 256.
    assert len(set(first)) == len(first) == 1280
    assert len(set(second)) == len(second) == 1280
    assert first != second


def test_killed_and_run_again_equals_a_run_without_a_stop():
    average = {"ema": 0.9, "ema_warmup_epochs": 0.5}
    train("whole", epochs=3, **average)
    flags = [
        f"--{name}={value}"
        for name, value in {**SMALL, **average, "workdir": "killed"}.items()
    ]
    # Epochs are told by flag, so that the whole run is the same run.
    command = [sys.executable, "-m", "mart_tf.train", *flags, "--epochs=3"]
    process = subprocess.Popen(
        command, env=programs.environment(), stdout=subprocess.DEVNULL
    )
    # Killed right after the first epoch's row, before or in its checkpoint.
    first = pathlib.Path("killed/metrics.csv")
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train("killed", epochs=3, **average)
    assert_same_run("whole", "killed")


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
def test_the_average_is_what_a_run_is_known_by(strategy):
    settings = {"ema": 0.9, "ema_warmup_epochs": 0.3, "strategy": strategy}
    assert "decay 0.9 after 0.3 epochs" in train("run", epochs=1, **settings)
    # A continuation goes on with the same average.
    train("run", epochs=2, **settings)
    train("plain", epochs=2, strategy=strategy)
    run_of = workdir.load_classifier
    for kind, epoch in [("last", 2), ("best", None)]:
        averaged, of, _ = run_of("run", kind)
        raw, of_raw, _ = run_of("run", f"{kind}_raw")
        assert of == of_raw == (epoch or of)
        kernel, live = averaged.layers[-1].kernel, raw.layers[-1].kernel
        assert np.abs(np.array(kernel) - live).max() > 1e-4
        for a, b in zip(
            averaged.non_trainable_weights,
            raw.non_trainable_weights,
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    # The run itself goes on with its weights.
    for a, b in zip(weights("run", "last_raw"), weights("plain"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    # It was validated, and chosen, by the average.
    seen = [row["val_loss"] for row in rows("run")]
    assert seen != [row["val_loss"] for row in rows("plain")]
    config = run_config.Config(**record.read("run")["config"])
    dataset = data.load("digits", validation_images=config.validation_images)
    model = run.compiled_model(config, dataset, None, 5, "float32")
    model.classifier.set_weights(weights("run", "last"))
    found = model.evaluate(
        data.evaluation_batches(dataset.validation, 256, (0.0, 1.0)),
        return_dict=True,
        verbose=0,
    )
    logged = {name: float(rows("run")[-1][f"val_{name}"]) for name in found}
    assert found == pytest.approx(logged, rel=1e-4)


def test_a_run_without_an_average():
    train("run", epochs=1)
    for kind in ("last", "best"):
        for a, b in zip(
            weights("run", kind), weights("run", f"{kind}_raw"), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_a_run_of_the_version_whose_optimizer_kept_the_average():
    train("run", epochs=1)
    file = pathlib.Path("run/run.json")
    content = json.loads(file.read_text())
    # It had no checksum.
    del content["sha256"]
    for name in ("update", "ema", "ema_warmup_epochs"):
        del content["config"][name]
    content["config"]["optimizer"] += ":ema=0"
    file.write_text(json.dumps(content))
    assert "Continuing run after epoch 1" in train("run", epochs=2)
    content["config"]["optimizer"] = "sgd:ema=0.999"
    file.write_text(json.dumps(content))
    # Its weights are what they were; its average is no more asked for.
    assert workdir.load_classifier("run", "last")[1] == 2
    with pytest.raises(ValueError, match="give --ema=0.999 instead"):
        train("run", epochs=3)


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize("content", [None, "epoch,loss\n", "\0"])
def test_the_history_is_in_the_checkpoints(content):
    train("run", epochs=2)
    file = pathlib.Path("run/metrics.csv")
    kept = file.read_text()
    file.unlink()
    if content is not None:
        file.write_text(content)
    train("run", epochs=3)
    assert file.read_text().startswith(kept)
    assert len(rows("run")) == 3


def test_a_damaged_checkpoint_is_passed_over():
    train("whole", epochs=4)
    train("run", epochs=3)
    damage(pathlib.Path("run/checkpoints/ckpt-3.data-00000-of-00001"))
    said = train("run", epochs=4)
    assert "ckpt-3 is damaged (its checksum does not match)" in said
    assert "Continuing run after epoch 2" in said
    assert_same_run("whole", "run")


def test_killed_between_the_checkpoint_and_what_follows(monkeypatch):
    train("whole", epochs=3)
    original = callbacks.Record.on_epoch_end

    class Killed(Exception):
        pass

    def on_epoch_end(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Record, "on_epoch_end", on_epoch_end)
        with pytest.raises(Killed):
            train("killed", epochs=3)
    train("killed", epochs=3)
    assert_same_run("whole", "killed")


def test_resumes_under_a_mirrored_strategy():
    settings = {"strategy": "mirrored", "model": "digits_cnn"}
    train("whole", epochs=2, **settings)
    train("parts", epochs=1, **settings)
    train("parts", epochs=2, **settings)
    for a, b in zip(weights("whole"), weights("parts"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def stopped_at(monkeypatch, *where):
    """Makes a run stop, as by SIGTERM, at each of some places in turn.

    A place is the name of a hook of `callbacks.Within` and how often it is
    called before.
    """
    calls = dict.fromkeys(("on_train_batch_end", "on_test_batch_end"), 0)
    left = list(where)

    def patched(name):
        original = getattr(callbacks.Within, name)

        def hook(self, *arguments, **named):
            calls[name] += 1
            if left and left[0] == (name, calls[name]):
                left.pop(0)
                os.kill(os.getpid(), signal.SIGTERM)
            original(self, *arguments, **named)

        monkeypatch.setattr(callbacks.Within, name, hook)

    for name in calls:
        patched(name)
    return left


PLACES = [
    ("on_train_batch_end", 3),
    ("on_train_batch_end", 4),
    ("on_test_batch_end", 1),
    ("on_train_batch_end", 20),
    ("on_test_batch_end", 4),
]
# Of the others once in an epoch and once behind it: a start costs seconds.
FEW = [PLACES[0], PLACES[-1]]


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({}, PLACES),
        ({"defense": "mma", "schedule": "cosine:warmup_epochs=0.7"}, FEW),
        ({"strategy": "mirrored"}, FEW),
        ({"ema": 0.9, "ema_warmup_epochs": 0.3, "augment": True}, FEW),
    ],
    ids=["plain", "mma", "mirrored", "average"],
)
def test_stopped_in_the_middle_equals_a_run_without_a_stop(
    settings, places, monkeypatch
):
    settings = {"epochs": 3, "batch_size": 128, **settings}
    train("whole", **settings)
    # Ten steps an epoch; two batches of validation.
    left = stopped_at(monkeypatch, *places)
    said, stops = "", 0
    while left:
        with pytest.raises(signals.Stopped) as stopped:
            said = train("parts", **settings)
        stops += 1
        assert stopped.value.status == 128 + signal.SIGTERM
    assert stops == len(places)
    said = train("parts", **settings)
    assert "Continuing parts after step 10 of 10 of epoch 2" in said
    assert_same_run("whole", "parts")
    assert not pathlib.Path("parts/checkpoints/within").exists()


def begun(path, *flags):
    """A run of many steps in a process of its own, in the middle of one."""
    settings = {**SMALL, "batch_size": 32, "epochs": 3, "workdir": path}
    command = [f"--{name}={value}" for name, value in settings.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "mart_tf.train", *command, *flags],
        env=programs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests are a background job, Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    return process, [*command, *flags]


def first_within(path):
    """Waits until the middle of an epoch is saved."""
    newest = pathlib.Path(path, "checkpoints/newest.json")
    while not newest.exists() or "within" not in newest.read_text():
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_ends(name):
    number = getattr(signal, name)
    process, command = begun("run", "--checkpoint_every=1steps")
    first_within("run")
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"mart-train: Stopped by {name} after step " in error
    assert error.endswith("is saved; the same command goes on from there.\n")
    assert "Traceback" not in error
    done = programs.run("train", *command)
    assert done.returncode == 0, done.stderr
    assert "Continuing run after step " in done.stdout
    train("whole", batch_size=32, epochs=3)
    assert_same_run("whole", "run")


def test_killed_within_an_epoch_and_saved_by_a_signal():
    process, command = begun("run", "--checkpoint_every=2steps")
    first_within("run")
    process.kill()
    process.wait()
    process, _ = begun("run", "--checkpoint_every=100min")
    # What another signal asks for is saved, and the run goes on.
    while not pathlib.Path("run/.lock").exists():
        time.sleep(0.01)
    newest = pathlib.Path("run/checkpoints/newest.json")
    before = newest.read_text()
    while "Continuing run after step" not in process.stdout.readline():
        assert process.poll() is None
    while newest.read_text() == before and process.poll() is None:
        time.sleep(0.2)
        process.send_signal(signal.SIGUSR1)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    train("whole", batch_size=32, epochs=3)
    assert_same_run("whole", "run")


def test_a_workdir_belongs_to_one_process():
    train("run", epochs=1)
    before = sorted(pathlib.Path("run").rglob("*"))
    process = programs.hold("run")
    try:
        with pytest.raises(ValueError, match="run is being written by another"):
            train("run", epochs=2)
    finally:
        process.kill()
        process.wait()
    # Another one was faster: this one had seen an empty folder.
    config = run_config.Config(
        workdir="run", **{**SMALL, "seed": 3, "epochs": 1}
    ).resolved()
    with pytest.raises(ValueError, match="seed was 0, now 3"):
        run.train(config, None, rich.console.Console(file=io.StringIO()))
    same = dataclasses.replace(config, seed=0)
    with pytest.raises(ValueError, match="Another process began a run in run"):
        run.train(same, None, rich.console.Console(file=io.StringIO()))
    assert sorted(pathlib.Path("run").rglob("*")) == before
    assert "Continuing run after epoch 1" in train("run", epochs=2)


def test_a_first_save_that_was_killed_is_begun_anew():
    train("whole", epochs=2)
    shutil.copytree("whole", "killed")
    checkpoints = pathlib.Path("killed/checkpoints")
    for file in [*checkpoints.glob("ckpt-2.*"), checkpoints / "newest.json"]:
        file.unlink()
    (checkpoints / "ckpt-1.sha256").unlink()
    said = train("killed", epochs=2)
    assert "ckpt-1, was cut off. Starting anew." in said
    assert_same_run("whole", "killed")


def test_no_sound_checkpoint_stops_the_run():
    train("run", epochs=2)
    for file in pathlib.Path("run/checkpoints").rglob("ckpt-*.index"):
        damage(file)
    flags = [
        f"--{name}={value}"
        for name, value in {**SMALL, "workdir": "run", "epochs": 3}.items()
    ]
    for program, given in [
        ("train", flags),
        ("evaluate", ["--workdir=run", "--allow_code"]),
        ("export", ["--workdir=run", "--allow_code"]),
    ]:
        process = programs.run(program, *given, cwd=pathlib.Path.cwd())
        programs.assert_refused(process, "No sound checkpoint is left")
    assert not pathlib.Path("run/evaluation").exists()
    assert not pathlib.Path("run/export").exists()


def test_a_damaged_best_checkpoint_is_said_aloud():
    train("run", epochs=4)
    best = sorted(pathlib.Path("run/checkpoints/best").glob("*.index"))
    if len(best) < 2:
        pytest.skip("the first epoch was the best: there is no older one")
    damage(best[-1])
    process = programs.run(
        "evaluate",
        "--workdir=run",
        "--allow_code",
        "--attacks=fgsm",
        "--max_examples=20",
        cwd=pathlib.Path.cwd(),
    )
    assert process.returncode == 0, process.stderr
    assert "is damaged" in process.stdout
    assert f"Evaluating epoch {best[0].stem.split('-')[1]}" in process.stdout


def test_a_hopeless_start_ends_in_its_first_steps_and_can_begin_anew():
    with pytest.raises(watch.Diverged) as caught:
        train("run", epochs=1, learning_rate=1e12, max_skipped_steps=2)
    assert "Lower the learning rate" in str(caught.value)
    assert str(caught.value).endswith("run can begin anew.")
    assert not list(pathlib.Path("run").rglob("ckpt-*"))
    train("run", epochs=1)
    assert len(rows("run")) == 1


def test_a_run_that_diverges_later_says_what_is_left():
    # 22 steps an epoch: beyond those in which a growing loss alone ends it.
    settings = {"batch_size": 64, "epochs": 3, "max_skipped_steps": 1}
    schedule = "piecewise:at=2:factor=1e12"
    flags = {**SMALL, **settings, "workdir": "run", "schedule": schedule}
    process = programs.run(
        "train", *(f"--{name}={value}" for name, value in flags.items())
    )
    programs.assert_refused(process, "2 steps in a row were skipped up to step")
    assert process.stderr.strip().endswith(
        "The weights of epoch 1, its last checkpoint, are sound: "
        "--init_from=run begins another run with the best ones."
    )
    assert len(rows("run")) == 1
    said = train("other", epochs=1, init_from="run")
    assert "Initialised from run, best weights, epoch 1: all" in said


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"epsilon": 0.1}, "--epsilon was 0.15, now 0.1"),
        ({"seed": 1, "batch_size": 64}, "--batch_size was 256, now 64"),
        (
            {"precision": "mixed_bfloat16"},
            "--precision was float32, now mixed_bfloat16",
        ),
        ({"epochs": 1}, "a run can grow, not shrink"),
    ],
)
def test_a_workdir_of_another_configuration(settings, sentence):
    path = pathlib.Path("run")
    workdir.write(config_of("run", epochs=2), FACTS)
    other = config_of("run", **{"epochs": 2, **settings})
    # One that has saved nothing gives way.
    assert workdir.prepare(other) is None
    saved = path / "checkpoints" / "within" / "ckpt-1.index"
    saved.parent.mkdir(parents=True)
    saved.touch()
    with pytest.raises(ValueError, match=sentence):
        workdir.prepare(other)
    assert {file.name for file in path.iterdir()} == {
        "run.json",
        "flags.cfg",
        "checkpoints",
    }


@pytest.mark.parametrize("kind", ["npz", "pickle"])
def test_the_file_of_a_pool_is_known_by_its_content(kind):
    config = config_of("run", epochs=2)
    pathlib.Path("chosen.csv").write_text("row")
    pathlib.Path("pool").write_text("images")
    config = dataclasses.replace(config, pool=f"{kind}:pool")
    found = workdir.digests(config, ("chosen.csv",))
    assert found == {
        "chosen.csv": hashlib.sha256(b"row").hexdigest(),
        "pool": hashlib.sha256(b"images").hexdigest(),
    }
    record = {"facts": {"files": found}}
    workdir.check_files(record, workdir.digests(config, ("chosen.csv",)))
    pathlib.Path("pool").write_text("others")
    with pytest.raises(ValueError, match="pool has changed since the run"):
        workdir.check_files(record, workdir.digests(config, ("chosen.csv",)))


def test_a_run_continues_in_its_own_precision(monkeypatch):
    class Stopped(Exception):
        pass

    def stop(config, dataset, pool, steps, policy):
        raise Stopped(policy)

    # As on a machine that computes bfloat16 after one that does not.
    monkeypatch.setattr(devices, "_computes_bfloat16", lambda: True)
    monkeypatch.setattr(run, "compiled_model", stop)
    config = config_of("run", epochs=2, precision="auto")
    with pytest.raises(Stopped, match="mixed_bfloat16"):
        run.train(config, None, None)
    with pytest.raises(Stopped, match="float32"):
        record = {
            "config": dataclasses.asdict(config),
            "facts": {"policy": "float32"},
        }
        run.train(config, record, None)


def test_the_warm_up_of_epsilon_takes_a_last_part_of_a_step_whole():
    # 1.5 epochs of 5 steps; and a touch is a step.
    dataset = data.load("digits")
    for epochs, steps in [(0.0, 0), (1.5, 8), (1.6, 8), (0.01, 1)]:
        config = config_of("run", epochs=2, epsilon_warmup_epochs=epochs)
        model = run.compiled_model(config, dataset, None, 5, "float32")
        assert model.epsilon_warmup_steps == steps


def test_another_configuration_through_the_program():
    train("run", epochs=1)
    before = {p: p.stat().st_mtime for p in pathlib.Path("run").rglob("*")}
    flags = {**SMALL, "workdir": "run", "epochs": 2, "epsilon": "8/255"}
    process = programs.run(
        "train",
        *(f"--{name}={value}" for name, value in flags.items()),
        cwd=pathlib.Path.cwd(),
    )
    programs.assert_refused(process, "--epsilon was 0.15, now 0.03137")
    after = {p: p.stat().st_mtime for p in pathlib.Path("run").rglob("*")}
    assert after == before


def config_of(path, **settings):
    return run_config.Config(
        workdir=str(path), **{**SMALL, **settings}
    ).resolved()


def test_what_may_differ_when_a_run_continues():
    workdir.write(config_of("run", epochs=2), FACTS)
    config = dataclasses.replace(
        config_of("run", epochs=3), strategy="mirrored", data_dir="elsewhere"
    )
    assert workdir.prepare(config) is not None


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_refuses_a_pool_that_is_nothing_or_all_of_a_batch(fraction):
    images, labels = pool_arrays()
    np.savez("pool.npz", image=images, label=labels)
    with pytest.raises(ValueError, match="expected a share of each batch"):
        config_of("run", pool="npz:pool.npz", pool_fraction=fraction)


def test_defaults_come_from_the_data_set():
    config = run_config.Config().resolved()
    assert config.workdir == "runs/digits_digits_cnn_mart"
    assert (config.model, config.epsilon) == ("digits_cnn", 0.15)
    config = run_config.Config(defense="mart:form=released", regularization=6)
    found = options.parse(config.resolved().defense).options
    assert (found["regularization"], found["form"]) == ("6", "released")
    # A workdir's name leaves an option's default out.
    config = run_config.Config(defense="mart:regularization=5.0:form=paper")
    assert config.resolved().workdir == "runs/digits_digits_cnn_mart"
    config = run_config.Config(seed=7).resolved()
    assert config.workdir == "runs/digits_digits_cnn_mart_seed7"


def test_a_default_run_records_what_every_default_stood_for():
    said = train("run", epochs=1, schedule=None, model="digits_cnn")
    # Written from the paper (section 4.2), the digits recipe and PyTorch.
    defense = (
        "mart:regularization=5:form=paper:outer=bce:divergence=true:"
        "weighting=soft:inner=cross_entropy:regularized_fraction=1"
    )
    recorded = {
        "defense": defense,
        "attack_step_size": 0.0375,
        "optimizer": "sgd:momentum=0.9:nesterov=false",
        "update": "plain",
        "ema": 0.0,
        "ema_warmup_epochs": 0.0,
        "schedule": "piecewise:at=21+27:factor=0.1:warmup_epochs=0",
        "validation_images": 144,
    }
    config = json.loads(pathlib.Path("run/run.json").read_text())["config"]
    assert {name: config[name] for name in recorded} == recorded
    absent = {name for name, value in config.items() if value is None}
    assert absent == {
        "data_dir",
        "pool",
        "init_from",
        "regularization",
        "steps_per_epoch",
    }
    flags = pathlib.Path("run/flags.cfg").read_text().splitlines()
    for name, value in recorded.items():
        assert f"--{name}={value}" in flags
        if isinstance(value, str):
            assert value in said
    assert "PGD, 2 steps of 0.0375, uniform start" in said
    assert "144 images, under PGD, 2 steps of 0.0375" in said
    assert "seed 0" in said


@pytest.mark.parametrize(
    "settings, option, value",
    [
        # The paper's 0.45 and 12/255 are 1.5 times its epsilon.
        ({"defense": "mma", "epsilon": 0.3}, "max_margin", 0.45),
        ({"defense": "mma", "epsilon": 8 / 255}, "max_margin", 12 / 255),
        ({"defense": "mma:max_margin=0.2"}, "max_margin", 0.2),
        ({"defense": "dynamic"}, "c_max", 0.5),
        ({"defense": "dynamic"}, "control_epochs", 100),
        ({"defense": "trades"}, "regularization", 4.0),
        ({"defense": "trades", "regularization": 6.0}, "regularization", 6.0),
    ],
)
def test_a_default_that_follows_from_others_is_worked_out(
    settings, option, value
):
    config = config_of("run", **settings)
    spec = options.resolve(config.defense, defenses.DEFENSES, "defense")
    assert spec.options[option] == pytest.approx(value, rel=1e-12)
    # Once more changes nothing.
    assert config.resolved() == config


def test_a_default_that_changes_does_not_change_a_replay(monkeypatch):
    workdir.write(config_of("run", epochs=2), FACTS)
    at_75 = dataclasses.replace(data.DEFAULTS["digits"], epsilon=0.2)
    monkeypatch.setitem(data.DEFAULTS, "digits", at_75)
    values = train_program.FLAGS
    values.unparse_flags()
    for name in values:
        values[name].unparse()
    values(["mart-train", "--flagfile=run/flags.cfg"])
    config = train_program.configuration().resolved()
    assert (config.epsilon, config.attack_step_size) == (0.15, 0.0375)
    assert workdir.prepare(config) is not None


def test_a_run_of_an_earlier_version_continues():
    # It left defaults out.
    config = dataclasses.replace(
        config_of("run", epochs=2),
        defense="mart",
        optimizer="sgd",
        schedule="piecewise:at=3",
        attack_step_size=None,
    )
    workdir.write(config, FACTS)
    assert workdir.prepare(config_of("run", epochs=3)) is not None
    pathlib.Path("run/checkpoints").mkdir()
    pathlib.Path("run/checkpoints/ckpt-1.index").touch()
    with pytest.raises(ValueError, match="--defense was mart:regul"):
        workdir.prepare(config_of("run", epochs=3, regularization=6.0))


def test_without_a_validation_split_all_is_trained_on_and_the_last_is_kept():
    settings = {"validation_images": 0}
    train("whole", epochs=3, **settings)
    train("parts", epochs=2, **settings)
    said = train("parts", epochs=3, **settings)
    assert "digits: 1,438 training, 0 validation, 359 test" in said
    assert "validation   none: all images are trained on" in said
    assert "training: natural" in said
    assert "epoch 3, the last, stands for the best" in said
    assert_same_run("whole", "parts")
    assert not any(name.startswith("val_") for name in rows("parts")[0])
    for a, b in zip(weights("parts", "best"), weights("parts"), strict=True):
        np.testing.assert_array_equal(a, b)
    _, epoch, _ = workdir.load_classifier("parts", "best")
    assert epoch == 3
    # The split is part of the run.
    with pytest.raises(ValueError, match="--validation_images was 0, now 50"):
        train("parts", epochs=4, validation_images=50)
    # What is not said is as the run began.
    assert "0 validation" in train("parts", epochs=4)
    said = train("from", epochs=1, init_from="parts")
    assert "Initialised from parts, last weights, epoch 4" in said


def test_programs_take_the_last_epoch_of_a_run_without_a_validation_split():
    settings = {"validation_images": 0, "defense": "natural", "batch_size": 32}
    train("run", epochs=2, **settings)
    here = {"cwd": pathlib.Path.cwd()}
    process = programs.run(
        "evaluate",
        "--workdir=run",
        "--allow_code",
        "--attacks=fgsm",
        "--max_examples=20",
        **here,
    )
    assert process.returncode == 0, process.stderr
    report = json.loads(pathlib.Path("run/evaluation/report.json").read_text())
    found = report["model"]["checkpoint"], report["model"]["epoch"]
    assert found == ("last", 2)
    process = programs.run(
        "label", "--workdir=run", "--subsets=chosen", "--allow_code", **here
    )
    assert process.returncode == 0, process.stderr
    assert "run, last weights, epoch 2 misclassifies" in process.stdout
    assert "of the 1,438 training images" in process.stdout
    assert "--validation_images=0" in process.stdout
    process = programs.run(
        "export",
        "--workdir=run",
        "--allow_code",
        "--attack_examples=0",
        "--warmup_batch_sizes=",
        **here,
    )
    assert process.returncode == 0, process.stderr
    assert "the last weights of run, of epoch 2" in process.stdout
    card = json.loads(
        pathlib.Path("run/export/1/assets.extra/model_card.json").read_text()
    )
    assert card["training"]["checkpoint"] == "last"
    assert card["training"]["validation_images"] == 0


@pytest.mark.parametrize(
    "flag, sentence",
    [
        ("--dataset=digitss", "did you mean 'digits'"),
        ("--model=resnet81", "did you mean 'resnet18'"),
        ("--model=absent.keras", "does not exist"),
        ("--model=absent_module:build", "cannot be found"),
        ("--defense=marrt", "did you mean 'mart'"),
        ("--defense=mart:regularisation=1", "did you mean 'regularization'"),
        ("--precision=mixed_bfloat61", "did you mean 'mixed_bfloat16'"),
        ("--norm=l3", "Unknown norm 'l3'"),
        ("--norm=l2", "--norm=l2 needs an --epsilon"),
        ("--model=wide_resnet:depth=33", "expected 6n + 4"),
        ("--pool=npz:absent.npz", "There is no file absent.npz"),
        ("--pool_fraction=1", "--pool_fraction=1 is of a pool"),
        ("--unlabeled_weight=-1", "--unlabeled_weight is -1"),
        ("--unlabeled_weight=2", "--unlabeled_weight=2 is of a pool"),
        ("--optimizer=sdg", "did you mean 'sgd'"),
        ("--optimizer=sgd:momentum=2", "momentum"),
        ("--init_from=absent", "--init_from=absent does not exist"),
        ("--epsilon=0", "--epsilon is 0; expected a radius above 0"),
        ("--epsilon=1.5", "in linf at most 1, the range of the pixels"),
        ("--epsilon=big", "expected a number, such as 0.3 or 8/255"),
        ("--attack_steps=0", "--attack_steps is 0"),
        ("--validation_images=-1", "--validation_images is -1"),
        ("--batch_size=0", "--batch_size is 0"),
        ("--epochs=0", "--epochs is 0"),
        ("--steps_per_epoch=0", "--steps_per_epoch is 0; expected a whole"),
        ("--regularization=-1", "--regularization is -1"),
        ("--schedule=steps", "Unknown schedule 'steps'"),
        ("--learning_rate=0", "--learning_rate is 0"),
        ("--dataset=folder:absent", "There is no folder absent"),
        ("--dataset=npz:absent.npz", "There is no file absent.npz"),
        ("--dataset=mnist", "is not prepared in"),
        ("--checkpoint_every=10", "expected minutes or steps, such as 10min"),
        ("--checkpoint_every=0steps", "--checkpoint_every is '0steps'"),
        ("--checkpoint_every=1.5steps", "--checkpoint_every is '1.5steps'"),
        ("--seed=99999999999999999999", "--seed is 99999999999999999999"),
        ("--epsilom=1", "did you mean --epsilon?"),
        ("epochs=3", "Unexpected argument 'epochs=3'"),
    ],
)
def test_refuses_a_flag_before_tensorflow_is_imported(
    flag, sentence, monkeypatch
):
    path = pathlib.Path("empty")
    path.mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(path.resolve()))
    process = programs.run(
        "train",
        "--workdir=run",
        flag,
        cwd=pathlib.Path.cwd(),
        tensorflow=False,
    )
    programs.assert_refused(process, sentence)
    assert not pathlib.Path("run").exists()


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"batch_size": 5000}, "larger than the 1294 training examples"),
        ({"model": "small_network:softmax"}, "softmax"),
        ({"model": "small_network:wide"}, "11"),
        ({"model": "small_network:absent"}, "absent"),
    ],
)
def test_refuses_what_only_tensorflow_can_see(settings, sentence, tmp_path):
    with (tmp_path / "small_network.py").open("a") as stream:
        stream.write(
            "\ndef softmax(shape, classes):\n"
            "    return keras.Sequential([build(shape, classes),"
            " keras.layers.Softmax()])\n"
            "\ndef wide(shape, classes):\n    return build(shape, 11)\n"
        )
    flags = {**SMALL, **settings, "workdir": "run", "epochs": 1}
    process = programs.run(
        "train", *(f"--{k}={v}" for k, v in flags.items()), cwd=tmp_path
    )
    programs.assert_refused(process, sentence)
    assert not pathlib.Path("run").exists()


def test_refuses_a_directory_that_is_not_a_run(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    process = programs.run("train", "--workdir=photos", cwd=tmp_path)
    programs.assert_refused(process, "holds files but no run")
    process = programs.run("train", "--workdir=small_network.py", cwd=tmp_path)
    programs.assert_refused(process, "is a file")


def test_help_lists_the_flags(tmp_path):
    process = programs.run("train", "--help", cwd=tmp_path)
    assert process.returncode == 0
    for field in dataclasses.fields(run_config.Config):
        assert f"--{field.name}\n" in process.stdout


def test_precision_says_why():
    assert devices.policy("float32") == ("float32", "float32, as asked")
    policy, reason = devices.policy("auto")
    assert policy in ("float32", "mixed_bfloat16")
    assert "hardware" in reason


def test_what_xla_compiles(monkeypatch):
    assert devices.jit_compile("auto", 1) is False
    assert devices.jit_compile("off", 2) is False
    assert devices.jit_compile("step", 1) is True
    assert devices.jit_compile("attack", 2) == "attack"
    with pytest.raises(ValueError, match="--xla=step compiles the step of one"):
        devices.jit_compile("step", 2)
    # A GPU that is not here.
    monkeypatch.setattr(devices, "kind", lambda: "GPU")
    assert devices.jit_compile("auto", 1) is True
    assert devices.jit_compile("auto", 2) == "attack"


def test_tf32_is_float32_with_rounded_products(tmp_path):
    assert devices.policy("tf32")[0] == "float32"
    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    try:
        for precision, rounded in [("tf32", True), ("float32", False)]:
            config.enable_tensor_float_32_execution(not rounded)
            settings = run_config.Config(
                workdir=str(tmp_path / precision),
                epochs=1,
                steps_per_epoch=1,
                precision=precision,
            ).resolved()
            run.train(settings, None, rich.console.Console(quiet=True))
            assert config.tensor_float_32_execution_enabled() is rounded
    finally:
        config.enable_tensor_float_32_execution(before)


def test_xla_compiles_the_step_of_a_program(tmp_path):
    process = programs.run(
        "train",
        "--epochs=1",
        "--steps_per_epoch=2",
        "--xla=step",
        "--workdir=run",
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    assert "XLA          compiles the step" in process.stdout
