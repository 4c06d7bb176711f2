"""What a saved model says of its pixels and its threat model.

Read from its files alone, without TensorFlow, so that a program knows it before
anything is loaded: from the configuration in a `.keras` file of an
AdversarialClassifier, and from the model card of an exported version.
"""

import dataclasses
import json
import pathlib

from mart_tf import limits

_TRAINER = "mart_tf>AdversarialClassifier"
_CARD = "model_card.json"
_EXTRA = "assets.extra"
_GRAPH = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class Declared:
    """What a model says of itself.

    Attributes:
        pixel_range: Least and greatest value of a pixel.
        norm: That of the threat model it was trained in, or None.
        epsilon: Its radius, in units of the pixels, or None.
        by: What says it, for messages.
        class_names: A name for each class, a list of strings, or None: that
            of the data, where a version serves others.
    """

    pixel_range: tuple[float, float]
    norm: str | None
    epsilon: float | None
    by: str
    class_names: list | None = None


def read(path):
    """The `Declared` of a saved model, or None if it says nothing.

    Args:
        path: A `.keras` file, the directory of a SavedModel, or one of
            numbered versions, of which the newest is looked at; or a file of
            another format that lies beside the card of its version. Anything
            else, and what is damaged, says nothing.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            return _of_card(newest_version(path) / _EXTRA)
        if path.suffix == ".keras":
            return _of_file(path)
        return _of_card(path.parent)
    except (KeyError, TypeError, AttributeError, *limits.DAMAGE):
        return None


def newest_version(path):
    """The directory of a SavedModel, or of the newest version in it.

    Versions are named as TF Serving reads them, in the digits 0 to 9.

    Args:
        path: A `pathlib.Path`.

    Raises:
        ValueError: If there is none.
    """
    if (path / _GRAPH).is_file():
        return path
    versions = [
        child
        for child in path.iterdir()
        # int() and isdecimal() know other scripts' digits too.
        if child.name.isascii()
        and child.name.isdecimal()
        and (child / _GRAPH).is_file()
    ]
    if not versions:
        raise ValueError(
            f"{str(path)!r} holds no SavedModel; expected saved_model.pb in it "
            "or in a numbered version below it."
        )
    return max(versions, key=lambda version: int(version.name))


def _of_file(path):
    member = "config.json"
    with limits.archive(path, "a .keras file", [member]) as archive:
        saved = json.loads(archive.read(member))
    if saved.get("registered_name") != _TRAINER:
        return None
    threat = saved["config"]["threat"]
    return Declared(
        (float(threat["pixel_min"]), float(threat["pixel_max"])),
        threat["norm"],
        float(threat["epsilon"]),
        f"the AdversarialClassifier in {path}",
    )


def _of_card(folder):
    card = limits.read_json(folder / _CARD)
    low, high = card["model"]["pixel_range"]
    training = card["training"] or {}
    norm = training.get("norm")
    own = (card.get("data") or {}).get("class_names")
    names = own or card["model"].get("class_names") or []
    return Declared(
        (float(low), float(high)),
        norm,
        None if norm is None else float(training["epsilon"]),
        f"the model card in {folder}",
        [str(name) for name in names] or None,
    )
