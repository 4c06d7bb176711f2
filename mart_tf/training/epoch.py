"""Which epoch it is, told to the model by `fit`: schedules of defenses ask."""

import warnings

import keras

from mart_tf.training import first_loss
from mart_tf.training import watch


class TellEpoch(keras.callbacks.Callback):
    """Tells an AdversarialClassifier which epoch it is in."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.epoch.assign(epoch)


def with_own(callbacks, model, are_weighted=False):
    """The callbacks of a fit, and those that every fit has.

    Args:
        callbacks: As given to `fit`.
        model: The `AdversarialClassifier`.
        are_weighted: Whether examples have weights, so that a first loss of
            any size says nothing.
    """
    listed = isinstance(callbacks, keras.callbacks.CallbackList)
    given = callbacks.callbacks if listed else callbacks or []
    given = given if isinstance(given, (list, tuple)) else [given]
    own = [TellEpoch()]
    if not any(isinstance(each, watch.Watch) for each in given):
        own.append(watch.Watch())
    is_told = any(isinstance(each, first_loss.FirstLoss) for each in given)
    if not (is_told or are_weighted):
        own.append(first_loss.FirstLoss(warnings.warn))
    if listed:
        return keras.callbacks.CallbackList([*own, *given], model=model)
    return [*own, *given]
