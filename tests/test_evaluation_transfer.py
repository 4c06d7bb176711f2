"""Attacks made on a surrogate, to their end, and tried on another model."""

import numpy as np
import tensorflow as tf

from mart_tf.attacks import base
from mart_tf.evaluation import engine
from mart_tf.evaluation import surrogates

LINE = 0.55


def classify(images):
    """Class 0 below the line, class 1 above it."""
    margin = LINE - images[:, 0]
    return tf.stack([margin, tf.zeros_like(margin)], axis=1)


def run(attack, pixels, batch_size=4, seeds=None):
    """What is made of images of one pixel and class 0, and what was told."""
    images = np.array(pixels, np.float32)[:, None]
    labels = np.zeros(len(images), np.int32)
    if seeds is None:
        seeds = np.zeros([len(images), 2], np.int64)
    told = []
    loop = engine.Engine(classify, batch_size)
    crafted = surrogates.Craft(attack, loop).run(
        images, labels, seeds, lambda *done: told.append(done)
    )
    return crafted, told


class Overshooting(base.Attack):
    """Two steps up, one far down; the highest iterate is the best.

    The surrogate is fooled from the first step on: nothing stops there.
    """

    steps = 3

    def start(self, images, labels, seeds, number=0):
        return {"adversarial": images, "highest": images}

    def step(self, images, labels, state, taken):
        down = tf.reshape(taken, [-1, 1]) == 2
        moved = state["adversarial"] + tf.where(down, -0.5, 0.1)
        highest = tf.maximum(state["highest"], moved)
        fooled = tf.tile([[0.0, 1.0]], [tf.shape(images)[0], 1])
        return {"adversarial": moved, "highest": highest}, fooled

    def best(self, state):
        return state["highest"]


def test_the_best_iterate_is_tried_and_nothing_stops_before():
    # Up to 0.6, over the line, and down to 0.1; up to 0.4, under it.
    crafted, told = run(Overshooting(), [0.4, 0.2])
    np.testing.assert_allclose(crafted.adversarial[:, 0], [0.6, 0.4])
    assert crafted.broken.tolist() == [True, False]
    assert crafted.predictions.tolist() == [1, 0]
    assert crafted.steps.tolist() == [3, 3]
    assert told == [(2.0, 1)]


class Rounds(base.Attack):
    """One step of 0.1, from other places in each round."""

    steps = 1
    rounds = 3
    places = (0.0, 0.2, -0.2)

    def start(self, images, labels, seeds, number=0):
        return {"adversarial": images + self.places[number]}

    def step(self, images, labels, state, taken):
        adversarial = state["adversarial"]
        return {"adversarial": adversarial + 0.1}, classify(adversarial)


def test_what_a_round_has_broken_stays_as_it_was():
    # Rounds end at +0.1, +0.3 and -0.1: 0.5 falls to the first alone and 0.3
    # to the second alone; 0.1 stands, and keeps what the last round made.
    crafted, told = run(Rounds(), [0.5, 0.3, 0.1])
    np.testing.assert_allclose(
        crafted.adversarial[:, 0], [0.6, 0.6, 0.0], atol=1e-6
    )
    assert crafted.broken.tolist() == [True, True, False]
    assert crafted.predictions.tolist() == [1, 1, 0]
    # On a surrogate every example takes all steps of all rounds.
    assert crafted.steps.tolist() == [3, 3, 3]
    np.testing.assert_allclose([done for done, _ in told], [1.0, 2.0, 3.0])
    assert [broken for _, broken in told] == [1, 2, 2]


class BySeed(base.Attack):
    """Does all its work in `start`: moves an example by its seed's share."""

    def start(self, images, labels, seeds, number=0):
        return {"adversarial": images + tf.cast(seeds[:, 1:], "float32") / 100}

    def step(self, images, labels, state, taken):
        raise AssertionError("an attack of no steps takes none")


def test_each_example_of_every_batch_has_its_own_seed_and_place():
    pixels = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.05]
    seeds = np.array([[9, row] for row in (3, 1, 4, 1, 5, 9, 2)])
    # Three batches, of which one example fills the last up.
    crafted, told = run(BySeed(), pixels, batch_size=3, seeds=seeds)
    expected = np.array(pixels) + seeds[:, 1] / 100
    np.testing.assert_allclose(crafted.adversarial[:, 0], expected, atol=1e-6)
    assert crafted.broken.tolist() == (expected > LINE).tolist()
    assert crafted.broken.tolist() == [False] * 5 + [True, False]
    assert told == [(3.0, 0), (6.0, 1), (7.0, 1)]


def test_no_examples_are_attacked():
    crafted, told = run(Overshooting(), [])
    assert crafted.broken.shape == (0,)
    assert not told
