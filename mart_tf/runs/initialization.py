"""Starting from trained weights: fine-tuning, and Figure 1's retraining."""

import pathlib
import zipfile

from mart_tf import environment
from mart_tf import limits
from mart_tf.models import declared
from mart_tf.runs import consent
from mart_tf.runs import record
from mart_tf.runs import workdir

# What asks for initial weights where a .keras file brings trained ones.
ANEW = "none"

_HDF5 = b"\x89HDF\r\n\x1a\n"


def check(text, allow_code=True, model=""):
    """Refuses what holds no trained weights; TensorFlow is not imported.

    Args:
        text: The workdir of a run, the path of a `.keras` or `.weights.h5`
            file, or the directory of a SavedModel; or "none".
        allow_code: Whether the run may be of a network of its own code.
        model: The network that is trained: its code is asked for already.

    Returns:
        Which of them it is: "workdir", "model", "weights", "saved_model" or
        "none".

    Raises:
        ValueError: If it is none of them.
    """
    if text == ANEW:
        return ANEW
    path = pathlib.Path(text)
    if not path.exists():
        raise ValueError(
            f"--init_from={text} does not exist; expected the workdir of a "
            "run, a .keras file, a .weights.h5 file or the directory of a "
            "SavedModel."
        )
    if path.is_dir() and not record.exists(path) and _is_saved_model(path):
        return "saved_model"
    if path.is_dir():
        run = workdir.trained(path)
        given = ["dataset"]
        if run.config.model.split(":")[:2] == model.split(":")[:2]:
            given.append("model")
        consent.check(run, allow_code, given)
        return "workdir"
    if path.suffix == ".keras":
        sound, kind = zipfile.is_zipfile(limits.regular(path)), "model"
    elif path.name.endswith(".weights.h5"):
        with limits.opened(path) as file:
            sound, kind = file.read(len(_HDF5)) == _HDF5, "weights"
    else:
        raise ValueError(
            f"--init_from={text} is neither a workdir nor a .keras or "
            ".weights.h5 file, nor the directory of a SavedModel; expected one "
            "of these."
        )
    if not sound:
        raise ValueError(
            f"--init_from={text} is damaged: it does not begin as a "
            f"{path.suffix} file does; expected one that Keras wrote."
        )
    return kind


def apply(classifier, text, model="", pixel_range=None):
    """Copies trained weights into a classifier, where that is asked for.

    Of a workdir (its best weights; without a validation split its last) and
    of a `.keras` file, the layers that agree in name and shapes are taken, see
    `mart_tf.models.weights`; a `.weights.h5` file and a SavedModel have to be
    of the same network, and the SavedModel, which runs, has to answer as the
    network does with its weights.

    Args:
        classifier: A built Keras model, whose weights change.
        text: As in `check`, or None. A `.keras` file that is the network
            itself has brought its weights along, unless "none" made them anew.
        model: The spec that the classifier was built from.
        pixel_range: Least and greatest value of the pixels that it is to be
            trained on; what was trained on others is told of. Default: nothing
            is.

    Returns:
        Sentences for the user that say which layers were taken, or that the
        file's weights are; None where the weights are initial ones of a
        network that no file brought.

    Raises:
        ValueError: If `check` refuses it, it cannot be read, or no layer
            fits.
    """
    if text in (None, ANEW):
        return _of_file(model, text) if model.endswith(".keras") else None
    kind = check(text)
    sentence = _taken(classifier, text, kind)
    other = pixel_range and _other_pixels(text, kind, pixel_range)
    return f"{sentence} {other}" if other else sentence


def _taken(classifier, text, kind):
    from mart_tf.models import saved_model_weights
    from mart_tf.models import weights

    if kind == "weights":
        taken = weights.load_weights(classifier, text)
        return _sentence(text, taken, [])
    if kind == "saved_model":
        with environment.exact_float32():
            taken = saved_model_weights.load(classifier, text)
        return _sentence(text, taken, [])
    if kind == "model":
        taken, left = weights.initialize(classifier, weights.read(text), text)
        return _sentence(text, taken, left)
    source, epoch, warnings = workdir.load_classifier(text)
    taken, left = weights.initialize(classifier, source, text)
    checkpoint = workdir.chosen(workdir.trained(text).config, "best")
    name = f"{text}, {checkpoint} weights, epoch {epoch}"
    return " ".join([*warnings, _sentence(name, taken, left)])


def _other_pixels(text, kind, pixel_range):
    """A sentence where what is taken was trained on pixels of another range."""
    if kind == "workdir":
        config = workdir.trained(text).config
        own = config.pixel_range
    else:
        said = declared.read(text)
        own = said.pixel_range if said else pixel_range
    if tuple(own) == tuple(pixel_range):
        return None
    (low, high), (least, greatest) = own, pixel_range
    return (
        f"It was trained on pixels from {low:g} to {high:g}, and here they go "
        f"from {least:g} to {greatest:g}: expected --pixel_min={low:g} "
        f"--pixel_max={high:g}, unless both networks scale them inside."
    )


def _is_saved_model(path):
    try:
        return declared.newest_version(path).is_dir()
    except ValueError:
        return False


def _of_file(model, text):
    if text == ANEW:
        return f"Starting anew: the seed gives {model} initial weights."
    return (
        f"Starting from the weights of {model}, as they were saved, whatever "
        f"the seed; --init_from={ANEW} starts anew."
    )


def _sentence(name, taken, left):
    if not left:
        return f"Initialised from {name}: all {len(taken)} layers with weights."
    others = "; ".join(f"{layer} ({reason})" for layer, reason in left)
    return (
        f"Initialised from {name}: {len(taken)} of {len(taken) + len(left)} "
        f"layers with weights, {', '.join(taken)}. Left as they were: {others}."
    )
