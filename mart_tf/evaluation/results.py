"""What is kept of each attack: who still stands, and a few images."""

import dataclasses
import math

import numpy as np

WORST_CASE = "worst_case"


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
            is at `parameters["radius"]` in that norm, and no part of the
            worst case.
        distances: float32 `[n]`, of such an attack: of the adversarial
            example that was found, 0 for one misclassified without attack,
            infinity where none was found.
        parts: The attacks of an ensemble in order, each on what the earlier
            ones left: their outcomes are cumulative.
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

    @property
    def label(self):
        """The name as tables and figures show it."""
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

    def as_json(self):
        """The result as it stands in report.json."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "accuracy": self.accuracy,
            "correct": int(self.outcome.sum()),
            "examples": len(self.outcome),
            "confidence_interval_95": list(self.interval),
            "attacked": self.attacked,
            "seconds": self.seconds,
            "images_per_second": self.rate,
        }


@dataclasses.dataclass(frozen=True)
class Samples:
    """Some examples of one attack, for the figure: broken ones first."""

    attack: str
    accuracy: float
    natural: np.ndarray
    adversarial: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray

    @classmethod
    def choose(cls, result, images, labels, outcome, count=8):
        """Up to `count` of an attack's examples, half of them broken."""
        broken = np.flatnonzero(outcome.broken)
        standing = np.flatnonzero(~outcome.broken)
        some = max(count // 2, count - len(standing))
        rows = np.concatenate([broken[:some], standing])[:count]
        return cls(
            result.name,
            result.accuracy,
            images[rows],
            outcome.adversarial[rows],
            labels[rows],
            outcome.predictions[rows],
        )


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
