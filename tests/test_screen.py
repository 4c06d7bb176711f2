"""Text in lines no wider than a screen."""

import fcntl
import io
import os
import pty
import shlex
import struct
import sys
import termios

import pytest
import rich.console

from mart_tf import markup
from mart_tf import screen
from mart_tf.reports import terminal

SPEC = "mart:regularization=5:form=paper:outer=bce:weighting=soft"


def test_lines_are_cut_at_spaces():
    assert screen.wrapped("one two three", 7) == "one two\nthree"
    assert screen.wrapped("one two three", 9, indent=2) == "one two\n  three"
    assert screen.wrapped("", 7) == ""


def test_a_long_spec_is_cut_where_its_parts_meet():
    lines = screen.wrapped(f"by {SPEC}", 30).split("\n")
    assert lines == [
        "by mart:regularization=5:",
        "form=paper:outer=bce:",
        "weighting=soft",
    ]
    # One that fits is not, though a line before it is short.
    assert screen.wrapped("a pgd:steps=20", 12) == "a\npgd:steps=20"


def test_what_is_copied_stays_whole():
    for path in ("/" + "long/" * 30, "gs://" + "bucket/" * 30):
        assert screen.wrapped(f"Wrote {path}", 40) == f"Wrote\n{path}"


def test_short_texts_beside_each_other():
    console = rich.console.Console(file=io.StringIO(), width=30)
    parts = ["loss 1.0", "natural 50.0 %", "robust 20.0 %"]
    screen.say_parts(parts, "epoch 1/3  ", console)
    assert console.file.getvalue() == (
        "epoch 1/3  loss 1.0\n"
        "           natural 50.0 %\n"
        "           robust 20.0 %\n"
    )


def test_a_command_is_joined_by_backslashes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen.say_command("Try:", ["mart-train", "--dataset='a b'", "--epochs=2"])
    assert capsys.readouterr().out == (
        "Try:\n  mart-train --dataset='a b' \\\n    --epochs=2\n"
    )


def test_a_sentence_of_a_log_is_a_line(capsys):
    screen.complain("word " * 100)
    assert capsys.readouterr().err == "word " * 100 + "\n"


@pytest.mark.parametrize(("columns", "width"), [(44, 44), (0, 80)])
def test_a_sentence_on_a_terminal_fits_it(columns, width, monkeypatch):
    master, slave = pty.openpty()
    size = struct.pack("HHHH", 40, columns, 0, 0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        screen.complain("word " * 40)
        said = os.read(master, 1000).decode()
    os.close(master)
    lines = said.replace("\r", "").split("\n")
    assert said.split() == ["word"] * 40
    assert width - len("word ") <= max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("columns", "width"), [("0", 80), ("1", 20), ("19", 20), ("50", 50)]
)
def test_a_width_of_nothing_is_none(columns, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert screen.console().width == width
    screen.say("All is said.")
    assert capsys.readouterr().out == "All is said.\n"


def test_a_text_says_nothing_to_a_terminal(capsys):
    hostile = "run \x1b]0;owned\x07 \x1b[2J"
    spelled = r"run \x1b]0;owned\x07 \x1b[2J"
    screen.say(hostile)
    screen.say_parts([hostile], "", screen.console())
    screen.complain(f"{hostile}\nits second line")
    captured = capsys.readouterr()
    assert captured.out == f"{spelled}\n{spelled}\n"
    assert captured.err == f"{spelled}\nits second line\n"
    comparison = terminal.Comparison(
        [hostile], [(hostile, ["1.00"], [True])], [hostile]
    )
    screen.console().print(comparison)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("space", ["\u3000", "\xa0"])
def test_a_command_with_a_space_of_any_script_can_be_copied(space, capsys):
    word = f"--workdir=/data/a{space}b"
    screen.say_command("Go on:", ["mart-train", shlex.quote(word)])
    _, *lines = capsys.readouterr().out.splitlines()
    assert shlex.split("\n".join(lines)) == ["mart-train", word]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits_cnn a_b_c", "digits_cnn a_b_c"),
        ("/data/__runs__/_m_", r"/data/\_\_runs\_\_/\_m\_"),
        ("~~gone~~ *b* [l](x)", r"\~\~gone\~\~ \*b\* \[l\](x)"),
    ],
)
def test_a_text_in_markdown_is_as_it_is(text, expected):
    assert markup.escaped(text) == expected
