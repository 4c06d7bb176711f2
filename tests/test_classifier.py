"""AdversarialClassifier: a step worked out in numpy, replicas, the contract."""

import keras
import linear
import numpy as np
import pytest
import splitmix
import tensorflow as tf

import mart_tf
from mart_tf.defenses import standard
from mart_tf.runs import devices
from mart_tf.training import classifier as training_classifier
from mart_tf.training import dropout
from mart_tf.training import reduction


def small_network(seed=0):
    """Every kind of layer with state: batch norm, dropout, regularizer."""
    return keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            keras.layers.Conv2D(
                4,
                3,
                kernel_regularizer=keras.regularizers.L2(1e-3),
                kernel_initializer=keras.initializers.HeNormal(seed),
            ),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3, seed=1),
            keras.layers.Dense(
                10, kernel_initializer=keras.initializers.HeNormal(seed + 1)
            ),
        ]
    )


def digits():
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = (bunch.images / 16.0).astype("float32")[..., None]
    return images[:256], bunch.target[:256].astype("int32")


class Positions(keras.layers.Layer):
    """An embedding of the place is added, whose gradient comes in slices."""

    def build(self, shape):
        self.places = shape[1]
        self.embedding = keras.layers.Embedding(
            *shape[1:], keras.initializers.RandomNormal(seed=4)
        )
        self.embedding.build(None)

    def call(self, values):
        return values + self.embedding(keras.ops.arange(self.places))


def network_with_an_embedding():
    return keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            keras.layers.Reshape([16, 4]),
            Positions(),
            keras.layers.Flatten(),
            keras.layers.Dense(
                10, kernel_initializer=keras.initializers.HeNormal(0)
            ),
        ]
    )


def network_without_dropout():
    network = small_network()
    network.layers[4].rate = 0.0
    return network


@pytest.mark.parametrize(
    "make", [network_without_dropout, network_with_an_embedding]
)
@pytest.mark.parametrize(
    "clipping",
    [{"clipnorm": 0.05}, {"global_clipnorm": 0.05}, {"clipvalue": 0.01}],
)
def test_clipping_on_two_replicas_equals_one(clipping, make):
    images, labels = digits()
    results = []
    for strategy in both_strategies():
        with strategy.scope():
            network = make()
            model = mart_tf.AdversarialClassifier(
                network, "mart", mart_tf.ThreatModel(epsilon=0.1), 2
            )
            model.compile(keras.optimizers.SGD(0.5, **clipping))
        model.fit(
            images[:192], labels[:192], batch_size=64, shuffle=False, verbose=0
        )
        results.append(model.classifier.get_weights())
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-6)


def both_strategies():
    return [devices.strategy("single"), devices.strategy("mirrored")]


def network_with_an_activity_regularizer():
    regularizer = keras.regularizers.L2(0.1)
    return keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            keras.layers.Flatten(),
            keras.layers.Dense(
                10,
                kernel_initializer=keras.initializers.HeNormal(0),
                activity_regularizer=regularizer,
            ),
        ]
    )


@pytest.mark.parametrize(
    "make", [network_without_dropout, network_with_an_activity_regularizer]
)
def test_an_uneven_last_batch_counts_each_example_once(make):
    # 8 + 7 examples: 4 and 3 on two replicas.
    images, labels = digits()
    results = []
    for strategy in both_strategies():
        with strategy.scope():
            network = make()
            model = mart_tf.AdversarialClassifier(
                network, "mart", mart_tf.ThreatModel(epsilon=0.1), 2
            )
            model.compile(keras.optimizers.SGD(0.1))
        data = tf.data.Dataset.from_tensor_slices((images[:15], labels[:15]))
        history = model.fit(data.batch(8), verbose=0).history
        results.append((model.classifier.get_weights(), history))
    (one, one_logs), (two, two_logs) = results
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert one_logs.keys() == two_logs.keys()
    for name in one_logs:
        np.testing.assert_allclose(one_logs[name], two_logs[name], rtol=1e-5)


