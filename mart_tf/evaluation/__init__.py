"""Robust accuracy: attacks by name, one engine, reports and plots.

`ATTACKS` is the table of names. An attack is one class, imported when it is
first used; its parameters `classify`, `threat` and `classes` are filled in
here, all others are options that a spec may set, such as "pgd:steps=100".
"""

import dataclasses
import math

from mart_tf import options

ATTACKS = {
    "fgsm": "mart_tf.attacks.projected:FGSM",
    "pgd": "mart_tf.attacks.projected:PGD",
    "cw": "mart_tf.attacks.projected:CW",
    "momentum": "mart_tf.attacks.projected:MomentumPGD",
    "apgd": "mart_tf.attacks.auto_pgd:APGD",
    "apgd_t": "mart_tf.attacks.auto_pgd:TargetedAPGD",
    "fab_t": "mart_tf.attacks.adaptive_boundary:FAB",
    "square": "mart_tf.attacks.random_search:Square",
    "spsa": "mart_tf.attacks.simultaneous_perturbation:SPSA",
    "autoattack": "mart_tf.attacks.autoattack:AutoAttack",
    "cleverhans:fgm": "mart_tf.attacks.cleverhans.adapters:FastGradient",
    "cleverhans:pgd": "mart_tf.attacks.cleverhans.adapters:ProjectedGradient",
    "cleverhans:bim": "mart_tf.attacks.cleverhans.adapters:BasicIterative",
    "cleverhans:mim": "mart_tf.attacks.cleverhans.adapters:MomentumIterative",
    "cleverhans:madry": "mart_tf.attacks.cleverhans.adapters:Madry",
    "cleverhans:cw_l2": (
        "mart_tf.attacks.cleverhans.carlini_wagner:CarliniWagnerL2"
    ),
    "cleverhans:spsa": "mart_tf.attacks.cleverhans.spsa:SPSA",
}

DEFAULT = (
    "fgsm",
    "pgd:steps=20",
    "pgd:steps=100",
    "cw",
    "cleverhans:fgm",
    "cleverhans:pgd",
    "cleverhans:bim",
    "cleverhans:mim",
)

# What a surrogate is asked for unless the list says: Table 3 of the MART paper.
# PGD-10 is that of its training, with steps of epsilon / 4.
TRANSFER = (
    "transfer:fgsm",
    "transfer:pgd:steps=10:steps_per_epsilon=4",
    "transfer:pgd:steps=20",
    "transfer:cw",
)

# Always measured: a list of attacks may name it or not.
NATURAL = "natural"

_LIBRARY = "cleverhans"
_SURROGATE = "transfer"
_FILLED_IN = ("classify", "threat", "classes")


def resolve(attacks=DEFAULT, surrogate=None):
    """Checks a list of attacks without importing TensorFlow.

    Args:
        attacks: Specs, as a sequence or as one comma-separated string. The
            name "natural" may stand among them and is dropped.
        surrogate: Whether there is one: if so, the attacks of `TRANSFER` join
            a list that makes none on it; if not, such attacks are refused.
            None leaves the list as it is.

    Returns:
        A list of `options.Spec`: `text` as given, `name` a key of `ATTACKS`,
        option values of the types that the attack's signature asks for.

    Raises:
        ValueError: On an unknown name or option, an attack listed twice, a
            count below 1, a number that is negative or not finite, or an
            attack on a surrogate that is not there.
    """
    if isinstance(attacks, str):
        attacks = options.split_list(attacks)
    texts = [str(text).strip() for text in attacks]
    repeated = [text for text in texts if texts.count(text) > 1]
    if repeated:
        raise ValueError(
            f"The attack {repeated[0]!r} is listed twice; list it once."
        )
    specs = [_resolve(text) for text in texts if text != NATURAL]
    transfers = [spec.text for spec in specs if is_transfer(spec)]
    if transfers and surrogate is False:
        raise ValueError(
            f"The attack {transfers[0]!r} is made on a surrogate, and there "
            "is none; expected --surrogate=PATH (in Python: surrogate=MODEL)."
        )
    if surrogate and not transfers:
        specs += map(_resolve, TRANSFER)
    return specs


def is_transfer(spec):
    """Whether a resolved spec is of an attack made on a surrogate."""
    return spec.text.startswith(f"{_SURROGATE}:")


def is_library(spec):
    """Whether a resolved spec is of an attack of CleverHans."""
    return spec.name.startswith(f"{_LIBRARY}:")


def create(spec, classify, threat, classes):
    """The attack of a resolved spec.

    Args:
        spec: One of what `resolve` returned.
        classify: Images to logits; the same object for every attack of
            CleverHans, which then traces it once.
        threat: The `ThreatModel`.
        classes: Number of classes.

    Raises:
        ValueError: If the options do not fit the threat model or the classes.
    """
    attack = options.load(ATTACKS[spec.name])
    try:
        return attack(classify, threat, classes, **spec.options)
    except ValueError as error:
        raise ValueError(f"Attack {spec.text!r}: {error}") from error


def _resolve(text):
    if text.startswith(f"{_SURROGATE}:"):
        inner = text.removeprefix(f"{_SURROGATE}:")
        return dataclasses.replace(_resolve(inner), text=text)
    name = options.parse(text).name
    if name == _LIBRARY:
        table = {
            key.partition(":")[2]: target
            for key, target in ATTACKS.items()
            if key.startswith(f"{_LIBRARY}:")
        }
        # "cleverhans" alone leaves nothing, which is in no table either.
        rest = text.partition(":")[2] or _LIBRARY
        spec = options.resolve(rest, table, "cleverhans attack", _FILLED_IN)
        spec = dataclasses.replace(
            spec, text=text, name=f"{_LIBRARY}:{spec.name}"
        )
    elif name not in ATTACKS:
        raise options.unknown("attack", name, [*ATTACKS, NATURAL])
    else:
        spec = options.resolve(text, ATTACKS, "attack", _FILLED_IN)
    for key, value in spec.options.items():
        _check_number(text, key, value)
    return spec


def _check_number(text, key, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if isinstance(value, int) and value < 1:
        raise ValueError(
            f"Attack {text!r}: {key} is {value}; expected at least 1."
        )
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"Attack {text!r}: {key} is {value}; expected a finite number, "
            "not negative."
        )
