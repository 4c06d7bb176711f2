"""Updates: a user's own, of two gradients, in closed form; names and files."""

import keras
import linear
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import mart_tf
from mart_tf.runs import devices
from mart_tf.training import update


@keras.saving.register_keras_serializable(package="test_update")
class Sharpness(update.Update):
    """Sharpness-aware minimisation (Foret et al., ICLR 2021).

        g = dF/dw (w + radius g1 / ||g1||),  g1 = dF/dw (w)

    Args:
        radius: Their rho, at least 0.
    """

    def __init__(self, radius: float = 0.05):
        self.radius = radius

    def __call__(self, model, loss):
        first, auxiliary = self.gradient(model, loss)
        first = self.summed(first)
        scale = self.radius / tf.linalg.global_norm(first)
        weights = [
            variable.value + scale * gradient
            for variable, gradient in zip(
                model.trainable_variables, first, strict=True
            )
        ]
        gradients, _ = self.gradient(model, loss, weights)
        self.apply(model, gradients)
        return auxiliary


@keras.saving.register_keras_serializable(package="test_update")
class Elsewhere(update.Update):
    """The plain update, its gradient taken elsewhere: where the weights are."""

    def __call__(self, model, loss):
        weights = [variable.value for variable in model.trainable_variables]
        gradients, auxiliary = self.gradient(model, loss, weights)
        self.apply(model, gradients)
        return auxiliary


def gradient_by_hand(kernel, bias):
    scores = linear.IMAGES @ kernel + bias
    part = scipy.special.softmax(scores, axis=1) - linear.one_hot(linear.LABELS)
    part *= linear.SAMPLE_WEIGHT[:, None] / linear.EXAMPLES
    return [linear.IMAGES.T @ part, part.sum(0)]


def sharpness_by_hand(radius):
    weights = [linear.KERNEL, linear.BIAS]
    first = gradient_by_hand(*weights)
    norm = np.sqrt(sum((g**2).sum() for g in first))
    there = [w + radius * g / norm for w, g in zip(weights, first, strict=True)]
    return [
        w - linear.RATE * (g + linear.DECAY * w)
        for w, g in zip(weights, gradient_by_hand(*there), strict=True)
    ]


@pytest.mark.parametrize(
    "strategy, compiled",
    [("single", False), ("mirrored", False), ("single", True)],
)
def test_two_gradients_equal_the_closed_form(strategy, compiled):
    with devices.strategy(strategy).scope():
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(),
            "natural",
            linear.THREAT,
            update=Sharpness(0.7),
            weight_decay=linear.DECAY,
        )
        model.compile(keras.optimizers.SGD(linear.RATE), jit_compile=compiled)
    batch = tf.data.Dataset.from_tensor_slices(
        (linear.IMAGES, linear.LABELS, linear.SAMPLE_WEIGHT)
    ).batch(linear.EXAMPLES)
    logs = model.fit(batch, verbose=0).history
    expected = sharpness_by_hand(0.7)
    for new, own in zip(model.classifier.get_weights(), expected, strict=True):
        np.testing.assert_allclose(new, own, atol=1e-5)
    plain = linear.train_once(tf.distribute.get_strategy(), "natural")
    assert np.abs(plain[0] - expected[0]).max() > 1e-3
    # The logs are of the first of the two.
    chosen = linear.softmax_of(linear.IMAGES)[
        np.arange(linear.EXAMPLES), linear.LABELS
    ]
    loss = (-linear.SAMPLE_WEIGHT * np.log(chosen)).mean()
    np.testing.assert_allclose(logs["loss"], [loss], rtol=1e-5)


def network():
    """Batch norm, and losses of weights and of activities."""
    regularizer = keras.regularizers.L2(0.1)
    return keras.Sequential(
        [
            keras.Input([linear.PIXELS]),
            keras.layers.Dense(
                4,
                kernel_regularizer=regularizer,
                kernel_initializer=keras.initializers.HeNormal(0),
            ),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.Dense(
                linear.CLASSES,
                # On two devices Keras loses one of these beside batch norm.
                activity_regularizer=None
                if tf.distribute.has_strategy()
                else regularizer,
                kernel_initializer=keras.initializers.HeNormal(1),
            ),
        ]
    )


