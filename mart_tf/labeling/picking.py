"""Figure 1 of the MART paper: a trained network picks training examples."""

import numpy as np
import tensorflow as tf

from mart_tf import environment
from mart_tf.data import pipeline
from mart_tf.data import splits
from mart_tf.labeling import subsets
from mart_tf.models import outputs
from mart_tf.models import rebuilding
from mart_tf.models import single

_RIGHT = 3  # A stream of its own for `splits.carve`.


@environment.exact_float32()
def pick_subsets(
    classifier,
    split,
    folder,
    *,
    dataset,
    picked_by,
    batch_size=256,
    pixel_range=None,
):
    """The examples that a network misclassifies, and as many that it does not.

    S- and S+ of section 1 of Wang et al. (ICLR 2020): the classes predicted
    for the natural training images, in inference mode, divide the training
    set; of the correctly classified examples as many are chosen as there are
    misclassified ones, by a fixed hash of the row.

    Args:
        classifier: A Keras model from images to scores `[batch, classes]`,
            logits or probabilities, or an `AdversarialClassifier`.
        split: The training split of a `Dataset`.
        folder: A new folder, for `wrong.csv` (S-) and `right.csv` (S+), the
            files that the defense `subset` takes.
        dataset: The data set's name, written into the files.
        picked_by: Which network this is, written into the files.
        batch_size: Images in one pass through the network.
        pixel_range: Least and greatest value of the classifier's pixels;
            default: what an `AdversarialClassifier` says, else (0, 1).

    Returns:
        Two `mart_tf.labeling.subsets.Examples`, S- and S+.

    Raises:
        ValueError: If the folder exists, the classifier does not take the
            images, no example is misclassified, or fewer are right than wrong;
            then nothing is written.
    """
    subsets.check_folder(folder)
    subsets.check_facts(dataset=dataset, picked_by=picked_by)
    pixel_range = outputs.pixel_range(classifier, pixel_range)
    rows, labels, predicted = _predictions(
        classifier, split, batch_size, pixel_range or (0.0, 1.0)
    )
    is_wrong = labels != predicted
    wrong, right = rows[is_wrong], rows[~is_wrong]
    if not wrong.size:
        raise ValueError(
            f"The network of {picked_by} misclassifies none of the "
            f"{len(rows)} training images of {dataset}; pick with one that "
            "was trained for fewer epochs, or more robustly."
        )
    if len(right) < len(wrong):
        raise ValueError(
            f"The network of {picked_by} is right on {len(right)} of the "
            f"{len(rows)} training images of {dataset} and wrong on "
            f"{len(wrong)}; pick with one that is right on half of them."
        )

    def examples(chosen):
        places = np.flatnonzero(np.isin(rows, chosen))
        places = places[np.argsort(rows[places])]
        return subsets.Examples(
            dataset=dataset,
            images=len(rows),
            bound=int(rows.max()) + 1,
            picked_by=picked_by,
            rows=rows[places],
            labels=labels[places],
            predicted=predicted[places],
        )

    pair = (
        examples(wrong),
        examples(splits.carve(right, len(wrong), _RIGHT)),
    )
    subsets.write(folder, *pair)
    return pair


def _predictions(classifier, split, batch_size, pixel_range):
    """Rows, labels and predicted classes of a whole split, int64 `[n]`."""
    network, _ = outputs.network(classifier)
    single.check(network)
    network = rebuilding.float32_copy(network)

    @tf.function
    def predict(images):
        scores = network(images, training=False)
        # NaN is no class.
        is_nan = tf.reduce_any(tf.math.is_nan(scores), axis=1)
        return tf.where(is_nan, tf.constant(-1, tf.int64), tf.argmax(scores, 1))

    batches = []
    for inputs, labels, weights in pipeline.evaluation_batches(
        split, batch_size, pixel_range
    ):
        if not batches:
            some = inputs["image"][:8]
            outputs.check_classes(
                single.scored(network, some, "The classifier", "the data set")
            )
        real = weights.numpy() > 0.0
        columns = (inputs["index"], labels, predict(inputs["image"]))
        batches.append([column.numpy()[real] for column in columns])
    rows, labels, predicted = (
        np.concatenate(column).astype(np.int64)
        for column in zip(*batches, strict=True)
    )
    if (predicted < 0).any():
        raise ValueError(
            "The classifier returns NaN for the training image of row "
            f"{rows[predicted < 0][0]}; expected one whose weights are finite."
        )
    return [rows, labels, predicted]
