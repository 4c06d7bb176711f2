"""One training run: from a configuration to a workdir with a classifier."""

import contextlib
import dataclasses
import math

import rich.console
import tensorflow as tf

from mart_tf import data
from mart_tf import defenses
from mart_tf import errors
from mart_tf import files
from mart_tf import screen
from mart_tf.data import augmentation
from mart_tf.data import class_weights
from mart_tf.models import loading
from mart_tf.runs import checkpoints
from mart_tf.runs import described
from mart_tf.runs import devices
from mart_tf.runs import ending
from mart_tf.runs import events
from mart_tf.runs import fitting
from mart_tf.runs import history
from mart_tf.runs import initialization
from mart_tf.runs import own_callbacks
from mart_tf.runs import signals
from mart_tf.runs import workdir
from mart_tf.runs import workers
from mart_tf.training import classifier as adversarial
from mart_tf.training import inputs
from mart_tf.training import optimizers
from mart_tf.training import schedules
from mart_tf.training import update as updates
from mart_tf.training import watch


def train(config, record, console, leave=None, members=None, callbacks=()):
    """Starts or continues a run, and trains it to its last epoch.

    Args:
        config: A resolved `Config`.
        record: The `Record` that `workdir.prepare` gave, or None.
        console: A `rich.console.Console` for the person who waits.
        leave: As of `signals.heeded`.
        members: The `cluster.Members` of the processes that train it together;
            then nothing may have used TensorFlow yet.
        callbacks: Keras callbacks beside the run's, and beside those that
            `config` names.

    Raises:
        signals.Stopped: If a signal asked to stop.
        workers.Lost: If another process of the run has gone.
        ValueError: On anything that forbids the run; then nothing has been
            written, unless weights became infinite in the middle of it.
    """
    # First of all: TensorFlow must not have done anything before.
    together = workers.trainers(members, config.strategy, console)
    if not together.is_chief:
        # The chief tells for all.
        console = rich.console.Console(quiet=True)
    with together.unbroken():
        _train(config, record, console, leave, together, callbacks)


def _train(config, record, console, leave, together, callbacks):
    """The run, once it is known who trains it."""
    _check_options(config)
    if config.callbacks:
        callbacks = [*own_callbacks.create(config.callbacks), *callbacks]
    own_callbacks.check_rate(callbacks, config.schedule)
    strategy = together.strategy
    config, dataset = _data(config, record)
    # Refused before anything is written.
    augmentation.create(config.augment, dataset.image_shape)
    pool = _pool(config, dataset)
    weights = None
    if config.class_weights is not None:
        weights = class_weights.of(config.class_weights, dataset)
    steps = _steps_per_epoch(
        config, dataset, pool, strategy.num_replicas_in_sync
    )
    if record:
        # The policy stays that of the run, on whatever machine it continues.
        policy = record.policy
        reason = f"{policy}, as the run began"
    else:
        policy, reason = devices.policy(config.precision)
    # TensorFlow's own default is on.
    tf.config.experimental.enable_tensor_float_32_execution(
        config.precision == "tf32"
    )
    with strategy.scope():
        network = config.model
        if record:
            # Its own copy: the file may have changed.
            network = workdir.model_spec(config.workdir, network)
        model = compiled_model(config, dataset, pool, steps, policy, network)
    model.defense.check_data(
        len(dataset.train), data.rows(dataset.train), dataset.name
    )
    facts = facts_of(config, dataset, model, policy)
    training = fitting.Training(
        config, model, dataset, pool, together, weights, tuple(callbacks)
    )
    described.print_settings(console, training, steps, reason)
    with (
        signals.heeded(leave) as seen,
        _held(config, record, together),
    ):
        _continue(training, record, facts, console, steps, seen)


@contextlib.contextmanager
def _held(config, record, together):
    """A scope in which no other process may write the workdir."""
    if not together.is_chief:
        yield
        return
    with files.held(config.workdir):
        if workdir.prepare(config) != record:
            raise ValueError(
                f"Another process began a run in {config.workdir} while this "
                "one started; give another --workdir."
            )
        yield


def _continue(training, record, facts, console, steps, seen):
    """Trains from where the workdir stands to the last epoch."""
    config, model, together = training.config, training.model, training.together
    workdir.check_files(record, facts["files"])
    tell = events.Log(config.workdir if together.is_chief else None)
    saved = checkpoints.Checkpoints(
        config.workdir, model, steps, tell, together
    )
    finished, position, warnings = saved.restore()
    place = fitting.Place(steps, finished, position)
    workers.check_alike(together, config, facts, place.done)
    instead = "Falling back to the one before it."
    if not place.done:
        instead = "Starting anew."
    for warning in warnings:
        screen.say(f"{warning} {instead}", on=console)
    classes = facts["num_classes"]
    nothing_left = ending.nothing_left(config, model, saved, classes, finished)
    if together.is_chief:
        # What is there may be damaged, or a row ahead.
        history.restore(config.workdir, saved.rows)
    if nothing_left:
        screen.say(f"{config.workdir} {nothing_left}", on=console)
        return
    if not place.done:
        taken = initialization.apply(
            model.classifier,
            config.init_from,
            config.model,
            config.pixel_range,
        )
        if taken:
            screen.say(taken, on=console)
            _build_anew(model, _optimizer(config, steps))
    else:
        where = f"epoch {finished} of {config.epochs}"
        if position:
            where = f"step {position} of {steps} of epoch {finished + 1}"
        screen.say(f"Continuing {config.workdir} after {where}.", on=console)
    if together.is_chief:
        workdir.write(config, facts, record)
    seen.farewells.append(tell.stopped)
    running = tell.running(
        epochs=config.epochs,
        steps=steps,
        batch_size=config.batch_size,
        done=place.done,
    )
    with running:
        try:
            devices = together.strategy.num_replicas_in_sync
            with errors.batch_that_fits(config.batch_size, devices):
                fitting.fit(training, place, saved, seen, tell, console)
        except watch.Diverged as error:
            raise watch.Diverged(f"{error} {saved.describe()}") from error
    if not together.is_chief:
        # Which may still be writing the last epoch.
        return
    for sentence in ending.sentences(config, model, saved, classes):
        screen.say(sentence, on=console)


