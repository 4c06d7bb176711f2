"""Which epoch it is, told to the model by `fit`: schedules of defenses ask."""

import keras


class TellEpoch(keras.callbacks.Callback):
    """Tells an AdversarialClassifier which epoch it is in."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.epoch.assign(epoch)


def with_epoch(callbacks, model):
    """The callbacks of a fit, and one that tells the model its epoch."""
    own = TellEpoch()
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return keras.callbacks.CallbackList(
            [own, *callbacks.callbacks], model=model
        )
    given = [] if callbacks is None else callbacks
    return [own, *(given if isinstance(given, (list, tuple)) else [given])]
