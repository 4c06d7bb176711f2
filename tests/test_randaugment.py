"""RandAugment's operations against Pillow's; Keras's layers by example."""

import keras
import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageOps
import pytest
import tensorflow as tf

from mart_tf import data
from mart_tf.data import augmentation
from mart_tf.data import augmentation_names
from mart_tf.data import randaugment

ROWS = np.arange(12, dtype=np.int64) * 7


def smooth(channels, count=12, height=13, width=12):
    """Uint8 images without noise, one channel of one level."""
    generator = np.random.default_rng(0)
    images = tf.image.resize(
        generator.uniform(20, 230, [count, 4, 4, channels]), [height, width]
    ).numpy()
    images[0, ..., 0] = 77
    return images.astype(np.uint8)


def by_pillow(name, image, magnitude, sign):
    """The operation as its authors have it, on a Pillow image."""
    share = magnitude / 10
    width, height = image.size
    factor = 1 + 0.9 * share * sign

    def moved(*matrix):
        return image.transform(image.size, Image.Transform.AFFINE, matrix)

    def enhanced(kind):
        return kind(image).enhance(factor)

    shear = 0.3 * share * sign
    return {
        "identity": lambda: image,
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "rotate": lambda: image.rotate(30 * share * sign),
        "solarize": lambda: ImageOps.solarize(image, round(256 - 256 * share)),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * share)),
        "color": lambda: enhanced(ImageEnhance.Color),
        "contrast": lambda: enhanced(ImageEnhance.Contrast),
        "brightness": lambda: enhanced(ImageEnhance.Brightness),
        "sharpness": lambda: enhanced(ImageEnhance.Sharpness),
        "shear_x": lambda: moved(1, shear, 0, 0, 1, 0),
        "shear_y": lambda: moved(1, 0, 0, shear, 1, 0),
        "translate_x": lambda: moved(
            1, 0, sign * round(150 / 331 * share * width), 0, 1, 0
        ),
        "translate_y": lambda: moved(
            1, 0, 0, 0, 1, sign * round(150 / 331 * share * height)
        ),
    }[name]()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_an_operation_is_pillows(name, channels):
    images = smooth(channels)
    which = (randaugment.OPERATIONS.index(name) + 0.5) / 14
    for magnitude, sign in [(0, 1), (3, 1), (3, -1), (7.5, -1), (10, 1)]:
        drawn = tf.constant([[which, 0.25 if sign < 0 else 0.75]] * len(images))
        augment = data.RandAugment(1, magnitude)
        changed = augment(tf.constant(images), drawn).numpy()
        expected = np.stack(
            [
                np.reshape(by_pillow(name, shown, magnitude, sign), image.shape)
                for image in images
                for shown in [Image.fromarray(np.squeeze(image))]
            ]
        )
        apart = np.abs(changed.astype(int) - expected)
        if name not in ("autocontrast", "rotate"):
            assert apart.max() == 0
        # Pillow rounds (i - low) 255 / (high - low) below a whole number now
        # and then, and takes the other of two pixels whose edge is hit.
        assert (apart > 0).mean() < 0.01
        assert name == "rotate" or apart.max() <= 1


def test_operations_follow_each_other():
    images = tf.constant(smooth(3))
    numbers = augmentation.numbers_of(ROWS, 0, 0, 6)
    once = data.RandAugment(1, 5.0)
    expected = images
    for place in range(3):
        expected = once(expected, numbers[:, 2 * place : 2 * place + 2])
    changed = data.RandAugment(3, 5.0)(images, numbers)
    np.testing.assert_array_equal(changed, expected)
    # In [0, 1] as in whole levels.
    shown = tf.cast(images, tf.float32) / 255.0
    floats = data.RandAugment(3, 5.0)(shown, numbers)
    np.testing.assert_allclose(255 * floats, expected, atol=1e-4)


def test_each_operation_is_as_likely():
    numbers = augmentation.numbers_of(np.arange(14_000), 0, 0, 2).numpy()
    counts = np.bincount((14 * numbers[:, 0]).astype(int), minlength=14)
    assert counts.shape == (14,) and np.ptp(counts) < 200


def layers():
    return [
        keras.layers.RandomRotation(0.1),
        keras.layers.RandomBrightness(0.3),
        keras.layers.RandomTranslation(0.2, 0.2),
    ]


