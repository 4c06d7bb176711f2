"""run.json: read as it was written, or refused in one sentence."""

import json
import os
import pathlib

import pytest

from mart_tf.runs import config as run_config
from mart_tf.runs import record

FACTS = {
    "policy": "float32",
    "image_shape": [8, 8, 1],
    "num_classes": 2,
    "class_names": ["a", "b"],
    "files": {"a.npz": "0"},
}


@pytest.fixture
def written(tmp_path):
    config = run_config.Config(workdir=str(tmp_path)).resolved()
    record.write(config, FACTS)
    return tmp_path / "run.json", config


def test_comes_back(written):
    file, config = written
    earlier = record.read(file.parent)
    assert earlier.workdir == str(file.parent)
    assert earlier.config == config
    assert {name: getattr(earlier, name) for name in FACTS} == FACTS
    record.write(config, FACTS, earlier)
    assert record.read(file.parent) == earlier


def test_another_digit_is_seen(written):
    file, config = written
    text = file.read_text()
    assert config.epsilon == 0.15
    file.write_text(text.replace('"epsilon": 0.15', '"epsilon": 0.16'))
    with pytest.raises(ValueError, match="its checksum does not match"):
        record.read(file.parent)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ((), None, "no format"),
        ((), [], "no format"),
        (("format",), 2, "no format"),
        (("config",), None, "configuration or facts are missing"),
        (("facts",), [], "configuration or facts are missing"),
        (("config", "epochs"), "30", "epochs is '30'"),
        (("config", "epochs"), True, "epochs is True"),
        (("config", "epochs"), 1.5, "epochs is 1.5"),
        (("config", "augment"), 1, "augment is 1"),
        (("config", "defense"), None, "defense is None"),
        (("config", "colour"), "red", "colour is no setting"),
        (("facts", "image_shape"), "8x8", "image_shape is '8x8'"),
        (("facts", "image_shape"), [8, 8, "1"], "image_shape is"),
        (("facts", "class_names"), [1, 2], "class_names is"),
        (("facts", "num_classes"), None, "num_classes is None"),
        (("facts", "policy"), 32, "policy is 32"),
        (("facts", "files"), [], "files is"),
    ],
)
def test_what_no_run_wrote_is_refused(written, place, value, fault):
    file, _ = written
    content = json.loads(file.read_text())
    # As of a version without one: the checksum would see it first.
    del content["sha256"]
    if place:
        *folders, name = place
        holder = content
        for folder in folders:
            holder = holder[folder]
        holder[name] = value
    else:
        content = value
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is damaged or of another") as caught:
        record.read(file.parent)
    assert fault in str(caught.value)


def test_whole_numbers_may_stand_for_others(written):
    file, _ = written
    content = json.loads(file.read_text())
    del content["sha256"]
    content["config"]["learning_rate"] = 1
    file.write_text(json.dumps(content))
    assert record.read(file.parent).config.learning_rate == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"\xef\xbb\xbf{}", b"\0" * 99],
)
def test_what_is_no_json_is_refused(written, content):
    file, _ = written
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or of another version"):
        record.read(file.parent)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file_is_no_run(written, kind):
    file, _ = written
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(pathlib.Path("/dev/zero"))
    with pytest.raises(ValueError, match="holds no run.json"):
        record.read(file.parent)
