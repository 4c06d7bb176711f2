"""Defenses of one gradient step, their x' worked by hand."""

import linear
import numpy as np
import pytest
import splitmix

import mart_tf
from mart_tf import defenses
from mart_tf.runs import devices

EPSILON = np.float32(0.2)


def one_step_by_hand(noise, step, reach):
    """x + n, clipped to the pixels; a step; clipped to them and to reach."""
    seed = splitmix.fold(linear.SEED, 0)
    start = np.stack(
        [splitmix.uniform(seed, int(row), linear.PIXELS) for row in linear.ROWS]
    )
    start = linear.IMAGES + noise * EPSILON * (2 * start - 1)
    start = np.clip(start, 0, 1)
    gradient = linear.softmax_of(start) - linear.one_hot(linear.LABELS)
    moved = start + step * EPSILON * np.sign(gradient @ linear.KERNEL.T)
    if reach is not None:
        moved = np.clip(moved, linear.IMAGES - reach, linear.IMAGES + reach)
    return np.clip(moved, 0, 1)


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
@pytest.mark.parametrize(
    "spec, noise, step, reach",
    [
        ("fgsm_rs", 1.0, 1.25, EPSILON),
        ("fgsm_rs:step=0.5", 1.0, 0.5, EPSILON),
        # Not projected to the ball.
        ("nfgsm", 2.0, 1.0, None),
        ("nfgsm:noise=0.5:step=0.75", 0.5, 0.75, None),
    ],
)
def test_a_step_equals_the_closed_form(strategy, spec, noise, step, reach):
    adversarial = one_step_by_hand(noise, step, reach)
    expected = linear.update(
        0.0,
        linear.softmax_of(adversarial) - linear.one_hot(linear.LABELS),
        adversarial,
    )
    mine = linear.train_once(devices.strategy(strategy), spec)
    for weights, by_hand in zip(mine, expected, strict=True):
        np.testing.assert_allclose(weights, by_hand, atol=1e-6)
    beyond = np.abs(adversarial - linear.IMAGES).max() > EPSILON + 1e-6
    assert beyond == spec.startswith("nfgsm")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("nfgsm:noise=-1", "noise is -1; expected a number from 0"),
        ("nfgsm:step=0", "step is 0; expected a number above 0"),
        ("fgsm_rs:step=nan", "step"),
        ("fgsm_rs:noise=2", "has no option 'noise'"),
    ],
)
def test_refuses_options_out_of_range(spec, message):
    with pytest.raises(ValueError, match=message):
        defenses.get(spec)


@pytest.mark.parametrize("random_start", ["none", "gaussian"])
def test_refuses_another_start_than_its_own(random_start):
    with pytest.raises(ValueError, match="uniform noise of its own"):
        mart_tf.AdversarialClassifier(
            linear.linear_network(),
            "nfgsm",
            linear.THREAT,
            random_start=random_start,
        )
