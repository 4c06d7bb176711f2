"""Attacks: what finds adversarial examples, by name and by class.

    PGD(steps=20)(classify, images, labels, threat) -> adversarial images

`classify` maps images `[batch, ...]` to logits `[batch, classes]`; images are
float32 inside the threat model's pixel range; labels are integers `[batch]`.
`fgsm` and `pgd` are plain functions, for training. `ATTACKS` is the table of
names; nothing of TensorFlow is imported until an attack is used.
"""

import dataclasses
import math
import typing

from mart_tf import bounds
from mart_tf import lazy
from mart_tf import options

if typing.TYPE_CHECKING:
    from mart_tf.attacks.adaptive_boundary import FAB as FAB
    from mart_tf.attacks.auto_pgd import APGD as APGD
    from mart_tf.attacks.auto_pgd import TargetedAPGD as TargetedAPGD
    from mart_tf.attacks.autoattack import AutoAttack as AutoAttack
    from mart_tf.attacks.base import Attack as Attack
    from mart_tf.attacks.boundary import nearest_crossing as nearest_crossing
    from mart_tf.attacks.carlini_wagner import (
        CarliniWagnerL2 as CarliniWagnerL2,
    )
    from mart_tf.attacks.gradient import ascent_step as ascent_step
    from mart_tf.attacks.gradient import check_settings as check_settings
    from mart_tf.attacks.gradient import fgsm as fgsm
    from mart_tf.attacks.gradient import input_gradient as input_gradient
    from mart_tf.attacks.gradient import pgd as pgd
    from mart_tf.attacks.objectives import dlr as dlr
    from mart_tf.attacks.objectives import margin as margin
    from mart_tf.attacks.objectives import objective as objective
    from mart_tf.attacks.objectives import targeted_dlr as targeted_dlr
    from mart_tf.attacks.projected import CW as CW
    from mart_tf.attacks.projected import FGSM as FGSM
    from mart_tf.attacks.projected import PGD as PGD
    from mart_tf.attacks.projected import MomentumPGD as MomentumPGD
    from mart_tf.attacks.random_search import Square as Square
    from mart_tf.attacks.simultaneous_perturbation import SPSA as SPSA
    from mart_tf.attacks.stationary import (
        pgd_until_stationary as pgd_until_stationary,
    )

ATTACKS = {
    "fgsm": "mart_tf.attacks.projected:FGSM",
    "pgd": "mart_tf.attacks.projected:PGD",
    "cw": "mart_tf.attacks.projected:CW",
    "momentum": "mart_tf.attacks.projected:MomentumPGD",
    "apgd": "mart_tf.attacks.auto_pgd:APGD",
    "apgd_t": "mart_tf.attacks.auto_pgd:TargetedAPGD",
    "fab_t": "mart_tf.attacks.adaptive_boundary:FAB",
    "square": "mart_tf.attacks.random_search:Square",
    "cw_l2": "mart_tf.attacks.carlini_wagner:CarliniWagnerL2",
    "spsa": "mart_tf.attacks.simultaneous_perturbation:SPSA",
    "autoattack": "mart_tf.attacks.autoattack:AutoAttack",
    "cleverhans:fgm": "mart_tf.attacks.cleverhans.adapters:FastGradient",
    "cleverhans:pgd": "mart_tf.attacks.cleverhans.adapters:ProjectedGradient",
    "cleverhans:bim": "mart_tf.attacks.cleverhans.adapters:BasicIterative",
    "cleverhans:mim": "mart_tf.attacks.cleverhans.adapters:MomentumIterative",
    "cleverhans:cw_l2": (
        "mart_tf.attacks.cleverhans.carlini_wagner:CarliniWagnerL2"
    ),
    "cleverhans:spsa": "mart_tf.attacks.cleverhans.spsa:SPSA",
}

_LIBRARY = "cleverhans"
_OWN = "package.module:Name"


def resolve(text):
    """Checks the spec of an attack, such as "pgd:steps=100".

    Args:
        text: A name of `ATTACKS`, or `package.module:Name` of a class of the
            user's, with options of the class behind it.

    Returns:
        An `options.Spec`: `text` as given, `name` a key of `ATTACKS` or the
        user's, option values of the types that the class asks for.

    Raises:
        ValueError: On an unknown name or option, a count below 1, or a number
            that is negative or not finite.
    """
    name = options.parse(text).name
    if name == _LIBRARY:
        table = {
            key.partition(":")[2]: import_path
            for key, import_path in ATTACKS.items()
            if key.startswith(f"{_LIBRARY}:")
        }
        # "cleverhans" alone leaves nothing, which is in no table either.
        rest = text.partition(":")[2] or _LIBRARY
        spec = options.Names(table, "cleverhans attack").resolve(rest)
        spec = dataclasses.replace(
            spec, text=text, name=f"{_LIBRARY}:{spec.name}"
        )
    elif name not in ATTACKS and options.parse(text).argument is None:
        raise options.unknown("attack", name, [*ATTACKS, "natural", _OWN])
    else:
        spec = options.Names(ATTACKS, "attack").resolve(text)
    for key, value in spec.options.items():
        _check_number(text, key, value)
    return spec


def create(spec):
    """The attack of a resolved spec, on no classifier yet.

    Args:
        spec: What `resolve` returned.

    Raises:
        ValueError: If an option is outside its range.
    """
    attack = options.load(spec.import_path)(**spec.options)
    if not isinstance(attack, options.load("mart_tf.attacks.base:Attack")):
        raise ValueError(
            f"{spec.import_path} is a {type(attack).__name__}; expected a "
            "subclass of mart_tf.attacks.Attack."
        )
    return attack


def _check_number(text, key, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if isinstance(value, int):
        # Where a number of ours has bounds of its own, it has been held to
        # them; of a user's this is known.
        bounds.Whole(1, bounds.OF_TYPE["int"].greatest).check(
            f"Attack {text!r}: {key}", value
        )
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"Attack {text!r}: {key} is {value}; expected a finite number, "
            "not negative."
        )


__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "Attack": "mart_tf.attacks.base:Attack",
        **{
            import_path.partition(":")[2]: import_path
            for name, import_path in ATTACKS.items()
            if not name.startswith(f"{_LIBRARY}:")
        },
        "ascent_step": "mart_tf.attacks.gradient:ascent_step",
        "check_settings": "mart_tf.attacks.gradient:check_settings",
        "dlr": "mart_tf.attacks.objectives:dlr",
        "fgsm": "mart_tf.attacks.gradient:fgsm",
        "input_gradient": "mart_tf.attacks.gradient:input_gradient",
        "margin": "mart_tf.attacks.objectives:margin",
        "nearest_crossing": "mart_tf.attacks.boundary:nearest_crossing",
        "objective": "mart_tf.attacks.objectives:objective",
        "pgd": "mart_tf.attacks.gradient:pgd",
        "pgd_until_stationary": (
            "mart_tf.attacks.stationary:pgd_until_stationary"
        ),
        "targeted_dlr": "mart_tf.attacks.objectives:targeted_dlr",
    },
)
