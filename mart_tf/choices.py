"""Names and limits that programs check before TensorFlow is imported."""

from mart_tf import bounds

# Norms of a threat model.
NORMS = ("linf", "l2")

# Starts of an attack, see `ThreatModel.random_start`.
RANDOM_STARTS = ("uniform", "gaussian", "none")

# Statistics of batch norm in the inner attack: those that are kept, or those
# of the batch.
ATTACK_BATCH_NORM = ("inference", "batch")

# What a classifier may return.
OUTPUTS = ("logits", "probabilities")

# Which weights of a run are taken.
CHECKPOINTS = ("best", "last", "best_raw", "last_raw")

# What an exported version may answer to.
SIGNATURES = ("serving_default", "image_bytes", "classify")

# Seeds are int64, with room for what is folded into them.
SEED = bounds.Whole(0, 2**31 - 1)

# Pixels are float32: a radius of less than this share of their range moves
# few of them, and one of so many ranges is longer than any image.
_LEAST_RADIUS = 1e-7
_GREATEST_L2_RADIUS = 1e6
# Of the greatest magnitude, or of 1: a smaller range has too few values.
_LEAST_RANGE = 1e-3
_PIXEL = bounds.Real(-1e9, 1e9)


def check_pixels(name_low, name_high, low, high):
    """Refuses two numbers that are no range of pixels.

    Args:
        name_low, name_high: How the message names them.
        low, high: The least and the greatest value of a pixel.

    Raises:
        ValueError: Unless low is below high, both are finite, and float32 has
            values enough between them.
    """
    if not low < high:
        raise ValueError(
            f"{name_low} is {low:g} and {name_high} {high:g}; expected a "
            "least value below a greatest one, such as 0 and 255."
        )
    for name, value in ((name_low, low), (name_high, high)):
        _PIXEL.check(name, value)
    least = _LEAST_RANGE * max(1.0, abs(low), abs(high))
    if high - low < least:
        raise ValueError(
            f"{name_low} is {low:g} and {name_high} {high:g}; expected them "
            f"at least {least:g} apart, such as 0 and 255: float32 has too few "
            "values between them."
        )


def check_radius(name, radius, norm, low, high):
    """Refuses a radius that a norm does not admit.

    In l2 it may exceed the range of one pixel: there are many.

    Args:
        name: How the message names it.
        radius: A number.
        norm: One of `NORMS`.
        low, high: The range of the pixels.

    Raises:
        ValueError: Unless it is above 0, large enough to move a pixel, in linf
            at most the range, and in l2 no longer than any image.
    """
    wide = high - low
    greatest = wide if norm == "linf" else _GREATEST_L2_RADIUS * wide
    if 0.0 < radius <= greatest and radius >= _LEAST_RADIUS * wide:
        return
    bound = "above 0"
    if radius > 0.0 and not radius > greatest:
        bound = f"of at least {_LEAST_RADIUS * wide:g}"
    most = "the range" if norm == "linf" else "a million times the range"
    raise ValueError(
        f"{name} is {bounds.spelled(radius)}; expected a radius {bound}, and "
        f"in {norm} at most {greatest:g}, {most} of the pixels, {low:g} to "
        f"{high:g}."
    )
