"""How an AdversarialClassifier trains: for a person, and as Keras saves it."""

import dataclasses

import keras

from mart_tf import defenses
from mart_tf import options
from mart_tf import threat as threat_model
from mart_tf import training
from mart_tf.training import counters

# Kept as they were given.
_PLAIN = (
    "attack_steps",
    "attack_step_size",
    "random_start",
    "attack_batch_norm",
    "epsilon_warmup_steps",
    "weight_decay",
    "label_smoothing",
    "outputs",
    "seed",
)
_OBJECTS = ("classifier", "defense", "update")


def shown(model):
    """Every setting of a model, defaults filled in: plain values by name."""
    plain = {name: getattr(model, name) for name in _PLAIN}
    size = model.attack_step_size or model.threat.epsilon / 4.0
    return {
        "defense": _spelled(model.defense, defenses.DEFENSES),
        **dataclasses.asdict(model.threat),
        **plain,
        "attack_step_size": size,
        "update": _spelled(model.update, training.UPDATES),
        "ema": model.averages.decay,
        "ema_warmup_steps": model.averages.warmup_steps,
        "max_skipped_steps": model.skips.limit,
        "steps": counters.number(model.step),
    }


def config(model):
    """The arguments of a model, as Keras saves them."""
    saved = keras.saving.serialize_keras_object
    return {
        **{name: getattr(model, name) for name in _PLAIN},
        **{name: saved(getattr(model, name)) for name in _OBJECTS},
        "threat": dataclasses.asdict(model.threat),
        "ema": model.averages.decay,
        "ema_warmup_steps": model.averages.warmup_steps,
        "max_skipped_steps": model.skips.limit,
        "rows": model.memory.rows,
    }


def restored(saved, custom_objects=None):
    """The arguments that `config` wrote."""
    arguments = dict(saved)
    # A class is registered when its module is first imported.
    for table in (defenses.DEFENSES, training.UPDATES):
        for import_path in table.values():
            options.load(import_path)
    for name in _OBJECTS:
        arguments[name] = keras.saving.deserialize_keras_object(
            arguments[name], custom_objects=custom_objects
        )
    arguments["threat"] = threat_model.ThreatModel(**arguments["threat"])
    return arguments


def _spelled(chosen, table):
    """The spec of a defense or an update, with every option."""
    names = {import_path: name for name, import_path in table.items()}
    kind = type(chosen)
    name = names.get(f"{kind.__module__}:{kind.__name__}", kind.__name__)
    values = chosen.get_config().items()
    return ":".join([name, *(f"{key}={value}" for key, value in values)])
