"""Small networks that have learned scikit-learn's digits."""

import keras
from sklearn import datasets


def on_digits(seed, layers, images=1400, rate=0.01, epochs=4):
    """A network, and all digits in [0, 1] with their labels.

    Args:
        seed: Of weights and order.
        layers: Called for the layers before the last, once seeds are set.
        images: How many of the first ones it learns.
        rate: Of Adam.
        epochs: How often.
    """
    keras.utils.set_random_seed(seed)
    pixels, labels = datasets.load_digits(return_X_y=True)
    pixels = (pixels / 16).reshape(-1, 8, 8, 1).astype("float32")
    labels = labels.astype("int32")
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), *layers(), keras.layers.Dense(10)]
    )
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(pixels[:images], labels[:images], epochs=epochs, verbose=0)
    return model, pixels, labels
