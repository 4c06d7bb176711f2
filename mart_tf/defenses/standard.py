"""Standard adversarial training."""

import keras

from mart_tf import losses
from mart_tf.defenses import base


@keras.saving.register_keras_serializable(package="mart_tf")
class Standard(base.Defense):
    """Adversarial training of Madry et al. (ICLR 2018), CE(p(x'), y)."""

    smooths_labels = True

    def loss(self, classify, batch, adversarial):
        logits = classify(adversarial.image)
        values = losses.cross_entropy(
            batch.label, logits, batch.label_smoothing
        )
        return base.Losses(values, adversarial_logits=logits)
