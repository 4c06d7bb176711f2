"""Which images are evaluated: splits, parts of them, corrupted ones."""

import dataclasses
import json

import jsonschema
import keras
import numpy as np
import programs
import pytest
import small_runs
import tiny_tfds

import mart_tf
from mart_tf import data
from mart_tf.data import corrupted
from mart_tf.data import parts
from mart_tf.reports import comparison
from mart_tf.reports import corruptions
from mart_tf.reports import saved
from mart_tf.runs import trained


def accuracy(classifier, images, labels):
    """Natural accuracy, worked out without the evaluation."""
    scores = classifier.predict(images, verbose=0)
    return float((scores.argmax(axis=1) == labels).mean())


class TestParts:
    @pytest.mark.parametrize(
        ("text", "rows", "slug"),
        [
            ("test", (0, 200), "test"),
            ("test[:]", (0, 200), "test"),
            ("test[:50]", (0, 50), "test-to50"),
            ("train[10%:20%]", (20, 40), "train-10pctto20pct"),
            ("train[-5:]", (195, 200), "train--5to"),
            ("extra[-10%:-3]", (180, 197), "extra--10pctto-3"),
        ],
    )
    def test_rows_as_tfds_counts_them(self, text, rows, slug):
        part = parts.parse(text)
        assert part.rows(200) == rows
        assert part.slug == slug

    @pytest.mark.parametrize(
        "text", ["", "test[", "test[5]", "test+train", "test[1:2:3]", "a b"]
    )
    def test_other_forms_are_refused(self, text):
        with pytest.raises(ValueError, match="is no split; expected a name"):
            parts.parse(text)

    @pytest.mark.parametrize("text", ["test[:201]", "test[5:5]", "test[-201:]"])
    def test_rows_that_are_not_there_are_refused(self, text):
        with pytest.raises(ValueError, match="of a split of 200 images"):
            parts.parse(text).rows(200)


class TestSplits:
    def test_of_tfds_by_their_own_names(self, tmp_path):
        tiny_tfds.prepare(
            tmp_path,
            train=tiny_tfds.examples(30),
            test=tiny_tfds.examples(12),
            extra=tiny_tfds.examples(20),
        )
        for mode in ("memory", "streaming"):
            tiny = data.load(f"tiny:mode={mode}", data_dir=tmp_path)
            extra = parts.select(tiny, parts.parse("extra"))
            assert len(extra) == 20
            part = parts.select(tiny, parts.parse("extra[5:-5]"))
            np.testing.assert_array_equal(
                data.arrays(part)[0], data.arrays(extra)[0][5:15]
            )
            # It has none of its own: the one that training held out.
            held_out = parts.select(tiny, parts.parse("validation"))
            np.testing.assert_array_equal(
                held_out.indices, tiny.validation.indices
            )
            train = parts.select(tiny, parts.parse("train"))
            assert len(train) == 27

    def test_a_split_that_is_not_there_is_named(self, tmp_path):
        tiny_tfds.prepare(tmp_path, train=tiny_tfds.examples(9))
        tried = [
            ("digits", None, "digits has no split 'extra'; expected one of"),
            ("tiny", tmp_path, "has no split 'extra'; expected one of: train"),
        ]
        for spec, place, sentence in tried:
            with pytest.raises(ValueError, match=sentence):
                data.check(spec, data_dir=place, split=parts.parse("extra"))
        data.check("tiny", data_dir=tmp_path, split=parts.parse("train[:9]"))


