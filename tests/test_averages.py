"""The average of the weights: by hand, by TensorFlow's and Keras's, in use."""

import itertools

import keras
import linear
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf.models import outputs
from mart_tf.runs import config as run_config
from mart_tf.runs import devices
from mart_tf.training import averages


def averaged(weights, decay, warmup_steps=0):
    """The average after each step, of a weight that takes some values."""
    variable = keras.Variable([-7.0])
    average = averages.Averages(decay, warmup_steps)
    average.ensure([variable])
    values = []
    for step, weight in enumerate(weights):
        variable.assign([weight])
        average.update([variable], tf.constant(step, tf.int64))
        values.append(float(average.weights[0][0]))
    return values


def test_a_constant_decay_worked_by_hand():
    # 0.1 is what the warm-up begins with. What the weight was before its
    # first step counts for nothing.
    values = averaged([1.0, 2.0, 4.0, 8.0], decay=0.1)
    np.testing.assert_allclose(values, [1.0, 1.9, 3.79, 7.579], rtol=1e-6)


def test_a_decay_that_rises_worked_by_hand():
    # d = 0, 1/10, 2/11, then 0.2 rather than 3/12.
    values = averaged([1.0, 2.0, 4.0, 8.0], decay=0.2)
    third = (2 * 1.9 + 9 * 4.0) / 11
    np.testing.assert_allclose(
        values, [1.0, 1.9, third, 0.2 * third + 0.8 * 8.0], rtol=1e-6
    )


def test_the_decay_of_each_step():
    steps = tf.range(8, dtype=tf.int64)
    decays = averages.decay_at(steps, 0.2, warmup_steps=3)
    expected = [0, 0, 0, 1 / 10, 2 / 11, 0.2, 0.2, 0.2]
    np.testing.assert_allclose(decays, expected, rtol=1e-6)
    late = averages.decay_at(tf.constant(10**6, tf.int64), 0.995)
    np.testing.assert_allclose(late, 0.995, rtol=1e-6)


@pytest.mark.parametrize("warmup_steps", [0, 1, 5])
def test_equals_tensorflows(warmup_steps):
    weights = np.random.default_rng(0).normal(size=40).astype("float32")
    values = averaged(weights, 0.7, warmup_steps)
    first = max(1, warmup_steps)
    np.testing.assert_array_equal(values[:first], weights[:first])
    variable = tf.Variable([weights[first - 1]])
    number = tf.Variable(0.0)
    theirs = tf.train.ExponentialMovingAverage(0.7, num_updates=number)
    theirs.apply([variable])
    for t, weight in enumerate(weights[first:]):
        number.assign(t)
        variable.assign([weight])
        theirs.apply([variable])
        np.testing.assert_allclose(
            theirs.average(variable), [values[first + t]], rtol=1e-5
        )


class Watching(keras.callbacks.Callback):
    """Keeps the weights, and their averages, after each step."""

    def on_train_begin(self, logs=None):
        self.weights, self.averages = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(self.model.classifier.get_weights())
        self.averages.append([np.array(w) for w in self.model.averages.weights])


def fitted(strategy="single", jit_compile=False, optimizer=None, **settings):
    """Six steps on the linear network; the model and what was watched."""
    with devices.strategy(strategy).scope():
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(),
            "standard",
            linear.THREAT,
            attack_steps=2,
            **settings,
        )
        model.compile(
            optimizer or keras.optimizers.SGD(0.5), jit_compile=jit_compile
        )
    watching = Watching()
    model.fit(
        linear.IMAGES,
        linear.LABELS,
        batch_size=4,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[watching],
    )
    return model, watching


