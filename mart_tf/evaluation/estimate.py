"""How long an ensemble takes at most, from a pass that is measured.

What the examples of one batch take in one step, all cores at work, times the
steps of all of its attacks on all examples: the most, because an example that
falls is attacked no further, and how many fall nobody knows.
"""

import time

import numpy as np
import tensorflow as tf

# A pass is repeated so long, for one alone is measured by chance.
_SECONDS = 0.3
_MOST_PASSES = 20


def sentence(name, attacks, loop, examples, images, labels, seeds):
    """The estimate as a person reads it.

    Args:
        name: The ensemble's.
        attacks: Those of it that are to run.
        loop: The `engine.Engine` that runs them.
        examples: How many they begin with.
        images: Some of these, float32 `[n, ...]`.
        labels: Their classes, int32 `[n]`.
        seeds: Their seeds, `[n, 2]`.
    """
    rows = np.resize(np.arange(len(labels)), loop.share)
    batch = [tf.constant(values[rows]) for values in (images, labels, seeds)]
    seconds, paces = 0.0, {}
    for attack in attacks:
        kind = type(attack), attack.passes
        if kind not in paces:
            paces[kind] = _pace(loop, _pass(loop, attack, batch))
        # A step along a gradient makes all of its passes.
        work = attack.work / (attack.passes if attack.needs_gradient else 1)
        seconds += work * examples * paces[kind]
    return (
        f"{name}: at most about {spelled(seconds)}, at the pace of this "
        "classifier here and now; examples that fall are attacked no further."
    )


def spelled(seconds):
    """A time in the unit that suits it: seconds, minutes, hours or days."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{max(1, round(seconds))} seconds"


def _pass(loop, attack, batch):
    """A function that takes one batch of one core a step further."""
    images, labels, seeds = batch
    if not attack.needs_gradient:
        looks = loop.looks()
        return lambda device: looks[device](images).numpy()
    state = attack.begin(images, labels, seeds, 0)
    # The one that is compiled here is the one that the attack runs.
    steps, taken = loop.steps(attack), tf.zeros_like(labels)

    def step(device):
        made = steps[device](
            tf.constant(1), images, labels, state, taken, labels
        )
        return made[2].numpy()

    return step


def _pace(loop, step):
    """Seconds of a step of one example, as all cores together take it."""

    def placed(_):
        with loop.place() as device:
            step(device)

    with loop.threads() as threads:
        # Which compiles, on each device.
        list(threads.map(placed, range(loop.cores)))
        passes, started = 0, time.perf_counter()
        while passes < _MOST_PASSES:
            list(threads.map(placed, range(loop.cores)))
            passes += 1
            seconds = time.perf_counter() - started
            if seconds > _SECONDS:
                break
    return seconds / (passes * loop.cores * loop.share)
