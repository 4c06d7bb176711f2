"""Agreement of our PGD with CleverHans's, from the same random start.

    python benchmarks/agreement.py --workdir=runs/mnist_small_cnn_mart

Both attack the first test images of a run's data with the run's float32
network; CleverHans's random start is replaced by ours. Prints, for several
numbers of steps, the share of pixels that differ by more than 1e-5 and the
number of predictions that differ. Rounding alone makes some: where a gradient
is near zero its sign is chance.
"""

import os
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
from cleverhans.tf2.attacks import projected_gradient_descent
import numpy as np
import peers
import tensorflow as tf

import mart_tf
from mart_tf import attacks
from mart_tf import noise

_IMAGES = flags.DEFINE_integer("images", 1000, "Images attacked.")

flags.adopt_module_key_flags(peers)


def main(_):
    """Prints a line for each number of steps."""
    config, dataset, classify = peers.attacked_run()
    threat = mart_tf.ThreatModel(config.norm, config.epsilon)
    images, labels = map(
        tf.constant, mart_tf.data.arrays(dataset.test, _IMAGES.value)
    )
    seeds = noise.seeds(0, tf.range(len(images)))
    offset = threat.random_start(images, seeds) - images
    print("steps   pixels that differ   predictions that differ   accuracy")
    for steps in (1, 5, 20):
        ours = attacks.pgd(
            classify,
            images,
            labels,
            threat,
            steps=steps,
            step_size=threat.epsilon / 10,
            seed=seeds,
        )
        with mock.patch.object(
            projected_gradient_descent,
            "random_lp_vector",
            lambda *args, **kwargs: offset,
        ):
            theirs = peers.cleverhans_pgd(
                classify, images, labels, threat, steps
            )
        pixels = np.abs(ours.numpy() - theirs.numpy()) > 1e-5
        one, other = (
            classify(made).numpy().argmax(axis=1) for made in (ours, theirs)
        )
        print(
            f"{steps:5}   {pixels.mean():18.4%}   {(one != other).sum():10} of "
            f"{len(images)}   {(one == labels.numpy()).mean():15.2%}"
        )


if __name__ == "__main__":
    app.run(main)
