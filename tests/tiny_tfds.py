"""Small TFDS sets, prepared in a folder without a network."""

import numpy as np
import tensorflow_datasets as tfds

GREY = tfds.features.Image(shape=(5, 4, 1))
LABEL = tfds.features.ClassLabel(names=["ant", "bee", "cow"])


def examples(count, shape=(5, 4, 1), label=None, dtype=np.uint8):
    """Examples of an image and a label, each with a number of its own."""
    generator = np.random.default_rng(count)
    for number in range(count):
        size = tuple(length or number % 3 + 2 for length in shape)
        image = generator.integers(0, 256, size).astype(dtype)
        yield {
            "image": image,
            "label": number % 3 if label is None else label,
        }


def prepare(
    folder,
    name="tiny",
    shards=1,
    features=None,
    file_format=None,
    disable_shuffling=False,
    **of,
):
    """Writes a TFDS directory whose splits are given as lists of examples."""
    tfds.disable_progress_bar()
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            features or {"image": GREY, "label": LABEL}
        ),
        split_datasets={
            split: list(enumerate(values)) for split, values in of.items()
        },
        data_dir=folder,
        file_format=file_format,
        disable_shuffling=disable_shuffling,
        download_config=tfds.download.DownloadConfig(num_shards=shards),
    )
