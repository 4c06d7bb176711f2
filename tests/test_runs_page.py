"""docs/runs.md: its snippets are run, its commands are those of programs."""

import re
import shlex
import shutil

import made_reports
import programs
import pytest
import test_record

import mart_tf
from mart_tf import cli
from mart_tf import evaluate
from mart_tf import train
from mart_tf.runs import record

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
    code = block("test: optuna").replace("n_trials=2", "n_trials=1")
    exec(quicker(code), {})
    assert "0 {'regularization'" in capsys.readouterr().out
    assert mart_tf.load_run("runs/study/0").history["epoch"] == [1, 2]


def test_sweep_in_a_shell(tmp_path, monkeypatch):
    """The commands of the loop, their runs and reports made up."""
    monkeypatch.chdir(tmp_path)
    text = block("test: sweep")
    [line] = re.findall(r"^ +mart-train (.*)$", text, re.MULTILINE)
    for value, seed in [("1", "0"), ("1", "1"), ("5", "0"), ("5", "1")]:
        flags = line.replace("${value}", value).replace("$value", value)
        config = parsed(train, flags.replace("$seed", seed))().resolved()
        assert config.workdir == f"runs/sweep/lambda{value}_seed{seed}"
        assert f"regularization={value}:" in config.defense
        run = tmp_path / config.workdir
        run.mkdir(parents=True)
        record.write(config, test_record.FACTS)
        made_reports.bare().save(run / "evaluation")
    shutil.copytree(run, "runs/another")
    evaluated, compared = re.findall(
        r"^mart-evaluate (.*)$", text, re.MULTILINE
    )
    parsed(evaluate, evaluated)
    done = programs.run("evaluate", *shlex.split(compared))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "comparison" / "compare.csv").read_text()
    names = [line.split(",")[0] for line in table.splitlines()[1:]]
    # Of two runs with the same settings and seed it is not known why.
    assert "lambda1_seed*" in names and "another" in names


def parsed(program, line):
    """The flags of a command, read; what says their configuration."""
    for name in program.FLAGS:
        program.FLAGS[name].unparse()
    cli.parse("mart", program.FLAGS, shlex.split(line))
    return getattr(program, "configuration", None)