@pytest.mark.usefixtures("own_directory")
def test_a_run_is_evaluated_on_what_it_held_out(tmp_path):
    small_runs.trained("run", epochs=1, validation_images=200)
    done = programs.run(
        "evaluate",
        "--workdir=run",
        "--allow_code",
        "--split=validation[:150]",
        "--attacks=fgsm",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "150 examples of validation[:150], linf" in done.stdout
    # The report of the test split is another.
    report = saved.load("run/evaluation-validation-to150")
    digits = data.load("digits", validation_images=200)
    images, labels = data.arrays(digits.validation, 150)
    classifier = mart_tf.load_run("run", allow_code=True).classifier
    assert report["natural"]["accuracy"] == accuracy(classifier, images, labels)
    assert report["data"]["split"] == "validation[:150]"
    assert report["data"]["of"] == 150
    done = programs.run(
        "evaluate",
        "--workdir=run",
        "--allow_code",
        "--split=testt",
        cwd=tmp_path,
        tensorflow=False,
    )
    programs.assert_refused(done, "digits has no split 'testt'")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Corrupted digits, prepared by TFDS."""
    folder = tmp_path_factory.mktemp("corrupted")
    tiny_tfds.prepare_corrupted(folder)
    return folder


class TestCorruptions:
    def test_all_that_are_prepared_or_some(self, prepared):
        def found(text):
            return list(corrupted.find(text, prepared))

        name = "digits_corrupted"
        # The images as they are, are none.
        assert found(name) == ["darkness_1", "darkness_2", "turn"]
        assert found(f"{name}:only=turn+darkness_2") == ["darkness_2", "turn"]
        assert found(f"{name}:only=darkness") == ["darkness_1", "darkness_2"]
        assert found(f"{name}:only=identity") == ["identity"]
        with pytest.raises(ValueError, match="did you mean 'darkness'"):
            found(f"{name}:only=darknes")
        with pytest.raises(ValueError, match="has no option 'some'"):
            found(f"{name}:some=turn")
        with pytest.raises(
            ValueError, match="no corruption of mnist_corrupted is prepared in"
        ):
            found("mnist_corrupted")

    def test_the_images_as_they_are_alone_are_no_corruption(self, tmp_path):
        path = tmp_path / "digits_corrupted" / "identity" / "1.0.0"
        path.mkdir(parents=True)
        (path / "dataset_info.json").touch()
        with pytest.raises(ValueError, match="no corruption of digits_corrup"):
            corrupted.find("digits_corrupted", tmp_path)

    def test_the_program_reports_each_and_the_means(self, prepared, tmp_path):
        keras.utils.set_random_seed(0)
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        digits = data.load("digits")
        network.compile(
            "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        network.fit(*data.arrays(digits.train), epochs=10, verbose=0)
        network.save(tmp_path / "network.keras")
        arguments = [
            "--model=network.keras",
            "--dataset=digits",
            f"--data_dir={prepared}",
            "--attacks=fgsm",
            "--corruptions=digits_corrupted",
        ]
        done = programs.run("evaluate", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        expected = {}
        for name in ("darkness_1", "darkness_2", "turn"):
            images, labels = tiny_tfds.corrupted_digits(name)
            expected[name] = accuracy(network, images / 255.0, labels)
        dark, darker, turn = expected.values()
        folder = tmp_path / "network.keras-evaluation"
        report = json.loads((folder / "report.json").read_text())
        jsonschema.validate(report, saved.schema())
        content = report["corruptions"]
        assert content["dataset"] == "digits_corrupted"
        assert [entry["accuracy"] for entry in content["sets"]] == [
            dark,
            darker,
            turn,
        ]
        assert [entry["severity"] for entry in content["sets"]] == [1, 2, None]
        assert content["by_corruption"] == pytest.approx(
            {"darkness": (dark + darker) / 2, "turn": turn}
        )
        assert content["by_severity"] == [
            {"severity": 1, "accuracy": dark},
            {"severity": 2, "accuracy": darker},
        ]
        assert content["accuracy"] == pytest.approx((dark + darker + turn) / 3)
        lines = [line.split() for line in done.stdout.splitlines()]
        shown = [f"{100 * value:.2f}" for value in (dark, darker)]
        mean = f"{50 * (dark + darker):.2f}"
        assert ["corruption", "1", "2", "mean"] in lines
        assert ["darkness", *shown, mean] in lines
        assert ["turn", "–", "–", f"{100 * turn:.2f}"] in lines
        page = (folder / "report.html").read_text("utf-8")
        assert f"<td>{shown[0]}</td><td>{shown[1]}</td>" in page
        assert f"| darkness | {shown[0]} | {shown[1]} |" in (
            folder / "report.md"
        ).read_text("utf-8")
        # A report of an earlier version has no such key.
        comparison.compare({"a": saved.load(folder)})

    def test_other_images_are_refused_before_any_work(self, tmp_path):
        network = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten()]
        )
        images = np.zeros((4, 8, 8, 1), np.float32)
        labels = np.zeros(4, np.int32)
        with pytest.raises(ValueError, match="corrupted images fog_1 are of"):
            mart_tf.evaluate_robustness(
                network,
                (images, labels),
                mart_tf.ThreatModel(epsilon=0.1),
                ["fgsm"],
                corruptions={"fog_1": (images[:, :4], labels)},
                directory=tmp_path / "report",
            )
        assert not (tmp_path / "report").exists()

    def test_a_table_without_severities(self):
        made = corruptions.Corruptions(
            None,
            {
                "fog": np.array([True, False]),
                "snow": np.array([True, True]),
            },
        )
        headings, rows = made.table()
        assert headings == ("corruption", "accuracy")
        assert rows == [("fog", "50.00"), ("snow", "100.00"), ("mean", "75.00")]
        assert made.as_json()["by_severity"] == []


def test_corrupted_images_of_other_classes_are_refused(tmp_path):
    """As mnist_corrupted's are for a run on fashion_mnist."""
    of = trained.of_model("network", "digits", (0.0, 1.0), tmp_path)
    of = dataclasses.replace(of, class_names=tuple("abcdefghij"))
    of.check_names("digits_corrupted", [str(n) for n in range(10)])
    with pytest.raises(ValueError, match="class 9 of letters is 'k', and of"):
        of.check_names("letters", list("abcdefghik"))
