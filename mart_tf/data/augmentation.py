"""Augmentations: pure functions of the seed, the epoch and the row."""

import reprlib

import tensorflow as tf

from mart_tf import bounds
from mart_tf import noise
from mart_tf import options
from mart_tf.data import augmentation_names

_STREAM = 0x415547  # A stream of its own in the seed's numbers.
# What makes an augmentation of a layer.
_OF_LAYER = "mart_tf.data.keras_layers:KerasLayer"


class Augmentation:
    """What training does to an image before it sees it; base of every one.

    An example has one sequence of uniform numbers in each epoch, a function of
    (seed, epoch, row); the augmentations of a list take the next `draws` of it
    in turn. One that draws from nothing else is the same after a resume, on
    any number of replicas and in any process.

    A subclass keeps each parameter of its `__init__`, which have type hints,
    as an attribute of the same name: they are the options of its name.

    Attributes:
        draws: How many numbers an example is given.
    """

    draws = 1

    def check(self, image_shape):
        """Refuses images that it is not made for.

        Args:
            image_shape: Height, width, channels.

        Raises:
            ValueError: With one sentence.
        """

    def __call__(self, images, numbers):
        """The images as the network shall see them.

        Args:
            images: Tensor `[batch, height, width, channels]`, uint8, or
                float32 in [0, 1].
            numbers: Float32 tensor `[batch, draws]`, uniform in [0, 1).

        Returns:
            A tensor of the images' shape and dtype, and in their range.
        """
        raise NotImplementedError(f"{type(self).__name__} changes nothing.")


class Crop(Augmentation):
    """Zeros around an image, and of that a part of the image's size.

    He et al. (CVPR 2016), section 4.2, on CIFAR-10: 4 pixels on each side.

    Args:
        padding: Pixels on each side, from 1 to the shorter side of the image.
    """

    # The row and the column of its first pixel in the padded image.
    draws = 2

    def __init__(self, padding: int = 4):
        self.padding = bounds.OPTIONS["padding"].check("crop:padding", padding)

    def check(self, image_shape):
        _check_side("crop", "padding", self.padding, image_shape)

    def __call__(self, images, numbers):
        height, width = images.shape[1:3]
        places = tf.cast(numbers * (2 * self.padding + 1), tf.int32)
        rows = places[:, :1] + tf.range(height)
        columns = places[:, 1:] + tf.range(width)
        around = [self.padding, self.padding]
        images = tf.pad(images, [[0, 0], around, around, [0, 0]])
        images = tf.gather(images, rows, axis=1, batch_dims=1)
        return tf.gather(images, columns, axis=2, batch_dims=1)


class Flip(Augmentation):
    """Left and right exchanged, in some of the images.

    Args:
        probability: Of an image to be flipped, from 0 to 1.
    """

    def __init__(self, probability: float = 0.5):
        self.probability = bounds.SHARE.check("flip:probability", probability)

    def __call__(self, images, numbers):
        flipped = numbers < self.probability
        return tf.where(flipped[..., None, None], images[:, :, ::-1], images)


class Cutout(Augmentation):
    """A square of zeros somewhere in an image (DeVries and Taylor, 2017).

    Its centre is uniform over the pixels of the image, so that the border may
    cut it (section 3 of arXiv:1708.04552). Of an even size the centre is the
    pixel below and right of the middle. Zero is black, as around a `Crop`; in
    the paper, whose images are normalized before, it is the mean of the
    training set.

    Args:
        size: Side of the square in pixels, from 1 to the shorter side of the
            image: 16 for CIFAR-10 and 8 for CIFAR-100 in the paper.
        probability: Of an image to be cut, from 0 to 1.
    """

    # The row and the column of the centre, and whether it is cut.
    draws = 3

    def __init__(self, size: int, probability: float = 1.0):
        self.size = bounds.OPTIONS["size"].check("cutout:size", size)
        self.probability = bounds.SHARE.check("cutout:probability", probability)

    def check(self, image_shape):
        _check_side("cutout", "size", self.size, image_shape)

    def __call__(self, images, numbers):
        height, width = images.shape[1:3]
        rows = self._inside(numbers[:, :1], height)
        columns = self._inside(numbers[:, 1:2], width)
        inside = rows[:, :, None] & columns[:, None, :]
        inside &= numbers[:, 2, None, None] < self.probability
        return tf.where(inside[..., None], tf.zeros_like(images), images)

    def _inside(self, numbers, length):
        """Which rows or columns of an image are the square's."""
        centre = tf.cast(numbers * length, tf.int32)
        first = centre - self.size // 2
        places = tf.range(length)
        return (places >= first) & (places < first + self.size)


