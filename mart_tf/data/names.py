"""What names and files alone tell of a data set, in milliseconds.

Programs ask here before TensorFlow is imported, and the sources ask again
when they load: neither TensorFlow nor numpy is imported, and no network is
touched.
"""

import collections
import difflib
import mimetypes
import os
import pathlib
import re

from mart_tf import data
from mart_tf import limits

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
NPZ_POOL_KEYS = ("image", "label", "labeled_by", "mean_confidence")

# Places that a sentence names.
_NAMED = 3

_VERSION = re.compile(r"\d+\.\d+\.\d+")
# TFDS's own ways to ask for one: mnist:3.0.1, mnist:3.*.*, and mnist/3.0.1 as
# it lies on the disk. A configuration may be a single number: voc/2007.
_VERSIONED = re.compile(
    r"(\w+(?:/.+?)?)(?::[\d*]+(?:\.[\d*]+)*|/\d+\.\d+\.\d+)"
)


# Control characters, and what a name holds that is no text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def file(path):
    """The path of a regular file.

    Raises:
        ValueError: If there is no such file.
    """
    return limits.regular(pathlib.Path(path).expanduser())


def npz_file(path):
    """The path of an .npz file that holds the four arrays of a data set.

    Raises:
        ValueError: If there is no such file, an array is missing, or as
            `limits.archive`.
    """
    expected = f"{', '.join(NPZ_KEYS)}, as in Keras's mnist.npz"
    return _npz(path, NPZ_KEYS, NPZ_KEYS, expected)


def npz_pool(path):
    """The path of an .npz file that holds the images of a pool.

    Raises:
        ValueError: As `npz_file`.
    """
    expected = "image, and label where there are labels"
    images = NPZ_POOL_KEYS[:1]
    return _npz(path, NPZ_POOL_KEYS, images, expected, mapped=images)


def _npz(path, keys, needed, expected, mapped=()):
    path = file(path)
    members = [f"{key}.npy" for key in keys]
    stay = [f"{key}.npy" for key in mapped]
    with limits.archive(path, "an .npz file", members, stay) as archive:
        present = set(archive.namelist())
    missing = [key for key in needed if f"{key}.npy" not in present]
    if missing:
        raise ValueError(
            f"{path} has no array {', '.join(missing)}; expected {expected}."
        )
    return path


def class_folders(path):
    """The class folders of a tree of images.

    Args:
        path: A folder that holds `train/<class>/` and `test/<class>/`, or
            `<class>/`.

    Returns:
        A pair of dicts from class name, sorted, to folder: train and test; test
        is None where the tree has no folder of that name.

    Raises:
        ValueError: If a folder is missing or empty, there are fewer than two
            classes, or test holds a class that train does not.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(
            f"There is no folder {root}; expected one that holds a folder of "
            "images for each class."
        )
    halves = [root / "train", root / "test"]
    present = [half for half in halves if half.is_dir()]
    if not present:
        return _classes(root), None
    if len(present) == 1:
        raise ValueError(
            f"{root} holds {present[0].name} alone; expected both train and "
            "test, or one folder for each class."
        )
    train, test = (_classes(half) for half in halves)
    strange = sorted(set(test) - set(train))
    if strange:
        raise ValueError(
            f"{halves[1]} holds the class {strange[0]!r}, which {halves[0]} "
            "does not; expected the same classes in both."
        )
    return train, test


def _classes(folder):
    folders = {
        child.name: child
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    }
    for name in folders:
        _check_printable(folder, name)
    if len(folders) < 2:
        raise ValueError(
            f"{folder} holds {len(folders)} class folders; expected at least "
            "two, each with the images of one class."
        )
    for child in folders.values():
        if next(image_names(child), None) is None:
            raise ValueError(
                f"{child} holds no image; expected files that end in "
                f"{', '.join(IMAGE_SUFFIXES)}."
            )
    return folders


def left_out(path, read):
    """A sentence on the images of a tree that are not read, or None.

    Args:
        path: The tree's folder; what begins with a dot in it does not count.
        read: The paths of those that are.
    """
    root = pathlib.Path(path).expanduser()
    read, places = set(read), collections.Counter()
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if name[0] != "."]
        for name in files:
            if name[0] == "." or os.path.join(folder, name) in read:
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in IMAGE_SUFFIXES:
                places[f"in {os.path.relpath(folder, root)}"] += 1
            elif (mimetypes.guess_type(name)[0] or "").startswith("image/"):
                places[f"of {suffix}"] += 1
    if not places:
        return None
    # Folders are listed in no order.
    named = sorted(places.items(), key=lambda item: (-item[1], item[0]))
    named = named[:_NAMED]
    rest = places.total() - sum(count for _, count in named)
    if rest:
        named.append(("elsewhere", rest))
    said = ", ".join(f"{count:,} {place}" for place, count in named)
    sentence = (
        f"{root} holds {places.total():,} images that are not read: {said}; "
        "expected them right in the folder of their class, as one of "
        f"{', '.join(IMAGE_SUFFIXES)}."
    )
    return _UNPRINTABLE.sub("?", sentence)


def image_names(folder):
    """Yields the names of the image files of one folder, unsorted.

    Raises:
        ValueError: If a name holds a control character, or bytes of no text.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            # A ._x.png is what macOS leaves beside x.png: no image.
            if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != ".":
                _check_printable(folder, name)
                yield name


