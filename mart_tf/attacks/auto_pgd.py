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
import numbers
from typing import Literal

import tensorflow as tf

from mart_tf import noise
from mart_tf.attacks import examples
from mart_tf.attacks import gradient
from mart_tf.attacks import objectives
from mart_tf.attacks import stepwise

# alpha: the share of the step, against that of the move before it; and rho:
# the share of the moves that must have raised the objective.
_STEP_SHARE = 0.75
_RISING_SHARE = 0.75


class _AutoPGD(stepwise.Stepwise):
    """Algorithm 1, for an objective that may depend on the state.

    Algorithm 1 looks at x^(k+1) in the iteration that makes it. Here the step
    after it does, with k + 1 steps taken: its gradient gives the objective as
    well. So what iteration k decides is decided there.
    """

    climbs = True

    def __init__(self, classify, threat, steps, rounds):
        gradient.check_settings(steps)
        self.classify = classify
        self.threat = threat
        self.steps = steps
        self.rounds = rounds
        self.windows = _windows(steps)

    @abc.abstractmethod
    def maximised(self, state):
        """The objective f, `(labels, logits) -> [batch]`."""

    def start(self, images, labels, seeds, number=0):
        start = self.threat.random_start(images, noise.fold(seeds, number))
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
        slope, value, logits = gradient.input_gradient(
            self.classify, point, labels, self.maximised(state)
        )
        # Before x^(k+1) counts: the conditions speak of x^(0) to x^(k).
        halve, state = self.check(state, taken)
        here = {"best": point, "best_value": value, "best_gradient": slope}
        best = _choose(value > state["best_value"], here, state)
        point, value, slope = _choose(halve, best, here).values()
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

    Starts uniformly in the ball, see `ThreatModel.random_start`.

    Args:
        steps: Number of gradient steps of a restart, at least 1.
        objective: What is maximised; "dlr" needs at least 3 classes.
        restarts: How often it starts anew, from other noise.
    """

    def __init__(
        self,
        classify,
        threat,
        classes,
        steps: int = 100,
        objective: Literal["cross_entropy", "dlr", "margin"] = "cross_entropy",
        restarts: int = 1,
    ):
        _check_count("restarts", restarts)
        super().__init__(classify, threat, steps, restarts)
        self.objective = objectives.objective(objective)
        # An objective for more classes than there are is refused here.
        self.objective(tf.zeros([1], tf.int32), tf.zeros([1, classes]))
        self.parameters = {
            "steps": steps,
            "objective": objective,
            "restarts": restarts,
        }

    def maximised(self, state):
        return self.objective


class TargetedAPGD(_AutoPGD):
    """Auto-PGD on the targeted DLR, one round a target class: APGD-T.

    The targets are the wrong classes of the natural example by their logits,
    the strongest first. Starts as `APGD` does; needs at least 4 classes.

    Args:
        steps: Number of gradient steps for a target, at least 1.
        targets: Number of target classes, at most all wrong ones.
    """

    def __init__(
        self, classify, threat, classes, steps: int = 100, targets: int = 9
    ):
        _check_count("targets", targets)
        # Too few classes are refused here.
        zeros = tf.zeros([1], tf.int32)
        objectives.targeted_dlr(zeros, tf.zeros([1, classes]), zeros)
        targets = min(targets, classes - 1)
        super().__init__(classify, threat, steps, targets)
        self.parameters = {"steps": steps, "targets": targets}

        def rank(images, labels):
            logits = classify(images)
            return examples.strongest_wrong(labels, logits, targets)

        self.rank = stepwise.compiled(rank)

    def start(self, images, labels, seeds, number=0):
        state = super().start(images, labels, seeds, number)
        return {**state, "targets": self.rank(images, labels)[:, number]}

    def maximised(self, state):
        return functools.partial(
            objectives.targeted_dlr, targets=state["targets"]
        )


def apgd(
    classify,
    images,
    labels,
    threat,
    *,
    steps=100,
    objective="cross_entropy",
    restarts=1,
    seed=None,
):
    """Auto-PGD (Croce and Hein, ICML 2020), Algorithm 1.

        z^(k+1) = project(x^(k) + eta ascent(grad f(x^(k))))
        x^(k+1) = project(x^(k) + 0.75 (z^(k+1) - x^(k))
                               + 0.25 (x^(k) - x^(k-1)))

    with `ThreatModel.ascent`: the sign of the gradient in linf, the gradient
    over its norm in l2. eta is 2 epsilon; at checkpoints, ever closer to each
    other, where less than 3/4 of the moves since the last have raised f, or
    neither f_max nor eta has changed, it is halved, and x^(k+1) is the best
    point so far.

    Args:
        classify, images, labels, threat, seed: As in `pgd`.
        steps, objective, restarts: See `APGD`; f is the objective.

    Returns:
        Of each example the first restart's result that is misclassified, or
        else the last one's; float32, of the images' shape. A result is the
        iterate of the highest objective among x^(0) to x^(steps - 1).

    Raises:
        ValueError: On a count below 1, an unknown objective, or too few
            classes for it.
    """
    attack = APGD(
        classify, threat, _classes(classify, images), steps, objective, restarts
    )
    return stepwise.run(attack, classify, images, labels, seed)


def targeted_apgd(
    classify, images, labels, threat, *, steps=100, targets=9, seed=None
):
    """Auto-PGD on the targeted DLR (Croce and Hein, ICML 2020), section 4.

    As `apgd`, on `targeted_dlr`, for the wrong classes of the highest logits.

    Args:
        classify, images, labels, threat, seed: As in `pgd`.
        steps, targets: See `TargetedAPGD`.

    Returns:
        Of each example the first target's result that is misclassified, or
        else the last one's, as in `apgd`.

    Raises:
        ValueError: On a count below 1, or below 4 classes.
    """
    attack = TargetedAPGD(
        classify, threat, _classes(classify, images), steps, targets
    )
    return stepwise.run(attack, classify, images, labels, seed)


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


def _choose(condition, first, second):
    """What `first` names, from it or from `second` for each example."""
    return {
        name: examples.where(condition, values, second[name])
        for name, values in first.items()
    }


def _classes(classify, images):
    return classify(tf.convert_to_tensor(images[:1])).shape[-1]


def _check_count(name, value):
    if not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"{name} is {value!r}; expected a whole number of at least 1."
        )
