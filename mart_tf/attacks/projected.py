"""Attacks by projected steps of steepest ascent, a step at a time."""

import functools
from typing import Literal

import tensorflow as tf

from mart_tf import noise
from mart_tf import threat as threat_model
from mart_tf.attacks import gradient
from mart_tf.attacks import objectives
from mart_tf.attacks import stepwise


class _Ascent(stepwise.Stepwise):
    """Projected steps of steepest ascent on one objective."""

    climbs = True

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
        restarts=1,
    ):
        gradient.check_settings(steps, step_size, random_start, restarts)
        self.classify = classify
        self.threat = threat
        self.steps = steps
        # As in the tests of the MART paper.
        self.step_size = threat.epsilon / 10 if step_size is None else step_size
        self.objective = objectives.objective(objective)
        self.random_start = random_start
        self.rounds = restarts
        # An objective for more classes than there are is refused here.
        if classes is not None:
            self.objective(tf.zeros([1], tf.int32), tf.zeros([1, classes]))

    def start(self, images, labels, seeds, number=0):
        if number:
            seeds = noise.fold(seeds, number)
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
            self.objective,
        )
        return {"adversarial": adversarial}, logits


class FGSM(_Ascent):
    """Fast gradient sign method (Goodfellow et al., ICLR 2015).

    One step of size epsilon on the cross-entropy; in l2 along the gradient
    itself (fast gradient method).

    Args:
        random_start: See `ThreatModel.random_start`; by definition the step
            starts at the natural example.
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        random_start: Literal["none", "uniform", "gaussian"] = "none",
    ):
        super().__init__(
            classify,
            threat,
            classes,
            steps=1,
            step_size=threat.epsilon,
            objective="cross_entropy",
            random_start=random_start,
        )
        self.parameters = {
            "step_size": self.step_size,
            "random_start": random_start,
        }


class PGD(_Ascent):
    """Projected gradient descent (Madry et al., ICLR 2018).

    Args:
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the threat model's norm, in units of
            the pixels; default: epsilon / `steps_per_epsilon`.
        objective: What is maximised.
        random_start: See `ThreatModel.random_start`.
        restarts: How often it starts anew, from other noise.
        steps_per_epsilon: How many steps are as long as epsilon, where no
            `step_size` says it, above 0: 10 as in the tests of the MART
            paper; its training attack has 4.
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        steps: int = 20,
        step_size: float | None = None,
        objective: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy",
        random_start: Literal["uniform", "gaussian", "none"] = "uniform",
        restarts: int = 1,
        steps_per_epsilon: float = 10.0,
    ):
        if not steps_per_epsilon > 0:
            raise ValueError(
                f"steps_per_epsilon is {steps_per_epsilon!r}; expected a "
                "number above 0, such as 4 for steps of epsilon / 4."
            )
        if step_size is None:
            step_size = threat.epsilon / steps_per_epsilon
        super().__init__(
            classify,
            threat,
            classes,
            steps=steps,
            step_size=step_size,
            objective=objective,
            random_start=random_start,
            restarts=restarts,
        )
        if restarts > 1 and random_start == "none":
            raise ValueError(
                f"restarts is {restarts} and random_start none: all would be "
                "the same; expected one restart, or a random start."
            )
        self.parameters = {
            "steps": steps,
            "step_size": self.step_size,
            "objective": objective,
            "random_start": random_start,
            "restarts": restarts,
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
            step_size=step_size,
            objective=functools.partial(objectives.margin, kappa=kappa),
            random_start=random_start,
        )
        self.parameters = {
            "steps": steps,
            "step_size": self.step_size,
            "kappa": kappa,
            "random_start": random_start,
        }


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
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        steps: int = 20,
        step_size: float | None = None,
        decay: float = 1.0,
        random_start: Literal["none", "uniform", "gaussian"] = "none",
    ):
        super().__init__(
            classify,
            threat,
            classes,
            steps=steps,
            step_size=step_size,
            objective="cross_entropy",
            random_start=random_start,
        )
        self.decay = decay
        self.parameters = {
            "steps": steps,
            "step_size": self.step_size,
            "decay": decay,
            "random_start": random_start,
        }

    def start(self, images, labels, seeds, number=0):
        state = super().start(images, labels, seeds, number)
        return {**state, "gradient": tf.zeros_like(images)}

    def step(self, images, labels, state, taken):
        slope, _, logits = gradient.input_gradient(
            self.classify, state["adversarial"], labels
        )
        # One NaN would stay in the sum for ever.
        slope = threat_model.finite(slope)
        axes = list(range(1, len(images.shape)))
        length = tf.reduce_sum(tf.abs(slope), axes, keepdims=True)
        slope = self.decay * state["gradient"] + tf.math.divide_no_nan(
            slope, length
        )
        moved = state["adversarial"] + self.step_size * self.threat.ascent(
            slope
        )
        adversarial = self.threat.project(moved, images)
        return {"adversarial": adversarial, "gradient": slope}, logits


def momentum_pgd(
    classify,
    images,
    labels,
    threat,
    *,
    steps=20,
    step_size=None,
    decay=1.0,
    random_start="none",
    seed=None,
):
    """The momentum iterative method (Dong et al., CVPR 2018).

    Args:
        classify: Maps images to logits `[batch, classes]`.
        images: Natural examples, float32 `[batch, ...]`.
        labels: Integer classes `[batch]`.
        threat: The `ThreatModel`.
        steps, step_size, decay, random_start: See `MomentumPGD`.
        seed: As in `pgd`.

    Returns:
        The last iterates, float32, of the images' shape.
    """
    attack = MomentumPGD(
        classify, threat, None, steps, step_size, decay, random_start
    )
    return stepwise.run(attack, classify, images, labels, seed)
