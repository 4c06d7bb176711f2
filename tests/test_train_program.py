"""The train program: what a run is, what it says, what it refuses."""

import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
import types

import numpy as np
import programs
import pytest
import rich.console
import small_runs
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
from mart_tf.runs import workdir
from mart_tf.training import watch

pytestmark = pytest.mark.usefixtures("own_directory")


def test_a_run_starts_from_trained_weights():
    small_runs.trained("first", epochs=1)
    said = small_runs.train(
        "second", epochs=1, init_from="first", learning_rate=1e-9
    )
    assert "Initialised from first, best weights, epoch 1: all" in said
    # The convolution: the statistics of batch norm go on moving.
    np.testing.assert_allclose(
        small_runs.weights("first")[0],
        small_runs.weights("second")[0],
        atol=1e-6,
    )
    # A run that continues needs its source no more.
    shutil.rmtree("first")
    said = small_runs.train(
        "second", epochs=2, init_from="first", learning_rate=1e-9
    )
    assert "Continuing second after epoch 1" in said


def test_an_optimizer_that_copies_weights_copies_the_trained_ones():
    small_runs.trained("first", epochs=1)
    small_runs.train(
        "second",
        epochs=1,
        steps_per_epoch=1,
        init_from="first",
        optimizer="keras.optimizers:ScheduleFreeAdamW",
        schedule="constant",
        learning_rate=1e-9,
    )
    np.testing.assert_allclose(
        small_runs.weights("first")[0],
        small_runs.weights("second")[0],
        atol=1e-6,
    )


