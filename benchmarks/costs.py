"""What a training step costs on paper: FLOP, and bytes between cards.

A network's FLOP come from the shapes of its layers, a defense's passes from
running it with a classifier that counts its calls. Nothing is timed.
"""

import functools
import math
from typing import NamedTuple

import keras
import rates
import tensorflow as tf

import mart_tf
from mart_tf import defenses
from mart_tf.attacks import given
from mart_tf.defenses import base

CLASSES = 10
SHAPES = {
    "digits": (8, 8, 1),
    "mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
}
_BYTES = 4  # Of a float32.


class Network(NamedTuple):
    """A network in numbers.

    forward: FLOP of an image's forward pass. first: of them the first
    layer's. parameters: trainable ones. channels: of every batch norm.
    """

    forward: int
    first: int
    parameters: int
    channels: tuple[int, ...]


class Passes(NamedTuple):
    """Passes of an image through the network in one training step.

    forward: those that nothing is derived from. attack: forward, and backward
    to the image. training: forward, and backward to activations and weights.
    unseen: forward passes that validation needs beside those of the loss.
    gradients: how often the weights' gradient is summed over the cards.
    """

    forward: int
    attack: int
    training: int
    unseen: int = 0
    gradients: int = 1

    @property
    def units(self):
        """Forward passes, and what costs as much as one."""
        return self.forward + 2 * self.attack + 3 * self.training


@functools.cache
def network(spec, shape):
    """The `Network` of a spec such as "wide_resnet:depth=34:width=10"."""
    # Variables without values: their shapes are enough.
    with keras.StatelessScope(initialize_variables=False):
        model = mart_tf.models.build(spec, shape, CLASSES)
    return Network(
        forward=rates.forward_flops(model),
        first=_first_flops(model),
        parameters=sum(
            math.prod(variable.shape) for variable in model.trainable_variables
        ),
        channels=tuple(
            layer.gamma.shape[0]
            for layer in model.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ),
    )


def _first_flops(model):
    """FLOP of the layer that sees the image: training derives no image."""
    return next(filter(None, map(rates.layer_flops, model.layers)))


def training_flops(found, passes):
    """FLOP of an image in one training step.

    Args:
        found: A `Network`.
        passes: `Passes`.
    """
    return passes.units * found.forward - passes.training * found.first


def validation(passes, steps):
    """`Passes` of a validation image: PGD, and the loss without a gradient."""
    return Passes(passes.training + passes.unseen, steps, 0)


def passes(defense, steps):
    """`Passes` of a defense, the most that a step may take.

    Counted with an attack of one step and of two: each further one adds what
    the second did.

    Args:
        defense: A spec such as "mart:regularization=6".
        steps: Steps of the inner attack.
    """
    one, two = counted(defense, 1), counted(defense, 2)
    return Passes(
        *(a + (steps - 1) * (b - a) for a, b in zip(one, two, strict=True))
    )


def perturbed(passes):
    """`Passes` with weight perturbation: the loss's, and a sum, once more."""
    return passes._replace(
        training=2 * passes.training, gradients=2 * passes.gradients
    )


@functools.cache
def counted(defense, steps):
    """`Passes` of a defense, run once with a classifier that counts them.

    Its answers are such that nothing ends early: every example is right, no
    image crosses the boundary, and the gradient turns round at every pass, so
    that no iterate is stationary.

    Args:
        defense: As of `passes`.
        steps: As of `passes`.
    """
    defense = defenses.get(defense)
    if defense.files:
        # A subset, whose file need not be there: nobody is in it.
        defense.contains = lambda examples: examples < 0
    threat = mart_tf.ThreatModel(epsilon=0.1)
    batch = _batch(2, defense.memory(threat))
    # In an epoch in which Dynamic's criterion is 0.
    inner = base.InnerAttack(
        threat, steps, 0.025, threat.epsilon, "uniform", tf.constant(1e6)
    )
    attack, loss = _Counting(), _Counting()
    # As in a step, where nobody asks for the number of classes.
    with given.unseen():
        adversarial = defense.attack(attack, batch, inner)
    weight = tf.zeros([])
    with tf.GradientTape() as tape:
        tape.watch(weight)
        losses = defense.loss(
            lambda images: loss(images + weight), batch, adversarial
        )
        total = tf.reduce_sum(losses.values)
    tape.gradient(total, weight)
    return Passes(
        forward=attack.forward - attack.backward + loss.forward - loss.backward,
        attack=attack.backward,
        training=loss.backward,
        unseen=[losses.natural_logits, losses.adversarial_logits].count(None),
    )


def _batch(count, kept):
    zeros = tf.zeros([count], tf.int64)
    return base.Batch(
        image=tf.fill([count, 4, 4, 1], 0.5),
        label=tf.zeros([count], tf.int32),
        weight=tf.ones([count]),
        example=zeros,
        seeds=tf.stack([zeros, zeros], axis=1),
        # So near that MMA looks again from the training epsilon.
        memory={name: tf.fill([count], 1e-3) for name in kept},
    )


class _Counting:
    """A classifier that counts its passes."""

    def __init__(self):
        self.forward = self.backward = 0

    def __call__(self, images):
        @tf.custom_gradient
        def classify(images):
            self.forward += 1
            scores = tf.constant([[3.0] + [0.0] * (CLASSES - 1)])

            def backward(slope):
                del slope
                self.backward += 1
                return tf.fill(tf.shape(images), (-1.0) ** self.backward)

            return tf.repeat(scores, tf.shape(images)[0], axis=0), backward

        return classify(images)


def reduced(found, passes, remembered=0):
    """What the cards of a training step sum over all of them.

    The gradient is one sum, with weight perturbation two. A batch norm takes
    five for every pass of the loss: sums of the values, of their squares and
    their number, and in the backward pass the gradients of the first two. One
    float counts the examples; seven say whether a number was not finite.

    Args:
        found: A `Network`.
        passes: `Passes`.
        remembered: Rows that the defense keeps something of (MMA): of each a
            sum and a number.

    Returns:
        Bytes, and the number of sums.
    """
    norms = 5 * passes.training
    gradients = passes.gradients * found.parameters
    floats = gradients + norms * sum(found.channels) + 1 + 7
    sums = passes.gradients + norms * len(found.channels) + 2
    if remembered:
        floats, sums = floats + 2 * remembered, sums + 1
    return _BYTES * floats, sums


def ring(size, cards):
    """Bytes that each card sends in a ring all-reduce of `size` bytes."""
    return 2 * (cards - 1) / cards * size