def test_epsilon_and_step_ramp_from_zero():
    # At step 0 of a warm-up the attack has no room: x' is x.
    ramped = linear.train_once(
        tf.distribute.get_strategy(), "standard", epsilon_warmup_steps=10
    )
    natural = linear.train_once(tf.distribute.get_strategy(), "natural")
    for a, b in zip(ramped, natural, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT, epsilon_warmup_steps=10
    )
    model.step.assign(5)
    inner = model._inner_attack()
    np.testing.assert_allclose(inner.epsilon, 0.1, rtol=1e-6)
    np.testing.assert_allclose(inner.step_size, 0.025, rtol=1e-6)
    model.step.assign(50)
    np.testing.assert_allclose(model._inner_attack().epsilon, 0.2, rtol=1e-6)


class Watching(standard.Standard):
    """Remembers the seeds of each step, of training and of evaluation."""

    def __init__(self):
        self.seen = []

    def loss(self, classify, batch, adversarial):
        self.seen.append(batch.seeds.numpy())
        return super().loss(classify, batch, adversarial)


@pytest.mark.parametrize("index", [True, False])
def test_each_step_has_noise_of_its_own_and_evaluation_too(index, monkeypatch):
    masks = []
    monkeypatch.setattr(
        dropout,
        "seed",
        # The step is a variable that goes on.
        lambda network, *given: masks.append(tuple(map(int, given))),
    )
    watching = Watching()
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), watching, linear.THREAT, 1, seed=linear.SEED
    )
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    inputs, rows = linear.IMAGES, np.arange(linear.EXAMPLES)
    if index:
        inputs = {"image": linear.IMAGES, "index": linear.ROWS}
        rows = linear.ROWS
    settings = {"batch_size": linear.EXAMPLES, "verbose": 0}
    model.fit(inputs, linear.LABELS, epochs=3, shuffle=False, **settings)
    for _ in range(2):
        model.evaluate(inputs, linear.LABELS, **settings)
    # Training's stream is its step; evaluation's, the same each time, is -1.
    for seeds, stream in zip(watching.seen, [0, 1, 2, -1, -1], strict=True):
        own = splitmix.fold(linear.SEED, stream)
        np.testing.assert_array_equal(seeds[:, 0], own)
        np.testing.assert_array_equal(seeds[:, 1], rows)
    own = splitmix.fold(linear.SEED, -2)
    assert masks == [(own, step) for step in range(3)]


def test_each_dropout_layer_has_masks_of_its_own():
    network = keras.Sequential(
        [keras.Input([4]), *(keras.layers.Dropout(0.5) for _ in range(3))]
    )
    for step in (0, 5):
        dropout.seed(network, 7, step)
        own = splitmix.fold(7, step)
        states = [
            np.array(layer.seed_generator.state, np.uint32).view(np.int64)
            for layer in network.layers
        ]
        expected = [splitmix.fold(own, place) for place in range(3)]
        np.testing.assert_array_equal(np.ravel(states), expected)


@pytest.mark.parametrize("warmup", [0, 10])
def test_evaluation_equals_the_closed_form_during_warm_up_too(warmup):
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(),
        "standard",
        linear.THREAT,
        2,
        epsilon_warmup_steps=warmup,
        seed=linear.SEED,
    )
    model.compile(keras.optimizers.SGD(0.1))
    logs = model.evaluate(
        {"image": linear.IMAGES, "index": linear.ROWS},
        linear.LABELS,
        batch_size=linear.EXAMPLES,
        verbose=0,
        return_dict=True,
    )
    adversarial = linear.attack_by_hand(linear.ROWS, step=-1)
    natural = linear.softmax_of(linear.IMAGES)
    robust = linear.softmax_of(adversarial)
    places = np.arange(linear.EXAMPLES), linear.LABELS
    expected = {
        "loss": -np.log(robust[places]).mean(),
        "natural_accuracy": (natural.argmax(1) == linear.LABELS).mean(),
        "robust_accuracy": (robust.argmax(1) == linear.LABELS).mean(),
    }
    assert logs == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["single", "mirrored"])
def test_of_a_row_that_comes_twice_the_mean_is_kept(kind):
    # Row 1 three times, on two replicas beside rows of their own.
    rows = np.array([1, 1, 1, 3])
    values = np.array([2.0, 3.0, 7.0, 5.0], np.float32)
    table = tf.constant([0.1, 0.2, 0.3, 0.4])
    strategy = devices.strategy(kind)
    size = 4 // strategy.num_replicas_in_sync

    def replica():
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group * size
        some = slice(first, first + size)
        return reduction.written(
            table, tf.constant(rows)[some], tf.constant(values)[some]
        )

    for table in strategy.experimental_local_results(
        strategy.run(tf.function(replica))
    ):
        np.testing.assert_allclose(table, [0.1, 4.0, 0.3, 5.0], rtol=1e-6)