def test_a_keras_file_brings_its_weights_or_starts_anew():
    from mart_tf import models

    model = models.build("digits_cnn", (8, 8, 1), 10, seed=5)
    model.save("network.keras")
    settings = {"model": "network.keras", "epochs": 1, "learning_rate": 1e-9}
    settings |= {"defense": "natural", "steps_per_epoch": 1}
    settings["validation_images"] = 0
    for seed in (0, 1):
        said = small_runs.train(f"trained-{seed}", seed=seed, **settings)
        assert (
            "Starting from the weights of network.keras, as they were saved, "
            "whatever the seed; --init_from=none starts anew."
        ) in said
        np.testing.assert_allclose(
            small_runs.weights(f"trained-{seed}")[0],
            model.get_weights()[0],
            atol=1e-6,
        )
    settings["init_from"] = "none"
    for path, seed in [("anew-0", 0), ("again-0", 0), ("anew-1", 1)]:
        said = small_runs.train(path, seed=seed, **settings)
        assert "Starting anew: the seed gives network.keras initial" in said
    kernels = [
        small_runs.weights(path)[0] for path in ("anew-0", "again-0", "anew-1")
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    for other in (kernels[2], model.get_weights()[0]):
        assert np.abs(kernels[0] - other).max() > 0.1
    # One that continues has weights.
    said = small_runs.train("anew-1", **{**settings, "seed": 1, "epochs": 2})
    assert "Continuing anew-1 after epoch 1" in said
    assert "anew:" not in said


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
    images, labels = small_runs.pool_arrays()
    np.savez("bare.npz", image=images)
    np.savez("wide.npz", image=np.zeros([300, 8, 9, 1], "uint8"), label=labels)
    np.savez("few.npz", image=images[:3], label=labels[:3])
    np.savez("other.npz", image=images, label=labels + 1)
    test = data.load("digits").test
    np.savez("test.npz", image=test.images, label=test.labels)
    with pytest.raises(ValueError, match=sentence):
        small_runs.train("run", epochs=1, **settings)
    assert not pathlib.Path("run").exists()


def test_the_workdir_holds_what_the_design_says():
    said = small_runs.trained("run", epochs=3)
    files = {str(p.relative_to("run")) for p in pathlib.Path("run").rglob("*")}
    assert {"flags.cfg", "run.json", "metrics.csv", "checkpoints"} <= files
    kept = sorted(pathlib.Path("run/checkpoints").glob("ckpt-*.index"))
    assert [file.stem for file in kept] == ["ckpt-2", "ckpt-3"]
    assert "digits: 1,294 training" in said
    assert "epoch 3/3  loss" in said
    record = json.loads(pathlib.Path("run/run.json").read_text())
    assert record["config"]["epsilon"] == 0.15
    assert record["facts"]["num_classes"] == 10
    assert record["versions"]["tensorflow"] == tf.__version__
    best = max(
        small_runs.rows("run"),
        key=lambda row: float(row["val_robust_accuracy"]),
    )
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
    small_runs.train("one", **settings)
    assert "2 CPU" in small_runs.train(
        "two", **{**settings, "strategy": "mirrored"}
    )
    for a, b in zip(
        small_runs.weights("one"), small_runs.weights("two"), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(
        small_runs.rows("one"), small_runs.rows("two"), strict=True
    ):
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
    small_runs.train("run", epochs=2, strategy=strategy)
    first = seen[: seen.index(None)]
    second = seen[seen.index(None) + 1 : -1]
    # 1,294 images make 5 batches of 256.
    assert len(set(first)) == len(first) == 1280
    assert len(set(second)) == len(second) == 1280
    assert first != second


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
def test_the_average_is_what_a_run_is_known_by(strategy):
    settings = {"ema": 0.9, "ema_warmup_epochs": 0.3, "strategy": strategy}
    assert "decay 0.9 after 0.3 epochs" in small_runs.train(
        "run", epochs=1, **settings
    )
    # A continuation goes on with the same average.
    small_runs.train("run", epochs=2, **settings)
    small_runs.trained("plain", epochs=2, strategy=strategy)
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
    for a, b in zip(
        small_runs.weights("run", "last_raw"),
        small_runs.weights("plain"),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    # It was validated, and chosen, by the average.
    seen = [row["val_loss"] for row in small_runs.rows("run")]
    assert seen != [row["val_loss"] for row in small_runs.rows("plain")]
    config = record.read("run").config
    dataset = data.load("digits", validation_images=config.validation_images)
    model = run.compiled_model(config, dataset, None, 5, "float32")
    model.classifier.set_weights(small_runs.weights("run", "last"))
    logs = model.evaluate(
        data.evaluation_batches(dataset.validation, 256, (0.0, 1.0)),
        return_dict=True,
        verbose=0,
    )
    logged = {
        name: float(small_runs.rows("run")[-1][f"val_{name}"]) for name in logs
    }
    assert logs == pytest.approx(logged, rel=1e-4)


def test_a_run_without_an_average():
    small_runs.trained("run", epochs=1)
    for kind in ("last", "best"):
        for a, b in zip(
            small_runs.weights("run", kind),
            small_runs.weights("run", f"{kind}_raw"),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_a_hopeless_start_ends_in_its_first_steps_and_can_begin_anew():
    with pytest.raises(watch.Diverged) as caught:
        small_runs.train(
            "run", epochs=1, learning_rate=1e12, max_skipped_steps=2
        )
    assert "Lower the learning rate" in str(caught.value)
    assert str(caught.value).endswith("run can begin anew.")
    assert not list(pathlib.Path("run").rglob("ckpt-*"))
    small_runs.train("run", epochs=1)
    assert len(small_runs.rows("run")) == 1


def test_one_that_was_saved_before_it_diverged_goes_on_from_there():
    with pytest.raises(watch.Diverged) as caught:
        small_runs.train(
            "run",
            epochs=1,
            learning_rate=1e12,
            max_skipped_steps=2,
            checkpoint_every="1steps",
        )
    assert re.search(
        r"No epoch is finished: run goes on after step \d+, with the same "
        "settings; for others remove it, or give another --workdir.$",
        str(caught.value),
    )


def test_a_run_that_diverges_later_says_what_is_left():
    # 22 steps an epoch: beyond those in which a growing loss alone ends it.
    settings = {"batch_size": 64, "epochs": 3, "max_skipped_steps": 1}
    schedule = "piecewise:at=2:factor=1e12"
    flags = {
        **small_runs.SMALL,
        **settings,
        "workdir": "run",
        "schedule": schedule,
    }
    process = programs.run(
        "train", *(f"--{name}={value}" for name, value in flags.items())
    )
    programs.assert_refused(process, "2 steps in a row were skipped up to step")
    assert process.stderr.strip().endswith(
        "The weights of epoch 1, its last checkpoint, are sound: "
        "--init_from=run begins another run with the best ones."
    )
    assert len(small_runs.rows("run")) == 1
    said = small_runs.train("other", epochs=1, init_from="run")
    assert "Initialised from run, best weights, epoch 1: all" in said


@pytest.mark.parametrize("kind", ["npz", "pickle"])
def test_the_file_of_a_pool_is_known_by_its_content(kind):
    config = small_runs.config_of("run", epochs=2)
    pathlib.Path("chosen.csv").write_text("row")
    pathlib.Path("pool").write_text("images")
    config = dataclasses.replace(config, pool=f"{kind}:pool")
    digests = workdir.digests(config, ("chosen.csv",))
    assert digests == {
        "chosen.csv": hashlib.sha256(b"row").hexdigest(),
        "pool": hashlib.sha256(b"images").hexdigest(),
    }
    workdir.write(config, small_runs.FACTS | {"files": digests})
    earlier = record.read("run")
    workdir.check_files(earlier, workdir.digests(config, ("chosen.csv",)))
    pathlib.Path("pool").write_text("others")
    with pytest.raises(ValueError, match="pool has changed since the run"):
        workdir.check_files(earlier, workdir.digests(config, ("chosen.csv",)))


def test_the_warm_up_of_epsilon_takes_a_last_part_of_a_step_whole():
    # 1.5 epochs of 5 steps; and a touch is a step.
    dataset = data.load("digits")
    for epochs, steps in [(0.0, 0), (1.5, 8), (1.6, 8), (0.01, 1)]:
        config = small_runs.config_of(
            "run", epochs=2, epsilon_warmup_epochs=epochs
        )
        model = run.compiled_model(config, dataset, None, 5, "float32")
        assert model.epsilon_warmup_steps == steps


def test_another_configuration_through_the_program():
    small_runs.trained("run", epochs=1)
    before = {p: p.stat().st_mtime for p in pathlib.Path("run").rglob("*")}
    flags = {
        **small_runs.SMALL,
        "workdir": "run",
        "epochs": 2,
        "epsilon": "8/255",
    }
    process = programs.run(
        "train",
        *(f"--{name}={value}" for name, value in flags.items()),
        cwd=pathlib.Path.cwd(),
    )
    programs.assert_refused(process, "--epsilon was 0.15, now 0.03137")
    after = {p: p.stat().st_mtime for p in pathlib.Path("run").rglob("*")}
    assert after == before


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_refuses_a_pool_that_is_nothing_or_all_of_a_batch(fraction):
    images, labels = small_runs.pool_arrays()
    np.savez("pool.npz", image=images, label=labels)
    with pytest.raises(ValueError, match="expected a share of each batch"):
        small_runs.config_of("run", pool="npz:pool.npz", pool_fraction=fraction)


def test_defaults_come_from_the_data_set():
    config = run_config.Config().resolved()
    assert config.workdir == "runs/digits_digits_cnn_mart"
    assert (config.model, config.epsilon) == ("digits_cnn", 0.15)
    config = run_config.Config(defense="mart:form=released", regularization=6)
    settings = options.parse(config.resolved().defense).options
    assert (settings["regularization"], settings["form"]) == ("6", "released")
    # A workdir's name leaves an option's default out.
    config = run_config.Config(defense="mart:regularization=5.0:form=paper")
    assert config.resolved().workdir == "runs/digits_digits_cnn_mart"
    config = run_config.Config(seed=7).resolved()
    assert config.workdir == "runs/digits_digits_cnn_mart_seed7"


def test_a_default_run_records_what_every_default_stood_for():
    said = small_runs.train("run", epochs=1, schedule=None, model="digits_cnn")
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
        "ema_warmup": 0.0,
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
        "class_weights",
        "init_from",
        "regularization",
        "steps_per_epoch",
        "callbacks",
    }
    flags = pathlib.Path("run/flags.cfg").read_text().splitlines()
    for name, value in recorded.items():
        assert f"--{name}={value}" in flags
        if isinstance(value, str):
            assert value in said
    assert "PGD, 2 steps of 0.0375, uniform start" in said
    assert "144 images, under PGD, 2 steps of 0.0375" in said
    assert "seed 0" in said


def test_a_run_that_ends_within_its_ramp_is_told_so():
    said = small_runs.trained("run", epochs=1)
    assert (
        "Epsilon grows over 1.5 epochs, and the run ends after 1, at 67 % of it"
    ) in said
    assert "1 epoch of 5 steps" in said
    # Its network is code of the test's own: the next command asks for it.
    assert "mart-evaluate --workdir=run --allow_code" in said
    # Without an attack there is no ramp.
    settings = {"epochs": 1, "steps_per_epoch": 1, "model": "digits_cnn"}
    said = small_runs.train("natural", defense="natural", **settings)
    assert "Epsilon grows" not in said
    assert "--workdir=natural\n" in said


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
    config = small_runs.config_of("run", **settings)
    spec = defenses.names.resolve(config.defense)
    assert spec.options[option] == pytest.approx(value, rel=1e-12)
    # Once more changes nothing.
    assert config.resolved() == config


def test_a_derived_default_is_a_number_that_can_be_read():
    """1.5 and 0.15 times epsilon; 1.5 * 0.15 is 0.22499999999999998."""
    config = small_runs.config_of("run", defense="mma", epsilon=0.15)
    assert config.defense == "mma:max_margin=0.225:min_epsilon=0.0225"


def test_a_default_that_changes_does_not_change_a_replay(monkeypatch):
    workdir.write(small_runs.config_of("run", epochs=2), small_runs.FACTS)
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


def test_without_a_validation_split_all_is_trained_on_and_the_last_is_kept():
    settings = {"validation_images": 0}
    small_runs.trained("whole", epochs=3, **settings)
    small_runs.trained("parts", epochs=2, **settings)
    said = small_runs.train("parts", epochs=3, **settings)
    assert "digits: 1,438 training, 0 validation, 359 test" in said
    assert "validation   none: all images are trained on" in said
    assert "the accuracies below are those of training" in said
    assert "epoch 3, the last, stands for the best" in said
    small_runs.assert_same("whole", "parts")
    assert not any(
        name.startswith("val_") for name in small_runs.rows("parts")[0]
    )
    for a, b in zip(
        small_runs.weights("parts", "best"),
        small_runs.weights("parts"),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    _, epoch, _ = workdir.load_classifier("parts", "best")
    assert epoch == 3
    # The split is part of the run.
    with pytest.raises(ValueError, match="--validation_images was 0, now 50"):
        small_runs.train("parts", epochs=4, validation_images=50)
    # What is not said is as the run began.
    assert "0 validation" in small_runs.train("parts", epochs=4)
    said = small_runs.train("from", epochs=1, init_from="parts")
    assert "Initialised from parts, last weights, epoch 4" in said


def test_programs_take_the_last_epoch_of_a_run_without_a_validation_split():
    settings = {"validation_images": 0, "defense": "natural", "batch_size": 32}
    small_runs.train("run", epochs=2, **settings)
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
    used = report["model"]["checkpoint"], report["model"]["epoch"]
    assert used == ("last", 2)
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
    flags = {**small_runs.SMALL, **settings, "workdir": "run", "epochs": 1}
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


@pytest.mark.parametrize(
    ("flags", "capabilities", "computes"),
    [
        ("fpu avx512_bf16", [], True),
        ("fpu amx_bf16 avx2", [], True),
        ("fpu avx512f avx2", [], False),
        # No Linux.
        (None, [], False),
        # Where there are GPUs they compute, the oldest as the others.
        ("fpu", [(8, 0), (9, 0)], True),
        ("fpu avx512_bf16", [(9, 0), (7, 5)], False),
        # One that TensorFlow says nothing of.
        ("fpu avx512_bf16", [None], False),
    ],
)
def test_precision_follows_the_hardware_and_says_why(
    flags, capabilities, computes, tmp_path, monkeypatch
):
    information = tmp_path / "cpuinfo"
    if flags is not None:
        information.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(
        devices, "pathlib", types.SimpleNamespace(Path=lambda _: information)
    )
    monkeypatch.setattr(
        tf.config, "list_physical_devices", {"GPU": capabilities}.get
    )
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": gpu} if gpu else {},
    )
    assert devices.policy("auto") == (
        ("mixed_bfloat16", "mixed_bfloat16, which this hardware computes")
        if computes
        else ("float32", "float32: this hardware does not compute bfloat16")
    )
    assert devices.policy("float32") == ("float32", "float32, as asked")


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
                defense="natural",
                validation_images=0,
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


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"outputs": "probabilities"}, "rows that are not probabilities"),
        (
            {"ema": 0.9, "ema_warmup_epochs": 3.0},
            "--ema_warmup_epochs=3 is the whole run of --epochs=3",
        ),
        (
            {
                "defense": "natural",
                "stop_on_collapse": True,
                "validation_images": 0,
            },
            "--stop_on_collapse looks at accuracy on the validation split",
        ),
    ],
)
def test_what_would_train_nothing_or_watch_nothing_is_refused(
    settings, sentence
):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        small_runs.train("run", epochs=3, **settings)
    assert not pathlib.Path("run").exists()
