"""docs/runs.md: its commands and snippets are run, as a reader would."""

import pathlib
import re

import programs
import pytest

PAGE = (programs.ROOT / "docs/runs.md").read_text(encoding="utf-8")


def block(marker):
    """The fenced block after `<!-- marker -->`."""
    pattern = rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```"
    return re.search(pattern, PAGE, re.DOTALL).group(1)


def quicker(code):
    """The same with a few steps an epoch, which show as much."""
    code, count = re.subn(
        r"epochs=\d+,", "epochs=2, steps_per_epoch=2, strategy='single',", code
    )
    assert count == 1
    return code


def test_python_snippet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(quicker(block("test: python")), {})
    assert "Finished: best epoch" in capsys.readouterr().out
    assert (tmp_path / "best.keras").exists()


def test_optuna_snippet(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    exec(quicker(block("test: optuna")), {})
    assert "regularization" in capsys.readouterr().out
    runs = sorted(pathlib.Path("runs/study").glob("*/run.json"))
    assert [run.parent.name for run in runs] == ["0", "1"]


def test_sweep_in_a_shell(tmp_path):
    text = block("test: sweep")
    [train] = re.findall(r"^ +mart-train (.*)$", text, re.MULTILINE)
    for seed in "01":
        arguments = train.replace("${value}", "5").replace("$value", "5")
        arguments = arguments.replace("$seed", seed).split()
        done = programs.run(
            "train",
            *arguments,
            "--epochs=1",
            "--steps_per_epoch=2",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    evaluated, compared = re.findall(
        r"^mart-evaluate (.*)$", text, re.MULTILINE
    )
    done = programs.run(
        "evaluate",
        *evaluated.replace("'", "").split(),
        "--attacks=fgsm",
        "--max_examples=30",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "lambda5_seed*" in done.stdout
    assert "seed 0, 1" in done.stdout and "±" in done.stdout
    (tmp_path / "runs/sweep/lambda5_seed0").rename(tmp_path / "runs/another")
    done = programs.run("evaluate", compared.replace("'", ""), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lambda5_seed1 and 1 more" in done.stdout
    assert (tmp_path / "comparison" / "compare.html").exists()
