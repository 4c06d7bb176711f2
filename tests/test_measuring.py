"""Attacks over a whole data set in pieces, worked by hand on one pixel."""

import numpy as np
import pytest
import tensorflow as tf

from mart_tf.attacks import base
from mart_tf.evaluation import measuring
from mart_tf.evaluation import pieces
from mart_tf.evaluation import progress
from mart_tf.evaluation import subjects
from mart_tf.evaluation import unfinished

# Rows 0 and 3 are misclassified without attack.
PIXELS = (0.75, 0.0, 0.25, 0.625, 0.375, 0.125, 0.3125)
WRONG = [0, 3]
RIGHT = [1, 2, 4, 5, 6]


def classify(images):
    """Class 0 up to 1/2, class 1 above it."""
    score = images[:, 0] - 0.5
    return tf.stack([tf.zeros_like(score), score], axis=1)


class Up(base.Attack):
    """Some steps of 1/8 upwards from x."""

    climbs = True

    def __init__(self, steps):
        self.steps = steps
        self.started = []

    def start(self, images, labels, seeds, number=0):
        self.started += zip(
            images.numpy()[:, 0].tolist(), seeds.numpy().tolist(), strict=True
        )
        return {"adversarial": images}

    def step(self, images, labels, state, taken):
        adversarial = state["adversarial"]
        return {"adversarial": adversarial + 0.125}, classify(adversarial)


class Overflow(Up):
    """The scores of some rows are NaN under it."""

    def __init__(self, rows):
        super().__init__(3)
        self.pixels = [[PIXELS[row]] for row in rows]

    def step(self, images, labels, state, taken):
        state, logits = super().step(images, labels, state, taken)
        lost = tf.reduce_any(images == tf.transpose(self.pixels), 1)
        return state, tf.where(lost[:, None], np.nan, logits)

    @property
    def parameters(self):
        return {}


class Nearest(base.Attack):
    """Moves each example up by 1/4, wherever that leads."""

    norm = "linf"
    radius = 0.25

    def start(self, images, labels, seeds, number=0):
        return {"adversarial": images + 0.25}


def measurement(folder=None, shown=None):
    images = np.array(PIXELS, np.float32)[:, None]
    with progress.bar(False) as unseen:
        return measuring.Measurement(
            subjects.as_subject(classify, images=images),
            images,
            np.zeros(len(images), np.int32),
            2,
            seed=7,
            kept=unfinished.Unfinished(folder, dict),
            shown=shown or unseen,
        )


@pytest.fixture(params=[1, 10**6])
def measured(request, monkeypatch):
    """What measures, in pieces of two examples each and in one."""
    monkeypatch.setattr(pieces, "_STEPS", request.param)
    monkeypatch.setattr(pieces, "_LEAST_BATCHES", 1)
    return measurement()


def test_natural_errors_are_broken_after_no_step(measured):
    natural = measured.natural()
    assert np.flatnonzero(~natural.outcome).tolist() == WRONG
    assert natural.broken_after.tolist() == [0, -1, -1, 0, -1, -1, -1]


def test_natural_seconds_are_of_the_predictions_not_of_their_file(tmp_path):
    first = measurement(tmp_path)
    first.attack("up", Up(1))
    again = measurement(tmp_path)
    assert again.natural().seconds == first.natural().seconds


def test_each_example_has_the_seed_of_its_row(measured):
    attack = Up(1)
    measured.attack("up", attack)
    assert dict(attack.started) == {PIXELS[row]: [7, row] for row in RIGHT}


def assert_traced(measured, attack, rows):
    """The trace is the mean loss of some rows at three iterates."""
    # Those that a step looks at, of the rows that are attacked; what is broken
    # stays at the loss that it was broken with.
    iterates = {
        1: [0.0, 0.125, 0.25],
        2: [0.25, 0.375, 0.5],
        4: [0.375, 0.5, 0.625],
        5: [0.125, 0.25, 0.375],
        6: [0.3125, 0.4375, 0.5625],
    }
    [trace] = measured.traces
    losses = np.log1p(np.exp(np.array([iterates[r] for r in rows]) - 0.5))
    np.testing.assert_allclose(trace.losses, losses.mean(axis=0), rtol=1e-6)
    assert (trace.attack, trace.examples) == (attack, len(rows))


def test_steps_and_losses_are_those_of_each_example(measured):
    # 0.25 is above 1/2 after 3 steps, 0.375 and 0.3125 after 2; 0 and 0.125
    # never are.
    result = measured.attack("up", Up(3))
    assert result.broken_after.tolist() == [0, -1, 3, 0, 2, -1, 2]
    assert np.flatnonzero(result.outcome).tolist() == [1, 5]
    assert (result.attacked, result.accuracy) == (5, 2 / 7)
    assert_traced(measured, "up", RIGHT)


def test_losses_are_of_those_that_have_one(measured):
    # Row 2 has no scores where the attack starts: it is broken there.
    result = measured.attack("overflow", Overflow([2]))
    assert result.broken_after.tolist() == [0, -1, 0, 0, 2, -1, 2]
    assert measured.unscored["overflow"] == 1
    assert_traced(measured, "overflow", [1, 4, 5, 6])
    # Of none there is nothing to follow.
    measured.attack("all", Overflow(RIGHT))
    assert len(measured.traces) == 1


def test_a_distance_of_just_the_radius_is_inside(measured):
    # 0.375 and 0.3125 fall by moves of 1/4, the radius; 0.25 ends on the line.
    result = measured.attack("nearest", Nearest())
    inf = float("inf")
    assert result.distances.tolist() == [0, inf, inf, 0, 0.25, inf, 0.25]
    assert np.flatnonzero(result.outcome).tolist() == [1, 2, 5]
    summary = result.distance_summary
    assert (summary["found"], summary["not_found"]) == (2, 3)
    assert result.broken_after is None
    # Free of the threat model, it is no example of an attack inside it.
    assert measured.samples is None


def test_what_is_found_beyond_the_radius_stands_on_the_screen_too(capsys):
    class Near(Nearest):
        radius = 0.125

    with progress.bar(True) as shown:
        result = measurement(shown=shown).attack("near", Near())
    # Two of the five are found, and both a quarter away.
    assert result.accuracy == 5 / 7
    assert "near: accuracy 71.43%" in "".join(capsys.readouterr())


def test_samples_are_of_the_first_of_the_strongest_attacks(measured):
    for name, steps in [("weak", 2), ("first", 3), ("second", 3)]:
        measured.attack(name, Up(steps))
    samples = measured.samples
    assert (samples.attack, samples.accuracy) == ("first", 2 / 7)
    assert samples.predictions.tolist() == [1, 1, 1, 0, 0]
    natural = [PIXELS[row] for row in (2, 4, 6, 1, 5)]
    np.testing.assert_array_equal(samples.natural[:, 0], np.float32(natural))
