"""What a trained network says of itself: a run's, or one without a run.

Read from files alone, without TensorFlow, so that a program refuses what
cannot work before anything is loaded.
"""

import dataclasses
import pathlib

from mart_tf import data
from mart_tf.models import declared


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, the images it is tried on, and the threat model.

    Attributes:
        path: The workdir of a run, or a saved model.
        dataset: Whose images, or None.
        data_dir: Where its data lies, or None.
        validation_images: How many a run held out of its own data set.
        class_names: A name for each class, where a run knows them, else None.
        pixel_range: Least and greatest value of a pixel.
        norm: Of the threat model.
        epsilon: Its radius; None where nothing says one.
        output: Where what is made of it goes.
        run: The `record.Record`, where the data set is a run's own; or None.
    """

    path: str
    dataset: str | None
    data_dir: str | None
    validation_images: int | None
    class_names: list | None
    pixel_range: tuple
    norm: str
    epsilon: float | None
    output: str | pathlib.Path
    run: object = None


def of_run(run, pixel_range, output):
    """The `Trained` of a run, as it was trained.

    Args:
        run: Its `record.Record`.
        pixel_range: As in `Trained`.
        output: The name of a folder in its workdir.
    """
    config = run.config
    return Trained(
        path=run.workdir,
        dataset=config.dataset,
        data_dir=config.data_dir,
        validation_images=config.validation_images,
        class_names=run.class_names,
        pixel_range=pixel_range,
        norm=config.norm,
        epsilon=config.epsilon,
        output=pathlib.Path(run.workdir, output),
        run=run,
    )


def of_model(path, dataset, pixel_range, output):
    """The `Trained` of a saved model, as far as it and its data set say it.

    Args:
        path: Its file or directory.
        dataset: As in `Trained`; whose epsilon is taken where the model says
            none, a share of the width of its pixels.
        pixel_range: As in `Trained`.
        output: As in `Trained`.
    """
    said = declared.read(path)
    norm, epsilon = "linf", None
    if said and said.norm is not None:
        norm, epsilon = said.norm, said.epsilon
    elif dataset is not None:
        low, high = pixel_range
        epsilon = data.defaults(dataset).epsilon * (high - low)
    return Trained(
        path=str(path),
        dataset=dataset,
        data_dir=None,
        validation_images=None,
        class_names=None,
        pixel_range=pixel_range,
        norm=norm,
        epsilon=epsilon,
        output=output,
    )
