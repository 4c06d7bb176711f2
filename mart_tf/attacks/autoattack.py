"""AutoAttack (Croce and Hein, ICML 2020): attacks without settings to tune."""

from typing import Literal

from mart_tf import options
from mart_tf.attacks import adaptive_boundary
from mart_tf.attacks import auto_pgd
from mart_tf.attacks import base
from mart_tf.attacks import random_search

# What needs how many classes, and what runs in its place: the targeted DLR
# loss divides by a difference that takes four logits, the DLR loss three.
_FALL_BACKS = {"apgd_t": (4, "apgd_dlr"), "apgd_dlr": (3, "apgd_cw")}

_VERSIONS = {
    "standard": ("apgd_ce", "apgd_t", "fab_t", "square"),
    "plus": ("apgd_ce", "apgd_dlr", "square", "apgd_t", "fab_t"),
    "rand": ("apgd_ce", "apgd_dlr"),
}
_SETTINGS = {"plus": {"restarts": 5}, "rand": {"passes": 20}}
# What a version is not, for the report.
_UNLIKE = {
    "plus": (
        "AutoAttack's version plus ran without the authors' untargeted FAB."
    ),
    "rand": (
        "AutoAttack's version rand judged each iterate by the mean of its "
        "passes; the authors' judges it by one of them."
    ),
}


class AutoAttack(base.Attack):
    """The ensemble: each attack on what the earlier ones left standing.

    "standard" is section 5 of their paper, as their code runs it since it has
    a targeted APGD: APGD on the cross-entropy, targeted APGD on the DLR loss,
    targeted FAB and Square, each started once. Their "plus" is APGD on the
    cross-entropy and on the untargeted DLR loss, five starts each, untargeted
    FAB, Square, targeted APGD and targeted FAB, in this order; the untargeted
    FAB is not here and is left out. "rand", for classifiers that draw random
    numbers, is APGD on the cross-entropy and on the untargeted DLR loss, each
    gradient the mean of 20 passes; an iterate is judged by its mean
    probabilities (the authors judge it by one of the passes, which breaks
    what happens to fall once).

    With fewer than four classes targeted APGD has no DLR loss: APGD climbs the
    untargeted one (three classes) or the margin (two) instead, which the
    report says. In l2 Square, which has no l2 form here, is left out, which
    it says too.

    Args:
        version: "standard", "plus", "rand", or "custom" for the attacks of
            `attacks`.
        attacks: Of "custom": names of `PARTS`, joined by +, in their order.

    Raises:
        ValueError: If `attacks` is given without "custom" or the reverse, or
            names something else.
    """

    def __init__(
        self,
        version: Literal["standard", "plus", "rand", "custom"] = "standard",
        attacks: tuple[str, ...] = (),
    ):
        if version not in (*_VERSIONS, "custom"):
            raise options.unknown(
                "version", str(version), [*_VERSIONS, "custom"]
            )
        if (version == "custom") != bool(attacks):
            raise ValueError(
                f"version is {version!r} and attacks {'+'.join(attacks)!r}; "
                "expected version=custom:attacks=apgd_ce+square, or no attacks."
            )
        if unknown := [name for name in attacks if name not in PARTS]:
            raise ValueError(
                f"attacks names {unknown[0]!r}; expected of {'+'.join(PARTS)}."
            )
        self.version = version
        self.attacks = tuple(attacks)
        # Alone, Square is no AutoAttack, nor is one APGD.
        self.reference = version != "custom" or _is_like_it(attacks)

    def prepare(self):
        threat, classes = self.threat, self.classes
        notes = [_UNLIKE[self.version]] if self.version in _UNLIKE else []
        names = list(self.attacks or _VERSIONS[self.version])
        for name in _FALL_BACKS:
            other = _of_classes(name, classes)
            if name in names and other != name:
                names = [other if each == name else each for each in names]
                notes.append(
                    f"AutoAttack's {name} needs {_FALL_BACKS[name][0]} "
                    f"classes, and there are {classes}: {other} ran in its "
                    "place."
                )
        names = list(dict.fromkeys(names))
        if threat.norm != "linf" and "square" in names:
            names.remove("square")
            notes.append(
                f"AutoAttack's Square is for linf and was left out in "
                f"{threat.norm}."
            )
        if not names:
            raise ValueError(
                f"attacks is {'+'.join(self.attacks)}, and square is for linf; "
                f"expected other attacks in {threat.norm}."
            )
        self.notes = tuple(notes)
        self.attacks = tuple(names)
        settings = _SETTINGS.get(self.version, {})
        self.parts = [
            (name, PARTS[name](**settings).on(self.classify, threat, classes))
            for name in names
        ]
        self.needs_gradient = any(part.needs_gradient for _, part in self.parts)


def _is_like_it(names):
    """Whether APGD climbs two losses, as in the least of the versions."""
    return "apgd_ce" in names and bool({"apgd_t", "apgd_dlr"} & set(names))


def _of_classes(name, classes):
    """What runs for `name` in the end where there are so many classes."""
    while name in _FALL_BACKS and classes < _FALL_BACKS[name][0]:
        _, name = _FALL_BACKS[name]
    return name


def _apgd(objective):
    return lambda **settings: auto_pgd.APGD(objective=objective, **settings)


# The settings are APGD's own: those with a round for each target, and Square,
# start once in every version.
PARTS = {
    "apgd_ce": _apgd("cross_entropy"),
    "apgd_dlr": _apgd("dlr"),
    "apgd_cw": _apgd("margin"),
    "apgd_t": lambda **_: auto_pgd.TargetedAPGD(),
    "fab_t": lambda **_: adaptive_boundary.FAB(),
    "square": lambda **_: random_search.Square(),
}