def _check_printable(folder, name):
    if _UNPRINTABLE.search(name):
        raise ValueError(
            f"{folder} holds {ascii(name)}, a name with a control character "
            "or of no encoding; rename it."
        )


def images_below(path):
    """The image files of a folder and of the folders in it, sorted.

    What begins with a dot is passed over. Links are followed; of a folder that
    several ways lead to, the first one counts.

    Raises:
        ValueError: If there is no such folder, no image in it, or one of the
            folders in it cannot be read.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}; expected one of images.")
    paths, seen = [], set()
    for folder, below, _ in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            # A link may lead to a folder that it lies in.
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if name[0] != ".")
        paths += [os.path.join(folder, name) for name in image_names(folder)]
    if not paths:
        raise ValueError(
            f"{root} holds no image; expected files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}, in it or in the folders in it."
        )
    return sorted(paths)


def _refuse(error):
    """Raises the sentence for a folder that cannot be listed."""
    raise ValueError(
        f"{error.filename} cannot be read ({error.strerror}); expected a "
        "folder that you may read, or one whose name begins with a dot, which "
        "is passed over."
    ) from error


def tfds_root(data_dir=None):
    """Where TFDS data lies: `data_dir`, $TFDS_DATA_DIR, or TFDS's default."""
    if data_dir is not None and not isinstance(data_dir, str | os.PathLike):
        raise ValueError(
            f"data_dir is {data_dir!r:.80}; expected the path of a folder."
        )
    root = data_dir or os.environ.get("TFDS_DATA_DIR")
    return pathlib.Path(root or "~/tensorflow_datasets").expanduser()


def check_bare(spec, kind, data_dir=None):
    """Refuses a TFDS set that is not called by its bare name.

    Args:
        spec: An `options.Spec`.
        kind: "dataset" or "pool".
        data_dir: As in `tfds_root`.

    Raises:
        ValueError: On `tfds:mnist`, `mnist:3.0.1`, `mnist/3.0.1`, and
            `mnist:train[:10%]`.
    """
    settings = [f"{key}={value}" for key, value in spec.options.items()]
    if spec.argument and "[" in spec.argument:
        written = ":".join([spec.name, "count=6000", *settings])
        raise ValueError(
            f"{kind.capitalize()} {spec.text!r} names a part of a split; "
            f"expected options, such as {written} for the first 6,000 training "
            "images. Which split is evaluated --split says."
        )
    whole = ":".join(filter(None, [spec.name, spec.argument]))
    of_tfds = spec.name == "tfds"
    if of_tfds:
        whole = spec.argument or "mnist"
    versioned = _VERSIONED.fullmatch(whole)
    if not (of_tfds or versioned):
        return
    written = ":".join([versioned[1] if versioned else whole, *settings])
    said = (
        f"names TFDS itself; expected the bare name of a set, such as {written}"
        if of_tfds
        else "names a version; expected none, since the newest that is "
        f"prepared below {tfds_root(data_dir)} is read: write {written}"
    )
    raise ValueError(f"{kind.capitalize()} {spec.text!r} {said}.")


