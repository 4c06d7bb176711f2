"""Images of another size: what is trained on is what is served.

Pillow resizes the files of a folder, TensorFlow a TFDS set and what a server is
sent; all by the triangle filter, as wide as the pixels that it makes.
"""

import io

import keras
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tiny_tfds

import mart_tf
from mart_tf import data


def folder(levels, size, place):
    Image.fromarray(levels).save(place / "image.png")
    return data.load_pool(f"folder:{place}:size={size}").images[0]


def tfds_set(levels, size, place):
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tiny_tfds.LABEL,
    }
    train = [{"image": levels, "label": 0}]
    tiny_tfds.prepare(place, features=features, train=train)
    return data.load_pool(f"tiny:size={size}", data_dir=place).images[0]


def served(levels, size, place):
    """By a network whose logits are its pixels."""
    shape = (size, size, 3)
    network = keras.Sequential([keras.Input(shape), keras.layers.Flatten()])
    version = mart_tf.export_saved_model(
        network, place / "served", pixel_range=(0, 255), verify=False
    )
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    answer = tf.saved_model.load(version).signatures["image_bytes"]
    logits = answer(image_bytes=tf.constant([file.getvalue()]))["logits"]
    return tf.reshape(logits, shape).numpy()


WAYS = pytest.mark.parametrize("way", [folder, tfds_set, served])


@WAYS
def test_four_pixels_to_two_by_a_triangle_filter_worked_by_hand(way, tmp_path):
    # The middles of two pixels lie at 1 and 3 of four, whose own are 0.5, 1.5,
    # 2.5 and 3.5; at distance d of 2 a triangle as wide weighs 1 - d / 2: 3/4,
    # 3/4, 1/4 and nothing, over their sum 3/7, 3/7, 1/7 and 0.
    down = np.array([0, 21, 70, 7])  # (63 + 70) / 7 and (21 + 210 + 21) / 7
    across = np.array([14, 0, 140, 77])  # (42 + 140) / 7 and (420 + 231) / 7
    expected = np.add.outer([19, 36], [26, 93])
    # Rows and columns are filtered apart, so their sum is the sum of both.
    levels = np.stack([np.add.outer(down, across) + 9 * c for c in range(3)], 2)
    made = way(levels.astype(np.uint8), 2, tmp_path)
    for channel in range(3):
        np.testing.assert_allclose(
            made[:, :, channel], expected + 9 * channel, atol=1e-3
        )


def test_a_folder_a_tfds_set_and_a_server_resize_alike(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    one, *others = (
        way(levels, 8, tmp_path).astype(float)
        for way in (folder, tfds_set, served)
    )
    assert np.ptp(one) > 50
    for other in others:
        np.testing.assert_allclose(other, one, atol=1)
