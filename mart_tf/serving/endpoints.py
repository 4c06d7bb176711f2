"""What an exported version answers: its signatures.

`serving_default` takes images as the classifier does, `image_bytes` encoded
ones, `classify` tf.Examples that hold encoded ones. An encoded image is decoded
to the classifier's channels, resized to its height and width where it has
others (bilinear with antialiasing, its proportions not kept), and its levels 0
to 255 are spread over the pixel range.
"""

import dataclasses

import tensorflow as tf

from mart_tf import choices
from mart_tf import options
from mart_tf.models import outputs as model_outputs

NAMES = choices.SIGNATURES
DEFAULT, IMAGE_BYTES, CLASSIFY = NAMES
# What each calls its one input; TF Serving wants the last by that name.
INPUTS = {DEFAULT: "images", IMAGE_BYTES: "image_bytes", CLASSIFY: "inputs"}

# TensorFlow's own name for it, in its tf.Examples of images.
FEATURE = "image/encoded"

# What a decoder can give: grey, red-green-blue, the same with opacity.
_CHANNELS = (1, 3, 4)
# Of an encoded image: what cameras make.
_MOST_PIXELS = 8192 * 6144
# Images of one request that are decoded at the same time: a large one takes
# hundreds of megabytes.
_AT_ONCE = 4
# As far as a PNG's size stands in it, and less than any JPEG has.
_LEAST_BYTES = 24


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A classifier to be served.

    Attributes:
        model: A Keras model that computes in float32.
        outputs: "logits" or "probabilities", what it returns.
        image_shape: Shape of one image.
        pixel_range: Least and greatest value of a pixel; None if it is not
            known, as it may be where no signature takes encoded images.
        class_names: A name for each class, strings.
    """

    model: object
    outputs: str
    image_shape: tuple
    pixel_range: tuple | None
    class_names: tuple


def names(classifier, asked=None):
    """The signatures that a version gets.

    Args:
        classifier: A `Classifier`.
        asked: Names of `NAMES`; default: all that the classifier can give.

    Raises:
        ValueError: If one is asked for that there is not, or that the
            classifier cannot give, or the first is left out; or the pixel
            range is not known and one takes encoded images.
    """
    reason = _no_encoded_images(classifier.image_shape)
    if asked is None:
        asked = (DEFAULT,) if reason else NAMES
    for name in asked:
        if name not in NAMES:
            raise options.unknown("signature", name, NAMES)
        if reason and name != DEFAULT:
            raise ValueError(
                f"The signature {name!r} takes encoded images, and the model "
                f"takes {reason}; leave it out."
            )
    if DEFAULT not in asked:
        raise ValueError(
            f"The signatures {', '.join(asked) or '(none)'} lack "
            f"{DEFAULT!r}, which a server looks for; add it."
        )
    if set(asked) != {DEFAULT} and classifier.pixel_range is None:
        raise ValueError(
            f"The model {classifier.model.name!r} does not tell the range of "
            "its pixels, which encoded images are spread over; give "
            "pixel_range=(0, 1), or whatever it was trained on, or "
            f'signatures=["{DEFAULT}"] alone.'
        )
    return tuple(name for name in NAMES if name in asked)


def functions(classifier, asked):
    """Functions to trace: pairs of one and its `TensorSpec`, by signature."""
    model, shape = classifier.model, classifier.image_shape

    def answer(images):
        # The C++ session checks the type alone: another rank, let through,
        # aborts the server's process.
        images = tf.ensure_shape(images, [None, *shape])
        scores = model(images, training=False)
        logits = model_outputs.logits(scores, classifier.outputs)
        index = tf.argmax(logits, axis=-1)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "class_index": index,
            "class_name": tf.gather(_constant(classifier.class_names), index),
        }

    def answer_encoded(image_bytes):
        return answer(decode(image_bytes, shape, classifier.pixel_range))

    def classify(inputs):
        inputs = tf.ensure_shape(inputs, [None])
        features = {FEATURE: tf.io.FixedLenFeature([], tf.string)}
        encoded = tf.io.parse_example(inputs, features)[FEATURE]
        scores = answer_encoded(encoded)["probabilities"]
        names = _constant(classifier.class_names)
        return {
            "classes": tf.tile(names[tf.newaxis], [tf.shape(scores)[0], 1]),
            "scores": scores,
        }

    every = {DEFAULT: answer, IMAGE_BYTES: answer_encoded, CLASSIFY: classify}
    chosen = {}
    for name in asked:
        size, kind = [], tf.string
        if name == DEFAULT:
            size, kind = classifier.image_shape, tf.float32
        spec = tf.TensorSpec([None, *size], kind, name=INPUTS[name])
        chosen[name] = every[name], spec
    return chosen


def _decoded(encoded, channels):
    """The levels of one image, a PNG or a JPEG."""

    def either(channels):
        # It decodes both. TensorFlow's default for JPEG is fast, and up to 10
        # of 255 levels off.
        return tf.io.decode_jpeg(
            encoded, channels=channels, dct_method="INTEGER_ACCURATE"
        )

    def opaque():
        image = either(3)
        return tf.pad(image, [[0, 0], [0, 0], [0, 1]], constant_values=255)

    if channels != 4:
        return either(channels)
    # A JPEG has no opacity, and TensorFlow adds none.
    return tf.cond(
        tf.io.is_jpeg(encoded),
        opaque,
        lambda: tf.io.decode_png(encoded, channels=4),
    )


def decode(image_bytes, image_shape, pixel_range):
    """Images as a classifier takes them, from encoded ones.

    A small file may hold a large image: how large is read before it is decoded,
    and one of more pixels than `_MOST_PIXELS` refused. `_AT_ONCE` images are
    decoded at the same time.

    Args:
        image_bytes: PNG or JPEG, strings `[batch]`.
        image_shape: Height, width and channels.
        pixel_range: What levels 0 and 255 become.

    Returns:
        Float32 `[batch, height, width, channels]`.
    """
    height, width, channels = image_shape
    low, high = pixel_range

    def one(encoded):
        with tf.control_dependencies(_size_checked(encoded)):
            encoded = tf.identity(encoded)
        image = _decoded(encoded, channels)
        same = tf.reduce_all(tf.equal(tf.shape(image)[:2], [height, width]))
        # Not resized where nothing changes, so that no rounding comes in.
        image = tf.cond(
            same,
            lambda: tf.cast(image, tf.float32),
            lambda: tf.clip_by_value(
                tf.image.resize(image, [height, width], antialias=True),
                0.0,
                255.0,
            ),
        )
        return tf.ensure_shape(image, image_shape)

    # Another rank would abort the server's process.
    image_bytes = tf.ensure_shape(image_bytes, [None])
    levels = tf.map_fn(
        one,
        image_bytes,
        parallel_iterations=_AT_ONCE,
        fn_output_signature=tf.float32,
    )
    levels = tf.ensure_shape(levels, [None, *image_shape])
    return low + levels / 255.0 * (high - low)


def _size_checked(encoded):
    """Assertions that an encoded image is one, and not too large."""
    whole = tf.strings.length(encoded) >= _LEAST_BYTES
    padded = encoded + b"\0" * _LEAST_BYTES
    is_png = tf.equal(tf.strings.substr(padded, 0, 4), b"\x89PNG")
    is_jpeg = tf.equal(tf.strings.substr(padded, 0, 3), b"\xff\xd8\xff")

    def of_png():
        # Width and height, the first of its header.
        sizes = tf.io.decode_raw(
            tf.strings.substr(padded, 16, 8), tf.int32, little_endian=False
        )
        return tf.cast(sizes, tf.int64)

    def of_jpeg():
        shape = tf.io.extract_jpeg_shape(encoded, output_type=tf.int32)
        return tf.cast(shape[:2], tf.int64)

    sides = tf.case(
        [(whole & is_png, of_png), (whole & is_jpeg, of_jpeg)],
        default=lambda: tf.ones([2], tf.int64),
    )
    # Beyond int32 a side of a PNG is negative here; no product overflows.
    fits = tf.reduce_all((sides > 0) & (sides <= _MOST_PIXELS))
    return [
        tf.debugging.Assert(
            whole & (is_png | is_jpeg),
            ["An encoded image is neither PNG nor JPEG."],
        ),
        tf.debugging.Assert(
            fits & (tf.reduce_prod(sides) <= _MOST_PIXELS),
            [
                f"An encoded image has more than {_MOST_PIXELS:,} pixels; "
                "send a smaller one. Its sides:",
                sides,
            ],
        ),
    ]


def _no_encoded_images(image_shape):
    """What a classifier takes instead of encoded images, or None."""
    if len(image_shape) != 3:
        return f"inputs of shape {image_shape}"
    if image_shape[2] not in _CHANNELS:
        return f"{image_shape[2]} channels, where PNG and JPEG have 1, 3 or 4"
    return None


def _constant(class_names):
    return tf.constant([name.encode() for name in class_names])
