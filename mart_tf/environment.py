"""What a result was made with: versions of packages."""

import importlib.metadata
import platform

_PACKAGES = (
    "mart-tf",
    "tensorflow",
    "keras",
    "numpy",
    "tensorflow-datasets",
    "cleverhans",
)


def versions():
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            # mart_tf run from a clone that was not installed.
            found[package] = None
    return found