def digits_model(defense="standard", **compile_settings):
    model = mart_tf.AdversarialClassifier(
        small_network(), defense, mart_tf.ThreatModel(epsilon=0.1), 2
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), **compile_settings)
    return model


def test_forms_of_labels_give_the_same_weights():
    images, labels = digits()
    forms = [labels, labels[:, None], np.eye(10, dtype="float32")[labels]]
    trained = []
    for given in forms:
        model = digits_model("mart")
        model.fit(images, given, batch_size=64, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for weights in trained[1:]:
        for a, b in zip(weights, trained[0], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("metrics", [None, ["sparse_categorical_accuracy"]])
def test_forms_of_labels_may_change_from_call_to_call(metrics):
    # Keras compiles one step for forms of one type, of which the step then
    # knows no rank, or no number of columns.
    images, labels = digits()
    labels = labels.astype("int64")
    one_hot = np.eye(10, dtype="int64")[labels]
    model = digits_model("standard", metrics=metrics)
    reference = digits_model("standard", metrics=metrics)
    settings = {"batch_size": 64, "shuffle": False, "verbose": 0}
    forms = [labels, labels[:, None]] + ([] if metrics else [one_hot])
    for given in [*reversed(forms), *forms]:
        fitted = model.fit(
            images, given, validation_data=(images, given), **settings
        )
        expected = reference.fit(
            images, labels, validation_data=(images, labels), **settings
        )
        assert fitted.history == expected.history
        np.testing.assert_equal(
            model.evaluate(images, given, verbose=0),
            reference.evaluate(images, labels, verbose=0),
        )
    for a, b in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_class_weight_is_a_weight_of_each_example():
    images, labels = digits()
    class_weight = {k: 0.5 + k for k in range(10)}
    settings = {"batch_size": 64, "shuffle": False, "verbose": 0}
    one, two = digits_model(), digits_model()
    one.fit(images, labels, class_weight=class_weight, **settings)
    weight = np.array([class_weight[k] for k in labels], "float32")
    two.fit(images, labels, sample_weight=weight, **settings)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "defense, absent",
    [
        ("mart", set()),
        ("standard", {"natural_accuracy"}),
        ("natural", {"robust_accuracy"}),
    ],
)
def test_logs(defense, absent):
    images, labels = digits()
    model = digits_model(defense)
    logs = model.fit(
        images,
        labels,
        batch_size=64,
        epochs=2,
        validation_data=(images, labels),
        verbose=0,
    ).history
    names = {"loss", "natural_accuracy", "robust_accuracy"}
    assert set(logs) == (names - absent) | {f"val_{name}" for name in names}
    assert all(len(values) == 2 for values in logs.values())


def test_user_metrics_see_natural_logits():
    images, labels = digits()
    for defense in ("mart", "standard"):
        model = digits_model(defense, metrics=["accuracy"])
        model.fit(images, labels, batch_size=64, verbose=0)
        logs = model.evaluate(images, labels, verbose=0, return_dict=True)
        natural = np.mean(model.predict(images, verbose=0).argmax(1) == labels)
        assert logs["accuracy"] == pytest.approx(natural)
        assert logs["natural_accuracy"] == pytest.approx(natural)
        assert logs["robust_accuracy"] < natural


class Blind(standard.Standard):
    """Gives the values of its loss alone."""

    def loss(self, classify, batch, adversarial):
        found = super().loss(classify, batch, adversarial)
        return found._replace(adversarial_logits=None)


def test_user_metrics_need_no_logits_of_the_loss():
    images, labels = digits()
    model = digits_model(Blind(), metrics=["accuracy"])
    logs = model.fit(images, labels, batch_size=256, verbose=0).history
    # The one step's metrics see the network after it, in inference mode.
    natural = np.mean(model.predict(images, verbose=0).argmax(1) == labels)
    assert logs["accuracy"] == [pytest.approx(natural)]
    assert set(logs) == {"loss", "accuracy"}


def test_rows_of_weight_zero_do_not_count_in_evaluation():
    images, labels = digits()
    model = digits_model()
    plain = model.evaluate(images[:50], labels[:50], verbose=0, batch_size=50)
    weight = (np.arange(64) < 50).astype("float32")
    padded = model.evaluate(
        images[:64],
        labels[:64],
        sample_weight=weight,
        batch_size=64,
        verbose=0,
    )
    np.testing.assert_allclose(plain, padded, rtol=1e-5)


def normalized_network():
    """A linear network whose batch norm changes nothing at first."""
    network = keras.Sequential(
        [
            keras.Input([linear.PIXELS]),
            keras.layers.BatchNormalization(
                momentum=0.5, epsilon=0.25, synchronized=True
            ),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(linear.CLASSES),
        ]
    )
    mean, variance = np.zeros(linear.PIXELS), np.full(linear.PIXELS, 0.75)
    norm, _, dense = network.layers
    norm.set_weights([np.ones(linear.PIXELS), mean, mean, variance])
    dense.set_weights([linear.KERNEL, linear.BIAS])
    return network


def test_the_attack_leaves_batch_norm_and_dropout_alone(strategy):
    # One pass in training mode, that of the loss, on x' alone.
    model, _ = linear.train(strategy, "standard", make=normalized_network)
    adversarial = linear.attack_by_hand(linear.ROWS)
    norm, dropout_layer, _ = model.classifier.layers
    np.testing.assert_allclose(
        norm.moving_mean.value, 0.5 * adversarial.mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
        norm.moving_variance.value,
        0.5 * 0.75 + 0.5 * adversarial.var(0),
        rtol=1e-5,
    )
    # Each mask that is drawn counts one on.
    seed = linear.SEED
    for stream in (-2, 0, 0):
        seed = splitmix.fold(seed, stream)
    seeded = np.array([seed], np.int64).view(np.uint32)
    state = np.array(dropout_layer.seed_generator.state)
    np.testing.assert_array_equal(state - seeded, [0, 1])


def test_evaluation_leaves_every_variable_alone():
    model = mart_tf.AdversarialClassifier(
        normalized_network(), "standard", linear.THREAT, attack_steps=2
    )
    model.compile("sgd")
    before = [np.array(v.value) for v in model.classifier.variables]
    model.evaluate(linear.IMAGES, linear.LABELS, verbose=0)
    for variable, old in zip(model.classifier.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, old)


@pytest.mark.parametrize("defense", ["natural", "mart"])
def test_a_run_is_a_function_of_its_seed_dropout_included(defense):
    """Dropout is all that `natural` draws."""

    def trained(seed):
        # To a layer without a seed Keras gives another each time.
        network = keras.Sequential(
            [
                keras.Input([linear.PIXELS]),
                keras.layers.Dropout(0.5),
                *linear.linear_network().layers,
            ]
        )
        model = mart_tf.AdversarialClassifier(
            network, defense, linear.THREAT, attack_steps=1, seed=seed
        )
        model.compile(keras.optimizers.SGD(0.1))
        for _ in range(2):
            # Two calls of one epoch: fit itself keeps no random state.
            model.fit(
                linear.IMAGES,
                linear.LABELS,
                batch_size=4,
                shuffle=False,
                verbose=0,
            )
        return network.get_weights()

    run, again, other = trained(1), trained(1), trained(2)
    for one, two, three in zip(run, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.abs(one - three).max() > 1e-3


def test_traces_each_step_once():
    images, labels = (part[:128] for part in digits())
    traces = []

    class Counting(training_classifier.AdversarialClassifier):
        def train_step(self, data):
            traces.append("train")
            return super().train_step(data)

        def test_step(self, data):
            traces.append("test")
            return super().test_step(data)

    model = Counting(
        small_network(),
        threat=linear.THREAT,
        attack_steps=2,
        epsilon_warmup_steps=3,
    )
    model.compile(keras.optimizers.SGD(0.05))
    settings = {"validation_data": (images, labels), "verbose": 0}
    model.fit(images, labels, batch_size=64, epochs=1, **settings)
    assert traces == ["train", "test"]
    model.fit(images, labels, batch_size=64, epochs=3, **settings)
    assert traces == ["train", "test"]


def test_saves_and_loads_whole(tmp_path):
    images, labels = digits()
    model = digits_model("mart:regularization=3:form=released")
    model.fit(images, labels, batch_size=64, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    config = loaded.defense.get_config()
    assert config == model.defense.get_config()
    assert (config["regularization"], config["form"]) == (3.0, "released")
    assert loaded.threat == model.threat
    assert int(loaded.step) == 4
    for one, two in zip((model, loaded), (loaded, model), strict=True):
        one.fit(images, labels, batch_size=64, shuffle=False, verbose=0)
        del two
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_exports_as_a_keras_model_does(tmp_path):
    images, labels = digits()
    model = digits_model()
    model.fit(images, labels, batch_size=64, verbose=0)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(
        served.serve(images[:5]), model.predict(images[:5], verbose=0), 1e-5
    )


def test_the_classifier_stays_the_users_own():
    network = small_network()
    model = mart_tf.AdversarialClassifier(network, threat=linear.THREAT)
    assert model.classifier is network
    assert type(network) is keras.Sequential


def test_probabilities_when_declared():
    network = keras.Sequential(
        [
            keras.Input([linear.PIXELS]),
            keras.layers.Dense(linear.CLASSES),
            keras.layers.Softmax(),
        ]
    )
    network.set_weights([linear.KERNEL, linear.BIAS])
    model = mart_tf.AdversarialClassifier(
        network,
        threat=linear.THREAT,
        attack_steps=2,
        outputs="probabilities",
        weight_decay=linear.DECAY,
        seed=linear.SEED,
    )
    model.compile(keras.optimizers.SGD(linear.RATE))
    batch = (
        {"image": linear.IMAGES, "index": linear.ROWS},
        linear.LABELS,
        linear.SAMPLE_WEIGHT,
    )
    model.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    expected = linear.train_once(tf.distribute.get_strategy(), "mart")
    for mine, logits in zip(
        model.classifier.get_weights(), expected, strict=True
    ):
        np.testing.assert_allclose(mine, logits, atol=1e-5)


def test_refuses_several_inputs_and_outputs_by_number_and_name():
    image, other = keras.Input([4], name="image"), keras.Input([4], name="mask")
    first = keras.layers.Dense(3, name="species")(image)
    second = keras.layers.Dense(3, name="colour")(image)

    def refused(network):
        with pytest.raises(ValueError) as refusal:
            model = mart_tf.AdversarialClassifier(
                network, threat=linear.THREAT, attack_steps=1
            )
            model.compile()
            model.fit(np.zeros([8, 4], "float32") + 0.5, np.arange(8) % 3)
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    assert "has 2 outputs (species, colour); expected one" in refused(
        keras.Model(image, [first, second])
    )
    assert "has 2 outputs (a, b); expected one" in refused(
        keras.Model(image, {"a": first, "b": second})
    )
    both = keras.layers.Dense(3)(keras.layers.Add()([image, other]))
    assert "has 2 inputs (image, mask); expected one" in refused(
        keras.Model([image, other], both)
    )

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.scores = keras.layers.Dense(3)

        def call(self, images):
            return {"low": self.scores(images), "high": self.scores(images)}

    # Only a call can tell.
    assert "returns 2 outputs (low, high); expected one" in refused(
        Subclassed()
    )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"threat": None}, "threat is None; expected a threat model"),
        ({"defense": "marrt"}, "did you mean 'mart'"),
        ({"attack_steps": 0}, "Attack steps is 0"),
        ({"random_start": "uniforn"}, "did you mean 'uniform'"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"outputs": "logit"}, "did you mean 'logits'"),
        ({"outputs": "logits", "softmax": True}, "ends in a softmax"),
    ],
)
def test_refuses_settings(settings, message):
    settings = {"threat": linear.THREAT, **settings}
    network = linear.linear_network()
    if settings.pop("softmax", False):
        network.add(keras.layers.Softmax())
    with pytest.raises(ValueError, match=message):
        mart_tf.AdversarialClassifier(network, **settings)


