"""Robust accuracy: lists of attacks, one engine, what is measured.

Attacks by name are those of `mart_tf.attacks.ATTACKS`; here are the lists that
an evaluation runs where the user names none, and what is checked of a list.
"""

from collections.abc import Iterable
import dataclasses
import typing

from mart_tf import attacks as table
from mart_tf import lazy
from mart_tf import options

if typing.TYPE_CHECKING:
    from mart_tf.evaluation.subjects import Subject as Subject
    from mart_tf.reports.report import Report as Report
    from mart_tf.reports.results import Result as Result

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

_SURROGATE = "transfer"


@dataclasses.dataclass(frozen=True)
class Instance(options.Spec):
    """What stands for an attack that was made in Python: `text` names it.

    Args:
        text, name, argument, options, import_path: As in `options.Spec`; the
            last three say nothing here.
        attack: The `mart_tf.attacks.Attack`.
    """

    attack: object = None


def resolve(attacks=DEFAULT, surrogate=None):
    """Checks a list of attacks; of specs without importing TensorFlow.

    Args:
        attacks: Specs and instances of `mart_tf.attacks.Attack`, as a
            sequence; or specs as one comma-separated string. The name
            "natural" may stand among them and is dropped.
        surrogate: Whether there is one: if so, the attacks of `TRANSFER` join
            a list that makes none on it; if not, such attacks are refused.
            None leaves the list as it is.

    Returns:
        A list of `options.Spec`: `text` as given, or the name of an instance;
        see `mart_tf.attacks.resolve`.

    Raises:
        ValueError: On an unknown name or option, an attack listed twice, a
            count below 1, a number that is negative or not finite, what is
            no attack, or an attack on a surrogate that is not there.
    """
    if isinstance(attacks, str):
        attacks = options.split_list(attacks)
    elif not isinstance(attacks, Iterable):
        attacks = [attacks]
    named = [_named(attack) for attack in attacks]
    texts = [spec.text for spec in named]
    repeated = [text for text in texts if texts.count(text) > 1]
    if repeated:
        raise ValueError(
            f"The attack {repeated[0]!r} is listed twice; list it once."
        )
    specs = [_resolve(spec) for spec in named if spec.text != NATURAL]
    transfers = [spec.text for spec in specs if is_transfer(spec)]
    if transfers and surrogate is False:
        raise ValueError(
            f"The attack {transfers[0]!r} is made on a surrogate, and there "
            "is none; expected --surrogate=PATH (in Python: surrogate=MODEL)."
        )
    if surrogate and not transfers:
        specs += [_resolve(_named(text)) for text in TRANSFER]
    return specs


def is_transfer(spec):
    """Whether a spec of `resolve` is of an attack made on a surrogate."""
    return spec.text.startswith(f"{_SURROGATE}:")


def create(spec):
    """The attack of a resolved spec, on no classifier yet."""
    return spec.attack if isinstance(spec, Instance) else table.create(spec)


def _named(attack):
    """A spec as text, or an instance, before it is resolved."""
    if isinstance(attack, str):
        text = attack.strip()
        return options.Spec(text, text)
    if not isinstance(attack, table.Attack):
        raise ValueError(
            f"attacks holds {attack!r}; expected specs, such as "
            "'pgd:steps=20', and instances of mart_tf.attacks.Attack, such as "
            "PGD(steps=20)."
        )
    return Instance(str(attack), type(attack).__name__, attack=attack)


def _resolve(spec):
    if isinstance(spec, Instance):
        return spec
    inner = spec.text.removeprefix(f"{_SURROGATE}:")
    return dataclasses.replace(table.resolve(inner), text=spec.text)


__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "Report": "mart_tf.reports.report:Report",
        "Result": "mart_tf.reports.results:Result",
        "Subject": "mart_tf.evaluation.subjects:Subject",
    },
)
