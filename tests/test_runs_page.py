"""docs/runs.md: its commands and snippets are run, as a reader would."""

import re

import programs

PAGE = (programs.ROOT / "docs/runs.md").read_text(encoding="utf-8")


def block(marker):
    """The fenced block after `<!-- marker -->`."""
    pattern = rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```"
    return re.search(pattern, PAGE, re.DOTALL).group(1)


def test_python_snippet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(block("test: python"), {})
    assert "Finished: best epoch" in capsys.readouterr().out
    assert (tmp_path / "best.keras").exists()
