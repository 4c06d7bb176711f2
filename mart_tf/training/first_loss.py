"""A first loss that is too large, said before hours are spent on it."""

import math

import keras

from mart_tf.training import counters

# Nats above the loss of a network that gives all classes the same score.
# He normal weights in the last layer of `cnn4` begin 1.4 above it.
_FAR = 1.0


class FirstLoss(keras.callbacks.Callback):
    """Says once where the loss of the first step is far above log(classes).

    The boosted cross-entropy of MART pushes a strong wrong class down so hard
    that most hidden units of a network whose first logits are large may be
    dead after a hundred steps; the cross-entropy does, less. Networks with
    losses of their own (regularizers) are not looked at, because these count
    too, nor are subclassed ones, which do not tell their number of classes, nor
    examples with weights.

    Args:
        tell: Called with the sentence.
    """

    def __init__(self, tell):
        super().__init__()
        self._tell = tell

    def on_train_batch_end(self, batch, logs=None):
        # Of a run that goes on the first step is past.
        classifier = self.model.classifier
        if batch or classifier.losses:
            return
        if counters.number(self.model.step) != 1:
            return
        shape = getattr(classifier, "output_shape", None)
        if not isinstance(shape, tuple):
            return
        loss, usual = float(logs["loss"]), math.log(shape[-1])
        if loss > usual + _FAR:
            self._tell(
                f"The first loss is {loss:.1f} nats, that of equal scores for "
                f"{shape[-1]} classes is {usual:.1f}: such large first logits "
                "may kill hidden units for good. Start the last layer small, "
                'for example with kernel_initializer="zeros".'
            )
