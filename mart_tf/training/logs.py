"""What a step logs: the loss, the accuracies, what the defense measures."""

import keras
import tensorflow as tf


class Logs:
    """The metrics of an AdversarialClassifier.

    Args:
        measures: Names of what the defense's attack measures.
    """

    def __init__(self, measures):
        self._loss = keras.metrics.Mean(name="loss")
        self._natural = keras.metrics.Mean(name="natural_accuracy")
        self._robust = keras.metrics.Mean(name="robust_accuracy")
        self._measures = {
            name: keras.metrics.Mean(name=name) for name in measures
        }

    @property
    def metrics(self):
        """All of them, the loss first."""
        measures = self._measures.values()
        return [self._loss, self._natural, self._robust, *measures]

    def without(self, metrics):
        """Of other metrics those whose name is none of these."""
        own = {metric.name for metric in self.metrics}
        return [metric for metric in metrics if metric.name not in own]

    def unseen(self):
        """Names of those that have seen no example since their last reset."""
        return [
            metric.name
            for metric in self.metrics[1:]
            if not float(tf.convert_to_tensor(metric.count.value))
        ]

    def measure(self, measures):
        """Takes in what the attack measured, `[batch]` by name."""
        for name, values in measures.items():
            self._measures[name].update_state(values)
        return {name: self._measures[name].result() for name in measures}

    def take(self, batch, outcome, counted, own):
        """Takes in a step, as far as it has something.

        Args:
            batch: A `defenses.Batch`.
            outcome: A `defenses.Losses`.
            counted: Float32 `[batch]`: 1 where the example counts, else 0.
            own: The classifier's own losses, a scalar.

        Returns:
            The results so far, by name.
        """
        self._loss.update_state(batch.weight * outcome.values + own, counted)
        reported = {"loss": self._loss}
        for tracker, logits in [
            (self._natural, outcome.natural_logits),
            (self._robust, outcome.adversarial_logits),
        ]:
            if logits is not None:
                predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
                tracker.update_state(predicted == batch.label, counted)
                reported[tracker.name] = tracker
        return {name: metric.result() for name, metric in reported.items()}
