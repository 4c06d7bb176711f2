"""What a run says when it ends, and when nothing of it is left to do."""

import shlex

from mart_tf import bounds
from mart_tf import errors
from mart_tf import places
from mart_tf.runs import consent
from mart_tf.runs import curves
from mart_tf.runs import overfitting


def sentences(config, model, saved, classes):
    """What is said of a run that has ended, one after the other.

    Where its curves lie, how it is evaluated, why it ended before its last
    epoch, whether it lost robustness towards its end, and its best epoch.

    Args:
        config: Its resolved `Config`.
        model: Its `AdversarialClassifier`.
        saved: Its `Checkpoints`.
        classes: Number of classes.
    """
    # One epoch is a point, and no curve.
    if len(saved.rows) > 1:
        yield _drawn(config.workdir)
    workdir_flag = shlex.quote(f"--workdir={places.listed([config.workdir])}")
    code = " --allow_code" if consent.named(config) else ""
    yield f"Evaluate it: mart-evaluate {workdir_flag}{code}"
    if int(saved.epoch) < config.epochs:
        yield _why_stopped(config, model, saved, classes)
    yield from _overfitted(config, model, saved)
    yield f"Finished: {_best_epoch(config, model, saved)}."


def nothing_left(config, model, saved, classes, finished):
    """Why a run does not go on, behind its name, or None.

    Args:
        config, model, saved, classes: As of `sentences`.
        finished: How many epochs it has finished.
    """
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
    if _is_collapsed(config, model, saved, classes):
        return (
            f"has stopped at its collapse, after epoch {finished}; there is "
            "nothing to do. Give --nostop_on_collapse to train on."
        )
    return None


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


def _why_stopped(config, model, saved, classes):
    """Why a run ended before its last epoch, a sentence."""
    where = f"after epoch {int(saved.epoch)} of {config.epochs}"
    if _is_stopped_early(config, model, saved):
        return (
            f"Stopped early, {where}: --early_stopping_patience is "
            f"{config.early_stopping_patience}."
        )
    if _is_collapsed(config, model, saved, classes):
        return f"Stopped at the collapse, {where}: --stop_on_collapse is given."
    return f"A callback stopped the run {where}; the same command goes on."


def _is_stopped_early(config, model, saved):
    column = f"val_{model.defense.selects_by}"
    values = overfitting.accuracies(saved.rows, column)
    return overfitting.is_stopped(values, config.early_stopping_patience)


def _is_collapsed(config, model, saved, classes):
    """Whether a run that asks for it stops at a collapse."""
    watched = overfitting.watched(config, model.defense.selects_by)
    values = overfitting.accuracies(saved.rows, watched.column)
    fell = overfitting.collapse(values, watched.images, classes)
    return config.stop_on_collapse and fell is not None


def _overfitted(config, model, saved):
    """A sentence if the last epoch lost what the best one had."""
    name = model.defense.selects_by
    values = overfitting.accuracies(saved.rows, f"val_{name}")
    images = config.validation_images
    if overfitting.gap(values, images):
        rows = saved.rows
        yield overfitting.sentence(name, rows, images, last=", the last,")


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
        f"{bounds.percent(saved.best_accuracy, 1)} % on the validation split"
    )
