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
        class_names: A name for each class, where the run or the model card of
            an exported version tells them, else None.
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

    def threat(self):
        """Its `ThreatModel`, for which TensorFlow is imported."""
        from mart_tf import threat

        return threat.ThreatModel(self.norm, self.epsilon, *self.pixel_range)

    def check_classes(self, dataset):
        """Refuses a data set whose labels stand for other classes.

        Names that are the numbers 0, 1, 2 and so on say nothing of the others.

        Args:
            dataset: A `data.Dataset`. Another number of classes is let
                through: who knows the network refuses it.

        Raises:
            ValueError: If the same names stand in another order, or others.
        """
        self.check_names(dataset.name, dataset.class_names)

    def check_names(self, dataset, class_names):
        """The same of a data set's name and the names of its classes."""
        own, given = list(self.class_names or ()), list(class_names)
        numbers = [str(number) for number in range(len(given))]
        if len(own) != len(given) or own == given:
            return
        if sorted(own) != sorted(given) and numbers in (own, given):
            return
        names = zip(own, given, strict=True)
        first = next(place for place, (a, b) in enumerate(names) if a != b)
        raise ValueError(
            f"The class {first} of {dataset} is {given[first]!r}, and of "
            f"{self.path} {own[first]!r}; expected the same classes in the "
            "same order: rename those of the data, or give the images as npz, "
            "whose labels you number as the model's."
        )


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
        class_names=said and said.class_names,
        pixel_range=pixel_range,
        norm=norm,
        epsilon=epsilon,
        output=output,
    )
