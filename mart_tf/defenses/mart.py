"""Misclassification aware adversarial training, the paper's method."""

import math
from typing import Literal

import keras

from mart_tf import losses
from mart_tf.defenses import base


@keras.saving.register_keras_serializable(package="mart_tf")
class MART(base.Defense):
    """MART of Wang et al. (ICLR 2020), Algorithm 1 and equation 11.

        BCE(p(x'), y) + regularization * KL(p(x) || p(x')) * (1 - p_y(x))

    with x' from PGD on the cross-entropy. Two forward passes in training
    mode, natural first, so that batch-norm statistics see each batch of
    images as the paper's code shows it: apart.

    Args:
        regularization: The paper's lambda, at least 0: 6 in section 4.1, 5 in
            section 4.2.
        form: "paper", or "released" for the constants of the authors' code;
            see `mart_tf.losses.mart`.

    Raises:
        ValueError: If an option lies outside its range.
    """

    def __init__(
        self,
        regularization: float = 5.0,
        form: Literal["paper", "released"] = "paper",
    ):
        losses.check_form(form)
        if not 0.0 <= regularization < math.inf:
            raise ValueError(
                f"regularization is {regularization!r}; expected a number of "
                "at least 0."
            )
        self.regularization = float(regularization)
        self.form = form

    def loss(self, classify, batch, adversarial):
        natural_logits = classify(batch.image)
        adversarial_logits = classify(adversarial)
        values = losses.mart(
            batch.label,
            natural_logits,
            adversarial_logits,
            self.regularization,
            self.form,
        )
        return base.Losses(values, natural_logits, adversarial_logits)
