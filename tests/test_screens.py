"""The programs on real terminals of 80 and of 120 columns."""

import pathlib
import re

import made_reports as made
import pytest
import screens
import small_runs

_TRAINING = ["--workdir=new", "--model=small_network:build"]

# Steps whose end no test waits for.
_ENDLESS = "pgd:steps=20:restarts=10000"


@pytest.fixture(autouse=True)
def place(own_directory):
    """A folder with a trained run."""
    small_runs.trained("run", epochs=1)


def assert_tidy(screen):
    """No line beyond the edge, and no bar, nor a hidden cursor, is left."""
    assert not screen.wraps
    assert not re.search("━|compiling|Traceback", "\n".join(screen.lines))
    hidden, there = (screen.said.rfind(f"\x1b[?25{end}") for end in "lh")
    assert hidden <= there


def test_an_evaluation_ends_with_its_results():
    screen = screens.shown(
        80,
        "evaluate",
        "--workdir=run",
        "--attacks=fgsm,pgd:steps=3:objective=dlr:random_start=none",
        "--max_examples=20",
        "--allow_code",
    )
    assert_tidy(screen)
    assert "compiling" in screen.said
    lines = [line.split() for line in screen.lines]
    heading = ["attack", "accuracy"]
    [start] = [n for n, line in enumerate(lines) if line[:2] == heading]
    natural, *attacks, worst = lines[start + 2 :]
    assert natural[0] == "natural"
    # Cut between two options, if at all.
    names = "".join(line[0] for line in attacks)
    assert names == "fgsmpgd:steps=3:objective=dlr:random_start=none"
    assert worst[:2] == ["worst", "case"]
    [signs] = [line for line in screen.lines if "Signs" in line]
    assert re.fullmatch(
        r"Signs of gradient masking: (\d \w+, )?\d not tested\.", signs
    )


@pytest.mark.parametrize("columns", [80, 120])
def test_a_comparison_ends_with_its_table(columns):
    long_name = "a_model_with_quite_a_long_name"
    for name in ("short", long_name):
        made.full().save(name)
    screen = screens.shown(columns, "evaluate", f"--compare=short,{long_name}")
    assert_tidy(screen)
    lines = [line.split() for line in screen.lines]
    start = lines.index(["accuracy", "in", "%", "1", "2"])
    assert lines[start + 2 :] == [
        ["natural", "90.00", "90.00"],
        ["pgd:steps=20", "70.00", "70.00"],
        ["autoattack", "60.00", "60.00"],
        *(
            [
                ["cleverhans:cw_l2", "(l2,", "70.00", "70.00"],
                ["radius", "1.25)"],
            ]
            if columns == 80
            else [
                [
                    "cleverhans:cw_l2",
                    "(l2,",
                    "radius",
                    "1.25)",
                    "70.00",
                    "70.00",
                ]
            ]
        ),
        ["worst", "case", "50.00", "50.00"],
        [],
        ["1:", "short"],
        ["2:", long_name],
    ]


def test_training_ends_with_its_result():
    screen = screens.shown(
        80,
        "train",
        "--workdir=run",
        *(f"--{name}={value}" for name, value in small_runs.SMALL.items()),
        "--epochs=2",
    )
    assert_tidy(screen)
    # Only while it does: what is seen moves on.
    assert "compiling" in screen.said
    assert "epoch 2/2  loss" in "\n".join(screen.lines)
    assert screen.lines[-1].startswith("Finished: best epoch ")


@pytest.mark.parametrize(
    ("program", "flags", "moment", "sentence"),
    [
        (
            "evaluate",
            [
                "--workdir=run",
                f"--attacks=fgsm,{_ENDLESS}",
                "--max_examples=9",
                "--allow_code",
            ],
            # Of the second attack.
            rf"{_ENDLESS[:12]}.+images/s",
            "mart-evaluate: stopped by Ctrl-C. What was finished of run is "
            "kept in run/evaluation/partial; the same command goes on from "
            "there.",
        ),
        (
            "export",
            ["--workdir=run", "--allow_code"],
            "Threat model",
            "mart-export: stopped by Ctrl-C. No version was written; the same "
            "command writes it.",
        ),
        (
            "train",
            [*_TRAINING, "--batch_size=32", "--attack_steps=50"],
            r"epoch  1/30.+images/s",
            "mart-train: Stopped by Ctrl-C after step * of epoch 1, which is "
            "saved; the same command goes on from there.",
        ),
        (
            "train",
            _TRAINING,
            "compiling",
            "mart-train: Stopped by Ctrl-C before a step, with nothing to "
            "save; the same command goes on from there.",
        ),
    ],
)
def test_ctrl_c_says_what_is_kept(program, flags, moment, sentence):
    with screens.opened(80, program, *flags) as (screen, process):
        screen.wait(moment)
        screen.press_ctrl_c()
        assert process.finished().returncode == 130
    assert_tidy(screen)
    text = " ".join(screen.lines)
    text = re.sub(r"after step \d+", "after step *", text)
    assert text.endswith(sentence), text
    for folder in ("run/evaluation/report.json", "run/export/1"):
        assert not pathlib.Path(folder).exists()


def test_a_mistake_is_one_sentence_in_lines():
    with screens.opened(80, "train", "--epochs=none") as (screen, process):
        assert process.finished().returncode == 1
    assert not screen.wraps
    text = " ".join(screen.lines)
    assert text.startswith("mart-train: --epochs is 'none'; expected")
