"""A step with a number that is not finite leaves nothing; too many stop."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf.runs import devices
from mart_tf.training import counters
from mart_tf.training import reduction
from mart_tf.training import skips
from mart_tf.training import watch

BATCH = 16
# What the layer below does to a batch with such a pixel.
GRADIENT, OUTPUT = 2.0, 3.0


class Faulty(keras.layers.Layer):
    """Passes images on; of marked ones gradient or output are not finite."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=[], initializer="ones")

    def call(self, images):
        marked = tf.reduce_any(images == OUTPUT)
        images = tf.where(marked, np.float32(np.inf), images)
        scale = tf.convert_to_tensor(self.scale)
        return images * _identity(scale, tf.reduce_any(images == GRADIENT))


@tf.custom_gradient
def _identity(value, fails):
    def gradient(upstream):
        return tf.where(fails, np.float32(np.nan), upstream), None

    return tf.identity(value), gradient


def network():
    def seeded(seed):
        return keras.initializers.HeNormal(seed)

    return keras.Sequential(
        [
            keras.Input([6, 6, 1]),
            Faulty(),
            keras.layers.Conv2D(2, 3, kernel_initializer=seeded(0)),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2, seed=1),
            keras.layers.Dense(3, kernel_initializer=seeded(1)),
        ]
    )


def made(strategy, defense="mart", optimizer=None, **settings):
    with strategy.scope():
        model = mart_tf.AdversarialClassifier(
            network(),
            defense,
            mart_tf.ThreatModel(epsilon=0.1),
            1,
            ema=0.9,
            **settings,
        )
        model.compile(
            optimizer or keras.optimizers.SGD(0.1, momentum=0.9),
            metrics=[
                keras.metrics.SparseCategoricalCrossentropy(from_logits=True)
            ],
        )
        model.optimizer.build(model.trainable_variables)
    return model


def batches(marks):
    """A batch for each mark, which the last example has: of the last replica.

    None: a good one.
    """
    generator = np.random.RandomState(0)
    images = generator.rand(len(marks), BATCH, 6, 6, 1).astype("float32")
    for image, mark in zip(images, marks, strict=True):
        if mark is not None:
            image[-1, 0, 0, 0] = mark
    labels = generator.randint(0, 3, [len(marks), BATCH])
    rows = np.arange(len(marks) * BATCH).reshape(len(marks), BATCH)
    return images, rows, labels


def fit(model, images, rows, labels, **settings):
    """Trains on batches as they are; returns what the epoch logged."""
    history = model.fit(
        {"image": np.concatenate(images), "index": np.concatenate(rows)},
        np.concatenate(labels),
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        check_data=False,
        **settings,
    )
    return {name: values[0] for name, values in history.history.items()}


def state(model):
    """Every variable on every replica; but the count of skips."""
    strategy = model.distribute_strategy
    counts = [id(variable) for variable in model.skips.variables]
    return [
        (variable.path, part.numpy())
        for variable in (*model.variables, *model.optimizer.variables)
        if id(variable) not in counts
        for part in strategy.experimental_local_results(variable.value)
    ]


@pytest.mark.parametrize(
    ("kind", "defense"), [("single", "mma"), ("mirrored", "mart")]
)
def test_the_run_is_that_of_the_good_batches_alone(kind, defense):
    marks = [None, OUTPUT, None, GRADIENT, np.nan, None]
    images, rows, labels = batches(marks)
    model = made(devices.strategy(kind), defense, rows=rows.size)
    logged = fit(model, images, rows, labels)
    assert logged["skipped"] == 3
    assert np.isfinite(list(logged.values())).all()
    # All replicas know what the last one's was.
    assert model.skips.cause == "images"

    # The good ones, each at its own step.
    other = made(devices.strategy(kind), defense, rows=rows.size)
    for step, mark in enumerate(marks):
        other.step.assign(step)
        other.optimizer.iterations.assign(step)
        if mark is None:
            good = slice(step, step + 1)
            fit(other, images[good], rows[good], labels[good])
    reached, expected = state(model), state(other)
    assert len(reached) > 25
    for (name, one), (_, two) in zip(reached, expected, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=name)


