"""How long an ensemble takes at most."""

import threading
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


@pytest.mark.parametrize(
    ("specs", "cores", "passes"),
    [
        # Each step of the second makes 20.
        (["apgd", "apgd:passes=20"], 1, 100 + 100 * 20),
        # 100 steps to each of 9 targets, from five starts.
        (["apgd_t:restarts=5"], 1, 100 * 9 * 5),
        # The last of them looks at stripes, then at 5000 windows.
        (["apgd", "apgd_t:restarts=5", "square"], 2, 100 + 4500 + 5001),
    ],
)
def test_is_the_work_times_the_measured_pace(monkeypatch, specs, cores, passes):
    """By a clock of the test's own: a pass of an image takes a day."""
    days, lock = [0], threading.Lock()

    def look(images):
        with lock:
            days[0] += len(images)
        return images

    def classify(images):
        # Called in each pass, not when traced; the gradient goes around it.
        seen = tf.numpy_function(look, [images], tf.float32)
        images += tf.stop_gradient(tf.reshape(seen, tf.shape(images)) - images)
        return images * tf.linspace(-1.0, 1.0, 10)

    monkeypatch.setattr(time, "perf_counter", lambda: 86400.0 * days[0])
    loop = engine.Engine(classify, 8, cores)
    threat = mart_tf.ThreatModel(epsilon=0.1)
    inner = [
        evaluation.create(evaluation.resolve(spec)[0]).on(classify, threat, 10)
        for spec in specs
    ]
    images = np.full((5, 1), 0.5, np.float32)
    labels, seeds = np.zeros(5, np.int32), np.zeros((5, 2), np.int64)
    said = estimate.sentence(
        "autoattack", inner, loop, 80, images, labels, seeds
    )
    assert said.startswith(f"autoattack: at most about {80 * passes} days, at")
