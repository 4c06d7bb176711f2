"""What benchmarks that set our attacks beside CleverHans's and ART's share."""

from absl import flags
from cleverhans.tf2.attacks import projected_gradient_descent
import keras
import numpy as np

import mart_tf
from mart_tf.evaluation import subjects
from mart_tf.runs import workdir

WORKDIR = flags.DEFINE_string("workdir", None, "A run of mart-train.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TFDS data lies; default: as for the run."
)

flags.mark_flag_as_required("workdir")

# A norm as CleverHans and ART name it.
NORMS = {"linf": np.inf, "l2": 2}


def attacked_run():
    """Its configuration, its data set, and its network: images to logits."""
    config = workdir.trained(WORKDIR.value).config
    dataset = mart_tf.data.load(
        config.dataset, data_dir=_DATA_DIR.value or config.data_dir
    )
    network = workdir.load_classifier(WORKDIR.value)[0]
    classify = subjects.as_subject(network, config.outputs).classify
    return config, dataset, classify


def cleverhans_pgd(classify, images, labels, threat, steps):
    """CleverHans's PGD, in steps of epsilon / 10 from a random start."""
    return projected_gradient_descent.projected_gradient_descent(
        classify,
        images,
        threat.epsilon,
        threat.epsilon / 10,
        steps,
        NORMS[threat.norm],
        clip_min=threat.pixel_min,
        clip_max=threat.pixel_max,
        y=labels,
        rand_init=True,
    )


def art_classifier(classify, images, threat):
    """A network as the Adversarial Robustness Toolbox takes it.

    Args:
        classify: Images to logits, the callable that ours attacks too.
        images: float32 array `[n, ...]`.
        threat: The `ThreatModel`, for the pixel range.
    """
    # Not installed everywhere.
    from art.estimators import classification

    return classification.TensorFlowV2Classifier(
        model=lambda images, training: classify(images),
        nb_classes=classify(images[:1]).shape[1],
        input_shape=images.shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        ),
        clip_values=(threat.pixel_min, threat.pixel_max),
    )
