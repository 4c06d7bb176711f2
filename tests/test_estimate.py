"""How long an ensemble takes at most."""

import re
import time

import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import evaluation
from mart_tf.evaluation import engine
from mart_tf.evaluation import estimate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 seconds"),
        (119, "119 seconds"),
        (121, "2 minutes"),
        (3 * 3600, "3 hours"),
        (10 * 86400, "10 days"),
    ],
)
def test_times_in_their_units(seconds, text):
    assert estimate.spelled(seconds) == text


@pytest.mark.parametrize("passes", [1, 20])
def test_is_the_work_times_the_measured_pace(monkeypatch, passes):
    """Each step takes a second of a clock of the test's own."""
    now = [0.0]

    def classify(images):
        return tf.concat([images, -images, 0.5 * images], axis=1)

    def clock():
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(time, "perf_counter", clock)
    loop = engine.Engine(classify, 8, cores=1)
    threat = mart_tf.ThreatModel(epsilon=0.1)
    inner = [
        evaluation.create(evaluation.resolve(spec)[0]).on(classify, threat, 3)
        for spec in (f"apgd:passes={passes}", "square")
    ]
    images = np.full((5, 1), 0.5, np.float32)
    labels, seeds = np.zeros(5, np.int32), np.zeros((5, 2), np.int64)
    said = estimate.sentence(
        "autoattack", inner, loop, 80, images, labels, seeds
    )
    # A step of 8 examples in a second, all its passes: 80 take 10.
    hours = 10 * (100 + 5000) / 3600
    assert re.match(rf"autoattack: at most about {hours:.0f} hours, at", said)