def prepared_directory(name, data_dir=None):
    """The directory of the newest prepared version of a TFDS set, or None.

    Args:
        name: `set` or `set/configuration`.
        data_dir: As in `tfds_root`.

    Raises:
        ValueError: If several configurations are prepared and none is named.
    """
    version = _newest_version(tfds_root(data_dir) / name)
    if version:
        return version
    versions = prepared_configurations(name, data_dir)
    if len(versions) > 1:
        raise ValueError(
            f"Dataset {name!r} is prepared in several configurations; name "
            f"one: {', '.join(f'{name}/{key}' for key in versions)}."
        )
    return next(iter(versions.values()), None)


def prepared_configurations(name, data_dir=None):
    """The newest prepared version of each configuration of a set, by name.

    Args:
        name: Of the set.
        data_dir: As in `tfds_root`.
    """
    folder = tfds_root(data_dir) / name
    if not folder.is_dir():
        return {}
    return {
        child.name: version
        for child in sorted(folder.iterdir())
        if (version := _newest_version(child))
    }


def _newest_version(folder):
    if not folder.is_dir():
        return None
    versions = [
        child
        for child in folder.iterdir()
        if _VERSION.fullmatch(child.name)
        and (child / "dataset_info.json").is_file()
    ]
    return max(
        versions,
        key=lambda child: [int(part) for part in child.name.split(".")],
        default=None,
    )


def tfds_rows(directory, split="train", first=0, count=None):
    """The rows of a split that are asked for: the first, and one past the last.

    Args:
        directory: One version of a prepared TFDS set.
        split: Name of a split.
        first: The first row, from 0.
        count: How many rows; default: all from there on.

    Raises:
        ValueError: If the set has no such split, or the split no such rows.
    """
    path = pathlib.Path(directory, "dataset_info.json")
    try:
        sizes = {
            entry["name"]: sum(map(int, entry["shardLengths"]))
            for entry in limits.read_json(path)["splits"]
        }
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{path} is missing or damaged; prepare the set again."
        ) from error
    if split not in sizes:
        raise ValueError(
            f"{directory} has no split {split!r}; expected one of: "
            f"{', '.join(sizes)}."
        )
    stop = sizes[split] if count is None else first + count
    if not 0 <= first < stop <= sizes[split]:
        raise ValueError(
            f"The split {split} of {directory} has {sizes[split]} images; "
            f"first={first} and count={stop - first} ask for others."
        )
    return first, stop


def not_prepared(name, data_dir, kind, table):
    """The one sentence for a TFDS set that is not on this machine.

    Args:
        name: What the user asked for.
        data_dir: As in `tfds_root`.
        kind: "dataset" or "pool".
        table: The names of this kind that are no TFDS sets.
    """
    root = tfds_root(data_dir)
    where = str(root) if root.is_dir() else f"{root}, which does not exist"
    remedy = (
        "pass --download to fetch it, or --data_dir=DIR to say where it lies "
        "(in Python: download=True, data_dir=DIR)"
    )
    if name in set(data.DEFAULTS) - set(data.SOURCES):
        return ValueError(
            f"Dataset {name!r} is not prepared in {where}; {remedy}."
        )
    listed = [child.name for child in root.iterdir()] if root.is_dir() else []
    known = {*data.DEFAULTS, *listed} - set(data.SOURCES) | set(table)
    near = difflib.get_close_matches(name, sorted(known - {"tfds"}), n=1)
    path = pathlib.Path(name).expanduser()
    if path.is_dir() or path.suffix == ".npz":
        near = [f"{'folder' if path.is_dir() else 'npz'}:{name}"]
    hint = f"did you mean {near[0]!r}? " if near else ""
    forms = ", ".join(
        entry if entry == "digits" else f"{entry}:PATH"
        for entry in table
        if entry != "tfds"
    )
    return ValueError(
        f"Unknown {kind} {name!r}; {hint}expected {forms} or a TFDS name, and "
        f"no set of this name is prepared in {where}; if TFDS has it, {remedy}."
    )
