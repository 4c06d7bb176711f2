"""mart_tf: adversarial training for Keras, from the MART paper to a server.

Everything public is imported on first use, so that `import mart_tf`, and a
program that only checks its flags, cost nothing.
"""

import typing

from mart_tf import lazy

if typing.TYPE_CHECKING:
    from mart_tf import attacks as attacks
    from mart_tf import data as data
    from mart_tf import defenses as defenses
    from mart_tf import evaluation as evaluation
    from mart_tf import labeling as labeling
    from mart_tf import losses as losses
    from mart_tf import models as models
    from mart_tf.evaluation.robustness import (
        evaluate_robustness as evaluate_robustness,
    )
    from mart_tf.runs.loaded import load_run as load_run
    from mart_tf.runs.starting import train_run as train_run
    from mart_tf.serving.saved_model import (
        export_saved_model as export_saved_model,
    )
    from mart_tf.threat import ThreatModel as ThreatModel
    from mart_tf.training.classifier import (
        AdversarialClassifier as AdversarialClassifier,
    )

__version__ = "0.1.0"

_MODULES = (
    "attacks",
    "data",
    "defenses",
    "evaluation",
    "labeling",
    "losses",
    "models",
)
_PUBLIC = {
    "ThreatModel": "mart_tf.threat:ThreatModel",
    "AdversarialClassifier": (
        "mart_tf.training.classifier:AdversarialClassifier"
    ),
    "evaluate_robustness": "mart_tf.evaluation.robustness:evaluate_robustness",
    "load_run": "mart_tf.runs.loaded:load_run",
    "train_run": "mart_tf.runs.starting:train_run",
    "export_saved_model": "mart_tf.serving.saved_model:export_saved_model",
    **{name: f"mart_tf.{name}" for name in _MODULES},
}

__all__ = ["__version__", *_PUBLIC]

__getattr__, __dir__ = lazy.attributes(__name__, _PUBLIC)
