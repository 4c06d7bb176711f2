"""The pages of docs/: their snippets are run, their sentences are ours."""

import ast
import re

import programs
import pytest
import snippets

from mart_tf import export_saved_model
from mart_tf import models

DOCS = programs.ROOT / "docs"
# Those of runs.md are in test_runs_page.py, with fewer steps.
PAGES = [
    page
    for page in sorted(DOCS.glob("*.md"))
    if snippets.blocks(page) and page.stem != "runs"
]


def exported(folder):
    """What stands for the run that the page has trained and exported."""
    network = models.build("digits_cnn", (8, 8, 1), 10)
    export_saved_model(network, folder, pixel_range=(0, 1), verify=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    if page.stem == "start":
        exported(tmp_path / "runs/robust/export")
    snippets.run_page(page, tmp_path)


def test_there_are_pages_with_snippets():
    names = {page.stem for page in PAGES}
    assert names >= {"start", "own_model", "troubleshooting", "migrating"}


def sentences_of_the_source():
    """Patterns of all texts in the package, names and numbers left open."""
    for path in (programs.ROOT / "mart_tf").rglob("*.py"):
        constants = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [_part(value, constants) for value in node.values]
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.escape(node.value)


def _part(value, constants):
    if isinstance(value, ast.Constant):
        return re.escape(value.value)
    name = getattr(value.value, "id", None)
    return re.escape(str(constants[name])) if name in constants else ".+"


def quoted_sentences():
    """Those of the page on what goes wrong."""
    text = (DOCS / "troubleshooting.md").read_text("utf-8")
    for block in re.findall(r"^```text\n(.*?)^```", text, re.M | re.S):
        yield from block.splitlines()


def test_quoted_sentences_are_those_of_the_programs():
    # What is mostly open would fit anything.
    patterns = [
        re.compile(pattern, re.S)
        for pattern in sentences_of_the_source()
        if len(pattern.replace(".+", "")) >= 40
    ]
    quoted = list(quoted_sentences())
    assert len(quoted) >= 15
    for sentence in quoted:
        assert any(p.fullmatch(sentence) for p in patterns), sentence
