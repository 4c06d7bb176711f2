"""The handwritten digits that come with scikit-learn: 1,797 of 8x8 pixels."""

import numpy as np
from sklearn import datasets

from mart_tf.data import splits


def load():
    """Pixels are sixteenths, 0 to 16, kept exactly as float32 in [0, 1].

    The set has no test split of its own: one is carved.
    """
    digits = datasets.load_digits()
    images = np.float32(digits.images[..., None] / 16.0)
    return splits.Source(
        class_names=tuple(str(name) for name in digits.target_names),
        train=splits.memory_split(images, digits.target),
        test=None,
    )
