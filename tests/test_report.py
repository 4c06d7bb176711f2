"""The report: its numbers, files, table, page and figures."""

import dataclasses
import html.parser
import io
import json
import pathlib
import re
import types
import warnings

import jsonschema
import keras
import made_reports as made
import matplotlib
from matplotlib import image as images
import numpy as np
import pytest
import rich.console

import mart_tf
from mart_tf.reports import curves
from mart_tf.reports import grid
from mart_tf.reports import masking
from mart_tf.reports import page as pages
from mart_tf.reports import plots
from mart_tf.reports import report as reports
from mart_tf.reports import results
from mart_tf.reports import saved as saved_reports
from mart_tf.reports import sheet

FIGURES = ("accuracy", "epsilon", "steps", "loss", "classes", "examples")
FILES = sorted(
    [
        *(f"{name}.png" for name in FIGURES),
        "outcomes.npz",
        "report.html",
        "report.json",
        "report.md",
    ]
)

# No browser asks for anything by these.
_ASKING = {"src", "href", "srcset", "action", "poster", "background"}
_VOID = {"meta", "link", "img", "br"}
_HOSTILE = "<script>alert('1')</script>|[red]$\\frac\"&"


_REAL_SIGNS = masking.signs


@pytest.fixture(autouse=True, scope="module")
def signs():
    """Signs of masking that hold whatever the results."""
    signs = (
        masking.Sign("Do more steps help?", "passed", "70 % under PGD-20."),
        masking.Sign("Is the white box stronger?", "failed", "By 9 % <b>."),
        masking.Sign("Does epsilon matter?", "not tested", "Run a sweep."),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "signs", lambda report, classes: signs)
        yield


@pytest.fixture(scope="module")
def saved(signs, tmp_path_factory):
    """The directory of a report with everything in it."""
    return made.full().save(tmp_path_factory.mktemp("saved") / "deep" / "full")


