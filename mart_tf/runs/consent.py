"""A run may name code: it runs on another machine only if that is wanted."""

from mart_tf import data
from mart_tf import models
from mart_tf import options

# What a setting may name beside code.
_TABLES = {"model": models.MODELS, "dataset": data.SOURCES}
# Settings that may name code.
_SPECS = (*_TABLES, "defense", "update", "optimizer", "schedule", "augment")


def check(run, allowed, given=()):
    """Refuses a run whose loading would import a module that it names.

    Nothing is imported to find that out.

    Args:
        run: Its `record.Record`.
        allowed: Whether `--allow_code` was given.
        given: Names of settings that the command line says anew.

    Raises:
        ValueError: If it names code, and that is not allowed.
    """
    for setting in named(run.config):
        if allowed or setting in given:
            continue
        raise ValueError(
            f"{run.workdir} was trained with code of its own, --{setting}="
            f"{getattr(run.config, setting)}, which would run here; if you "
            "know it, give --allow_code (in Python allow_code=True)."
        )


def named(config):
    """The settings of a `Config` that name code, a list."""
    return [setting for setting in _TABLES if _code(config, setting)]


def other_code(config, known):
    """The settings of a `Config` that name code which another does not name.

    Args:
        config: A `Config`, of a run say.
        known: The one that the command line gives.
    """
    return [
        setting
        for setting in _SPECS
        if _code(config, setting) - _code(known, setting)
    ]


def _code(config, setting):
    """What a setting says of code: modules and what is taken from them."""
    text = getattr(config, setting)
    if not text or text.endswith(".keras"):
        return set()
    items = options.split_list(text) if setting == "augment" else [text]
    table = _TABLES.get(setting, ())
    return {
        (spec.name, spec.argument)
        for spec in map(options.parse, items)
        if spec.argument and spec.name not in table
    }
