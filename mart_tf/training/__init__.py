"""The Keras model that trains a robust classifier, and what a run needs.

The tables here are read by the programs before TensorFlow is imported.
"""

SCHEDULES = {
    "constant": "mart_tf.training.schedules:constant",
    "piecewise": "mart_tf.training.schedules:piecewise",
}

# What a schedule is given by the run, not by the user.
SCHEDULE_RESERVED = ("learning_rate", "steps_per_epoch", "epochs")

PRECISIONS = ("auto", "float32", "mixed_bfloat16")

STRATEGIES = ("auto", "single", "mirrored")