@pytest.mark.parametrize(
    "strategy, compiled",
    [("single", False), ("mirrored", False), ("single", True)],
)
def test_is_of_the_weights_after_each_step(strategy, compiled):
    model, watching = fitted(strategy, compiled, ema=0.25, ema_warmup_steps=2)
    assert len(watching.weights) == 6
    expected = watching.weights[0]
    for step, weights in enumerate(watching.weights):
        d = [0.0, 0.0, 1 / 10, 2 / 11, 0.25, 0.25][step]
        expected = [
            d * a + (1 - d) * w for a, w in zip(expected, weights, strict=True)
        ]
        for a, b in zip(watching.averages[step], expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    # Training itself goes on as without.
    plain, _ = fitted(strategy, compiled)
    for a, b in zip(
        model.classifier.get_weights(),
        plain.classifier.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=0 if not compiled else 1e-6)
    assert not plain.averages.weights


def test_a_runs_warm_up_is_of_its_epochs_or_a_share_of_it():
    # Wang et al. (ICML 2023): 2.5 % of 39,200 steps.
    share = run_config.Config(ema=0.995, ema_warmup=0.025, epochs=400)
    assert share.ema_warmup_steps(98) == 980
    epochs = run_config.Config(ema=0.995, ema_warmup_epochs=10, epochs=400)
    assert epochs.ema_warmup_steps(98) == 980
    assert run_config.Config(epochs=400).ema_warmup_steps(98) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ema_warmup": 0.1}, "is of an average of the weights, and none"),
        ({"ema": 0.9, "ema_warmup": 1.0}, "expected less than 1, such as"),
        (
            {"ema": 0.9, "ema_warmup": 0.1, "ema_warmup_epochs": 2.0},
            "ema_warmup_epochs=2 both set the warm-up of the average; give",
        ),
    ],
)
def test_refuses_a_warm_up(settings, message):
    with pytest.raises(ValueError, match=message):
        run_config.Config(**settings).resolved()


def test_equals_kerass():
    _, watching = fitted(ema=0.1)
    kernels = [np.zeros_like(linear.KERNEL)] + [w[0] for w in watching.weights]
    variable = keras.Variable(kernels[0])
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.1)
    for before, after in itertools.pairwise(kernels):
        optimizer.apply([before - after], [variable])
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(watching.averages[-1][0], variable, atol=1e-6)


def test_kerass_is_refused():
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    with pytest.raises(ValueError, match=r"\(ema=0.9\), in a run --ema=0"):
        fitted(optimizer=optimizer)


def normalized_network():
    return keras.Sequential(
        [
            keras.Input([linear.PIXELS]),
            keras.layers.Dense(
                4, kernel_initializer=keras.initializers.HeNormal(0)
            ),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.Dense(
                linear.CLASSES,
                kernel_regularizer=keras.regularizers.L2(0.1),
                kernel_initializer=keras.initializers.HeNormal(1),
            ),
        ]
    )


def normalized(epochs=8, **settings):
    model = mart_tf.AdversarialClassifier(
        normalized_network(),
        "mart",
        linear.THREAT,
        attack_steps=2,
        **settings,
    )
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9))
    if epochs:
        fit(model, epochs)
    return model


def fit(model, epochs):
    settings = {"batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(linear.IMAGES, linear.LABELS, epochs=epochs, **settings)


def evaluated(model):
    return model.evaluate(
        linear.IMAGES, linear.LABELS, return_dict=True, verbose=0
    )


def test_is_what_evaluation_prediction_and_export_see(tmp_path):
    model = normalized(ema=0.9)
    network = model.averaged()
    trainable = [np.array(w) for w in model.averages.weights]
    for seen, average, raw in zip(
        network.trainable_weights,
        trainable,
        model.classifier.trainable_weights,
        strict=True,
    ):
        np.testing.assert_array_equal(seen, average)
        assert (np.array(raw) != average).any()
    # Batch-norm statistics are the live model's.
    for seen, live in zip(
        network.non_trainable_weights,
        model.classifier.non_trainable_weights,
        strict=True,
    ):
        np.testing.assert_array_equal(seen, live)
    reference = mart_tf.AdversarialClassifier(
        network, "mart", linear.THREAT, attack_steps=2
    )
    reference.compile("sgd")
    seen = evaluated(model)
    assert seen == pytest.approx(evaluated(reference), rel=1e-5)
    raw = mart_tf.AdversarialClassifier(
        model.classifier, "mart", linear.THREAT, attack_steps=2
    )
    raw.compile("sgd")
    assert seen["loss"] != pytest.approx(evaluated(raw)["loss"], rel=1e-3)
    expected = network(linear.IMAGES, training=False)
    for logits in (
        model.predict(linear.IMAGES, verbose=0),
        model(linear.IMAGES),
        outputs.unwrap(model)[0](linear.IMAGES),
    ):
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(linear.IMAGES), expected, atol=1e-5)


