"""A report as RobustBench's leaderboard wants it: its `model_info` JSON.

Croce et al. (NeurIPS 2021 Datasets and Benchmarks); the keys are those of
`model_info/DATASET/THREAT_MODEL/NAME.json` in its repository. What a report
cannot know (paper, authors, venue, ...) is null there, for the authors to fill
in, as RobustBench's own tool leaves it. In `footnote` stands, behind what they
write there, where AutoAttack ran without one of its attacks, as in l2 without
Square, where the report, one from Python, does not know its split, and what it
warns of; `unreliable` is true where a sign of gradient masking failed.
"""

import json
import pathlib

from mart_tf import bounds
from mart_tf import files
from mart_tf import limits
from mart_tf.reports import saved

FILE = "robustbench.json"
# What no report knows.
_OF_AUTHORS = (
    "link",
    "name",
    "authors",
    "additional_data",
    "venue",
    "reported",
)
# Of AutoAttack, in RobustBench's rules: the ensemble as published.
_VERSION = "standard"
_ENSEMBLE = ("apgd_ce", "apgd_t", "fab_t", "square")
# How this program's part of a footnote begins.
_OURS = "mart_tf: "


def model_info(report, whence):
    """The entry of a report.

    Args:
        report: What `saved.load` gives.
        whence: Where it lies, for messages.

    Returns:
        A JSON dict, in RobustBench's order.

    Raises:
        ValueError: If it has no AutoAttack in the standard version, is of
            another split than the whole test split, or is damaged.
    """
    try:
        return _entry(report, whence)
    except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
        raise saved.damaged(whence) from error


def _entry(report, whence):
    found = [
        attack
        for attack in report["attacks"]
        if _is_autoattack(attack)
        and attack["parameters"].get("version") == _VERSION
    ]
    if not found:
        listed = ", ".join(attack["name"] for attack in report["attacks"])
        raise ValueError(
            f"The report in {whence} has no AutoAttack in its version "
            f"{_VERSION} (its attacks: {listed or 'none'}), which RobustBench "
            "ranks by; evaluate again with --attacks=autoattack."
        )
    data = report["data"]
    split = data.get("split")
    if split not in (None, "test"):
        raise ValueError(
            f"The report in {whence} is of --split={split}, and RobustBench "
            "takes the test split; evaluate again without --split."
        )
    if data["sample"] != "all":
        raise ValueError(
            f"The report in {whence} is of {data['examples']} examples, a part "
            "of the test split, and RobustBench takes it whole; evaluate "
            "again without --max_examples."
        )
    threat = report["threat_model"]
    width = threat["pixel_max"] - threat["pixel_min"]
    model = report["model"]
    return {
        "link": None,
        "name": None,
        "authors": None,
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": data.get("dataset"),
        "venue": None,
        "architecture": model.get("network") or model["name"],
        "eps": _radius(threat["norm"], threat["epsilon"] / width),
        "clean_acc": bounds.percent(report["natural"]["accuracy"], 2),
        "reported": None,
        "autoattack_acc": bounds.percent(found[0]["accuracy"], 2),
        "footnote": _footnote(found[0]["parameters"]["attacks"], report),
        "unreliable": any(saved.failed_signs(report)),
    }


def save(path):
    """Writes `robustbench.json` beside a report.

    What its authors have filled in stays.

    Args:
        path: A report.json, or the folder that holds it.

    Returns:
        The file, a `pathlib.Path`, and its content.

    Raises:
        ValueError: As of `saved.load` and `model_info`; or if there is such a
            file and it is no JSON object: what its authors wrote would go.
    """
    content = model_info(saved.load(path), path)
    path = pathlib.Path(path)
    file = (path if path.is_dir() else path.parent) / FILE
    footnote = content["footnote"]
    content |= _filled_in(file)
    if footnote != content["footnote"]:
        # That of the authors comes first.
        said = filter(None, [content["footnote"], footnote])
        content["footnote"] = " ".join(said)
    files.replace_text(file, json.dumps(content, indent=2) + "\n")
    return file, content


def is_stale(file):
    """Whether a `robustbench.json` may go with the report that it is of.

    One that its authors have filled in stays, and so does what is none.
    """
    try:
        content = _content(file)
    except ValueError:
        return False
    return set(_OF_AUTHORS) <= set(content) and not _filled_in(file)


def _filled_in(file):
    """What its authors wrote into a `robustbench.json`, by name."""
    content = _content(file)
    footnote = str(content.get("footnote") or "").partition(_OURS)[0].strip()
    content["footnote"] = footnote or None
    return {
        name: content[name]
        for name in (*_OF_AUTHORS, "footnote")
        if content.get(name) is not None
    }


def _content(file):
    """The JSON object in a file; an empty one where there is no file."""
    if not file.exists():
        return {}
    reason = "something else"
    try:
        content = limits.read_json(file)
        if isinstance(content, dict):
            return content
    except json.JSONDecodeError as error:
        reason = error
    raise ValueError(
        f"{file} is no JSON object ({reason}), and what its authors wrote "
        "would be lost; mend it, or remove it."
    )


def _is_autoattack(attack):
    # Of the Python API's instances the name is the class's.
    nature = attack.get("nature") or {}
    return nature.get("kind") == "AutoAttack" or (
        attack["name"].partition(":")[0] == "autoattack"
    )


def _footnote(attacks, report):
    """What ran in place of the ensemble, and what is doubtful; or None."""
    # What AutoAttack itself has to say is said below, or of another version.
    warnings = [
        text
        for text in report["warnings"]
        if not text.startswith("AutoAttack's ")
    ]
    said = [*warnings, *saved.failed_signs(report)]
    if tuple(attacks) != _ENSEMBLE:
        missing = [name for name in _ENSEMBLE if name not in attacks]
        said.insert(
            0,
            f"AutoAttack without {' and '.join(missing)}: "
            f"{', '.join(attacks)} ran.",
        )
    data = report["data"]
    if "split" not in data:
        said.insert(
            0, f"The split of its {data['examples']} examples is not known."
        )
    return _OURS + " ".join(said) if said else None


def _radius(norm, epsilon):
    """Epsilon of pixels in [0, 1], as RobustBench writes it."""
    levels = round(255 * epsilon, 4)
    if norm == "linf" and levels == int(levels):
        return f"{int(levels)}/255"
    return f"{epsilon:.6g}"
