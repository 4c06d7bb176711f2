"""Speed of an evaluation with PGD-20: ours against CleverHans's and ART's.

    python benchmarks/attack.py --workdir=runs/mnist --data_dir=DIR

ART takes part where it is installed (adversarial-robustness-toolbox 1.20.1).

Ours is what `mart-evaluate --attacks=pgd:steps=20` runs: noise, steps, the
dropping of what is broken, and a look at the last iterates. CleverHans's is its
eager PGD on whole batches and one compiled look at the result. Each side looks
at the natural images first, for the natural accuracy. All in float32, on the
same images in the same batches, each in a process of its own (ours with
TensorFlow's threads as the program sets them, the others with its defaults), in
alternating rounds after a first one that compiles and is not counted; medians
are printed.

Nothing is trained: the network is a run's. How fast ours is depends on how
much of the data breaks and when. A robust accuracy is made by choosing which
naturally correct test images are evaluated: at 0.95, 19 of 20 are images that
stand under PGD-20 at the run's epsilon and one is an image that breaks, drawn
at random. Where the network has too few images that break, fewer images are
evaluated (said). `--epsilon` changes the threat model instead, and
`--robust_accuracy=all` evaluates the first test images as they are, those that
are misclassified without attack among them: ours looks at them once and drops
them, the others attack them like the rest.
"""

import contextlib
import functools
import importlib.util
import multiprocessing
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import numpy as np
import peers
import tensorflow as tf

import mart_tf
from mart_tf import bounds
from mart_tf import cli
from mart_tf import noise
from mart_tf.attacks import projected
from mart_tf.evaluation import engine
from mart_tf.evaluation import shares

_EPSILON = flags.DEFINE_string("epsilon", None, "Radius; default: the run's.")
_ROBUST_ACCURACY = flags.DEFINE_list(
    "robust_accuracy",
    ["0.95", "0.5"],
    "Shares of images that stand; 'all': the first images, as they are.",
)
_IMAGES = flags.DEFINE_integer("images", 2000, "Images in a round, at most.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 250, "Images in a batch.")
_ROUNDS = flags.DEFINE_integer("rounds", 6, "Alternating rounds.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of the attack.")

flags.adopt_module_key_flags(peers)


def main(_):
    """Prints a line for each robust accuracy."""
    names = ["ours", "cleverhans"]
    if importlib.util.find_spec("art"):
        names.append("art")
    with contextlib.ExitStack() as stack:
        ours, *theirs = [stack.enter_context(_Worker(name)) for name in names]
        print(ours.ask("describe"))
        headings = "".join(
            f"{name + '/s':>13} {'ratio':>6}" for name in names[1:]
        )
        print(
            f"{'robust':>8} {'images':>7} {'steps each':>11} {'ours/s':>8}"
            f"{headings}   (images a second, medians)"
        )
        for text in _ROBUST_ACCURACY.value:
            examples = ours.ask("choose", text)
            for side in (ours, *theirs):
                side.ask("measure", *(each[:1000] for each in examples))
            rounds = np.array(
                [
                    [side.ask("measure", *examples) for side in (ours, *theirs)]
                    for _ in range(_ROUNDS.value)
                ]
            )
            medians = np.median(rounds, axis=0)
            ratios = np.median(rounds[:, :1] / rounds, axis=0)
            line = "".join(
                f"{median:13.1f} {ratio:6.2f}"
                for median, ratio in zip(medians[1:], ratios[1:], strict=True)
            )
            robust, steps = ours.ask("found")
            print(
                f"{robust:8.2%} {len(examples[0]):7} {steps:11.1f} "
                f"{medians[0]:8.1f}{line}",
                flush=True,
            )


class _Worker:
    """One side of the comparison, in a process of its own."""

    def __init__(self, name):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(name, sys.argv, other), daemon=True
        )

    def __enter__(self):
        self._process.start()
        return self

    def __exit__(self, *_):
        self._process.terminate()

    def ask(self, question, *arguments):
        """What the `Bench` there answers."""
        self._pipe.send((question, arguments))
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _work(name, arguments, pipe):
    flags.FLAGS(arguments)
    cli.import_tensorflow(
        0, shares.keep_to_one_core if name == "ours" else None
    )
    bench = Bench(name)
    while True:
        question, arguments = pipe.recv()
        try:
            answer = getattr(bench, question)(*arguments)
        except app.UsageError as error:
            answer = error
        pipe.send(answer)


