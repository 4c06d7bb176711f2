"""What a step logs: the loss, the accuracies, what the defense measures."""

import keras
import tensorflow as tf

from mart_tf.training import reduction


class Logs:
    """The metrics of an AdversarialClassifier.

    Args:
        measures: Names of what the defense's attack measures.
    """

    def __init__(self, measures):
        self._loss = keras.metrics.Mean(name="loss")
        self._natural = keras.metrics.Mean(name="natural_accuracy")
        self._robust = keras.metrics.Mean(name="robust_accuracy")
        self._skipped = keras.metrics.Sum(name="skipped")
        self._measures = {
            name: keras.metrics.Mean(name=name) for name in measures
        }

    @property
    def metrics(self):
        """All of them, the loss first."""
        measures = self._measures.values()
        return [
            self._loss,
            self._natural,
            self._robust,
            *measures,
            self._skipped,
        ]

    def without(self, metrics):
        """Of other metrics those whose name is none of these."""
        own = {metric.name for metric in self.metrics}
        return [metric for metric in metrics if metric.name not in own]

    def unshown(self):
        """Names of those that have seen no example since their last reset.

        The number of skipped steps is shown where there were any, by `Watch`.
        """
        return [
            metric.name
            for metric in self.metrics[1:]
            if metric is self._skipped
            or not float(tf.convert_to_tensor(metric.count.value))
        ]

    def measure(self, measures):
        """Takes in what the attack measured, `[batch]` by name."""
        for name, values in measures.items():
            self._measures[name].update_state(values)

    def count(self, skipped):
        """Counts a step, if it is skipped: a boolean scalar."""
        once = reduction.share(tf.cast(skipped, tf.float32))
        self._skipped.update_state(once)

    def skipped(self):
        """How many steps were skipped since the last reset."""
        return round(float(self._skipped.result()))

    def take(self, batch, losses, counted, own):
        """Takes in a step, as far as it has something.

        Args:
            batch: A `defenses.Batch`.
            losses: A `defenses.Losses`.
            counted: Float32 `[batch]`: 1 where the example counts, else 0.
            own: The classifier's own losses, a scalar.

        Returns:
            Names of those that it had something for.
        """
        self._loss.update_state(batch.weight * losses.values + own, counted)
        seen = {self._loss.name}
        for tracker, logits in [
            (self._natural, losses.natural_logits),
            (self._robust, losses.adversarial_logits),
        ]:
            if logits is not None:
                predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
                tracker.update_state(predicted == batch.label, counted)
                seen.add(tracker.name)
        return seen
