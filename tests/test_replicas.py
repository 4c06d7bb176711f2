"""Several replicas: the step of one, and what they cannot do is said."""

import subprocess
import sys

import keras
import linear
import numpy as np
import programs
import pytest
import replicated
import tensorflow as tf

import mart_tf
from mart_tf.runs import devices


def compiled(network, optimizer, strategy="mirrored", **settings):
    with devices.strategy(strategy).scope():
        model = mart_tf.AdversarialClassifier(
            network(), "natural", linear.THREAT
        )
        model.compile(optimizer(), **settings)
    return model


@pytest.mark.parametrize(
    ("settings", "of_optimizer", "message"),
    [
        ({"steps_per_execution": 2}, {}, "steps_per_exec.* on 2 replicas; le"),
        ({"jit_compile": True}, {}, 'on 2 replicas; give jit_compile="attack"'),
        (
            {},
            {"gradient_accumulation_steps": 2},
            "gradient_accumulation_steps .* under a MirroredStrategy; leave it",
        ),
    ],
)
def test_what_keras_cannot_do_on_several(settings, of_optimizer, message):
    def optimizer():
        return keras.optimizers.SGD(0.1, **of_optimizer)

    with pytest.raises(ValueError, match=message):
        compiled(linear.linear_network, optimizer, **settings)
    # On one device Keras can.
    model = compiled(linear.linear_network, optimizer, "single", **settings)
    model.fit(linear.IMAGES, linear.LABELS, batch_size=2, verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("train_on_batch", (linear.IMAGES, linear.LABELS)),
        ("test_on_batch", (linear.IMAGES, linear.LABELS)),
        ("predict_on_batch", (linear.IMAGES,)),
    ],
)
def test_calls_whose_batch_keras_does_not_share_out(call, given):
    model = compiled(linear.linear_network, keras.optimizers.SGD)
    with pytest.raises(
        ValueError, match=f"^{call} was .* 2 replicas.*fit, evaluate or predict"
    ):
        getattr(model, call)(*given)


def wrapped(strategy):
    """A linear network from a strategy's scope, wrapped outside of it."""
    with devices.strategy(strategy).scope():
        network = linear.linear_network()
    return mart_tf.AdversarialClassifier(network, "natural", linear.THREAT)


def test_compiled_by_names_outside_of_the_scope():
    trained = []
    for strategy in ("single", "mirrored"):
        model = wrapped(strategy)
        model.compile("adam", metrics=["accuracy"])
        logs = model.fit(
            linear.IMAGES,
            linear.LABELS,
            batch_size=4,
            epochs=2,
            shuffle=False,
            verbose=0,
        ).history
        steps = int(tf.convert_to_tensor(model.optimizer.iterations))
        trained.append(
            [*model.classifier.get_weights(), steps, *logs["accuracy"]]
        )
    for single, mirrored in zip(*trained, strict=True):
        np.testing.assert_allclose(single, mirrored, atol=1e-5)


def test_what_was_made_outside_of_the_scope_is_refused():
    model = wrapped("mirrored")
    message = "^The {} was made outside the scope.. of the MirroredStrategy"
    optimizer = keras.optimizers.SGD(0.1, name="mine")
    with pytest.raises(ValueError, match=message.format("optimizer 'mine'")):
        model.compile(optimizer)
    metric = keras.metrics.SparseCategoricalAccuracy(name="right")
    with pytest.raises(ValueError, match=message.format("metric 'right'")):
        model.compile("sgd", metrics=["accuracy", [metric]])
    # Without a scope all of it may be made anywhere.
    wrapped("single").compile(optimizer, weighted_metrics=[metric])
    # And a scope comes too late where the classifier has none.
    model = wrapped("single")
    with (
        devices.strategy("mirrored").scope(),
        pytest.raises(ValueError, match=message.format("classifier '.*'")),
    ):
        model.compile("sgd")


def test_accumulated_gradients_under_a_strategy_of_one_device():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(), "natural", linear.THREAT
        )
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        with pytest.raises(ValueError, match="under a MirroredStrategy; leave"):
            model.compile(optimizer)


def test_accumulated_gradients_equal_a_larger_batch():
    images, labels = linear.IMAGES[:4], linear.LABELS[:4]
    trained = []
    for size, steps in [(4, None), (2, 2)]:

        def optimizer(steps=steps):
            return keras.optimizers.SGD(0.5, gradient_accumulation_steps=steps)

        model = compiled(linear.linear_network, optimizer, "single")
        model.fit(images, labels, batch_size=size, shuffle=False, verbose=0)
        trained.append(model.classifier.get_weights())
    for whole, parts in zip(*trained, strict=True):
        np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_their_average_equals_that_of_a_larger_batch():
    trained = []
    for size, steps in [(8, None), (2, 4)]:
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(),
            "natural",
            linear.THREAT,
            ema=0.9,
            # One update.
            ema_warmup_steps=steps or 1,
        )
        model.compile(
            keras.optimizers.SGD(0.5, gradient_accumulation_steps=steps)
        )
        model.fit(
            linear.IMAGES,
            linear.LABELS,
            batch_size=size,
            epochs=4,
            shuffle=False,
            verbose=0,
        )
        live = model.classifier.get_weights()
        trained.append(live + model.averaged().get_weights())
    for whole, parts in zip(*trained, strict=True):
        np.testing.assert_allclose(whole, parts, atol=1e-6)
    assert np.abs(trained[0][0] - trained[0][2]).max() > 1e-3


