"""Adversarial training with one gradient step: FGSM from noise."""

import keras

from mart_tf import attacks
from mart_tf import bounds
from mart_tf.defenses import base
from mart_tf.defenses import standard


class _OneStep(standard.Standard):
    """CE(p(x'), y) with x' from one step of FGSM from noise of its own.

    How large noise and step are the subclass says. One step instead of ten:
    an epoch costs about a fifth. Such training may fail from one epoch to the
    next, robust against this attack and against no other ("catastrophic
    overfitting"), which validation under PGD shows and a run names.

    Attributes:
        noise: The noise's radius, of epsilon.
        step: The step's length, of epsilon.
    """

    def __init__(self, noise, step):
        self.noise = bounds.AT_LEAST_ZERO.check("noise", noise)
        self.step = bounds.ABOVE_ZERO.check("step", step)

    def check(self, threat, random_start):
        if random_start != "uniform":
            raise ValueError(
                f"{type(self).__name__} starts from uniform noise of its own; "
                f"expected random_start uniform, not {random_start}."
            )

    def attack(self, classify, batch, inner):
        start = inner.threat.random_start(
            batch.image, batch.seeds, self.noise * inner.epsilon
        )
        following, _, _ = attacks.ascent_step(
            classify,
            start,
            batch.image,
            batch.label,
            inner.threat,
            self.step * inner.epsilon,
            epsilon=self._reach() * inner.epsilon,
        )
        return base.Adversarial(following)

    def _reach(self):
        """How far from x an example may lie, of epsilon."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="mart_tf")
class FGSMRS(_OneStep):
    """FGSM with a random start (Wong, Rice and Kolter, ICLR 2020), RS-FGSM.

        CE(p(x'), y),  x' = project(x + n + step epsilon sign(g))

    with n uniform in [-epsilon, epsilon], clipped to the pixel range, and g
    the gradient of the cross-entropy at x + n.

    Args:
        step: Their alpha, of epsilon, above 0: 1.25 in their experiments.

    Raises:
        ValueError: If an option lies outside its range.
    """

    def __init__(self, step: float = 1.25):
        super().__init__(1.0, step)

    def describe_attack(self, steps, step_size, random_start):
        return f"FGSM, {self.step:g} epsilon, from uniform noise in the ball"

    def _reach(self):
        return 1.0


@keras.saving.register_keras_serializable(package="mart_tf")
class NFGSM(_OneStep):
    """N-FGSM (de Jorge et al., NeurIPS 2022).

        CE(p(x'), y),  x' = clip(x + n + step epsilon sign(g))

    with n uniform in [-noise epsilon, noise epsilon], clipped to the pixel
    range, and g the gradient of the cross-entropy at x + n. x' is clipped to
    the pixel range, not to the ball: it lies up to (noise + step) epsilon
    from x.

    Args:
        noise: Their k, of epsilon, at least 0: 2 in their experiments.
        step: Their alpha, of epsilon, above 0: 1 in their experiments.

    Raises:
        ValueError: If an option lies outside its range.
    """

    def __init__(self, noise: float = 2.0, step: float = 1.0):
        super().__init__(noise, step)

    def describe_attack(self, steps, step_size, random_start):
        return (
            f"FGSM, {self.step:g} epsilon, from uniform noise of "
            f"{self.noise:g} epsilon, not projected"
        )

    def _reach(self):
        return self.noise + self.step
