"""How reports read on a terminal, whatever their names and its width."""

import io

import made_reports as made
import pytest
import rich.console

import mart_tf
from mart_tf.reports import comparison
from mart_tf.reports import masking
from mart_tf.reports import results

LONG = "pgd:steps=1000:restarts=20:objective=dlr:random_start=gaussian"


def printed(what, width):
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(what)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def names(count):
    return [f"runs/cifar10_wide_resnet_mart_{n + 1}" for n in range(count)]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_models_with_long_names_are_numbered(count, width):
    reports = dict.fromkeys(names(count), made.full())
    lines = printed(comparison.compare(reports), width)
    assert max(map(len, lines)) <= width
    # What does not fit side by side follows below, all attacks again.
    blocks = [line for line in lines if line.startswith("accuracy in %")]
    numbers = " ".join(line.removeprefix("accuracy in %") for line in blocks)
    assert numbers.split() == [str(n + 1) for n in range(count)]
    assert len(blocks) == (1 if count <= 5 else 4 if width == 80 else 2)
    natural = [line.split() for line in lines if line.startswith("natural")]
    assert sum(map(len, natural)) == count + len(blocks)
    expected = [f"{n + 1}: {name}" for n, name in enumerate(names(count))]
    assert lines[-count:] == expected


def test_short_names_stand_above_their_columns():
    lines = printed(comparison.compare({"mart": made.full()}), 80)
    assert lines[-1].split() == ["worst", "case", "50.00"]
    assert ["accuracy", "in", "%", "mart"] in [line.split() for line in lines]


@pytest.mark.parametrize("width", [80, 120])
def test_a_name_is_cut_where_its_parts_meet(width):
    report = made.full(results=(made.natural(), made.pgd(LONG)))
    for what in (report, comparison.compare({"x" * 200: report})):
        lines = printed(what, width)
        assert max(map(len, lines)) <= width
        rows = [line.split(" ")[0] for line in lines]
        start = next(n for n, row in enumerate(rows) if row.startswith("pgd"))
        stop = next(n for n, row in enumerate(rows) if row == "worst")
        pieces = rows[start:stop]
        assert "".join(pieces) == LONG
        assert all(piece.endswith(":") for piece in pieces[:-1])


def test_only_signs_that_fail_are_told_one_by_one():
    stronger = results.Result(
        "pgd:steps=100",
        made.outcome(9),
        2.0,
        9,
        {"steps": 100, "step_size": 0.03, "random_start": "uniform"},
        nature=made.NATURES["pgd:steps=100"],
    )
    wide = {"results": (made.natural(), made.pgd())}
    lines = printed(made.full(**wide), 80)
    signs = [line for line in lines if "Signs of" in line]
    assert len(signs) == 1
    verdicts = [sign.verdict for sign in made.full(**wide).signs]
    assert ("failed" in signs[0]) == (masking.FAILED in verdicts)
    report = made.full(results=(made.natural(), made.pgd(), stronger))
    failed = [s for s in report.signs if s.verdict == masking.FAILED]
    told = [line for line in printed(report, 300) if line.startswith("Failed:")]
    assert told == [
        f"Failed: {sign.question} {sign.evidence}" for sign in failed
    ]


def test_a_radius_of_grey_levels_stays_one():
    threat = mart_tf.ThreatModel(epsilon=8 / 255)
    report = made.full(threat=threat)
    assert "runs/small: 10 examples, linf, epsilon 8/255" in str(report)
    text = "\n".join(printed(comparison.compare({"a": report}), 80))
    assert "linf, epsilon 8/255, pixels 0 to 1" in text
