"""Attacks that go a step at a time, so that work can stop where it is done.

The functions of this package run an attack to its end on one batch. What
evaluates a whole data set drops an example as soon as it is broken and fills
its place with another: it drives the same attacks step by step.
"""

import abc
import functools
import threading

import tensorflow as tf

from mart_tf.attacks import examples
from mart_tf.attacks import gradient


def compiled(function):
    """A `tf.function` of which there may be many with the same code.

    TensorFlow takes the second attack of a kind for the first one traced
    again, and warns of a few; a partial has no code to be known by. Of many
    threads that wait for the first trace it takes each for the tracing one,
    and warns too: so that trace is made apart. Shapes are never generalised.
    """
    graph = tf.function(functools.partial(function), reduce_retracing=False)
    lock, traced = threading.Lock(), threading.Event()

    def call(*arguments):
        if not traced.is_set():
            with lock:
                if not traced.is_set():
                    graph.get_concrete_function(*arguments)
                    traced.set()
        return graph(*arguments)

    return call


class Stepwise(abc.ABC):
    """An attack on batches, driven from outside.

    An attack holds no state of its own: what it remembers of an example
    between steps are tensors `[batch, ...]` in a dict, among them
    "adversarial", the present iterate, always inside the threat model. So
    examples at different steps may share a batch.

    An attack of `steps` above 0 has a method

        step(images, labels, state, taken) -> (next state, logits)

    with `taken` int32 `[batch]` the steps of this round that each example has
    behind it, and `logits` `[batch, classes]` those of the iterate in
    `state`, not of the next one: a gradient has computed them anyway. It is
    compiled, and must not depend on an example's place in the batch.

    An attack of 0 steps does all its work in `start`, which runs eagerly: one
    that belongs to another library.

    Attributes:
        parameters: Every setting by name, as a report lists them.
        steps: How many steps an example takes in a round.
        rounds: How often all of it is done: restarts, or target classes.
        needs_gradient: Whether the classifier must be differentiable.
        climbs: Whether the loss at the iterates says how the attack went: it
            is then kept, step by step.
        norm: The norm that it minimises the distance in, free of the threat
            model's radius; None for attacks that stay inside it.
        notes: Sentences for the report: what was done otherwise than asked.
        parts: Of an ensemble, which is no attack of its own: pairs of a name
            and a `Stepwise`.
    """

    parameters = {}
    steps = 0
    rounds = 1
    needs_gradient = True
    climbs = False
    norm = None
    notes = ()
    parts = ()

    @property
    def work(self):
        """About how many passes through the network an example takes."""
        return max(1, self.steps * self.rounds)

    @abc.abstractmethod
    def start(self, images, labels, seeds, number=0):
        """The state before the first step of a round.

        Args:
            images: Natural examples, float32 `[batch, ...]`.
            labels: Integer classes `[batch]`.
            seeds: Int64 tensor `[batch, 2]`, one seed per example, the same
                in all rounds.
            number: The round, a Python integer from 0.

        Returns:
            A dict of tensors `[batch, ...]`, "adversarial" among them.
        """

    def best(self, state):
        """What to hand over at the end of a round: the last iterate."""
        return state["adversarial"]


def advance(attack, images, labels, state):
    """All steps of a round, in the graph.

    Returns:
        The state after the last step; the first misclassified iterate of each
        example, or the natural image; and whether there was one, `[batch]`.
    """

    def body(number, state, found, fell):
        taken = tf.fill(tf.shape(labels), number)
        following, logits = attack.step(images, labels, state, taken)
        falls = examples.misclassified(labels, logits) & ~fell
        found = examples.where(falls, state["adversarial"], found)
        return number + 1, following, found, fell | falls

    fell = tf.fill(tf.shape(images)[:1], False)
    return tf.while_loop(
        lambda number, *_: number < attack.steps,
        gradient.apart(body),
        (tf.constant(0), state, images, fell),
    )[1:]


def run(attack, classify, images, labels, seed):
    """An attack to its end on one batch: what its functions return.

    Args:
        attack: A `Stepwise`.
        classify: Maps images to logits `[batch, classes]`.
        images: Natural examples, float32 `[batch, ...]`.
        labels: Integer classes `[batch]`.
        seed: As in `pgd`.

    Returns:
        Of each example the best iterate of the first round that has one that
        is misclassified, or else another of that round that is; where there
        is none, the last round's best. Float32, of the images' shape.
    """
    images = gradient.floats(images)
    labels = tf.convert_to_tensor(labels)
    seeds = gradient.example_seeds(seed, images)
    found, fell = images, tf.fill(tf.shape(images)[:1], False)
    for number in range(attack.rounds):
        state = attack.start(images, labels, seeds, number)
        state, other, falls = advance(attack, images, labels, state)
        # No step has looked at the last iterate.
        for iterate in (state["adversarial"], attack.best(state)):
            wrong = examples.misclassified(labels, classify(iterate))
            other = examples.where(wrong, iterate, other)
            falls |= wrong
        other = examples.where(falls, other, attack.best(state))
        found = examples.where(fell, found, other)
        fell |= falls
    return tf.stop_gradient(found)
