"""What an exported classifier withstands, beside the one it was made of."""

import dataclasses

import numpy as np

from mart_tf import threat as threat_model
from mart_tf.data import archives
from mart_tf.evaluation import robustness
from mart_tf.evaluation import subjects
from mart_tf.reports import rows
from mart_tf.reports import saved

ATTACK = "pgd:steps=20"
# A file of another runtime has no gradients: examples made on the classifier
# are carried over, and it is searched itself.
CARRIED = f"transfer:{ATTACK}"
SEARCH = "square:queries=1000"

# Accuracies that differ by more are of two models, but for an image whose
# scores tie to the last bits: devices round differently.
_SAME_ACCURACY, _TIES = 0.001, 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """What a classifier and all that is exported of it are tried on.

    Args:
        original: The `Subject` that is exported.
        images: float32 `[n, ...]`, in the pixel range.
        labels: int32 `[n]`.
        threat: The `ThreatModel`.
        batch_size: Images in one pass through the network.
    """

    original: subjects.Subject
    images: np.ndarray
    labels: np.ndarray
    threat: threat_model.ThreatModel
    batch_size: int = 250

    def attack_both(self, version):
        """Attacks the classifier and its SavedModel.

        Args:
            version: The path of the version.

        Returns:
            Facts for the model card, a dict.

        Raises:
            ValueError: If their robust accuracies differ.
        """
        served = subjects.as_subject(version, None, self.images)
        reports = [
            self._report(subject, [ATTACK])
            for subject in (self.original, served)
        ]
        trained, exported = (report.results[-1].accuracy for report in reports)
        allowed = max(_SAME_ACCURACY, _TIES / len(self.images))
        if abs(trained - exported) > allowed:
            raise ValueError(
                f"Under {ATTACK} the SavedModel has {exported:.2%} accuracy "
                f"and the classifier {trained:.2%}, on {len(self.images)} test "
                "images; expected the same, and nothing was written."
            )
        return {
            "attack": ATTACK,
            "norm": self.threat.norm,
            "epsilon": self.threat.epsilon,
            "attacked_examples": len(self.images),
            "natural_accuracy": reports[-1].results[0].accuracy,
            "served_accuracy": exported,
            "trained_accuracy": trained,
            # Of the classifier: those of the version are of its form.
            "warnings": list(reports[0].warnings),
        }

    def accuracies(self, path=None):
        """What a file of another runtime withstands.

        Args:
            path: The file; default: the classifier, the same way.

        Returns:
            Accuracies by attack: "natural", `CARRIED`, and `SEARCH` if the
            norm is linf, the only one that it is for.
        """
        subject = self.original
        if path is not None:
            subject = subjects.as_subject(path, subject.outputs, self.images)
        searched = [SEARCH] if self.threat.norm == "linf" else []
        report = self._report(subject, [CARRIED, *searched])
        return {result.name: result.accuracy for result in report.results}

    def _report(self, subject, attacks):
        return robustness.evaluate_robustness(
            subject,
            (self.images, self.labels),
            self.threat,
            attacks,
            batch_size=self.batch_size,
            surrogate=self.original if CARRIED in attacks else None,
        )


def reported(folder, weights):
    """What a report says, for the model card; None if it is of other weights.

    Args:
        folder: Where the report lies, if there is one.
        weights: The classifier's, a list of arrays.

    Returns:
        A dict: `accuracy` by attack; `least_distance`, by the name of an
        attack that has a norm and a radius of its own these and its `label`;
        what was evaluated; the threat model; when; `warnings`, those of the
        report and the signs of gradient masking that failed.
    """
    try:
        report = saved.load(folder)
        if report["model"]["weights"] != archives.digest(weights):
            return None
        listed = [report["natural"], *report["attacks"], report["worst_case"]]
        return {
            "accuracy": {each["name"]: each["accuracy"] for each in listed},
            # Of the attacks that keep to no radius of the threat model.
            "least_distance": {
                each["name"]: {
                    "label": rows.label(each),
                    "norm": each["norm"],
                    "radius": each["radius"],
                }
                for each in listed
                if each["norm"] is not None
            },
            **{k: v for k, v in report["data"].items() if k != "rows"},
            **report["threat_model"],
            "created": report["created"],
            "warnings": [*report["warnings"], *saved.failed_signs(report)],
        }
    # There is none, it is damaged, or of an earlier version of mart_tf.
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return None
