"""Callbacks of a user's own: `--callbacks=module:function:key=value`.

What the command line names is the user's, and runs; what `run.json` says of
them is never imported, whoever reads it.
"""

from mart_tf import options

_NAMES = options.Names({}, "callback")


def complete(text):
    """The same names in their short form, as a run records them.

    Args:
        text: `module:function` with options, or several separated by commas.

    Raises:
        ValueError: On a module or a name that cannot be found, or an unknown
            option; nothing is imported to find that out where a source tells.
    """
    return ",".join(map(_NAMES.canonical, options.split_list(text)))


def create(text):
    """The callbacks that the functions or classes return, each called once.

    Args:
        text: As in `complete`.

    Raises:
        ValueError: As there, or if one returns anything else.
    """
    made = []
    for name in options.split_list(text):
        spec = _NAMES.resolve(name)
        returned = options.load(spec.import_path)(**spec.options)
        made += listed(returned, f"--callbacks={name} returned")
    return made


def check_rate(callbacks, schedule):
    """Refuses Keras's callbacks that set a rate which a schedule gives.

    Args:
        callbacks: Keras callbacks.
        schedule: The run's `schedule`, a spec.

    Raises:
        ValueError: Where Keras would, epochs later.
    """
    import keras

    setters = (
        keras.callbacks.LearningRateScheduler,
        keras.callbacks.ReduceLROnPlateau,
    )
    for each in callbacks:
        if isinstance(each, setters) and schedule != "constant":
            raise ValueError(
                f"The callback {type(each).__name__} sets the learning rate, "
                f"which --schedule={schedule} gives; expected "
                "--schedule=constant with it."
            )


def listed(callbacks, said):
    """A list of callbacks, of one or several.

    Args:
        callbacks: A `keras.callbacks.Callback`, or a list or tuple of them.
        said: How a message begins, such as "callbacks is".

    Raises:
        ValueError: If it is anything else.
    """
    import keras

    given = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    for each in given:
        if not isinstance(each, keras.callbacks.Callback):
            where = " a list with" if given is callbacks else ""
            what = (
                f"the class {each.__name__}"
                if isinstance(each, type)
                else f"a {type(each).__name__}"
            )
            raise ValueError(
                f"{said}{where} {what}; expected a keras.callbacks.Callback, "
                "or a list of them."
            )
    return list(given)
