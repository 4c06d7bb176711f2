"""Data sets by name: checked without TensorFlow, then loaded."""

import dataclasses
import pathlib

from mart_tf import data
from mart_tf import options
from mart_tf.data import checks


@dataclasses.dataclass(frozen=True)
class _Found:
    """A spec whose source, place and options are known."""

    name: str
    source: str
    place: pathlib.Path | None
    options: dict


def check(spec, *, data_dir=None, download=False):
    """Refuses a data set that cannot be loaded, from names and files alone.

    TensorFlow is not imported and no network is touched.

    Args:
        spec: As in `load`.
        data_dir: As in `load`.
        download: Whether `load` will be allowed to fetch the data.

    Raises:
        ValueError: On an unknown name or option, data that is not there, an
            empty folder, or an .npz file without its arrays.
    """
    _find(spec, data_dir, download)


def load(spec, *, data_dir=None, download=False, validation_fraction=None):
    """The training, validation and test images of a data set.

    Args:
        spec: `digits` (the 1,797 images of 8x8 pixels that come with
            scikit-learn), `folder:PATH`, `npz:PATH`, or the name of a TFDS
            image classification set, such as `mnist`. TFDS and folder take the
            options `size=64` (every image resized to 64x64) and
            `mode=memory|streaming` (default: streaming above 2 GiB of decoded
            pixels).
        data_dir: Where TFDS data is prepared; default: $TFDS_DATA_DIR, or
            `~/tensorflow_datasets`.
        download: Whether TFDS may fetch data that is not there.
        validation_fraction: Share of the training set that becomes the
            validation split, in [0, 1); default: a tenth, at most 2,000
            images.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: As `check`, and on images or labels that cannot be used.
    """
    if validation_fraction is not None and not 0 <= validation_fraction < 1:
        raise ValueError(
            f"validation_fraction is {validation_fraction}; expected a share "
            "of the training set, at least 0 and below 1."
        )
    found = _find(spec, data_dir, download)
    place = found.place
    if found.source == "tfds" and place is None:
        fetch = options.load("mart_tf.data.tfds:download")
        place = fetch(found.name, checks.tfds_root(data_dir))
    places = [] if place is None else [place]
    source = options.load(data.SOURCES[found.source])(*places, **found.options)
    assemble = options.load("mart_tf.data.splits:assemble")
    return assemble(found.name, source, validation_fraction)


def _find(text, data_dir, download):
    """Names the source of a spec, where its data lies, and its options."""
    spec = options.parse(text)
    if spec.name in ("folder", "npz"):
        if spec.argument is None:
            raise ValueError(
                f"Dataset {text!r} names no path; expected {spec.name}:PATH."
            )
        read = _options(spec, spec.name)
        place = pathlib.Path(spec.argument).expanduser()
        if spec.name == "folder":
            checks.class_folders(place)
        else:
            checks.npz_file(place)
        return _Found(f"{spec.name}:{spec.argument}", spec.name, place, read)
    if spec.argument is not None:
        raise ValueError(
            f"{text!r}: {spec.argument!r} is not an option; expected key=value."
        )
    if spec.name == "digits":
        return _Found(spec.name, "digits", None, _options(spec, "digits"))
    place = checks.prepared_directory(spec.name, data_dir)
    if place is None and not download:
        raise checks.not_prepared(spec.name, data_dir)
    return _Found(spec.name, "tfds", place, _options(spec, "tfds"))


def _options(spec, source):
    """Options checked against the signature of the source's function."""
    pairs = [f"{key}={value}" for key, value in spec.options.items()]
    read = options.resolve(
        ":".join([spec.name, *pairs]),
        {spec.name: data.SOURCES[source]},
        "dataset",
        reserved=("path",),
    ).options
    size = read.get("size")
    if size is not None and size < 1:
        raise ValueError(
            f"{spec.text!r} asks for size={size}; expected at least 1 pixel."
        )
    return read
