"""An average of the weights, which is what is evaluated where one is kept."""

import contextlib

import keras
import tensorflow as tf

from mart_tf.models import rebuilding


class Averages(keras.layers.Layer):
    """The exponential moving average of the weights over the steps.

    Polyak and Juditsky (SIAM 1992); for adversarial training Gowal et al.
    (2020). After each step, with w the weights:

        average = d average + (1 - d) w

    d is 0 for the first W steps, W the warm-up's and at least 1: until then
    the average is w itself. Then, t counted from 0,

        d = min(decay, (1 + t) / (10 + t))

    It is of the trainable weights; batch-norm statistics have an average of
    their own, the live model's. Off, it holds nothing and costs nothing.

    Where the optimizer sums the gradients of several steps before it changes
    the weights, the average is taken with each change, and t counts these.

    Args:
        decay: In [0, 1); 0: no average.
        warmup_steps: W, at least 0, in steps of `fit` in any case.
    """

    def __init__(self, decay, warmup_steps=0):
        super().__init__(name="averages")
        self.decay = float(decay)
        self.warmup_steps = int(warmup_steps)
        # The averaged variables; as an attribute they would count as this
        # layer's own.
        self._averaged = lambda: ()
        self._averages = []

    def ensure(self, variables):
        """Makes the averages if they are not there yet.

        Args:
            variables: The trainable variables of the classifier.

        Raises:
            ValueError: If these are others than at first.
        """
        if not self.decay or self._are(variables):
            return
        if self.begun:
            raise ValueError(
                "Other weights are trainable now than when the average of the "
                "weights began; freeze layers before AdversarialClassifier is "
                "made, or make another one."
            )
        self._averaged = lambda: tuple(variables)
        self._averages = [
            keras.Variable(
                keras.ops.convert_to_numpy(variable),
                dtype=variable.dtype,
                trainable=False,
                # Each replica averages the same weights for itself.
                synchronization="on_read",
                aggregation="only_first_replica",
                name=f"average_{place}",
            )
            for place, variable in enumerate(variables)
        ]
        self.built = True

    def update(self, variables, step, every=1, changed=None):
        """Takes the weights after a step in; inside the training step.

        Args:
            variables: As in `ensure`.
            step: That step, an int64 scalar counted from 0.
            every: In how many steps the weights change once.
            changed: Whether they did in this one, a boolean scalar, where
                `every` is above 1.
        """
        if not self.decay:
            return
        if not self._are(variables):
            raise ValueError(
                "The average of the weights does not know them; build the "
                "classifier before it trains, by a call on one batch."
            )
        warmup = -(-self.warmup_steps // every)
        decay = decay_at(updates(step, every), self.decay, warmup)
        if every > 1:
            decay = tf.where(changed, decay, 1.0)
        for average, variable in zip(self.weights, variables, strict=True):
            d = tf.cast(decay, average.dtype)
            average.assign(d * average.value + (1.0 - d) * variable.value)

    @property
    def begun(self):
        """Whether the averages are there."""
        return bool(self._averaged())

    def values(self, step):
        """The averages, before the first step the weights themselves."""
        started = tf.convert_to_tensor(step) > 0
        return [
            tf.where(started, average.value, variable.value)
            for average, variable in zip(
                self.weights, self._averaged(), strict=True
            )
        ]

    def applied(self, classifier, step):
        """A copy of a classifier with the average of its weights.

        Also of those that are frozen by now. It is of one device: under a
        strategy of several processes one alone may ask for it.

        Returns:
            A new Keras model; where no average is kept the classifier itself.

        Raises:
            ValueError: If it cannot be rebuilt from its configuration.
        """
        if not self.decay:
            return classifier
        places = {id(weight): i for i, weight in enumerate(classifier.weights)}
        copy = rebuilding.copy(classifier)
        for variable, value in zip(
            self._averaged(), self.values(step), strict=True
        ):
            copy.weights[places[id(variable)]].assign(value)
        return copy

    def instead(self, step):
        """A scope in which the averaged variables read as their averages.

        What is assigned inside it is lost.
        """
        if not self.begun:
            return contextlib.nullcontext()
        pairs = zip(self._averaged(), self.values(step), strict=True)
        return keras.StatelessScope(pairs, collect_losses=True)

    def _are(self, variables):
        known = self._averaged()
        return self.begun and list(map(id, known)) == list(map(id, variables))


def updates(step, every):
    """How often the weights changed in some steps, once in `every`."""
    return step if every == 1 else step // every


def decay_at(step, decay, warmup_steps=0):
    """The d of a step, a float32 scalar.

    Args:
        step: Counted from 0, an integer scalar.
        decay: What it rises to.
        warmup_steps: Steps before it begins to rise, at least 0.
    """
    first = max(1, warmup_steps)
    step = tf.convert_to_tensor(step)
    t = tf.cast(tf.maximum(step - first, 0), tf.float32)
    rising = tf.minimum(decay, (1.0 + t) / (10.0 + t))
    return tf.where(step < first, 0.0, rising)
