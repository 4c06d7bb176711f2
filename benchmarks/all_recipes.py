"""Two training steps of every recipe, to see that each of them runs.

    python benchmarks/all_recipes.py
    python benchmarks/all_recipes.py --recipes=table4_*,released_*

Each recipe's own network, precision, optimizer, schedule, defense, threat
model and input pipeline, on few images a step, where the recipe says 128 or
so: the widest networks then take two cores a minute. The images are random
pixels of the right shape (the digits are the digits): a recipe's loss shows
that it runs, not that it learns. Ends with status 1 if a loss is not finite.
"""

import contextlib
import fnmatch
import math
import multiprocessing
import os
import pickle
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
from absl import logging
import numpy as np
import recipes
import tensorflow as tf

from mart_tf import data
from mart_tf import train
from mart_tf.labeling import subsets
from mart_tf.runs import devices
from mart_tf.runs import run

_RECIPES = flags.DEFINE_list(
    "recipes", ["*"], "Names of recipes or patterns, such as table4_*."
)
_BATCH = flags.DEFINE_integer("batch", 2, "Images a step.", lower_bound=2)

_SHAPES = {"mnist": (28, 28), "cifar10": (32, 32, 3)}
_CLASSES = 10
_STEPS = 2


def main(_):
    """Prints a line for each recipe."""
    chosen = [
        path
        for path in recipes.paths()
        if any(fnmatch.fnmatch(path.stem, name) for name in _RECIPES.value)
    ]
    if not chosen:
        sys.exit(f"No recipe in {recipes.FOLDER} is called {_RECIPES.value}.")
    print(
        f"{'recipe':26} {'parameters':>12} {'loss 1':>9} {'loss 2':>9} "
        f"{'seconds':>8}",
        flush=True,
    )
    failed = []
    # Recipes look for their pools and subsets where they are started.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_data(_BATCH.value)
        jobs = [(path, _BATCH.value) for path in chosen]
        # TensorFlow keeps what it compiled until its process ends.
        with multiprocessing.get_context("spawn").Pool(
            1, maxtasksperchild=4
        ) as process:
            done = process.imap(two_steps, jobs)
            for name, parameters, losses, seconds in done:
                values = " ".join(f"{loss:9.4f}" for loss in losses)
                print(
                    f"{name:26} {parameters:12,} {values} {seconds:8.1f}",
                    flush=True,
                )
                if not all(map(math.isfinite, losses)):
                    failed.append(name)
    if failed:
        sys.exit(f"The loss is not finite in: {', '.join(failed)}.")
    print(f"{len(chosen)} recipes ran.")


def write_data(batch_size):
    """Random images under the names that recipes have for theirs."""
    generator = np.random.default_rng(0)
    count = 4 * max(batch_size, _CLASSES)
    labels = np.arange(count) % _CLASSES

    def images(name):
        shape = (count, *_SHAPES[name])
        return generator.integers(0, 256, shape, np.uint8)

    for name in _SHAPES:
        np.savez(
            f"{name}.npz",
            x_train=images(name),
            y_train=labels,
            x_test=images(name),
            y_test=labels,
        )
    for name in ("pool_100k", "pool_500k", "edm_1m"):
        np.savez(f"{name}.npz", image=images("cifar10"), label=labels)
    with open("ti_500K_pseudo_labeled.pickle", "wb") as file:
        content = {"data": images("cifar10"), "extrapolated_targets": labels}
        pickle.dump(content, file)
    split = data.load("npz:cifar10.npz").train
    rows = np.sort(split.indices)[::4]
    examples = subsets.Examples(
        dataset="npz:cifar10.npz",
        images=len(split),
        bound=data.rows(split),
        picked_by="benchmarks/all_recipes.py",
        rows=rows,
        labels=labels[rows],
        predicted=labels[rows],
    )
    subsets.write("subsets", examples, examples)


def two_steps(job):
    """Name, parameters of the network, first losses and seconds of a recipe."""
    # Not that flags are parsed again, nor that each recipe is a new graph.
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    started = time.monotonic()
    path, batch_size = job
    config = configuration(path, batch_size)
    dataset = data.load(config.dataset)
    pool = data.load_pool(config.pool) if config.pool else None
    pooled = {"pool": pool, "pool_fraction": config.pool_fraction}
    steps = config.steps_per_epoch or data.steps_per_epoch(
        dataset.train, config.batch_size, **pooled
    )
    policy, _ = devices.policy(config.precision)
    model = run.compiled_model(config, dataset, pool, steps, policy)
    model.defense.check_data(
        len(dataset.train), data.rows(dataset.train), dataset.name
    )
    batches = data.training_batches(
        dataset.train,
        config.batch_size,
        seed=config.seed,
        augment=config.augment,
        unlabeled_weight=config.unlabeled_weight,
        **pooled,
    )
    # Past the epsilon ramp, where the attack has its full reach.
    model.step.assign(model.epsilon_warmup_steps)
    step = tf.function(model.train_step)
    losses = []
    for batch in batches.take(_STEPS):
        # Else the second loss would be the mean of the two.
        model.reset_metrics()
        losses.append(float(step(batch)["loss"]))
    parameters = sum(
        math.prod(variable.shape) for variable in model.trainable_variables
    )
    return path.stem, parameters, losses, time.monotonic() - started


def configuration(path, batch_size):
    """A recipe's configuration, its data and batch size replaced."""
    values = recipes.parsed(path)
    if values.dataset in _SHAPES:
        values.dataset = f"npz:{values.dataset}.npz"
    values.batch_size = batch_size
    return train.configuration().resolved()


if __name__ == "__main__":
    app.run(main)
