"""What is kept of each attack: who still stands, and a few images."""

import dataclasses
import math

import numpy as np

from mart_tf import bounds
from mart_tf.data import sampling

WORST_CASE = "worst_case"


@dataclasses.dataclass(frozen=True)
class Nature:
    """What an attack says of itself; the signs of masking are read by it.

    Args:
        kind: The name of its class: two of a kind differ in settings alone.
        steps: How many steps it makes in a round.
        restarts: How often it starts anew.
        objective: What it climbs along gradients, "cross_entropy", "margin"
            or another; None where it is none of these.
        plain: Whether it is projected ascent by steps of one length, as PGD.
        reach: How far all its steps lead, in the threat model's norm; or None.
        reference: Whether it is AutoAttack, which others are measured against.
    """

    kind: str
    steps: int = 1
    restarts: int = 1
    objective: str | None = None
    plain: bool = False
    reach: float | None = None
    reference: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """Accuracy under one attack, or without.

    Args:
        name: The attack's spec as the user wrote it, "natural", or
            "worst_case".
        outcome: bool `[n]`: which of all examples are classified correctly.
        seconds: Wall time, compilation included; None if nothing was run.
        attacked: Number of examples that went through the network.
        parameters: Every setting of the attack.
        access: What the attack was given of the model: "gradients",
            "queries" (its outputs alone), "surrogate" (another model), or
            "none".
        broken_after: int32 `[n]`: how many steps broke each example, 0 for
            one misclassified without attack, -1 for one that stands; or None.
        norm: The norm that the attack minimises the distance in, instead of
            staying inside the threat model; None for all others. Its outcome
            is at `radius` in that norm, and no part of the worst case.
        distances: float32 `[n]`, of such an attack: of the adversarial
            example that was found, 0 for one misclassified without attack,
            infinity where none was found.
        parts: The attacks of an ensemble in order, each on what the earlier
            ones left: their outcomes are cumulative.
        radius: Of an attack with a `norm`, what its outcome is at; else None.
        nature: What the signs of masking ask an attack; None without one.
    """

    name: str
    outcome: np.ndarray
    seconds: float | None = None
    attacked: int = 0
    parameters: dict = dataclasses.field(default_factory=dict)
    access: str = "gradients"
    broken_after: np.ndarray | None = None
    norm: str | None = None
    distances: np.ndarray | None = None
    parts: tuple["Result", ...] = ()
    radius: float | None = None
    nature: Nature | None = None

    @property
    def label(self):
        """The name as tables and figures show it."""
        if self.norm is not None:
            radius = bounds.spelled(self.radius)
            return f"{self.name} ({self.norm}, radius {radius})"
        return "worst case" if self.name == WORST_CASE else self.name

    @property
    def accuracy(self):
        """The share of all examples that are classified correctly."""
        return float(self.outcome.mean())

    @property
    def interval(self):
        """The 95 % confidence interval of the accuracy (Wilson, 1927)."""
        return wilson(int(self.outcome.sum()), len(self.outcome))

    @property
    def rate(self):
        """Attacked images per second."""
        return self.attacked / self.seconds if self.seconds else None

    def per_class(self, labels, classes):
        """Accuracy by class, float array `[classes]`; NaN without examples.

        Args:
            labels: Integer classes of the examples, `[n]`.
            classes: Number of classes.
        """
        examples = np.bincount(labels, minlength=classes)
        right = np.bincount(labels[self.outcome], minlength=classes)
        return np.divide(
            right, examples, out=np.full(classes, np.nan), where=examples > 0
        )

    @property
    def distance_summary(self):
        """How far the adversarial examples lie that were found, or None.

        An example misclassified without attack needs none and counts as
        neither found nor not found.
        """
        if self.distances is None:
            return None
        distances = self.distances[self.distances > 0].astype(np.float64)
        finite = distances[np.isfinite(distances)]
        statistics = {"min": np.min, "median": np.median, "mean": np.mean}
        statistics["max"] = np.max
        return {
            "found": len(finite),
            "not_found": len(distances) - len(finite),
            **{
                name: float(function(finite)) if len(finite) else None
                for name, function in statistics.items()
            },
        }

    def as_json(self, labels=None, classes=None):
        """The result as it stands in report.json.

        Args:
            labels: Integer classes `[n]`, or None: no accuracy by class.
            classes: Number of classes.
        """
        by_class = None
        if labels is not None:
            by_class = self.per_class(labels, classes)
        return {
            "name": self.name,
            "access": self.access,
            "parameters": self.parameters,
            **proportion(self.outcome),
            "per_class_accuracy": by_class,
            "nature": self.nature and dataclasses.asdict(self.nature),
            "norm": self.norm,
            "radius": self.radius,
            "distances": self.distance_summary,
            "attacked": self.attacked,
            "seconds": self.seconds,
            "images_per_second": self.rate,
            "parts": [part.as_json(labels, classes) for part in self.parts],
        }


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One attack at several radii.

    Args:
        attack: The attack's spec.
        epsilons: The radii, ascending, k of them.
        outcomes: bool `[k, n]`: which examples are classified correctly.
    """

    attack: str
    epsilons: tuple[float, ...]
    outcomes: np.ndarray

    @property
    def accuracies(self):
        """The share that is classified correctly at each radius."""
        return tuple(float(outcome.mean()) for outcome in self.outcomes)

    def as_json(self):
        """The sweep as it stands in report.json."""
        points = [
            {"epsilon": epsilon, **proportion(outcome)}
            for epsilon, outcome in zip(
                self.epsilons, self.outcomes, strict=True
            )
        ]
        return {"attack": self.attack, "points": points}


@dataclasses.dataclass(frozen=True)
class Trace:
    """The loss along an attack.

    Args:
        attack: The attack's spec.
        losses: Mean cross-entropy at its iterates, in nats; the first is the
            start of the attack.
        examples: How many examples the mean is over: those attacked whose
            loss is a number.
    """

    attack: str
    losses: np.ndarray
    examples: int

    def as_json(self):
        """The trace as it stands in report.json."""
        return {
            "attack": self.attack,
            "examples": self.examples,
            "losses": self.losses,
        }


@dataclasses.dataclass(frozen=True)
class Samples:
    """Some examples of one attack, for the figure: broken ones first.

    Args:
        attack: The attack's spec.
        accuracy: Of all examples under it.
        natural: Natural examples, float32 `[k, ...]`.
        adversarial: What the attack made of them.
        labels: Their classes, int32 `[k]`.
        predictions: Classes of the adversarial examples, -1 for NaN.
        natural_confidences: Probability of the predicted class on the natural
            examples, `[k]`, or None.
        adversarial_confidences: The same on the adversarial ones.
    """

    attack: str
    accuracy: float
    natural: np.ndarray
    adversarial: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    natural_confidences: np.ndarray | None = None
    adversarial_confidences: np.ndarray | None = None

    @classmethod
    def choose(cls, result, images, labels, crafted, classify=None, count=8):
        """Up to `count` of an attack's examples of all classes, half broken.

        Args:
            result: The attack's `Result`.
            images: The examples that it attacked, `[m, ...]`.
            labels: Their classes `[m]`.
            crafted: What the attack made of them: `adversarial`, `broken` and
                `predictions`, a row for each.
            classify: Images to logits, for the confidences; None for none.
            count: How many examples to take.
        """
        broken = np.flatnonzero(crafted.broken)
        standing = np.flatnonzero(~crafted.broken)
        some = max(count // 2, count - len(standing))
        broken = broken[sampling.draw(labels[broken], some)]
        some = count - len(broken)
        standing = standing[sampling.draw(labels[standing], some)]
        rows = np.concatenate([broken, standing])
        natural, adversarial = images[rows], crafted.adversarial[rows]
        confidences = ()
        if classify is not None:
            confidences = [
                _confidences(np.asarray(classify(shown), np.float64))
                for shown in (natural, adversarial)
            ]
        return cls(
            result.name,
            result.accuracy,
            natural,
            adversarial,
            labels[rows],
            crafted.predictions[rows],
            *confidences,
        )


def unfolded(results, depth=0, within=""):
    """Yields depth, label and result of results, each before its parts.

    The label of a part leaves out what it shares with its ensemble: that of
    "autoattack: square" is "square".
    """
    for result in results:
        label = result.label.removeprefix(f"{within}: ")
        yield depth, label, result
        yield from unfolded(result.parts, depth + 1, result.name)


def class_name(label, names):
    """A class in words, "NaN" for that of no class; names may be None."""
    if label < 0:
        return "NaN"
    return str(label) if names is None else str(names[label])


def proportion(outcome):
    """Accuracy, counts and interval as report.json has them."""
    correct = int(outcome.sum())
    return {
        "accuracy": correct / len(outcome),
        "correct": correct,
        "examples": len(outcome),
        "confidence_interval_95": list(wilson(correct, len(outcome))),
    }


def _confidences(logits):
    """The greatest of the softmax probabilities of each row."""
    greatest = logits.max(axis=1, keepdims=True)
    return 1.0 / np.exp(logits - greatest).sum(axis=1)


def wilson(correct, examples, z=1.959964):
    """Wilson's score interval of a proportion (Wilson, 1927).

        (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    Args:
        correct: Number of successes.
        examples: Number of trials n, at least 1; p is their ratio.
        z: Standard deviations; the default gives 95 %.

    Returns:
        The lower and the upper bound, in [0, 1].
    """
    p = correct / examples
    scale = 1 + z**2 / examples
    middle = (p + z**2 / (2 * examples)) / scale
    half = math.sqrt(p * (1 - p) / examples + (z / (2 * examples)) ** 2)
    half *= z / scale
    return max(0.0, middle - half), min(1.0, middle + half)
