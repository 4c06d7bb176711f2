"""A linear network whose training step is worked out in numpy."""

import keras
import numpy as np
import scipy.special
import splitmix
import tensorflow as tf

import mart_tf

PIXELS, CLASSES, EXAMPLES = 6, 3, 8
GENERATOR = np.random.RandomState(0)
IMAGES = GENERATOR.rand(EXAMPLES, PIXELS).astype("float32")
LABELS = GENERATOR.randint(0, CLASSES, EXAMPLES).astype("int32")
ROWS = GENERATOR.permutation(1000)[:EXAMPLES].astype("int64")
SAMPLE_WEIGHT = GENERATOR.rand(EXAMPLES).astype("float32") * 2
KERNEL = GENERATOR.randn(PIXELS, CLASSES).astype("float32")
BIAS = GENERATOR.randn(CLASSES).astype("float32")
THREAT = mart_tf.ThreatModel(epsilon=0.2)
RATE, DECAY, SEED = 0.5, 0.03, 11


def linear_network(**regularizers):
    network = keras.Sequential(
        [keras.Input([PIXELS]), keras.layers.Dense(CLASSES, **regularizers)]
    )
    network.set_weights([KERNEL, BIAS])
    return network


def train_once(strategy, defense, **settings):
    """One step of SGD on the linear network; returns its new weights."""
    model, _ = train(strategy, defense, **settings)
    return model.classifier.get_weights()


def train(
    strategy, defense, index=True, epochs=1, make=linear_network, **settings
):
    """Steps of SGD on the one batch there is; returns model and logs."""
    with strategy.scope():
        model = mart_tf.AdversarialClassifier(
            make(),
            defense,
            THREAT,
            attack_steps=2,
            weight_decay=DECAY,
            seed=SEED,
            **settings,
        )
        model.compile(keras.optimizers.SGD(RATE))
    inputs = {"image": IMAGES, "index": ROWS} if index else IMAGES
    batch = tf.data.Dataset.from_tensors((inputs, LABELS, SAMPLE_WEIGHT))
    batches = batch.unbatch().batch(EXAMPLES)
    logs = model.fit(batches, epochs=epochs, verbose=0).history
    return model, logs


def one_hot(labels):
    return np.eye(CLASSES)[labels]


def softmax_of(images):
    return scipy.special.softmax(images @ KERNEL + BIAS, axis=1)


def start_by_hand(examples, radius=0.2, step=0):
    """The uniform start of a step, and the box around the images."""
    step_seed = splitmix.fold(SEED, step)
    start = np.stack(
        [splitmix.uniform(step_seed, int(e), PIXELS) for e in examples]
    )
    epsilon = np.broadcast_to(np.float32(radius), [EXAMPLES])[:, None]
    low = np.maximum(IMAGES - epsilon, 0)
    high = np.minimum(IMAGES + epsilon, 1)
    return np.clip(IMAGES + epsilon * (2 * start - 1), low, high), low, high


def attack_by_hand(examples, gradient=None, step=0):
    """Two steps of PGD, in numpy, on the cross-entropy or another objective.

    `gradient`: from images to the objective's gradient at their logits.
    `step`: the training step whose noise it starts from.
    """
    gradient = gradient or (lambda x: softmax_of(x) - one_hot(LABELS))
    adversarial, low, high = start_by_hand(examples, step=step)
    for _ in range(2):
        move = 0.2 / 4 * np.sign(gradient(adversarial) @ KERNEL.T)
        adversarial = np.clip(adversarial + move, low, high)
    return adversarial


def update(natural_part, adversarial_part, adversarial):
    """New weights from dL/dz of the weighted mean, decay included."""
    scale = SAMPLE_WEIGHT[:, None] / EXAMPLES
    natural_part = scale * natural_part
    adversarial_part = scale * adversarial_part
    kernel = IMAGES.T @ natural_part + adversarial.T @ adversarial_part
    bias = (natural_part + adversarial_part).sum(0)
    return [
        KERNEL - RATE * (kernel + DECAY * KERNEL),
        BIAS - RATE * (bias + DECAY * BIAS),
    ]
