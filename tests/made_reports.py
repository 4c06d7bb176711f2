"""Reports of results that are made up, for tests of what shows them."""

import numpy as np

import mart_tf
from mart_tf.reports import report
from mart_tf.reports import results

# Three classes that occur and one that does not.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2], np.int32)
EXAMPLES = len(LABELS)


def _climbing(kind, steps, reach=None, objective="cross_entropy", **others):
    return results.Nature(
        kind, steps, objective=objective, reach=reach, **others
    )


# What attacks say of themselves inside linf 0.3, by spec; each is held against
# the attack itself in tests/test_masking.py. Steps are of 0.03, if not of 0.3.
NATURES = {
    "fgsm": _climbing("FGSM", 1, 0.3, plain=True),
    "pgd": _climbing("PGD", 20, 0.6, plain=True),
    "pgd:steps=100": _climbing("PGD", 100, 3.0, plain=True),
    "pgd:step_size=0.0015": _climbing("PGD", 20, 0.03, plain=True),
    "pgd:objective=dlr": _climbing("PGD", 20, 0.6, "dlr", plain=True),
    "pgd:restarts=5": _climbing("PGD", 20, 0.6, plain=True, restarts=5),
    "cw": _climbing("CW", 20, 0.6, "margin", plain=True),
    "momentum": _climbing("MomentumPGD", 20, 0.6),
    # Whose steps are as long as they turn out.
    "apgd": _climbing("APGD", 100),
    "apgd:objective=margin": _climbing("APGD", 100, objective="margin"),
    "apgd_t": results.Nature("TargetedAPGD", 100),
    "fab_t": results.Nature("FAB", 100),
    # The stripes, then a window a query.
    "square": results.Nature("Square", 5001),
    "autoattack": results.Nature("AutoAttack", reference=True),
    "cleverhans:fgm": _climbing("FastGradient", 1, 0.3),
    "cleverhans:pgd": _climbing("ProjectedGradient", 20, 0.6),
    "cleverhans:pgd:eps_iter=0.0015": _climbing("ProjectedGradient", 20, 0.03),
    "cleverhans:bim": _climbing("BasicIterative", 20, 0.6),
    "cleverhans:mim:nb_iter=100": _climbing("MomentumIterative", 100, 3.0),
    "cleverhans:mim": _climbing("MomentumIterative", 20, 0.6),
}


def outcome(*wrong):
    """Right everywhere but at these examples."""
    right = np.ones(EXAMPLES, bool)
    right[list(wrong)] = False
    return right


def broken_after(**steps):
    """`e3=5` for example 3 broken after 5 steps; all others stand."""
    after = np.full(EXAMPLES, -1, np.int32)
    for name, count in steps.items():
        after[int(name[1:])] = count
    return after


def natural():
    return results.Result(
        "natural",
        outcome(9),
        0.5,
        EXAMPLES,
        access="none",
        broken_after=broken_after(e9=0),
    )


def pgd(name="pgd:steps=20"):
    return results.Result(
        name,
        outcome(9, 0, 4),
        2.0,
        9,
        {"steps": 20, "step_size": 0.03, "random_start": "uniform"},
        broken_after=broken_after(e9=0, e0=1, e4=12),
        nature=NATURES["pgd"],
    )


def ensemble():
    """Two attacks: example 0 falls to the first, 5 and 6 to the second."""
    parts = (
        results.Result(
            "autoattack: apgd_ce", outcome(9, 0), 3.0, 9, {"steps": 100}
        ),
        results.Result(
            "autoattack: square",
            outcome(9, 0, 5, 6),
            4.0,
            8,
            {"steps": 5000},
            "queries",
        ),
    )
    return results.Result(
        "autoattack",
        outcome(9, 0, 5, 6),
        7.0,
        9,
        {"version": "standard", "attacks": ["apgd_ce", "square"]},
        parts=parts,
        nature=NATURES["autoattack"],
    )


def least_distance():
    """In l2: example 9 needs none, 1 to 6 are found, the rest is not."""
    distances = np.full(EXAMPLES, np.inf, np.float32)
    distances[9] = 0.0
    distances[1:7] = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
    return results.Result(
        "cleverhans:cw_l2",
        distances > 1.25,
        8.0,
        9,
        {"radius": 1.25, "max_iterations": 1000},
        norm="l2",
        distances=distances,
        radius=1.25,
    )


def samples(shape=(8, 8, 1), threat=None, class_names=None):
    """Four examples, the first broken, the second to NaN."""
    threat = threat or mart_tf.ThreatModel(epsilon=0.3)
    middle = 0.5 * (threat.pixel_min + threat.pixel_max)
    images = np.full((4, *shape), middle, np.float32)
    offset = np.linspace(-1, 1, images[0].size, dtype=np.float32)
    return results.Samples(
        "pgd:steps=20",
        0.7,
        images,
        images + np.float32(threat.epsilon) * offset.reshape(shape),
        np.array([0, 1, 2, 2], np.int32),
        np.array([2, -1, 2, 2], np.int32),
        np.array([0.99, 0.5, 0.75, 1.0]),
        np.array([0.625, np.nan, 0.5, 1.0]),
    )


def full(**changes):
    """A report with everything in it."""
    sweep = results.Sweep(
        "pgd:steps=20",
        (0.1, 0.3, 0.5),
        np.stack([outcome(9), outcome(9, 0, 4), ~outcome(8)]),
    )
    traces = (
        results.Trace("pgd:steps=20", np.linspace(0.1, 2.5, 20), 9),
        results.Trace("fgsm", np.array([0.1]), 9),
        results.Trace("autoattack: apgd_ce", np.array([0.1, np.inf, 3]), 9),
    )
    fields = {
        "model": {
            "workdir": "runs/small",
            "name": "cnn",
            "parameters": 1234,
            "outputs": "logits",
        },
        "data": {
            "dataset": "digits",
            "split": "test",
            "sample": "all",
            "of": EXAMPLES,
            "rows": None,
            "examples": EXAMPLES,
            "image_shape": [8, 8, 1],
            "classes": 4,
            "class_names": ["zero", "one", "two", "three"],
        },
        "threat": mart_tf.ThreatModel(epsilon=0.3),
        "settings": {"seed": 0, "batch_size": 10, "precision": "float32"},
        "results": (natural(), pgd(), ensemble(), least_distance()),
        "samples": samples(),
        "labels": LABELS,
        "sweep": sweep,
        "traces": traces,
        "warnings": ("Without attack the accuracy is low.",),
    }
    return report.Report(**fields | changes)


def bare(**changes):
    """A report of natural accuracy alone, and nothing else."""
    nothing = {
        "results": (natural(),),
        "samples": None,
        "labels": None,
        "sweep": None,
        "traces": (),
        "warnings": (),
    }
    return full(**nothing | changes)
