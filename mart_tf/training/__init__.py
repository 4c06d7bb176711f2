"""The Keras model that trains a robust classifier, and what a step needs.

The tables here are read by the programs before TensorFlow is imported.
"""

import typing

from mart_tf import lazy
from mart_tf import options

if typing.TYPE_CHECKING:
    from mart_tf.training.update import Update as Update
    from mart_tf.training.weight_perturbation import AWP as AWP

SCHEDULES = {
    "constant": "mart_tf.training.schedules:constant",
    "piecewise": "mart_tf.training.schedules:piecewise",
    "cosine": "mart_tf.training.schedules:cosine",
    "onecycle": "mart_tf.training.schedules:onecycle",
}

# What a schedule is given by the run, not by the user.
SCHEDULE_RESERVED = ("learning_rate", "steps_per_epoch", "epochs")

OPTIMIZERS = {
    "sgd": "mart_tf.training.optimizers:sgd",
    "adam": "mart_tf.training.optimizers:adam",
    "adamw": "mart_tf.training.optimizers:adamw",
}

# What an optimizer is given by the run, not by the user.
OPTIMIZER_RESERVED = ("learning_rate",)

# How a step takes the gradient.
UPDATES = {
    "plain": "mart_tf.training.update:Update",
    "awp": "mart_tf.training.weight_perturbation:AWP",
}

update_names = options.Names(UPDATES, "update")

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "Update": "mart_tf.training.update:Update",
        "AWP": "mart_tf.training.weight_perturbation:AWP",
    },
)
