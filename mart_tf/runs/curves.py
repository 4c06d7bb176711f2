"""The curves of a run, in its workdir; TensorFlow is not imported."""

import dataclasses
import pathlib

from mart_tf import files
from mart_tf.reports import training
from mart_tf.runs import history
from mart_tf.runs import record


def save(path):
    """Draws the finished epochs of a run, which may be running.

    Args:
        path: The workdir; curves.png and curves.html are written into it.

    Returns:
        The path of the page.

    Raises:
        ValueError: If there is no run, no finished epoch, or damage.
        OSError: If the files cannot be written.
    """
    run, columns = record.read(path), history.columns(path)
    config = run.config
    if not columns:
        raise ValueError(
            f"{path} has no finished epoch yet, and curves begin with the "
            "first one; ask again after it."
        )
    best = None
    if config.validation_images != 0:
        marked = zip(columns["epoch"], columns.get("best", ()), strict=False)
        best = max((e for e, is_best in marked if is_best), default=None)
    course = training.Course(
        f"{path}: {_name(config.model)}, {_name(config.defense)}, "
        f"{_name(config.dataset)}",
        columns,
        best,
        config.epochs,
        config.epsilon,
        run.epsilon_ramp,
        list(dataclasses.asdict(config).items()),
    )
    drawing = training.drawing(course)
    page = training.html(course, drawing)
    # The page comes last: who finds it finds the rest.
    files.write_together(
        path, {"curves.png": drawing.png, "curves.html": page.encode()}
    )
    return pathlib.Path(path, "curves.html")


def _name(spec):
    """The name in a spec: its options stand with the settings."""
    return spec.split(":")[0]
