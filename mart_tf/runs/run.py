"""One training run: from a configuration to a workdir with a classifier."""

import contextlib
import dataclasses
import math
import shlex

import rich.console
import tensorflow as tf

from mart_tf import data
from mart_tf import defenses
from mart_tf import errors
from mart_tf import files
from mart_tf import screen
from mart_tf.data import class_weights
from mart_tf.models import loading
from mart_tf.runs import checkpoints
from mart_tf.runs import consent
from mart_tf.runs import curves
from mart_tf.runs import described
from mart_tf.runs import devices
from mart_tf.runs import events
from mart_tf.runs import fitting
from mart_tf.runs import history
from mart_tf.runs import initialization
from mart_tf.runs import overfitting
from mart_tf.runs import own_callbacks
from mart_tf.runs import signals
from mart_tf.runs import workdir
from mart_tf.runs import workers
from mart_tf.training import classifier as adversarial
from mart_tf.training import optimizers
from mart_tf.training import schedules
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
    strategy = together.strategy
    config, dataset = _data(config, record)
    replicas = strategy.num_replicas_in_sync
    pool = _pool(config, dataset)
    weights = None
    if config.class_weights is not None:
        weights = class_weights.of(config.class_weights, dataset)
    steps = _steps_per_epoch(config, dataset, pool, replicas)
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
        model = compiled_model(config, dataset, pool, steps, policy)
    model.defense.check_data(
        len(dataset.train), data.rows(dataset.train), dataset.name
    )
    described.print_settings(
        console,
        config,
        dataset,
        pool,
        model,
        steps,
        reason,
        replicas,
        weights,
    )
    facts = facts_of(config, dataset, model, policy)
    training = fitting.Training(
        config, model, dataset, pool, together, weights, tuple(callbacks)
    )
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
    nothing_left = _nothing_left(config, model, saved, finished)
    if nothing_left:
        screen.say(f"{config.workdir} {nothing_left}", on=console)
        return
    if not place.done:
        taken = initialization.apply(
            model.classifier, config.init_from, config.model
        )
        if taken:
            screen.say(taken, on=console)
    else:
        where = f"epoch {finished} of {config.epochs}"
        if position:
            where = f"step {position} of {steps} of epoch {finished + 1}"
        screen.say(f"Continuing {config.workdir} after {where}.", on=console)
    if together.is_chief:
        workdir.write(config, facts, record)
    if saved.rows and together.is_chief:
        # What is there may be damaged, or a row ahead.
        history.write(config.workdir, saved.rows)
    seen.farewells.append(tell.stopped)
    running = tell.running(
        epochs=config.epochs,
        steps=steps,
        batch_size=config.batch_size,
        done=place.done,
    )
    with running:
        try:
            fitting.fit(training, place, saved, seen, tell, console)
        except watch.Diverged as error:
            raise watch.Diverged(f"{error} {saved.describe()}") from error
    if not together.is_chief:
        # Which may still be writing the last epoch.
        return
    # One epoch is a point, and no curve.
    if len(saved.rows) > 1:
        screen.say(_drawn(config.workdir), on=console)
    workdir_flag = shlex.quote(f"--workdir={config.workdir}")
    code = " --allow_code" if consent.named(config) else ""
    screen.say(f"Evaluate it: mart-evaluate {workdir_flag}{code}", on=console)
    if int(saved.epoch) < config.epochs:
        screen.say(_why_stopped(config, model, saved), on=console)
    for sentence in _overfitted(config, model, saved):
        screen.say(sentence, on=console)
    screen.say(f"Finished: {_best_epoch(config, model, saved)}.", on=console)


def _why_stopped(config, model, saved):
    """Why a run ended before its last epoch, a sentence."""
    where = f"after epoch {int(saved.epoch)} of {config.epochs}"
    if _is_stopped_early(config, model, saved):
        return (
            f"Stopped early, {where}: --early_stopping_patience is "
            f"{config.early_stopping_patience}."
        )
    return f"A callback stopped the run {where}; the same command goes on."