@pytest.mark.parametrize("strategy", ["single", "mirrored"])
def test_elsewhere_the_loss_is_the_same_and_statistics_stand_still(strategy):
    strategy = devices.strategy(strategy)
    settings = {"make": network, "index": False}
    plain, plain_logs = linear.train(strategy, "mart", **settings)
    other, other_logs = linear.train(
        strategy, "mart", update=Elsewhere(), **settings
    )
    assert other_logs.keys() == plain_logs.keys()
    for name, values in plain_logs.items():
        assert other_logs[name] == pytest.approx(values, rel=1e-6)
    for one, two in zip(
        plain.trainable_variables, other.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(one, two, atol=1e-6)
    mean, variance = other.classifier.layers[1].non_trainable_weights
    np.testing.assert_array_equal(mean, np.zeros(4))
    np.testing.assert_array_equal(variance, np.ones(4))
    assert np.abs(plain.classifier.layers[1].moving_mean).max() > 0


def test_is_saved_with_the_model(tmp_path):
    model, _ = linear.train(
        tf.distribute.get_strategy(), "natural", update=Sharpness(0.25)
    )
    assert model.settings()["update"] == "Sharpness:radius=0.25"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.update, Sharpness)
    assert loaded.update.radius == 0.25


def test_by_name():
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT, update="plain"
    )
    assert type(model.update) is update.Update
    assert model.settings()["update"] == "plain"
    assert update.get(model.update) is model.update


@pytest.mark.parametrize(
    "given, message",
    [
        ("plian", "Unknown update 'plian'; did you mean 'plain'"),
        ("plain:radius=1", "has no option 'radius'"),
        (Sharpness, "expected a name, a spec, or an instance"),
    ],
)
def test_refuses_in_one_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        mart_tf.AdversarialClassifier(
            linear.linear_network(), threat=linear.THREAT, update=given
        )


@keras.saving.register_keras_serializable(package="test_update")
class Constant(mart_tf.defenses.Defense):
    """A loss that hangs on no weight."""

    def loss(self, classify, batch, adversarial):
        logits = tf.stop_gradient(classify(batch.image))
        return mart_tf.defenses.Losses(
            tf.reduce_logsumexp(logits, axis=1), logits
        )


@pytest.mark.parametrize("of_update", ["plain", "awp:gamma=0.01"])
def test_a_loss_without_a_gradient(of_update):
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(),
        Constant(),
        linear.THREAT,
        attack_steps=1,
        update=of_update,
        weight_decay=0.1,
    )
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="Constant has no gradient to any of"):
        model.fit(linear.IMAGES, linear.LABELS, verbose=0)
    # Nor is there one without trainable weights.
    network = linear.linear_network()
    network.trainable = False
    model = mart_tf.AdversarialClassifier(
        network, "natural", linear.THREAT, update=of_update
    )
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="any of the network's 0 trainable"):
        model.fit(linear.IMAGES, linear.LABELS, verbose=0)


def test_refuses_a_kernel_that_forward_passes_normalize():
    layer = keras.layers.SpectralNormalization(
        keras.layers.Dense(linear.CLASSES)
    )
    network = keras.Sequential([keras.Input([linear.PIXELS]), layer])
    layer.kernel.assign(5 * linear.KERNEL)
    model = mart_tf.AdversarialClassifier(
        network, "natural", linear.THREAT, update="awp:gamma=0.01"
    )
    model.compile(keras.optimizers.SGD(1e-4))
    with pytest.raises(ValueError, match="assigns the trainable .* AWP makes"):
        model.fit(linear.IMAGES, linear.LABELS, verbose=0)
    np.testing.assert_array_equal(layer.kernel, 5 * linear.KERNEL)
