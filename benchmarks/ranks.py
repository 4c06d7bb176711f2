"""Which accuracies stand above others, and which are level."""

import math


def ranked(accuracies, images):
    """Sets of defenses, the highest accuracies first; a set is level.

    That is where one is less than two standard errors of a difference below
    the one before it.

    Args:
        accuracies: In percent, by defense.
        images: On how many images they were measured.
    """
    ranked, last = [], None
    for name in sorted(accuracies, key=accuracies.get, reverse=True):
        value = accuracies[name]
        error = math.sqrt(2 * value * (100 - value) / images)
        if last is not None and last - value < 2 * error:
            ranked[-1].add(name)
        else:
            ranked.append({name})
        last = value
    return ranked


def spelled(ranked, accuracies):
    """Text: MART (96.48) above Standard (94.62) level with TRADES (94.58)."""
    return " above ".join(
        " level with ".join(
            f"{name} ({accuracies[name]:.2f})"
            for name in sorted(level, key=accuracies.get, reverse=True)
        )
        for level in ranked
    )
