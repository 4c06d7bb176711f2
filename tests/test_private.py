"""Each private name of Keras and TensorFlow that is used, held to its use."""

import ast
import pathlib
import re

import keras
import linear
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import private
from mart_tf.runs import devices

_ROOT = pathlib.Path(private.__file__).parents[1]
_PRIVATE = re.compile(
    r"tensorflow\.(python|core|compiler)\b|keras\.src\b|_noinline"
    r"|^_keras_\w+|_compile_metrics|seed_generator_state|_use_cached\w*"
    r"|_maybe_symbolic_build|_flatten_layers|_accumulated_gradients"
    r"|_in_multi_worker_mode"
)


def test_the_versions_are_bounded():
    text = (_ROOT / "setup.py").read_text(encoding="utf-8")
    assert '"keras>=3.15,<3.16"' in text
    assert 'TENSORFLOW = ">=2.21,<2.22"' in text


def test_nothing_private_is_used_anywhere_else():
    files = set()
    for path in [*_ROOT.glob("mart_tf/**/*.py"), *_ROOT.glob("export/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                # A docstring may speak of a file of TensorFlow's.
                names = [] if "\n" in node.value else [node.value]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
            if any(_PRIVATE.search(name) for name in names):
                files.add(path.name)
    assert files == {"private.py"}


def test_a_called_function_stands_in_the_graph_as_a_call():
    def calls(attributes):
        inner = tf.function(lambda x: x * x, experimental_attributes=attributes)
        outer = tf.function(lambda x: inner(x) + 1.0)
        graph = outer.get_concrete_function(tf.TensorSpec([], tf.float32))
        [library] = graph.graph.as_graph_def().library.function
        return library.attr["_noinline"].b

    assert calls(private.CALLED)
    assert not calls(None)


def test_the_logits_of_a_softmax_are_found_and_carry_the_gradient():
    logits = tf.Variable([[200.0, 0.0, -100.0]])
    for softmax in (
        keras.layers.Softmax(),
        keras.layers.Activation("softmax"),
        keras.activations.softmax,
    ):

        @tf.function
        def of(softmax=softmax):
            with tf.GradientTape() as tape:
                behind = private.softmax_logits(softmax(logits))
                loss = tf.reduce_logsumexp(behind) - behind[0, 1]
            return behind, tape.gradient(loss, logits)

        behind, slope = of()
        np.testing.assert_array_equal(behind, logits)
        np.testing.assert_allclose(slope, [[1.0, -1.0, 0.0]])
    # Through p itself nothing comes back: it has underflown to 0.
    assert tf.nn.softmax(logits)[0, 1].numpy() == 0.0
    assert private.softmax_logits(tf.nn.softmax(logits)) is None


def test_each_seed_generator_of_a_network_is_found_and_decides_its_masks():
    inner = keras.Sequential([keras.layers.Dropout(0.5)])
    network = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dropout(0.5),
            inner,
            keras.layers.GaussianNoise(1.0),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
        ]
    )
    states = private.seed_states(network)
    assert len(states) == 3
    assert all(state.shape == (2,) for state in states)

    def masks():
        return network.layers[0](tf.ones([1, 64]), training=True).numpy()

    states[0].assign(tf.constant([3, 5], tf.uint32))
    first = masks()
    assert np.abs(first - masks()).max() == 2.0
    states[0].assign(tf.constant([3, 5], tf.uint32))
    np.testing.assert_array_equal(first, masks())


def test_layers_inside_of_layers_are_found():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.BatchNormalization(name="inside")

        def call(self, images):
            return self.inner(images)

    nested = keras.Sequential([keras.Input([4]), Block()])
    model = keras.Sequential([keras.Input([4]), nested])
    assert "inside" in {layer.name for layer in private.layers(model)}


def test_what_sums_gradients_is_told_from_other_variables():
    weight = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.1, 0.9, gradient_accumulation_steps=2)
    optimizer.apply([tf.constant([3.0])], [weight])
    [total] = private.accumulators(optimizer)
    assert float(total[0]) == 3.0
    assert not private.accumulators(keras.optimizers.SGD(0.1, 0.9))


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
def test_several_replicas_read_data_once(metrics):
    starts = []

    def batches():
        starts.append(None)
        yield linear.IMAGES[:2], linear.LABELS[:2]

    data = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec([2, linear.PIXELS]),
            tf.TensorSpec([2], tf.int32),
        ),
    )
    with devices.strategy("mirrored").scope():
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(), "natural", linear.THREAT
        )
        model.compile(keras.optimizers.SGD(0.1), metrics=metrics)
    for method, times in [
        # Once more where something has to be built.
        (model.evaluate, 2),
        (model.fit, 1),
        (model.evaluate, 1),
    ]:
        starts.clear()
        method(data, check_data=False, verbose=0)
        assert len(starts) == times


def test_fit_says_when_it_evaluates():
    seen = []

    class Model(keras.Sequential):
        def evaluate(self, *arguments, **keywords):
            seen.append(private.is_called_by_fit(keywords))
            return super().evaluate(*arguments, **keywords)

    model = Model([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = np.zeros([4, 2], "float32"), np.zeros([4, 1], "float32")
    model.fit(*data, validation_data=data, epochs=2, verbose=0)
    model.evaluate(*data, verbose=0)
    assert seen == [True, True, False]


@pytest.mark.parametrize("name", ["single", "mirrored"])
def test_a_strategy_of_one_process_has_no_workers(name):
    # That of several: tests/test_multi_worker.py.
    assert not private.has_several_workers(devices.strategy(name))


def test_metrics_are_there_before_they_are_used():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    network.compile("sgd", metrics=["accuracy"])
    private.build_metrics(network, tf.zeros([4], tf.int32), tf.zeros([4, 3]))
    before = [id(variable) for variable in network.metrics_variables]
    # Those of the loss, and the accuracy of integer labels; and once.
    assert len(before) == 4
    private.build_metrics(network, tf.zeros([4], tf.int32), tf.zeros([4, 3]))
    values = network.compute_metrics(
        None, tf.constant([0, 1]), tf.constant([[2.0, 1, 0], [2, 1, 0]])
    )
    assert float(values["accuracy"]) == 0.5
    assert before == [id(variable) for variable in network.metrics_variables]


def test_a_changed_saved_model_gets_a_fingerprint_of_its_own(tmp_path):
    module = tf.Module()
    module.f = tf.function(
        lambda x: x + 1.0,
        input_signature=[tf.TensorSpec([None], tf.float32, "x")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"plus": module.f})
    read = tf.saved_model.experimental.read_fingerprint
    before = read(str(tmp_path))
    path = tmp_path / "saved_model.pb"
    message = private.saved_model(path.read_bytes())
    signature = message.meta_graphs[0].signature_def["plus"]
    assert list(signature.inputs) == ["x"]
    signature.method_name = "another"
    path.write_bytes(message.SerializeToString(deterministic=True))
    assert read(str(tmp_path)) == before
    private.write_fingerprint(tmp_path)
    after = read(str(tmp_path))
    assert after.saved_model_checksum != before.saved_model_checksum
