"""Pools: images beside the data set's, with pseudo-labels or without.

A pool is what semi-supervised training takes a part of each batch from. It is
held in memory, but for images that lie uncompressed in an .npz file: they stay
there. TensorFlow is not imported here.
"""

import dataclasses
import os

from mart_tf import bounds
from mart_tf import data
from mart_tf.data import conversion
from mart_tf.data import mapping
from mart_tf.data import names
from mart_tf.data import sources

# Of a pool, without its name; beside them stand the keys of an .npz file.
_FIELDS = ("images", "labels", "labeled_by", "mean_confidence")
_FIELD_OF = {
    **dict(zip(_FIELDS, _FIELDS, strict=True)),
    **dict(zip(names.NPZ_POOL_KEYS, _FIELDS, strict=True)),
}


def _adopt(located, made):
    """The fields of a pool that a user's own function returned."""
    given = None
    if isinstance(made, dict):
        fields = {_FIELD_OF.get(key): value for key, value in made.items()}
        if (
            "images" in fields
            and None not in fields
            and len(fields) == len(made)
        ):
            return fields
        given = f"a dict with {', '.join(map(str, made)) or 'nothing'}"
    elif isinstance(made, list | tuple):
        if len(made) == 2:
            return dict(zip(("images", "labels"), made, strict=True))
        given = f"a {type(made).__name__} of {len(made)}"
    elif made is not None:
        return {"images": made}
    raise ValueError(
        f"The pool {located.name} returned {given}; expected an array of "
        "images, (images, labels), or a dict with images and perhaps labels, "
        "labeled_by and mean_confidence."
    )


