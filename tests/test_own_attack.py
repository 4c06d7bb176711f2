"""An attack of a user's own: what it must offer, how it counts in a report."""

import dataclasses
import functools
import json
import pathlib

import jsonschema
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import attacks
from mart_tf.attacks import base
from mart_tf.reports import saved

THREAT = mart_tf.ThreatModel(epsilon=0.25)
GENERATOR = np.random.RandomState(0)
IMAGES = GENERATOR.rand(40, 1).astype("float32")


def classify(images):
    """Class 1 above one half; more certain than float32 can say."""
    score = 1e3 * (images[:, 0] - 0.5)
    return tf.stack([tf.zeros_like(score), score], axis=1)


LABELS = (IMAGES[:, 0] > 0.5).astype("int32")


class Walk(attacks.Attack):
    """Steps along the sign of the gradient of the margin."""

    climbs = True
    plain = True
    objective = "margin"

    def __init__(
        self, steps: int = 3, length: float | None = None, restarts: int = 1
    ):
        self.steps = steps
        self.length = length
        self.restarts = restarts

    def prepare(self):
        if self.length is None:
            self.length = self.threat.epsilon / 2

    def start(self, images, labels, seeds, number=0):
        return {"adversarial": self.threat.random_start(images, seeds)}

    def step(self, images, labels, state, taken):
        adversarial, _, logits = attacks.ascent_step(
            self.classify,
            state["adversarial"],
            images,
            labels,
            self.threat,
            self.length,
            self.objective,
        )
        return {"adversarial": adversarial}, logits


class Shift(attacks.Attack):
    """Does all in `start`, by queries."""

    needs_gradient = False

    def start(self, images, labels, seeds, number=0):
        return {"adversarial": self.threat.project(images + 0.125, images)}


def evaluate(*listed, **settings):
    return mart_tf.evaluate_robustness(
        classify, (IMAGES, LABELS), THREAT, listed, **settings
    )


def test_instances_stand_among_specs():
    report = evaluate("fgsm", Walk(4), "cw", Walk(steps=4, restarts=2), Shift())
    names = [result.name for result in report.results]
    assert names == [
        "natural",
        "fgsm",
        "Walk:steps=4",
        "cw",
        "Walk:steps=4:restarts=2",
        "Shift",
    ]
    _, _, walk, _, twice, shift = report.results
    assert walk.parameters == {"steps": 4, "length": 0.125, "restarts": 1}
    assert (walk.access, shift.access) == ("gradients", "queries")
    assert walk.nature.kind == twice.nature.kind == "Walk"
    assert (walk.nature.steps, twice.nature.restarts) == (4, 2)
    # Of one pixel what lies within epsilon of the line falls.
    falls = np.abs(IMAGES[:, 0] - 0.5) < 0.25
    np.testing.assert_array_equal(walk.outcome, ~falls)
    up = (IMAGES[:, 0] <= 0.5) & (IMAGES[:, 0] + 0.125 > 0.5)
    np.testing.assert_array_equal(shift.outcome, ~up)
    assert "Walk:steps=4" in [trace.attack for trace in report.traces]
    # What is attacked again is bound again, with the defaults of there.
    assert Walk(4).on(classify, THREAT, 2).on(
        classify, mart_tf.ThreatModel(epsilon=0.5), 2
    ).parameters["length"] == pytest.approx(0.25)


def test_it_counts_among_the_signs_of_masking():
    report = evaluate(Walk(20), Walk(4), Walk(20, restarts=2), Shift())
    more, _, queries, _, restarts, _, _ = (
        (sign.verdict, sign.evidence) for sign in report.signs
    )
    assert more[0] == queries[0] == restarts[0] == "passed"
    assert "under Walk:steps=4, " in more[1]
    assert "under Walk:steps=20" in more[1]
    assert "under Shift" in queries[1]
    assert "under Walk:steps=20:restarts=2" in restarts[1]
    # CleverHans's PGD follows a cross-entropy that is flat here.
    report = evaluate(Walk(20), "cleverhans:pgd:nb_iter=20")
    assert report.signs[6].verdict == "failed"
    assert "under Walk:steps=20" in report.signs[6].evidence