def test_refuses_a_loss_and_loss_scaling():
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT
    )
    with pytest.raises(ValueError, match="the defense is the loss"):
        model.compile("sgd", loss="sparse_categorical_crossentropy")
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        model.compile(scaled)
    several = keras.optimizers.OptimizerMap(keras.optimizers.SGD(clipnorm=1.0))
    with pytest.raises(ValueError, match="a MultiOptimizer, .* one optimizer"):
        model.compile(keras.optimizers.MultiOptimizer(several))
    divided = keras.optimizers.SGD(0.1, loss_scale_factor=100)
    with pytest.raises(ValueError, match="loss_scale_factor=100, by .* out."):
        model.compile(divided)


def test_refuses_layers_in_float16():
    network = keras.Sequential(
        [
            linear.linear_network(),
            keras.layers.Dense(4, dtype="mixed_float16", name="half"),
            keras.layers.Dense(linear.CLASSES),
        ]
    )
    with pytest.raises(ValueError, match="layer half .*float16.*mixed_bfloat"):
        mart_tf.AdversarialClassifier(network, threat=linear.THREAT)


@pytest.mark.parametrize(
    "images, labels, message",
    [
        ((255 * linear.IMAGES).astype("uint8"), linear.LABELS, "are uint8"),
        (255 * linear.IMAGES, linear.LABELS, r"expected floats in \[0, 1\]"),
        (
            np.where(linear.IMAGES > 0.5, np.nan, linear.IMAGES),
            linear.LABELS,
            "hold NaN",
        ),
        (linear.IMAGES, linear.LABELS + 2, "expected classes from 0 to 2"),
        (linear.IMAGES, linear.LABELS + 0.5, "hold fractions"),
        (
            linear.IMAGES,
            np.full([linear.EXAMPLES, linear.CLASSES], 1 / 3),
            "are soft",
        ),
        (linear.IMAGES, np.zeros([linear.EXAMPLES, 5]), r"one-hot \[n, 3\]"),
    ],
)
def test_refuses_bad_data_before_work_starts(images, labels, message):
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT
    )
    model.compile("sgd")
    with pytest.raises(ValueError, match=message):
        model.fit(images, labels, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(
            linear.IMAGES,
            linear.LABELS,
            validation_data=(images, labels),
            verbose=0,
        )
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    if "uint8" in message or "soft" in message or "5" in message:
        with pytest.raises(ValueError, match=message):
            model.fit(data, verbose=0)
    assert int(model.step) == 0


class Unnamed(keras.Model):
    """A user's own subclassed network, with a layer named `classifier`."""

    def __init__(self, softmax=False):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.classifier = keras.layers.Dense(10)
        self.softmax = softmax

    def call(self, inputs):
        scores = self.classifier(self.flatten(inputs))
        return keras.ops.softmax(scores) if self.softmax else scores


def test_a_subclassed_classifier():
    images, labels = digits()
    model = mart_tf.AdversarialClassifier(Unnamed(), threat=linear.THREAT)
    model.compile("sgd")
    model.fit(images, labels, verbose=0)
    assert model.built
    model = mart_tf.AdversarialClassifier(
        Unnamed(softmax=True), threat=linear.THREAT
    )
    model.compile("sgd")
    with pytest.raises(ValueError, match="returns probabilities"):
        model.fit(images, labels, verbose=0)


def test_keras_callbacks_with_a_mode(tmp_path):
    images, labels = digits()
    model = digits_model()
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras",
        monitor="val_robust_accuracy",
        mode="max",
        save_best_only=True,
    )
    stop = keras.callbacks.EarlyStopping(
        "val_robust_accuracy", mode="max", min_delta=1.0, patience=1
    )
    history = model.fit(
        images,
        labels,
        batch_size=64,
        epochs=9,
        validation_split=0.25,
        callbacks=[best, stop],
        verbose=0,
    )
    assert len(history.epoch) == 2
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    assert isinstance(loaded, mart_tf.AdversarialClassifier)


