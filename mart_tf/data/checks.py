"""What names and files alone tell of a data set, in milliseconds.

Programs ask here before TensorFlow is imported, and the sources ask again
when they load: neither TensorFlow nor numpy is imported, and no network is
touched.
"""

import difflib
import os
import pathlib
import re
import zipfile

from mart_tf import data

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def npz_file(path):
    """The path of an .npz file that holds the four arrays of numbers.

    Raises:
        ValueError: If there is no such file, it is no zip archive, or an array
            is missing or pickled.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no file {path}; expected an .npz file.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            missing = [k for k in NPZ_KEYS if f"{k}.npy" not in members]
            if missing:
                raise ValueError(
                    f"{path} has no array {', '.join(missing)}; expected "
                    f"{', '.join(NPZ_KEYS)}, as in Keras's mnist.npz."
                )
            for key in NPZ_KEYS:
                # The dtype stands in the header; O is a Python object.
                with archive.open(f"{key}.npy") as member:
                    if b"|O" in member.read(256):
                        raise ValueError(
                            f"{key} of {path} holds pickled Python objects, "
                            "which are not read; save an array of numbers."
                        )
    except zipfile.BadZipFile:
        raise ValueError(
            f"{path} is not an .npz file, or is damaged; write it with "
            "numpy.savez_compressed."
        ) from None
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
    found = {
        child.name: child
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    }
    if len(found) < 2:
        raise ValueError(
            f"{folder} holds {len(found)} class folders; expected at least "
            "two, each with the images of one class."
        )
    for child in found.values():
        if next(image_names(child), None) is None:
            raise ValueError(
                f"{child} holds no image; expected files that end in "
                f"{', '.join(IMAGE_SUFFIXES)}."
            )
    return found


def image_names(folder):
    """Yields the names of the image files of one folder, unsorted."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            # A ._x.png is what macOS leaves beside x.png: no image.
            if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != ".":
                yield name


def tfds_root(data_dir=None):
    """Where TFDS data lies: `data_dir`, $TFDS_DATA_DIR, or TFDS's default."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR")
    return pathlib.Path(root or "~/tensorflow_datasets").expanduser()


def prepared_directory(name, data_dir=None):
    """The directory of the newest prepared version of a TFDS set, or None.

    Args:
        name: `set` or `set/configuration`.
        data_dir: As in `tfds_root`.

    Raises:
        ValueError: If several configurations are prepared and none is named.
    """
    folder = tfds_root(data_dir) / name
    version = _newest_version(folder)
    if version or not folder.is_dir():
        return version
    versions = {
        child.name: version
        for child in sorted(folder.iterdir())
        if (version := _newest_version(child))
    }
    if len(versions) > 1:
        raise ValueError(
            f"Dataset {name!r} is prepared in several configurations; name "
            f"one: {', '.join(f'{name}/{key}' for key in versions)}."
        )
    return next(iter(versions.values()), None)


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


def not_prepared(name, data_dir=None):
    """The one sentence for a TFDS set that is not on this machine."""
    root = tfds_root(data_dir)
    where = str(root) if root.is_dir() else f"{root}, which does not exist"
    remedy = (
        "pass --download to fetch it, or --data_dir=DIR to say where it lies "
        "(in Python: download=True, data_dir=DIR)"
    )
    if name in data.DEFAULTS:
        return ValueError(
            f"Dataset {name!r} is not prepared in {where}; {remedy}."
        )
    listed = [child.name for child in root.iterdir()] if root.is_dir() else []
    known = [*data.SOURCES, *data.DEFAULTS, *listed]
    near = difflib.get_close_matches(name, set(known) - {"tfds"}, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(
        f"Unknown dataset {name!r}; {hint}expected digits, folder:PATH, "
        f"npz:PATH or a TFDS name, and no set of this name is prepared in "
        f"{where}; if TFDS has it, {remedy}."
    )