def test_what_runs_eagerly_skips_too():
    images, rows, labels = batches([None, np.nan, None])
    trained = []
    for eagerly in (False, True):
        model = made(devices.strategy("single"), "standard")
        model.run_eagerly = eagerly
        assert fit(model, images, rows, labels)["skipped"] == 1
        assert model.skips.cause == "images"
        logs = model.evaluate(
            images[1], labels[1], verbose=0, return_dict=True, check_data=False
        )
        assert np.isnan(logs["loss"])
        trained.append(model.classifier.get_weights())
    for one, two in zip(*trained, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("mark", "cause"),
    [(np.nan, "images"), (OUTPUT, "logits"), (GRADIENT, "state")],
)
def test_too_many_in_a_row_end_it_and_say_what(mark, cause):
    model = made(devices.strategy("single"), max_skipped_steps=1)
    marks = [mark, None, mark, mark, None, None]
    images, rows, labels = batches(marks)
    with pytest.raises(watch.Diverged) as caught:
        fit(model, images, rows, labels)
    assert str(caught.value).startswith(
        "2 steps in a row were skipped up to step 4, because "
        f"{skips.TERMS[cause]} was not finite. "
    )
    assert "data" in str(caught.value) or "learning rate" in str(caught.value)
    # Who goes on without counting anew, as a run does that is resumed, finds
    # the state that it ended in.
    before = model.classifier.get_weights()
    good = images[1:2], rows[1:2], labels[1:2]
    with pytest.raises(watch.Diverged):
        fit(model, *good, callbacks=[watch.Watch(anew=False)])
    for one, two in zip(before, model.classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    # Another fit trains.
    assert "skipped" not in fit(model, *good)
    assert (before[0] != model.classifier.get_weights()[0]).any()


def test_a_loop_of_steps_ends_too_and_another_compile_begins_anew():
    model = made(devices.strategy("single"), max_skipped_steps=1)
    images, _, labels = batches([np.nan, None])
    model.train_on_batch(images[0], labels[0])
    for batch in (0, 1):
        with pytest.raises(watch.Diverged, match="2 steps in a row .* Mend"):
            model.train_on_batch(images[batch], labels[batch])
    model.compile(keras.optimizers.SGD(0.1))
    before = model.classifier.get_weights()
    logs = model.train_on_batch(images[1], labels[1], return_dict=True)
    assert logs["loss"] > 0.0
    assert (before[0] != model.classifier.get_weights()[0]).any()


def test_a_loop_of_short_fits_ends_too():
    """Each has fewer steps than may be skipped in a row."""
    model = made(devices.strategy("single"), max_skipped_steps=3)
    images, rows, labels = batches([np.nan, np.nan])
    fit(model, images, rows, labels)
    with pytest.raises(watch.Diverged, match="4 steps in a row were skipped"):
        fit(model, images, rows, labels)


def test_an_infinite_gradient_is_not_clipped_into_a_small_one():
    optimizer = keras.optimizers.SGD(0.1, clipvalue=0.01)
    gradients = [tf.constant([np.inf, 1.0]), None]
    clipped, nothing = reduction.clip_globally(gradients, optimizer)
    np.testing.assert_array_equal(clipped, [np.nan, 1.0])
    assert nothing is None


def test_weights_that_are_not_finite_are_no_start():
    model = made(devices.strategy("single"))
    model.classifier.layers[1].kernel.assign(
        np.full([3, 3, 1, 2], np.nan, np.float32)
    )
    with pytest.raises(watch.Diverged, match="/kernel of the network is"):
        fit(model, *batches([None]))


def test_a_loss_that_explodes_ends_it_in_the_first_steps():
    optimizer = keras.optimizers.SGD(1e10)
    model = made(devices.strategy("single"), optimizer=optimizer)
    with pytest.raises(watch.Diverged, match="Lower the learning rate"):
        fit(model, *batches([None] * 20))
    assert counters.number(model.step) <= 12


@pytest.mark.parametrize("given", [-1, 1.5, True, None])
def test_refuses_what_is_no_number_of_steps(given):
    with pytest.raises(ValueError, match="max_skipped_steps is"):
        made(devices.strategy("single"), max_skipped_steps=given)
