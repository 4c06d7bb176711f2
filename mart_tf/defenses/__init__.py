"""Methods of adversarial training, one class each.

`DEFENSES` is the table of names; a class is imported when it is first used.
"""

import functools
import typing

from mart_tf import lazy
from mart_tf import options

if typing.TYPE_CHECKING:
    from mart_tf.defenses.base import Adversarial as Adversarial
    from mart_tf.defenses.base import Batch as Batch
    from mart_tf.defenses.base import Defense as Defense
    from mart_tf.defenses.base import InnerAttack as InnerAttack
    from mart_tf.defenses.base import Losses as Losses
    from mart_tf.defenses.dynamic import Dynamic as Dynamic
    from mart_tf.defenses.fast import FGSMRS as FGSMRS
    from mart_tf.defenses.fast import NFGSM as NFGSM
    from mart_tf.defenses.mart import MART as MART
    from mart_tf.defenses.mma import MMA as MMA
    from mart_tf.defenses.natural import Natural as Natural
    from mart_tf.defenses.pairing import ALP as ALP
    from mart_tf.defenses.pairing import CLP as CLP
    from mart_tf.defenses.pairing import TRADES as TRADES
    from mart_tf.defenses.pairing import UAT as UAT
    from mart_tf.defenses.standard import Standard as Standard
    from mart_tf.defenses.subset import Subset as Subset

DEFENSES = {
    "natural": "mart_tf.defenses.natural:Natural",
    "standard": "mart_tf.defenses.standard:Standard",
    "alp": "mart_tf.defenses.pairing:ALP",
    "clp": "mart_tf.defenses.pairing:CLP",
    "trades": "mart_tf.defenses.pairing:TRADES",
    "mma": "mart_tf.defenses.mma:MMA",
    "dynamic": "mart_tf.defenses.dynamic:Dynamic",
    "mart": "mart_tf.defenses.mart:MART",
    "uat": "mart_tf.defenses.pairing:UAT",
    "fgsm_rs": "mart_tf.defenses.fast:FGSMRS",
    "nfgsm": "mart_tf.defenses.fast:NFGSM",
    "subset": "mart_tf.defenses.subset:Subset",
}

names = options.Names(DEFENSES, "defense")

# What a defense of a user's own is written with.
_OF_A_DEFENSE = ("Defense", "Batch", "InnerAttack", "Adversarial", "Losses")

# What stands for an option whose default is None, of the threat model's epsilon
# and the options before it.
DERIVED = {
    "mma": {
        "max_margin": lambda epsilon, before: 1.5 * epsilon,
        # The authors' 0.005 on CIFAR-10 is a ninth, their 0.1 on MNIST a fifth.
        "min_epsilon": lambda epsilon, before: 0.1 * before["max_margin"],
    },
    "subset": {
        "regularization": lambda epsilon, before: (
            4.0 if before["treatment"] == "kl" else None
        ),
    },
}


def get(defense):
    """The defense named by a spec such as "mart:regularization=6".

    Args:
        defense: A name, a spec, `package.module:Name` with options, or a
            `Defense`, which is returned as it is.

    Raises:
        ValueError: On an unknown name or option.
    """
    if not isinstance(defense, str):
        return defense
    spec = names.resolve(defense)
    made = options.load(spec.import_path)(**spec.options)
    if not isinstance(made, options.load("mart_tf.defenses.base:Defense")):
        raise ValueError(
            f"Defense {defense!r} is a {type(made).__name__}; expected a "
            "subclass of mart_tf.defenses.Defense."
        )
    return made


def complete(spec, epsilon):
    """A spec with every option written, as a run records it.

    Args:
        spec: A name or a spec such as "mart:regularization=6".
        epsilon: Radius of the threat model, in units of the pixels.

    Raises:
        ValueError: On an unknown name or option.
    """
    derived = {
        option: functools.partial(value, epsilon)
        for option, value in DERIVED.get(options.parse(spec).name, {}).items()
    }
    return names.complete(spec, derived)


__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        import_path.split(":")[1]: import_path
        for import_path in [
            *DEFENSES.values(),
            *(f"mart_tf.defenses.base:{name}" for name in _OF_A_DEFENSE),
        ]
    },
)
