"""Images and labels: sources and pools by name, and the input pipeline.

`SOURCES`, `POOLS`, `AUGMENTATIONS` and `DEFAULTS` are the tables of names and
of what each set asks for; nothing is read, and no TensorFlow imported, until a
set is loaded.
"""

import dataclasses
import typing

from mart_tf import lazy
from mart_tf import options

if typing.TYPE_CHECKING:
    from mart_tf.data.augmentation import Augmentation as Augmentation
    from mart_tf.data.augmentation import Crop as Crop
    from mart_tf.data.augmentation import Cutout as Cutout
    from mart_tf.data.augmentation import Flip as Flip
    from mart_tf.data.overlap import check_apart as check_apart
    from mart_tf.data.pipeline import arrays as arrays
    from mart_tf.data.pipeline import evaluation_batches as evaluation_batches
    from mart_tf.data.pipeline import rows as rows
    from mart_tf.data.pipeline import spread as spread
    from mart_tf.data.pipeline import steps_per_epoch as steps_per_epoch
    from mart_tf.data.pipeline import training_batches as training_batches
    from mart_tf.data.pools import Pool as Pool
    from mart_tf.data.pools import check_fit as check_fit
    from mart_tf.data.pools import check_pool as check_pool
    from mart_tf.data.pools import load_pool as load_pool
    from mart_tf.data.randaugment import RandAugment as RandAugment
    from mart_tf.data.sampling import sample as sample
    from mart_tf.data.sources import check as check
    from mart_tf.data.sources import load as load
    from mart_tf.data.splits import Dataset as Dataset
    from mart_tf.data.splits import Source as Source
    from mart_tf.data.splits import memory_split as memory_split

SOURCES = {
    "digits": "mart_tf.data.digits:load",
    "tfds": "mart_tf.data.tfds:load",
    "folder": "mart_tf.data.folder:load",
    "npz": "mart_tf.data.npz:load",
}

POOLS = {
    "folder": "mart_tf.data.folder:load_pool",
    "npz": "mart_tf.data.npz:load_pool",
    "pickle": "mart_tf.data.unpickling:load_pool",
    "tfds": "mart_tf.data.tfds:load_pool",
}

AUGMENTATIONS = {
    "crop": "mart_tf.data.augmentation:Crop",
    "cutout": "mart_tf.data.augmentation:Cutout",
    "flip": "mart_tf.data.augmentation:Flip",
    "randaugment": "mart_tf.data.randaugment:RandAugment",
}


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What a data set asks for where the user says nothing.

    Args:
        model: A spec of `mart_tf.models.MODELS`.
        epsilon: In units of the pixel range [0, 1], in linf.
        augment: What training does to the images: names of `AUGMENTATIONS`;
            "crop,flip", as is usual for CIFAR-10, or "none".
        epochs, batch_size, learning_rate, schedule, weight_decay,
            epsilon_warmup_epochs: As the flags of `mart-train`.
    """

    model: str = "resnet18"
    epsilon: float = 8 / 255
    augment: str = "none"
    epochs: int = 120
    batch_size: int = 128
    learning_rate: float = 0.01
    schedule: str = "constant"
    weight_decay: float = 0.0
    epsilon_warmup_epochs: float = 0.0


_CIFAR = Defaults(
    augment="crop,flip", schedule="piecewise:at=75+90", weight_decay=3.5e-3
)
_MNIST = Defaults(
    model="small_cnn",
    epsilon=0.3,
    epochs=18,
    schedule="piecewise:at=12+16",
    epsilon_warmup_epochs=2.0,
)

DEFAULTS = {
    "digits": Defaults(
        model="digits_cnn",
        epsilon=0.15,
        epochs=30,
        batch_size=32,
        learning_rate=0.02,
        schedule="piecewise:at=21+27",
        epsilon_warmup_epochs=4.0,
    ),
    "mnist": _MNIST,
    "fashion_mnist": dataclasses.replace(_MNIST, epsilon=0.1),
    "kmnist": _MNIST,
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "svhn_cropped": dataclasses.replace(_CIFAR, augment="none"),
}


def defaults(spec):
    """The `Defaults` of a data set.

    Args:
        spec: Such as "mnist" or "folder:PATH".
    """
    return DEFAULTS.get(options.parse(spec).name, Defaults())


__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "Augmentation": "mart_tf.data.augmentation:Augmentation",
        "Crop": "mart_tf.data.augmentation:Crop",
        "Cutout": "mart_tf.data.augmentation:Cutout",
        "Flip": "mart_tf.data.augmentation:Flip",
        "check": "mart_tf.data.sources:check",
        "load": "mart_tf.data.sources:load",
        "Dataset": "mart_tf.data.splits:Dataset",
        "Source": "mart_tf.data.splits:Source",
        "memory_split": "mart_tf.data.splits:memory_split",
        "Pool": "mart_tf.data.pools:Pool",
        "check_apart": "mart_tf.data.overlap:check_apart",
        "check_fit": "mart_tf.data.pools:check_fit",
        "check_pool": "mart_tf.data.pools:check_pool",
        "load_pool": "mart_tf.data.pools:load_pool",
        "RandAugment": "mart_tf.data.randaugment:RandAugment",
        "arrays": "mart_tf.data.pipeline:arrays",
        "evaluation_batches": "mart_tf.data.pipeline:evaluation_batches",
        "rows": "mart_tf.data.pipeline:rows",
        "sample": "mart_tf.data.sampling:sample",
        "spread": "mart_tf.data.pipeline:spread",
        "steps_per_epoch": "mart_tf.data.pipeline:steps_per_epoch",
        "training_batches": "mart_tf.data.pipeline:training_batches",
    },
)
