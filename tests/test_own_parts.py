"""A user's own parts, those of CONTRIBUTING.md: by name and by instance."""

import json
import os
import pathlib
import re
import signal
import time

import keras
import numpy as np
import programs
import pytest

import mart_tf
from mart_tf import data
from mart_tf import parameters
from mart_tf.runs import workdir

CONTRIBUTING = pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md"

# Beside the five that CONTRIBUTING.md shows.
MORE = '''

class Forgets(Nudge):
    """Returns no logits."""

    def step(self, images, labels, state, taken):
        return state


class Inherits(Smoothed):
    """No constructor of its own."""


class NoDefense:
    """Not one."""


def nothing():
    """No data set."""
    return 3


def halved(rate, momentum: float = 0.5):
    """SGD at half the rate."""
    return keras.optimizers.SGD(rate, momentum=momentum)


def falling(rate, steps, epochs, to: float = 0.1):
    """A line from the rate down to a share of it."""
    return keras.optimizers.schedules.PolynomialDecay(
        rate, steps * epochs, to * rate
    )


def no_optimizer(rate):
    """Not one."""
    return rate


def network(shape, classes, width: int = 4):
    """One hidden layer."""
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(width, "relu"),
            keras.layers.Dense(classes),
        ]
    )
'''

FLAGS = (
    "--dataset=my_parts:stripes:count=80",
    "--model=my_parts:network:width=6",
    "--defense=my_parts:Smoothed:share=0.2",
    "--optimizer=my_parts:halved",
    "--augment=my_parts:Shifted:most=3,flip",
    "--update=my_parts:Shorter:share=0.8",
    "--attack_steps=2",
    "--batch_size=16",
    "--precision=float32",
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    text = CONTRIBUTING.read_text(encoding="utf-8")
    shown = re.search(r"<!-- my_parts -->\n```python\n(.*?)```", text, re.S)
    (tmp_path / "my_parts.py").write_text(shown.group(1) + MORE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    parameters.of.cache_clear()
    return tmp_path


def train(project, *flags):
    return programs.run("train", *FLAGS, *flags, cwd=project)


def test_own_parts_are_trained_killed_resumed_and_evaluated(project):
    whole = train(project, "--epochs=12", "--workdir=whole")
    assert whole.returncode == 0, whole.stderr
    metrics = project / "half" / "metrics.csv"
    flags = [*FLAGS, "--epochs=12", "--workdir=half"]
    with programs.started("train", *flags, cwd=project) as process:
        while not metrics.exists() or metrics.read_text().count("\n") < 3:
            process.lives()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert process.finished().returncode == -signal.SIGKILL
    half = train(project, "--epochs=12", "--workdir=half")
    assert half.returncode == 0, half.stderr
    assert "Continuing half after epoch" in half.stdout
    weights = [
        workdir.load_classifier(name, "last")[0].get_weights()
        for name in ("whole", "half")
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    recorded = json.loads((project / "half" / "run.json").read_text())["config"]
    assert recorded["defense"] == "my_parts:Smoothed:share=0.2"
    assert recorded["dataset"] == "my_parts:stripes:count=80"
    assert recorded["model"] == "my_parts:network:width=6"
    assert recorded["update"] == "my_parts:Shorter:share=0.8"
    own = "my_parts:Shifted:most=3,flip:probability=0.5"
    assert recorded["augment"] == own
    assert recorded["optimizer"] == "my_parts:halved:momentum=0.5"
    named = "my_parts:Nudge:steps=3"
    process = programs.run(
        "evaluate",
        "--workdir=half",
        f"--attacks=fgsm,{named}",
        "--allow_code",
        cwd=project,
    )
    assert process.returncode == 0, process.stderr
    report = json.loads(
        (project / "half" / "evaluation" / "report.json").read_text()
    )
    assert report["data"]["examples"] == 20
    own = report["attacks"][1]
    assert own["name"] == named
    assert own["parameters"] == {"steps": 3, "share": 0.5}
    assert own["nature"]["steps"] == 3
    assert [trace["attack"] for trace in report["traces"]] == ["fgsm", named]
    for attack, sentence in [
        ("my_parts:Nudge:stesp=3", "did you mean 'steps'"),
        ("my_parts:Forgets", "Forgets.step returned a dict of adversarial"),
        ("my_parts:Smoothed", "is a Smoothed; expected a subclass of mart_tf"),
    ]:
        process = programs.run(
            "evaluate",
            "--workdir=half",
            f"--attacks={attack}",
            "--allow_code",
            cwd=project,
        )
        assert process.returncode == 1
        assert sentence in process.stderr, process.stderr
        assert "Traceback" not in process.stderr


def test_a_schedule_of_ones_own(project):
    process = train(project, "--schedule=my_parts:falling:to=0.5", "--epochs=1")
    assert process.returncode == 0, process.stderr
    assert "my_parts:falling:to=0.5" in process.stdout
    # Whether it would be the same for more epochs is not known.
    process = train(project, "--schedule=my_parts:falling:to=0.5", "--epochs=2")
    programs.assert_refused(process, "whose schedule my_parts:falling ends")


@pytest.mark.parametrize(
    "flag, sentence",
    [
        ("--defense=my_parts:Smoothed:shaer=1", "did you mean 'share'"),
        ("--defense=my_parts:Inherits:shaer=1", "did you mean 'share'"),
        ("--defense=my_parts:Smoothed:share=x", "share=x: expected a number"),
        ("--defense=my_parts:Absent", "module 'my_parts' has no 'Absent'"),
        ("--defense=my_part:Smoothed", "'my_part', which cannot be found"),
        ("--update=my_parts:Shorter:shaer=1", "did you mean 'share'"),
        ("--augment=flip,my_parts:Shifted:mots=1", "did you mean 'most'"),
        ("--dataset=my_parts:stripes:cout=1", "did you mean 'count'"),
        ("--optimizer=my_parts:nothing", "expected these first: learning_r"),
        ("--optimizer=my_parts:halved:momentun=1", "did you mean 'momentum'"),
        ("--schedule=my_parts:falling:too=1", "did you mean 'to'"),
        ("--model=my_parts:network:widht=1", "did you mean 'width'"),
    ],
)
def test_options_are_checked(project, flag, sentence):
    process = programs.run("train", flag, cwd=project)
    programs.assert_refused(process, sentence)
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    "flag, sentence",
    [
        ("--defense=my_parts:Smoothed:share=2", "expected one in [0, 1)"),
        ("--defense=my_parts:NoDefense", "is a NoDefense; expected a subc"),
        ("--update=my_parts:NoDefense", "is a NoDefense; expected a subc"),
        ("--augment=my_parts:NoDefense", "is a NoDefense; expected a subc"),
        ("--dataset=my_parts:nothing", "returned a int; expected ((x_train"),
        ("--optimizer=my_parts:no_optimizer", "is a float; expected a keras"),
    ],
)
def test_what_is_no_such_part_is_refused(project, flag, sentence):
    process = train(project, flag, "--workdir=run")
    assert process.returncode == 1
    assert sentence in process.stderr, process.stderr
    assert "Traceback" not in process.stderr
    assert not (project / "run").exists()


def test_options_are_known_without_importing(project):
    (project / "heavy.py").write_text(
        "import mart_tf\n"
        "raise SystemExit('imported')\n"
        "class Mine(mart_tf.defenses.MART):\n"
        "    pass\n"
        "class Own:\n"
        "    def __init__(self, many: int, rate: float = 0.5): ...\n"
    )
    assert parameters.of("heavy:Mine") == parameters.of(
        "mart_tf.defenses.mart:MART"
    )
    own = parameters.of("heavy:Own")
    assert own["many"].required
    assert own["rate"] == parameters.Parameter("float", 0.5)


def test_instances_and_functions(project):
    import my_parts

    dataset = data.load(my_parts.stripes, validation_images=10)
    assert (len(dataset.train), len(dataset.test)) == (50, 20)
    assert dataset.name == "stripes"
    half = data.memory_split(*data.arrays(dataset.train))
    source = data.Source(("dark", "bright"), half, None)
    assert len(data.load(source, validation_images=10).train) == 30
    # No other process could make it again.
    with pytest.raises(ValueError, match="--dataset is an object of mart_tf"):
        mart_tf.train_run(dataset=source, model="digits_cnn")
    images, labels = data.arrays(dataset.train)
    model = mart_tf.AdversarialClassifier(
        my_parts.network((8, 8, 1), 2),
        my_parts.Smoothed(0.3),
        mart_tf.ThreatModel(epsilon=0.1),
        attack_steps=2,
        update=my_parts.Shorter(0.25),
    )
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(images, labels, 10, verbose=0).history
    assert history["robust_accuracy"][0] >= 0.0
    model.save(project / "model.keras")
    loaded = keras.saving.load_model(project / "model.keras")
    assert loaded.defense.share == 0.3
    assert loaded.update.share == 0.25


def test_an_attack_of_ones_own_beside_specs(project):
    import my_parts

    network = my_parts.network((8, 8, 1), 2)
    (images, labels), _ = my_parts.stripes()
    images = images[..., None].astype("float32")
    threat = mart_tf.ThreatModel(epsilon=0.1)
    report = mart_tf.evaluate_robustness(
        network,
        (images, labels),
        threat,
        ["pgd:steps=3:random_start=none:step_size=0.05", my_parts.Nudge(3)],
    )
    _, pgd, own = report.results
    assert own.name == "Nudge:steps=3"
    np.testing.assert_array_equal(own.outcome, pgd.outcome)
    adversarial = my_parts.Nudge(3)(network, images, labels, threat)
    same = mart_tf.attacks.PGD(3, 0.05, random_start="none")
    np.testing.assert_array_equal(
        adversarial, same(network, images, labels, threat)
    )
    with pytest.raises(ValueError, match="is listed twice"):
        mart_tf.evaluate_robustness(
            network, (images, labels), threat, [my_parts.Nudge()] * 2
        )
    with pytest.raises(ValueError, match="attacks holds 3; expected specs"):
        mart_tf.evaluate_robustness(network, (images, labels), threat, [3])


def test_keras_own_optimizers():
    from mart_tf.training import optimizers

    made = optimizers.create("keras.optimizers:AdamW:weight_decay=0.01", 0.5)
    assert isinstance(made, keras.optimizers.AdamW)
    assert float(made.learning_rate) == 0.5
    assert made.weight_decay == 0.01


def test_the_commands_of_the_page(project):
    text = CONTRIBUTING.read_text(encoding="utf-8")
    commands = re.findall(r"^mart-(\w+) (--.*my_parts:.*)$", text, re.MULTILINE)
    assert [program for program, _ in commands] == ["train", "evaluate"]
    for program, arguments in commands:
        done = programs.run(program, *arguments.split(), cwd=project)
        assert done.returncode == 0, done.stderr
    assert "my_parts:Nudge:steps=3" in done.stdout
