"""Standard adversarial training: ours, CleverHans's PGD in a loop, and ART's.

    pip install -e .[benchmarks]
    python benchmarks/versus_tensorflow.py

Three ways to train the same Keras network on the adversarial examples of
PGD-10 in TensorFlow: `AdversarialClassifier.fit`; CleverHans's eager
`projected_gradient_descent` and a `tf.function` that takes the step, in a
plain loop; ART's `AdversarialTrainerMadryPGD`. Random images (speed does not
depend on them), SGD. Images a second in alternating rounds, medians, and the
medians of the ratios within a round; of `fit` from its beginning to its last
step, for TensorFlow may take seconds to end a pipeline of Keras's. Ours is also
run in bfloat16, which the other two, as their users write them, are not.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
from absl import logging
from art.defences import trainer
from art.estimators import classification
from cleverhans.tf2.attacks import projected_gradient_descent as cleverhans
import keras
import numpy as np
import tensorflow as tf

import mart_tf

_NETWORK = flags.DEFINE_string("network", "small_cnn", "Of mart_tf.models.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_STEPS = flags.DEFINE_integer("steps", 20, "Training steps in a measurement.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Alternating rounds.")

_SHAPE, _CLASSES = (28, 28, 1), 10
_EPSILON, _STEP_SIZE, _ATTACK_STEPS = 0.3, 0.075, 10


def main(_):
    """Prints images a second of each, and how many times as fast ours is."""
    logging.set_verbosity(logging.WARNING)
    generator = np.random.default_rng(0)
    size = _BATCH_SIZE.value * _STEPS.value
    images = generator.random((size, *_SHAPE), "float32")
    labels = generator.integers(0, _CLASSES, size).astype("int32")
    trainers = {
        "ours": _ours("float32"),
        "ours, bfloat16": _ours("mixed_bfloat16"),
        "CleverHans": _cleverhans(),
        "ART": _art(),
    }
    rates = {name: [] for name in trainers}
    # The first round compiles.
    for number in range(_ROUNDS.value + 1):
        for name, train in trainers.items():
            begun = time.perf_counter()
            ended = train(images, labels) or time.perf_counter()
            if number:
                rates[name].append(size / (ended - begun))
    print(f"{'':14} {'images/s':>9} {'CleverHans':>11} {'ART':>6}")
    for name, own in rates.items():
        ratios = [
            statistics.median(a / b for a, b in zip(own, theirs, strict=True))
            for theirs in (rates["CleverHans"], rates["ART"])
        ]
        print(
            f"{name:14} {statistics.median(own):9.1f} {ratios[0]:11.2f} "
            f"{ratios[1]:6.2f}"
        )


def _network(precision="float32"):
    return mart_tf.models.build(
        _NETWORK.value, _SHAPE, _CLASSES, precision=precision
    )


def _optimizer():
    return keras.optimizers.SGD(0.01, momentum=0.9)


def _ours(precision):
    model = mart_tf.AdversarialClassifier(
        _network(precision),
        "standard",
        mart_tf.ThreatModel(epsilon=_EPSILON),
        _ATTACK_STEPS,
        _STEP_SIZE,
    )
    model.compile(_optimizer())

    def train(images, labels):
        clock = Clock()
        model.fit(
            images,
            labels,
            batch_size=_BATCH_SIZE.value,
            check_data=False,
            verbose=0,
            callbacks=[clock],
        )
        return clock.ended

    return train


class Clock(keras.callbacks.Callback):
    """Notes when the last step is over."""

    def on_train_end(self, logs=None):
        self.ended = time.perf_counter()


def _step(network, optimizer):
    """A training step on adversarial examples, as TensorFlow's guides do it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, network(images, training=True))
        variables = network.trainable_variables
        gradients = tape.gradient(value, [v.value for v in variables])
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    return step


def _cleverhans():
    network, optimizer = _network(), _optimizer()
    optimizer.build(network.trainable_variables)
    step = _step(network, optimizer)

    def train(images, labels):
        for start in range(0, len(images), _BATCH_SIZE.value):
            rows = slice(start, start + _BATCH_SIZE.value)
            adversarial = cleverhans.projected_gradient_descent(
                network,
                images[rows],
                _EPSILON,
                _STEP_SIZE,
                _ATTACK_STEPS,
                np.inf,
                clip_min=0.0,
                clip_max=1.0,
                y=labels[rows],
                sanity_checks=False,
            )
            step(tf.convert_to_tensor(adversarial), labels[rows])

    return train


def _art():
    network, optimizer = _network(), _optimizer()
    optimizer.build(network.trainable_variables)
    step = _step(network, optimizer)
    classifier = classification.TensorFlowV2Classifier(
        model=network,
        nb_classes=_CLASSES,
        input_shape=_SHAPE,
        loss_object=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        ),
        train_step=lambda model, images, labels: step(images, labels),
        clip_values=(0.0, 1.0),
    )
    madry = trainer.AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=1,
        batch_size=_BATCH_SIZE.value,
        eps=_EPSILON,
        eps_step=_STEP_SIZE,
        max_iter=_ATTACK_STEPS,
        num_random_init=1,
    )

    def train(images, labels):
        madry.fit(images, labels.astype("int64"), nb_epochs=1)

    return train


if __name__ == "__main__":
    app.run(main)
