"""What a defense is: an inner attack, an outer loss, its options."""

import inspect
from typing import NamedTuple

import tensorflow as tf

from mart_tf import attacks
from mart_tf import bounds
from mart_tf import losses
from mart_tf import threat as threat_model


class Batch(NamedTuple):
    """One batch as a defense sees it.

    image: float32 `[batch, ...]`. label: int32 `[batch]`. weight: float32
    `[batch]`. example: int64 `[batch]`, the data set row, or the position in
    the global batch where the input has no rows. seeds: int64 `[batch, 2]`,
    the noise of each example at this step. memory: what the defense kept of
    each example when it last saw it, float32 `[batch]` by name.
    label_smoothing: how much of its label an example gives to all classes,
    in [0, 1), for the cross-entropies of the loss.
    """

    image: tf.Tensor
    label: tf.Tensor
    weight: tf.Tensor
    example: tf.Tensor
    seeds: tf.Tensor
    memory: dict[str, tf.Tensor]
    label_smoothing: float = 0.0


class InnerAttack(NamedTuple):
    """The settings of the inner attack at this step.

    threat: the threat model. steps: how many, at least 1. step_size and
    epsilon: in units of the pixels; both may ramp, and epsilon is then below
    the threat model's. random_start: "uniform", "gaussian" or "none". epoch:
    float32 scalar, counts from 0.
    """

    threat: threat_model.ThreatModel
    steps: int
    step_size: float | tf.Tensor
    epsilon: float | tf.Tensor
    random_start: str
    epoch: tf.Tensor


class Adversarial(NamedTuple):
    """What an attack found.

    image: x', float32 of the images' shape. weight: that of x' in the loss,
    1 or float32 `[batch]`. memory: what to keep of each example until it
    comes again, float32 `[batch]` by the names of `Defense.memory`. measures:
    what to log the mean of, float32 `[batch]` by the names of
    `Defense.measures`.
    """

    image: tf.Tensor
    weight: float | tf.Tensor = 1.0
    memory: dict[str, tf.Tensor] = {}
    measures: dict[str, tf.Tensor] = {}


class Losses(NamedTuple):
    """A loss per example, and the logits of the forward passes it took.

    values: float32 `[batch]`, in nats. natural_logits and adversarial_logits:
    float32 `[batch, classes]` of the passes in training mode, where the loss
    made them: accuracies are then read off them.
    """

    values: tf.Tensor
    natural_logits: tf.Tensor | None = None
    adversarial_logits: tf.Tensor | None = None


class Defense:
    """Base of every defense; a subclass gives `loss`, and its own `attack`
    where that is not PGD on the cross-entropy.

    A subclass keeps each parameter of its `__init__` as an attribute of the
    same name, and is registered with `keras.saving`, so that a model that
    holds it can be saved. It holds no variables: what it must remember of an
    example from one epoch to the next, `memory` names, `Batch.memory` brings
    and `Adversarial.memory` takes back.

    Attributes:
        selects_by: The accuracy on the validation split by which a run
            chooses its best epoch.
        measures: Names of what `attack` measures, logged in training.
        needs_rows: Whether the input must tell each example's row in the
            training data.
        files: Paths of what it reads besides the data.
        smooths_labels: Whether `loss` heeds `Batch.label_smoothing`; where it
            does not, label smoothing is refused.
        attacks: Whether it has an inner attack.
        reads_epsilon: Whether `attack` heeds `InnerAttack.epsilon`, the ramp.
        reads_epoch: Whether `attack` heeds `InnerAttack.epoch`; where it does,
            a `fit` that begins at epoch 0 again is told of.
    """

    selects_by = "robust_accuracy"
    measures = ()
    needs_rows = False
    files = ()
    smooths_labels = False
    attacks = True
    reads_epsilon = True
    reads_epoch = False

    def memory(self, threat):
        """First values of what is kept of each training example, by name."""
        return {}

    def check(self, threat, random_start):
        """Refuses settings of the attack that the defense cannot work with.

        Raises:
            ValueError: With one sentence.
        """

    def check_data(self, images, rows, dataset=None):
        """Refuses training data that the defense was not made for.

        Args:
            images: Number of training images.
            rows: One more than the greatest of their rows.
            dataset: Name of the data set, None for arrays.

        Raises:
            ValueError: With one sentence.
        """

    def describe_attack(self, steps, step_size, random_start):
        """The inner attack in a few words, for a person."""
        if not self.attacks:
            return "none in training"
        size = bounds.spelled(step_size)
        return f"PGD, {steps} steps of {size}, {random_start} start"

    def attack(self, classify, batch, inner):
        """Adversarial examples for a batch: PGD on the cross-entropy.

        Args:
            classify: Images to float32 logits, in inference mode; with
                `attack_batch_norm="batch"` batch norm by the batch.
            batch: A `Batch`.
            inner: An `InnerAttack`.

        Returns:
            An `Adversarial`.
        """
        return Adversarial(pgd(classify, batch, inner))

    def loss(self, classify, batch, adversarial):
        """The outer loss, with the forward passes it needs and no others.

        Evaluation calls it too, with the examples of plain PGD, each of
        weight 1, and no row: `batch.example` is -1.

        Args:
            classify: Images to float32 logits, in training mode.
            batch: A `Batch`.
            adversarial: An `Adversarial`.

        Returns:
            A `Losses`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss.")

    def get_config(self):
        """The options, as Keras saves them."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        """A defense from what `get_config` returned."""
        return cls(**config)


def pgd(classify, batch, inner, objective="cross_entropy"):
    """PGD with the settings of an `InnerAttack`; returns images."""
    return attacks.pgd(
        classify,
        batch.image,
        batch.label,
        inner.threat,
        steps=inner.steps,
        step_size=inner.step_size,
        objective=objective,
        random_start=inner.random_start,
        epsilon=inner.epsilon,
        seed=batch.seeds,
    )


def divergence_from(classify, batch):
    """The objective KL(p(x) || p(x')) with p(x) held fixed."""
    natural_logits = tf.stop_gradient(classify(batch.image))

    def objective(labels, logits):
        del labels  # What is maximised knows only the network.
        return losses.kl_divergence(natural_logits, logits)

    return objective


def check_start(name, random_start):
    """Refuses to start at x, where KL(p(x) || p(x')) has no gradient.

    Raises:
        ValueError: On the start "none".
    """
    if random_start == "none":
        raise ValueError(
            f"The inner attack of {name} climbs KL(p(x) || p(x')), which has "
            "no gradient at x: random_start none would leave every image as "
            "it is; expected uniform or gaussian."
        )
