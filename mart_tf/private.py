"""What is used of Keras and TensorFlow without being public: all of it.

`setup.py` keeps Keras and TensorFlow to the minor versions that this was tried
with, and tests/test_private.py holds each entry to what it is used for: who
raises a bound runs that file first. An entry that works around something names
its issue; the others read what has no public name.
"""

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

# An attribute of a tf.function: its graph is called, and not copied into the
# graph that calls it.
#
# A gradient inside a tf.while_loop lies in a cycle; there TensorFlow may miss
# oneDNN's gradient of a max pooling, and its own is many times as slow.
CALLED = {"_noinline": True}


def softmax_logits(scores):
    """The logits that a Keras softmax made probabilities of, or None.

    The logarithm of a probability that has underflown to 0 has no gradient.
    Keras's own cross-entropies look here for the same reason.
    """
    return getattr(scores, "_keras_logits", None)


def seed_states(model):
    """The state of each seed generator in a Keras model, uint32 `[2]`.

    Keras neither saves them nor gives each replica its own: a resumed run
    would drop other units, and all replicas the same (keras#19796).
    """
    weights = {id(variable) for variable in model.weights}
    return [
        variable
        for variable in model.variables
        if id(variable) not in weights
        and variable.name == "seed_generator_state"
    ]


def layers(model):
    """All layers of a Keras model, those inside of others among them."""
    return list(model._flatten_layers())


class BuiltOnce(keras.Model):
    """A model for which Keras reads no batch once all of it is built.

    Under a strategy Keras does so at every call of `fit` and `evaluate`, which
    takes an iterator over the devices and a symbolic forward pass. What it
    reads it sums over the replicas, whose parts may differ by an example: only
    shapes and types are asked for, and one replica's tell them (keras#20329).
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        parts = [self.optimizer, self._compile_metrics]
        if self.built and all(part is None or part.built for part in parts):
            return
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            _, _, batches = next(iter(iterator))
            data_batch = tf.nest.map_structure(
                lambda part: strategy.experimental_local_results(part)[0],
                next(batches),
            )
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)


def is_called_by_fit(arguments):
    """Whether `keras.Model.evaluate` got these keywords from `fit`.

    `fit` has then checked the data already, and passes the same after every
    epoch.
    """
    return bool(arguments.get("_use_cached_eval_dataset"))


def has_several_workers(strategy):
    """Whether processes train together under a strategy, as Keras asks it.

    A `MultiWorkerMirroredStrategy` without TF_CONFIG is of one process, and
    what its step returns Keras passes on as it is.
    """
    return strategy.extended._in_multi_worker_mode()


def build_metrics(model, labels, scores):
    """Makes the metrics that `compile` was given.

    Under a strategy Keras does so before it traces a step; without one they
    come about where the step first uses them, too late to be put back.

    Args:
        model: A compiled `keras.Model`.
        labels: As the metrics will see them.
        scores: Outputs, `[batch, classes]`.
    """
    metrics = model._compile_metrics
    if metrics is not None and not metrics.built:
        metrics.build(labels, scores)


def accumulators(optimizer):
    """The variables in which an optimizer sums the gradients of several steps.

    They are among its variables, and nothing public tells them apart.
    """
    return getattr(optimizer, "_accumulated_gradients", [])


def saved_model(content):
    """The message of a `saved_model.pb`, from its bytes.

    TensorFlow's public API reads and writes SavedModels whole: neither the
    type of a signature (Classify) nor the tensors behind its names are there.
    """
    return saved_model_pb2.SavedModel.FromString(content)


def write_fingerprint(directory):
    """Writes `fingerprint.pb` anew for a `saved_model.pb` that was changed."""
    fingerprinting_utils.write_fingerprint(str(directory))
