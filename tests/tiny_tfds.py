"""Small TFDS sets, prepared in a folder without a network."""

import numpy as np
import sklearn.datasets
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


def sharded(folder):
    """Writes 100 + 20 images into a folder, in 5 shards each; the folder."""
    prepare(folder, shards=5, train=examples(100), test=examples(20))
    return folder


class DigitsCorrupted(tfds.core.GeneratorBasedBuilder):
    """Digits under corruptions, configured as TFDS's own corrupted sets are."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name)
        for name in ("identity", "darkness_1", "darkness_2", "turn")
    ]

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        # As ImageNet-C's, of which there is no test split with labels.
        name = "validation" if self.builder_config.name == "turn" else "test"
        return {name: self._generate_examples()}

    def _generate_examples(self):
        images, labels = corrupted_digits(self.builder_config.name)
        for number, (image, label) in enumerate(
            zip(images, labels, strict=True)
        ):
            yield number, {"image": image, "label": int(label)}


def corrupted_digits(name):
    """The last 100 digits, uint8, under a corruption of `DigitsCorrupted`."""
    bunch = sklearn.datasets.load_digits()
    levels = bunch.images[-100:, :, :, None] * 15.9375
    if name == "turn":
        levels = levels[:, ::-1, ::-1]
    elif name != "identity":
        levels = levels / (1 + int(name[-1]))
    return levels.astype(np.uint8), bunch.target[-100:]


def prepare_corrupted(folder):
    """Writes all of `DigitsCorrupted`, as `tfds build` does."""
    tfds.disable_progress_bar()
    for config in DigitsCorrupted.BUILDER_CONFIGS:
        builder = DigitsCorrupted(config=config.name, data_dir=folder)
        builder.download_and_prepare()
