"""Natural training: no attack."""

import keras

from mart_tf import losses
from mart_tf.defenses import base


@keras.saving.register_keras_serializable(package="mart_tf")
class Natural(base.Defense):
    """Ordinary training on natural examples, CE(p(x), y)."""

    # Its most robust epoch is the one that has learned least.
    selects_by = "natural_accuracy"
    smooths_labels = True
    attacks = False

    def attack(self, classify, batch, inner):
        return base.Adversarial(batch.image)

    def loss(self, classify, batch, adversarial):
        logits = classify(batch.image)
        values = losses.cross_entropy(
            batch.label, logits, batch.label_smoothing
        )
        return base.Losses(values, natural_logits=logits)
