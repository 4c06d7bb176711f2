"""What the repository says of itself: citation, templates, package index."""

import configparser

import programs
import pytest
import yaml

import mart_tf

TEMPLATES = programs.ROOT / ".github/ISSUE_TEMPLATE"


def test_the_citation_is_of_this_version():
    text = (programs.ROOT / "CITATION.cff").read_text("utf-8")
    citation = yaml.safe_load(text)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == mart_tf.__version__
    assert citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert paper["year"] == 2020
    assert paper["url"] in (programs.ROOT / "README.md").read_text("utf-8")


def test_the_readme_is_the_page_of_a_package_index():
    setup = configparser.ConfigParser()
    setup.read(programs.ROOT / "setup.cfg")
    assert setup["metadata"]["long_description"] == "file: README.md"
    assert setup["metadata"]["long_description_content_type"] == "text/markdown"


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.md")))
def test_an_issue_template_says_what_it_is_for(template):
    _, head, body = template.read_text("utf-8").split("---\n", 2)
    assert {"name", "about"} <= yaml.safe_load(head).keys()
    assert body.count("**") >= 6
