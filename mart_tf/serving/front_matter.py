"""What the Hugging Face Hub reads of a model card: YAML before the text.

https://huggingface.co/docs/hub/model-cards. Each value is written as JSON,
which YAML contains. A license is the publisher's to say, and left out.
"""

import json

from mart_tf import options


def lines(card):
    """The front matter of a card, a list of lines.

    Args:
        card: As `card.write` takes it, with every key.
    """
    training = card["training"] or {}
    facts = {
        "library_name": "tensorflow",
        "pipeline_tag": "image-classification",
        "tags": _tags(card, training),
    }
    dataset = _named(training.get("dataset"))
    if dataset is not None:
        facts["datasets"] = [dataset]
    if card["evaluation"]:
        facts["metrics"] = ["accuracy"]
        facts["model-index"] = [
            {"name": card["model"]["name"], "results": [_result(card)]}
        ]
    return [
        "---",
        *(
            f"{key}: {json.dumps(value, ensure_ascii=False)}"
            for key, value in facts.items()
        ),
        "---",
    ]


def _tags(card, training):
    tags = ["image-classification", "adversarial-robustness", "saved-model"]
    defense = _named(training.get("defense"))
    if defense not in (None, "natural"):
        tags += ["adversarial-training", defense]
    suffixes = {name.rpartition(".")[2] for name in card["files"]}
    return tags + sorted(suffixes)


def _named(spec):
    """The name in a spec; None of what is a user's own: a path, a module."""
    parsed = options.parse(spec or "none:none")
    return parsed.name if parsed.argument is None else None


def _result(card):
    """An entry of the Hub's model-index: each accuracy, a share of 1."""
    evaluation = card["evaluation"]
    name = _named(evaluation.get("dataset")) or "images"
    metrics = [
        {"type": "accuracy", "value": accuracy, **_measured(attack, evaluation)}
        for attack, accuracy in evaluation["accuracy"].items()
    ]
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": name, "type": name, **_of(evaluation, "split")},
        "metrics": metrics,
    }


def _measured(attack, evaluation):
    """The name of an accuracy, the threat model, and of which images it is."""
    own = evaluation.get("least_distance", {}).get(attack)
    if attack == "natural":
        name, args = "natural accuracy", {}
    elif own is not None:
        name = f"accuracy under {own['label']}"
        args = {key: own[key] for key in ("norm", "radius")}
    else:
        called = "all attacks at once" if attack == "worst_case" else attack
        name = f"accuracy under {called}"
        args = _of(evaluation, "norm", "epsilon")
    args |= _of(evaluation, "examples", "sample")
    return {"name": name, "args": args} if args else {"name": name}


def _of(evaluation, *names):
    return {name: evaluation[name] for name in names if name in evaluation}
