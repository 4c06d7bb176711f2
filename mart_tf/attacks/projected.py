"""Attacks by projected steps of steepest ascent, a step at a time."""

import functools
from typing import Literal

import tensorflow as tf

from mart_tf.attacks import gradient
from mart_tf.attacks import objectives
from mart_tf.attacks import stepwise


class _Ascent(stepwise.Stepwise):
    """Projected steps of steepest ascent on one objective."""

    def __init__(
        self,
        classify,
        threat,
        classes,
        *,
        steps,
        step_size,
        objective,
        random_start,
    ):
        gradient.check_settings(steps, step_size, random_start)
        self.classify = classify
        self.threat = threat
        self.steps = steps
        self.step_size = step_size
        self.objective = objectives.objective(objective)
        self.random_start = random_start
        # An objective for more classes than there are is refused here.
        self.objective(tf.zeros([1], tf.int32), tf.zeros([1, classes]))

    def start(self, images, labels, seeds, number=0):
        return {
            "adversarial": self.threat.random_start(
                images, seeds, kind=self.random_start
            )
        }

    def step(self, images, labels, state, taken):
        adversarial, _, logits = gradient.ascent_step(
            self.classify,
            state["adversarial"],
            images,
            labels,
            self.threat,
            self.step_size,
            self.objective,
        )
        return {"adversarial": adversarial}, logits


class FGSM(_Ascent):
    """Fast gradient sign method (Goodfellow et al., ICLR 2015).

    One step of size epsilon on the cross-entropy, from the natural example;
    in l2 along the gradient itself (fast gradient method).
    """

    def __init__(self, classify, threat, classes):
        super().__init__(
            classify,
            threat,
            classes,
            steps=1,
            step_size=threat.epsilon,
            objective="cross_entropy",
            random_start="none",
        )
        self.parameters = {"step_size": self.step_size}


class PGD(_Ascent):
    """Projected gradient descent (Madry et al., ICLR 2018).

    Args:
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the threat model's norm, in units of
            the pixels; default: epsilon / 10, as in the tests of the MART
            paper.
        objective: What is maximised.
        random_start: See `ThreatModel.random_start`.
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        steps: int = 20,
        step_size: float | None = None,
        objective: Literal[
            "cross_entropy", "margin", "dlr", "soft_margin"
        ] = "cross_entropy",
        random_start: Literal["uniform", "gaussian", "none"] = "uniform",
    ):
        super().__init__(
            classify,
            threat,
            classes,
            steps=steps,
            step_size=threat.epsilon / 10 if step_size is None else step_size,
            objective=objective,
            random_start=random_start,
        )
        self.parameters = {
            "steps": steps,
            "step_size": self.step_size,
            "objective": objective,
            "random_start": random_start,
        }


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
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        steps: int = 20,
        step_size: float | None = None,
        kappa: float = 50.0,
        random_start: Literal["uniform", "gaussian", "none"] = "uniform",
    ):
        super().__init__(
            classify,
            threat,
            classes,
            steps=steps,
            step_size=threat.epsilon / 10 if step_size is None else step_size,
            objective=functools.partial(objectives.margin, kappa=kappa),
            random_start=random_start,
        )
        self.parameters = {
            "steps": steps,
            "step_size": self.step_size,
            "kappa": kappa,
            "random_start": random_start,
        }
