"""Runs that stop, by themselves or by a kill, and go on; damaged ones."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import shutil
import signal
import time

import keras
import numpy as np
import programs
import pytest
import rich.console
import small_runs
import tensorflow as tf

import mart_tf
from mart_tf.runs import callbacks
from mart_tf.runs import checkpoints
from mart_tf.runs import config as run_config
from mart_tf.runs import devices
from mart_tf.runs import record
from mart_tf.runs import run
from mart_tf.runs import signals
from mart_tf.runs import workdir

pytestmark = pytest.mark.usefixtures("own_directory")


def test_a_run_and_its_continuation_equal_a_run_without_a_stop():
    small_runs.trained("whole", epochs=4)
    small_runs.trained("parts", epochs=2)
    said = small_runs.train("parts", epochs=4)
    assert "Continuing parts after epoch 2 of 4" in said
    small_runs.assert_same("whole", "parts")
    # The schedule lowers the rate from the third epoch on.
    rates = [float(row["learning_rate"]) for row in small_runs.rows("whole")]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.005, 0.005], rtol=1e-5)
    assert "has finished its 4 epochs" in small_runs.train("parts", epochs=4)


def test_what_a_defense_keeps_of_each_example_continues_too():
    # MMA's margins by row, those of the pool's rows among them.
    images, labels = small_runs.pool_arrays()
    np.savez("pool.npz", image=images, label=labels)
    settings = {
        "defense": "mma",
        "pool": "npz:pool.npz",
        "unlabeled_weight": 0.5,
        "optimizer": "sgd:nesterov=true",
        # A pass over the 1,294 labelled images would be 10.
        "steps_per_epoch": 7,
    }
    said = small_runs.train("whole", epochs=3, **settings)
    assert "npz:pool.npz: 300 images of 8x8x1, with labels; read" in said
    assert "3 epochs of 7 steps" in said
    assert "50 % of each batch, weight 0.5" in said
    small_runs.train("parts", epochs=1, **settings)
    small_runs.train("parts", epochs=3, **settings)
    small_runs.assert_same("whole", "parts")
    newest = tf.train.load_checkpoint("parts/checkpoints/ckpt-3")
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert newest.get_tensor(f"step/0{value}") == 21
    # The rate falls with the third epoch, after 14 steps.
    rates = [float(row["learning_rate"]) for row in small_runs.rows("parts")]
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.005], rtol=1e-5)
    kept = newest.get_tensor(f"memory/0{value}")
    changed = np.flatnonzero(kept != np.float32(0.15))
    # The data set's rows end at 1,796.
    assert (changed < 1797).any()
    assert (changed >= 1797).any()
    assert "margin" in small_runs.rows("parts")[0]
    np.savez("pool.npz", image=images, label=labels[::-1])
    with pytest.raises(ValueError, match="pool.npz has changed since"):
        small_runs.train("parts", epochs=4, **settings)


def test_a_pool_on_disk_trains_as_one_in_memory():
    images, labels = small_runs.pool_arrays()
    np.savez("stored.npz", image=images, label=labels)
    np.savez_compressed("packed.npz", image=images, label=labels)
    for name in ("stored", "packed"):
        said = small_runs.train(
            name,
            pool=f"npz:{name}.npz",
            epochs=2,
            steps_per_epoch=3,
            augment="crop:padding=1",
        )
        assert ("; read from disk" in said) == (name == "stored")
    small_runs.assert_same("stored", "packed")


def test_a_cosine_run_does_not_grow():
    small_runs.trained("run", epochs=2, schedule="cosine")
    with pytest.raises(ValueError, match="whose schedule cosine ends there"):
        small_runs.train("run", epochs=3, schedule="cosine")


def test_a_run_whose_average_warms_up_by_a_share_of_it_does_not_grow():
    settings = {"ema": 0.9, "ema_warmup": 0.1}
    small_runs.trained("run", epochs=2, **settings)
    with pytest.raises(ValueError, match="--ema_warmup=0.1 is a share, now"):
        small_runs.train("run", epochs=3, **settings)


@pytest.mark.parametrize("content", [None, "epoch,loss\n", "\0"])
def test_the_history_is_in_the_checkpoints(content):
    small_runs.trained("run", epochs=2)
    file = pathlib.Path("run/metrics.csv")
    kept = file.read_text()
    file.unlink()
    if content is not None:
        file.write_text(content)
    small_runs.train("run", epochs=3)
    assert file.read_text().startswith(kept)
    assert len(small_runs.rows("run")) == 3


def test_a_damaged_checkpoint_is_passed_over():
    small_runs.trained("whole", epochs=4)
    small_runs.trained("run", epochs=3)
    small_runs.damage(
        pathlib.Path("run/checkpoints/ckpt-3.data-00000-of-00001")
    )
    said = small_runs.train("run", epochs=4)
    assert "ckpt-3 is damaged (its checksum does not match)" in said
    assert "Continuing run after epoch 2" in said
    small_runs.assert_same("whole", "run")


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
# Of the others few: a start costs seconds.
BOTH = [PLACES[0], PLACES[-1]]
WITHIN = [("on_train_batch_end", 13)]


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({}, PLACES),
        ({"defense": "mma", "schedule": "cosine:warmup_epochs=0.7"}, BOTH),
        ({"strategy": "mirrored", "defense": "nfgsm"}, WITHIN),
        (
            {
                "label_smoothing": 0.1,
                "ema": 0.9,
                "ema_warmup_epochs": 0.3,
                "augment": "crop:padding=1,flip,cutout:size=3",
                "update": "awp:from_epoch=2",
            },
            BOTH,
        ),
    ],
    ids=["plain", "mma", "mirrored", "average"],
)
def test_stopped_in_the_middle_equals_a_run_without_a_stop(
    settings, places, monkeypatch
):
    settings = {"epochs": 3, "batch_size": 128, **settings}
    small_runs.train("whole", **settings)
    # Ten steps an epoch; two batches of validation.
    left = stopped_at(monkeypatch, *places)
    said, stops = "", 0
    while left:
        with pytest.raises(signals.Stopped) as stopped:
            said = small_runs.train("parts", **settings)
        stops += 1
        assert stopped.value.status == 128 + signal.SIGTERM
    assert stops == len(places)
    said = small_runs.train("parts", **settings)
    step = 3 if places == WITHIN else 10
    assert f"Continuing parts after step {step} of 10 of epoch 2" in said
    small_runs.assert_same("whole", "parts")
    assert not pathlib.Path("parts/checkpoints/within").exists()


@contextlib.contextmanager
def begun(path, *flags):
    """A run of many steps in a process of its own, and its command."""
    settings = {
        **small_runs.SMALL,
        "batch_size": 32,
        "epochs": 3,
        "workdir": path,
    }
    command = [f"--{name}={value}" for name, value in settings.items()]
    command += flags
    # Where the tests are a background job, Ctrl-C is ignored.
    setup = "import signal; "
    setup += "signal.signal(signal.SIGINT, signal.default_int_handler)"
    with programs.started("train", *command, setup=setup) as process:
        yield process, command


def first_within(process, path):
    """Waits until a process has saved the middle of an epoch."""
    newest = pathlib.Path(path, "checkpoints/newest.json")
    while not newest.exists() or "within" not in newest.read_text():
        process.lives()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")],
)
def test_a_signal_saves_and_ends(number, name):
    with begun("run", "--checkpoint_every=1steps") as (process, command):
        first_within(process, "run")
        os.kill(process.pid, number)
        stopped = process.finished()
    assert stopped.returncode == 128 + number
    error = stopped.stderr
    assert f"mart-train: Stopped by {name} after step " in error
    assert error.endswith("is saved; the same command goes on from there.\n")
    assert "Traceback" not in error
    done = programs.run("train", *command)
    assert done.returncode == 0, done.stderr
    assert "Continuing run after step " in done.stdout
    small_runs.trained("whole", batch_size=32, epochs=3)
    small_runs.assert_same("whole", "run")


def test_killed_within_an_epoch_and_saved_by_a_signal():
    with begun("run", "--checkpoint_every=2steps") as (process, _):
        first_within(process, "run")
        os.kill(process.pid, signal.SIGKILL)
    newest = pathlib.Path("run/checkpoints/newest.json")
    before = newest.read_text()
    with begun("run", "--checkpoint_every=100min") as (process, _):
        # What another signal asks for is saved, and the run goes on.
        while "Continuing run after step" not in process.said("stdout"):
            process.lives()
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            while newest.read_text() == before:
                time.sleep(0.2)
                os.kill(process.pid, signal.SIGUSR1)
        done = process.finished()
    assert done.returncode == 0, done.stderr
    small_runs.trained("whole", batch_size=32, epochs=3)
    small_runs.assert_same("whole", "run")


def test_a_workdir_belongs_to_one_process():
    small_runs.trained("run", epochs=1)
    before = sorted(pathlib.Path("run").rglob("*"))
    process = programs.hold("run")
    try:
        with pytest.raises(ValueError, match="run is being written by another"):
            small_runs.train("run", epochs=2)
    finally:
        process.kill()
        process.wait()
    # Another one was faster: this one had seen an empty folder.
    config = run_config.Config(
        workdir="run", **{**small_runs.SMALL, "seed": 3, "epochs": 1}
    ).resolved()
    with pytest.raises(ValueError, match="seed was 0, now 3"):
        run.train(config, None, rich.console.Console(file=io.StringIO()))
    same = dataclasses.replace(config, seed=0)
    with pytest.raises(ValueError, match="Another process began a run in run"):
        run.train(same, None, rich.console.Console(file=io.StringIO()))
    assert sorted(pathlib.Path("run").rglob("*")) == before
    assert "Continuing run after epoch 1" in small_runs.train("run", epochs=2)


def test_a_file_that_is_another_one_by_now_is_what_a_new_run_trains():
    # A run that saved nothing gives way, and its copy of the file too.
    for name, units in (("first", 4), ("second", 8)):
        layers = [keras.Input([8, 8, 1]), keras.layers.Flatten()]
        layers += [keras.layers.Dense(units), keras.layers.Dense(10)]
        keras.Sequential(layers).save(f"{name}.keras")
    config = small_runs.config_of("run", model="first.keras", epochs=1)
    workdir.write(config, {**small_runs.FACTS, "data": None, "files": {}})
    said = small_runs.train(
        "run", model="second.keras", epochs=1, steps_per_epoch=1
    )
    assert "Starting from the weights of second.keras" in said
    assert small_runs.weights("run")[0].shape == (64, 8)


def test_what_is_left_of_a_start_that_was_killed_is_in_nobodys_way():
    # Between the copy of the network and run.json.
    layers = [keras.Input([8, 8, 1]), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(10)]).save("own.keras")
    pathlib.Path("run").mkdir()
    shutil.copy("own.keras", "run/model.keras")
    pathlib.Path("run/.model.keras.partial-12").write_bytes(b"half")
    config = small_runs.config_of("run", model="own.keras")
    assert workdir.prepare(config) is None
    # Another network, or whatever else, is a user's.
    pathlib.Path("run/model.keras").write_bytes(b"another")
    for name in ("model.keras", "notes"):
        with pytest.raises(ValueError, match="holds files but no run"):
            workdir.prepare(config)
        pathlib.Path("run", name).unlink()
        pathlib.Path("run/notes").write_text("mine")


def test_a_first_save_that_was_killed_is_begun_anew():
    small_runs.trained("whole", epochs=2)
    shutil.copytree("whole", "killed")
    checkpoints = pathlib.Path("killed/checkpoints")
    for file in [*checkpoints.glob("ckpt-2.*"), checkpoints / "newest.json"]:
        file.unlink()
    (checkpoints / "ckpt-1.sha256").unlink()
    said = small_runs.train("killed", epochs=2)
    assert "ckpt-1, was cut off. Starting anew." in said
    small_runs.assert_same("whole", "killed")


def test_no_sound_checkpoint_stops_the_run():
    small_runs.trained("run", epochs=2)
    for file in pathlib.Path("run/checkpoints").rglob("ckpt-*.index"):
        small_runs.damage(file)
    flags = [
        f"--{name}={value}"
        for name, value in {
            **small_runs.SMALL,
            "workdir": "run",
            "epochs": 3,
        }.items()
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
    small_runs.trained("run", epochs=2)
    # A first epoch is always the best; now the second is, whatever it was.
    classifier, *_ = workdir.load_classifier("run", "last")
    threat = mart_tf.ThreatModel(epsilon=0.15)
    model = mart_tf.AdversarialClassifier(classifier, threat=threat)
    model.compile("sgd")
    checkpoints.Checkpoints("run", model, 5).save(2, 1.0)
    best = sorted(pathlib.Path("run/checkpoints/best").glob("*.index"))
    assert [file.name for file in best] == ["ckpt-1.index", "ckpt-2.index"]
    small_runs.damage(best[1])
    process = programs.run(
        "evaluate",
        "--workdir=run",
        "--allow_code",
        "--attacks=fgsm",
        "--max_examples=20",
        cwd=pathlib.Path.cwd(),
    )
    assert process.returncode == 0, process.stderr
    assert "best/ckpt-2 is damaged (its checksum" in process.stdout
    assert "Taking epoch 1, the one before it" in process.stdout


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
    workdir.write(small_runs.config_of("run", epochs=2), small_runs.FACTS)
    other = small_runs.config_of("run", **{"epochs": 2, **settings})
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


def test_a_run_continues_in_its_own_precision(monkeypatch):
    class Stopped(Exception):
        pass

    def stop(config, dataset, pool, steps, policy, network):
        raise Stopped(policy)

    # As on a machine that computes bfloat16 after one that does not.
    monkeypatch.setattr(devices, "_computes_bfloat16", lambda: True)
    monkeypatch.setattr(run, "compiled_model", stop)
    config = small_runs.config_of("run", epochs=2, precision="auto")
    with pytest.raises(Stopped, match="mixed_bfloat16"):
        run.train(config, None, None)
    workdir.write(config, small_runs.FACTS | {"policy": "float32"})
    with pytest.raises(Stopped, match="float32"):
        run.train(config, record.read("run"), None)


def test_what_may_differ_when_a_run_continues():
    workdir.write(small_runs.config_of("run", epochs=2), small_runs.FACTS)
    config = dataclasses.replace(
        small_runs.config_of("run", epochs=3),
        strategy="mirrored",
        data_dir="elsewhere",
    )
    assert workdir.prepare(config) is not None


def test_a_run_of_an_earlier_version_continues():
    # It left defaults out.
    config = dataclasses.replace(
        small_runs.config_of("run", epochs=2),
        defense="mart",
        optimizer="sgd",
        schedule="piecewise:at=3",
        attack_step_size=None,
    )
    workdir.write(config, small_runs.FACTS)
    assert workdir.prepare(small_runs.config_of("run", epochs=3)) is not None
    pathlib.Path("run/checkpoints").mkdir()
    pathlib.Path("run/checkpoints/ckpt-1.index").touch()
    with pytest.raises(ValueError, match="--defense was mart:regul"):
        workdir.prepare(
            small_runs.config_of("run", epochs=3, regularization=6.0)
        )


def test_a_run_of_adamw_says_its_one_decay_and_continues():
    said = small_runs.train(
        "run", epochs=1, optimizer="adamw", weight_decay=0.01
    )
    assert "decoupled weight decay 0.01" in " ".join(said.split())
    config = json.loads(pathlib.Path("run/run.json").read_text())["config"]
    assert config["weight_decay"] is None
    whole = "adamw:weight_decay=0.01:beta_1=0.9:beta_2=0.999:epsilon=1e-08"
    assert config["optimizer"] == whole
    flags = pathlib.Path("run/flags.cfg").read_text().splitlines()
    assert f"--optimizer={whole}" in flags
    assert not any(line.startswith("--weight_decay") for line in flags)
    said = small_runs.train("run", epochs=2, optimizer=whole)
    assert "Continuing run after epoch 1" in said


def test_two_decays_are_refused():
    with pytest.raises(ValueError, match="both would act; give --weight_dec"):
        small_runs.train(
            "run",
            epochs=2,
            optimizer="keras.optimizers:AdamW",
            weight_decay=0.001,
        )
    assert not pathlib.Path("run").exists()
