"""The option grammar: what parses, what is refused, and in which words."""

import importlib.util
import sys

import numpy as np
import pytest

from mart_tf import bounds
from mart_tf import defenses
from mart_tf import models
from mart_tf import options
from mart_tf import parameters
from mart_tf import training
from mart_tf.training import optimizers
from mart_tf.training import schedule_names


def test_parses_a_name_an_argument_and_options():
    spec = options.parse("folder:/data/a:b:size=64:mode=memory")
    assert spec.name == "folder"
    assert spec.argument == "/data/a:b"
    assert spec.options == {"size": "64", "mode": "memory"}


def test_reads_values_by_the_signature_in_the_source():
    spec = defenses.names.resolve("mart:regularization=6:form=released")
    assert spec.options == {"regularization": 6.0, "form": "released"}
    spec = schedule_names.resolve("piecewise:at=75+90")
    assert spec.options == {"at": (75, 90)}


@pytest.mark.parametrize(
    ("text", "value"),
    [("4", 4), ("1.0", 1.0), ("1e-3", 1e-3), ("False", False), ("me", "me")]
    # What no number is written like.
    + [("007", "007"), ("nan", "nan"), ("-.5", -0.5), ("0", 0)],
)
def test_reads_what_no_annotation_and_no_default_tells(text, value):
    spec = optimizers.check(f"keras.optimizers:SGD:clipnorm={text}")
    read = spec.options["clipnorm"]
    assert (read, type(read)) == (value, type(value))


def test_signature_gives_defaults_and_annotations():
    known = parameters.of("mart_tf.defenses.mart:MART")
    assert list(known)[:2] == ["regularization", "form"]
    assert known["outer"].annotation.startswith("Literal[")
    assert known["regularization"].default == 5.0
    assert not known["form"].required
    assert parameters.of("mart_tf.defenses.natural:Natural") == {}


def test_a_complete_spec_says_every_option():
    said = defenses.names.complete("mart:outer=ce")
    assert said == (
        "mart:regularization=5:form=paper:outer=ce:divergence=true:"
        "weighting=soft:inner=cross_entropy:regularized_fraction=1"
    )
    said = schedule_names.complete("piecewise")
    assert said == "piecewise:at=75+90:factor=0.1:warmup_epochs=0"
    assert defenses.names.complete("natural") == "natural"


def test_a_complete_spec_stays_what_it_is_when_defaults_change(monkeypatch):
    said = defenses.names.complete("mart")
    known = dict(parameters.of("mart_tf.defenses.mart:MART"))
    known["regularization"] = parameters.Parameter("float", 99.0)
    monkeypatch.setattr(parameters, "of", lambda import_path: known)
    again = defenses.names.resolve(said)
    assert again.options["regularization"] == 5.0


@pytest.mark.parametrize(
    "table, reserved",
    [
        (defenses.DEFENSES, ()),
        (training.SCHEDULES, training.SCHEDULE_RESERVED),
        (training.OPTIMIZERS, training.OPTIMIZER_RESERVED),
        (
            # Its options are those of another: tests/test_applications.py.
            {k: v for k, v in models.MODELS.items() if k != "keras"},
            ("input_shape", "num_classes", "seed", "pixel_range"),
        ),
    ],
)
def test_every_default_can_be_written_and_read_again(table, reserved):
    names = options.Names(table, "name", reserved)
    for name, import_path in table.items():
        said = names.complete(name)
        defaults = {
            key: parameter.default
            for key, parameter in parameters.of(import_path).items()
            if key not in reserved
        }
        assert names.resolve(said).options == defaults


@pytest.mark.parametrize("text, number", [("0.3", 0.3), ("8/255", 8 / 255)])
def test_reads_a_radius_as_the_field_writes_it(text, number):
    assert bounds.read_number(text) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (8 / 255, "8/255"),
        (float(np.float32(8 / 255)), "8/255"),
        (2 / 255, "2/255"),
        (300 / 255, "300/255"),
        # Decimals where they say it as shortly: 0.2 is 51/255 too.
        (0.2, "0.2"),
        (float(np.float32(0.3)), "0.3"),
        (0.0375, "0.0375"),
        (8.0, "8"),
        (8.0001 / 255, "0.0313729"),
        (1e-12, "1e-12"),
        (0.0, "0"),
        (-8 / 255, "-8/255"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        # Of pixels to 255, where n/255 is nobody's radius.
        (12345.5, "12345.5"),
        (128.775, "128.775"),
    ],
)
def test_writes_a_radius_as_the_field_does(number, text):
    assert bounds.spelled(number) == text


@pytest.mark.parametrize(
    ("right", "of", "texts"),
    [
        (9_996, 10_000, ["99", "99.9", "99.96"]),
        (26_031, 26_032, ["99", "99.9", "99.99"]),
        (26_032, 26_032, ["100", "100.0", "100.00"]),
        (1, 26_032, ["1", "0.1", "0.01"]),
        (0, 26_032, ["0", "0.0", "0.00"]),
        (3, 8, ["38", "37.5", "37.50"]),
    ],
)
def test_all_and_none_are_said_of_all_and_none(right, of, texts):
    said = [bounds.percent(right / of, places) for places in range(3)]
    assert said == texts


@pytest.mark.parametrize(
    "text, message",
    [
        ("marrt", "did you mean 'mart'"),
        ("mart:regularisation=6", "did you mean 'regularization'"),
        ("mart:regularization=six", "expected a number"),
        ("mart:form=relased", "did you mean 'released'"),
        ("mart:form=paper:form=paper", "sets 'form' twice"),
        ("mart:6", "'6' is not an option"),
        ("mart:form=paper:6", "has '6' after 'form=paper'"),
        ("standard:steps=3", "its options: none"),
        ("mart:", "ends in a colon"),
        ("", "has no name"),
    ],
)
def test_refuses_in_one_sentence(text, message):
    with pytest.raises(ValueError, match=message) as error:
        defenses.names.resolve(text)
    assert "\n" not in str(error.value)


def test_refuses_an_empty_list_item():
    assert options.split_list("fgsm, pgd:steps=20") == ["fgsm", "pgd:steps=20"]
    with pytest.raises(ValueError, match="empty item"):
        options.split_list("fgsm,,pgd")


def test_every_table_names_things_that_load():
    for table in (defenses.DEFENSES, training.SCHEDULES):
        for import_path in table.values():
            assert callable(options.load(import_path))


class _Editable:
    """Such a finder as pip leaves of a package that it installs editable."""

    def __init__(self, name, path):
        self._name, self._path = name, path

    def find_spec(self, name, path=None, target=None):
        if name == self._name:
            return importlib.util.spec_from_file_location(name, self._path)
        return None


def test_a_package_that_is_installed_editable_is_read_too(
    tmp_path, monkeypatch
):
    file = tmp_path / "elsewhere.py"
    file.write_text("def build(width: int = 3):\n    raise SystemExit\n")
    assert parameters.find("installed_editable") is None
    finders = [*sys.meta_path, _Editable("installed_editable", file)]
    monkeypatch.setattr(sys, "meta_path", finders)
    found = parameters.of("installed_editable:build")
    assert found == {"width": parameters.Parameter("int", 3)}
    assert "installed_editable" not in sys.modules
