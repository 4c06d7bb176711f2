"""The mistakes of benchmarks/mistakes: each can still be made in the code.

Whether a test notices it, `benchmarks/mistakes.py` says.
"""

import pathlib
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "benchmarks" / "mistakes").glob("*.toml"))
ENTRIES = [
    pytest.param(entry, id=f"{path.stem}:{entry.get('what')}")
    for path in FILES
    for entry in tomllib.loads(path.read_text("utf-8"))["mistake"]
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_mistake_can_be_made(entry):
    assert set(entry) == {"what", "file", "before", "after", "tests"}
    assert entry["before"] != entry["after"]
    text = (ROOT / entry["file"]).read_text("utf-8")
    assert text.count(entry["before"]) == 1
    compile(text.replace(entry["before"], entry["after"]), "file", "exec")
    assert entry["tests"]
    for test in entry["tests"]:
        path, *names = test.split("::")
        source = (ROOT / path).read_text("utf-8")
        for name in names:
            name = name.partition("[")[0]
            assert f"def {name}(" in source or f"class {name}" in source, test


def test_no_mistake_stands_twice():
    said = [entry.id for entry in ENTRIES]
    assert len(said) == len(set(said))
    assert said
