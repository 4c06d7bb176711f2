"""Several reports in one table and one figure."""

import csv
import dataclasses
import io
import json

import made_reports as made
from matplotlib import image
import pytest
import rich.console

import mart_tf
from mart_tf.reports import comparison
from mart_tf.reports import rows


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
        start = rows.index(["accuracy", "in", "%", "standard", "MART"])
        # Attacks down, models across, and below it a rule.
        assert rows[start + 2 :] == [
            ["natural", "90.00", "90.00"],
            ["fgsm", "80.00", "–"],
            ["pgd:steps=20", "80.00", "70.00"],
            ["autoattack", "–", "60.00"],
            ["cleverhans:cw_l2", "(l2,", "radius", "1.25)", "–", "70.00"],
            ["worst", "case", "80.00", "50.00"],
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

    def test_a_worst_case_is_best_only_of_the_same_attacks(self):
        weak = dataclasses.replace(made.pgd(), parameters={"steps": 21})
        reports = {
            name: made.full(results=(made.natural(), attack))
            for name, attack in [("a", made.pgd()), ("b", weak)]
        }
        compared = rows.Comparison.of(reports)
        assert set(compared.best) == {"natural"}
        assert compared.notes[2:] == [
            "The worst case is over the attacks of its own model.",
            "Not with the same settings: pgd:steps=20.",
        ]

    @pytest.mark.parametrize(("second", "is_same"), [("a", True), ("b", False)])
    def test_a_black_box_is_the_same_from_the_same_surrogate(
        self, second, is_same
    ):
        transfer = dataclasses.replace(
            made.pgd("transfer:pgd"), access="surrogate"
        )
        reports = {
            name: made.full(
                model=made.full().model
                | {"surrogate": {"name": "cnn", "weights": weights}},
                results=(made.natural(), transfer),
            )
            for name, weights in [("one", "a"), ("two", second)]
        }
        compared = rows.Comparison.of(reports)
        assert ("transfer:pgd" in compared.best) == is_same

    @pytest.mark.parametrize("last", [350, 351])
    def test_samples_that_begin_alike_are_not_the_same(self, last):
        reports = {
            name: made.full(
                data=made.full().data
                | {"sample": "stratified", "rows": [0, 1, 2, end]}
            )
            for name, end in [("a", 350), ("b", last)]
        }
        compared = rows.Comparison.of(reports)
        assert bool(compared.best) == (last == 350)
        text = " ".join(compared.notes)
        assert ("The data is not the same." in text) == (last != 350)

    def test_is_whole_in_a_narrow_terminal(self):
        text = _printed({"runs/a_long_name": made.full()}, 60)
        assert max(map(len, text.splitlines())) <= 60
        for value in ("90.00", "70.00", "60.00", "50.00"):
            assert value in text

    def test_the_order_keeps_that_of_every_report(self):
        assert rows.merged(
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


@pytest.fixture
def sweep():
    """Two settings under two seeds each, and a report of no known run."""

    def report(*wrong):
        right = (made.natural(), made.pgd())
        broken = dataclasses.replace(right[1], outcome=made.outcome(9, *wrong))
        return made.full(results=(right[0], broken))

    reports = {
        "weak_0": report(0, 1, 2, 3, 4),
        "weak_1": report(0, 1, 2),
        "strong_0": report(0),
        "strong_1": report(1),
        "unknown": report(0, 1, 2, 3, 4, 5, 6, 7),
    }
    common = {"defense": "mart", "defense:form": "paper", "epochs": 3}
    settings = {
        f"{name}_{seed}": common | {"defense:regularization": value}
        for name, value in [("weak", "1"), ("strong", "5")]
        for seed in (0, 1)
    }
    settings["weak_1"]["defense:divergence"] = "true"
    settings["weak_0"]["defense:divergence"] = "true"
    for key, told in settings.items():
        told["seed"] = int(key[-1])
    return reports, settings


class TestSweep:
    def test_seeds_are_gathered_and_sorted_by_the_worst_case(self, sweep):
        compared = rows.Comparison.of(*sweep)
        assert list(compared.rows) == ["strong_*", "weak_*", "unknown"]
        weak = compared.rows["weak_*"]
        # 4 and 6 of 10: their mean, and their sample standard deviation.
        assert weak.accuracies["worst case"] == pytest.approx(0.5)
        assert weak.deviations["worst case"] == pytest.approx(0.02**0.5)
        assert weak.accuracies["natural"] == pytest.approx(0.9)
        assert compared.rows["unknown"].deviations == {}

    def test_settings_that_differ_are_told(self, sweep):
        compared = rows.Comparison.of(*sweep)
        # What only one kind of run has does not differ.
        assert compared.settings == ["defense:regularization", "seed"]
        assert compared.told(compared.rows["strong_*"]) == {
            "regularization": "5",
            "seed": "0, 1",
        }
        text = _printed(sweep[0])
        assert "±" not in text
        console = rich.console.Console(file=io.StringIO(), width=80)
        console.print(comparison.compare(*sweep))
        text = console.file.getvalue()
        assert "regularization 5" in text and "± 14.14" in text
        assert "± is the standard deviation over runs that differ" in text

    def test_a_run_that_has_not_ended_is_gathered_with_none(self, sweep):
        reports, settings = sweep
        said = "has finished 1 of 30 epochs"
        for name in ("weak_1", "strong_0", "strong_1"):
            settings[name]["unfinished"] = said
        compared = rows.Comparison.of(reports, settings)
        assert len(compared.rows) == 5
        assert f"weak_1 {said}." in compared.notes
        assert not any(note.startswith("weak_0") for note in compared.notes)
        assert compared.settings == ["defense:regularization", "seed"]

    def test_two_options_of_one_name_keep_whose_they_are(self, sweep):
        reports, settings = sweep
        for number, told in enumerate(settings.values()):
            told["update:regularization"] = number
        compared = rows.Comparison.of(reports, settings)
        assert compared.told_headings == [
            "defense:regularization",
            "seed",
            "update:regularization",
        ]
        assert len(compared.rows) == 5

    @pytest.mark.parametrize(
        "differs", ["seed", "data", "attacks", "epochs", "checkpoint"]
    )
    def test_what_differs_in_more_is_not_gathered(self, sweep, differs):
        reports, settings = sweep
        weak = reports["weak_1"]
        if differs == "seed":
            settings["weak_1"]["seed"] = 0
        elif differs == "epochs":
            settings["weak_1"]["epochs"] = 4
        elif differs == "checkpoint":
            for report in reports.values():
                report.model["checkpoint"] = "last"
            weak = dataclasses.replace(
                weak, model=weak.model | {"checkpoint": "best"}
            )
        elif differs == "data":
            weak = made.full(data=weak.data | {"split": "train"})
        else:
            weak = made.full()
        compared = rows.Comparison.of(reports | {"weak_1": weak}, settings)
        assert "strong_*" in compared.rows
        assert {"weak_0", "weak_1"} < set(compared.rows)

    def test_a_heading_stands_for_its_runs_alone(self, sweep):
        reports, settings = sweep
        names = dict(zip(settings, ["t0", "t1", "t2", "t3"], strict=True))
        compared = rows.Comparison.of(
            {names.get(key, key): report for key, report in reports.items()},
            {names[key]: told for key, told in settings.items()},
        )
        assert list(compared.rows) == [
            "t2 and 1 more",
            "t0 and 1 more",
            "unknown",
        ]

    def test_the_files_say_all_of_it(self, sweep, tmp_path):
        reports, settings = sweep
        comparison.save_comparison(reports, tmp_path, settings)
        with (tmp_path / "compare.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert [line["model"] for line in lines] == [
            "strong_*",
            "weak_*",
            "unknown",
        ]
        assert lines[1]["runs"] == "2"
        assert lines[1]["regularization"] == "1"
        assert lines[1]["worst case"] == "0.5"
        assert lines[1]["worst case (standard deviation)"] == "0.141421"
        assert lines[2]["regularization"] == ""
        content = json.loads((tmp_path / "compare.json").read_text())
        weak = content["rows"][1]
        assert set(weak["runs"]) == {"weak_0", "weak_1"}
        assert weak["runs"]["weak_0"]["worst case"] == pytest.approx(0.4)
        assert weak["settings"]["defense:regularization"] == "1"
        page = (tmp_path / "compare.html").read_text("utf-8")
        assert "50.00 ± 14.14" in page and "weak_0" in page
        assert "data:image/png;base64," in page
        for outside in ("http://", "https://", "<script"):
            assert outside not in page
        assert "| weak\\_\\* | 1 | 0, 1 | **90.00 ± 0.00** |" in (
            tmp_path / "compare.md"
        ).read_text("utf-8")

    def test_a_figure_shows_the_best_of_many(self, tmp_path):
        many = {f"r{number}": made.bare() for number in range(15)}
        comparison.save_comparison(many, tmp_path)
        text = (tmp_path / "compare.html").read_text("utf-8")
        assert "the 12 models with the best worst case" in text
        assert "r14" in text


class TestFiles:
    def test_are_a_page_and_a_figure(self, other, tmp_path):
        reports = {"MART|1": made.full(), "$\\frac": other}
        directory = comparison.save_comparison(reports, tmp_path / "compare")
        assert sorted(path.name for path in directory.iterdir()) == [
            "compare.csv",
            "compare.html",
            "compare.json",
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
            lambda text, content: json.dumps(content | {"model": None}),
            lambda text, content: json.dumps(
                content | {"attacks": [content["natural"] | {"name": 5}]}
            ),
            lambda text, content: json.dumps(
                content
                | {
                    "threat_model": content["threat_model"]
                    | {"epsilon": float("nan")}
                }
            ),
            lambda text, content: json.dumps(
                content
                | {
                    "threat_model": content["threat_model"]
                    | {"pixel_min": float("nan")}
                }
            ),
            lambda text, content: json.dumps(
                content | {"attacks": [content["natural"]]}
            ),
            lambda text, content: json.dumps(
                content
                | {"attacks": [content["natural"] | {"name": "worst case"}]}
            ),
            # An integer that no float holds.
            lambda text, content: json.dumps(
                content
                | {
                    "threat_model": content["threat_model"]
                    | {"epsilon": 10**400}
                }
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
