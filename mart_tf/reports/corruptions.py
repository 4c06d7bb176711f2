"""Accuracy under common corruptions: what no attack chose."""

import dataclasses
import statistics

import numpy as np

from mart_tf import bounds
from mart_tf.data import corrupted
from mart_tf.reports import results

_ABSENT = "–"
_MEAN = "mean"


@dataclasses.dataclass(frozen=True)
class Corruptions:
    """What became of the images of each corruption and severity.

    Args:
        dataset: The name of the set, or None.
        outcomes: By name, "fog_3", bool `[n]`: which are classified correctly.
    """

    dataset: str | None
    outcomes: dict[str, np.ndarray]

    @property
    def title(self):
        """What the table is of."""
        whose = self.dataset or "corrupted images"
        return f"Accuracy in % under common corruptions, {whose}"

    @property
    def accuracy(self):
        """The mean over all corruptions and severities."""
        return statistics.fmean(self._accuracies().values())

    @property
    def by_corruption(self):
        """The mean over the severities of each corruption, by its name."""
        return self._means(0)

    @property
    def by_severity(self):
        """The mean over the corruptions of each severity, rising."""
        means = self._means(1)
        means.pop(None, None)
        return dict(sorted(means.items()))

    def table(self):
        """Headings and rows of texts: corruptions down, severities across."""
        accuracies, severities = self._accuracies(), list(self.by_severity)
        rows = []
        for name, mean in self.by_corruption.items():
            cells = [
                _percent(accuracies.get((name, severity)))
                for severity in severities
            ]
            rows.append((name, *cells, _percent(mean)))
        last = [_percent(mean) for mean in self.by_severity.values()]
        rows.append((_MEAN, *last, _percent(self.accuracy)))
        heading = _MEAN if severities else "accuracy"
        return ("corruption", *map(str, severities), heading), rows

    def as_json(self):
        """The content of report.json."""
        sets = [
            {
                "corruption": corrupted.divided(name)[0],
                "severity": corrupted.divided(name)[1],
                **results.proportion(outcome),
            }
            for name, outcome in self.outcomes.items()
        ]
        return {
            "dataset": self.dataset,
            "accuracy": self.accuracy,
            "by_corruption": self.by_corruption,
            "by_severity": [
                {"severity": severity, "accuracy": accuracy}
                for severity, accuracy in self.by_severity.items()
            ],
            "sets": sets,
        }

    def _accuracies(self):
        """Accuracies by corruption and severity."""
        return {
            corrupted.divided(name): float(outcome.mean())
            for name, outcome in self.outcomes.items()
        }

    def _means(self, place):
        groups = {}
        for key, accuracy in self._accuracies().items():
            groups.setdefault(key[place], []).append(accuracy)
        return {key: statistics.fmean(each) for key, each in groups.items()}


def _percent(accuracy):
    return _ABSENT if accuracy is None else bounds.percent(accuracy, 2)
