"""How a run begins or goes on, from a command line or from Python."""

from mart_tf import environment
from mart_tf import places
from mart_tf import screen
from mart_tf.runs import cluster
from mart_tf.runs import initialization
from mart_tf.runs import keywords
from mart_tf.runs import loaded
from mart_tf.runs import own_callbacks
from mart_tf.runs import workdir


def checked(config, allow_code=False):
    """What a configuration asks for, as far as it is known without TensorFlow.

    Args:
        config: A `Config`, its defaults not filled in.
        allow_code: Whether a run that `init_from` names may bring code of its
            own.

    Returns:
        A resolved `Config`; the record of the run that it continues, or None;
        the `Members` of its cluster, or None.

    Raises:
        ValueError: On anything that no run could start with.
    """
    config = config.resolved()
    members = cluster.of_environment(config.strategy)
    places.check_folder("--workdir", config.workdir, "the run")
    record = workdir.prepare(config)
    if config.init_from is not None and record is None:
        initialization.check(config.init_from, allow_code, config.model)
    return config, record, members


def train_run(*, callbacks=(), allow_code=False, verbose=1, **settings):
    """Trains a run on disk as `mart-train` does, and returns it.

    The same call continues an unfinished run, in Python or on the command
    line, and returns a finished one as it is.

        run = mart_tf.train_run(defense="mart:regularization=6", epochs=10)

    Args:
        callbacks: Keras callbacks, one or a list, which leave no trace on the
            disk; or a text as `--callbacks` takes it, which is recorded.
        allow_code: As `--allow_code`: whether a run that `init_from` names may
            bring code of its own.
        verbose: 0: nothing is printed; 1: what the program prints.
        settings: The flags of mart-train by their names; None is the default.
            Where a name is taken, so is a function or a class of a module that
            can be imported, and an instance of a defense, an update, an
            augmentation or an optimizer, which brings its learning rate: a
            run records the name and the options that make it again.

    Returns:
        A `Run`, as `load_run` gives it.

    Raises:
        ValueError: On anything that the program refuses, in its sentence, and
            on an object that a run on disk could not make again.
        KeyboardInterrupt: On Ctrl-C; the run is saved and can go on.
    """
    if isinstance(callbacks, str):
        settings, callbacks = settings | {"callbacks": callbacks}, ()
    config, record, members = checked(keywords.config(settings), allow_code)

    # The settings are good: only now is TensorFlow imported.
    from mart_tf.runs import run
    from mart_tf.runs import signals

    own = own_callbacks.listed(callbacks, "callbacks is")
    environment.grow_gpu_memory()
    console = screen.console(quiet=not verbose)
    try:
        with environment.kept_float32():
            run.train(config, record, console, None, members, own)
    except signals.Stopped as stopped:
        raise stopped.as_python_has_it() from None
    return loaded.Run(config.workdir, allow_code=True)