class Bench:
    """A run's classifier, its test images, and one implementation."""

    def __init__(self, name):
        self.measure = getattr(self, name)
        config, dataset, self.classify = peers.attacked_run()
        epsilon = config.epsilon
        if _EPSILON.value is not None:
            epsilon = bounds.number("--epsilon", _EPSILON.value)
        self.threat = mart_tf.ThreatModel(config.norm, epsilon)
        images, labels = mart_tf.data.arrays(dataset.test)
        self.engine = engine.Engine(self.classify, _BATCH_SIZE.value)
        count = _whole_batches(min(len(images), _IMAGES.value))
        self.first = images[:count], labels[:count], self._seeds(count)
        correct = self.engine.predict(images) == labels
        self.images, self.labels = images[correct], labels[correct]
        self.attack = projected.PGD(_STEPS.value).on(
            self.classify, self.threat, dataset.num_classes
        )
        # Noise stays with its image, so that what broke once breaks again.
        self.seeds = self._seeds(len(self.labels))
        self.robust = self.steps_taken = 0.0

    @functools.cached_property
    def broken(self):
        """Which of the naturally correct images break."""
        return self._attack(self.images, self.labels, self.seeds).broken

    def describe(self):
        """A line about the network."""
        return (
            f"{peers.WORKDIR.value}: epsilon {self.threat.epsilon:g}, "
            f"{len(self.labels)} naturally correct images, of which "
            f"{self.broken.sum()} break"
        )

    def found(self):
        """Robust accuracy, and steps an image took, in the last round."""
        return self.robust, self.steps_taken

    def choose(self, text):
        """Images, labels and seeds; of the images the given share stands."""
        if text == "all":
            return self.first
        generator = np.random.default_rng(0)
        rows = generator.permutation(len(self.labels))
        share = float(text)
        breaking = rows[self.broken[rows]]
        standing = rows[~self.broken[rows]]
        count = _whole_batches(
            min(
                _IMAGES.value,
                len(breaking) / (1 - share),
                len(standing) / share,
            )
        )
        stand = round(share * count)
        rows = np.concatenate([standing[:stand], breaking[: count - stand]])
        rows = generator.permutation(rows)
        if not rows.size:
            raise app.UsageError(
                f"There are not enough images for {text} in batches of "
                f"{_BATCH_SIZE.value}; give a smaller --batch_size."
            )
        return self.images[rows], self.labels[rows], self.seeds[rows]

    def ours(self, images, labels, seeds):
        """Images a second of the engine."""
        started = time.perf_counter()
        right = self.engine.predict(images) == labels
        crafted = self._attack(images[right], labels[right], seeds[right])
        seconds = time.perf_counter() - started
        self.robust = (~crafted.broken).sum() / len(labels)
        self.steps_taken = crafted.steps.sum() / len(labels)
        return len(labels) / seconds

    def cleverhans(self, images, labels, _):
        """Images a second of CleverHans."""
        started = time.perf_counter()
        self.engine.predict(images)
        for first in range(0, len(labels), _BATCH_SIZE.value):
            batch = slice(first, first + _BATCH_SIZE.value)
            found = peers.cleverhans_pgd(
                self.classify,
                tf.constant(images[batch]),
                tf.constant(labels[batch]),
                self.threat,
                _STEPS.value,
            )
            self.engine.predict(found.numpy())
        return len(labels) / (time.perf_counter() - started)

    def art(self, images, labels, _):
        """Images a second of the Adversarial Robustness Toolbox."""
        started = time.perf_counter()
        self.engine.predict(images)
        self.engine.predict(self._art.generate(images, labels))
        return len(labels) / (time.perf_counter() - started)

    @functools.cached_property
    def _art(self):
        from art.attacks import evasion

        classifier = peers.art_classifier(
            self.classify, self.images, self.threat
        )
        return evasion.ProjectedGradientDescent(
            classifier,
            norm=peers.NORMS[self.threat.norm],
            eps=self.threat.epsilon,
            eps_step=self.threat.epsilon / 10,
            max_iter=_STEPS.value,
            num_random_init=1,
            batch_size=_BATCH_SIZE.value,
            verbose=False,
        )

    def _seeds(self, count):
        return noise.seeds(0, tf.range(count)).numpy()

    def _attack(self, images, labels, seeds):
        return self.engine.run(self.attack, images, labels, seeds)


def _whole_batches(count):
    # Neither side pays for padding.
    return int(count) // _BATCH_SIZE.value * _BATCH_SIZE.value


if __name__ == "__main__":
    app.run(main)