@pytest.mark.parametrize("augment", ["randaugment", layers()])
@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_an_image_is_a_function_of_its_row_alone(augment, dtype):
    images = smooth(3)
    if dtype == tf.float32:
        images = images.astype(np.float32) / 255
    made = augmentation.create(augment, images.shape[1:])

    def augmented(images, rows, epoch=3):
        return augmentation.augment(images, rows, 5, epoch, made)

    whole = augmented(tf.constant(images), ROWS).numpy()
    assert whole.dtype == images.dtype and whole.max() <= images.dtype.type(255)
    order = [7, 2, 11]
    part = augmented(tf.constant(images[order]), ROWS[order])
    np.testing.assert_array_equal(part, whole[order])
    # In a data set, which builds a graph of its own, the same again.
    batches = tf.data.Dataset.from_tensors((images, ROWS)).repeat(2)
    for mapped in batches.map(augmented):
        np.testing.assert_array_equal(mapped, whole)
    other = augmented(tf.constant(images), ROWS, 4).numpy()
    assert (whole != other).any((1, 2, 3)).mean() > 0.6
    assert len({image.tobytes() for image in whole}) == len(whole)


def test_a_layer_is_kerass_own_with_the_examples_seed():
    # The same image and seed, whatever is beside it: half are flipped.
    images = np.repeat(smooth(1)[1:2], 200, axis=0)
    layer = keras.layers.RandomFlip("horizontal")
    [flip] = augmentation.create(layer, (13, 12, 1))
    numbers = augmentation.numbers_of(np.arange(200), 0, 0, 2)
    changed = flip(tf.constant(images), numbers).numpy()
    mirrored = (changed == images[:, :, ::-1]).all((1, 2, 3))
    same = (changed == images).all((1, 2, 3))
    assert 20 < mirrored.sum() < 180 and 20 < same.sum() < 180


def test_training_batches_resume():
    split = data.load("digits").train.select(np.arange(21))
    augment = "randaugment,keras.layers:RandomRotation:factor=0.1"

    def batches(start):
        return data.training_batches(
            split, 4, seed=3, augment=augment, start_step=start
        )

    straight = [inputs["image"] for inputs, _, _ in batches(0).take(7)]
    resumed = [inputs["image"] for inputs, _, _ in batches(5).take(2)]
    for one, other in zip(straight[5:], resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_specs_say_all_their_options():
    complete = augmentation_names.complete("randaugment")
    assert complete == "randaugment:operations=2:magnitude=3"
    spec = "keras.layers:RandomBrightness:factor=0.1"
    complete = augmentation_names.complete(spec)
    assert complete == f"{spec}:value_range=0+255"
    assert augmentation_names.complete(complete) == complete
    [made] = augmentation.create(complete, (8, 8, 1))
    assert list(made.layer.value_range) == [0, 255]


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("randaugment:magnitude=11", "magnitude is 11; expected a number from"),
        ("randaugment:operations=0", "operations is 0; expected a whole n"),
        ("keras.layers:RandAugment", "RandAugment does not take the seed that"),
        ("keras.layers:MixUp", "MixUp mixes the labels of images too"),
        (
            "keras.layers:RandomCrop:height=4:width=4",
            r"augmentation RandomCrop made uint8 \(2, 4, 4, 3\) of uint8",
        ),
        (
            "keras.layers:RandomBrightness:factor=0.2:value_range=0+1",
            r"value_range=[\[(]0, 1.; expected \(0, 255\), Keras's own: it",
        ),
        (
            keras.layers.RandomPosterization(4, value_range=(0, 1)),
            "RandomPosterization has value_range=",
        ),
        ("keras.layers:RandomRotation", "says no factor; expected keras.lay"),
        ("keras.layers:Flatten", "is a Flatten; expected a subclass of mart_"),
    ],
)
def test_refuses_in_one_sentence(augment, message):
    with pytest.raises(ValueError, match=message):
        augmentation.create(augment, (8, 9, 3))


def test_randaugment_refuses_images_without_colour_or_grey():
    with pytest.raises(ValueError, match="grey or RGB .* these are 8x8x2"):
        augmentation.create("randaugment", (8, 8, 2))
