"""FAB: the closest adversarial examples, by steps onto linear boundaries."""

import tensorflow as tf

from mart_tf import bounds
from mart_tf import threat as threat_model
from mart_tf.attacks import base
from mart_tf.attacks import examples
from mart_tf.attacks import gradient
from mart_tf.attacks import hyperplane

# The paper's constants, which AutoAttack keeps.
_ALPHA_MAX = 0.1
_ETA = 1.05
_BETA = 0.9


class FAB(base.Attack):
    """Targeted fast adaptive boundary attack (Croce and Hein, ICML 2020).

    Algorithm 1 of "Minimally distorted adversarial examples with a fast
    adaptive boundary attack", one target class t at a time. With the
    boundary linearised at the present iterate x_k,

        pi = {z: z_t(x_k) - z_y(x_k) + <grad (z_t - z_y)(x_k), z - x_k> = 0}

    and d_k, d_0 the shortest moves of x_k and of the natural example x onto
    it (`hyperplane.shortest_move`),

        alpha = min(||d_k|| / (||d_k|| + ||d_0||), 0.1)
        x' = clip((1 - alpha) (x_k + 1.05 d_k) + alpha (x + 1.05 d_0))
        x_{k+1} = x' if it is classified correctly, else 0.1 x + 0.9 x'

    from x_0 = x. As in AutoAttack (Croce and Hein, ICML 2020) there is one
    start, not a random one, and no search along the line at the end. A step
    costs one gradient and one forward pass.

    It looks for the smallest distance and knows no epsilon. So that it can
    take part beside other attacks, `state["adversarial"]` is the closest x'
    inside the threat model that was misclassified, or else the natural
    example.

    Args:
        steps: Number of steps for each target class, at least 1.
        targets: How many wrong classes are aimed at, in the order of the
            natural example's logits, the highest first; at most all of them.

    Raises:
        ValueError: If there is no wrong class, or a count below 1.
    """

    random = False

    def __init__(self, steps: int = 100, targets: int = 9):
        gradient.check_settings(steps)
        bounds.ATTACK_STEPS.check("targets", targets)
        self.steps = steps
        self.targets = targets

    def prepare(self):
        if self.classes < 2:
            raise ValueError(
                f"FAB got a classifier of {self.classes} classes; expected at "
                "least 2: there is no other class to aim at."
            )
        self.rounds = self.targets = min(self.targets, self.classes - 1)
        self._ranked = base.compiled(self._rank)

    @property
    def parameters(self):
        constants = {"alpha_max": _ALPHA_MAX, "eta": _ETA, "beta": _BETA}
        return {**super().parameters, **constants}

    def start(self, images, labels, seeds, number=0):
        logits, ranking = self._ranked(images, labels)
        return {
            "adversarial": images,
            "logits": logits,
            "iterate": images,
            "target": ranking[:, number],
        }

    def step(self, images, labels, state, taken):
        reached = self._towards_boundary(images, labels, state)
        logits = self.classify(reached)
        wrong = examples.misclassified(labels, logits)
        closer = (
            wrong
            & self._counts(images, reached)
            & (
                self.threat.distance(reached, images)
                < self.distances(images, labels, state)
            )
        )
        back = images + _BETA * (reached - images)
        following = {
            "adversarial": examples.where(
                closer, reached, state["adversarial"]
            ),
            "logits": examples.where(closer, logits, state["logits"]),
            "iterate": examples.where(wrong, back, reached),
            "target": state["target"],
        }
        return following, state["logits"]

    def distances(self, images, labels, state):
        """How far `state["adversarial"]` is; infinity where none was found.

        Args:
            images: Natural examples, float32 `[batch, ...]`.
            labels: Integer classes `[batch]`.
            state: What `start` or `step` returned.

        Returns:
            A float32 tensor `[batch]`, in the threat model's norm.
        """
        found = examples.misclassified(labels, state["logits"])
        length = self.threat.distance(state["adversarial"], images)
        return tf.where(found, length, float("inf"))

    def _rank(self, images, labels):
        """The natural logits, and the classes to aim at, best first."""
        logits = self.classify(images)
        return logits, examples.strongest_wrong(labels, logits, self.rounds)

    def _towards_boundary(self, images, labels, state):
        """x' from the present iterate."""
        iterate, target = state["iterate"], state["target"]

        def advantage(labels, logits):
            aim = tf.gather(logits, target, batch_dims=1)
            return aim - tf.gather(logits, labels, batch_dims=1)

        slope, values, _ = gradient.input_gradient(
            self.classify, iterate, labels, advantage
        )
        slope = threat_model.finite(slope)
        # The same linear function at the natural example: a difference of
        # near points, where <w, x> of each would lose digits.
        axes = threat_model.pixel_axes(images)
        at_natural = values + tf.reduce_sum(slope * (images - iterate), axes)
        own = hyperplane.shortest_move(iterate, slope, values, self.threat)
        natural = hyperplane.shortest_move(
            images, slope, at_natural, self.threat
        )
        length = self.threat.distance(own, 0.0)
        alpha = tf.minimum(
            tf.math.divide_no_nan(
                length, length + self.threat.distance(natural, 0.0)
            ),
            _ALPHA_MAX,
        )
        alpha = self.threat.radius(images, alpha)
        reached = (1.0 - alpha) * (iterate + _ETA * own)
        reached += alpha * (images + _ETA * natural)
        return tf.clip_by_value(
            reached, self.threat.pixel_min, self.threat.pixel_max
        )

    def _counts(self, images, reached):
        """Which x' lie inside the threat model, to the last digit."""
        axes = threat_model.pixel_axes(images)
        allowed = self.threat.project(reached, images)
        return tf.reduce_all(allowed == reached, axes)
