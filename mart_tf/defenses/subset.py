"""Standard adversarial training that treats chosen examples otherwise."""

import functools
import os
from typing import Literal

import keras
import tensorflow as tf

from mart_tf import attacks
from mart_tf import bounds
from mart_tf import defenses
from mart_tf import losses
from mart_tf import options
from mart_tf.attacks import examples
from mart_tf.defenses import base
from mart_tf.labeling import subsets

TREATMENTS = ("natural", "fgsm", "kl")


@keras.saving.register_keras_serializable(package="mart_tf")
class Subset(base.Defense):
    """The experiment of Figure 1 of the MART paper.

    Standard adversarial training, CE(p(x'), y) with x' from PGD, in which
    the examples that a file names are treated otherwise:

        "natural"   not perturbed, x' = x                         (Figure 1a)
        "fgsm"      perturbed by one step of epsilon from x       (Figure 1b)
        "kl"        CE(p(x'), y) + regularization * KL(p(x) || p(x'))   (1c)

    The file is one of those that `mart_tf.labeling.pick_subsets` and
    `mart-label --subsets` write; examples are known by their row in the
    training data.
    "kl" takes two forward passes in training mode, natural first, apart; the
    others one. In evaluation no example is in the subset. Training with
    "natural" logs no accuracy: that of natural and adversarial examples
    together says nothing.

    Args:
        file: Path of the CSV file.
        treatment: "natural", "fgsm" or "kl".
        regularization: Weight of the divergence for "kl", at least 0. The
            paper gives no value; the default, 4, that of its TRADES, is ours.

    Raises:
        ValueError: If the file is missing or damaged, or another option lies
            outside its range.
    """

    needs_rows = True
    smooths_labels = True

    def __init__(
        self,
        file: str = "",
        treatment: Literal["natural", "fgsm", "kl"] = "natural",
        regularization: float | None = None,
    ):
        if not file:
            raise ValueError(
                "Defense 'subset' names no file; expected subset:file=PATH, "
                "with a file that mart-label --subsets wrote."
            )
        if treatment not in TREATMENTS:
            raise options.unknown("treatment", str(treatment), TREATMENTS)
        if treatment == "kl":
            if regularization is None:
                given = {"treatment": treatment}
                default = defenses.DERIVED["subset"]["regularization"]
                regularization = default(None, given)
            regularization = bounds.AT_LEAST_ZERO.check(
                "regularization", regularization
            )
        elif regularization is not None:
            raise ValueError(
                f"Defense 'subset' has no divergence to weigh by "
                f"regularization {regularization} when treatment is "
                f"{treatment!r}; expected treatment 'kl', or no regularization."
            )
        self.file = os.fspath(file)
        self.treatment = treatment
        self.regularization = regularization

    @property
    def files(self):
        return (self.file,)

    @functools.cached_property
    def examples(self):
        """The `subsets.Examples`, read when training first asks for them."""
        return subsets.read(self.file)

    def check_data(self, images, rows, dataset=None):
        subsets.check_data(self.file, self.examples, images, rows, dataset)

    def attack(self, classify, batch, inner):
        adversarial = base.pgd(classify, batch, inner)
        if self.treatment == "kl":
            return base.Adversarial(adversarial)
        otherwise = batch.image
        if self.treatment == "fgsm":
            otherwise = attacks.fgsm(
                classify,
                batch.image,
                batch.label,
                inner.threat,
                epsilon=inner.epsilon,
            )
        chosen = self.contains(batch.example)
        return base.Adversarial(examples.where(chosen, otherwise, adversarial))

    def loss(self, classify, batch, adversarial):
        if self.treatment != "kl":
            logits = classify(adversarial.image)
            values = losses.cross_entropy(
                batch.label, logits, batch.label_smoothing
            )
            if self.treatment == "natural":
                return base.Losses(values)
            return base.Losses(values, adversarial_logits=logits)
        natural_logits = classify(batch.image)
        adversarial_logits = classify(adversarial.image)
        chosen = tf.cast(self.contains(batch.example), tf.float32)
        divergence = losses.kl_divergence(natural_logits, adversarial_logits)
        values = losses.cross_entropy(
            batch.label, adversarial_logits, batch.label_smoothing
        )
        values += self.regularization * chosen * divergence
        return base.Losses(values, natural_logits, adversarial_logits)

    def contains(self, examples):
        """Whether each example is in the subset.

        Args:
            examples: Rows of the training data, int64 `[batch]`; any other
                number, such as -1 in evaluation, is of no member.

        Returns:
            A bool tensor `[batch]`.
        """
        rows = tf.constant(self.examples.rows)  # They rise.
        places = tf.searchsorted(rows, examples)
        places = tf.minimum(places, len(self.examples.rows) - 1)
        return tf.gather(rows, places) == examples
