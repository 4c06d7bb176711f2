"""What a run says of itself before it starts."""

import importlib.util
import pathlib

from mart_tf import screen
from mart_tf import threat as threat_model
from mart_tf.data import augmentation_names
from mart_tf.data import class_weights
from mart_tf.defenses import base
from mart_tf.runs import devices
from mart_tf.training import optimizers

_XLA = {
    False: "off",
    "attack": "compiles the attack, a minute or two",
    True: "compiles the step, a minute or two",
}


def threat(config):
    """The `ThreatModel` of a `Config`."""
    return threat_model.ThreatModel(
        config.norm, config.epsilon, *config.pixel_range
    )


def epsilon_ramp(config, defense):
    """Epochs over which epsilon grows from 0 in the attack of training.

    0 where it does not grow, None where nothing is attacked.

    Args:
        config: A resolved `Config`.
        defense: Its `Defense`.
    """
    if not defense.attacks:
        return None
    return config.epsilon_warmup_epochs if defense.reads_epsilon else 0.0


def tensorboard_folder(path):
    """Where a run writes its TensorBoard logs; None where it writes none.

    Args:
        path: The workdir.
    """
    if importlib.util.find_spec("tensorboard") is None:
        return None
    return pathlib.Path(path, "tensorboard")


def print_settings(console, training, steps, precision):
    """Prints every setting that holds, a line each.

    Args:
        console: A `rich.console.Console`.
        training: A `fitting.Training`.
        steps: Training steps in an epoch.
        precision: The policy, and why.
    """
    config, model = training.config, training.model
    replicas = training.together.strategy.num_replicas_in_sync
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    attack = (config.attack_steps, config.attack_step_size, config.random_start)
    ramp = epsilon_ramp(config, model.defense)
    warmed_up = f"epsilon warm-up {ramp:g} epochs, " if ramp else ""
    lines = [
        ("data", training.dataset.describe()),
        *_pool_lines(config, training.pool),
        *_weight_lines(config, training.class_weights),
        ("model", config.model),
        ("defense", config.defense),
        ("threat model", threat(config).describe()),
        ("attack", _attack_line(config, model, attack)),
        ("validation", _validation_line(config, attack)),
        (
            "training",
            f"{epochs} of {steps} steps, batch size {config.batch_size}, "
            f"{config.optimizer}, learning rate {config.learning_rate:g}, "
            f"{config.schedule}, {_decay(config)}, "
            f"label smoothing {config.label_smoothing:g}, "
            f"{warmed_up}{_augmented(config)}, "
            f"seed {config.seed}",
        ),
        ("update", config.update),
        ("average", _average_line(config)),
        ("precision", precision),
        ("devices", f"{replicas} {devices.kind()}"),
        ("XLA", _XLA[model.compiled_by_xla]),
        *([("callbacks", config.callbacks)] if config.callbacks else []),
        ("TensorBoard", _tensorboard_line(config)),
        ("workdir", config.workdir),
    ]
    for name, value in lines:
        screen.say(value, heading=f"{name:13}", on=console)
    if ramp and ramp > config.epochs:
        screen.say(
            f"Epsilon grows over {ramp:g} epochs, and the run ends after "
            f"{config.epochs}, at {100 * config.epochs / ramp:.0f} % of it; "
            "give more --epochs, or a smaller --epsilon_warmup_epochs.",
            on=console,
        )


def _attack_line(config, model, attack):
    described = model.defense.describe_attack(*attack)
    if config.attack_batch_norm == "batch":
        described += ", batch norm by the batch's own statistics"
    return described


def _augmented(config):
    if config.augment == augmentation_names.NONE:
        return "not augmented"
    return f"augmented by {config.augment}"


def _tensorboard_line(config):
    folder = tensorboard_folder(config.workdir)
    if folder is None:
        return "not written; pip install 'mart-tf[tensorboard]' for its logs"
    return f"tensorboard --logdir={folder}"


def _decay(config):
    own = optimizers.own_decay(config.optimizer)
    if own is not None:
        return f"decoupled weight decay {own:g}"
    return f"weight decay {config.weight_decay:g}"


def _average_line(config):
    if not config.ema:
        return "none of the weights is kept"
    after = f"{config.ema_warmup_epochs:g} epochs"
    if config.ema_warmup:
        after = f"{config.ema_warmup:g} of the run"
    return (
        f"of the weights, decay {config.ema:g} after {after}; it is what is "
        "validated"
    )


def _validation_line(config, attack):
    if not config.validation_images:
        return (
            "none: all images are trained on, and the last epoch counts; the "
            "accuracies below are those of training"
        )
    under = base.Defense().describe_attack(*attack)
    return (
        f"{config.validation_images:,} images, under {under}; the accuracies "
        "below are those on them"
    )


def _weight_lines(config, weights):
    if weights is None:
        return []
    said = config.class_weights
    if said == class_weights.BALANCED:
        said += f", from {weights.min():.3g} to {weights.max():.3g}"
    return [("classes", f"weights {said}, in the loss of training")]


def _pool_lines(config, pool):
    if pool is None:
        return []
    text = (
        f"{pool.describe()}; {100 * config.pool_fraction:g} % of each batch, "
        f"weight {config.unlabeled_weight:g}"
    )
    return [("pool", text)]
