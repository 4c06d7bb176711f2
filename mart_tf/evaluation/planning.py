"""What an evaluation is to do, all of it checked before any of it is done."""

import copy
import dataclasses
import numbers
from typing import Any
from typing import NamedTuple

import numpy as np

from mart_tf import attacks
from mart_tf import evaluation
from mart_tf import threat as threat_model
from mart_tf.evaluation import arrays
from mart_tf.evaluation import subjects

# More than any attack aims at, where those of a model are not known yet.
_MANY_CLASSES = 1000


class Model(NamedTuple):
    """What is attacked, as a user gives it.

    Attributes:
        model: Anything that `subjects.as_subject` takes.
        outputs: "logits", "probabilities", or None where the model says it.
        surrogate: What black-box attacks are made on, or None.
    """

    model: Any
    outputs: str | None
    surrogate: Any


class Plan(NamedTuple):
    """What is done, to what.

    Attributes:
        subject: The `subjects.Subject` that is attacked.
        surrogate: The one that black-box attacks are made on, or None.
        images: Float32 in the threat model's pixel range.
        labels: Integers, one an image.
        threat: The `ThreatModel`.
        attacks: Pairs of a spec and the attack, on its subject.
        sweep: The spec that is swept, and pairs of a radius and the attack;
            None without radii.
    """

    subject: subjects.Subject
    surrogate: subjects.Subject | None
    images: np.ndarray
    labels: np.ndarray
    threat: threat_model.ThreatModel
    attacks: list
    sweep: tuple | None


def plan(given, images, labels, threat, specs, radii, class_names):
    """The `Plan` of an evaluation.

    Args:
        given: A `Model`.
        images: An array of images.
        labels: Their labels, integers or one-hot.
        threat: The `ThreatModel`.
        specs: What `evaluation.resolve` returns.
        radii: Those of the sweep.
        class_names: Names of the classes, or None.

    Raises:
        ValueError: If anything of it does not fit the rest.
    """
    radii = _radii(radii, threat)
    images = arrays.check_images(images, threat)
    subject = subjects.as_subject(given.model, given.outputs, images)
    classes = subject.classes
    labels = arrays.check_labels(labels, classes, class_names)
    other = given.surrogate and subjects.as_subject(
        given.surrogate, None, images
    )
    for part in filter(None, (subject, other)):
        _check_range(part, threat)
    if other and other.classes != classes:
        raise ValueError(
            f"The surrogate {other.name} has {other.classes} classes and the "
            f"model {classes}; expected one for the same."
        )
    return Plan(
        subject,
        other,
        images,
        labels,
        threat,
        [(s, _create(s, subject, other, threat, classes)) for s in specs],
        _sweep(specs, radii, subject, threat, classes),
    )


def check(specs, threat):
    """Refuses attacks that a threat model does not admit, whatever the model.

    Args:
        specs: What `evaluation.resolve` returns.
        threat: The `ThreatModel`.

    Raises:
        ValueError: As `plan`.
    """
    for spec in specs:
        _made(spec, lambda images: images, threat, _MANY_CLASSES)


def _check_range(subject, threat):
    """Refuses a threat model of other pixels than the model's own."""
    own = subject.pixel_range
    if own not in (None, (threat.pixel_min, threat.pixel_max)):
        raise ValueError(
            f"The model {subject.name} was trained on pixels in [{own[0]:g}, "
            f"{own[1]:g}], and the threat model's lie in "
            f"[{threat.pixel_min:g}, {threat.pixel_max:g}]; expected the same: "
            f"ThreatModel(pixel_min={own[0]:g}, pixel_max={own[1]:g})."
        )


def _radii(radii, threat):
    """The radii of a sweep, rising, as those of threat models."""
    radii = [radii] if isinstance(radii, numbers.Real) else list(radii)
    for epsilon in radii:
        dataclasses.replace(threat, epsilon=epsilon)
    return sorted({float(epsilon) for epsilon in radii})


def _create(spec, subject, other, threat, classes):
    """The attack of a spec, on the model or on the surrogate."""
    transfer = evaluation.is_transfer(spec)
    attacked = other if transfer else subject
    attack = _made(spec, attacked.classify, threat, classes)
    if not (attack.steps or attack.parts):
        # The engine cannot divide what is done in one call.
        attack = _made(spec, attacked.classify_in_shares, threat, classes)
    if transfer and (attack.norm is not None or attack.parts):
        raise ValueError(
            f"Attack {spec.text!r} cannot be made on a surrogate: it "
            "minimises a distance, or is an ensemble whose attacks follow each "
            "other; expected one attack that stays inside the threat model."
        )
    if attack.needs_gradient and not attacked.gradients:
        raise ValueError(
            f"Attack {spec.text!r} needs gradients, and the "
            f"{'surrogate' if transfer else 'model'} {attacked.name} gives "
            "none; expected square or spsa, or a differentiable surrogate."
        )
    return attack


def _made(spec, classify, threat, classes):
    try:
        return evaluation.create(spec).on(classify, threat, classes)
    except ValueError as error:
        raise ValueError(f"Attack {spec.text!r}: {error}") from error


def _sweep(specs, radii, subject, threat, classes):
    """The attack to sweep by name, and one of it for each radius."""
    if not radii:
        return None
    listed = [
        spec
        for spec in specs
        if _is_pgd(spec) and not evaluation.is_transfer(spec)
    ]
    spec = (listed or evaluation.resolve("pgd:steps=20"))[0]
    swept = [
        (
            epsilon,
            _create(
                _scaled(spec, epsilon / threat.epsilon),
                subject,
                None,
                dataclasses.replace(threat, epsilon=epsilon),
                classes,
            ),
        )
        for epsilon in radii
    ]
    return spec.text, swept


def _is_pgd(spec):
    if isinstance(spec, evaluation.Instance):
        return isinstance(spec.attack, attacks.PGD)
    return spec.name == "pgd"


def _scaled(spec, share):
    """The spec with a step size in the same proportion to epsilon."""
    if isinstance(spec, evaluation.Instance):
        attack = copy.copy(spec.attack.unbound or spec.attack)
        if attack.step_size is not None:
            attack.step_size *= share
        return dataclasses.replace(spec, attack=attack)
    step_size = spec.options.get("step_size")
    if step_size is None:
        return spec
    options = {**spec.options, "step_size": share * step_size}
    return dataclasses.replace(spec, options=options)
