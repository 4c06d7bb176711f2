"""The attack with batch norm by the batch: against Keras, and without trace."""

import keras
import linear
import numpy as np
import pytest
import small_runs
import tensorflow as tf

import mart_tf
from mart_tf import noise
from mart_tf.runs import devices
from mart_tf.training import attack_statistics
from mart_tf.training import inputs

GENERATOR = np.random.default_rng(1)
GAMMA, BETA, MEAN = GENERATOR.normal(size=(3, linear.PIXELS)).astype("float32")
VARIANCE = GENERATOR.uniform(0.5, 2.0, linear.PIXELS).astype("float32")
EPSILON = 1e-3


def network():
    """One layer behind a batch norm whose moving statistics are others."""
    made = keras.Sequential(
        [
            keras.Input([linear.PIXELS]),
            keras.layers.BatchNormalization(epsilon=EPSILON, synchronized=True),
            keras.layers.Dense(linear.CLASSES),
        ]
    )
    made.set_weights(
        [GAMMA, BETA, MEAN, VARIANCE, 3 * linear.KERNEL, linear.BIAS]
    )
    return made


def gradient_by_hand(x):
    """Of the batch's summed cross-entropy with respect to its images.

    With h = (x - mean) / deviation, mean and deviation of the batch, and d the
    gradient with respect to h: dx = (d - mean(d) - h mean(d h)) / deviation.
    """
    deviation = np.sqrt(x.var(0) + EPSILON)
    h = (x - x.mean(0)) / deviation
    logits = (GAMMA * h + BETA) @ (3 * linear.KERNEL) + linear.BIAS
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    d = GAMMA * ((p - linear.one_hot(linear.LABELS)) @ (3 * linear.KERNEL).T)
    return (d - d.mean(0) - h * (d * h).mean(0)) / deviation


def attack_by_hand(steps, size):
    """Steps along the gradient over its norm, free of ball and range."""
    x = linear.IMAGES.astype("float64")
    for _ in range(steps):
        slope = gradient_by_hand(x)
        x = x + size * slope / np.sqrt((slope**2).sum(1, keepdims=True))
    return x


def model_of(strategy, make=network, mode="batch", **settings):
    # So wide that nothing is projected.
    threat = mart_tf.ThreatModel("l2", 5.0, -9.0, 9.0)
    with strategy.scope():
        model = mart_tf.AdversarialClassifier(
            make(),
            **{
                "defense": "standard",
                "threat": threat,
                "attack_steps": 2,
                "attack_step_size": 0.1,
                "random_start": "none",
                "attack_batch_norm": mode,
                **settings,
            },
        )
        model.compile(keras.optimizers.SGD(0.1))
    return model


def attacked(strategy, model):
    """What the attack of a step finds, over all replicas."""
    batch = tf.data.Dataset.from_tensors(
        ({"image": linear.IMAGES, "index": linear.ROWS}, linear.LABELS)
    )
    batches = batch.unbatch().batch(linear.EXAMPLES)
    [data] = strategy.experimental_distribute_dataset(batches)

    @tf.function(autograph=False)
    def found():
        def attack(data):
            batch, _ = inputs.unpack(data, noise.fold(0, 0))
            return model._attacked(batch).image

        return strategy.run(attack, (data,))

    return np.concatenate(strategy.experimental_local_results(found()))


