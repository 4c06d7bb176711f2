"""Misclassification aware adversarial training, the paper's method."""

from typing import Literal

import keras
import tensorflow as tf

from mart_tf import bounds
from mart_tf import losses
from mart_tf import noise
from mart_tf import options
from mart_tf.defenses import base

_STREAM = 0x534841  # The share of examples that are regularized.


@keras.saving.register_keras_serializable(package="mart_tf")
class MART(base.Defense):
    """MART of Wang et al. (ICLR 2020), Algorithm 1 and equation 11.

        BCE(p(x'), y) + regularization * KL(p(x) || p(x')) * (1 - p_y(x))

    with x' from PGD on the cross-entropy. Two forward passes in training
    mode, natural first, apart, as in the authors' code: batch-norm statistics
    see natural and adversarial images as batches of their own. A term that
    weighs nothing takes no pass: without the second term (weight "none" or
    "hard" and no divergence, or a regularization or a share of 0) the first
    one's images are all that the network sees, and if these are natural
    there is no attack.

    The options from `outer` on are the ablations of section 4.1; the defaults
    are the method.

    Args:
        regularization: The paper's lambda, at least 0: 5 in section 4.2, the
            comparison of defenses (default), 6 in section 4.1, the ablations.
        form: "paper", or "released" for the constants of the authors' code;
            see `mart_tf.losses.mart`.
        outer: The first term: "bce", "ce" (cross-entropy of x') or
            "bce_natural" (boosted cross-entropy of x); Figure 2b.
        divergence: Whether the second term holds the divergence; Figure 2a.
        weighting: What weighs the second term: "soft" (1 - p_y(x)), "hard"
            (1 where x is misclassified) or "none" (1); Figure 2a.
        inner: What the attack climbs: "cross_entropy", or "kl" for
            KL(p(x) || p(x')) as TRADES does; Figure 2b.
        regularized_fraction: Share of the training examples, in [0, 1], that
            have the second term: always the same examples, chosen at random
            by their row; Figure 2c.

    Raises:
        ValueError: If an option lies outside its range.
    """

    smooths_labels = True

    def __init__(
        self,
        regularization: float = 5.0,
        form: Literal["paper", "released"] = "paper",
        outer: Literal["bce", "ce", "bce_natural"] = "bce",
        divergence: bool = True,
        weighting: Literal["soft", "hard", "none"] = "soft",
        inner: Literal["cross_entropy", "kl"] = "cross_entropy",
        regularized_fraction: float = 1.0,
    ):
        self.regularization = bounds.AT_LEAST_ZERO.check(
            "regularization", regularization
        )
        losses.check_options(form, outer, weighting)
        if inner not in ("cross_entropy", "kl"):
            raise options.unknown("inner", str(inner), ("cross_entropy", "kl"))
        if not isinstance(divergence, bool):
            raise ValueError(
                f"divergence is {divergence!r}; expected true or false."
            )
        self.form = form
        self.outer = outer
        self.divergence = divergence
        self.weighting = weighting
        self.inner = inner
        self.regularized_fraction = bounds.SHARE.check(
            "regularized_fraction", regularized_fraction
        )

    @property
    def needs_rows(self):
        return 0.0 < self.regularized_fraction < 1.0

    @property
    def attacks(self):
        return self._has_divergence or self.outer != "bce_natural"

    def check(self, threat, random_start):
        if self.inner == "kl":
            base.check_start("mart:inner=kl", random_start)

    def attack(self, classify, batch, inner):
        if not self.attacks:
            return base.Adversarial(batch.image)
        objective = "cross_entropy"
        if self.inner == "kl":
            objective = base.divergence_from(classify, batch)
        return base.Adversarial(base.pgd(classify, batch, inner, objective))

    def loss(self, classify, batch, adversarial):
        natural_logits = adversarial_logits = None
        if self._has_second_term or self.outer == "bce_natural":
            natural_logits = classify(batch.image)
        if self.attacks:
            adversarial_logits = classify(adversarial.image)
        values = losses.mart(
            batch.label,
            natural_logits,
            adversarial_logits,
            self._regularization_of(batch.example),
            self.form,
            outer=self.outer,
            divergence=self._has_divergence,
            weighting=self.weighting if self._has_second_term else "none",
            label_smoothing=batch.label_smoothing,
        )
        return base.Losses(values, natural_logits, adversarial_logits)

    @property
    def _has_second_term(self):
        factors = self.divergence or self.weighting == "soft"
        return bool(factors and self.regularization * self.regularized_fraction)

    @property
    def _has_divergence(self):
        return self.divergence and self._has_second_term

    def _regularization_of(self, examples):
        """The regularization of each example."""
        if not self.needs_rows:
            return self.regularization * self.regularized_fraction
        draws = noise.uniform(noise.seeds(_STREAM, examples), [])
        # An example of no training set (a row below 0) is regularized.
        chosen = (draws < self.regularized_fraction) | (examples < 0)
        return self.regularization * tf.cast(chosen, tf.float32)
