"""AWP: a step worked by hand, what it leaves alone, when it begins."""

import keras
import linear
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import mart_tf
from mart_tf import training
from mart_tf.runs import devices

GAMMA = 0.3


def gradient_by_hand(kernel, bias, images):
    """Of the weighted mean of the cross-entropy, in numpy."""
    part = scipy.special.softmax(images @ kernel + bias, axis=1)
    part -= linear.one_hot(linear.LABELS)
    part *= linear.SAMPLE_WEIGHT[:, None] / linear.EXAMPLES
    return images.T @ part, part.sum(0)


def step_by_hand(images, gamma, kernel=linear.KERNEL, bias=linear.BIAS):
    """Steps (2) to (5): the bias is not perturbed, decay is of w."""
    uphill, _ = gradient_by_hand(kernel, bias, images)
    size = np.sqrt((kernel**2).sum()) / np.sqrt((uphill**2).sum())
    there = kernel + gamma * size * uphill
    kernel_gradient, bias_gradient = gradient_by_hand(there, bias, images)
    return [
        kernel - linear.RATE * (kernel_gradient + linear.DECAY * kernel),
        bias - linear.RATE * (bias_gradient + linear.DECAY * bias),
    ]


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
@pytest.mark.parametrize("from_epoch", [1, 2])
def test_a_step_equals_the_closed_form(strategy, from_epoch):
    strategy = devices.strategy(strategy)
    model, logs = linear.train(
        strategy, "standard", update=training.AWP(GAMMA, from_epoch), epochs=1
    )
    # x' is found at w.
    adversarial = linear.attack_by_hand(linear.ROWS)
    gamma = GAMMA if from_epoch == 1 else 0.0
    expected = step_by_hand(adversarial, gamma)
    for new, own in zip(model.classifier.get_weights(), expected, strict=True):
        np.testing.assert_allclose(new, own, atol=1e-5)
    without = step_by_hand(adversarial, 0.0)
    assert (np.abs(expected[0] - without[0]).max() > 1e-3) == (gamma > 0)


def test_begins_with_its_epoch():
    """Two epochs of one step on natural images: the second is perturbed."""
    settings = {"defense": "natural", "epochs": 2}
    alone = tf.distribute.get_strategy()
    model, _ = linear.train(alone, update=training.AWP(GAMMA, 2), **settings)
    first = step_by_hand(linear.IMAGES, 0.0)
    expected = step_by_hand(linear.IMAGES, GAMMA, *first)
    for new, own in zip(model.classifier.get_weights(), expected, strict=True):
        np.testing.assert_allclose(new, own, atol=1e-5)


def normalised():
    return keras.Sequential(
        [
            keras.Input([linear.PIXELS]),
            keras.layers.Dense(
                4, kernel_initializer=keras.initializers.HeNormal(0)
            ),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.Dense(
                linear.CLASSES,
                kernel_initializer=keras.initializers.HeNormal(1),
            ),
        ]
    )


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
def test_batch_statistics_are_of_the_perturbed_weights(strategy):
    """Moved once: 0.99 times 0, and 0.01 of the batch's mean at w + v."""
    model, _ = linear.train(
        devices.strategy(strategy),
        "natural",
        make=normalised,
        update=training.AWP(GAMMA),
    )
    network = normalised()
    kernel, bias = network.layers[0].weights
    with tf.GradientTape() as tape:
        logits = network(linear.IMAGES, training=True)
        values = mart_tf.losses.cross_entropy(linear.LABELS, logits)
        value = tf.reduce_mean(linear.SAMPLE_WEIGHT * values)
    uphill = tape.gradient(value, kernel.value)
    there = kernel + GAMMA * tf.norm(kernel) * uphill / tf.norm(uphill)
    means = [
        0.01 * tf.reduce_mean(linear.IMAGES @ at + bias, axis=0)
        for at in (there, kernel)
    ]
    moved = model.classifier.layers[1].moving_mean
    np.testing.assert_allclose(moved, means[0], atol=1e-6)
    assert np.abs(moved - means[1]).max() > 1e-4


def test_beside_an_average_and_a_memory_two_replicas_equal_one():
    """MMA keeps an epsilon of each example; EMA an average of the weights."""
    settings = {
        "defense": "mma",
        "make": normalised,
        "update": training.AWP(GAMMA, 2),
        "ema": 0.5,
        "rows": 1000,
        "epochs": 3,
    }
    one, logs = linear.train(devices.strategy("single"), **settings)
    two, other = linear.train(devices.strategy("mirrored"), **settings)
    assert two.distribute_strategy.num_replicas_in_sync == 2
    for first, second in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)
    assert logs["margin"] == pytest.approx(other["margin"], abs=1e-5)
    assert logs["loss"] == pytest.approx(other["loss"], abs=1e-5)


def test_compiled_by_xla_the_step_is_the_same():
    weights = []
    for compiled in (False, True):
        model = mart_tf.AdversarialClassifier(
            normalised(),
            "standard",
            linear.THREAT,
            attack_steps=1,
            update="awp:gamma=0.1:from_epoch=2",
        )
        model.compile(keras.optimizers.SGD(0.1), jit_compile=compiled)
        batches = tf.data.Dataset.from_tensors((linear.IMAGES, linear.LABELS))
        model.fit(batches, epochs=3, verbose=0)
        weights.append(model.classifier.get_weights())
    for plain, by_xla in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, by_xla, atol=1e-5)
    assert model.settings()["update"] == "awp:gamma=0.1:from_epoch=2"


def test_goes_by_epochs_where_it_begins_later():
    assert not training.AWP(0.01).reads_epoch
    assert training.AWP(0.01, from_epoch=2).reads_epoch
    assert not training.Update().reads_epoch


def test_is_saved_with_the_model(tmp_path):
    model, _ = linear.train(
        tf.distribute.get_strategy(), "natural", update=training.AWP(0.01, 10)
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.update, training.AWP)
    assert (loaded.update.gamma, loaded.update.from_epoch) == (0.01, 10)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gamma": 0.0}, "awp:gamma is 0; expected a number above 0"),
        ({"gamma": 1.5}, "awp:gamma is 1.5; expected .* at most 1"),
        ({"gamma": float("nan")}, "awp:gamma is nan"),
        ({"gamma": True}, "awp:gamma is True"),
        ({"gamma": "0.1"}, "awp:gamma is '0.1'"),
        ({"from_epoch": 0}, "awp:from_epoch is 0; expected a whole number"),
        ({"from_epoch": 2.0}, "awp:from_epoch is 2.0"),
    ],
)
def test_refuses_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        training.AWP(**options)


def test_an_embedding_from_a_later_epoch():
    images = keras.Input((8, 8, 1))
    # Its gradient is sparse.
    places = keras.layers.Embedding(64, 3)(np.arange(64))
    features = keras.layers.Reshape((64, 1))(images) * places
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(features))
    model = mart_tf.AdversarialClassifier(
        keras.Model(images, logits),
        threat=linear.THREAT,
        attack_steps=1,
        update="awp:from_epoch=2",
    )
    model.compile("sgd")
    values = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
    model.fit(values, np.arange(8) % 3, epochs=2, verbose=0)
    assert np.isfinite(model.classifier.layers[-1].kernel).all()
