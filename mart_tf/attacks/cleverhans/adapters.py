"""Attacks of CleverHans 4.0.0 (`cleverhans.tf2.attacks`), mended.

Their own options by their own names. The defaults are those of this project's
attacks where CleverHans has none: 20 steps of epsilon / 10. What an adapter
mends is named in its docstring. For `pgd` CleverHans draws the random start
from TensorFlow's global generator, for a whole batch at once, so
`evaluate_robustness` seeds that generator before each attack; the start of an
example then depends on the batch size, unlike in this project's own attacks
and in `spsa`.

`basic_iterative_method` and `madry_et_al` are CleverHans's
`projected_gradient_descent` without and with a random start, and fail on numpy
2 ("inhomogeneous shape") before they call it: `bim` calls it itself, and
`madry_et_al` is `pgd`.
"""

import functools

from cleverhans.tf2.attacks import fast_gradient_method
from cleverhans.tf2.attacks import momentum_iterative_method
from cleverhans.tf2.attacks import projected_gradient_descent
import numpy as np
import tensorflow as tf

from mart_tf import bounds
from mart_tf.attacks import base

# In CleverHans's terms.
_NORMS = {"linf": np.inf, "l2": 2}


def _magnified_cross_entropy(labels, logits):
    # A power of 2 changes the length of the gradient and no digit of it.
    return 2.0**40 * tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels, logits
    )


# The loss that is climbed; None is CleverHans's own, the cross-entropy. In l2
# it divides a gradient by max(1e-6, its norm), so that on a confident network,
# whose gradients are far shorter, it barely moves and the network looks robust
# (cleverhans#1175).
_LOSSES = {"linf": None, "l2": _magnified_cross_entropy}


class _Adapter(base.Attack):
    """Runs one CleverHans function on whole batches of one static shape.

    Adding eta back to x, CleverHans may leave the epsilon-ball by rounding:
    its result is projected onto the threat model, and refused if that moves
    it by more than rounding would. Subclasses have their options under
    CleverHans's names.
    """

    objective = "cross_entropy"
    function = staticmethod(
        projected_gradient_descent.projected_gradient_descent
    )

    def prepare(self):
        options = self.parameters
        for name, default in (
            ("eps_iter", self.threat.epsilon / 10),
            ("rand_minmax", self.threat.epsilon),
        ):
            if name in options and options[name] is None:
                setattr(self, name, default)
        options = self.parameters
        step_size = options.get("eps_iter", self.threat.epsilon)
        if not 0.0 < step_size <= self.threat.epsilon:
            # Above epsilon it is a bare AssertionError in CleverHans.
            raise ValueError(
                f"eps_iter is {bounds.spelled(step_size)}; expected a step "
                "size above 0 and at most epsilon, "
                f"{bounds.spelled(self.threat.epsilon)}."
            )
        self.attack = functools.partial(
            self.function,
            self.classify,
            eps=self.threat.epsilon,
            norm=_NORMS[self.threat.norm],
            clip_min=self.threat.pixel_min,
            clip_max=self.threat.pixel_max,
            **options,
            **self.others(),
        )

    def others(self):
        """What CleverHans is given beside the options."""
        return {"loss_fn": _LOSSES[self.threat.norm]}

    @property
    def iterations(self):
        return self.parameters.get("nb_iter", 1)

    @property
    def reach(self):
        step = self.parameters.get("eps_iter", self.threat.epsilon)
        return self.iterations * step

    def start(self, images, labels, seeds, number=0):
        found = self.attack(images, y=labels)
        return {"adversarial": inside(self.threat, found, images)}


class FastGradient(_Adapter):
    """`fast_gradient_method`: one step of size epsilon, no random start.

    Fault mended: steps that shrink with the gradient in l2.
    """

    function = staticmethod(fast_gradient_method.fast_gradient_method)


class ProjectedGradient(_Adapter):
    """`projected_gradient_descent` (Madry et al., ICLR 2018).

    In CleverHans `rand_init=None` means no random start; here it is on. Fault
    mended: steps that shrink with the gradient in l2.

    Args:
        nb_iter: Number of steps.
        eps_iter: Step size; default: epsilon / 10.
        rand_init: Whether to start at random within `rand_minmax`.
        rand_minmax: Radius of the random start; default: epsilon.
    """

    def __init__(
        self,
        nb_iter: int = 20,
        eps_iter: float | None = None,
        rand_init: bool = True,
        rand_minmax: float | None = None,
    ):
        self.nb_iter = nb_iter
        self.eps_iter = eps_iter
        self.rand_init = rand_init
        self.rand_minmax = rand_minmax


class BasicIterative(_Adapter):
    """`basic_iterative_method` (Kurakin et al., ICLR 2017 workshop).

    `pgd` without a random start: CleverHans's own function ignores
    `rand_init`, and takes no loss.

    Args:
        nb_iter: Number of steps.
        eps_iter: Step size; default: epsilon / 10.
    """

    def __init__(self, nb_iter: int = 20, eps_iter: float | None = None):
        self.nb_iter = nb_iter
        self.eps_iter = eps_iter

    def others(self):
        return {**super().others(), "rand_init": False}


class MomentumIterative(_Adapter):
    """`momentum_iterative_method` (Dong et al., CVPR 2018).

    It scales every gradient itself: its steps keep their length in l2.

    Args:
        nb_iter: Number of steps.
        eps_iter: Step size; default: epsilon / 10.
        decay_factor: Weight of the momentum.
    """

    function = staticmethod(momentum_iterative_method.momentum_iterative_method)

    def __init__(
        self,
        nb_iter: int = 20,
        eps_iter: float | None = None,
        decay_factor: float = 1.0,
    ):
        self.nb_iter = nb_iter
        self.eps_iter = eps_iter
        self.decay_factor = decay_factor

    def others(self):
        return {}


def inside(threat, found, images):
    """What was found, projected; refused if that is more than rounding.

    A pixel that is not finite, which CleverHans makes of a NaN gradient,
    stays at the natural one.
    """
    found = tf.where(tf.math.is_finite(found), found, images)
    adversarial = threat.project(found, images)
    moved = float(tf.reduce_max(tf.abs(found - adversarial)))
    width = threat.pixel_max - threat.pixel_min
    if not moved <= 1e-6 * width + 2.0 * threat.rounding:
        raise RuntimeError(
            f"CleverHans left the threat model by {moved:g}; expected at most "
            "rounding."
        )
    return adversarial
