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
import tensorflow as tf

from mart_tf import attacks as table
from mart_tf import bounds
from mart_tf import choices
from mart_tf import environment
from mart_tf import evaluation
from mart_tf import files
from mart_tf import places
from mart_tf import threat as threat_model
from mart_tf.data import archives
from mart_tf.data import sampling
from mart_tf.evaluation import adversarial
from mart_tf.evaluation import arrays
from mart_tf.evaluation import doubts
from mart_tf.evaluation import identity
from mart_tf.evaluation import measuring
from mart_tf.evaluation import planning
from mart_tf.evaluation import progress as progress_bars
from mart_tf.evaluation import unfinished
from mart_tf.reports import corruptions as corrupted
from mart_tf.reports import report

# A model this near to chance says nothing about attacks.
_ABOVE_CHANCE = 0.05

# What a caller may say of an evaluation; all else is seen, or has no place in
# report.schema.json.
_FACTS = {
    "model": (
        "path",
        "workdir",
        "checkpoint",
        "epoch",
        "network",
        "defense",
    ),
    "data": ("dataset", "split", "sample", "of", "rows"),
    "corruptions": ("dataset",),
}


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
    the same seed, model and data the report is the same, unless the model
    draws random numbers; CleverHans draws its random starts from TensorFlow's
    global generator, which is therefore seeded again and again.

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
        batch_size: Examples in one pass through the network, on each of
            several GPUs.
        max_examples: Only the first so many examples, in the order that they
            are given in; default: all. `mart_tf.data.sample` draws from all
            classes.
        seed: Decides all random starts, together with an example's row: a
            whole number from 0 to 2^31 - 1.
        outputs: "logits" or "probabilities", what the model returns;
            default: what an AdversarialClassifier or a SavedModel says, else
            "logits".
        surrogate: Another model, in any form that `model` may have, or a
            `subjects.Subject` where its outputs have to be declared: what the
            attacks of `evaluation.TRANSFER`, or those named with "transfer:",
            are made on.
        epsilon_sweep: Radii at which the first PGD of the list, or PGD-20,
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
        facts: What else the report shall say of "model" (path, workdir,
            checkpoint, epoch, network, defense), "data" (dataset, split,
            sample, of, rows) and "corruptions" (dataset): dicts by these
            names, as docs/report.md describes them.
        progress: Whether to show a progress bar.

    Returns:
        A `Report`.

    Raises:
        ValueError: On bad input, before any work starts (what a function of
            `corruptions` returns, when its turn comes, before any attack); or
            if another process writes into the directory.
    """
    if save_adversarial and directory is None:
        raise ValueError(
            "save_adversarial says that images are written, and directory "
            "does not say where; expected both."
        )
    if directory is not None:
        directory = places.expanded("directory", str(directory))
    batch_size = bounds.whole("batch_size", batch_size, 1)
    seed = int(choices.SEED.check("seed", seed))
    if max_examples is not None:
        max_examples = bounds.whole("max_examples", max_examples, 1)
    if not isinstance(threat, threat_model.ThreatModel):
        raise ValueError(
            f"threat is {threat!r}; expected a threat model such as "
            "mart_tf.ThreatModel(epsilon=8 / 255)."
        )
    facts = facts or {}
    _check_facts(facts)
    specs = evaluation.resolve(attacks, surrogate=surrogate is not None)
    images, labels, more = arrays.arrays(dataset, max_examples)
    plan = planning.plan(
        planning.Model(model, outputs, surrogate),
        images,
        labels,
        threat,
        specs,
        epsilon_sweep,
        class_names,
    )
    for name, made in (corruptions or {}).items():
        # What a function returns may not fit beside that of others.
        if not callable(made):
            _corrupted(name, made, plan)
    doubtful = list(doubts.of(plan.subject, plan.images, plan.labels))
    for sentence in doubtful:
        warnings.warn(sentence, stacklevel=2)
    about = _facts(plan, facts, more, class_names)
    # Not wider than the data: padding would be computed for nothing.
    width = min(batch_size, len(plan.images))
    with files.held(directory) if directory else contextlib.nullcontext():
        kept = _kept(plan, directory, seed, width)
        with progress_bars.bar(progress) as shown:
            measured = measuring.Measurement(
                plan.subject,
                plan.images,
                plan.labels,
                width,
                seed,
                kept,
                shown,
                save_adversarial
                and functools.partial(
                    adversarial.Writer,
                    directory,
                    plan.images,
                    plan.labels,
                    threat,
                ),
            )
            found = _results(plan, corruptions or {}, measured)
        settings = {"seed": seed, "batch_size": width, "precision": "float32"}
        set_name = facts.get("corruptions", {}).get("dataset")
        made = _report(
            plan, measured, found, doubtful, about, settings, set_name
        )
        if directory is not None:
            # What may fail comes before the first file of a report gives way.
            measured.finish()
            made.save(directory)
            if save_adversarial:
                measured.close()
            else:
                adversarial.remove(directory)
            kept.clear()
        return made


def _kept(plan, directory, seed, width):
    """What is done of this evaluation, and no other, in the directory."""

    def tell():
        known = {
            role: subject and identity.of(subject, *asked)
            for role, subject in models.items()
        }
        for role, subject in models.items():
            if subject and known[role] is None:
                warnings.warn(
                    f"The {role} {subject.name} draws random numbers that no "
                    "seed of TensorFlow's decides, and shows no weights: "
                    "nothing tells it from another, and what is done of this "
                    "evaluation is not kept before its end.",
                    stacklevel=2,
                )
                return None
        return {
            "version": environment.versions()["mart-tf"],
            "threat model": dataclasses.asdict(plan.threat),
            "seed": seed,
            "data": archives.digest([plan.images, plan.labels]),
            **known,
        }

    models = {"model": plan.subject, "surrogate": plan.surrogate}
    asked = plan.images, plan.threat, width
    return unfinished.Unfinished(
        directory and pathlib.Path(directory, unfinished.FOLDER), tell
    )


def _results(plan, corruptions, measured):
    """What was measured without attack, on corruptions, by attacks, swept."""
    results = [measured.natural()]
    outcomes = {
        name: measured.corrupted(name, *_corrupted(name, made, plan))
        for name, made in corruptions.items()
    }
    for spec, attack in plan.attacks:
        if evaluation.is_transfer(spec):
            results.append(measured.transfer(spec.text, attack))
        else:
            results.append(measured.attack(spec.text, attack))
    sweep = plan.sweep and measured.sweep(*plan.sweep)
    return tuple(results), outcomes, sweep


def _report(plan, measured, found, doubtful, about, settings, set_name):
    """The `Report` of what was measured.

    Args:
        plan: The `planning.Plan`.
        measured: The `measuring.Measurement`.
        found: What `_results` returned.
        doubtful: Sentences on the model, said before.
        about: What `_facts` returned.
        settings: As of a `Report`.
        set_name: That of the corrupted data set, or None.
    """
    results, outcomes, sweep = found
    return report.Report(
        **about,
        threat=plan.threat,
        settings=settings,
        results=results,
        samples=measured.samples,
        labels=plan.labels,
        sweep=sweep,
        traces=tuple(measured.traces),
        corruptions=corrupted.Corruptions(set_name, outcomes)
        if outcomes
        else None,
        warnings=(
            *doubtful,
            *_unscored(measured.unscored),
            *_warnings(results[0], plan),
        ),
    )


def _corrupted(name, made, plan):
    """Corrupted images and their labels, once they fit the model.

    Args:
        name: Of the corruption.
        made: As of `evaluate_robustness`.
        plan: The `planning.Plan`.
    """
    images, labels, _ = arrays.arrays(made() if callable(made) else made)
    shape = plan.images.shape[1:]
    if images.shape[1:] != shape:
        raise ValueError(
            f"The corrupted images {name} are of shape {images.shape[1:]}, and "
            f"those that are attacked of {shape}; expected the same."
        )
    images = arrays.check_images(images, plan.threat)
    return images, arrays.check_labels(labels, plan.subject.classes, None)


def _check_facts(given):
    """Refuses what a report has no place for.

    Raises:
        ValueError: With one sentence.
    """
    for part, facts in given.items():
        for name in facts:
            if name not in _FACTS.get(part, ()):
                places = [f"{k} ({', '.join(v)})" for k, v in _FACTS.items()]
                raise ValueError(
                    f"facts says {name} of {part}, which a report has no place "
                    f"for; expected dicts by {', '.join(places)}."
                )


def _facts(plan, given, more, class_names):
    """What a report says of its model and data, beside what is given."""
    model = {**given.get("model", {}), **_described(plan.subject)}
    if plan.surrogate:
        model["surrogate"] = _described(plan.surrogate)
    data = {
        "sample": sampling.FIRST if more else sampling.ALL,
        **given.get("data", {}),
        "examples": len(plan.images),
        "image_shape": list(plan.images.shape[1:]),
        "classes": plan.subject.classes,
        "class_names": None if class_names is None else list(class_names),
    }
    return {"model": model, "data": data}


def _described(subject):
    return {
        "name": subject.name,
        "parameters": subject.parameters,
        "outputs": subject.outputs,
        "weights": subject.weights and archives.digest(subject.weights()),
    }


def _unscored(counts):
    for name, count in counts.items():
        if count:
            yield (
                f"Under {name} {count} examples have NaN among their scores, "
                "which counts as misclassified: an overflow of the network, "
                "and no sign of its robustness."
            )


def _warnings(natural, plan):
    """Sentences that a reader of the report must not miss."""
    chance = 1 / plan.subject.classes
    if natural.accuracy < chance + _ABOVE_CHANCE:
        yield (
            f"Without attack the accuracy is {natural.accuracy:.2%}, and "
            f"chance is {chance:.2%}: is this the right model, in the right "
            "pixel range, with the right classes?"
        )
    for part in (plan.subject, plan.surrogate):
        if part is not None and part.note:
            yield f"{part.name}: {part.note}"
    for _, attack in plan.attacks:
        yield from attack.notes