_KIND = sources.Kind(
    "pool",
    data.POOLS,
    {
        "folder": names.images_below,
        "npz": names.npz_pool,
        "pickle": names.file,
    },
    _adopt,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Images without labels, or with pseudo-labels.

    Args:
        name: How messages name it: the spec it was loaded from.
        images: An array, or what `numpy.asarray` makes one of, `[n, height,
            width]` or `[n, height, width, channels]`: uint8 from 0 to 255,
            kept so, booleans, kept as uint8 of 0 and 255, or floating point
            in [0, 1], kept as float32. They are kept with channels.
        labels: Integers `[n]`, an array or what becomes one, or None.
        labeled_by: Who gave the labels, such as the workdir of a run, or None
            where it is not known.
        mean_confidence: Mean probability of the labels, or None.

    Raises:
        ValueError: If the images or the labels are anything else.
    """

    name: str
    images: object
    labels: object | None = None
    labeled_by: str | None = None
    mean_confidence: float | None = None

    def __post_init__(self):
        of = f"of the pool {self.name}"
        images = conversion.images(f"The array of images {of}", self.images)
        object.__setattr__(self, "images", images)
        if self.labels is None:
            return
        labels = conversion.labels(f"The array of labels {of}", self.labels)
        if len(labels) != len(images):
            raise ValueError(
                f"The pool {self.name} has {len(images)} images and "
                f"{len(labels)} labels; expected one for each image."
            )
        object.__setattr__(self, "labels", labels)

    def __len__(self):
        return len(self.images)

    @property
    def image_shape(self):
        return tuple(self.images.shape[1:])

    def describe(self):
        """One line for the user."""
        shape = "x".join(str(size) for size in self.image_shape)
        is_mapped = mapping.is_mapped(self.images)
        line = f"{self.name}: {len(self):,} images of {shape}"
        line += f", {'with' if self.labels is not None else 'without'} labels"
        if self.labeled_by:
            line += f" by {self.labeled_by}"
        if self.mean_confidence is not None:
            line += f", mean confidence {self.mean_confidence:.3f}"
        return f"{line}; read from disk" if is_mapped else line


def check_pool(spec, *, data_dir=None, download=False):
    """Refuses a pool that cannot be loaded, from names and files alone.

    TensorFlow is not imported and no network is touched.

    Args:
        spec: As in `load_pool`.
        data_dir: As in `load_pool`.
        download: Whether `load_pool` will be allowed to fetch the data.

    Raises:
        ValueError: On an unknown name or option, a file or a split that is not
            there, a folder without images, or an .npz file without `image`.
    """
    sources.find(spec, _KIND, data_dir, download)


def load_pool(spec, *, data_dir=None, download=False):
    """The images of a pool, and its pseudo-labels if it brings them.

    Args:
        spec: One of

            - `npz:PATH`: the arrays `image` and, where there are labels,
              `label`, and a text `labeled_by`, as `label_pool` writes them;
              images that `numpy.savez` wrote as uint8 or float32 stay in the
              file, which must not change then;
            - `folder:PATH`: every image in a folder and in the folders in it,
              links followed, without labels, whatever the folders are called;
              `size=64` resizes them;
            - the name of a TFDS set, such as `mnist`, its labels not read:
              `split=test` (default: train), `first=1000:count=20000` (rows
              1,000 to 20,999 of the split; default: all), `size=64`;
            - `pickle:PATH`: a dict of arrays, `data` and, where there are
              labels, `extrapolated_targets`, the form of Carmon et al.
              (NeurIPS 2019); nothing in it is executed;
            - `package.module:function` with options, that returns an array of
              images, `(images, labels)`, or a dict with `images` and perhaps
              `labels`, `labeled_by` and `mean_confidence`; `image` and `label`
              are read too, as in an .npz file.

        data_dir: Where TFDS data is prepared; default: $TFDS_DATA_DIR, or
            `~/tensorflow_datasets`.
        download: Whether TFDS may fetch data that is not there.

    Returns:
        A `Pool`, whose name is the spec.

    Raises:
        ValueError: As `check_pool`, and on images or labels that cannot be
            used.
    """
    if not isinstance(spec, str | os.PathLike):
        raise ValueError(
            f"The pool is {bounds.cut(repr(spec))}; expected a name such as "
            "npz:pool.npz. Of arrays it is mart_tf.data.Pool(name, images)."
        )
    located = sources.find(spec, _KIND, data_dir, download)
    return Pool(str(spec), **sources.read(located, _KIND, data_dir))


def check_fit(pool, dataset, batch_size, pool_fraction=0.5, unlabeled_weight=1):
    """Refuses a pool that training on a data set cannot use.

    Args:
        pool: A `Pool`.
        dataset: A `Dataset`.
        batch_size: Examples in a batch, those of the pool among them.
        pool_fraction: The pool's share of a batch.
        unlabeled_weight: Weight of a pool example.

    Raises:
        ValueError: If the pool has no labels, labels outside the classes,
            images of another shape, or fewer of them than its part of a batch;
            or if the fraction or the weight is out of range.
    """
    part_of_batch(pool, dataset.image_shape, batch_size, pool_fraction)
    check_weight(unlabeled_weight)
    outside = pool.labels[
        (pool.labels < 0) | (pool.labels >= dataset.num_classes)
    ]
    if outside.size:
        raise ValueError(
            f"The pool {pool.name} holds the label {outside[0]}; "
            f"{dataset.name} has the classes 0 to {dataset.num_classes - 1}: "
            "label the pool with a network for this data set."
        )


def part_of_batch(pool, image_shape, batch_size, pool_fraction):
    """How many examples of each batch are the pool's.

    The fraction of the batch, to the nearest whole number, but at least one
    example, and at least one left for the labelled data.

    Args:
        pool: A `Pool`.
        image_shape: That of the data set.
        batch_size: Examples in a batch.
        pool_fraction: The pool's share of a batch.

    Raises:
        ValueError: As `check_fit`, which looks at the labels too.
    """
    check_is_pool(pool)
    if pool.labels is None:
        raise ValueError(
            f"The pool {pool.name} has no labels to train on; label it once "
            f"with mart-label --workdir=RUN --pool={pool.name} "
            "--output=pool.npz and give --pool=npz:pool.npz (in Python: "
            "mart_tf.labeling.label_pool)."
        )
    if pool.image_shape != tuple(image_shape):
        raise ValueError(
            f"The images of the pool {pool.name} have shape "
            f"{pool.image_shape}; the data set's have {tuple(image_shape)}: "
            "resize or convert the pool."
        )
    bounds.share("pool_fraction", pool_fraction)
    if batch_size < 2:
        raise ValueError(
            f"batch_size is {batch_size}; with a pool, expected at least 2: "
            "one labelled example and one of the pool."
        )
    part = min(max(1, round(pool_fraction * batch_size)), batch_size - 1)
    if len(pool) < part:
        raise ValueError(
            f"The pool {pool.name} has {len(pool)} images, fewer than the "
            f"{part} that it gives to a batch of {batch_size}; choose a "
            "smaller batch_size or pool_fraction, or a larger pool."
        )
    return part


def check_is_pool(pool):
    """Refuses what is no `Pool`, such as its name or its images."""
    if not isinstance(pool, Pool):
        raise ValueError(
            f"The pool is {bounds.cut(repr(pool))}; expected a Pool, as "
            "mart_tf.data.load_pool returns one."
        )


def check_weight(unlabeled_weight):
    """Refuses a weight of pool examples that is below 0 or no number."""
    bounds.AT_LEAST_ZERO.check("unlabeled_weight", unlabeled_weight)
