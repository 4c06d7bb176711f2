"""Adversarial weight perturbation: the gradient where the weights hurt."""

import keras
import tensorflow as tf

from mart_tf import bounds
from mart_tf.training import reduction
from mart_tf.training import update

# As in the authors' code: of a tensor without a gradient v is 0.
_TINY = 1e-20


@keras.saving.register_keras_serializable(package="mart_tf")
class AWP(update.Update):
    """Adversarial weight perturbation (Wu, Xia and Wang, NeurIPS 2020).

    With F the loss of the batch on its adversarial examples x', which were
    found at w, one step of the optimizer with the gradient taken at w + v:

        w = optimizer(w, g),  g = dF/dw (w + v) + weight_decay w
        v = gamma ||w|| d / ||d||,  d = dF/dw (w)

    tensor by tensor, and v = 0 for those of rank 1, biases and batch norm:
    equations 9 and 10 of the paper with one step (its K2) and one pass (its
    A), as its code has them. d is that of the whole batch, over all replicas.
    Batch-norm statistics are of the passes at w + v, those of d leave none
    behind; the logs tell of w + v too. In the authors' code, whose optimizer
    steps from w + v, weight decay is `weight_decay (w + v)`.

    A step has one forward and one backward pass more. Before `from_epoch` it
    has not, on one device; on several the pass is made, and v is 0.

    The authors take 0.01 for standard adversarial training from the first
    epoch on, 0.005 for TRADES from the tenth.

    Args:
        gamma: The size of v relative to w, above 0 and at most 1.
        from_epoch: The first epoch, counted from 1, with a perturbation. It
            is that of `fit`: in a loop say `initial_epoch=n, epochs=n + 1`;
            before `train_on_batch` say `model.epoch.assign(n)`, from 0.

    Raises:
        ValueError: If an option lies outside its range.
    """

    def __init__(self, gamma: float = 0.005, from_epoch: int = 1):
        self.gamma = bounds.OPTIONS["gamma"].check("awp:gamma", gamma)
        self.from_epoch = bounds.COUNT.check("awp:from_epoch", from_epoch)
        self.reads_epoch = self.from_epoch > 1

    def __call__(self, model, loss):
        weights = [variable.value for variable in model.trainable_variables]
        directions = self.summed(self._directions(model, loss, weights))
        perturbed = [
            weight + self._perturbation(weight, direction)
            for weight, direction in zip(weights, directions, strict=True)
        ]
        gradients, auxiliary = self.gradient(
            model, loss, perturbed, keep_state=True
        )
        self.apply(model, gradients)
        return auxiliary

    def _directions(self, model, loss, weights):
        """This replica's part of d, 0 for what is not perturbed."""

        def nowhere():
            return [tf.zeros_like(weight) for weight in weights]

        def uphill():
            gradients, _ = self.gradient(model, loss, weights)
            return [
                zeros
                if gradient is None or gradient.shape.rank < 2
                # An embedding's is sparse.
                else tf.convert_to_tensor(gradient)
                for zeros, gradient in zip(nowhere(), gradients, strict=True)
            ]

        if self.from_epoch == 1:
            return uphill()
        begun = model.epoch.value + 1 >= self.from_epoch
        if reduction.is_alone():
            return tf.cond(begun, uphill, nowhere)
        # Inside a condition replicas cannot meet, as batch norm has them do.
        return [tf.where(begun, d, 0.0) for d in uphill()]

    def _perturbation(self, weight, direction):
        """v of a tensor."""
        scale = self.gamma * tf.norm(weight) / (tf.norm(direction) + _TINY)
        return scale * direction
