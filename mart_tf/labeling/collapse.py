"""Whether a network that labels gives all images one and the same class."""

import shlex

import numpy as np

from mart_tf.data import shards

# Of the images that should have another class.
_SHARE = 0.1
# Where fewer than these should have another class, that none has it may be
# chance: of 10 that are expected none is seen once in e^10 times.
_FEWEST = 10


def warning(labeled_by, pool, dataset):
    """What is said of a pool whose labels are nearly all of one class.

    Were its n images like those that the network was trained on, a share q of
    which are of the pool's most frequent class, n (1 - q) would be of another.
    Fewer than a tenth of that is too few, where it is 10 or more: of ten
    classes of one size the labels have collapsed with 91 % in one, of two with
    95 %, and with 99.5 % where 95 % of the training images are of that class.

    Args:
        labeled_by: The workdir of the network's run.
        pool: The labelled `Pool`.
        dataset: The `Dataset` that the network was trained on.

    Returns:
        A sentence, or None where the labels are spread enough, and where those
        of the training set are not known.
    """
    counts = np.bincount(pool.labels)
    most = int(counts.argmax())
    known = _known(dataset)
    if known is None:
        return None
    share = float(np.mean(known == most))
    expected = len(pool) * (1.0 - share)
    if expected < _FEWEST or len(pool) - counts[most] >= _SHARE * expected:
        return None
    return (
        f"{labeled_by} gives {counts[most]:,} of the {len(pool):,} images of "
        f"the pool the class {dataset.class_names[most]}, which {share:.1%} of "
        "its training images have; expected labels that are spread about as "
        "theirs: see whether the network has learned (mart-evaluate "
        f"{shlex.quote(f'--workdir={labeled_by}')}) and "
        "whether these images are like those that it was trained on, and label "
        "again before you train with them."
    )


def _known(dataset):
    """Labels of the training set, or of a random part of it; else None."""
    # A split that streams would be decoded whole for its labels.
    in_memory = hasattr(dataset.train, "labels")
    split = dataset.train if in_memory else dataset.validation
    return shards.labels_of(split) if len(split) else None
