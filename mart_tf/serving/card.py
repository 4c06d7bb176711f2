"""The model card of a version: what it is, how it was made, what it withstands.

`assets.extra/model_card.json` for programs and `model_card.md` for people and
the Hugging Face Hub. A server passes both over.
"""

import hashlib
import json
import pathlib

from mart_tf import bounds
from mart_tf import environment
from mart_tf import markup
from mart_tf.serving import front_matter

FORMAT = 1
_FOLDER = "assets.extra"
_NOT_EVALUATED = (
    "Not evaluated: there is no report of these weights. Robustness is not "
    "known."
)


def describe(classifier, directory, signatures, warmup):
    """What a version says of itself.

    Args:
        classifier: The `endpoints.Classifier`.
        directory: The version's directory.
        signatures: Lines that describe each signature, by name.
        warmup: Batch sizes of the warm-up records.

    Returns:
        A JSON dict.
    """
    return {
        "format": FORMAT,
        "model": {
            "name": classifier.model.name,
            "parameters": classifier.model.count_params(),
            "image_shape": list(classifier.image_shape),
            "pixel_range": classifier.pixel_range
            and list(classifier.pixel_range),
            "classes": len(classifier.class_names),
            "class_names": list(classifier.class_names),
            "precision": "float32",
        },
        "signatures": {name: list(each) for name, each in signatures.items()},
        "warmup_batch_sizes": list(warmup),
        # Of the file as it lies there, so that sha256sum tells a version.
        "saved_model_sha256": hashlib.sha256(
            pathlib.Path(directory, "saved_model.pb").read_bytes()
        ).hexdigest(),
        "versions": environment.versions(),
    }


def folder(directory):
    """The folder of a version that a server passes over, made if need be."""
    extra = pathlib.Path(directory, _FOLDER)
    extra.mkdir(exist_ok=True)
    return extra


def write(directory, card):
    """Writes both forms.

    Args:
        directory: The version's directory.
        card: What `describe` gives, `verification`, and as far as they are
            known `training`, a flat dict, `evaluation`, what
            `evaluation.exported.reported` gives, and `files`, what is known of
            each file of another format, by name, with `accuracy` by attack.
    """
    extra = folder(directory)
    card = {"training": None, "evaluation": None, "files": {}, **card}
    text = json.dumps(card, indent=2, ensure_ascii=False)
    (extra / "model_card.json").write_text(text + "\n", encoding="utf-8")
    (extra / "model_card.md").write_text(_markdown(card), encoding="utf-8")


def _markdown(card):
    model = card["model"]
    pixels = "a range that is not known"
    if model["pixel_range"]:
        low, high = model["pixel_range"]
        pixels = f"[{low:g}, {high:g}]"
    shape = " x ".join(map(str, model["image_shape"]))
    lines = [
        *front_matter.lines(card),
        "",
        f"# {markup.escaped(model['name'])}",
        "",
        f"A classifier of {model['parameters']:,} parameters: images of {shape}"
        f" in {pixels} to {model['classes']} classes "
        f"({markup.escaped(_few(model['class_names']))}).",
        "",
        "## Robustness",
        "",
        *_evaluation(card["evaluation"]),
        "",
        "## Training",
        "",
        *(_facts(card["training"]) or ["How it was trained is not known."]),
        "",
        "## Signatures",
        "",
    ]
    for name, described in card["signatures"].items():
        lines += [f"- `{name}`: {'; '.join(described)}"]
    tried = card["verification"]
    lines += ["", "## Verification", ""]
    lines += _facts(tried) or [
        "This version was not run before it was written."
    ]
    if card["files"]:
        lines += ["", "## Files of other runtimes", "", *_files(card["files"])]
    lines += ["", "## Made with", "", *_facts(card["versions"])]
    lines += [
        "",
        f"SHA-256 of `saved_model.pb`: {card['saved_model_sha256']}",
        "",
    ]
    return "\n".join(lines)


def _evaluation(evaluation):
    if not evaluation:
        return [_NOT_EVALUATED]
    own = evaluation.get("least_distance", {})
    labels = {name: each["label"] for name, each in own.items()}
    labels["worst_case"] = "worst case"
    accuracies = {
        labels.get(name, name): bounds.percentage(accuracy)
        for name, accuracy in evaluation["accuracy"].items()
    }
    told = ("accuracy", "least_distance", "warnings")
    facts = {k: v for k, v in evaluation.items() if k not in told}
    return [
        *_table(accuracies, ("attack", "accuracy")),
        "",
        *_warnings(evaluation.get("warnings", [])),
        *_facts(facts),
    ]


def _warnings(sentences):
    """What a reader must not miss, a paragraph each."""
    return [
        line
        for sentence in sentences
        for line in (f"**Warning:** {markup.escaped(sentence)}", "")
    ]


def _files(files):
    """Tables of each file: what it withstands, beside the classifier."""
    lines = []
    for name, facts in files.items():
        accuracy = {
            attack: " of the classifier's ".join(
                bounds.percentage(facts[whose][attack])
                for whose in ("accuracy", "classifier_accuracy")
            )
            for attack in facts["accuracy"]
        }
        others = {
            key: value
            for key, value in facts.items()
            if key not in ("accuracy", "classifier_accuracy")
        }
        table = _table(_named(others) | accuracy)
        lines += [f"`{name}`", "", *table, ""]
    return lines[:-1]


def _facts(facts):
    return _table(_named(facts or {}))


def _named(facts):
    """Facts by their names in words; names of attacks are what is called."""
    return {name.replace("_", " "): value for name, value in facts.items()}


def _table(facts, headings=("", "")):
    if not facts:
        return []
    rows = [
        [markup.escaped(text) for text in (name, _text(value))]
        for name, value in facts.items()
    ]
    return [markup.table(headings, rows, "---")]


def _text(value):
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _few(names):
    if len(names) <= 10:
        return ", ".join(names)
    return f"{', '.join(names[:9])}, ... {names[-1]}"
