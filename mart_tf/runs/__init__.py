"""A run on disk: its configuration, its workdir, its checkpoints.

The tables here are read by the programs before TensorFlow is imported.
"""

PRECISIONS = ("auto", "float32", "tf32", "mixed_bfloat16")

STRATEGIES = ("auto", "single", "mirrored", "multi_worker")

XLA = ("auto", "attack", "step", "off")
