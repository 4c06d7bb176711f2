"""AutoAttack (Croce and Hein, ICML 2020): attacks without settings to tune."""

from typing import Literal

from mart_tf.attacks import adaptive_boundary
from mart_tf.attacks import auto_pgd
from mart_tf.attacks import random_search

# What needs how many classes, and what runs in its place: the targeted DLR
# loss divides by a difference that takes four logits, the DLR loss three.
_FALL_BACKS = {"apgd_t": (4, "apgd_dlr"), "apgd_dlr": (3, "apgd_cw")}

_VERSIONS = {
    "standard": ("apgd_ce", "apgd_t", "fab_t", "square"),
    "plus": ("apgd_ce", "apgd_dlr", "square", "apgd_t", "fab_t"),
}
_RESTARTS = {"plus": 5}


class AutoAttack:
    """The ensemble: each attack on what the earlier ones left standing.

    "standard" is section 5 of their paper, as their code runs it since it has
    a targeted APGD: APGD on the cross-entropy, targeted APGD on the DLR loss,
    targeted FAB and Square, each started once. Their "plus" is APGD on the
    cross-entropy and on the untargeted DLR loss, five starts each, untargeted
    FAB, Square, targeted APGD and targeted FAB, in this order; the untargeted
    FAB is not here and is left out.

    With fewer than four classes targeted APGD has no DLR loss: APGD climbs the
    untargeted one (three classes) or the margin (two) instead, which the
    report says. In l2 Square, which has no l2 form here, is left out, which
    it says too.

    Args:
        version: "standard", "plus", or "custom" for the attacks of `attacks`.
        attacks: Of "custom": names of `PARTS`, joined by +, in their order.

    Raises:
        ValueError: If `attacks` is given without "custom" or the reverse, or
            names something else.
    """

    norm = None

    def __init__(
        self,
        classify,
        threat,
        classes,
        version: Literal["standard", "plus", "custom"] = "standard",
        attacks: tuple[str, ...] = (),
    ):
        if (version == "custom") != bool(attacks):
            raise ValueError(
                f"version is {version!r} and attacks {'+'.join(attacks)!r}; "
                "expected version=custom:attacks=apgd_ce+square, or no attacks."
            )
        notes = []
        names = list(attacks or _VERSIONS[version])
        if unknown := [name for name in names if name not in PARTS]:
            raise ValueError(
                f"attacks names {unknown[0]!r}; expected of {'+'.join(PARTS)}."
            )
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
                f"attacks is {'+'.join(attacks)}, and square is for linf; "
                f"expected other attacks in {threat.norm}."
            )
        self.notes = tuple(notes)
        restarts = _RESTARTS.get(version, 1)
        self.parts = [
            (name, PARTS[name](classify, threat, classes, restarts))
            for name in names
        ]
        self.needs_gradient = any(part.needs_gradient for _, part in self.parts)
        self.parameters = {"version": version, "attacks": names}


def _of_classes(name, classes):
    """What runs for `name` in the end where there are so many classes."""
    while name in _FALL_BACKS and classes < _FALL_BACKS[name][0]:
        _, name = _FALL_BACKS[name]
    return name


def _apgd(objective):
    def make(classify, threat, classes, restarts):
        return auto_pgd.APGD(
            classify, threat, classes, objective=objective, restarts=restarts
        )

    return make


def _once(kind):
    def make(classify, threat, classes, restarts):
        del restarts  # One round for each target class, or one in all.
        return kind(classify, threat, classes)

    return make


PARTS = {
    "apgd_ce": _apgd("cross_entropy"),
    "apgd_dlr": _apgd("dlr"),
    "apgd_cw": _apgd("margin"),
    "apgd_t": _once(auto_pgd.TargetedAPGD),
    "fab_t": _once(adaptive_boundary.FAB),
    "square": _once(random_search.Square),
}
