"""Dynamic adversarial training: attacks that grow with the network."""

from typing import Literal

import keras
import tensorflow as tf

from mart_tf import attacks
from mart_tf import options
from mart_tf.defenses import base
from mart_tf.defenses import standard


@keras.saving.register_keras_serializable(package="mart_tf")
class Dynamic(standard.Standard):
    """Dynamic adversarial training (Wang et al., ICML 2019), Algorithm 1.

        CE(p(x'), y)

    with x' from PGD on the cross-entropy that leaves an example alone once
    its first-order stationary condition (see
    `attacks.pgd_until_stationary`) is at most

        c_t = c_max * max(0, 1 - epoch / control_epochs)

    epochs counted from 0. Training logs `fosc`, the mean of that condition at
    the end of the attack.

    Args:
        c_max: The criterion of the first epoch, at least 0.
        control_epochs: Their T': the criterion is 0 from this epoch on, at
            least 1.
        reference: What FOSC measures the perturbation from: "natural" (the
            theory), or "start", the random start (the released code).

    Raises:
        ValueError: If an option lies outside its range.
    """

    measures = ("fosc",)

    def __init__(
        self,
        c_max: float = 0.5,
        control_epochs: int = 100,
        reference: Literal["natural", "start"] = "natural",
    ):
        if not 0.0 <= c_max < float("inf"):
            raise ValueError(
                f"c_max is {c_max!r}; expected a number of at least 0."
            )
        if control_epochs < 1:
            raise ValueError(
                f"control_epochs is {control_epochs!r}; expected a whole "
                "number of at least 1."
            )
        if reference not in ("natural", "start"):
            raise options.unknown(
                "reference", str(reference), ("natural", "start")
            )
        self.c_max = float(c_max)
        self.control_epochs = int(control_epochs)
        self.reference = reference

    def criterion(self, epoch):
        """c_t of an epoch, an integer tensor that counts from 0."""
        left = 1.0 - tf.cast(epoch, tf.float32) / self.control_epochs
        return self.c_max * tf.maximum(left, 0.0)

    def attack(self, classify, batch, inner):
        image, fosc = attacks.pgd_until_stationary(
            classify,
            batch.image,
            batch.label,
            inner.threat,
            criterion=self.criterion(inner.epoch),
            steps=inner.steps,
            step_size=inner.step_size,
            random_start=inner.random_start,
            epsilon=inner.epsilon,
            seed=batch.seeds,
            reference=self.reference,
        )
        return base.Adversarial(image, measures={"fosc": fosc})
