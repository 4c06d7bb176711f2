"""Data sets and pools by name: checked without TensorFlow, then loaded."""

from collections.abc import Callable
import dataclasses
import functools
import os
import pathlib
import typing

from mart_tf import data
from mart_tf import options
from mart_tf.data import names
from mart_tf.data import parts

if typing.TYPE_CHECKING:
    from mart_tf.data import splits


@dataclasses.dataclass(frozen=True)
class Kind:
    """What specs name.

    Args:
        name: "dataset" or "pool", for messages.
        readers: Maps each name to `"package.module:function"`; the entry
            "tfds" reads whatever has another name.
        path_checks: Of the names that take a path, what looks at it.
        adopt: Makes of what a user's own function returned for a `Located` what
            a reader returns.
    """

    name: str
    readers: dict[str, str]
    path_checks: dict[str, Callable]
    adopt: Callable

    def named(self, name):
        """The one name, with what its reader leaves to the user."""
        reader = self.readers.get(name, self.readers["tfds"])
        return options.Names({name: reader}, self.name, reserved=("path",))


@dataclasses.dataclass(frozen=True)
class Located:
    """A spec whose source, place and options are known."""

    name: str
    source: str
    place: pathlib.Path | None
    options: dict


def _adopt(located, made):
    if isinstance(made, options.load("mart_tf.data.splits:Source")):
        return _checked(made)
    try:
        (x_train, y_train), (x_test, y_test) = made
    except (TypeError, ValueError):
        raise ValueError(
            f"Dataset {located.name!r} returned a {type(made).__name__}; "
            "expected ((x_train, y_train), (x_test, y_test)) as "
            "keras.datasets return them, or a mart_tf.data.Source."
        ) from None
    arrays = (x_train, y_train, x_test, y_test)
    read = options.load("mart_tf.data.npz:of_arrays")
    return read(dict(zip(names.NPZ_KEYS, arrays, strict=True)))


def _of_object(located, given):
    """The source that a function returns, or that is given itself."""
    if callable(given):
        return _adopt(located, given())
    if isinstance(given, options.load("mart_tf.data.splits:Source")):
        return _checked(given)
    raise ValueError(
        f"The data set is {given!r:.80}, of the type {type(given).__name__}; "
        "expected a name such as npz:arrays.npz, a function that returns "
        "arrays as keras.datasets do, or a mart_tf.data.Source."
    )


def _checked(source):
    """A user's own source, whose other splits are looked at when asked for."""
    if source.others is None:
        return source

    @functools.cache
    def others(name):
        split = source.others(name)
        if split is not None:
            source.check(name, split)
        return split

    return dataclasses.replace(source, others=others)


_DATASET = Kind(
    "dataset",
    data.SOURCES,
    {"folder": names.class_folders, "npz": names.npz_file},
    _adopt,
)


def check(spec, *, data_dir=None, download=False, split=None):
    """Refuses a data set that cannot be loaded, from names and files alone.

    TensorFlow is not imported and no network is touched.

    Args:
        spec: As in `load`.
        data_dir: As in `load`.
        download: Whether `load` will be allowed to fetch the data.
        split: A `parts.Part` that is asked for, or None.

    Raises:
        ValueError: On an unknown name or option, data, a split or rows that
            are not there, an empty folder, or an .npz file without its arrays.
    """
    located = find(spec, _DATASET, data_dir, download)
    if split is None or split.name in parts.OWN:
        return
    if located.source == "tfds":
        if located.place is not None:
            split.rows(names.tfds_rows(located.place, split.name)[1])
    else:
        parts.check_own(split, located.name)


