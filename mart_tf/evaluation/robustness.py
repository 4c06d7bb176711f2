"""Robust accuracy of a classifier under a list of attacks."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import os
import pathlib
import warnings

import keras
import numpy as np
import tensorflow as tf

from mart_tf import attacks as table
from mart_tf import environment
from mart_tf import evaluation
from mart_tf import files
from mart_tf import places
from mart_tf import threat as threat_model
from mart_tf.evaluation import adversarial
from mart_tf.evaluation import arrays
from mart_tf.evaluation import doubts
from mart_tf.evaluation import measuring
from mart_tf.evaluation import progress as progress_bars
from mart_tf.evaluation import subjects
from mart_tf.evaluation import unfinished
from mart_tf.reports import corruptions as corrupted
from mart_tf.reports import report

# How many images tell a model without weights from others.
_ASKED = 250

# A model this near to chance says nothing about attacks.
_ABOVE_CHANCE = 0.05


@environment.exact_float32()
def evaluate_robustness(
    model: keras.Model | Callable | str | os.PathLike,
    dataset: tuple | tf.data.Dataset,
    threat: threat_model.ThreatModel,
    attacks: str | Sequence[str | table.Attack] = evaluation.DEFAULT,
    *,
    batch_size: int = 250,
    max_examples: int | None = None,
    seed: int = 0,
    outputs: str | None = None,
    surrogate: keras.Model | Callable | str | os.PathLike | None = None,
    epsilon_sweep: Iterable[float] = (),
    corruptions: Mapping[str, tuple | Callable] | None = None,
    class_names: Sequence[str] | None = None,
    directory: str | os.PathLike | None = None,
    save_adversarial: bool = False,
    facts: dict[str, dict] | None = None,
    progress: bool = False,
) -> report.Report:
    """Measures natural and robust accuracy over a whole data set.

    Always in float32, without TF32. What is misclassified without attack counts
    as broken under every attack, as soon as any iterate is misclassified; the
    worst case is taken example by example (docs/evaluation.md, "What is
    counted").

    The images are held in memory, and once more while an attack runs. With
    the same seed, model and data the report is the same; CleverHans draws its
    random starts from TensorFlow's global generator, which is therefore
    seeded again and again.

    Args:
        model: A Keras classifier, an AdversarialClassifier, the path of a
            `.keras` file or of an exported SavedModel, or a function from
            images to scores. A function that TensorFlow cannot differentiate
            is attacked by what asks for no gradients: `square`, `spsa`, and
            what is made on a surrogate.
        dataset: `(images, labels)` arrays, or a batched tf.data.Dataset;
            images float32 in the pixel range, labels integers or one-hot.
        threat: The `ThreatModel`.
        attacks: Specs, see `mart_tf.attacks.ATTACKS`, and instances of
            `mart_tf.attacks.Attack`, in a sequence; or specs in a
            comma-separated string. "transfer:" before a spec makes the attack
            on the surrogate. An instance is called by its class and the
            options that were set: "MyAttack:steps=5".
        batch_size: Examples in one pass through the network.
        max_examples: Only the first so many examples, in the order that they
            are given in; default: all. `mart_tf.data.sample` draws from all
            classes.
        seed: Decides all random starts, together with an example's row.
        outputs: "logits" or "probabilities", what the model returns;
            default: what an AdversarialClassifier or a SavedModel says, else
            "logits".
        surrogate: Another model, in any form that `model` may have, or a
            `subjects.Subject` where its outputs have to be declared: what the
            attacks of `evaluation.TRANSFER`, or those named with "transfer:",
            are made on.
        epsilon_sweep: Radii at which the first `pgd` of the list, or PGD-20,
            is run too.
        corruptions: Corrupted images, on which the accuracy without attack is
            measured too: by name, such as "fog_3" for fog of severity 3,
            `(images, labels)` arrays, or a function without arguments that
            returns them.
        class_names: Names of the classes, for messages and figures.
        directory: Where the report is saved. What is done is kept in its
            `partial` until then: the same call goes on where another was
            stopped.
        save_adversarial: Whether the adversarial images are written too, to
            `directory`/adversarial: a file for each attack and one of the
            worst case, see `mart_tf.evaluation.adversarial.Writer`. They are
            held in memory twice more.
        facts: What else the report shall say of "model", "data" and
            "corruptions": dicts by these names.
        progress: Whether to show a progress bar.

    Returns:
        A `Report`.

    Raises:
        ValueError: On bad input, before any work starts; or if another
            process writes into the directory.
    """
    specs = evaluation.resolve(attacks, surrogate=surrogate is not None)
    radii = _radii(epsilon_sweep, threat)
    if save_adversarial and directory is None:
        raise ValueError(
            "save_adversarial says that images are written, and directory "
            "does not say where; expected both."
        )
    if directory is not None:
        directory = places.expanded("directory", str(directory))
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1.")
    images, labels = arrays.arrays(dataset, max_examples)
    images = arrays.check_images(images, threat)
    subject = subjects.as_subject(model, outputs, images)
    classes = subject.classes
    labels = arrays.check_labels(labels, classes, class_names)
    other = surrogate and subjects.as_subject(surrogate, None, images)
    for part in filter(None, (subject, other)):
        _check_range(part, threat)
    if other and other.classes != classes:
        raise ValueError(
            f"The surrogate {other.name} has {other.classes} classes and the "
            f"model {classes}; expected one for the same."
        )
    plan = [
        (spec, _create(spec, subject, other, threat, classes)) for spec in specs
    ]
    swept = _sweep_plan(specs, radii, subject, threat, classes)
    doubtful = list(doubts.of(subject, images, labels))
    for sentence in doubtful:
        warnings.warn(sentence, stacklevel=2)
    # Not wider than the data: padding would be computed for nothing.
    width = min(batch_size, len(images))
    with files.held(directory) if directory else contextlib.nullcontext():
        kept = unfinished.Unfinished(
            directory and pathlib.Path(directory, unfinished.FOLDER),
            lambda: {
                "version": environment.versions()["mart-tf"],
                "threat model": dataclasses.asdict(threat),
                "seed": seed,
                "batch size": width,
                "data": unfinished.digest([images, labels]),
                "model": _identity(subject, images),
                "surrogate": other and _identity(other, images),
            },
        )
        with progress_bars.bar(progress) as shown:
            measured = measuring.Measurement(
                subject,
                images,
                labels,
                width,
                seed,
                kept,
                shown,
                save_adversarial
                and functools.partial(
                    adversarial.Writer, directory, images, labels, threat
                ),
            )
            results = [measured.natural()]
            outcomes = {
                name: measured.corrupted(
                    name, *_corrupted(name, made, images, threat, classes)
                )
                for name, made in (corruptions or {}).items()
            }
            for spec, attack in plan:
                if evaluation.is_transfer(spec):
                    results.append(measured.transfer(spec.text, attack))
                else:
                    results.append(measured.attack(spec.text, attack))
            sweep = swept and measured.sweep(*swept)
        facts = facts or {}
        made = report.Report(
            model={
                **facts.get("model", {}),
                **_described(subject),
                **({"surrogate": _described(other)} if other else {}),
            },
            data={
                "sample": "first" if len(images) == max_examples else "all",
                **facts.get("data", {}),
                "examples": len(images),
                "image_shape": list(images.shape[1:]),
                "classes": classes,
                "class_names": list(class_names) if class_names else None,
            },
            threat=threat,
            settings={
                "seed": seed,
                "batch_size": width,
                "precision": "float32",
            },
            results=tuple(results),
            samples=measured.samples,
            labels=labels,
            sweep=sweep,
            traces=tuple(measured.traces),
            corruptions=corrupted.Corruptions(
                facts.get("corruptions", {}).get("dataset"), outcomes
            )
            if outcomes
            else None,
            warnings=(
                *doubtful,
                *_unscored(measured.unscored),
                *_warnings(results[0], classes, subject, other, plan),
            ),
        )
        if directory is not None:
            measured.close()
            made.save(directory)
            kept.clear()
        return made


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


def _corrupted(name, made, images, threat, classes):
    """Corrupted images and their labels, once they fit the model.

    Args:
        name: Of the corruption.
        made: As of `evaluate_robustness`.
        images: The images that are attacked.
        threat: The `ThreatModel`.
        classes: Number of classes.
    """
    own, labels = arrays.arrays(made() if callable(made) else made, None)
    if own.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"The corrupted images {name} are of shape {own.shape[1:]}, and "
            f"those that are attacked of {images.shape[1:]}; expected the same."
        )
    own = arrays.check_images(own, threat)
    return own, arrays.check_labels(labels, classes, None)


def _radii(radii, threat):
    """The radii of a sweep, rising, as those of threat models."""
    for epsilon in radii:
        dataclasses.replace(threat, epsilon=epsilon)
    return sorted({float(epsilon) for epsilon in radii})


def _create(spec, subject, other, threat, classes):
    """The attack of a spec, on the model or on the surrogate."""
    transfer = evaluation.is_transfer(spec)
    attacked = other if transfer else subject
    try:
        attack = evaluation.create(spec)
        attack = attack.on(attacked.classify, threat, classes)
        if not (attack.steps or attack.parts):
            # The engine cannot divide what is done in one call.
            attack = attack.on(attacked.classify_in_shares, threat, classes)
    except ValueError as error:
        raise ValueError(f"Attack {spec.text!r}: {error}") from error
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


def _sweep_plan(specs, radii, subject, threat, classes):
    """The attack to sweep by name, and one of it for each radius."""
    if not radii:
        return None
    listed = [
        spec
        for spec in specs
        if spec.name == "pgd" and not evaluation.is_transfer(spec)
    ]
    spec = (listed or evaluation.resolve("pgd:steps=20"))[0]
    attacks = [
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
    return spec.text, attacks


def _scaled(spec, share):
    """The spec with a step size in the same proportion to epsilon."""
    step_size = spec.options.get("step_size")
    if step_size is None:
        return spec
    options = {**spec.options, "step_size": share * step_size}
    return dataclasses.replace(spec, options=options)


def _identity(subject, images):
    """What tells a model from others: its weights, or what it answers."""
    if subject.weights is not None:
        return [subject.outputs, unfinished.digest(subject.weights())]
    answers = subject.classify(tf.constant(images[:_ASKED]))
    return [subject.name, subject.outputs, np.argmax(answers, axis=1).tolist()]


def _described(subject):
    return {
        "name": subject.name,
        "parameters": subject.parameters,
        "outputs": subject.outputs,
        "weights": subject.weights and unfinished.digest(subject.weights()),
    }


def _unscored(counts):
    for name, count in counts.items():
        if count:
            yield (
                f"Under {name} {count} examples have NaN among their scores, "
                "which counts as misclassified: an overflow of the network, "
                "and no sign of its robustness."
            )


def _warnings(natural, classes, subject, other, plan):
    """Sentences that a reader of the report must not miss."""
    chance = 1 / classes
    if natural.accuracy < chance + _ABOVE_CHANCE:
        yield (
            f"Without attack the accuracy is {natural.accuracy:.2%}, and "
            f"chance is {chance:.2%}: is this the right model, in the right "
            "pixel range, with the right classes?"
        )
    for part in (subject, other):
        if part is not None and part.note:
            yield f"{part.name}: {part.note}"
    for _, attack in plan:
        yield from attack.notes
