"""Images under common corruptions: TFDS sets such as cifar10_corrupted.

Each configuration of such a set is one corruption, at one severity where its
name ends in a number: fog_3 (Hendrycks and Dietterich, ICLR 2019). Which are
prepared is found out without TensorFlow.
"""

import re

from mart_tf import options
from mart_tf.data import names

# Of mnist_corrupted: the images as they are.
_UNCHANGED = "identity"
_FORM = re.compile(r"(.+)_(\d{1,3})", re.ASCII)


def divided(name):
    """The corruption and the severity of "fog_3"; None where it says none."""
    match = _FORM.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def choose(places, *, only: tuple[str, ...] = ()):
    """The configurations that are asked for, sorted.

    Args:
        places: A directory for each that is prepared, by name.
        only: Names of corruptions ("fog") and of configurations ("fog_3");
            default: all, but the images as they are.

    Raises:
        ValueError: If a name is of none of them.
    """
    chosen = [name for name in places if name != _UNCHANGED]
    if only:
        of = {name: {name, divided(name)[0]} for name in places}
        for asked in only:
            if not any(asked in each for each in of.values()):
                corruptions = sorted({divided(name)[0] for name in places})
                raise options.unknown("corruption", asked, corruptions)
        chosen = [name for name in places if of[name] & set(only)]
    # fog_10 after fog_9.
    return sorted(chosen, key=lambda name: (divided(name)[0], len(name), name))


def find(text, data_dir=None):
    """The prepared configurations that a spec names.

    Args:
        text: `cifar10_corrupted`, or `cifar10_corrupted:only=fog+contrast_5`.
        data_dir: Where TFDS data is prepared, as of `sources.load`.

    Returns:
        A directory for each configuration, by name.

    Raises:
        ValueError: On an unknown name or option, or a set without any
            configuration that is prepared.
    """
    name = options.parse(text).name
    spec = options.Names(
        {name: "mart_tf.data.corrupted:choose"}, "corrupted set", ("places",)
    ).resolve(text)
    places = names.prepared_configurations(name, data_dir)
    chosen = choose(places, **spec.options) if places else []
    if not chosen:
        root = names.tfds_root(data_dir)
        raise ValueError(
            f"--corruptions={text}: no corruption of {name} is prepared in "
            f"{root}; prepare them with `tfds build {name} --data_dir={root}`, "
            "or say with --data_dir=DIR where they lie."
        )
    return {key: places[key] for key in chosen}


def read(place):
    """The images of a configuration, and the names of their classes.

    Its test split, or its validation split.

    Args:
        place: Its directory.

    Raises:
        ValueError: If it cannot be read.
    """
    return options.load("mart_tf.data.tfds:load_test")(place)