def test_what_was_stopped_goes_on(tmp_path):
    calls = []

    class Counted(Walk):
        def start(self, images, labels, seeds, number=0):
            calls.append(number)
            return super().start(images, labels, seeds, number)

    class Stopped(Walk):
        def start(self, images, labels, seeds, number=0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(Counted(), Stopped(), directory=tmp_path)
    assert calls
    calls.clear()
    report = evaluate(Counted(), "fgsm", directory=tmp_path)
    assert not calls
    assert [result.name for result in report.results][1:] == ["Counted", "fgsm"]


def test_refuses_a_list():
    with pytest.raises(ValueError, match="'Walk' is listed twice; list it"):
        evaluate(Walk(), Walk())
    with pytest.raises(ValueError, match="expected specs, such as 'pgd:steps"):
        evaluate(Walk)
    with pytest.raises(ValueError, match="attacks holds 3; expected specs"):
        evaluate("fgsm", 3)


class Masked(Walk):
    """Moves the pixels of a mask alone, and says why, or does not."""

    def __init__(self, mask: object = None, reason: object = None):
        super().__init__()
        self.mask = mask
        self.reason = reason


def test_the_name_of_options_that_are_long():
    def reason(kappa):
        return kappa

    ones, others = np.ones(5000), np.ones(5000)
    others[2500] = 0.0
    names = [str(Masked(mask)) for mask in (ones, others, None)]
    assert names[0].startswith("Masked:mask=float64[5000]#")
    # An array is cut short where it is printed: these would look the same.
    assert names[0] != names[1]
    assert names[2] == "Masked"
    partial = functools.partial(reason, kappa=0.0)
    assert str(Masked(reason=partial)) == "Masked:reason=reason(kappa=0.0)"
    assert Masked(reason=partial).parameters["reason"] == "reason(kappa=0.0)"
    assert str(Masked(reason=Walk())).startswith("Masked:reason=Walk")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (pathlib.Path("a/b"), "a/b"),
        ({"k": 1}, "{'k': 1}"),
        ((1, pathlib.Path("b"), None), [1, "b", None]),
        (np.float32(0.5), 0.5),
        (tf.constant(3), 3),
        ([("a", pathlib.Path("b"))], [["a", "b"]]),
    ],
)
def test_any_option_can_stand_in_a_report(option, text, tmp_path):
    evaluate(Masked(reason=option), directory=tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(content, saved.schema())
    [attack] = content["attacks"]
    assert attack["parameters"]["reason"] == text


def test_the_shortest_fixes_the_options_of_ours():
    class PGD50(attacks.PGD):
        def __init__(self):
            super().__init__(steps=50)

    short, plain = evaluate(PGD50(), attacks.PGD(50)).results[1:]
    assert (short.name, short.nature.steps) == ("PGD50", 50)
    np.testing.assert_array_equal(short.outcome, plain.outcome)


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "int64"])
def test_labels_of_any_integers(kind):
    labels = LABELS.astype(kind)
    for attack in (Walk(), attacks.APGD(steps=3), attacks.FAB(steps=3)):
        made = attack(classify, IMAGES, labels, THREAT, seed=0)
        expected = attack(classify, IMAGES, LABELS, THREAT, seed=0)
        np.testing.assert_array_equal(made, expected)
    made = attacks.pgd(classify, IMAGES, labels, THREAT, steps=2, seed=0)
    expected = attacks.pgd(classify, IMAGES, LABELS, THREAT, steps=2, seed=0)
    np.testing.assert_array_equal(made, expected)


def test_labels_that_are_no_integers():
    for attack in (Walk(), attacks.fgsm, attacks.pgd):
        with pytest.raises(ValueError, match="labels are float32 of shape"):
            attack(classify, IMAGES, LABELS.astype("float32"), THREAT)


def nothing(self, images, labels, state, taken):
    return state


def far(self, images, labels, seeds, number=0):
    return {"adversarial": images + 0.5}


@pytest.mark.parametrize(
    "members, message",
    [
        (
            {"step": nothing},
            "step returned a dict of adversarial; expected the",
        ),
        (
            {"start": lambda self, images, *_: images},
            "start returned a EagerTensor; expected a dict of tensors",
        ),
        ({"start": base.Attack.start}, "of 3 steps has no method start"),
        ({"step": base.Attack.step}, "of 3 steps has no method step"),
        ({"start": far}, "Odd left the threat model by 0"),
        ({"steps": 0, "start": far}, "Odd left the threat model by 0"),
        ({"random": False, "restarts": 2}, "restarts is 2, and all starts of"),
        ({"restarts": 0}, "restarts is 0; expected a whole number"),
        ({"norm": "l2"}, "minimises a distance in l2 and has no radius"),
        (
            {"__init__": lambda self, depth=1: None},
            "Odd keeps its option depth nowhere; expected self.depth = depth",
        ),
    ],
)
def test_refuses_what_does_not_keep_to_the_form(members, message):
    plain = {"__init__": lambda self: None, "steps": 3, "length": 0.1}
    odd = type("Odd", (Walk,), {**plain, **members})
    with pytest.raises(ValueError, match=message):
        evaluate(odd())


def test_one_whose_reach_is_not_known_has_a_report():
    class Steps(Walk):
        objective = "cross_entropy"

    signs = evaluate("fgsm", Steps(10)).signs
    assert signs[0].verdict == "not tested"


def test_one_that_is_a_dataclass():
    @dataclasses.dataclass
    class Data(Walk):
        steps: int = 3
        length: float | None = None
        restarts: int = 1

    report = evaluate(Data(), Walk())
    one, other = report.results[1:3]
    np.testing.assert_array_equal(one.outcome, other.outcome)
