"""Our PGD, APGD and Square against those of ART: accuracy, and time.

    pip install -e .[benchmarks]
    python benchmarks/art_agreement.py --workdir=runs/mnist --data_dir=DIR

ART (the Adversarial Robustness Toolbox) is an independent implementation that
runs on TensorFlow. Both attack the naturally correct ones of the first
`--images` test images, in linf at the run's epsilon, with the same settings:
PGD of 20 steps of epsilon / 10 from a random start; APGD on the cross-entropy,
100 iterations; Square, `--queries` queries; one restart each. Their random
numbers differ. Accuracies are over all the images. `--rounds` above 0 repeats
both in alternation after the first, which compiles, and prints medians and
their ratio.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
from art.attacks import evasion
import peers
import tensorflow as tf

import mart_tf
from mart_tf import noise
from mart_tf.attacks import auto_pgd
from mart_tf.attacks import projected
from mart_tf.attacks import random_search
from mart_tf.evaluation import engine

_ATTACKS = flags.DEFINE_list("attacks", ["pgd", "apgd", "square"], "Which.")
_IMAGES = flags.DEFINE_integer("images", 1000, "The first test images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Images in a batch.")
_QUERIES = flags.DEFINE_integer("queries", 5000, "Queries of Square.")
_ROUNDS = flags.DEFINE_integer("rounds", 0, "Timed rounds after the first.")

flags.adopt_module_key_flags(peers)


def main(_):
    """Prints a line for each attack."""
    bench = Bench()
    print(
        f"{'attack':>8} {'ours':>8} {'ART':>8} {'ours, s':>9} {'ART, s':>9} "
        f"{'ratio':>6}"
    )
    for name in _ATTACKS.value:
        ours, theirs = bench.pair(name)
        first = bench.timed(ours), bench.timed(theirs)
        rounds = [
            (bench.timed(ours)[1], bench.timed(theirs)[1])
            for _ in range(_ROUNDS.value)
        ] or [(first[0][1], first[1][1])]
        seconds = [statistics.median(s) for s in zip(*rounds, strict=True)]
        ratio = statistics.median(b / a for a, b in rounds)
        print(
            f"{name:>8} {first[0][0]:8.2%} {first[1][0]:8.2%} "
            f"{seconds[0]:9.1f} {seconds[1]:9.1f} {ratio:6.2f}",
            flush=True,
        )


class Bench:
    """A run's classifier and test images, and both sides' attacks."""

    def __init__(self):
        config, dataset, self.classify = peers.attacked_run()
        self.threat = mart_tf.ThreatModel("linf", config.epsilon)
        self.images, self.labels = mart_tf.data.arrays(
            dataset.test, _IMAGES.value
        )
        self.classes = dataset.num_classes
        self.width = min(_BATCH_SIZE.value, len(self.images))
        self.engine = engine.Engine(self.classify, self.width)
        self.right = self.engine.predict(self.images) == self.labels
        self.art = peers.art_classifier(self.classify, self.images, self.threat)
        print(
            f"{peers.WORKDIR.value}: epsilon {config.epsilon:g}, "
            f"{len(self.images)} images, natural {self.right.mean():.2%}"
        )

    def timed(self, attack):
        """Accuracy over all images, and seconds."""
        started = time.perf_counter()
        standing = attack(self.images[self.right], self.labels[self.right])
        seconds = time.perf_counter() - started
        return standing.sum() / len(self.images), seconds

    def pair(self, name):
        """Functions of images and labels to who stands: ours and ART's."""
        epsilon = self.threat.epsilon
        common = {
            "norm": peers.NORMS[self.threat.norm],
            "eps": epsilon,
            "batch_size": self.width,
        }
        made = {
            "pgd": lambda: (
                self._ours(projected.PGD),
                evasion.ProjectedGradientDescent(
                    self.art,
                    eps_step=epsilon / 10,
                    max_iter=20,
                    num_random_init=1,
                    verbose=False,
                    **common,
                ),
            ),
            "apgd": lambda: (
                self._ours(auto_pgd.APGD),
                evasion.AutoProjectedGradientDescent(
                    self.art,
                    eps_step=2 * epsilon,
                    max_iter=100,
                    nb_random_init=1,
                    loss_type="cross_entropy",
                    verbose=False,
                    **common,
                ),
            ),
            "square": lambda: (
                self._ours(random_search.Square, queries=_QUERIES.value),
                evasion.SquareAttack(
                    self.art,
                    max_iter=_QUERIES.value,
                    p_init=0.8,
                    nb_restarts=1,
                    verbose=False,
                    **common,
                ),
            ),
        }
        ours, theirs = made[name]()

        def run_ours(images, labels):
            seeds = noise.seeds(0, tf.range(len(labels))).numpy()
            return ~self.engine.run(ours, images, labels, seeds).broken

        def run_theirs(images, labels):
            found = theirs.generate(images, labels)
            # ART may leave the ball by rounding, here and there.
            found = self.threat.project(tf.constant(found), images).numpy()
            return self.engine.predict(found) == labels

        return run_ours, run_theirs

    def _ours(self, kind, **options):
        return kind(**options).on(self.classify, self.threat, self.classes)


if __name__ == "__main__":
    app.run(main)
