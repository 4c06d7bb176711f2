"""Max-margin adversarial training: an epsilon of each example's own."""

import keras
import tensorflow as tf

from mart_tf import attacks
from mart_tf import bounds
from mart_tf import defenses
from mart_tf import losses
from mart_tf.attacks import examples
from mart_tf.attacks import loops
from mart_tf.defenses import base

# Of the natural cross-entropy in the loss, equation 11 of Ding et al.
_NATURAL_SHARE = 1.0 / 3.0
# The boundary is looked for a little beyond the greatest margin.
_SEARCH = 1.05


@keras.saving.register_keras_serializable(package="mart_tf")
class MMA(base.Defense):
    """Max-margin adversarial training (Ding et al., ICLR 2020).

        2/3 * CE(p(x'), y) [margin < max_margin]   where x is right,
        2/3 * CE(p(x), y)                          where x is wrong,
        plus 1/3 * CE(p(x), y)

    x' lies on the boundary, where `attacks.nearest_crossing` finds it; its
    distance is the margin. As in MMA's own code boundary and right are those
    of the soft logit margin, p_y = 1/2: x is right where p_y(x) > 1/2. With
    argmax for right, an example that is right with p_y below 1/2 would have
    crossed at any distance.

    The search attacks inside the margin that the example had when it was last
    seen: it is kept by data set row, between `min_epsilon` and `max_margin`,
    saved and restored with a run. At first it is the training epsilon; of an
    example that is wrong it is `min_epsilon`. Training logs `margin`, the
    mean over the batch, 0 for examples that are wrong.

    Unlike in MMA's own code the search sees the network in inference mode
    (their bisection updates the batch-norm statistics ten times), and where
    one that kept below the training epsilon finds no margin below
    `max_margin`, it is done again from the training epsilon: a direction that
    was found so near says little of what is farther off. The inner attack's
    step size and epsilon ramp are not used: MMA has its own.

    Args:
        max_margin: Their d_max, in units of the pixels, above 0: a margin
            beyond it is large enough; default: 1.5 epsilon, the paper's
            0.45 for MNIST and 12/255 for CIFAR-10.
        min_epsilon: Least radius of an example's attack, in units of the
            pixels, above 0 and at most `max_margin`: 0.1 for MNIST and 0.005
            for CIFAR-10 in the authors' code; default: `max_margin` / 10.

    Raises:
        ValueError: If an option lies outside its range.
    """

    measures = ("margin",)
    needs_rows = True
    smooths_labels = True
    reads_epsilon = False

    def __init__(
        self,
        max_margin: float | None = None,
        min_epsilon: float | None = None,
    ):
        self.max_margin = _above_0("max_margin", max_margin)
        self.min_epsilon = _above_0("min_epsilon", min_epsilon)

    def check(self, threat, random_start):
        least, greatest = self._bounds(threat)
        if least > greatest:
            raise ValueError(
                f"min_epsilon is {least:g} and max_margin {greatest:g}; "
                "expected min_epsilon to be at most max_margin."
            )

    def memory(self, threat):
        return {"epsilon": self._first(threat)}

    def describe_attack(self, steps, step_size, random_start):
        return (
            f"PGD, {steps} steps inside each example's own epsilon, "
            f"{random_start} start, then bisection; no epsilon warm-up"
        )

    def attack(self, classify, batch, inner):
        least, greatest = self._bounds(inner.threat)
        right = losses.soft_margin(batch.label, classify(batch.image)) < 0.0
        kept, first = batch.memory["epsilon"], self._first(inner.threat)

        def search(radius):
            return attacks.nearest_crossing(
                classify,
                batch.image,
                batch.label,
                inner.threat,
                epsilon=radius,
                limit=_SEARCH * greatest,
                steps=inner.steps,
                start=inner.random_start,
                seed=batch.seeds,
            )

        crossing, distance = search(kept)
        again = right & (distance >= greatest) & (kept < first)
        crossing, distance = loops.either(
            tf.reduce_any(again),
            lambda: search(tf.where(again, first, kept)),
            (crossing, distance),
        )
        image = examples.where(right, crossing, batch.image)
        large_enough = right & (distance >= greatest)
        margin = tf.where(right, distance, 0.0)
        return base.Adversarial(
            image,
            weight=1.0 - tf.cast(large_enough, tf.float32),
            memory={"epsilon": tf.clip_by_value(margin, least, greatest)},
            measures={"margin": margin},
        )

    def loss(self, classify, batch, adversarial):
        natural_logits = classify(batch.image)
        # x itself where x is wrong.
        adversarial_logits = classify(adversarial.image)
        smoothing = batch.label_smoothing
        inside = adversarial.weight * losses.cross_entropy(
            batch.label, adversarial_logits, smoothing
        )
        natural = losses.cross_entropy(batch.label, natural_logits, smoothing)
        values = (1.0 - _NATURAL_SHARE) * inside + _NATURAL_SHARE * natural
        # Accuracy on the boundary says nothing: it is not reported.
        return base.Losses(values, natural_logits)

    def _first(self, threat):
        """Where the search of an example begins that was not seen yet."""
        least, greatest = self._bounds(threat)
        return min(max(threat.epsilon, least), greatest)

    def _bounds(self, threat):
        """The least and the greatest radius of an example's attack."""
        derived, given = defenses.DERIVED["mma"], {}
        for name in ("max_margin", "min_epsilon"):
            default = derived[name](threat.epsilon, given)
            given[name] = getattr(self, name) or default
        return given["min_epsilon"], given["max_margin"]


def _above_0(name, value):
    return None if value is None else bounds.ABOVE_ZERO.check(name, value)