def test_before_the_first_step_it_is_the_weights():
    model = normalized(epochs=0, ema=0.9)
    weights = [w + 0.5 for w in model.classifier.get_weights()]
    model.classifier.set_weights(weights)
    for a, b in zip(model.averaged().get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(
        model.predict(linear.IMAGES, verbose=0),
        model.classifier(linear.IMAGES),
        atol=1e-6,
    )


def test_goes_on_with_a_model_that_was_saved(tmp_path):
    model = normalized(ema=0.9, ema_warmup_steps=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.averages.decay == 0.9
    assert loaded.averages.warmup_steps == 3
    for each in (model, loaded):
        fit(each, 2)
    pairs = zip(model.averages.weights, loaded.averages.weights, strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_a_network_that_its_first_call_builds():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.scores = keras.layers.Dense(linear.CLASSES)

        def call(self, images):
            return self.scores(images)

    model = mart_tf.AdversarialClassifier(
        Own(), "standard", linear.THREAT, 1, ema=0.5
    )
    model.compile("sgd")
    fit(model, 2)
    kernel, bias = model.averages.weights
    assert kernel.shape == (linear.PIXELS, linear.CLASSES)
    np.testing.assert_allclose(
        model(linear.IMAGES),
        linear.IMAGES @ np.array(kernel) + np.array(bias),
        atol=1e-5,
    )


def built_by_a_call(**settings):
    model = mart_tf.AdversarialClassifier(
        keras.Sequential([keras.layers.Dense(linear.CLASSES)]),
        "standard",
        linear.THREAT,
        1,
        ema=0.5,
    )
    model.compile(keras.optimizers.SGD(linear.RATE))
    return model


def assert_predicts_by_its_average(model):
    found = model.predict(linear.IMAGES, verbose=0)
    expected = model.averaged().predict(linear.IMAGES, verbose=0)
    raw = model.classifier.predict(linear.IMAGES, verbose=0)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - raw).max() > 1e-3


def test_what_was_judged_before_training_is_judged_by_the_average_after():
    # Keras keeps what it traced for the first call.
    model = built_by_a_call()
    model.predict(linear.IMAGES, verbose=0)
    model.evaluate(linear.IMAGES, linear.LABELS, verbose=0)
    fit(model, 3)
    assert_predicts_by_its_average(model)


def test_saved_weights_bring_the_average_along(tmp_path):
    model = built_by_a_call()
    fit(model, 3)
    model.save_weights(tmp_path / "some.weights.h5")
    loaded = built_by_a_call()
    loaded(linear.IMAGES)
    loaded.load_weights(tmp_path / "some.weights.h5")
    assert_predicts_by_its_average(loaded)


def test_what_is_frozen_by_now_is_judged_by_its_average_too():
    model = normalized(epochs=3, ema=0.5)
    expected = model.averaged().predict(linear.IMAGES, verbose=0)
    model.classifier.trainable = False
    for found in (model, model.averaged()):
        np.testing.assert_array_equal(
            found.predict(linear.IMAGES, verbose=0), expected
        )


def test_refuses_other_weights_than_at_first():
    model = normalized(epochs=0, ema=0.9)
    model.classifier.layers[0].trainable = False
    with pytest.raises(ValueError, match="Other weights are trainable now"):
        fit(model, 1)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"ema": 1.0}, "ema is 1.0; expected a number of at least 0 and less"),
        ({"ema": -0.1}, "ema is -0.1; expected"),
        ({"ema": float("nan")}, "ema is nan; expected"),
        ({"ema": "0.9"}, "ema is '0.9'; expected"),
        ({"ema": 0.9, "ema_warmup_steps": -1}, "ema_warmup_steps is -1"),
        ({"ema": 0.9, "ema_warmup_steps": 0.5}, "expected a whole number"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        mart_tf.AdversarialClassifier(
            linear.linear_network(), threat=linear.THREAT, **settings
        )