def load(
    spec: "str | Callable[[], object] | splits.Source",
    *,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    validation_images: int | None = None,
) -> "splits.Dataset":
    """The training, validation and test images of a data set.

    Args:
        spec: `digits` (the 1,797 images of 8x8 pixels that come with
            scikit-learn), `folder:PATH`, `npz:PATH`, or the name of a TFDS
            image classification set, such as `mnist`. TFDS and folder take the
            options `size=64` (every image resized to 64x64) and
            `mode=memory|streaming` (default: streaming above 2 GiB of decoded
            pixels); TFDS also `first=0:count=1000` (these rows alone are the
            training set; default: all). Or `package.module:function` with
            options, or in Python a function without arguments, that returns
            `((x_train, y_train), (x_test, y_test))` as `keras.datasets` do,
            or a `Source`; or that `Source` itself.
        data_dir: Where TFDS data is prepared; default: $TFDS_DATA_DIR, or
            `~/tensorflow_datasets`.
        download: Whether TFDS may fetch data that is not there.
        validation_images: How many images of the training set become the
            validation split, 0 or more; default: a tenth, at most 2,000.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: As `check`, and on images or labels that cannot be used.
    """
    if not isinstance(spec, str | os.PathLike):
        own = getattr(spec, "__name__", type(spec).__name__)
        located = Located(own, own, None, {})
        source = _of_object(located, spec)
    else:
        located = find(spec, _DATASET, data_dir, download)
        source = read(located, _DATASET, data_dir)
    assemble = options.load("mart_tf.data.splits:assemble")
    return assemble(located.name, source, validation_images)


def is_same(one, other):
    """Whether two specs name the same rows of the same data set.

    Args:
        one, other: As `load` takes them. How images are held (`mode`) is left
            aside, and so is how a path is written.
    """
    if one == other:
        return True
    first, second = options.parse(one), options.parse(other)
    return first.name == second.name and _identity(first) == _identity(second)


def _identity(spec):
    """Place and options of a spec, in the one form of both."""
    place = spec.argument
    if spec.name in _DATASET.path_checks:
        place = os.path.realpath(os.path.expanduser(place or ""))
    elif place is not None:
        return options.Names({}, _DATASET.name).canonical(spec.text)
    settings = [f"{k}={v}" for k, v in spec.options.items() if k != "mode"]
    return place, _DATASET.named(spec.name).canonical(
        ":".join([spec.name, *settings])
    )


def find(text, kind, data_dir, download):
    """Names the source of a spec, where its data lies, and its options."""
    spec = options.parse(text)
    if spec.name in kind.path_checks:
        if spec.argument is None:
            raise ValueError(
                f"{kind.name.capitalize()} {text!r} names no path; expected "
                f"{spec.name}:PATH."
            )
        settings = _options(spec, kind)
        place = pathlib.Path(spec.argument).expanduser()
        kind.path_checks[spec.name](place)
        name = f"{spec.name}:{spec.argument}"
        return Located(name, spec.name, place, settings)
    if spec.name != "digits":
        names.check_bare(spec, kind.name, data_dir)
    if spec.argument is not None:
        # As messages list them: nothing is called tfds.
        listed = {**kind.readers, "a TFDS name": kind.readers["tfds"]}
        del listed["tfds"]
        own = options.Names(listed, kind.name).resolve(text)
        return Located(own.name, own.import_path, None, own.options)
    if spec.name == "digits" and spec.name in kind.readers:
        settings = _options(spec, kind)
        return Located(spec.name, spec.name, None, settings)
    place = names.prepared_directory(spec.name, data_dir)
    if place is None and not download:
        raise names.not_prepared(spec.name, data_dir, kind.name, kind.readers)
    settings = _options(spec, kind)
    if place:
        named = settings.keys() & {"split", "first", "count"}
        names.tfds_rows(place, **{name: settings[name] for name in named})
    return Located(spec.name, "tfds", place, settings)


def read(located, kind, data_dir):
    """What the reader makes of it, fetched first where it is not there."""
    place = located.place
    if located.source == "tfds" and place is None:
        fetch = options.load("mart_tf.data.tfds:download")
        place = fetch(located.name, names.tfds_root(data_dir))
    places = [] if place is None else [place]
    import_path = kind.readers.get(located.source, located.source)
    made = options.load(import_path)(*places, **located.options)
    return made if located.source in kind.readers else kind.adopt(located, made)


def _options(spec, kind):
    """Options checked against the signature of the source's function."""
    pairs = [f"{key}={value}" for key, value in spec.options.items()]
    settings = (
        kind.named(spec.name).resolve(":".join([spec.name, *pairs])).options
    )
    size = settings.get("size")
    if size is not None and size < 1:
        raise ValueError(
            f"{spec.text!r} asks for size={size}; expected at least 1 pixel."
        )
    return settings
