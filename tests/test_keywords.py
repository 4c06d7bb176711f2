"""Settings as Python gives them: plain values, and objects for names."""

import pathlib
import sys

import keras
import numpy as np
import pytest

from mart_tf import data
from mart_tf import defenses
from mart_tf import training
from mart_tf.runs import config as run_config
from mart_tf.runs import keywords
from mart_tf.training import optimizers

PARTS = """
import keras
from mart_tf import defenses

@keras.saving.register_keras_serializable("kept")
class Kept(defenses.Standard):
    def __init__(self, share: float = 0.5, word: str = "one"):
        self.share = share
        self.word = word

class Hidden(defenses.Standard):
    def __init__(self, share: float = 0.5):
        self.half = share / 2

def falling(rate, steps, epochs):
    return rate
"""


@pytest.fixture
def parts(tmp_path, monkeypatch):
    (tmp_path / "named_parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import named_parts

    yield named_parts
    del sys.modules["named_parts"]


def test_nothing_is_every_default():
    assert keywords.config({}) == run_config.Config()
    assert keywords.config({"epsilon": None}) == run_config.Config()


def test_plain_values_are_as_a_flag_reads_them(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    config = keywords.config(
        {
            "workdir": pathlib.Path("runs/a"),
            "data_dir": "~/data",
            "model": "~/network.keras",
            "epochs": np.int64(3),
            "epsilon": np.float32(0.25),
            "learning_rate": 1,
            "augment": ["crop", "flip"],
        }
    )
    assert config == run_config.Config(
        workdir="runs/a",
        data_dir="/home/somebody/data",
        model="/home/somebody/network.keras",
        epochs=3,
        epsilon=0.25,
        learning_rate=1.0,
        augment="crop,flip",
    )
    for value in (config.epochs, config.epsilon, config.learning_rate):
        assert type(value) in (int, float)
    assert isinstance(config.learning_rate, float)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epoch": 3}, "Unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"epochs": "3"}, "--epochs is '3'; expected a whole number."),
        ({"epochs": 2.5}, "--epochs is 2.5; expected a whole number."),
        ({"epochs": True}, "--epochs is True; expected a whole number."),
        ({"epsilon": "8/255"}, "--epsilon is '8/255'; expected a number."),
        ({"augment": 1}, "--augment is 1; expected a text."),
        ({"dataset": 3}, "--dataset is 3; expected a text."),
        ({"norm": ["linf"]}, r"--norm is \['linf'\]; expected a text."),
        ({"workdir": "gs://b/x"}, "--workdir is gs://b/x, a URL; expected"),
    ],
)
def test_other_values_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        keywords.config(settings)


@pytest.mark.parametrize(
    "spec",
    [
        "mart",
        "mart:regularization=6:form=released:divergence=false",
        "trades:regularization=2.5",
        "mma:max_margin=0.3",
        "dynamic:control_epochs=7",
    ],
)
def test_a_defense_is_what_makes_it_again(spec):
    config = keywords.config({"defense": defenses.get(spec)})
    assert config.defense == defenses.names.canonical(spec)
    assert config.resolved() == run_config.Config(defense=spec).resolved()


def test_other_objects_for_names(parts):
    config = keywords.config(
        {
            "defense": parts.Kept(0.25),
            "update": training.Update(),
            "schedule": parts.falling,
            "optimizer": keras.optimizers.AdamW,
        }
    )
    assert config.defense == "named_parts:Kept:share=0.25"
    assert config.update == "plain"
    assert config.schedule == "named_parts:falling"
    # Where the next Keras has it too.
    assert config.optimizer == "keras.optimizers:AdamW"
    again = defenses.get(config.defense)
    assert (again.share, again.word) == (0.25, "one")


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        (data.Flip(0.25), "flip:probability=0.25"),
        (["crop:padding=2", data.Cutout(4)], "crop:padding=2,cutout:size=4"),
        ((data.Crop(),), "crop"),
        ([], "none"),
        ("flip,crop", "flip,crop"),
    ],
)
def test_augmentations_are_what_makes_them_again(given, spelled):
    assert keywords.config({"augment": given}).augment == spelled


def test_what_cannot_be_made_again_is_refused(parts):
    class Inside(defenses.Standard):
        """Nobody else finds it."""

    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    for name, value in [
        ("defense", Inside()),
        ("defense", Inside),
        ("defense", parts.Hidden(0.5)),
        ("defense", parts.Kept(word="a:b")),
        ("defense", parts.Kept(share=np.zeros(3))),
        ("schedule", lambda rate, steps, epochs: rate),
        ("model", network),
        ("dataset", (np.zeros(3), np.zeros(3))),
    ]:
        with pytest.raises(ValueError, match="cannot make again") as caught:
            keywords.config({name: value})
        assert str(caught.value).startswith(f"--{name} is ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [1e-3, 3e-4])
def test_an_optimizer_brings_its_learning_rate(rate):
    # 1e-3 is Keras's default, which looks like a rate that is not given.
    config = keywords.config({"optimizer": keras.optimizers.Adam(rate)})
    assert config.optimizer == "keras.optimizers:Adam"
    assert config.learning_rate == rate


def test_an_optimizer_is_what_makes_it_again():
    given = keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5)
    config = keywords.config({"optimizer": given, "learning_rate": 0.1})
    again = optimizers.create(config.optimizer, config.learning_rate)
    one, two = given.get_config(), again.get_config()
    assert one | {"name": ""} == two | {"name": ""}


def test_an_optimizer_s_rate_is_one_number():
    with pytest.raises(ValueError, match=r"object with .* of 0.01; give one"):
        keywords.config(
            {"optimizer": keras.optimizers.Adam(0.01), "learning_rate": 0.1}
        )
    falling = keras.optimizers.schedules.CosineDecay(0.1, 1000)
    with pytest.raises(ValueError, match="schedule as its learning rate"):
        keywords.config({"optimizer": keras.optimizers.SGD(falling)})


def test_a_layer_is_the_same_however_many_keras_has_counted():
    layers = [keras.layers.RandomCrop(8, 8, seed=1) for _ in range(2)]
    assert layers[0].name != layers[1].name
    first, second = (keywords.config({"augment": one}) for one in layers)
    assert first == second


@pytest.mark.parametrize(
    "schedule",
    [
        "keras.optimizers.schedules:CosineDecay",
        "keras.optimizers.schedules:ExponentialDecay:decay_rate=0.5",
        keras.optimizers.schedules.CosineDecay,
        keras.optimizers.schedules.CosineDecay(0.1, 1000),
    ],
)
def test_schedules_of_keras_do_not_take_what_a_run_gives(schedule):
    # By position the steps of an epoch were CosineDecay's decay_steps, and the
    # epochs its alpha: the rate rose to 30 times what was asked for.
    config = keywords.config({"dataset": "digits", "schedule": schedule})
    with pytest.raises(ValueError, match="a function of these three that"):
        config.resolved()


def test_what_a_script_defines_is_no_module_s(monkeypatch):
    class Mine(defenses.Standard):
        """As if of a script."""

    Mine.__qualname__ = "Mine"
    Mine.__module__ = "__main__"
    with pytest.raises(ValueError, match="is an object of __main__.Mine, wh"):
        keywords.config({"defense": Mine()})
