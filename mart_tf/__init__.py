"""mart_tf: adversarial training for Keras, from the MART paper to a server.

Everything public is imported on first use, so that `import mart_tf`, and a
program that only checks its flags, cost nothing.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "ThreatModel": "mart_tf.threat",
    "AdversarialClassifier": "mart_tf.training.classifier",
    "evaluate_robustness": "mart_tf.evaluation.robustness",
    "export_saved_model": "mart_tf.serving.saved_model",
}
_MODULES = ("attacks", "data", "defenses", "losses", "models")

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name):
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"mart_tf.{name}")
    raise AttributeError(f"module 'mart_tf' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
