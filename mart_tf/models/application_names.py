"""Networks of `keras.applications`: names, options, limits, without TensorFlow.

    keras:MobileNetV2:alpha=0.35

Read from the source of the Keras that is installed: what a network's function
takes beside what `applications` settles is an option of its name.
"""

import dataclasses

from mart_tf import models
from mart_tf import options
from mart_tf import parameters

NAME = "keras"

# What `preprocess_input` of a module of keras.applications does to pixels from
# 0 to 255: see `applications.preprocessed`.
PREPROCESSING = {
    "convnext": "included",
    "densenet": "torch",
    "efficientnet": "included",
    "efficientnet_v2": "included",
    "inception_resnet_v2": "tf",
    "inception_v3": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "mobilenet_v3": "included",
    "nasnet": "tf",
    "resnet": "caffe",
    "resnet_v2": "tf",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "tf",
}

# Least height and width of an image, where it is not 32.
_LEAST = {"inception_resnet_v2": 75, "inception_v3": 75, "xception": 71}

_KIND = "network of keras.applications"
# Parameters of their functions that are not the user's to set.
_RESERVED = (
    "input_shape",
    "include_top",
    "weights",
    "input_tensor",
    "pooling",
    "classes",
    "classifier_activation",
    "name",
    "include_preprocessing",
)
# Those of `applications.application` that are.
_OWN = ("weights", "size", "momentum")

# Options that a network has no layer for: those without batch norm, and, with
# weights="imagenet", Keras's own head, which a new one replaces.
_NO_BATCH_NORM = ("convnext", "vgg16", "vgg19")
_OF_HEAD = ("dropout", "dropout_rate")

# Numbers with which Keras would build no network, or none that fits a machine.
_LIMITS = {
    "alpha": (lambda value: 0.0 < value <= 10.0, "above 0 and at most 10"),
    "depth_multiplier": (lambda value: 1 <= value <= 64, "from 1 to 64"),
    **dict.fromkeys(
        ("dropout", "dropout_rate", "momentum"),
        (lambda value: 0.0 <= value < 1.0, "of at least 0 and below 1"),
    ),
}


def networks():
    """The networks: from each name to where Keras defines it."""
    return {
        name: import_path
        for name, import_path in parameters.reexported(
            "keras.applications"
        ).items()
        if name[0].isupper() and module_of(import_path) in PREPROCESSING
    }


def module_of(import_path):
    """The module of keras.applications that defines a network."""
    return import_path.partition(":")[0].rpartition(".")[2]


def least_size(network):
    """Height and width of the smallest image that a network takes."""
    return _LEAST.get(module_of(networks()[network]), 32)


def is_named(text):
    """Whether a model spec names a network of keras.applications."""
    return options.parse(text).name == NAME


def resolve(text):
    """Checks a spec such as `keras:MobileNetV2:alpha=0.35`.

    Args:
        text: The spec; `keras:name=MobileNetV2` is the same.

    Returns:
        An `options.Spec` of `applications.application`.

    Raises:
        ValueError: On an unknown network or option, or a value that no
            network has.
    """
    spec = _known().resolve(_named(text))
    check_options(spec.name, **spec.options)
    return dataclasses.replace(
        spec,
        text=text,
        name=NAME,
        argument=spec.name,
        options={"name": spec.name, **spec.options},
        import_path=models.MODELS[NAME],
    )


def canonical(text):
    """A spec in its short form, defaults left out."""
    return f"{NAME}:" + _known().canonical(_named(text))


def complete(text):
    """A spec with every option written that the network has."""
    absent = ()
    if resolve(text).options.get("weights") == "imagenet":
        absent = _OF_HEAD
    return f"{NAME}:" + _known(absent).complete(_named(text))


def check_name(network):
    """Refuses what is no network of keras.applications.

    Raises:
        ValueError: With the nearest name.
    """
    if network not in networks():
        raise options.unknown(_KIND, network, networks())


def check_no_other_form(spec):
    """Refuses `MobileNetV2` and `keras.applications:MobileNetV2`.

    Args:
        spec: An `options.Spec`, as it was parsed.

    Raises:
        ValueError: That names the form which is meant.
    """
    network = spec.name
    if spec.name == "keras.applications":
        network = (spec.argument or "").partition(":")[0]
    if network in networks():
        raise ValueError(
            f"Unknown model {spec.text!r}; did you mean '{NAME}:{network}'?"
        )


def check_options(network, weights="none", **values):
    """Refuses values of options with which a network cannot be built.

    Raises:
        ValueError: With one sentence, also on an option that none of its
            layers takes.
    """
    if weights not in ("none", "imagenet"):
        raise ValueError(
            f"Model {NAME}:{network} has weights={weights!r}; expected none or "
            "imagenet. Those of a file: --init_from=FILE, or load_weights."
        )
    module = module_of(networks()[network])
    if values.get("momentum") is not None and module in _NO_BATCH_NORM:
        raise ValueError(
            f"Model {NAME}:{network} has no batch norm; expected no momentum."
        )
    for key, value in values.items():
        if weights == "imagenet" and key in _OF_HEAD:
            raise ValueError(
                f"Model {NAME}:{network} with weights=imagenet has a new head, "
                f"without dropout; expected no {key}."
            )
        fits, expected = _LIMITS.get(key, (None, None))
        if fits and value is not None and not fits(value):
            raise ValueError(
                f"Model {NAME}:{network} has {key}={value:g}; expected a "
                f"number {expected}."
            )


def _named(text):
    """The spec without `keras:`, the network's name first."""
    spec = options.parse(text)
    given = dict(spec.options)
    named = given.pop("name", None)
    if spec.argument and named:
        raise ValueError(
            f"Model {text!r} names a network twice; expected "
            f"{NAME}:{spec.argument} or {NAME}:{named}."
        )
    network = spec.argument or named
    if not network:
        raise ValueError(
            f"Model {text!r} names no network; expected {NAME}:NAME with one "
            f"of: {', '.join(sorted(networks()))}."
        )
    check_name(network.partition(":")[0])
    return options.spelled(network, given)


def _known(absent=()):
    known = parameters.of(models.MODELS[NAME])
    return options.Names(
        networks(),
        _KIND,
        reserved=(*_RESERVED, *absent),
        more={key: known[key] for key in _OWN},
    )
