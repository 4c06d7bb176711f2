"""Attacks by projected steps of steepest ascent, a step at a time."""

import functools
from typing import Literal

import tensorflow as tf

from mart_tf import bounds
from mart_tf import threat as threat_model
from mart_tf.attacks import base
from mart_tf.attacks import gradient
from mart_tf.attacks import objectives


class _Ascent(base.Attack):
    """Projected steps of steepest ascent on one objective."""

    climbs = True
    takes_target = True
    plain = True
    objective = "cross_entropy"

    def __init__(self, steps, step_size, random_start, restarts):
        gradient.check_settings(steps, step_size, random_start)
        self.steps = steps
        self.step_size = step_size
        self.random_start = random_start
        self.restarts = restarts

    def prepare(self):
        if self.step_size is None:
            # As in the tests of the MART paper.
            self.step_size = self.threat.epsilon / 10
        self.climbed = objectives.objective(
            self.objective, self.targeted, self.classes
        )

    @property
    def random(self):
        return self.random_start != "none"

    @property
    def reach(self):
        return self.steps * self.step_size

    def start(self, images, labels, seeds, number=0):
        start = self.threat.random_start(images, seeds, kind=self.random_start)
        return {"adversarial": start}

    def step(self, images, labels, state, taken):
        adversarial, _, logits = gradient.ascent_step(
            self.classify,
            state["adversarial"],
            images,
            labels,
            self.threat,
            self.step_size,
            self.climbed,
        )
        return {"adversarial": adversarial}, logits


class FGSM(_Ascent):
    """Fast gradient sign method (Goodfellow et al., ICLR 2015).

    One step of size epsilon on the cross-entropy; in l2 along the gradient
    itself (fast gradient method).

    Args:
        random_start: See `ThreatModel.random_start`; by definition the step
            starts at the natural example.
        restarts: How often it starts anew, from other noise.
    """

    def __init__(
        self,
        random_start: Literal["none", "uniform", "gaussian"] = "none",
        restarts: int = 1,
    ):
        super().__init__(1, None, random_start, restarts)

    def prepare(self):
        self.step_size = self.threat.epsilon
        super().prepare()

    @property
    def parameters(self):
        return {"step_size": self.step_size, **super().parameters}


class PGD(_Ascent):
    """Projected gradient descent (Madry et al., ICLR 2018).

    Args:
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the threat model's norm, in units of
            the pixels; default: epsilon / `steps_per_epsilon`.
        objective: What is maximised; in Python also a callable `(labels,
            logits) -> [batch]`.
        random_start: See `ThreatModel.random_start`.
        restarts: How often it starts anew, from other noise.
        steps_per_epsilon: How many steps are as long as epsilon, where no
            `step_size` says it, above 0: 10 as in the tests of the MART
            paper; its training attack has 4.
    """

    def __init__(
        self,
        steps: int = 20,
        step_size: float | None = None,
        objective: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy",
        random_start: Literal["uniform", "gaussian", "none"] = "uniform",
        restarts: int = 1,
        steps_per_epsilon: float = 10.0,
    ):
        bounds.ABOVE_ZERO.check("steps_per_epsilon", steps_per_epsilon)
        super().__init__(steps, step_size, random_start, restarts)
        self.objective = objective
        self.steps_per_epsilon = steps_per_epsilon

    def prepare(self):
        if self.step_size is None:
            self.step_size = self.threat.epsilon / self.steps_per_epsilon
        super().prepare()

    @property
    def parameters(self):
        # The step size says it, wherever that comes from.
        listed = super().parameters
        listed.pop("steps_per_epsilon", None)
        return listed


class CW(_Ascent):
    """Projected steps on the margin of Carlini and Wagner (S&P 2017).

    In linf the CW_inf of the MART paper. In l2 the same steps inside the l2
    ball: not Carlini and Wagner's own attack, which looks for the shortest
    way to another class and knows no epsilon.

    Args:
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the threat model's norm, in units of
            the pixels; default: epsilon / 10.
        kappa: Confidence past which there is nothing to gain. The code that
            the MART authors released uses 0 and does not mask the true class.
        random_start: See `ThreatModel.random_start`.
        restarts: How often it starts anew, from other noise.
    """

    objective = "margin"

    def __init__(
        self,
        steps: int = 20,
        step_size: float | None = None,
        kappa: float = 50.0,
        random_start: Literal["uniform", "gaussian", "none"] = "uniform",
        restarts: int = 1,
    ):
        super().__init__(steps, step_size, random_start, restarts)
        bounds.AT_LEAST_ZERO.check("kappa", kappa)
        self.kappa = kappa

    def prepare(self):
        super().prepare()
        self.climbed = functools.partial(self.climbed, kappa=self.kappa)


class MomentumPGD(_Ascent):
    """The momentum iterative method (Dong et al., CVPR 2018), equation 6.

        g_{k+1} = decay * g_k + grad / ||grad||_1
        x_{k+1} = project(x_k + step_size * ascent(g_{k+1}))

    with `ThreatModel.ascent`.

    Args:
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the threat model's norm, in units of
            the pixels; default: epsilon / 10.
        decay: Weight of the earlier gradients, at least 0.
        random_start: See `ThreatModel.random_start`.
        restarts: How often it starts anew, from other noise.
    """

    plain = False

    def __init__(
        self,
        steps: int = 20,
        step_size: float | None = None,
        decay: float = 1.0,
        random_start: Literal["none", "uniform", "gaussian"] = "none",
        restarts: int = 1,
    ):
        super().__init__(steps, step_size, random_start, restarts)
        bounds.AT_LEAST_ZERO.check("decay", decay)
        self.decay = decay

    def start(self, images, labels, seeds, number=0):
        state = super().start(images, labels, seeds, number)
        return {**state, "gradient": tf.zeros_like(images)}

    def step(self, images, labels, state, taken):
        slope, _, logits = gradient.input_gradient(
            self.classify, state["adversarial"], labels, self.climbed
        )
        # One NaN would stay in the sum for ever.
        slope = threat_model.finite(slope)
        axes = threat_model.pixel_axes(images)
        length = tf.reduce_sum(tf.abs(slope), axes, keepdims=True)
        slope = self.decay * state["gradient"] + tf.math.divide_no_nan(
            slope, length
        )
        moved = state["adversarial"] + self.step_size * self.threat.ascent(
            slope
        )
        adversarial = self.threat.project(moved, images)
        return {"adversarial": adversarial, "gradient": slope}, logits
