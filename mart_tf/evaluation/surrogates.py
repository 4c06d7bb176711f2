"""Black box: what was made on a surrogate, tried on the model."""

import numpy as np
import tensorflow as tf

from mart_tf.attacks import base
from mart_tf.evaluation import engine
from mart_tf.evaluation import shares


class Craft:
    """An attack on a surrogate, taken to its end.

    Nothing is dropped on the way: the surrogate is fooled long before what
    fools it fools another model.

    Args:
        attack: A `mart_tf.attacks.Attack` on the surrogate.
        loop: The `Engine` of the model under attack.
    """

    def __init__(self, attack, loop):
        self._attack = attack
        self._loop = loop
        self._finish = base.compiled(
            shares.split(lambda *batch: attack.finish(*batch)[0])
        )

    def run(self, images, labels, seeds, observe):
        """As `Engine.run`, without its attack."""
        rounds, steps = self._attack.all_rounds, self._attack.steps
        adversarial = images.copy()
        predictions = labels.copy()
        size = self._loop.batch_size
        done = 0.0
        for number in range(rounds):
            for rows in engine.batches(np.arange(len(labels)), size):
                made = self._made(images, labels, seeds, rows, number)
                standing = predictions[rows] == labels[rows]
                chosen = rows[standing]
                adversarial[chosen] = made[standing]
                predictions[chosen] = self._loop.predict(made)[standing]
                done += len(rows) / rounds
                observe(done, int((predictions != labels).sum()))
        taken = np.full(len(labels), steps * rounds, np.int32)
        broken = predictions != labels
        return engine.Crafted(adversarial, predictions, broken, taken)

    def _made(self, images, labels, seeds, rows, number):
        """What a round of the attack makes of some examples."""
        padded = engine.padded(rows, self._loop.batch_size)
        images, labels, seeds = (
            tf.constant(array[padded]) for array in (images, labels, seeds)
        )
        state = self._attack.begin(images, labels, seeds, number)
        if self._attack.steps:
            state = self._finish(images, labels, state)
        return self._attack.best(state).numpy()[: len(rows)]
