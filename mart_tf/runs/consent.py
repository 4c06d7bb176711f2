"""A run may name code: it runs on another machine only if that is wanted."""

from mart_tf import data
from mart_tf import models
from mart_tf import options


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
    tables = {"model": models.MODELS, "dataset": data.SOURCES}
    return [
        setting
        for setting, table in tables.items()
        if _is_code(getattr(config, setting), table)
    ]


def _is_code(text, table):
    spec = options.parse(text)
    is_file = text.endswith(".keras")
    return bool(spec.argument) and spec.name not in table and not is_file