def _data(config, record):
    """The configuration, its validation images counted, and the data set."""
    images = config.validation_images
    if images is None and record:
        # Those of the run; one of an earlier version has the default's.
        images = record.config.validation_images
    dataset = data.load(
        config.dataset,
        data_dir=config.data_dir,
        download=config.download,
        validation_images=images,
    )
    if record:
        record.check_data(dataset)
    config = dataclasses.replace(
        config, validation_images=len(dataset.validation)
    )
    # Of a run that goes on it is known only now whether there is a split.
    config.check_validation()
    return config, dataset


def facts_of(config, dataset, model, policy):
    """What a run knows beside its configuration, for `run.json`."""
    return {
        "policy": policy,
        "image_shape": list(dataset.image_shape),
        "num_classes": dataset.num_classes,
        "class_names": list(dataset.class_names),
        "data": dataset.fingerprint,
        "parameters": model.classifier.count_params(),
        "epsilon_ramp": described.epsilon_ramp(config, model.defense),
        "files": workdir.digests(config, model.defense.files),
    }


def _pool(config, dataset):
    """The pseudo-labelled images of a semi-supervised run, or None."""
    if config.pool is None:
        return None
    pool = data.load_pool(
        config.pool, data_dir=config.data_dir, download=config.download
    )
    data.check_fit(pool, dataset, config.batch_size, config.pool_fraction)
    data.check_apart(pool, dataset)
    return pool


def compiled_model(config, dataset, pool, steps, policy, network=None):
    """The `AdversarialClassifier` of a run, its optimizer built.

    Args:
        config: A resolved `Config`.
        dataset: A `data.Dataset`.
        pool: A `data.Pool`, or None.
        steps: Training steps in an epoch.
        policy: "float32" or "mixed_bfloat16".
        network: The spec of its network; default: that of the configuration.
    """
    network = loading.build(
        network or config.model,
        dataset.image_shape,
        dataset.num_classes,
        seed=config.seed,
        precision=policy,
        anew=config.init_from == initialization.ANEW,
        pixel_range=config.pixel_range,
    )
    model = adversarial.AdversarialClassifier(
        network,
        config.defense,
        described.threat(config),
        config.attack_steps,
        config.attack_step_size,
        random_start=config.random_start,
        attack_batch_norm=config.attack_batch_norm,
        epsilon_warmup_steps=math.ceil(config.epsilon_warmup_epochs * steps),
        update=config.update,
        weight_decay=config.weight_decay or 0.0,
        label_smoothing=config.label_smoothing,
        ema=config.ema,
        ema_warmup_steps=config.ema_warmup_steps(steps),
        max_skipped_steps=config.max_skipped_steps,
        outputs=config.outputs,
        seed=config.seed,
        rows=data.rows(dataset.train, pool),
    )
    replicas = model.distribute_strategy.num_replicas_in_sync
    model.compile(
        _optimizer(config, steps),
        jit_compile=devices.jit_compile(
            config.xla, replicas, meet=config.attack_batch_norm == "batch"
        ),
    )
    model.optimizer.build(model.trainable_variables)
    inputs.check_outputs(model, dataset.image_shape)
    return model


def _optimizer(config, steps):
    """The optimizer of a run, not built yet."""
    rate = schedules.create(
        config.schedule, config.learning_rate, steps, config.epochs
    )
    return optimizers.create(config.optimizer, rate)


def _build_anew(model, optimizer):
    """Gives the optimizer of a model the state that another begins with.

    Some (Keras's ScheduleFreeAdamW) copy the weights when they are built.
    """
    with model.distribute_strategy.scope():
        optimizer.build(model.trainable_variables)
    model.optimizer.set_weights(optimizer.variables)


def _steps_per_epoch(config, dataset, pool, replicas):
    if config.batch_size % replicas:
        raise ValueError(
            f"--batch_size is {config.batch_size}; expected a multiple of the "
            f"{replicas} devices, or --strategy=single."
        )
    a_pass = data.steps_per_epoch(
        dataset.train, config.batch_size, pool, config.pool_fraction
    )
    return config.steps_per_epoch or a_pass


def _check_options(config):
    """Refuses options of names before any data is read."""
    defenses.get(config.defense).check(
        described.threat(config), config.random_start
    )
    schedules.create(config.schedule, config.learning_rate, 1, config.epochs)
    updates.get(config.update)
    optimizers.check_one_decay(config.optimizer, config.weight_decay)