def test_the_loss_comes_first():
    images, labels = digits()
    model = digits_model(metrics=["accuracy"])
    model.fit(images, labels, verbose=0)
    loss, *_ = model.evaluate(images, labels, verbose=0)
    logs = model.evaluate(images, labels, verbose=0, return_dict=True)
    assert loss == logs["loss"]


class Batches(keras.utils.PyDataset):
    """Batches of arrays, as users write them."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(64 * index, 64 * (index + 1))
        return self.images[rows], self.labels[rows]


def test_a_py_dataset():
    images, labels = digits()
    model, reference = digits_model(), digits_model()
    model.fit(Batches(images, labels), shuffle=False, verbose=0)
    reference.fit(images, labels, batch_size=64, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), reference.get_weights(), strict=True):
        # Batches of unknown size are another graph, rounded otherwise.
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(ValueError, match="are uint8"):
        model.fit(Batches((255 * images).astype("uint8"), labels), verbose=0)
    with pytest.raises(ValueError, match="validation images are uint8"):
        model.fit(
            images,
            labels,
            validation_data=Batches((255 * images).astype("uint8"), labels),
            verbose=0,
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"threat": 0.1}, "threat is 0.1; expected a threat model"),
        ({"defense": mart_tf.defenses.MART}, "expected a name, a spec"),
        ({"classifier": keras.layers.Dense(3)}, "expected a keras.Model"),
        ({"attack_step_size": "0.1"}, "expected a number above 0"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
    ],
)
def test_refuses_arguments_of_another_type(settings, message):
    settings = {
        "classifier": linear.linear_network(),
        "threat": linear.THREAT,
        **settings,
    }
    with pytest.raises(ValueError, match=message):
        mart_tf.AdversarialClassifier(**settings)


def test_refuses_images_without_labels():
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT
    )
    model.compile("sgd")
    with pytest.raises(ValueError, match="There are no labels"):
        model.fit(linear.IMAGES, verbose=0)
    labeled = linear.IMAGES, linear.LABELS
    with pytest.raises(ValueError, match="validation_data has 1 parts; expec"):
        model.fit(*labeled, validation_data=(linear.IMAGES,), verbose=0)
    with pytest.raises(ValueError, match="a dict of 'images'; expected"):
        model.fit({"images": linear.IMAGES}, linear.LABELS, verbose=0)
    for call in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="There are no labels; expected"):
            call(linear.IMAGES)


def test_refuses_what_is_no_batch_and_images_of_another_shape():
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), threat=linear.THREAT
    )
    model.compile("sgd")
    labeled = linear.IMAGES, linear.LABELS
    single = tf.data.Dataset.from_tensor_slices(labeled)
    for call in (
        model.fit,
        model.evaluate,
        lambda data, **_: model.fit(*labeled, validation_data=data),
    ):
        with pytest.raises(ValueError, match="^The dataset gives one example "):
            call(single, verbose=0)
        with pytest.raises(
            ValueError, match=r"^The images have shape \(5,\); "
        ):
            call(single.batch(4).map(lambda x, y: (x[:, :5], y)), verbose=0)
    with pytest.raises(ValueError, match=r"'sequential.*' takes \(6,\)\.$"):
        model.fit(linear.IMAGES[:, :5], linear.LABELS, verbose=0)
    column = {"image": linear.IMAGES, "index": np.arange(8)[:, None]}
    with pytest.raises(
        ValueError, match=r'"index" comes .*, 1\); expected \[batch\]'
    ):
        model.fit(column, linear.LABELS, verbose=0)


def test_refuses_a_classifier_from_outside_the_scope():
    network = linear.linear_network()
    with (
        devices.strategy("mirrored").scope(),
        pytest.raises(ValueError, match="made outside the scope.. of the Mi"),
    ):
        mart_tf.AdversarialClassifier(network, threat=linear.THREAT)
    with devices.strategy("mirrored").scope():
        network = linear.linear_network()
    # Made inside, and wrapped outside: as Keras allows.
    model = mart_tf.AdversarialClassifier(network, threat=linear.THREAT)
    assert model.distribute_strategy.num_replicas_in_sync == 2


@pytest.mark.parametrize("layer", ["layer", "activation"])
def test_a_saturated_softmax_hides_nothing(layer):
    # The float32 softmax of these logits is exactly 0 and 1: attacks on its
    # logarithm would see no gradient, and find the network robust.
    images, labels = digits()
    network = small_network()
    plain = digits_model()
    plain.fit(images, labels, batch_size=32, epochs=2, verbose=0)
    weights = plain.classifier.get_weights()
    weights[-2:] = [100 * part for part in weights[-2:]]
    network.set_weights(weights)
    if layer == "layer":
        network.add(keras.layers.Softmax())
    else:
        network.layers[-1].activation = keras.activations.softmax
    logits = small_network()
    logits.set_weights(weights)
    threat = mart_tf.ThreatModel(epsilon=0.1)
    reports = [
        mart_tf.evaluate_robustness(
            model, (images, labels), threat, ["fgsm", "cw"], outputs=kind
        )
        for model, kind in [(logits, "logits"), (network, "probabilities")]
    ]
    assert reports[0].accuracy == reports[1].accuracy


@pytest.mark.parametrize("compiled", ["attack", True])
def test_xla_trains_the_same_weights(compiled):
    images, labels = digits()
    weights = []
    for jit_compile in (False, compiled):
        network = small_network()
        # XLA draws other numbers for Keras.
        network.layers[4].rate = 0.0
        model = mart_tf.AdversarialClassifier(
            network, "mart", mart_tf.ThreatModel(epsilon=0.1), attack_steps=2
        )
        model.compile(keras.optimizers.SGD(0.05), jit_compile=jit_compile)
        model.fit(images, labels, 64, epochs=1, shuffle=False, verbose=0)
        weights.append(network.get_weights())
    for plain, other in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, other, atol=1e-5)


def test_xla_compiles_the_attack_of_each_replica():
    images, labels = digits()
    weights = []
    for strategy in both_strategies():
        with strategy.scope():
            network = small_network()
            network.layers[4].rate = 0.0
            model = mart_tf.AdversarialClassifier(
                network,
                "mart",
                mart_tf.ThreatModel(epsilon=0.1),
                attack_steps=2,
            )
            model.compile(keras.optimizers.SGD(0.05), jit_compile="attack")
        model.fit(images, labels, 64, epochs=1, shuffle=False, verbose=0)
        weights.append(network.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_what_xla_compiles_is_saved(tmp_path):
    model = mart_tf.AdversarialClassifier(
        small_network(), "standard", mart_tf.ThreatModel(epsilon=0.1)
    )
    model.compile("sgd", jit_compile="attack")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.compiled_by_xla == "attack"


def test_xla_compiles_nothing_else():
    model = mart_tf.AdversarialClassifier(
        small_network(), "standard", mart_tf.ThreatModel(epsilon=0.1)
    )
    with pytest.raises(ValueError, match="jit_compile='all'; expected False"):
        model.compile("sgd", jit_compile="all")


@pytest.mark.parametrize(
    ("jit_compile", "whole"), [(False, False), ("attack", False), (True, True)]
)
def test_what_xla_compiles_is_asked_of_keras(jit_compile, whole):
    model = mart_tf.AdversarialClassifier(
        small_network(), "standard", mart_tf.ThreatModel(epsilon=0.1)
    )
    model.compile("sgd", jit_compile=jit_compile)
    assert model.jit_compile is whole


@pytest.mark.parametrize("call", ["train_on_batch", "test_on_batch"])
def test_a_network_that_a_batch_builds_without_a_graph_too(call):
    model = mart_tf.AdversarialClassifier(
        keras.Sequential([keras.layers.Dense(linear.CLASSES)]),
        "standard",
        linear.THREAT,
        1,
    )
    model.compile("sgd", run_eagerly=True)
    found = getattr(model, call)(linear.IMAGES, linear.LABELS, return_dict=True)
    assert np.isfinite(found["loss"])


def test_a_network_that_nothing_has_built_is_refused_by_a_generator():
    model = mart_tf.AdversarialClassifier(
        keras.Sequential([keras.layers.Dense(linear.CLASSES)]),
        "standard",
        linear.THREAT,
        1,
    )
    model.compile("sgd")
    batches = (batch for batch in [(linear.IMAGES, linear.LABELS)])
    with pytest.raises(ValueError, match="call it on a batch of images befo"):
        model.fit(batches, steps_per_epoch=1, verbose=0)


def test_images_are_one_array():
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), "standard", linear.THREAT, 1
    )
    model.compile("sgd")
    model.fit([linear.IMAGES], linear.LABELS, verbose=0)
    assert len(model.predict([linear.IMAGES], verbose=0)) == linear.EXAMPLES
    with pytest.raises(ValueError, match="is a tuple of 2 arrays; expected o"):
        model.fit((linear.IMAGES, linear.LABELS), verbose=0)


def test_images_of_a_size_that_is_not_known_are_refused():
    batches = tf.data.Dataset.from_generator(
        lambda: [(linear.IMAGES, linear.LABELS)],
        output_signature=(
            tf.TensorSpec([None, None]),
            tf.TensorSpec([None], tf.int32),
        ),
    )
    model = mart_tf.AdversarialClassifier(
        linear.linear_network(), "standard", linear.THREAT, 1
    )
    model.compile("sgd")
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="images of one size that is kno"):
            call(batches, verbose=0)