@pytest.fixture(scope="module")
def page(saved):
    """Its page."""
    return _Page((saved / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def schema():
    return saved_reports.schema()


def _results(content):
    """All results of a report.json, parts included."""
    todo = [content["natural"], *content["attacks"], content["worst_case"]]
    while todo:
        entry = todo.pop(0)
        todo += entry["parts"]
        yield entry


def _printed(what, width=80):
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()


class TestNumbers:
    def test_the_worst_case_leaves_other_norms_out(self):
        report = made.full()
        # Wrong without attack: 9; under PGD: 0, 4; under AutoAttack: 0, 5, 6.
        np.testing.assert_array_equal(
            report.outcomes["worst_case"], made.outcome(9, 0, 4, 5, 6)
        )
        assert report.accuracy == {
            "natural": 0.9,
            "pgd:steps=20": 0.7,
            "autoattack": 0.6,
            "cleverhans:cw_l2": 0.7,
            "worst_case": 0.5,
        }

    def test_accuracy_by_class(self):
        # Of the classes 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, example 0 and 4 fall.
        accuracies = made.pgd().per_class(made.LABELS, 4)
        np.testing.assert_allclose(accuracies, [3 / 4, 2 / 3, 2 / 3, np.nan])

    def test_distances_are_of_examples_that_needed_an_attack(self):
        assert made.least_distance().distance_summary == {
            "found": 6,
            "not_found": 3,
            "min": 0.5,
            "median": 1.75,
            "mean": 2.0,
            "max": 4.0,
        }
        nothing = dataclasses.replace(
            made.least_distance(), distances=np.array([0.0, np.inf])
        )
        assert nothing.distance_summary == {
            "found": 0,
            "not_found": 1,
            "min": None,
            "median": None,
            "mean": None,
            "max": None,
        }

    def test_confidences_are_of_the_predicted_class(self):
        logits = np.log([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]])
        chosen = results.Samples.choose(
            made.pgd(),
            np.zeros([2, 3], np.float32),
            np.array([0, 0]),
            types.SimpleNamespace(
                adversarial=np.ones([2, 3], np.float32),
                predictions=np.array([1, 0]),
                broken=np.array([True, False]),
            ),
            lambda images: logits + images.sum(axis=1, keepdims=True),
        )
        assert chosen.predictions.tolist() == [1, 0]
        for confidences in (
            chosen.natural_confidences,
            chosen.adversarial_confidences,
        ):
            np.testing.assert_allclose(confidences, [0.7, 0.5])

    def test_examples_of_all_classes_are_shown(self):
        # Class by class, as a folder lists them; each second one is broken.
        labels = np.repeat(np.arange(4), 10)
        chosen = results.Samples.choose(
            made.pgd(),
            np.arange(40, dtype=np.float32)[:, None],
            labels,
            types.SimpleNamespace(
                adversarial=np.arange(40, dtype=np.float32)[:, None],
                predictions=np.where(np.arange(40) % 2, labels, -1),
                broken=np.arange(40) % 2 == 0,
            ),
        )
        assert (chosen.predictions[:4] == -1).all()
        for half in (chosen.labels[:4], chosen.labels[4:]):
            assert sorted(half) == [0, 1, 2, 3]
        np.testing.assert_array_equal(chosen.natural[:, 0] // 10, chosen.labels)

    def test_the_title_says_which_examples(self):
        for facts, words in [
            ({}, "small: 10 examples, linf"),
            ({"sample": "first", "of": 90}, "small: the first 10 of 90 ex"),
            (
                {"sample": "stratified", "of": 90, "rows": [*range(10)]},
                "10 of 90 examples, a sample of all classes, linf",
            ),
        ]:
            data = made.full().data | facts
            assert words in made.full(data=data).title


class TestNearlyAll:
    """One of 26,032 is wrong, the test set of SVHN; then all but one."""

    @pytest.fixture
    def report(self):
        natural, pgd = np.ones((2, 26_032), bool)
        natural[0], pgd[1:] = False, False
        return made.bare(
            results=(
                results.Result("natural", natural, access="none"),
                results.Result("pgd:steps=20", pgd, 300.0, 90),
            )
        )

    def test_is_not_all_in_the_tables(self, report):
        [drawing] = plots.drawings(report)
        written = pages.markdown(report, [drawing])
        assert "| natural | 99.99% |" in written
        # 90 images in 300 seconds.
        [line] = re.findall(r"\| pgd:steps=20 .*", written)
        assert line.split(" | ")[1::2] == ["0.01%", "300.0"]
        assert line.endswith(" | 0.3 |")
        numbers = _Page(pages.html(report, [drawing], report.as_json())).text
        assert "99.99 %" in numbers and "100.00" not in numbers

    def test_is_not_all_in_the_figure(self, report):
        [drawing] = plots.drawings(report)
        assert "natural 99.9, pgd:steps=20 0.1, worst case" in drawing.alt


class TestWilson:
    def test_matches_cases_worked_by_hand(self):
        # Five of ten with z = 2: (0.5 + 0.2 +- 2 sqrt(0.025 + 0.01)) / 1.4.
        half = 2 * (0.025 + 0.01) ** 0.5
        assert results.wilson(5, 10, z=2.0) == pytest.approx(
            ((0.7 - half) / 1.4, (0.7 + half) / 1.4)
        )

    def test_none_and_all_are_no_certainty(self):
        # None of n: from 0 to z^2 / (n + z^2).
        assert results.wilson(0, 12, z=2.0) == pytest.approx((0.0, 0.25))
        assert results.wilson(12, 12, z=2.0) == pytest.approx((0.75, 1.0))


class TestJson:
    def test_follows_its_schema(self, schema, saved):
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        text = (saved / "report.json").read_text("utf-8")
        assert "NaN" not in text
        assert "Infinity" not in text
        validator.validate(json.loads(text))
        validator.validate(made.bare().as_json())

    def test_the_schema_is_strict(self, schema):
        content = made.full().as_json()
        content["attacks"][1]["parts"][0]["colour"] = "red"
        with pytest.raises(jsonschema.ValidationError, match="colour"):
            jsonschema.Draft202012Validator(schema).validate(content)

    def test_says_what_was_done(self):
        content = made.full().as_json()
        assert content["schema_version"] == saved_reports.SCHEMA_VERSION == 2
        assert content["threat_model"] == {
            "norm": "linf",
            "epsilon": 0.3,
            "pixel_min": 0.0,
            "pixel_max": 1.0,
        }
        assert [entry["name"] for entry in content["attacks"]] == [
            "pgd:steps=20",
            "autoattack",
            "cleverhans:cw_l2",
        ]
        pgd, ensemble, distance = content["attacks"]
        assert pgd["parameters"]["step_size"] == 0.03
        assert (pgd["correct"], pgd["examples"]) == (7, 10)
        assert (pgd["attacked"], pgd["images_per_second"]) == (9, 4.5)
        assert pgd["confidence_interval_95"] == list(results.wilson(7, 10))
        assert pgd["per_class_accuracy"] == [3 / 4, 2 / 3, 2 / 3, None]
        assert [part["name"] for part in ensemble["parts"]] == [
            "autoattack: apgd_ce",
            "autoattack: square",
        ]
        assert [part["accuracy"] for part in ensemble["parts"]] == [0.8, 0.6]
        assert ensemble["parts"][1]["access"] == "queries"
        assert distance["norm"] == "l2"
        assert distance["distances"]["median"] == 1.75
        assert content["worst_case"]["accuracy"] == 0.5
        assert [point["accuracy"] for point in content["sweep"]["points"]] == [
            0.9,
            0.7,
            0.1,
        ]
        assert content["traces"][2]["losses"] == [0.1, None, 3.0]
        assert content["signs"][1]["verdict"] == "failed"
        assert content["warnings"] == ["Without attack the accuracy is low."]

    def test_without_its_times_it_is_the_same_again(self):
        def timeless(value):
            if isinstance(value, dict):
                return {
                    key: timeless(inner)
                    for key, inner in value.items()
                    if key not in reports.TIMES
                }
            if isinstance(value, list):
                return [timeless(inner) for inner in value]
            return value

        later = tuple(
            dataclasses.replace(result, seconds=9.0)
            for result in made.full().results
        )
        first, second = made.full(), made.full(results=later)
        assert first.as_json() != second.as_json()
        assert timeless(first.as_json()) == timeless(second.as_json())

    def test_numbers_of_numpy_are_numbers(self):
        odd = dataclasses.replace(
            made.pgd(),
            parameters={
                "steps": np.int64(3),
                "step_size": np.float32(0.5),
                "radii": (0.1, np.inf),
            },
        )
        content = made.full(results=(made.natural(), odd)).as_json()
        assert content["attacks"][0]["parameters"] == {
            "steps": 3,
            "step_size": 0.5,
            "radii": [0.1, None],
        }

    def test_every_key_is_documented(self, schema):
        docs = pathlib.Path(__file__).parents[1] / "docs" / "report.md"
        cells = " ".join(
            line for line in docs.read_text("utf-8").splitlines() if "|" in line
        )
        documented = set(re.findall(r"`(\w+)`", cells))
        keys, todo = set(), [schema]
        while todo:
            value = todo.pop()
            if isinstance(value, dict):
                keys |= set(value.get("properties", {}))
                todo += value.values()
            elif isinstance(value, list):
                todo += value
        assert len(keys) > 50
        assert keys <= documented


class TestArrays:
    def test_hold_what_became_of_every_example(self, saved):
        with np.load(saved / "outcomes.npz") as arrays:
            assert arrays["names"].tolist() == [
                "natural",
                "pgd:steps=20",
                "autoattack",
                "autoattack: apgd_ce",
                "autoattack: square",
                "cleverhans:cw_l2",
                "worst_case",
            ]
            assert arrays["parents"].tolist() == [-1, -1, -1, 2, 2, -1, -1]
            np.testing.assert_array_equal(arrays["labels"], made.LABELS)
            np.testing.assert_array_equal(
                arrays["r4_outcome"], made.outcome(9, 0, 5, 6)
            )
            np.testing.assert_array_equal(
                arrays["r1_broken_after"], made.pgd().broken_after
            )
            assert arrays["r5_distances"][9] == 0.0
            assert "r5_broken_after" not in arrays
            np.testing.assert_array_equal(
                arrays["sweep_epsilons"], [0.1, 0.3, 0.5]
            )
            assert arrays["sweep_outcomes"].sum(axis=1).tolist() == [9, 7, 1]

    def test_are_the_same_bytes_again(self, saved, tmp_path):
        again = made.full().save(tmp_path)
        for name in ("outcomes.npz", *(f"{name}.png" for name in FIGURES)):
            assert (again / name).read_bytes() == (saved / name).read_bytes()


class TestTerminal:
    def test_prints_as_a_table(self):
        lines = str(made.full()).splitlines()
        assert "runs/small: 10 examples, linf, epsilon 0.3" in lines
        rows = [line.split() for line in lines]
        # 9 images in 2 seconds.
        shown = ["pgd:steps=20", "70.00%", "39.7", "to", "89.2", "2.0", "4.5"]
        assert shown in rows
        [part] = [line for line in lines if "apgd_ce" in line]
        [whole] = [line for line in lines if "autoattack " in line]
        indent = len(part) - len(part.lstrip())
        assert indent == len(whole) - len(whole.lstrip()) + 2
        assert any("cw_l2 (l2, radius" in line for line in lines)
        # The results are what a reader sees last.
        assert rows[-1] == ["worst", "case", "50.00%", "23.7", "to", "76.3"]
        text = " ".join(" ".join(row) for row in rows)
        assert (
            "Signs of gradient masking: 1 passed, 1 failed, 1 not tested."
        ) in lines
        assert "Failed: Is the white box stronger? By 9 % <b>." in lines
        assert "median 1.75, mean 2; none found for 3." in text
        assert "Warning: Without attack the accuracy is low." in text
        # What has not failed is one line.
        for words in ("Run a sweep.", "Do more steps help?"):
            assert words not in text
        assert max(map(len, lines)) <= 80

    def test_rich_prints_the_same(self):
        report = made.full()
        printed = _printed(report).splitlines()
        assert [line.rstrip() for line in printed] == str(report).splitlines()

    def test_a_name_is_no_markup(self):
        report = made.bare(model={"name": "[red]net[/nothing]"})
        assert "[red]net[/nothing]: 10 examples" in str(report)


class _Page(html.parser.HTMLParser):
    """Checks a page while it reads it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


class TestPage:
    @pytest.mark.parametrize("some", ["full", "bare"])
    def test_asks_for_nothing_and_is_balanced(self, some, saved, tmp_path):
        directory = saved if some == "full" else made.bare().save(tmp_path)
        text = (directory / "report.html").read_text("utf-8")
        assert text.startswith("<!DOCTYPE html>\n<html lang=")
        page = _Page(text)
        for _, attributes in page.tags:
            for name in _ASKING & set(attributes):
                assert attributes[name].startswith("data:")
        assert not page.named("script")
        assert "@import" not in text
        assert "url(" not in text
        for tag in ("html", "head", "title", "body", "h1"):
            assert len(page.named(tag)) == 1

    def test_shows_every_figure_with_words_for_it(self, page):
        pictures = page.named("img")
        assert len(pictures) == len(page.named("figure")) == len(FIGURES)
        assert all(len(picture["alt"]) > 30 for picture in pictures)
        assert "worst case 50.0" in pictures[0]["alt"]
        assert "0.3 70.0" in pictures[1]["alt"]
        assert "zero 75.0, one 0.0, two 66.7." in pictures[4]["alt"]
        assert "zero as two, one as NaN" in pictures[5]["alt"]

    def test_shows_results_signs_settings_and_warnings(self, page):
        for words in (
            "Robustness of runs/small: 10 examples, linf, epsilon 0.3",
            "Worst case over all attacks 50.00 % 23.7 to 76.3",
            "pgd:steps=20 gradients 70.00% 39.7 to 89.2 7 of 10 2.0 4",
            "square queries 60.00%",
            "cleverhans:cw_l2 l2 6 3 0.5 1.75 2 4",
            "masking: 1 passed, 1 failed, 1 not tested",
            "✗ failed Is the white box stronger? By 9 % <b>.",
            "steps = 20, step_size = 0.03, random_start = uniform",
            "Warning: Without attack the accuracy is low.",
            "batch_size 10",
            "class_names zero, one, two, three",
            "tensorflow",
        ):
            assert words in page.text

    def test_names_are_no_markup(self, tmp_path):
        report = made.full(
            model={"name": _HOSTILE, "parameters": None},
            results=(made.natural(), made.pgd(_HOSTILE)),
            samples=made.samples(class_names=[_HOSTILE] * 4),
            warnings=(_HOSTILE,),
        )
        report = dataclasses.replace(
            report,
            data=report.data | {"class_names": [_HOSTILE] * 4},
            traces=(results.Trace(_HOSTILE, np.arange(3.0), 9),),
            sweep=dataclasses.replace(report.sweep, attack=_HOSTILE),
        )
        directory = report.save(tmp_path)
        page = _Page((directory / "report.html").read_text("utf-8"))
        assert not page.named("script")
        assert _HOSTILE in page.text
        assert any(_HOSTILE in image["alt"] for image in page.named("img"))
        written = (directory / "report.md").read_text("utf-8")
        assert "<script" not in written
        [row] = [
            line
            for line in written.splitlines()
            if line.startswith("|") and "&lt;script" in line
        ]
        assert len(re.findall(r"(?<!\\)\|", row)) == 6
        assert "[red]" in str(report)

    def test_a_notebook_shows_the_body_of_the_page(self, saved):
        whole = (saved / "report.html").read_text("utf-8")
        part = made.full()._repr_html_()
        assert not _Page(part).named("html")
        start = whole.index("<article")
        body = whole[start : whole.index("</article>")]
        # All but the time that it was made at.
        assert body[: body.index('<p class="soft">Made')] in part

    def test_a_thousand_class_names_are_cut(self, tmp_path):
        names = [f"class {i}" for i in range(1000)]
        report = made.bare(
            data=made.full().data | {"classes": 1000, "class_names": names},
            labels=made.LABELS,
        )
        directory = report.save(tmp_path)
        page = _Page((directory / "report.html").read_text("utf-8"))
        assert "class 19 and 980 more" in page.text
        [_, picture] = page.named("img")
        assert "class 0 100.0, class 1 100.0, class 2 66.7." in picture["alt"]
        natural = report.as_json()["natural"]
        assert natural["per_class_accuracy"][3:] == [None] * 997


class TestFigures:
    @pytest.mark.parametrize("name", FIGURES)
    def test_hold_more_than_an_empty_sheet(self, name, saved, page):
        pixels = images.imread(saved / f"{name}.png")
        assert pixels.std() > 0.05
        # Not blurred where a screen has more dots than the page counts.
        width = int(page.named("img")[FIGURES.index(name)]["width"])
        assert width > 400
        assert pixels.shape[1] == pytest.approx(1.5 * width, abs=2)

    def test_axes_of_numbers_have_a_name(self, monkeypatch):
        """One that has names for its ticks, of attacks, needs none."""
        drawn = []

        def save(sheet, *arguments, **settings):
            drawn.extend(each for each in sheet.axes if not each.images)

        monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
        plots.drawings(made.full())
        assert len(drawn) == len(FIGURES) - 1
        for axes in drawn:
            assert axes.get_xlabel()
            ticks = [tick.get_text() for tick in axes.get_yticklabels()]
            assert axes.get_ylabel() or "natural" in ticks

    def test_only_what_there_are_numbers_for(self):
        assert [drawn.name for drawn in plots.drawings(made.bare())] == [
            "accuracy"
        ]
        assert plots.NAMES == FIGURES

    def test_steps_that_broke_an_example_lower_the_curve(self):
        steps, values = curves._after_steps(made.pgd())
        # Of ten, one is wrong at first, one falls at step 1, one at 12.
        assert steps.tolist() == [0, 1, 12, 20]
        np.testing.assert_allclose(values, [0.9, 0.8, 0.7, 0.7])

    def test_attacks_of_one_step_or_on_a_surrogate_have_no_curve(self):
        once = dataclasses.replace(
            made.pgd("fgsm"),
            parameters={},
            broken_after=made.broken_after(e9=0, e0=1, e4=1),
        )
        transfer = dataclasses.replace(made.pgd("t"), access="surrogate")
        # CleverHans's cannot be watched: all that broke broke at 0.
        unwatched = dataclasses.replace(
            made.pgd("cleverhans:pgd"),
            parameters={"nb_iter": 20},
            broken_after=made.broken_after(e9=0, e0=0, e4=0),
        )
        report = made.bare(results=(made.natural(), once, transfer, unwatched))
        assert not curves.of_many_steps(report)
        assert curves.of_many_steps(made.full())[0].name == "pgd:steps=20"

    @pytest.mark.parametrize(
        ("shape", "threat"),
        [
            ((5, 6, 1), mart_tf.ThreatModel(epsilon=0.1)),
            ((5, 6, 3), mart_tf.ThreatModel(epsilon=0.1)),
            ((5, 6), mart_tf.ThreatModel(epsilon=1.0, pixel_max=255.0)),
            ((7,), mart_tf.ThreatModel(epsilon=0.5, pixel_min=-1.0)),
            ((5, 6, 3), mart_tf.ThreatModel("l2", 0.1)),
            ((4, 4, 2), mart_tf.ThreatModel("l2", 2.0)),
        ],
    )
    def test_draw_inputs_of_any_shape(self, shape, threat):
        samples = made.samples(shape, threat)
        report = made.bare(samples=samples, threat=threat)
        [_, drawn] = plots.drawings(report)
        assert images.imread(io.BytesIO(drawn.png)).std() > 0.05
        one = dataclasses.replace(
            samples,
            **{
                field.name: getattr(samples, field.name)[:1]
                for field in dataclasses.fields(samples)
                if field.name not in ("attack", "accuracy")
            },
        )
        one = dataclasses.replace(one, natural_confidences=None)
        plots.drawings(made.bare(samples=one, threat=threat))

    def test_long_names_are_cut_where_specs_and_paths_may_be(self):
        assert sheet.wrapped("pgd:steps=20", 20) == "pgd:steps=20"
        assert sheet.wrapped("pgd:steps=20:restarts=5", 13) == (
            "pgd:steps=20:\nrestarts=5"
        )
        assert sheet.wrapped("runs/one: 10 examples", 10) == (
            "runs/one:\n10\nexamples"
        )
        assert sheet.wrapped("x" * 25, 10).split("\n") == ["x" * 10] * 2 + [
            "x" * 5
        ]

    def test_the_full_scale_of_differences_is_named(self):
        difference = np.array([[0.03, -0.07], [0.0, 0.01]], np.float32)
        linf = mart_tf.ThreatModel(epsilon=0.1)
        assert grid.full_scale(difference, linf) == (0.1, "epsilon")
        l2 = mart_tf.ThreatModel("l2", 0.5)
        scale, name = grid.full_scale(difference, l2)
        assert scale == pytest.approx(0.07)
        assert name == "0.07"
        assert grid.full_scale(0 * difference, l2)[0] == 0.5

    def test_the_style_of_the_user_stays_and_is_not_used(self):
        plain = plots.drawings(made.bare())[0].png
        with matplotlib.rc_context({"font.size": 40.0}):
            assert plots.drawings(made.bare())[0].png == plain
            assert matplotlib.rcParams["font.size"] == 40.0


class TestSave:
    def test_writes_every_file(self, saved):
        assert sorted(path.name for path in saved.iterdir()) == FILES
        assert sorted(made.full().file_names) == FILES
        written = (saved / "report.md").read_text("utf-8")
        for name in FIGURES:
            assert f"({name}.png)" in written
        assert "| worst case | 50.00% |" in written
        assert "| failed | Is the white box stronger? | By 9 % &lt;b>. |" in (
            written
        )

    def test_a_new_report_keeps_no_file_of_the_old(self, tmp_path):
        made.full().save(tmp_path)
        (tmp_path / "notes.txt").write_text("mine")
        made.bare().save(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [
                "accuracy.png",
                "notes.txt",
                "outcomes.npz",
                "report.html",
                "report.json",
                "report.md",
            ]
        )
        assert len(made.bare().file_names) == 5
        assert "examples.png" not in (tmp_path / "report.md").read_text()

    def test_is_written_whole_or_not_at_all(self, tmp_path, monkeypatch):
        directory = made.bare().save(tmp_path / "evaluation")
        before = {path.name: path.read_bytes() for path in directory.iterdir()}
        write = pathlib.Path.write_bytes

        def fail(path, content):
            if path.name == "report.md":
                raise OSError("No space left on device")
            return write(path, content)

        monkeypatch.setattr(pathlib.Path, "write_bytes", fail)
        with pytest.raises(OSError, match="No space"):
            made.bare().save(directory)
        with pytest.raises(OSError, match="No space"):
            made.bare().save(tmp_path / "other")
        assert before == {
            path.name: path.read_bytes() for path in directory.iterdir()
        }
        assert [path.name for path in tmp_path.iterdir()] == ["evaluation"]


def test_a_real_evaluation_follows_the_schema(schema, monkeypatch):
    monkeypatch.setattr(masking, "signs", _REAL_SIGNS)
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    natural = np.random.default_rng(0).random((30, 6), np.float32)
    labels = np.argmax(network(natural), axis=1)
    report = mart_tf.evaluate_robustness(
        network,
        (natural, labels),
        mart_tf.ThreatModel(epsilon=0.1),
        ["fgsm", "pgd:steps=5"],
        epsilon_sweep=(0.05, 0.5),
    )
    content = report.as_json()
    jsonschema.Draft202012Validator(schema).validate(content)
    assert len(content["signs"]) == 7
    assert len(content["traces"]) >= 1
    names = {drawn.name for drawn in plots.drawings(report)}
    assert names == set(FIGURES)
    for entry in _results(content):
        assert entry["correct"] == report.outcomes[entry["name"]].sum()


class TestGlyphs:
    """Characters that matplotlib's usual font lacks."""

    @staticmethod
    def draw(name):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            drawing = sheet.draw(
                "x", "h", plots.models, ["natural"], {name: {"natural": 0.9}}
            )
        assert name in drawing.alt
        return drawing.png, [str(warning.message) for warning in caught]

    def test_come_from_another_font(self):
        # APL's characters, which DejaVu Sans Mono has; matplotlib brings it.
        png, said = self.draw("\u2336\u2337")
        assert not said
        assert png != self.draw("\u2336\u2336")[0]

    def test_one_sentence_where_no_font_has_them(self):
        _, said = self.draw("\U0010fff0\U0010fff1 and more")
        [sentence] = said
        assert "boxes for \U0010fff0\U0010fff1: no font of thi" in sentence

    def test_other_warnings_stay(self):
        def talk(figure):
            warnings.warn("Mind this.", stacklevel=1)
            return "said"

        with pytest.warns(UserWarning, match="Mind this."):
            assert sheet.draw("x", "h", talk).alt == "said"
