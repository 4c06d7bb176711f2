"""Whether one attack is stronger than another by more than noise.

All attacks see the same examples, so two of them are compared in pairs. With
b the examples that the first alone breaks and c those that the second alone
breaks, of n in all, the first is stronger where

    (b - c) / n > a least size,  and
    P[at least b heads in b + c throws of a fair coin] < 1 %

the exact test of McNemar (1947), one-sided.
"""

import math

_SIGNIFICANCE = 0.01
# The same in standard deviations, where outcomes are not at hand.
_DEVIATIONS = 2.326


def is_stronger(first, second, least):
    """Whether the first attack is stronger than the second.

    Args:
        first: bool `[n]`: the examples that stand under the first attack.
        second: The same under the second.
        least: Least size of the difference, as a share of n.
    """
    alone, other = discordant(first, second)
    excess = (alone - other) / len(first)
    return excess > least and _heads(alone, alone + other) < _SIGNIFICANCE


def discordant(first, second):
    """How many examples the first alone breaks, and the second alone."""
    return int((second & ~first).sum()), int((first & ~second).sum())


def exceeds(upper, lower, examples, least):
    """Whether one accuracy is above another, where only these are known.

    By the normal approximation, as if each were of other examples.

    Args:
        upper, lower: Accuracies in [0, 1].
        examples: Number of examples of each.
        least: Least size of the difference.
    """
    variance = (lower * (1 - lower) + upper * (1 - upper)) / examples
    return upper - lower > max(least, _DEVIATIONS * math.sqrt(variance))


def _heads(heads, throws):
    """The probability of so many heads or more, exact in whole numbers."""
    term = total = math.comb(throws, heads)
    for k in range(heads, throws):
        term = term * (throws - k) // (k + 1)
        total += term
    return total / 2**throws
