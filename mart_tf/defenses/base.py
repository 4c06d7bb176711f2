"""What a defense is: an inner attack, an outer loss, its options."""

import inspect
from typing import NamedTuple

import tensorflow as tf

from mart_tf import attacks
from mart_tf import threat as threat_model


class Batch(NamedTuple):
    """One batch as a defense sees it.

    image: float32 `[batch, ...]`. label: int32 `[batch]`. weight: float32
    `[batch]`. example: int64 `[batch]`, the data set row, or the position in
    the global batch where the input has no rows. seeds: int64 `[batch, 2]`,
    the noise of each example at this step.
    """

    image: tf.Tensor
    label: tf.Tensor
    weight: tf.Tensor
    example: tf.Tensor
    seeds: tf.Tensor


class InnerAttack(NamedTuple):
    """The settings of the inner attack at this step (epsilon may ramp)."""

    threat: threat_model.ThreatModel
    steps: int
    step_size: float | tf.Tensor | None
    epsilon: float | tf.Tensor
    random_start: str


class Losses(NamedTuple):
    """A loss per example, and the logits of the forward passes it took."""

    values: tf.Tensor
    natural_logits: tf.Tensor | None = None
    adversarial_logits: tf.Tensor | None = None


class Defense:
    """Base of every defense; a subclass gives `loss`, and its own `attack`
    where that is not PGD on the cross-entropy.

    A subclass keeps each parameter of its `__init__` as an attribute of the
    same name, and is registered with `keras.saving`, so that a model that
    holds it can be saved.

    Attributes:
        selects_by: The accuracy on the validation split by which a run
            chooses its best epoch.
    """

    selects_by = "robust_accuracy"

    def attack(self, classify, batch, inner):
        """Adversarial examples for a batch: PGD on the cross-entropy.

        Args:
            classify: Images to float32 logits, in inference mode.
            batch: A `Batch`.
            inner: An `InnerAttack`.

        Returns:
            Adversarial examples, float32, of the images' shape.
        """
        return attacks.pgd(
            classify,
            batch.image,
            batch.label,
            inner.threat,
            steps=inner.steps,
            step_size=inner.step_size,
            random_start=inner.random_start,
            epsilon=inner.epsilon,
            seed=batch.seeds,
        )

    def loss(self, classify, batch, adversarial):
        """The outer loss, with the forward passes it needs and no others.

        Args:
            classify: Images to float32 logits, in training mode.
            batch: A `Batch`.
            adversarial: What `attack` returned.

        Returns:
            A `Losses`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss.")

    def get_config(self):
        """The options, as Keras saves them."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        """A defense from what `get_config` returned."""
        return cls(**config)
