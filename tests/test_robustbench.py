"""RobustBench's entry of a report."""

import json
import os
import subprocess
import sys

import made_reports
import numpy as np
import programs
import pytest
import tensorflow as tf

import mart_tf
from mart_tf.reports import robustbench
from mart_tf.reports import saved

# Of an entry on the leaderboard, in its order.
KEYS = [
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
    "eps",
    "clean_acc",
    "reported",
    "autoattack_acc",
    "footnote",
    "unreliable",
]


@pytest.fixture
def folder(tmp_path):
    report = made_reports.full(warnings=())
    whole = ["apgd_ce", "apgd_t", "fab_t", "square"]
    report.results[2].parameters["attacks"] = whole
    report.save(tmp_path)
    return tmp_path


def _eps(folder, *threat):
    made_reports.full(threat=mart_tf.ThreatModel(*threat)).save(folder)
    return robustbench.model_info(saved.load(folder), folder)["eps"]


def test_what_the_report_knows(folder):
    report = saved.load(folder)
    assert [sign["verdict"] for sign in report["signs"]].count("failed") == 0
    info = robustbench.model_info(report, folder)
    assert list(info) == KEYS
    assert info["dataset"] == "digits"
    assert info["architecture"] == "cnn"
    # 9 of 10 right, and 6 under AutoAttack.
    assert (info["clean_acc"], info["autoattack_acc"]) == ("90.00", "60.00")
    assert info["number_forward_passes"] == 1
    assert info["unreliable"] is False
    assert [key for key in KEYS if info[key] is None] == [
        "link",
        "name",
        "authors",
        "additional_data",
        "venue",
        "reported",
        "footnote",
    ]


@pytest.mark.parametrize(
    ("threat", "eps"),
    [
        (("linf", 8 / 255), "8/255"),
        (("linf", 8.0, 0.0, 255.0), "8/255"),
        (("linf", 0.3), "0.3"),
        (("l2", 0.5), "0.5"),
        (("l2", 1.0, -1.0, 1.0), "0.5"),
    ],
)
def test_the_radius_is_of_pixels_from_0_to_1(threat, eps, tmp_path):
    assert _eps(tmp_path, *threat) == eps


def test_what_is_doubtful_is_said(folder):
    report = saved.load(folder)
    report["warnings"] = ["It draws random numbers."]
    report["signs"][5] |= {"verdict": "failed", "evidence": "40 % under it."}
    info = robustbench.model_info(report, folder)
    assert info["footnote"] == (
        "mart_tf: It draws random numbers. Does AutoAttack leave nearly as "
        "much as PGD and CW? No: 40 % under it."
    )
    assert info["unreliable"] is True


def test_an_instance_is_autoattack_too(folder):
    """Whose name in a report is that of its class."""
    report = saved.load(folder)
    report["attacks"][1]["name"] = "AutoAttack"
    info = robustbench.model_info(report, folder)
    assert info["autoattack_acc"] == "60.00"


def test_what_is_left_out_of_the_ensemble_is_said(folder):
    report = saved.load(folder)
    report["attacks"][1]["parameters"]["attacks"].remove("square")
    info = robustbench.model_info(report, folder)
    assert info["footnote"] == (
        "mart_tf: AutoAttack without square: apgd_ce, apgd_t, fab_t ran."
    )


def test_a_split_that_is_not_known_is_no_test_split(folder):
    """Of arrays in Python nobody says what they are a part of."""
    report = saved.load(folder)
    del report["data"]["split"]
    info = robustbench.model_info(report, folder)
    assert info["footnote"] == (
        "mart_tf: The split of its 10 examples is not known."
    )


def test_in_l2_it_says_so(tmp_path):
    """Of a report as an evaluation writes it."""
    weights = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    images = np.random.default_rng(1).random((8, 4, 4, 1), np.float32)
    mart_tf.evaluate_robustness(
        lambda images: tf.reshape(images, [-1, 16]) @ weights,
        (images, np.arange(8) % 4),
        mart_tf.ThreatModel("l2", 0.5),
        "autoattack",
        directory=tmp_path,
        facts={"data": {"split": "test"}},
    )
    report = saved.load(tmp_path)
    info = robustbench.model_info(report, tmp_path)
    assert info["footnote"].startswith("mart_tf: AutoAttack without square:")
    # Once.
    assert any("Square is for linf" in text for text in report["warnings"])
    assert "Square" not in info["footnote"]
    # What its authors write stays, whatever the program has to say by then.
    file, content = robustbench.save(tmp_path)
    own = "Uses 1M generated images."
    file.write_text(json.dumps(content | {"footnote": own}))
    assert not robustbench.is_stale(file)
    both = f"{own} {info['footnote']}"
    assert [robustbench.save(tmp_path)[1]["footnote"] for _ in "12"] == [
        both
    ] * 2


