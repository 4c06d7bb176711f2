"""Any network of `keras.applications`, from a run's pixels to logits."""

import re
from typing import Literal

import keras
from keras import layers
import tensorflow as tf

from mart_tf import errors
from mart_tf.models import application_names
from mart_tf.models import blocks
from mart_tf.models import initializers
from mart_tf.models import rebuilding

# Of pixels u in [0, 1], `scale * u + offset` of each channel is what
# `preprocess_input` makes of 255 u; "caffe" first turns RGB into BGR.
_MEANS, _DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_AFFINE = {
    "tf": ((2.0,) * 3, (-1.0,) * 3),
    "torch": (
        tuple(1.0 / d for d in _DEVIATIONS),
        tuple(-m / d for m, d in zip(_MEANS, _DEVIATIONS, strict=True)),
    ),
    "caffe": ((255.0,) * 3, (-103.939, -116.779, -123.68)),
    "included": ((255.0,) * 3, (0.0,) * 3),
}

# With weights="imagenet" its function builds a layer more.
_OTHERWISE_ANOTHER = ("efficientnet",)

_FETCHED = re.compile(r"URL fetch failure on (\S+?([^/\s]+)): ")


def application(
    input_shape,
    num_classes,
    name,
    *,
    weights: Literal["none", "imagenet"] = "none",
    size: int | None = None,
    momentum: float | None = None,
    seed=0,
    pixel_range=(0.0, 1.0),
    pretrained=True,
    **options,
):
    """A network of `keras.applications`, its preprocessing inside.

    Images in `pixel_range` go in; what the application's `preprocess_input`
    does to pixels from 0 to 255 is the network's first layers, so that an
    attack differentiates through it. A grey image becomes three equal
    channels. Batch norm is synchronized over replicas, as in every network of
    this package.

    Args:
        input_shape: Shape of an image, `(height, width, channels)`, with 1 or
            3 channels.
        num_classes: Number of logits.
        name: Such as "MobileNetV2".
        weights: "none", the whole network with initial weights; or "imagenet",
            the network up to its features with ImageNet's weights, their mean
            over the image, and a new dense layer. Keras finds the file in
            `~/.keras/models`, or downloads it.
        size: Height and width to which images are enlarged (bilinearly)
            inside the network, at least their own; default: they stay as they
            are.
        momentum: Of batch norm; default: the application's own, such as 0.999
            of MobileNetV2, whose statistics take thousands of steps.
        seed: Integer that determines the initial weights.
        pixel_range: Least and greatest value of a pixel.
        pretrained: False where other weights come after: the file of
            ImageNet's is not read, where the network can be built without it.
        options: What else the application's function takes, such as `alpha`.

    Returns:
        A `keras.Model` from images to float32 logits `[batch, num_classes]`.

    Raises:
        ValueError: On an unknown name, images that it cannot take, options
            that Keras refuses or no layer takes, or weights that cannot be
            read.
    """
    application_names.check_name(name)
    application_names.check_options(name, weights, momentum=momentum, **options)
    _check_images(name, input_shape, size)
    network = getattr(keras.applications, name)
    module = application_names.module_of(application_names.networks()[name])
    images = keras.Input(input_shape, name="images")
    x = preprocessed(images, module, pixel_range, size)
    transfers = weights == "imagenet"
    reads = transfers and (pretrained or module in _OTHERWISE_ANOTHER)
    head = {"classes": num_classes, "classifier_activation": None}
    if transfers:
        head = {"include_top": False, "pooling": "avg"}
    try:
        base = network(
            input_tensor=x,
            input_shape=x.shape[1:],
            weights="imagenet" if reads else None,
            **head,
            **options,
        )
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:
        # Keras raises a different class for each thing that is wrong; a
        # download that fails is a bare Exception.
        raise _refused(name, reads, error) from error
    logits = base.output
    if transfers:
        kernel = initializers.fan_in_uniform(seed, "logits/kernel")
        logits = blocks.logits(logits, num_classes, kernel)
    made = keras.Model(images, logits, name=name)
    model = _own_layers(made, seed, momentum)
    if reads:
        rebuilding.take_weights(model, made)
    return model


