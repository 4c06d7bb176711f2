"""report.json as it is read again: by programs, before TensorFlow is there."""

import importlib.resources
import json
import math
import pathlib

from mart_tf import limits

FILE = "report.json"

# As `masking` writes it.
_FAILED = "failed"

# What it raises to read a report as if it were whole.
DAMAGE = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError)

# Raised when a key of report.json changes its meaning or goes.
SCHEMA_VERSION = 2


def schema():
    """The JSON schema of report.json, a dict."""
    files = importlib.resources.files("mart_tf.reports")
    text = files.joinpath("report.schema.json").read_text(encoding="utf-8")
    return json.loads(text)


def load(path):
    """Reads a report.json.

    Args:
        path: The file, or the directory that it lies in.

    Returns:
        Its content, a dict.

    Raises:
        ValueError: If there is none, or it is damaged or of another version.
    """
    path = _file(path)
    if not path.is_file():
        raise ValueError(
            f"{path} is not there; expected the {FILE} of an evaluation, or "
            "its directory."
        )
    try:
        content = limits.read_json(path)
        version = content["schema_version"]
        if version == SCHEMA_VERSION:
            _check(content)
    except DAMAGE as error:
        raise damaged(path) from error
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema_version {version}, expected "
            f"{SCHEMA_VERSION}; evaluate again."
        )
    return content


def failed_signs(content):
    """The signs of gradient masking that failed, a sentence each.

    Args:
        content: Of a report.json.
    """
    return [
        f"{sign['question']} No: {sign['evidence']}"
        for sign in content["signs"]
        if sign["verdict"] == _FAILED
    ]


def damaged(path):
    """The error of a report that something is missing from."""
    return ValueError(
        f"{_file(path)} is damaged or no report of an evaluation; evaluate "
        "again."
    )


def _file(path):
    path = pathlib.Path(path)
    return path / FILE if path.is_dir() else path


def _check(content):
    """Raises what damage raises."""
    for key in schema()["required"]:
        content[key]
    listed = [content["natural"], *content["attacks"], content["worst_case"]]
    if not all(0.0 <= each["accuracy"] <= 1.0 for each in listed):
        raise ValueError("An accuracy is no share.")
    epsilon, low, high = (
        content["threat_model"][key]
        for key in ("epsilon", "pixel_min", "pixel_max")
    )
    if not (0.0 <= epsilon < math.inf and -math.inf < low < high < math.inf):
        raise ValueError("The radius or the pixel range is none.")
    for attack in content["attacks"]:
        if not isinstance(attack["name"], str):
            raise TypeError("The name of an attack is no text.")
    for key in ("data", "model"):
        if not isinstance(content[key], dict):
            raise TypeError(f"What is said of {key} is no object.")
