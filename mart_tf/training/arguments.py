"""What `AdversarialClassifier` and its `compile` are given, checked."""

import math
import numbers
import warnings

import keras
import tensorflow as tf

from mart_tf import attacks
from mart_tf import choices
from mart_tf import private
from mart_tf import threat as threat_model
from mart_tf.defenses import base
from mart_tf.models import outputs as model_outputs
from mart_tf.training import attack_statistics
from mart_tf.training import replicas
from mart_tf.training import update

_STEPS = (numbers.Integral, "a whole number of at least 0")
_TYPES = {
    "classifier": (keras.Model, "a keras.Model"),
    "defense": (
        base.Defense,
        "a name, a spec, or an instance such as "
        "mart_tf.defenses.MART(regularization=5.0)",
    ),
    "threat": (
        threat_model.ThreatModel,
        "a threat model such as mart_tf.ThreatModel(epsilon=8 / 255)",
    ),
    "attack_steps": (numbers.Integral, "a whole number of at least 1"),
    "attack_step_size": (
        numbers.Real | None,
        "a number above 0, or None for epsilon / 4",
    ),
    "update": (
        update.Update,
        "a name, a spec, or an instance of mart_tf.training.update.Update",
    ),
    "weight_decay": (numbers.Real, "a number of at least 0"),
    "label_smoothing": (
        numbers.Real,
        "a number of at least 0 and less than 1",
    ),
    "ema": (numbers.Real, "a number of at least 0 and less than 1"),
    "ema_warmup_steps": _STEPS,
    "epsilon_warmup_steps": _STEPS,
    "max_skipped_steps": _STEPS,
    "rows": (
        numbers.Integral | None,
        "a whole number, one more than the greatest row, or None",
    ),
}
_AT_LEAST_0 = (
    "epsilon_warmup_steps",
    "weight_decay",
    "ema_warmup_steps",
    "max_skipped_steps",
    "rows",
)
_ACCURACIES = ("robust_accuracy", "natural_accuracy")
_NO_FLOAT16 = (
    "which is not supported; use the policy mixed_bfloat16 or float32."
)


def _check_selects_by(defense):
    """Refuses to choose the best epoch by what no validation logs."""
    if defense.selects_by not in _ACCURACIES:
        raise ValueError(
            f"{type(defense).__name__}.selects_by is {defense.selects_by!r}; "
            f"expected {' or '.join(_ACCURACIES)}."
        )


def check(given):
    """Refuses arguments of another type, or outside their range.

    Args:
        given: Every argument of `AdversarialClassifier` by name, its defense
            and update made.

    Raises:
        ValueError: With one sentence.
    """
    for name, (kind, expected) in _TYPES.items():
        value = given[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; expected {expected}.")
    random_start = given["random_start"]
    attacks.check_settings(
        given["attack_steps"], given["attack_step_size"], random_start
    )
    given["defense"].check(given["threat"], random_start)
    _check_selects_by(given["defense"])
    choices.SEED.check("seed", given["seed"])
    for name in _AT_LEAST_0:
        if not 0 <= (given[name] or 0) < math.inf:
            raise ValueError(
                f"{name} is {given[name]!r}; expected a number of at least 0."
            )
    for name in ("ema", "label_smoothing"):
        if not 0.0 <= given[name] < 1.0:
            raise ValueError(
                f"{name} is {given[name]!r}; expected {_TYPES[name][1]}."
            )
    if given["label_smoothing"] and not given["defense"].smooths_labels:
        raise ValueError(
            f"label_smoothing is {given['label_smoothing']!r}, and the loss "
            f"of {type(given['defense']).__name__} does not say that it heeds "
            "it; expected 0, or a loss that gives batch.label_smoothing to "
            "mart_tf.losses, and smooths_labels = True in the class."
        )
    attack_statistics.check(
        given["attack_batch_norm"], given["classifier"], given["defense"]
    )
    model_outputs.check_declared(given["classifier"], given["outputs"])
    for layer in private.layers(given["classifier"]):
        if layer.compute_dtype == "float16":
            raise ValueError(
                f"The layer {layer.name} computes in float16, {_NO_FLOAT16}"
            )
    classifier = given["classifier"]
    check_scope(f"classifier {classifier.name!r}", classifier.weights)
    replicas.check_strategy(classifier.distribute_strategy)


def check_scope(what, variables):
    """Refuses what was made outside the present scope of a strategy.

    Args:
        what: Whose variables they are, in words.
        variables: Keras variables.
    """
    if not tf.distribute.has_strategy():
        return
    strategy = tf.distribute.get_strategy()
    created = strategy.extended.variable_created_in_scope
    if not all(created(variable.value) for variable in variables):
        raise ValueError(
            f"The {what} was made outside the scope() of the "
            f"{type(strategy).__name__} that trains; make it inside."
        )


def check_scopes(model, metrics):
    """Refuses a compiled model whose parts are not of one strategy's scope.

    Args:
        model: An `AdversarialClassifier`.
        metrics: All that `compile` was given, nested as there.
    """
    given = [m for m in keras.tree.flatten(metrics) if hasattr(m, "variables")]
    with model.distribute_strategy.scope():
        check_scope(
            f"classifier {model.classifier.name!r}", model.classifier.weights
        )
        # Keras makes slots by the strategy under which an optimizer was made.
        check_scope(
            f"optimizer {model.optimizer.name!r}", model.optimizer.variables
        )
        for metric in given:
            check_scope(f"metric {metric.name!r}", metric.variables)


def check_compile(loss, jit_compile):
    """Refuses a loss, and what XLA cannot be asked for."""
    if jit_compile not in (True, False, "attack"):
        raise ValueError(
            f"compile got jit_compile={jit_compile!r}; expected False, "
            'True for the whole step, or "attack" for the attack alone.'
        )
    if loss is not None:
        raise ValueError(
            f"compile got loss={loss!r}; the defense is the loss, so give "
            "none: choose it by AdversarialClassifier(defense=...)."
        )


def check_optimizer(optimizer, weight_decay):
    """Refuses what no step of ours heeds; warns of two decays."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            f"The optimizer scales its loss for float16, {_NO_FLOAT16}"
        )
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        raise ValueError(
            "The optimizer is a MultiOptimizer, whose inner ones would clip "
            "and decay unseen; expected one optimizer of all weights."
        )
    if optimizer.loss_scale_factor is not None:
        raise ValueError(
            f"The optimizer {optimizer.name} has loss_scale_factor="
            f"{optimizer.loss_scale_factor:g}, by which it divides gradients "
            "of a loss that nothing multiplied; leave it out."
        )
    if optimizer.use_ema:
        raise ValueError(
            f"The optimizer {optimizer.name} has use_ema=True, an average "
            "that Keras puts in the place of the weights when fit ends; give "
            f"AdversarialClassifier(ema={optimizer.ema_momentum:g}), in a run "
            f"--ema={optimizer.ema_momentum:g}, instead."
        )
    if weight_decay and optimizer.weight_decay:
        warnings.warn(
            f"The optimizer {optimizer.name} has a weight decay of its own, "
            f"{optimizer.weight_decay:g}, beside the model's weight_decay="
            f"{weight_decay:g}, and both act; give one of them.",
            stacklevel=4,
        )
