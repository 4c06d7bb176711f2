"""Auto-PGD: projected ascent with momentum that finds its own step size.

Croce and Hein (ICML 2020), "Reliable evaluation of adversarial robustness
with an ensemble of diverse parameter-free attacks", sections 3 and 4, where
"the first k iterations" are read as those that make x^(1) to x^(k). The
authors' code differs: it restarts x^(w_j) where Algorithm 1 restarts
x^(w_j + 1), has "at most" in condition 1 and no condition 2 at the first
checkpoint, and starts on the surface of the ball.
"""

import abc
import functools
from typing import Literal

import tensorflow as tf

from mart_tf import bounds
from mart_tf.attacks import base
from mart_tf.attacks import examples
from mart_tf.attacks import gradient
from mart_tf.attacks import objectives

# alpha: the share of the step, against that of the move before it; and rho:
# the share of the moves that must have raised the objective.
_STEP_SHARE = 0.75
_RISING_SHARE = 0.75


class _AutoPGD(base.Attack, abc.ABC):
    """Algorithm 1, for an objective that may depend on the state.

        z^(k+1) = project(x^(k) + eta ascent(grad f(x^(k))))
        x^(k+1) = project(x^(k) + 0.75 (z^(k+1) - x^(k))
                               + 0.25 (x^(k) - x^(k-1)))

    with `ThreatModel.ascent`: the sign of the gradient in linf, the gradient
    over its norm in l2. eta is 2 epsilon; at checkpoints, ever closer to each
    other, where less than 3/4 of the moves since the last have raised f, or
    neither f_max nor eta has changed, it is halved, and x^(k+1) is the best
    point so far.

    Algorithm 1 looks at x^(k+1) in the iteration that makes it. Here the step
    after it does, with k + 1 steps taken: its gradient gives the objective as
    well. So what iteration k decides is decided there.
    """

    climbs = True
    own_noise = True

    def __init__(self, steps, restarts):
        gradient.check_settings(steps)
        self.steps = steps
        self.restarts = restarts
        self.windows = _windows(steps)

    @abc.abstractmethod
    def maximised(self, state):
        """The objective f, `(labels, logits) -> [batch]`."""

    def start(self, images, labels, seeds, number=0):
        start = self.threat.random_start(images, seeds)
        count = tf.shape(images)[:1]
        return {
            "adversarial": start,
            "previous": start,
            # No objective is above it, so that f(x^(0)) is not a rise.
            "value": tf.fill(count, float("inf")),
            "best": start,
            "best_value": tf.fill(count, float("-inf")),
            "best_gradient": tf.zeros_like(start),
            "step_size": tf.fill(count, 2.0 * self.threat.epsilon),
            "rises": tf.zeros(count),
            "checked_value": tf.fill(count, float("inf")),
            "halved": tf.fill(count, False),
        }

    def step(self, images, labels, state, taken):
        point = state["adversarial"]
        slope, value, logits = gradient.expected_gradient(
            self.classify,
            point,
            labels,
            self.maximised(state),
            self.passes,
            self.classes,
        )
        # Before x^(k+1) counts: the conditions speak of x^(0) to x^(k).
        halve, state = self.check(state, taken)
        here = {"best": point, "best_value": value, "best_gradient": slope}
        best = examples.choose(value > state["best_value"], here, state)
        point, value, slope = examples.choose(halve, best, here).values()
        step_size = tf.where(halve, 0.5, 1.0) * state["step_size"]
        rise = tf.cast(value > state["value"], tf.float32)
        following = {
            "adversarial": self.move(
                images, point, state["previous"], slope, step_size, taken
            ),
            "previous": point,
            "value": value,
            "step_size": step_size,
            "rises": state["rises"] + rise,
        }
        return {**state, **best, **following}, logits

    def check(self, state, taken):
        """Whether a checkpoint, k = taken - 1, halves; what the next needs."""
        window = tf.gather(self.windows, taken)
        checkpoint = window >= 0.0
        few_rises = state["rises"] < _RISING_SHARE * window
        value, earlier = state["best_value"], state["checked_value"]
        stuck = (value == earlier) & ~state["halved"]
        halve = checkpoint & (few_rises | stuck)
        checked = {
            "rises": tf.where(checkpoint, 0.0, state["rises"]),
            "checked_value": tf.where(checkpoint, value, earlier),
            "halved": tf.where(checkpoint, halve, state["halved"]),
        }
        return halve, {**state, **checked}

    def move(self, images, point, previous, slope, step_size, taken):
        """z^(k+1) and x^(k+1) of Algorithm 1; x^(1) is z^(1)."""
        step = self.threat.radius(images, step_size) * self.threat.ascent(slope)
        projected = self.threat.project(point + step, images)
        mixed = point + _STEP_SHARE * (projected - point)
        mixed += (1.0 - _STEP_SHARE) * (point - previous)
        mixed = self.threat.project(mixed, images)
        return examples.where(taken == 0, projected, mixed)

    def best(self, state):
        """The iterate of the highest objective, the unseen last left out."""
        return state["best"]