def _is_stopped_early(config, model, saved):
    values = overfitting.accuracies(saved.rows, model.defense.selects_by)
    return overfitting.is_stopped(values, config.early_stopping_patience)


def _drawn(path):
    """Draws the curves of a finished run; a sentence."""
    try:
        return f"Curves: {curves.save(path)}"
    except (OSError, ValueError) as error:
        # The run itself is safe.
        return (
            f"The curves are not drawn ({errors.first_line(error)}); "
            f"mart-train --curves={path} draws them."
        )


def _nothing_left(config, model, saved, finished):
    """Why a run does not go on, or None."""
    if finished >= config.epochs:
        return (
            f"has finished its {finished} epochs; there is nothing to do. Give "
            "a larger --epochs to train on."
        )
    if _is_stopped_early(config, model, saved):
        return (
            f"has stopped early, after epoch {finished}; there is nothing to "
            "do. Give a larger --early_stopping_patience, or 0, to train on."
        )
    return None


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
    images = len(dataset.validation)
    return dataclasses.replace(config, validation_images=images), dataset


def _best_epoch(config, model, saved):
    """Which epoch is the best, in a few words."""
    if not config.validation_images:
        return (
            f"epoch {int(saved.epoch)}, the last, stands for the best, as "
            "there is no validation split to choose by"
        )
    return (
        f"best epoch {saved.best_epoch}, with "
        f"{model.defense.selects_by.replace('_', ' ')} "
        f"{100 * float(saved.best_accuracy):.1f} % on the validation split"
    )


def _overfitted(config, model, saved):
    """A sentence if the last epoch lost what the best one had."""
    name = model.defense.selects_by
    values = overfitting.accuracies(saved.rows, name)
    gap = overfitting.gap(values, config.validation_images)
    if gap:
        kind = "Robust overfitting" if "robust" in name else "Overfitting"
        yield (
            f"{kind}: epoch {len(values)}, the last, is {100 * gap:.1f} points "
            "below the best on the validation split."
        )


def facts_of(config, dataset, model, policy):
    """What a run knows beside its configuration, for `run.json`."""
    return {
        "policy": policy,
        "image_shape": list(dataset.image_shape),
        "num_classes": dataset.num_classes,
        "class_names": list(dataset.class_names),
        "parameters": model.classifier.count_params(),
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


def compiled_model(config, dataset, pool, steps, policy):
    """The `AdversarialClassifier` of a run, its optimizer built.

    Args:
        config: A resolved `Config`.
        dataset: A `data.Dataset`.
        pool: A `data.Pool`, or None.
        steps: Training steps in an epoch.
        policy: "float32" or "mixed_bfloat16".
    """
    network = loading.build(
        workdir.model_spec(config.workdir, config.model),
        dataset.image_shape,
        dataset.num_classes,
        seed=config.seed,
        precision=policy,
        anew=config.init_from == initialization.ANEW,
    )
    model = adversarial.AdversarialClassifier(
        network,
        config.defense,
        described.threat(config),
        config.attack_steps,
        config.attack_step_size,
        random_start=config.random_start,
        epsilon_warmup_steps=math.ceil(config.epsilon_warmup_epochs * steps),
        update=config.update,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        ema=config.ema,
        ema_warmup_steps=math.ceil(config.ema_warmup_epochs * steps),
        max_skipped_steps=config.max_skipped_steps,
        outputs=config.outputs,
        seed=config.seed,
        rows=data.rows(dataset.train, pool),
    )
    rate = schedules.create(
        config.schedule, config.learning_rate, steps, config.epochs
    )
    replicas = model.distribute_strategy.num_replicas_in_sync
    model.compile(
        optimizers.create(config.optimizer, rate),
        jit_compile=devices.jit_compile(config.xla, replicas),
    )
    model.optimizer.build(model.trainable_variables)
    return model


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
