"""Robust accuracy of a classifier under a list of attacks."""

import time

import numpy as np
import tensorflow as tf

from mart_tf import evaluation
from mart_tf import noise
from mart_tf.evaluation import engine
from mart_tf.evaluation import inputs
from mart_tf.evaluation import progress as progress_bars
from mart_tf.evaluation import report
from mart_tf.evaluation import results


def evaluate_robustness(
    model,
    dataset,
    threat,
    attacks=evaluation.DEFAULT,
    *,
    batch_size=250,
    max_examples=None,
    seed=0,
    outputs=None,
    class_names=None,
    progress=False,
):
    """Measures natural and robust accuracy over a whole data set.

    Always in float32. An example misclassified without attack counts as
    broken under every attack; every attack starts from all other examples, so
    that its accuracy stands alone. An example counts as broken as soon as any
    iterate of the attack is misclassified, which is at least as strict as
    looking at the last one only. The worst case is taken example by example.

    The images are held in memory, and once more while an attack runs. With
    the same seed, model and data the report is the same; CleverHans draws its
    random starts from TensorFlow's global generator, which is therefore
    seeded before every attack.

    Args:
        model: A Keras classifier, or an AdversarialClassifier.
        dataset: `(images, labels)` arrays, or a batched tf.data.Dataset;
            images float32 in the pixel range, labels integers or one-hot.
        threat: The `ThreatModel`.
        attacks: Specs, a sequence or a comma-separated string; see
            `evaluation.ATTACKS`.
        batch_size: Examples in one pass through the network.
        max_examples: Only the first so many examples; default: all.
        seed: Decides all random starts, together with an example's row.
        outputs: "logits" or "probabilities", what the classifier returns;
            default: what an AdversarialClassifier says, else "logits".
        class_names: Names of the classes, for messages and figures.
        progress: Whether to show a progress bar.

    Returns:
        A `Report`.

    Raises:
        ValueError: On bad input, before any work starts.
    """
    specs = evaluation.resolve(attacks)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1.")
    classifier, outputs = inputs.classifier(model, outputs)
    images, labels = inputs.arrays(dataset, max_examples)
    images, labels, classes = inputs.check(
        images, labels, threat, classifier, outputs, class_names
    )
    classify = inputs.logits_of(classifier, outputs)
    prepared = [
        (spec.text, evaluation.create(spec, classify, threat, classes))
        for spec in specs
    ]
    # Not wider than the data: padding would be computed for nothing.
    loop = engine.Engine(classify, min(batch_size, len(images)))
    found, samples = _measure(loop, prepared, images, labels, seed, progress)
    return report.Report(
        model={
            "name": classifier.name,
            "parameters": classifier.count_params(),
            "outputs": outputs,
        },
        data={
            "examples": len(images),
            "image_shape": list(images.shape[1:]),
            "classes": classes,
            "class_names": list(class_names) if class_names else None,
        },
        threat=threat,
        settings={
            "seed": seed,
            "batch_size": loop.batch_size,
            "precision": "float32",
        },
        results=found,
        samples=samples,
    )


def _measure(loop, prepared, images, labels, seed, progress):
    """The results, the natural one first, and samples of the strongest."""
    started = time.perf_counter()
    correct = loop.predict(images) == labels
    seconds = time.perf_counter() - started
    found = [results.Result("natural", correct, seconds, len(images))]
    samples = None
    rows = np.flatnonzero(correct)
    images, labels = images[rows], labels[rows]
    seeds = noise.seeds(seed, rows).numpy()
    with progress_bars.bar(progress) as opened:
        for name, attack in prepared:
            observe = opened(name, len(rows), len(correct))
            tf.random.set_seed(seed)
            started = time.perf_counter()
            outcome = loop.run(attack, images, labels, seeds, observe)
            seconds = time.perf_counter() - started
            standing = correct.copy()
            standing[rows] = ~outcome.broken
            result = results.Result(
                name, standing, seconds, len(rows), attack.parameters
            )
            found.append(result)
            stronger = samples is None or result.accuracy < samples.accuracy
            if rows.size and stronger:
                samples = results.Samples.choose(
                    result, images, labels, outcome
                )
    return tuple(found), samples
