"""A piece: some of the examples under one attack, as it is kept on disk.

So much work that losing it hurts little, and so many examples that re-packing
still fills its batches. Which examples a piece holds depends on nothing but
the settings, so that an evaluation that was stopped ends as one that never
was.
"""

import numpy as np

from mart_tf.attacks import examples
from mart_tf.data import sampling
from mart_tf.reports import results

# Gradient steps, or queries, after which a piece is kept.
_STEPS = 500_000
_LEAST_BATCHES = 4

# How many broken and how many standing examples are kept for the figure.
_SHOWN = 8

# What of an `engine.Crafted` an `adversarial.Writer` takes.
MADE = ("adversarial", "predictions")


def split(attack, rows, width):
    """The rows of each piece: of about one size, in whole batches.

    Args:
        attack: An `Attack`.
        rows: Of the examples that it is run on, `[n]`.
        width: Of a batch.
    """
    # Where nothing is re-packed, a batch will do.
    least = (_LEAST_BATCHES if attack.steps else 1) * width
    most = max(least, _STEPS // attack.work)
    count = max(1, -(-len(rows) // most))
    each = -(-len(rows) // (count * width)) * width
    return [rows[i : i + each] for i in range(0, len(rows), each or 1)]


def arrays(attack, crafted, rows, images, labels, *, whole):
    """What is kept of a piece, arrays by name.

    Args:
        attack: The `Attack`.
        crafted: The `engine.Crafted` that it made.
        rows: Of the piece's examples, `[n]`.
        images: Their natural images, float32 `[n, ...]`.
        labels: Their labels, `[n]`.
        whole: Whether all adversarial images are kept, not a few.

    Raises:
        ValueError: If an adversarial image lies outside the threat model.
    """
    _check_inside(attack, crafted.adversarial, images)
    found = {
        "broken": crafted.broken,
        "steps": crafted.steps,
        "unscored": unscored(crafted.predictions),
    }
    if whole:
        found |= {name: getattr(crafted, name) for name in MADE}
    if crafted.losses is not None:
        # The NaN of one would be the mean of all; `unscored` tells of it.
        traced = np.isfinite(crafted.losses).all(axis=1)
        found["losses"] = crafted.losses[traced].sum(axis=0, dtype=np.float64)
        found["traced"] = traced.sum()
    if attack.norm is not None:
        found["distances"] = _distances(attack.norm, crafted, images)
    shown = np.concatenate(
        [
            some[sampling.draw(labels[some], _SHOWN)]
            for some in (
                np.flatnonzero(crafted.broken),
                np.flatnonzero(~crafted.broken),
            )
        ]
    )
    return found | {
        "sample_rows": rows[shown],
        "sample_images": crafted.adversarial[shown],
        "sample_broken": crafted.broken[shown],
        "sample_predictions": crafted.predictions[shown],
    }


def fallen(attack, piece):
    """Which examples of a piece an attack broke, bool: within its radius."""
    if attack.norm is None:
        return piece["broken"]
    return piece["distances"] <= attack.radius


def result(name, attack, standing, rows, pieces):
    """The `Result` that an attack's pieces make.

    Args:
        name: Of the attack, for the report.
        attack: The `Attack`.
        standing: Which examples stood before it, bool `[n]`.
        rows: Where they do, those of all pieces.
        pieces: What `arrays` and "seconds" are of each piece, in order.
    """

    def joined(key, like):
        parts = [piece[key] for piece in pieces]
        return np.concatenate([np.zeros(0, like), *parts])

    broken = joined("broken", bool)
    outcome = standing.copy()
    outcome[rows] = ~broken
    broken_after = None
    # Attacks without a norm of their own that tell their steps.
    if attack.norm is None and attack.steps:
        broken_after = np.full(len(standing), -1, np.int32)
        broken_after[~standing] = 0
        broken_after[rows[broken]] = joined("steps", np.int32)[broken]
    distances = None
    if attack.norm is not None:
        distances = np.zeros(len(standing), np.float32)
        distances[rows] = joined("distances", np.float32)
        outcome = distances > attack.radius
    return results.Result(
        name,
        outcome,
        float(sum(piece["seconds"] for piece in pieces)),
        len(rows),
        attack.parameters,
        "gradients" if attack.needs_gradient else "queries",
        broken_after,
        attack.norm,
        distances,
        radius=None if attack.norm is None else attack.radius,
        nature=nature(attack),
    )


def nature(attack):
    """What the signs of masking ask an attack, a `Nature`."""
    climbed = attack.objective
    return results.Nature(
        type(attack).__name__,
        attack.iterations,
        attack.restarts,
        climbed if isinstance(climbed, str) else None,
        attack.plain,
        attack.reach,
        attack.reference,
    )


def unscored(predictions):
    """How many examples had NaN among their scores."""
    return int((predictions == examples.NO_CLASS).sum())


def _distances(norm, crafted, images):
    """Of each adversarial example, infinity where there is none."""
    lengths = _lengths(norm, crafted.adversarial, images)
    return np.where(crafted.broken, lengths, np.float32(np.inf))


def _lengths(norm, adversarial, images):
    offset = (adversarial - images).reshape(len(images), -1)
    order = {"linf": np.inf, "l2": 2}[norm]
    return np.linalg.norm(offset, order, axis=1).astype(np.float32)


def _check_inside(attack, adversarial, images):
    """Refuses what lies outside the threat model by more than rounding."""
    threat = attack.threat
    if threat is None or attack.norm is not None or not len(images):
        return
    beyond = np.max(
        [
            _lengths(threat.norm, adversarial, images).max() - threat.epsilon,
            threat.pixel_min - adversarial.min(),
            adversarial.max() - threat.pixel_max,
        ]
    )
    width = threat.pixel_max - threat.pixel_min
    rounded = threat.rounding
    if threat.norm == "l2":
        rounded *= images[0].size ** 0.5
    if not beyond <= 1e-4 * threat.epsilon + 1e-6 * width + rounded:
        raise ValueError(
            f"The attack {attack} left the threat model by {beyond:g}; "
            "expected what threat.project returns, at most rounding beyond."
        )
