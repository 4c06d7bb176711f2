"""Names and limits that programs check before TensorFlow is imported."""

import math

# Norms of a threat model.
NORMS = ("linf", "l2")

# Starts of an attack, see `ThreatModel.random_start`.
RANDOM_STARTS = ("uniform", "gaussian", "none")

# What a classifier may return.
OUTPUTS = ("logits", "probabilities")

# What an exported version may answer to.
SIGNATURES = ("serving_default", "image_bytes", "classify")

# Seeds are int64, with room for what is folded into them.
GREATEST_SEED = 2**31 - 1


def check_radius(name, radius, norm, low, high):
    """Refuses a radius that a norm does not admit.

    In l2 it may exceed the range of one pixel: there are many.

    Args:
        name: How the message names it.
        radius: A number.
        norm: One of `NORMS`.
        low, high: The range of the pixels.

    Raises:
        ValueError: Unless it is finite, above 0, and in linf at most the range.
    """
    greatest = high - low if norm == "linf" else math.inf
    if not (0.0 < radius <= greatest and math.isfinite(radius)):
        raise ValueError(
            f"{name} is {radius:g}; expected a radius above 0, and in linf at "
            f"most {high - low:g}, the range of the pixels, {low:g} to "
            f"{high:g}."
        )
