"""Attacks of CleverHans 4.0.0 (`cleverhans.tf2.attacks`), as they are.

Their own options by their own names. The defaults are those of this project's
attacks: 20 steps of epsilon / 10. What an adapter mends is named in its
docstring. Common to all: CleverHans draws its random start from TensorFlow's
global generator, for a whole batch at once, so `evaluate_robustness` seeds
that generator before each attack; the start of an example then depends on the
batch size, unlike in this project's own attacks.
"""

import functools

from cleverhans.tf2.attacks import basic_iterative_method
from cleverhans.tf2.attacks import fast_gradient_method
from cleverhans.tf2.attacks import momentum_iterative_method
from cleverhans.tf2.attacks import projected_gradient_descent
import numpy as np
import tensorflow as tf

from mart_tf.evaluation import engine

_NORMS = {"linf": np.inf}


class _Adapter(engine.Attack):
    """Runs one CleverHans function on whole batches of one static shape.

    Adding eta back to x, CleverHans may leave the epsilon-ball by rounding:
    its result is projected onto the threat model, and refused if that moves
    it by more than rounding would.
    """

    def __init__(self, classify, threat, function, fixed=None, **options):
        if not 0.0 < options.get("eps_iter", threat.epsilon) <= threat.epsilon:
            # Above epsilon it is a bare AssertionError in CleverHans.
            raise ValueError(
                f"eps_iter is {options['eps_iter']:g}; expected a step size "
                f"above 0 and at most epsilon, {threat.epsilon:g}."
            )
        self.threat = threat
        self.parameters = options
        self.attack = functools.partial(
            function,
            classify,
            eps=threat.epsilon,
            norm=_NORMS[threat.norm],
            clip_min=threat.pixel_min,
            clip_max=threat.pixel_max,
            **options,
            **(fixed or {}),
        )

    def start(self, images, labels, seeds):
        found = self.attack(images, y=labels)
        adversarial = self.threat.project(found, images)
        moved = float(tf.reduce_max(tf.abs(found - adversarial)))
        width = self.threat.pixel_max - self.threat.pixel_min
        if not moved <= 1e-6 * width:
            raise RuntimeError(
                f"CleverHans left the threat model by {moved:g}; expected at "
                "most rounding."
            )
        return {"adversarial": adversarial}


class FastGradient(_Adapter):
    """`fast_gradient_method`: one step of size epsilon, no random start."""

    def __init__(self, classify, threat, classes):
        super().__init__(
            classify, threat, fast_gradient_method.fast_gradient_method
        )


class ProjectedGradient(_Adapter):
    """`projected_gradient_descent` (Madry et al., ICLR 2018).

    In CleverHans `rand_init=None` means no random start; here it is on.

    Args:
        nb_iter: Number of steps.
        eps_iter: Step size; default: epsilon / 10.
        rand_init: Whether to start at random within `rand_minmax`.
        rand_minmax: Radius of the random start; default: epsilon.
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        nb_iter: int = 20,
        eps_iter: float | None = None,
        rand_init: bool = True,
        rand_minmax: float | None = None,
    ):
        super().__init__(
            classify,
            threat,
            projected_gradient_descent.projected_gradient_descent,
            nb_iter=nb_iter,
            eps_iter=_step_size(threat, eps_iter),
            rand_init=rand_init,
            rand_minmax=threat.epsilon if rand_minmax is None else rand_minmax,
        )


class BasicIterative(_Adapter):
    """`basic_iterative_method` (Kurakin et al., ICLR 2017 workshop).

    Fault mended: with its default `sanity_checks=True` and clip bounds it
    fails on numpy 2 ("inhomogeneous shape"), so the checks are off. It has no
    option `rand_init` here, because CleverHans ignores the one it has.

    Args:
        nb_iter: Number of steps.
        eps_iter: Step size; default: epsilon / 10.
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        nb_iter: int = 20,
        eps_iter: float | None = None,
    ):
        super().__init__(
            classify,
            threat,
            basic_iterative_method.basic_iterative_method,
            fixed={"sanity_checks": False},
            nb_iter=nb_iter,
            eps_iter=_step_size(threat, eps_iter),
        )


class MomentumIterative(_Adapter):
    """`momentum_iterative_method` (Dong et al., CVPR 2018).

    Args:
        nb_iter: Number of steps.
        eps_iter: Step size; default: epsilon / 10.
        decay_factor: Weight of the momentum.
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        nb_iter: int = 20,
        eps_iter: float | None = None,
        decay_factor: float = 1.0,
    ):
        super().__init__(
            classify,
            threat,
            momentum_iterative_method.momentum_iterative_method,
            nb_iter=nb_iter,
            eps_iter=_step_size(threat, eps_iter),
            decay_factor=decay_factor,
        )


def _step_size(threat, eps_iter):
    return threat.epsilon / 10 if eps_iter is None else eps_iter
