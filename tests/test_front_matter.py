"""What the Hugging Face Hub reads of a model card."""

import html
import json
import re

import keras
import made_reports
import markdown_it
import numpy as np
import pytest
import yaml

import mart_tf
from mart_tf.data import archives
from mart_tf.evaluation import exported
from mart_tf.serving import card as model_card
from mart_tf.serving import front_matter

_EVALUATION = {
    "accuracy": {"natural": 0.98, "pgd:steps=20": 0.82, "worst_case": 0.8},
    "dataset": "digits",
    "split": "test",
    "norm": "linf",
    "epsilon": 0.15,
}


def _card(**changes):
    card = {
        "model": {"name": "digits_cnn"},
        "training": {"dataset": "digits", "defense": "mart:regularization=5"},
        "evaluation": _EVALUATION,
        "files": {"model.tflite": {}, "model_int8.tflite": {}},
    }
    return card | changes


def _read(card):
    first, *lines, last = front_matter.lines(card)
    assert first == last == "---"
    return yaml.safe_load("\n".join(lines))


def test_all_that_is_known():
    facts = _read(_card())
    assert facts["library_name"] == "tensorflow"
    assert facts["pipeline_tag"] == "image-classification"
    assert facts["tags"] == [
        "image-classification",
        "adversarial-robustness",
        "saved-model",
        "adversarial-training",
        "mart",
        "tflite",
    ]
    assert facts["datasets"] == ["digits"]
    assert facts["metrics"] == ["accuracy"]
    [model] = facts["model-index"]
    assert model["name"] == "digits_cnn"
    [result] = model["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {
        "name": "digits",
        "type": "digits",
        "split": "test",
    }
    threat = {"norm": "linf", "epsilon": 0.15}
    assert [list(metric.values()) for metric in result["metrics"]] == [
        ["accuracy", 0.98, "natural accuracy"],
        ["accuracy", 0.82, "accuracy under pgd:steps=20", threat],
        ["accuracy", 0.8, "accuracy under all attacks at once", threat],
    ]


def test_nothing_is_said_of_what_is_not_known():
    facts = _read(_card(training=None, evaluation=None, files={}))
    assert list(facts) == ["library_name", "pipeline_tag", "tags"]
    assert facts["tags"] == [
        "image-classification",
        "adversarial-robustness",
        "saved-model",
    ]


@pytest.mark.parametrize(
    "spec", ["folder:/home/me/pictures", "npz:mine.npz", "my_parts:stripes"]
)
def test_what_is_a_users_own_has_no_name_elsewhere(spec):
    training = {"dataset": spec, "defense": "my_parts:Smoothed:share=0.2"}
    evaluation = _EVALUATION | {"dataset": spec}
    facts = _read(_card(training=training, evaluation=evaluation))
    assert "datasets" not in facts
    assert "adversarial-training" not in facts["tags"]
    [result] = facts["model-index"][0]["results"]
    assert result["dataset"]["type"] == "images"
    assert "mine" not in str(facts) and "my_parts" not in str(facts)


def test_a_split_that_is_not_known_is_left_out():
    """Of arrays in Python: they may be a part of any."""
    evaluation = {k: v for k, v in _EVALUATION.items() if k != "split"}
    facts = _read(_card(evaluation=evaluation))
    [result] = facts["model-index"][0]["results"]
    assert result["dataset"] == {"name": "digits", "type": "digits"}


def test_natural_training_is_not_called_adversarial():
    facts = _read(_card(training={"dataset": "mnist", "defense": "natural"}))
    assert "adversarial-training" not in facts["tags"]
    assert facts["datasets"] == ["mnist"]


def test_a_name_is_read_back_as_it_is():
    name = 'a "b": \\ [é] # 日\n'
    facts = _read(_card(model={"name": name}))
    assert facts["model-index"][0]["name"] == name


_MODEL = {
    "name": "n",
    "parameters": 51,
    "pixel_range": [0, 1],
    "image_shape": [4, 4, 1],
    "classes": 3,
    "class_names": list("abc"),
}


def _text(tmp_path, **changes):
    """The Markdown of a card, without the front matter."""
    nothing = {"signatures": {}, "versions": {}, "verification": None}
    card = _card(training=None, files={}, saved_model_sha256="0", **nothing)
    model_card.write(tmp_path, card | {"model": _MODEL} | changes)
    path = tmp_path / "assets.extra" / "model_card.md"
    return path.read_text("utf-8").split("---\n", 2)[2]


