"""Several reports in one table and one figure."""

import dataclasses
import io
import json

import made_reports as made
from matplotlib import image
import pytest
import rich.console

import mart_tf
from mart_tf.reports import comparison


def _printed(reports, width=120):
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(comparison.compare(reports))
    return console.file.getvalue()


def _rows(text):
    return [line.split() for line in text.splitlines() if line.strip()]


@pytest.fixture
def other():
    """Another model: FGSM and PGD alone, example 0 broken by both."""
    return made.full(
        results=(
            made.natural(),
            dataclasses.replace(made.pgd("fgsm"), outcome=made.outcome(9, 0)),
            dataclasses.replace(made.pgd(), outcome=made.outcome(9, 0)),
        )
    )


class TestTable:
    def test_has_a_row_for_each_attack(self, other):
        text = _printed({"MART": made.full(), "standard": other})
        rows = _rows(text)
        start = rows.index(["accuracy", "in", "%", "MART", "standard"])
        # Attacks down, models across, and below it a rule.
        assert rows[start + 2 :] == [
            ["natural", "90.00", "90.00"],
            ["fgsm", "–", "80.00"],
            ["pgd:steps=20", "70.00", "80.00"],
            ["autoattack", "60.00", "–"],
            ["cleverhans:cw_l2", "(l2,", "radius", "1.25)", "70.00", "–"],
            ["worst", "case", "50.00", "80.00"],
        ]
        assert "The threat model: linf, epsilon 0.3, pixels 0 to 1." in text
        assert "digits, test, 10 examples of shape 8x8x1, 4 classes." in text
        assert "The worst case is over the attacks of its own model." in text

    def test_reports_and_files_give_the_same(self, other, tmp_path):
        both = {"MART": made.full(), "standard": other}
        read = {
            name: comparison.load(report.save(tmp_path / name))
            for name, report in both.items()
        }
        assert _printed(read) == _printed(both)
        file = tmp_path / "MART" / "report.json"
        assert comparison.load(file) == read["MART"]

    def test_another_threat_model_or_other_data_is_said(self):
        wider = made.full(threat=mart_tf.ThreatModel(epsilon=0.4))
        text = " ".join(_printed({"a": made.full(), "b": wider}).split())
        assert "The threat model is not the same." in text
        assert "a: linf, epsilon 0.3, pixels 0 to 1; b: linf, epsilon 0.4" in (
            text
        )
        train = made.full(data=made.full().data | {"split": "train"})
        text = " ".join(_printed({"a": made.full(), "b": train}).split())
        assert "The data is not the same. a: digits, test" in text

    def test_other_settings_under_one_name_are_said(self):
        changed = dataclasses.replace(made.pgd(), parameters={"steps": 21})
        other = made.full(results=(made.natural(), changed))
        text = _printed({"a": made.full(), "b": other})
        assert "Not with the same settings: pgd:steps=20." in text

    def test_is_whole_in_a_narrow_terminal(self):
        text = _printed({"runs/a_long_name": made.full()}, 60)
        assert max(map(len, text.splitlines())) <= 60
        for value in ("90.00", "70.00", "60.00", "50.00"):
            assert value in text

    def test_the_order_keeps_that_of_every_report(self):
        assert comparison._merged(
            [
                ["natural", "pgd", "cw", "worst case"],
                ["natural", "fgsm", "pgd", "square", "cw", "worst case"],
                ["natural", "spsa", "worst case"],
            ]
        ) == ["natural", "spsa", "fgsm", "pgd", "square", "cw", "worst case"]

    def test_a_name_is_no_markup(self):
        assert "[red]x[/y]" in _printed({"[red]x[/y]": made.bare()})

    def test_refuses_nothing(self):
        with pytest.raises(ValueError, match="There is no report; expected"):
            comparison.compare({})


class TestFiles:
    def test_are_a_page_and_a_figure(self, other, tmp_path):
        reports = {"MART|1": made.full(), "$\\frac": other}
        directory = comparison.save_comparison(reports, tmp_path / "compare")
        assert sorted(path.name for path in directory.iterdir()) == [
            "compare.md",
            "compare.png",
        ]
        written = (directory / "compare.md").read_text("utf-8")
        # PGD is in both rows, and better in the second; the worst cases are
        # over different attacks.
        assert "| MART\\|1 | **90.00** | – | 70.00 | 60.00 |" in written
        assert "| **90.00** | 80.00 | **80.00** | – | – | 80.00 |" in written
        assert "](compare.png)" in written
        assert image.imread(directory / "compare.png").std() > 0.05

    def test_nothing_is_best_across_threat_models(self, tmp_path):
        wider = made.full(threat=mart_tf.ThreatModel(epsilon=0.4))
        reports = {"a": made.full(), "b": wider}
        directory = comparison.save_comparison(reports, tmp_path)
        assert "**" not in (directory / "compare.md").read_text("utf-8")


class TestLoad:
    def test_refuses_what_is_not_there(self, tmp_path):
        with pytest.raises(ValueError, match="is not there; expected the"):
            comparison.load(tmp_path)
        with pytest.raises(ValueError, match="is not there; expected the"):
            comparison.load(tmp_path / "other.json")

    def test_refuses_another_version(self, tmp_path):
        path = tmp_path / "report.json"
        path.write_text('{"schema_version": 1}')
        with pytest.raises(ValueError) as error:
            comparison.load(path)
        assert str(error.value) == (
            f"{path} has schema_version 1, expected 2; evaluate again."
        )

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text, content: text[:-50],
            lambda text, content: "",
            lambda text, content: "[]",
            lambda text, content: "null",
            lambda text, content: json.dumps(content | {"attacks": None}),
            lambda text, content: json.dumps(content | {"attacks": ["fgsm"]}),
            lambda text, content: json.dumps(content | {"threat_model": {}}),
            lambda text, content: json.dumps(
                content | {"natural": content["natural"] | {"accuracy": 7}}
            ),
            lambda text, content: json.dumps(
                {key: content[key] for key in content if key != "signs"}
            ),
        ],
    )
    def test_refuses_damage(self, damage, tmp_path):
        path = made.bare().save(tmp_path) / "report.json"
        text = path.read_text("utf-8")
        path.write_text(damage(text, json.loads(text)), "utf-8")
        with pytest.raises(ValueError) as error:
            comparison.load(tmp_path)
        assert str(error.value) == (
            f"{path} is damaged or no report of an evaluation; evaluate again."
        )
