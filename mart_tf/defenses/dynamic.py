"""Dynamic adversarial training: attacks that grow with the network."""

from typing import Literal

import keras
import tensorflow as tf

from mart_tf import attacks
from mart_tf import bounds
from mart_tf import options
from mart_tf.defenses import base
from mart_tf.defenses import standard

REFERENCES = ("natural", "start", "range")


@keras.saving.register_keras_serializable(package="mart_tf")
class Dynamic(standard.Standard):
    """Dynamic adversarial training (Wang et al., ICML 2019), Algorithm 1.

        CE(p(x'), y)

    with x' from PGD on the cross-entropy that leaves an example alone once
    its first-order stationary condition (see
    `attacks.pgd_until_stationary`) is at most

        c_t = c_max * max(0, 1 - epoch / control_epochs)

    epochs counted from 0, those of `fit`: in a loop say `initial_epoch=n,
    epochs=n + 1`; before `train_on_batch` say `model.epoch.assign(n)`. Training
    logs `fosc`, the mean of that condition at the end of the attack.

    Args:
        c_max: The criterion of the first epoch, at least 0.
        control_epochs: Their T': the criterion is 0 from this epoch on, at
            least 1.
        reference: What FOSC is measured from: "natural" (the theory),
            "start", the random start (the released code), or "range", the
            theory with the pixel range in it, for linf: on images with many
            black or white pixels the other two stay large where nothing more
            can be gained.

    Raises:
        ValueError: If an option lies outside its range.
    """

    measures = ("fosc",)
    reads_epoch = True

    def __init__(
        self,
        c_max: float = 0.5,
        control_epochs: int = 100,
        reference: Literal["natural", "start", "range"] = "natural",
    ):
        if reference not in REFERENCES:
            raise options.unknown("reference", str(reference), REFERENCES)
        self.c_max = bounds.AT_LEAST_ZERO.check("c_max", c_max)
        self.control_epochs = bounds.COUNT.check(
            "control_epochs", control_epochs
        )
        self.reference = reference

    def check(self, threat, random_start):
        if self.reference == "range" and threat.norm != "linf":
            raise ValueError(
                f"dynamic:reference=range is for linf, not for {threat.norm}; "
                "expected reference natural or start."
            )

    def criterion(self, epoch):
        """c_t of an epoch, a scalar that counts from 0."""
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
