"""What the Hugging Face Hub reads of a model card."""

import pytest
import yaml

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


def test_natural_training_is_not_called_adversarial():
    facts = _read(_card(training={"dataset": "mnist", "defense": "natural"}))
    assert "adversarial-training" not in facts["tags"]
    assert facts["datasets"] == ["mnist"]


def test_a_name_is_read_back_as_it_is():
    name = 'a "b": \\ [é] # 日\n'
    facts = _read(_card(model={"name": name}))
    assert facts["model-index"][0]["name"] == name
