"""FLOP of a training step as TensorFlow's own profiler counts them."""

from typing import NamedTuple
from unittest import mock

import costs
import keras
import tensorflow as tf

import mart_tf
from mart_tf.attacks import loops

_PRODUCTS = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "MatMul")


class Counted(NamedTuple):
    """FLOP of an image.

    products: of convolutions and dense layers. mended: the same, each gradient
    of a convolution counted by the pixels that it comes from. everything: with
    all other operations that the profiler knows.
    """

    products: float
    mended: float
    everything: float


def forward_pass(network, shape):
    """The `Counted` of the traced forward pass of a network's spec."""
    model = mart_tf.models.build(network, shape, costs.CLASSES)
    image = tf.TensorSpec([1, *shape])
    traced = tf.function(lambda x: model(x, training=False))
    return _counted(traced.get_concrete_function(image).graph, 1)


def training_step(network, shape, defense, attack_steps, batch_size=4):
    """The `Counted` of the traced training step of a defense.

    Loops are unrolled, for the profiler looks into none. Neither does it look
    into a `tf.cond`: of MMA's two searches it sees the first.

    Args:
        network: A spec such as "small_cnn".
        shape: Of an image.
        defense: A spec such as "mart".
        attack_steps: Steps of the inner attack.
        batch_size: Images in the step.
    """
    model = mart_tf.AdversarialClassifier(
        mart_tf.models.build(network, shape, costs.CLASSES),
        defense,
        mart_tf.ThreatModel(epsilon=0.1),
        attack_steps,
        rows=batch_size,
    )
    model.compile(keras.optimizers.SGD(0.01))
    model.optimizer.build(model.trainable_variables)
    images = {
        "image": tf.TensorSpec([batch_size, *shape]),
        "index": tf.TensorSpec([batch_size], tf.int64),
    }
    batch = (images, tf.TensorSpec([batch_size], tf.int32))
    with (
        mock.patch.object(tf, "while_loop", _unrolled),
        mock.patch.object(loops, "called", lambda body: body),
    ):
        traced = tf.function(model.train_step).get_concrete_function(batch)
    return _counted(traced.graph, batch_size)


def _unrolled(cond, body, loop_vars, maximum_iterations):
    del cond
    for _ in range(maximum_iterations):
        loop_vars = body(*loop_vars)
    return loop_vars


def _counted(graph, batch_size):
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    found = tf.compat.v1.profiler.profile(
        graph,
        cmd="scope",
        options=builder(builder.float_operation()).with_empty_output().build(),
    )
    # The gradient of a convolution is traced with that to its kernel, asked
    # for or not; what nobody asks for is dropped before it runs.
    ends = [tensor.op.name for tensor in graph.outputs]
    ends += [operation.name for operation in graph.control_outputs]
    kept = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), ends)
    live = {node.name for node in kept.node}
    products = mended = everything = 0
    for node in _nodes(found):
        if node.name in live:
            everything += node.float_ops
            operation = graph.get_operation_by_name(node.name)
            if operation.type in _PRODUCTS:
                products += node.float_ops
                mended += node.float_ops * _share(operation)
    return Counted(*(n / batch_size for n in (products, mended, everything)))


def _nodes(node):
    yield node
    for child in node.children:
        yield from _nodes(child)


def _share(operation):
    """What a gradient of a convolution costs, of what the profiler says.

    It takes the pixels of the convolution's input over the strides, where the
    pixels of its output count: without padding these are fewer.
    """
    if not operation.type.startswith("Conv2DBackprop"):
        return 1.0
    seen = operation.inputs[0]
    if operation.type == "Conv2DBackpropInput":
        seen = operation.outputs[0]
    strides = operation.get_attr("strides")
    pixels = seen.shape[1] * seen.shape[2] / (strides[1] * strides[2])
    slope = operation.inputs[2].shape
    return slope[1] * slope[2] / pixels
