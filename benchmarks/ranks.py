"""Which accuracies stand above others, and which are level."""

import math


def ranked(accuracies, images):
    """Sets of defenses, the highest accuracies first; a set is level.

    That is where one is less than two standard errors of a difference below
    the highest of its set.

    Args:
        accuracies: In percent, by defense.
        images: On how many images they were measured.
    """
    ranked, highest = [], None
    for name in sorted(accuracies, key=accuracies.get, reverse=True):
        value = accuracies[name]
        error = math.sqrt(2 * value * (100 - value) / images)
        if highest is not None and highest - value < 2 * error:
            ranked[-1].add(name)
        else:
            ranked.append({name})
            highest = value
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