def test_names_of_a_user_are_what_they_are(tmp_path):
    names = ["<script>x", "a|b", "c\nd", "*e*", "`f`", "[g](h)", "i\\*j\\*"]
    attack = "mine:Nudge:how=<b>|*x*"
    text = _text(
        tmp_path,
        model=_MODEL | {"class_names": names},
        evaluation=_EVALUATION | {"accuracy": {attack: 0.5}},
    )
    rendered = markdown_it.MarkdownIt("commonmark").enable("table").render(text)
    tags = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(re.findall(r"<(\w+)", rendered)) == tags | {"code"}
    # That of saved_model.pb.
    assert rendered.count("<code>") == 1
    read = html.unescape(rendered)
    assert "(<script>x, a|b, c d, *e*, `f`, [g](h), i\\*j\\*)." in read
    assert f"<td>{attack}</td>\n<td>50.00%</td>\n</tr>" in read


def test_what_a_report_warns_of_stands_under_its_table(tmp_path):
    weights = [np.ones([2, 3], np.float32)]
    report = made_reports.full()
    report.model["weights"] = archives.digest(weights)
    report.save(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    content["signs"][5] |= {"verdict": "failed", "evidence": "40 % under it."}
    (tmp_path / "report.json").write_text(json.dumps(content))
    said = exported.reported(tmp_path, weights)
    text = _text(tmp_path, evaluation=said)
    under = text.partition("| worst case |")[2].partition("\n| dataset |")[0]
    assert re.findall("Warning:.*", under) == [
        "Warning:** Without attack the accuracy is low.",
        "Warning:** Does AutoAttack leave nearly as much as PGD and CW? No: "
        "40 % under it.",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        {"model": None},
        {"model": []},
        {"data": []},
        {"threat_model": 3},
        {"natural": None},
        {"signs": [None]},
    ],
)
def test_a_damaged_report_is_none(tmp_path, damage):
    weights = [np.ones([2, 3], np.float32)]
    report = made_reports.full()
    report.model["weights"] = archives.digest(weights)
    report.save(tmp_path)
    assert exported.reported(tmp_path, weights)
    content = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(content | damage))
    assert exported.reported(tmp_path, weights) is None


_SEARCH = "cw_l2:max_iterations=2:binary_search_steps=1:radius=5"
_SHOWN = f"{_SEARCH} (l2, radius 5)"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The card of a network whose report holds a least distance, as text."""
    folder = tmp_path_factory.mktemp("published")
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)],
        name="three_classes",
    )
    images = np.random.default_rng(0).random([6, 4, 4, 1], np.float32)
    mart_tf.evaluate_robustness(
        network,
        (images, np.arange(6) % 3),
        mart_tf.ThreatModel("linf", 0.1),
        ["fgsm", _SEARCH],
        directory=folder / "evaluation",
    )
    said = exported.reported(folder / "evaluation", network.get_weights())
    card = _card(training=None, evaluation=said, files={})
    card["model"] = _MODEL
    more = ("signatures", "versions", "verification")
    tried = {"served_accuracy": 0.5}
    files = {"m.onnx": {"same_logits": 1} | _withstood("accuracy")}
    files["m.onnx"] |= _withstood("classifier_accuracy")
    card |= dict.fromkeys(more, tried) | {"signatures": {}, "files": files}
    model_card.write(folder, card | {"saved_model_sha256": "0"})
    return (folder / "assets.extra" / "model_card.md").read_text("utf-8")


def _withstood(whose):
    return {whose: {"transfer:pgd:steps_per_epsilon=4": 0.5}}


def test_a_least_distance_is_of_its_own_threat_model(published):
    _, facts, _ = published.split("---\n", 2)
    [result] = yaml.safe_load(facts)["model-index"][0]["results"]
    args = {metric["name"]: metric.get("args") for metric in result["metrics"]}
    images = {"examples": 6, "sample": "all"}
    threat = {"norm": "linf", "epsilon": 0.1, **images}
    assert args == {
        "natural accuracy": images,
        "accuracy under fgsm": threat,
        f"accuracy under {_SHOWN}": {"norm": "l2", "radius": 5, **images},
        "accuracy under all attacks at once": threat,
    }


def test_the_table_names_attacks_as_they_are_called(published):
    assert f"\n| {_SHOWN} | " in published
    assert "\n| worst case | " in published
    assert "\n| transfer:pgd:steps_per_epsilon=4 | 50.00% of the" in published
    # Facts are in words.
    for fact in ("pixel max", "served accuracy", "same logits"):
        assert f"\n| {fact} | " in published
    assert "least" not in published