def test_the_hand_is_right():
    with tf.GradientTape() as tape:
        images = tf.constant(linear.IMAGES)
        tape.watch(images)
        logits = network()(images, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(
            linear.LABELS, logits, from_logits=True
        )
    np.testing.assert_allclose(
        tape.gradient(loss, images), gradient_by_hand(linear.IMAGES), atol=1e-4
    )


def test_steps_equal_the_closed_form(strategy):
    model = model_of(strategy)
    found = attacked(strategy, model)
    np.testing.assert_allclose(found, attack_by_hand(2, 0.1), atol=1e-5)
    # Nothing is left behind, neither in weights nor in layers.
    for now, before in zip(
        model.classifier.get_weights(), network().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(now, before)
    assert "call" not in vars(model.classifier.layers[0])
    other = attacked(strategy, model_of(strategy, mode="inference"))
    assert np.abs(other - found).max() > 1e-2


def test_a_step_leaves_the_statistics_of_its_loss_alone(strategy):
    """One training-mode pass on x' is all that they have seen."""
    model = model_of(strategy)
    batch = tf.data.Dataset.from_tensors((linear.IMAGES, linear.LABELS))
    batches = batch.unbatch().batch(linear.EXAMPLES)
    model.fit(batches, check_data=False, verbose=0)
    adversarial = attack_by_hand(2, 0.1)
    *_, mean, variance, _, _ = model.classifier.get_weights()
    expected = 0.99 * MEAN + 0.01 * adversarial.mean(0)
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    expected = 0.99 * VARIANCE + 0.01 * adversarial.var(0)
    np.testing.assert_allclose(variance, expected, atol=1e-6)


def dropping():
    return keras.Sequential(
        [
            keras.Input([linear.PIXELS]),
            keras.layers.Dropout(0.9),
            *network().layers,
        ]
    )


def test_dropout_is_off():
    alone = devices.strategy("single")
    found = attacked(alone, model_of(alone, dropping))
    np.testing.assert_allclose(found, attack_by_hand(2, 0.1), atol=1e-5)


@pytest.mark.parametrize(
    "defense", ["mart", "trades:regularization=1", "dynamic", "mma", "nfgsm"]
)
def test_two_replicas_equal_one(defense):
    """Each kind of loop and branch, written out where replicas meet."""
    results = []
    for name in ("single", "mirrored"):
        strategy = devices.strategy(name)
        model = model_of(
            strategy,
            defense=defense,
            threat=mart_tf.ThreatModel(epsilon=0.2),
            attack_step_size=None,
            random_start="uniform",
            rows=1000,
        )
        batch = tf.data.Dataset.from_tensors(
            ({"image": linear.IMAGES, "index": linear.ROWS}, linear.LABELS)
        )
        batches = batch.unbatch().batch(linear.EXAMPLES).repeat(2)
        model.fit(batches, verbose=0)
        results.append(model.classifier.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_xla_compiles_it_on_one_device():
    alone = devices.strategy("single")
    model = model_of(alone)
    model.compile(keras.optimizers.SGD(0.1), jit_compile="attack")
    found = attacked(alone, model)
    np.testing.assert_allclose(found, attack_by_hand(2, 0.1), atol=1e-5)


def test_is_saved_with_the_model(tmp_path):
    model = model_of(devices.strategy("single"), mode="batch")
    assert model.settings()["attack_batch_norm"] == "batch"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.attack_batch_norm == "batch"


def frozen():
    made = network()
    made.layers[0].trainable = False
    return made


@pytest.mark.parametrize(
    ("make", "settings", "sentence"),
    [
        (network, {"mode": "train"}, "'train'; expected inference or batch"),
        (linear.linear_network, {}, "has no keras.layers.BatchNormalization"),
        (frozen, {}, "has no keras.layers.BatchNormalization that is trainab"),
        (network, {"defense": "natural"}, "Natural has no attack in training"),
        (
            network,
            {"defense": "mart:outer=bce_natural:divergence=false"},
            "MART has no attack in training",
        ),
    ],
)
def test_refuses(make, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        model_of(devices.strategy("single"), make, **settings)


def test_refuses_xla_where_replicas_meet():
    strategy = devices.strategy("mirrored")
    model = model_of(strategy)
    with (
        strategy.scope(),
        pytest.raises(ValueError, match='without jit_compile="attack"'),
    ):
        model.compile(keras.optimizers.SGD(0.1), jit_compile="attack")


def test_threads_do_not_see_each_other():
    """A pass of one thread, in the midst of another's in the scope."""
    import threading

    made, images = network(), linear.IMAGES
    inside, seen = threading.Event(), threading.Event()
    results = {}

    def other():
        inside.wait(10)
        results["other"] = made(images, training=False)
        with attack_statistics.of_the_batch(made):
            results["scope"] = made(images, training=False)
        results["after"] = made(images, training=False)
        seen.set()

    thread = threading.Thread(target=other)
    thread.start()
    with attack_statistics.of_the_batch(made):
        inside.set()
        seen.wait(10)
        by_batch = made(images, training=False)
    thread.join()
    inference = made(images, training=False)
    np.testing.assert_array_equal(results["other"], inference)
    np.testing.assert_array_equal(results["after"], inference)
    np.testing.assert_array_equal(results["scope"], by_batch)
    np.testing.assert_allclose(
        by_batch, network()(images, training=True), atol=1e-6
    )


@pytest.mark.usefixtures("own_directory")
def test_a_run_says_so_and_goes_on():
    said = small_runs.train("run", epochs=1, attack_batch_norm="batch")
    assert "batch norm by the batch's own statistics" in said
    with pytest.raises(ValueError, match="--attack_batch_norm was batch, now"):
        small_runs.train("run", epochs=2)
    small_runs.train("run", epochs=2, attack_batch_norm="batch")
    small_runs.train("whole", epochs=2, attack_batch_norm="batch")
    small_runs.assert_same("whole", "run")


def test_a_function_of_the_networks_own_is_refused():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization(name="inner")
            self.last = keras.layers.Dense(linear.CLASSES)

        @tf.function
        def features(self, images, training):
            return self.norm(images, training=training)

        def call(self, images, training=False):
            return self.last(self.features(images, training))

    model = mart_tf.AdversarialClassifier(
        Network(),
        "standard",
        mart_tf.ThreatModel(epsilon=0.1),
        attack_steps=1,
        attack_batch_norm="batch",
    )
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="norm 'inner' is called inside a tf"):
        model.fit(linear.IMAGES, linear.LABELS, verbose=0)
