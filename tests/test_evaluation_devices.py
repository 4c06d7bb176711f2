"""Evaluation on several devices: two logical CPUs, which stand for GPUs."""

import keras
import numpy as np
import programs
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import evaluation
from mart_tf import noise
from mart_tf.evaluation import engine
from mart_tf.evaluation import shares
from mart_tf.models import placed

_THREAT = mart_tf.ThreatModel(epsilon=0.15)
_CPUS = ["/device:CPU:0", "/device:CPU:1"]


class Sums(keras.layers.Dense):
    """A dense layer; its sums hang on no example's place in a batch."""

    def call(self, inputs):
        products = inputs[:, :, None] * self.kernel
        return self.activation(keras.ops.sum(products, axis=1) + self.bias)


class Subclassed(keras.Model):
    """A network that Keras cannot build again."""

    def __init__(self, noise=0.0):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.hidden = Sums(24, activation="relu")
        self.noise = noise
        self.seeds = keras.random.SeedGenerator(1)
        self.scores = Sums(10)

    def call(self, images):
        features = self.hidden(self.flatten(images))
        if self.noise:
            features += self.noise * keras.random.normal(
                keras.ops.shape(features), seed=self.seeds
            )
        return self.scores(features)


@pytest.fixture(scope="module")
def digits():
    """A network, a little trained, and 200 images that it has not seen."""
    images, labels = mart_tf.data.arrays(mart_tf.data.load("digits").test)
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(images[200:], labels[200:], epochs=8, verbose=0)
    return model, images[:200], labels[:200]


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(shares, "devices", lambda: _CPUS)


def _report(digits, attacks):
    model, images, labels = digits
    return mart_tf.evaluate_robustness(
        model, (images, labels), _THREAT, attacks, batch_size=50
    )


def test_the_report_is_that_of_one_device_bit_for_bit(digits, monkeypatch):
    attacks = ["pgd:steps=6", "square:queries=20"]
    reports, used = [], []
    on_device = placed.on_device

    def recorded(model, device):
        scores = on_device(model, device)

        def traced(images):
            used.append((device, scores(images).device))
            return scores(images)

        return traced

    monkeypatch.setattr(placed, "on_device", recorded)
    for devices in (_CPUS[:1], _CPUS):
        monkeypatch.setattr(shares, "devices", lambda names=devices: names)
        reports.append(_report(digits, attacks))
    assert {device for device, _ in used} == set(_CPUS)
    one, other = reports
    assert 0.0 < one.accuracy["pgd:steps=6"] < 0.9
    contents = [programs.timeless(report.as_json()) for report in reports]
    # An exponential's last bits may hang on an example's place in the batch.
    [first], [second] = (content.pop("traces") for content in contents)
    assert first.pop("losses") == pytest.approx(second.pop("losses"), 1e-6)
    assert first == second
    assert contents[0] == contents[1]
    for first, second in zip(one.results, other.results, strict=True):
        np.testing.assert_array_equal(first.outcome, second.outcome)
    np.testing.assert_array_equal(
        one.samples.adversarial, other.samples.adversarial
    )


def test_examples_are_dealt_evenly(digits, two, monkeypatch):
    widths = []
    made = engine.Engine.__init__

    def recorded(self, classify, width, *more):
        made(self, classify, width, *more)
        widths.append((width, self.share, self.cores))

    monkeypatch.setattr(engine.Engine, "__init__", recorded)
    model, images, labels = digits
    mart_tf.evaluate_robustness(
        model, (images, labels), _THREAT, [], batch_size=250
    )
    # One batch on one device; two of half the size on two.
    assert widths == [(100, 100, 2)]


def test_weights_lie_on_the_device(digits):
    model, images, _ = digits
    for device in _CPUS:
        scores = placed.on_device(model, device)
        with tf.device(device):
            graph = tf.function(scores).get_concrete_function(
                tf.constant(images[:3])
            )
            made = graph(tf.constant(images[:3]))
        assert {
            tensor.device[-5:]
            for tensor in graph.captured_inputs
            if tensor.dtype == tf.resource
        } == {device[-5:]}
        assert made.device.endswith(device)
        np.testing.assert_array_equal(made, model(images[:3], training=False))


def test_a_model_that_draws_goes_on_drawing():
    model = Subclassed(noise=1.0)
    images = tf.ones([2, 8, 8, 1])
    model(images)
    scores = tf.function(placed.on_device(model, _CPUS[1]))
    first, second = scores(images), scores(images)
    assert np.abs(first - second).max() > 0.0


def test_a_function_stays_on_one_device(two):
    subject = evaluation.subjects.as_subject(
        lambda images: tf.concat([images, -images], 1), images=np.ones((2, 1))
    )
    assert subject.on_device is None


def test_what_a_device_raises_ends_the_evaluation():
    def sound(images):
        return tf.concat([images, -images], axis=1)

    def broken(images):
        with tf.control_dependencies(
            [tf.debugging.Assert(False, ["no memory on this device"])]
        ):
            return sound(images)

    attack = evaluation.create(evaluation.resolve("pgd:steps=5")[0])
    attack = attack.on(sound, _THREAT, 2)
    devices = dict(zip(_CPUS, (sound, broken), strict=True))
    loop = engine.Engine(sound, 4, devices=devices)
    images = np.ones((64, 1), np.float32)
    seeds = noise.seeds(0, tf.range(64)).numpy()
    # In a loop TensorFlow may tell of what the error cut off.
    with pytest.raises(tf.errors.OpError):
        loop.run(attack, images, np.zeros(64, np.int32), seeds)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no memory"):
        loop.predict(images)
