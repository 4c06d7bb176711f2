"""Max-margin adversarial training: an epsilon of each example's own."""

import keras
import tensorflow as tf

from mart_tf import attacks
from mart_tf import losses
from mart_tf.defenses import base

# Of the natural cross-entropy in the loss, equation 11 of Ding et al.
_NATURAL_SHARE = 1.0 / 3.0
# The boundary is looked for a little beyond the hinge.
_SEARCH = 1.05


@keras.saving.register_keras_serializable(package="mart_tf")
class MMA(base.Defense):
    """Max-margin adversarial training (Ding et al., ICLR 2020).

        2/3 * CE(p(x'), y) [margin < max_margin]   where x is right,
        2/3 * CE(p(x), y)                          where x is wrong,
        plus 1/3 * CE(p(x), y)

    x' lies on the decision boundary, where `attacks.nearest_crossing` finds
    it; its distance is the margin. The search starts from the margin that the
    example had when it was last seen, the training epsilon at first: it is
    kept by data set row, saved and restored with a run. Training logs
    `margin`, the mean over the batch, 0 for examples that are wrong.

    As in MMA's own code the search climbs the soft logit margin. Unlike
    there, right means argmax p(x) = y (their code: p_y(x) > 1/2), and the
    search sees the network in inference mode (their bisection updates the
    batch-norm statistics ten times). The inner attack's step size and
    epsilon ramp are not used: MMA has its own.

    Args:
        max_margin: Their d_max, in units of the pixels, above 0: a margin
            beyond it is large enough; default: 1.5 epsilon, the paper's
            0.45 for MNIST and 12/255 for CIFAR-10.

    Raises:
        ValueError: If `max_margin` is not above 0.
    """

    measures = ("margin",)
    needs_rows = True

    def __init__(self, max_margin: float | None = None):
        if max_margin == 0:
            raise ValueError("max_margin is 0; expected a number above 0.")
        self.max_margin = None
        if max_margin is not None:
            self.max_margin = base.number("max_margin", max_margin)

    def memory(self, threat):
        return {"epsilon": min(threat.epsilon, self._hinge(threat))}

    def describe_attack(self, steps, step_size, random_start):
        return (
            f"PGD, {steps} steps inside each example's own epsilon, "
            f"{random_start} start, then bisection; no epsilon warm-up"
        )

    def attack(self, classify, batch, inner):
        hinge = self._hinge(inner.threat)
        predicted = tf.argmax(
            classify(batch.image), axis=1, output_type=tf.int32
        )
        right = predicted == batch.label
        kept = batch.memory["epsilon"]
        crossing, distance = attacks.nearest_crossing(
            classify,
            batch.image,
            batch.label,
            inner.threat,
            epsilon=kept,
            limit=_SEARCH * hinge,
            steps=inner.steps,
            start=inner.random_start,
            seed=batch.seeds,
        )
        shape = [-1] + [1] * (len(batch.image.shape) - 1)
        image = tf.where(tf.reshape(right, shape), crossing, batch.image)
        large_enough = right & (distance >= hinge)
        return base.Adversarial(
            image,
            weight=1.0 - tf.cast(large_enough, tf.float32),
            memory={
                "epsilon": tf.where(right, tf.minimum(distance, hinge), kept)
            },
            measures={"margin": tf.where(right, distance, 0.0)},
        )

    def loss(self, classify, batch, adversarial):
        natural_logits = classify(batch.image)
        # x itself where x is wrong.
        adversarial_logits = classify(adversarial.image)
        inside = adversarial.weight * losses.cross_entropy(
            batch.label, adversarial_logits
        )
        natural = losses.cross_entropy(batch.label, natural_logits)
        values = (1.0 - _NATURAL_SHARE) * inside + _NATURAL_SHARE * natural
        # Accuracy on the boundary says nothing: it is not reported.
        return base.Losses(values, natural_logits)

    def _hinge(self, threat):
        return self.max_margin or 1.5 * threat.epsilon