def test_what_its_authors_filled_in_stays(folder):
    file = folder / robustbench.FILE
    robustbench.save(folder)
    assert robustbench.is_stale(file)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"venue": "ICLR", "eps": "1/255"}))
    assert not robustbench.is_stale(file)
    _, again = robustbench.save(folder)
    assert again == content | {"venue": "ICLR"}
    file.write_text("{}")
    assert not robustbench.is_stale(file)
    assert robustbench.save(folder)[1] == content


def test_another_report_takes_the_entry_with_it(tmp_path):
    def evaluated(attack):
        return mart_tf.evaluate_robustness(
            lambda images: (
                tf.reshape(images, [-1, 4]) @ (5 * np.eye(4, dtype="f4"))
            ),
            (np.eye(4, dtype="f4").reshape(4, 2, 2, 1), np.arange(4)),
            mart_tf.ThreatModel(epsilon=0.1),
            attack,
            directory=tmp_path,
        )

    evaluated("autoattack")
    file, content = robustbench.save(tmp_path)
    evaluated("fgsm")
    assert not file.exists()
    file.write_text(json.dumps(content | {"link": "https://example.org"}))
    evaluated("fgsm")
    assert "example.org" in file.read_text()


def test_the_program(folder):
    done = programs.run(
        "evaluate", "--robustbench=.", cwd=folder, tensorflow=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "Wrote robustbench.json; for its authors to fill in: link, name, "
        "authors, additional_data, venue, reported, footnote.\n"
    )
    written = json.loads((folder / "robustbench.json").read_text())
    assert written == robustbench.model_info(saved.load(folder), folder)


def test_the_program_where_nothing_is_left_to_fill_in(folder):
    """In a folder whose name the encoding of the terminal lacks."""
    place = folder / "日本"
    made_reports.full().save(place)
    _, content = robustbench.save(place)
    filled = {key: value or "x" for key, value in content.items()}
    (place / robustbench.FILE).write_text(json.dumps(filled))
    done = subprocess.run(
        [sys.executable, "-m", "mart_tf.evaluate", f"--robustbench={place}"],
        env=programs.environment() | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    written = f"Wrote {folder}/??/robustbench.json{os.linesep}"
    assert done.stdout.decode("latin-1") == written


class TestRefused:
    def _refused(self, folder, sentence, *more):
        before = sorted(os.listdir(folder))
        done = programs.run(
            "evaluate", "--robustbench=.", *more, cwd=folder, tensorflow=False
        )
        programs.assert_refused(done, sentence)
        assert sorted(os.listdir(folder)) == before

    def test_no_autoattack(self, folder):
        made_reports.full(
            results=(made_reports.natural(), made_reports.pgd())
        ).save(folder)
        self._refused(
            folder,
            "has no AutoAttack in its version standard (its attacks: "
            "pgd:steps=20), which RobustBench ranks by; evaluate again with "
            "--attacks=autoattack.",
        )

    def test_another_version_of_it(self, folder):
        report = saved.load(folder)
        for attack in report["attacks"]:
            if attack["name"] == "autoattack":
                attack["parameters"]["version"] = "custom"
        with pytest.raises(ValueError, match="no AutoAttack"):
            robustbench.model_info(report, folder)

    def test_a_part_of_the_test_split(self, folder):
        report = saved.load(folder)
        report["data"]["sample"] = "first"
        (folder / "report.json").write_text(json.dumps(report))
        self._refused(folder, "RobustBench takes it whole; evaluate again")

    @pytest.mark.parametrize("name", [None, "absent"])
    def test_an_attack_without_a_name(self, folder, name):
        report = saved.load(folder)
        if name == "absent":
            del report["attacks"][0]["name"]
        else:
            report["attacks"][0]["name"] = name
        (folder / "report.json").write_text(json.dumps(report))
        self._refused(folder, "report.json is damaged or no report of an eval")

    @pytest.mark.parametrize(
        "written", ['{"authors": "A, B", "venue": "ICLR",}', '["A, B"]']
    )
    def test_what_its_authors_wrote_is_no_object(self, folder, written):
        """One comma too many: no word of theirs is lost."""
        file = folder / robustbench.FILE
        file.write_text(written)
        self._refused(folder, "robustbench.json is no JSON object (")
        assert not robustbench.is_stale(file)
        assert file.read_text() == written

    def test_no_report(self, tmp_path):
        self._refused(tmp_path, "report.json is not there; expected the")

    def test_beside_flags_of_an_evaluation(self, folder):
        self._refused(
            folder, "--attacks says nothing beside --rob", "--attacks=fgsm"
        )
