"""The documentation site: built as CI builds it, without a network."""

import html.parser
import pathlib
import re
import subprocess
import sys

import programs
import pytest
import yaml

from mart_tf import attacks
from mart_tf import defenses

CONFIG = programs.ROOT / "mkdocs.yml"


def pages_of(nav):
    """The pages of a nav, sections opened."""
    for entry in nav:
        target = entry
        if isinstance(entry, dict):
            (target,) = entry.values()
        if isinstance(target, list):
            yield from pages_of(target)
        else:
            yield target


def test_every_page_has_its_place():
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    listed = list(pages_of(config["nav"]))
    assert len(listed) == len(set(listed))
    pages = {page.name for page in (programs.ROOT / "docs").glob("*.md")}
    assert pages <= set(listed)


def test_nothing_is_fetched_from_elsewhere():
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    assert config["theme"]["font"] is False
    assert "https:" not in CONFIG.read_text("utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=programs.ROOT,
        env=programs.environment() | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    # A warning, such as a link or an anchor that leads nowhere, ends it.
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Loaded(html.parser.HTMLParser):
    """What a browser fetches for a page."""

    def __init__(self):
        super().__init__()
        self.urls = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("script", "img", "iframe"):
            self.urls.append(attributes.get("src") or "")
        elif tag == "link" and attributes.get("rel") != "canonical":
            self.urls.append(attributes.get("href") or "")


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text("utf-8"))
        elsewhere = [url for url in loaded.urls if "//" in url]
        assert not elsewhere, page
    styles = "".join(p.read_text("utf-8") for p in site.rglob("*.css"))
    assert not re.search(r"(url\(|@import )[\"']?https?:", styles)


def text(page: pathlib.Path):
    return re.sub(r"<[^>]+>", "", page.read_text("utf-8"))


def test_a_search_finds_the_sentences(site):
    index = (site / "search/search_index.json").read_text("utf-8")
    for words in (
        "steps in a row were skipped",
        "--epsilon_sweep",
        "boosted_cross_entropy",
    ):
        assert words in index


def test_programs_and_api_are_written_from_the_source(site):
    flags = text(site / "programs/mart-train/index.html")
    assert "--checkpoint_every" in flags and "10min" in flags
    page = text(site / "api/mart_tf.attacks/index.html")
    for name in dir(attacks):
        assert f"mart_tf.attacks.{name}" in page
    page = text(site / "api/mart_tf.defenses/index.html")
    for name in dir(defenses):
        assert f"mart_tf.defenses.{name}" in page


def test_what_lies_outside_docs_is_there(site):
    for path in (
        "flags/index.html",
        "export/training/tfjob.yaml",
        "examples/robust_digits.ipynb",
        "LICENSE",
    ):
        assert (site / path).exists()
    start = (site / "start/index.html").read_text("utf-8")
    assert 'href="../export/#three-commands"' in start