def test_a_skipped_update_leaves_nothing_accumulated():
    images = linear.IMAGES.copy()
    # Of batches of two the second, at which the first update falls.
    images[2] = np.nan
    trained = []
    for first in (0, 4):
        model = compiled(
            linear.linear_network,
            lambda: keras.optimizers.SGD(0.5, gradient_accumulation_steps=2),
            "single",
        )
        model.fit(
            images[first:],
            linear.LABELS[first:],
            batch_size=2,
            shuffle=False,
            verbose=0,
            check_data=False,
        )
        trained.append(model.classifier.get_weights())
    for whole, second in zip(*trained, strict=True):
        np.testing.assert_allclose(whole, second, atol=1e-6)


def network(synchronized):
    return keras.Sequential(
        [
            keras.Input(linear.IMAGES.shape[1:]),
            keras.layers.BatchNormalization(
                synchronized=synchronized, name="normalized"
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(linear.CLASSES),
        ]
    )


def test_a_batch_norm_of_each_replica_is_told_of(recwarn):
    for strategy, synchronized in [("mirrored", True), ("single", False)]:
        compiled(
            lambda s=synchronized: network(s), keras.optimizers.SGD, strategy
        )
    assert not [w for w in recwarn if "synchronized" in str(w.message)]
    with pytest.warns(UserWarning, match="synchronized=True .normalized.:"):
        compiled(lambda: network(False), keras.optimizers.SGD)


@keras.saving.register_keras_serializable(package="test_replicas")
class Mean(keras.layers.Layer):
    """Adds the mean of its input to the loss."""

    def call(self, images):
        self.add_loss(0.1 * keras.ops.mean(images))
        return images


@pytest.mark.parametrize(
    "added",
    [lambda: keras.layers.ActivityRegularization(l2=0.1), lambda: Mean()],
    ids=["regularizer", "add_loss"],
)
def test_losses_of_activities_beside_a_synchronized_batch_norm(added):
    def step(trainable):
        def both():
            made = network(True)
            made.add(added())
            made.layers[0].trainable = trainable
            return made

        model = compiled(both, keras.optimizers.SGD)
        model.fit(linear.IMAGES, linear.LABELS, batch_size=8, verbose=0)

    with pytest.raises(ValueError, match="normalization normalized, and on"):
        step(trainable=True)
    # Frozen it is that of inference, in which no replica waits for another.
    step(trainable=False)


def test_a_last_batch_that_leaves_a_replica_without_an_example():
    # 8 and 1: of the second, 1 and 0.
    images = np.concatenate([linear.IMAGES, linear.IMAGES[:1] / 2])
    labels = np.concatenate([linear.LABELS, linear.LABELS[:1]])

    def network():
        made = linear.linear_network(
            activity_regularizer=keras.regularizers.L2(0.1)
        )
        made.add(Mean())
        return made

    trained = []
    for strategy in ("single", "mirrored"):
        model = compiled(network, lambda: keras.optimizers.SGD(0.5), strategy)
        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
        logs = model.fit(data, verbose=0).history
        assert "skipped" not in logs
        losses = [*logs["loss"], *logs["natural_accuracy"]]
        evaluated = model.evaluate(images, labels, batch_size=8, verbose=0)
        weights = model.classifier.get_weights()
        trained.append([*weights, losses, evaluated])
    for single, mirrored in zip(*trained, strict=True):
        np.testing.assert_allclose(single, mirrored, atol=1e-6)


def test_strategies_of_other_kinds():
    with tf.distribute.experimental.CentralStorageStrategy().scope():
        network = linear.linear_network()
        with pytest.raises(ValueError, match="expected a tf.distribute.Mirror"):
            mart_tf.AdversarialClassifier(network, threat=linear.THREAT)


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
def test_a_first_batch_whose_parts_differ(metrics):
    # 5 examples: 3 and 2.
    size = 5
    trained = []
    for strategy in ("single", "mirrored"):
        model = compiled(
            linear.linear_network,
            lambda: keras.optimizers.SGD(0.5, momentum=0.9),
            strategy,
            metrics=metrics,
        )
        logs = model.fit(
            linear.IMAGES[:size],
            linear.LABELS[:size],
            batch_size=size,
            shuffle=False,
            epochs=2,
            verbose=0,
        ).history
        evaluated = model.evaluate(
            linear.IMAGES[:size],
            linear.LABELS[:size],
            batch_size=size,
            verbose=0,
        )
        losses = [*logs["loss"], *logs.get("accuracy", []), *evaluated]
        trained.append([*model.classifier.get_weights(), losses])
    for single, mirrored in zip(*trained, strict=True):
        np.testing.assert_allclose(single, mirrored, atol=1e-6)


# On four, of 7 examples 2, 2, 2 and 1; their noise hangs on their places.
# Without TF_CONFIG several workers are one.
@pytest.mark.parametrize(
    ("strategy", "replicas"),
    [("MirroredStrategy", 4), ("MultiWorkerMirroredStrategy", 1)],
)
def test_a_step_equals_the_closed_form_and_one(
    strategy, replicas, tmp_path, monkeypatch
):
    file = tmp_path / "weights.npz"
    given = [strategy, str(replicas), "7", str(file)]
    subprocess.run(
        [sys.executable, replicated.__file__, *given],
        env=programs.environment(),
        check=True,
    )
    with np.load(file) as saved:
        several = list(saved.values())
    for name, part in replicated.first(7).items():
        monkeypatch.setattr(linear, name, part)
    adversarial = linear.attack_by_hand(range(7))
    expected = linear.update(
        0.0,
        linear.softmax_of(adversarial) - linear.one_hot(linear.LABELS),
        adversarial,
    )
    single = linear.train_once(
        devices.strategy("single"), "standard", index=False
    )
    for mine, one, by_hand in zip(several, single, expected, strict=True):
        np.testing.assert_allclose(mine, by_hand, atol=1e-6)
        np.testing.assert_allclose(mine, one, atol=1e-6)