def create(augment, image_shape):
    """The augmentations of a list, in order, made and tried.

    Args:
        augment: Text as `--augment` takes it, an `Augmentation`, a Keras layer
            for images, or a list of specs, augmentations and layers.
        image_shape: Height, width, channels.

    Returns:
        A list of `Augmentation`.

    Raises:
        ValueError: On an unknown name or option, an option out of its range,
            what is no augmentation, or none for such images.
    """
    made = [_made(item) for item in augmentation_names.listed(augment)]
    for augmentation in made:
        augmentation.check(tuple(image_shape))
        for dtype in (tf.uint8, tf.float32):
            _try(augmentation, tf.zeros([2, *image_shape], dtype))
    return made


def numbers_of(indices, seed, epoch, count):
    """The first numbers of each example in an epoch.

    Args:
        indices: Int64 tensor `[batch]`, the examples' rows.
        seed: An integer.
        epoch: An integer or an int64 scalar.
        count: How many.

    Returns:
        A float32 tensor `[batch, count]`, uniform in [0, 1).
    """
    stream = noise.fold(tf.constant(seed, tf.int64), _STREAM)
    return noise.uniform(
        noise.seeds(noise.fold(stream, epoch), indices), [count]
    )


def augment(images, indices, seed, epoch, augmentations):
    """The examples as an epoch sees them.

    Args:
        images: Tensor `[batch, height, width, channels]`.
        indices, seed, epoch: As in `numbers_of`.
        augmentations: What `create` returns.

    Returns:
        A tensor of the images' shape and dtype.
    """
    counts = [augmentation.draws for augmentation in augmentations]
    numbers = numbers_of(indices, seed, epoch, sum(counts))
    for augmentation, own in zip(
        augmentations, tf.split(numbers, counts, axis=1), strict=True
    ):
        images = augmentation(images, own)
    return images


def _made(item):
    made = item
    if isinstance(item, str):
        spec = augmentation_names.resolve(item)
        made = options.load(spec.import_path)(**spec.options)
    if isinstance(made, Augmentation):
        return made
    if hasattr(made, "get_random_transformation"):
        return options.load(_OF_LAYER)(made)
    raise ValueError(
        f"Augmentation {reprlib.repr(item)} is a {type(made).__name__}; "
        "expected a subclass of mart_tf.data.Augmentation, or a layer of Keras "
        "that transforms images."
    )


def _try(augmentation, images):
    """Refuses one that makes something else of images than images."""
    numbers = tf.zeros([len(images), augmentation.draws])
    changed = tf.convert_to_tensor(augmentation(images, numbers))
    if (changed.shape, changed.dtype) != (images.shape, images.dtype):
        named = getattr(augmentation, "layer", augmentation)
        raise ValueError(
            f"The augmentation {type(named).__name__} made "
            f"{changed.dtype.name} {changed.shape} of {images.dtype.name} "
            f"{images.shape}; expected the images' shape and dtype."
        )


def _check_side(name, option, value, image_shape):
    height, width, _ = image_shape
    if value > min(height, width):
        raise ValueError(
            f"{name} has {option}={value}, and the images have {height}x"
            f"{width} pixels; expected at most {min(height, width)}."
        )