def preprocessed(images, module, pixel_range, size=None):
    """What an application's `preprocess_input` makes of images, in float32.

    Args:
        images: A Keras tensor `[batch, height, width, channels]`, 1 or 3
            channels.
        module: The application's module, such as "mobilenet_v2".
        pixel_range: Least and greatest value of a pixel, which become 0 and
            255 of the application.
        size: As of `application`.
    """
    x = images
    # Keras's layer Resizing would put a network that is called without
    # `training` into training mode.
    if size is not None:
        x = keras.ops.image.resize(x, (size, size))
    if x.shape[-1] == 1:
        x = keras.ops.repeat(x, 3, axis=-1)
    kind = application_names.PREPROCESSING[module]
    if kind == "caffe":
        x = keras.ops.flip(x, axis=-1)
    low, high = pixel_range
    scales, offsets = _AFFINE[kind]
    slopes = [scale / (high - low) for scale in scales]
    return layers.Rescaling(
        slopes,
        [o - low * s for o, s in zip(offsets, slopes, strict=True)],
        # In bfloat16 nearby grey levels would become one.
        dtype="float32",
        name="preprocess",
    )(x)


def _own_layers(model, seed, momentum):
    """The network again, its layers as this package's networks have them.

    Batch norm over all replicas, initial weights that are a function of the
    seed, and, whatever the policy, the last layer with weights and what
    follows it in float32.
    """
    places = {id(layer): place for place, layer in enumerate(model.layers)}
    last = max(n for n, layer in enumerate(model.layers) if layer.weights)

    def remade(layer):
        config = layer.get_config()
        if not isinstance(layer, keras.Layer):
            # An operation, such as a resize.
            return type(layer).from_config(config)
        place = places[id(layer)]
        if isinstance(layer, layers.BatchNormalization):
            config["synchronized"] = True
            if momentum is not None:
                config["momentum"] = momentum
        if place >= last:
            config["dtype"] = "float32"
        _seed_initializers(config, seed, place)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=remade)


def _seed_initializers(config, seed, place):
    """Seeds a layer's initializers, and those of the layers of a Sequential.

    Keras numbers the layers that it names: their places do not depend on what
    else was built.
    """
    for key, value in config.items():
        if key.endswith("initializer") and "seed" in _settings(value):
            own = initializers.derived_seed(seed, f"{place}/{key}")
            value["config"]["seed"] = own
    for inner, layer in enumerate(config.get("layers", ())):
        _seed_initializers(layer["config"], seed, f"{place}/{inner}")


def _settings(initializer):
    """The settings of a serialized initializer; {} where there is none."""
    return initializer["config"] if isinstance(initializer, dict) else {}


def _check_images(name, input_shape, size):
    """Refuses images that a network cannot take, before it is built."""
    height, width, channels = input_shape
    if channels not in (1, 3):
        raise ValueError(
            f"Model keras:{name} got images of {channels} channels; expected "
            "3, red, green and blue, or 1, which it repeats."
        )
    least = application_names.least_size(name)
    if size is not None and size < least:
        raise ValueError(
            f"Model keras:{name} has size={size}; expected at least {least}."
        )
    if size is not None and size < max(height, width):
        raise ValueError(
            f"Model keras:{name} has size={size}, and the images have {height}x"
            f"{width} pixels; expected at least {max(height, width)}: the "
            "network only enlarges, and data sets shrink by their own option "
            f"size, such as folder:PATH:size={size}."
        )
    if size is None and min(height, width) < least:
        raise ValueError(
            f"Model keras:{name} got images of {height}x{width} pixels; "
            f"expected at least {least}x{least}: keras:{name}:size={least} "
            "enlarges them inside the network."
        )


def _refused(name, reads, error):
    """A sentence for what Keras says of a network that it does not build."""
    said = errors.first_line(error)
    fetched = _FETCHED.search(str(error))
    if fetched:
        origin, file = fetched.groups()
        return ValueError(
            f"Model keras:{name} with weights=imagenet needs {file}, which "
            f"could not be downloaded ({said}); put the file from {origin} "
            "into ~/.keras/models ($KERAS_HOME/models where that is set), or "
            "give weights=none."
        )
    advice = ", or weights=none" if reads else ""
    return ValueError(
        f"Model keras:{name} cannot be built: {said}; expected other options"
        f"{advice}."
    )