class APGD(_AutoPGD):
    """Auto-PGD on an untargeted objective: APGD-CE, APGD-DLR.

    Starts uniformly in the ball, see `ThreatModel.random_start`; hands over
    the iterate of the highest objective among x^(0) to x^(steps - 1).

    Args:
        steps: Number of gradient steps of a restart, at least 1.
        objective: f; "dlr" needs at least 3 classes.
        restarts: How often it starts anew, from other noise.
        passes: Of a classifier that draws random numbers, over how many of
            them gradient, objective and answer of an iterate are means: the
            authors' `eot_iter`.
    """

    takes_target = True

    def __init__(
        self,
        steps: int = 100,
        objective: Literal["cross_entropy", "dlr", "margin"] = "cross_entropy",
        restarts: int = 1,
        passes: int = 1,
    ):
        super().__init__(steps, restarts)
        self.objective = objective
        self.passes = passes

    def prepare(self):
        self.climbed = objectives.objective(
            self.objective, self.targeted, self.classes
        )

    def maximised(self, state):
        return self.climbed


class TargetedAPGD(_AutoPGD):
    """Auto-PGD on the targeted DLR, one round a target class: APGD-T.

    The targets are the wrong classes of the natural example by their logits,
    the strongest first. Starts as `APGD` does; needs at least 4 classes.

    Args:
        steps: Number of gradient steps for a target, at least 1.
        targets: Number of target classes, at most all wrong ones.
        restarts: How often it starts anew, from other noise.
    """

    def __init__(self, steps: int = 100, targets: int = 9, restarts: int = 1):
        bounds.ATTACK_STEPS.check("targets", targets)
        super().__init__(steps, restarts)
        self.targets = targets

    def prepare(self):
        # Too few classes are refused here.
        zeros = tf.zeros([1], tf.int32)
        objectives.targeted_dlr(zeros, tf.zeros([1, self.classes]), zeros)
        self.rounds = self.targets = min(self.targets, self.classes - 1)
        self.rank = base.compiled(self._rank)

    def _rank(self, images, labels):
        logits = self.classify(images)
        return examples.strongest_wrong(labels, logits, self.targets)

    def start(self, images, labels, seeds, number=0):
        state = super().start(images, labels, seeds, number)
        return {**state, "targets": self.rank(images, labels)[:, number]}

    def maximised(self, state):
        return functools.partial(
            objectives.targeted_dlr, targets=state["targets"]
        )


def _windows(steps):
    """Of each checkpoint w_j, at place w_j + 1, the window w_j - w_{j-1}.

        w_j = ceil(p_j steps),  p_0 = 0,  p_1 = 0.22,
        p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)

    Float32 `[steps + 1]`; 0 for w_0, and -1 where there is no checkpoint.
    """
    # In percent: in floats p_3 is a little above 0.57, and w_3 would be 58.
    shares = [0, 22]
    while shares[-1] <= 100:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 3, 6))
    points = sorted({-(-share * steps // 100) for share in shares})
    windows = [-1.0] * (steps + 1)
    for earlier, point in zip([0, *points], points, strict=False):
        if point < steps:
            windows[point + 1] = float(point - earlier)
    return tf.constant(windows)
