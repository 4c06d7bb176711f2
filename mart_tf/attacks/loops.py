"""The loops and branches of an attack inside a graph.

TensorFlow's own, unless replicas have to meet in them: a batch norm over all
replicas sums in every pass, which TensorFlow allows in no loop, no branch and
no graph that is called.
"""

import functools

import tensorflow as tf

from mart_tf import private
from mart_tf.attacks import scopes

# In it a graph has every step of a loop, and both branches.
written_out = scopes.Scope()


def repeated(condition, body, state, most):
    """The state after a loop.

    Args:
        condition: From the state to whether there is a next step. Once it is
            false, steps change nothing that is looked at: written out, all
            are taken.
        body: From the state to the next one.
        state: A tuple.
        most: How many steps at most, a Python integer.

    Returns:
        A tuple of the same structure.
    """
    if written_out.holds:
        for _ in range(most):
            state = body(*state)
        return state
    return tf.while_loop(
        condition, called(body), state, maximum_iterations=most
    )


def either(condition, then, otherwise):
    """`then()` where a condition holds, else tensors that are there already.

    Args:
        condition: A boolean scalar.
        then: A function without arguments that returns a tuple of tensors.
        otherwise: A tuple of tensors of the same shapes.
    """
    if written_out.holds:
        return tuple(
            tf.where(condition, one, other)
            for one, other in zip(then(), otherwise, strict=True)
        )
    return tf.cond(condition, then, lambda: otherwise)


def called(body):
    """The body of a loop as a graph of its own, which TensorFlow calls.

    As a part of the loop's graph it may be many times as slow, see
    `mart_tf.private.CALLED`. Eagerly the body stays as it is: nothing is
    traced for one call.
    """
    if tf.executing_eagerly():
        return body
    # As a partial, for there are many with the same code: see
    # `base.compiled`.
    return tf.function(
        functools.partial(body),
        autograph=False,
        experimental_attributes=private.CALLED,
    )
