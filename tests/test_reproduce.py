"""The paper's tables, from the programs to the pages, on the digits."""

import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

from absl.testing import flagsaver
import programs
import pytest

_BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
_RUN = "table2_mnist_mart_0"


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    """The benchmarks' folder, from which they import each other."""
    sys.path.insert(0, str(_BENCHMARKS))
    yield
    sys.path.remove(str(_BENCHMARKS))


@pytest.fixture(scope="module")
def reproduce():
    module = importlib.import_module("reproduce")
    if not module.flags.FLAGS.is_parsed():
        module.flags.FLAGS(["reproduce"])
    return module


@pytest.fixture
def called(reproduce, monkeypatch):
    """The calls of programs, a list of a name and arguments.

    They are made by a process that has TensorFlow already.
    """
    calls = []

    def program(root, name, *arguments):
        calls.append((name, *arguments))
        done = programs.run(name, *arguments, cwd=root)
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(reproduce, "_program", program)
    return calls


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduced")


def run(reproduce, root, *names):
    """Runs the script in this process; its records' folder."""
    folder = root / "records"
    with flagsaver.flagsaver(
        tiny=True, root=str(root), records=str(folder), runs=list(names)
    ):
        reproduce.main([])
    return folder


def test_trains_and_measures_what_is_missing_once(reproduce, called, root):
    folder = run(reproduce, root, _RUN)
    names = [call[0] for call in called]
    # The surrogate comes first; then three measures.
    assert names == ["train", "train", "evaluate", "evaluate", "evaluate"]
    assert "--seed=1" in called[0]
    record = json.loads((folder / f"{_RUN}.json").read_text())
    assert record["epochs"] == 5
    assert len(record["by_epoch"]["val_robust_accuracy"]) == 5
    assert 0.0 < record["minutes"] < 10.0
    white = record["measures"]["white box"]
    assert white["images"] == 359
    report = json.loads((root / _RUN / "white_box/report.json").read_text())
    found = {a["name"]: 100 * a["accuracy"] for a in report["attacks"]}
    assert white["accuracy"]["natural"] == pytest.approx(
        100 * report["natural"]["accuracy"], abs=0.005
    )
    for name in ("fgsm", "pgd:steps=20", "pgd:steps=100", "cw"):
        assert white["accuracy"][name] == pytest.approx(found[name], abs=0.005)
    assert len(record["measures"]["black box"]["accuracy"]) == 5

    called.clear()
    run(reproduce, root, _RUN)
    assert not called

    # A measure that was lost is made again, without training.
    del record["measures"]["autoattack"]
    (folder / f"{_RUN}.json").write_text(json.dumps(record))
    shutil.rmtree(root / _RUN / "autoattack")
    run(reproduce, root, _RUN)
    assert [call[0] for call in called] == ["evaluate"]


def test_a_record_is_of_one_network(reproduce, called, root):
    folder = run(reproduce, root, _RUN)
    called.clear()
    file = folder / f"{_RUN}.json"
    record = json.loads(file.read_text())
    for measure in record["measures"].values():
        assert len(measure["weights"]) == 64
    made_on = {m["surrogate"] for m in record["measures"].values()}
    assert len(made_on - {None}) == 1
    # As where it was trained on another machine, and one measure is missing.
    elsewhere = json.loads(file.read_text())
    elsewhere["by_epoch"]["loss"][0] += 1e-5
    elsewhere["measures"]["white box"]["accuracy"]["natural"] = 1.0
    del elsewhere["measures"]["autoattack"]
    file.write_text(json.dumps(elsewhere))
    run(reproduce, root, _RUN)
    assert [call[0] for call in called] == ["evaluate"] * 3
    assert json.loads(file.read_text()) == record


def test_the_first_curve_of_figure_1_picks_the_subsets(
    reproduce, called, tmp_path
):
    first = next(run for run in paper_runs() if run.label)
    found = importlib.import_module("records").Records(tmp_path / "records")
    with flagsaver.flagsaver(tiny=True):
        reproduce._train(first, found, tmp_path)
        reproduce._train(first, found, tmp_path)
    assert [call[0] for call in called] == ["train", "label"]
    subset = (tmp_path / "subsets/wrong.csv").read_text()
    rows = [line for line in subset.splitlines() if line[:1].isdigit()]
    chosen = found.read(first)["subsets"]
    assert chosen["wrong"] == len(rows) > 0
    # 1,438 images, 144 of them for validation.
    assert chosen["images"] == 1294


def test_lists_what_is_done_and_missing(reproduce, called, root, capsys):
    folder = root / "records"
    if not folder.exists():
        run(reproduce, root, _RUN)
    capsys.readouterr()
    with flagsaver.flagsaver(
        list=True, records=str(folder), part=["table2"], runs=[]
    ):
        reproduce.main([])
    lines = capsys.readouterr().out.splitlines()
    assert f"{_RUN:32} done" in lines
    assert "missing, about 60 min" in lines[1]
    assert lines[-1].startswith("1 of 9 done; ")
    assert max(map(len, lines)) <= 80


def test_a_run_of_other_settings_is_not_taken_for_it(
    reproduce, called, root, monkeypatch
):
    if not (root / _RUN).exists():
        run(reproduce, root, _RUN)
    called.clear()
    # Its record is gone, and the recipe is another one now.
    shutil.rmtree(root / "records")
    other = (*reproduce._TINY_TRAINING, "--learning_rate=0.01")
    monkeypatch.setattr(reproduce, "_TINY_TRAINING", other)
    with pytest.raises(SystemExit) as error:
        run(reproduce, root, _RUN)
    assert (
        "holds a run with other settings (--learning_rate was 0.02, now "
        in (str(error.value))
    )
    assert not called
    assert not (root / "records").exists()


def test_labels_of_a_run_that_is_gone_are_not_taken(
    reproduce, called, tmp_path
):
    (tmp_path / "pool_4000.npz").write_text("of an earlier labeler")
    with pytest.raises(SystemExit, match="was made by a run of table5_labeler"):
        run(reproduce, tmp_path, "table5_labeler_0")
    assert not called


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"part": ["table9"]}, "--part=table9: expected some of table3, "),
        ({"runs": ["mart"]}, "--runs: expected names that --list shows"),
        ({"root": None}, "Give --root=FOLDER"),
        ({"tiny": True}, "--tiny: its numbers are of the digits, and /"),
    ],
)
def test_refuses_what_it_does_not_know(reproduce, given, sentence):
    with flagsaver.flagsaver(**given), pytest.raises(SystemExit) as error:
        reproduce.main([])
    assert str(error.value).startswith(sentence)


def record(white, autoattack=None):
    paper = importlib.import_module("paper")
    measures = {"white box": {"images": 10_000, "accuracy": white}}
    if autoattack is not None:
        accuracy = {"natural": 99.0, "autoattack": autoattack}
        parts = {"apgd": 93.0, "square": autoattack}
        measures["autoattack"] = {
            "images": 1000,
            "accuracy": accuracy,
            "parts": parts,
        }
    for name, measure in measures.items():
        measure["flags"] = list(paper.MEASURES[name])
    return {
        "epochs": 18,
        "precision": "mixed_bfloat16",
        "version": "0.1.0",
        "measures": measures,
        "by_epoch": {"val_robust_accuracy": [0.5, 0.75]},
    }


def accuracies(pgd, cw):
    names = ("natural", "fgsm", "pgd:steps=20", "pgd:steps=100", "cw")
    return dict(zip(names, (99.0, 97.0, pgd, pgd - 1, cw), strict=True))


@pytest.fixture
def made(tmp_path):
    """Records of two seeds of MART, one of Standard, one of TRADES."""
    found = {
        "table2_mnist_mart_0": record(accuracies(96.0, 95.0), 92.0),
        "table2_mnist_mart_1": record(accuracies(97.0, 96.0)),
        "table2_mnist_standard_0": record(accuracies(94.0, 93.0), 92.5),
        "table2_mnist_trades_0": record(accuracies(95.0, 94.0), 91.5),
        # Another network: it has no place in table 2 or the recipe's header.
        "table2_mnist_standard_cnn4_0": record(accuracies(92.0, 91.0)),
        "figure1_standard_0": record(accuracies(40.0, 39.0)),
    }
    runs = {run.name: run for run in paper_runs()}
    for name, content in found.items():
        run = runs[name]
        content |= {
            "recipe": run.recipe,
            "seed": run.seed,
            "flags": list(run.flags),
            "settings": importlib.import_module("paper").settings(run),
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return importlib.import_module("records").Records(tmp_path)


def test_a_record_of_another_recipe_is_refused(made, tmp_path):
    run = next(each for each in paper_runs() if each.name == _RUN)
    file = tmp_path / f"{_RUN}.json"
    record = json.loads(file.read_text())
    settings = importlib.import_module("paper").settings(run)
    assert "--epochs=18" in settings[_RUN]
    # The surrogate's count: the black box is measured with it.
    assert "--defense=natural" in settings["table3_mnist_surrogate_1"]
    file.write_text(json.dumps(record | {"settings": settings}))
    assert made.read(run)["epochs"] == 18
    settings[_RUN][settings[_RUN].index("--epochs=18")] = "--epochs=20"
    for changed, said in [
        (
            {"settings": settings},
            "it had --epochs=20, now --epochs=18. Restore",
        ),
        ({"seed": 3}, "it had seed 3, now seed 0. Restore"),
    ]:
        file.write_text(json.dumps(record | changed))
        with pytest.raises(ValueError, match=said):
            made.read(run)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"measures": {"cw": 1}}'])
def test_a_damaged_record_is_named(made, tmp_path, text):
    run = next(each for each in paper_runs() if each.name == _RUN)
    (tmp_path / f"{_RUN}.json").write_text(text)
    said = f"{_RUN}.json is (not a record as it was written|of a run with)"
    with pytest.raises(ValueError, match=said):
        made.read(run)


def test_level_is_what_is_near_the_highest_of_a_set(benchmarks):
    # A chain: each is within 0.5 of the one before it, 0.96 from end to end.
    found = {"a": 95.69, "b": 96.65, "c": 95.7, "d": 96.21}
    ranks = importlib.import_module("ranks")
    assert ranks.ranked(found, 10_000) == [{"b", "d"}, {"a", "c"}]
    # Of a tenth of the images: errors three times as large.
    assert ranks.ranked(found, 1000) == [set("abcd")]


# A program that takes its time to save, and one that calls it.
_SAVES = """
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(1)
    pathlib.Path("saved").write_text(str(number))
    sys.exit(3)
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
time.sleep(60)
"""
_CALLS = """
import signal, sys
sys.path.insert(0, sys.argv[1])
import runs
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(40 + runs.called([sys.executable, "saves.py"])[0])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_saves_first(tmp_path, number):
    (tmp_path / "saves.py").write_text(_SAVES)
    with subprocess.Popen(
        [sys.executable, "-c", _CALLS, str(_BENCHMARKS)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "begun\n"
        if number == signal.SIGINT:
            # As a terminal does: to both.
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert error == ""
    assert process.returncode == (130 if number == signal.SIGINT else 43)
    assert (tmp_path / "saved").read_text() == str(int(number))


def test_a_measure_that_is_taken_otherwise_now_is_missing(made, tmp_path):
    run = next(each for each in paper_runs() if each.name == _RUN)
    assert made.missing(run) == ["black box"]
    file = tmp_path / f"{_RUN}.json"
    record = json.loads(file.read_text())
    record["measures"]["autoattack"]["flags"] = ["--attacks=autoattack"]
    file.write_text(json.dumps(record))
    assert made.missing(run) == ["autoattack", "black box"]


def paper_runs():
    return importlib.import_module("paper").runs()


def test_table_2_has_means_beside_the_papers_numbers(made):
    reproduced = importlib.import_module("reproduced")
    lines = reproduced.table_2(made).splitlines()
    # Means and deviations by hand: 96.5 and 0.5 times the root of 2.
    assert (
        "| MART | 99.00 ± 0.00 / 98.74 | 97.00 ± 0.00 / 97.87 | "
        "96.50 ± 0.71 / 96.48 | 95.50 ± 0.71 / 96.10 | 95.50 ± 0.71 | "
        "92.00 | 2 |"
    ) in lines
    assert (
        "| MMA | – / 98.92 | – / 97.25 | – / 95.25 | – / 94.77 | – | – | 0 |"
    ) in lines
    assert "MMA" not in reproduced.table_2(made, short=True)


def test_the_other_network_stands_beside_the_papers_numbers(made):
    reproduced = importlib.import_module("reproduced")
    assert reproduced.network(made).splitlines()[2:] == [
        "| Standard | 99.00 / 99.11 | 97.00 / 97.17 | 92.00 / 94.62 | "
        "91.00 / 94.25 | 91.00 |"
    ]


def test_the_order_is_said_whether_it_is_the_papers_or_not(made):
    reproduced = importlib.import_module("reproduced")
    assert reproduced.order(made) == (
        "Under PGD-20, seeds 1 of Standard, 1 of TRADES, 2 of MART, the order "
        "is MART (96.50) above TRADES (95.00) above Standard (94.00), not that "
        "of the paper's PGD-20: MART (96.48) above Standard (94.62) level with "
        "TRADES (94.58). Under AutoAttack, one seed each, the order is "
        "Standard (92.50) level with MART (92.00) level with TRADES (91.50), "
        "not that of the paper's PGD-20: MART (96.48) above Standard (94.62) "
        "level with TRADES (94.58)."
    )


def test_another_surrogate_and_float32_are_said(made, tmp_path):
    reproduced = importlib.import_module("reproduced")
    runs = {run.name: run for run in paper_runs()}
    for name, precision in [
        ("table2_mnist_mart_0", "mixed_bfloat16"),
        ("table2_mnist_dynamic_0", "float32"),
    ]:
        content = record(accuracies(96.0, 95.0))
        content |= importlib.import_module("records")._told(runs[name])
        content["precision"] = precision
        content["measures"]["black box"] = {
            "images": 10_000,
            "accuracy": dict.fromkeys(reproduced._BLACK, 97.0),
            "flags": list(
                importlib.import_module("paper").MEASURES["black box"]
            ),
            "surrogate": precision,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert reproduced.table_3(made, "black box").endswith(
        "sets was attacked from one network: Dynamic; MART."
    )
    assert reproduced.table_2(made).endswith("Trained in float32: Dynamic.")


def test_parts_of_autoattack_stand_one_after_the_other(made):
    reproduced = importlib.import_module("reproduced")
    lines = reproduced.autoattack(made).splitlines()
    assert lines[0] == "| defense | natural | apgd | square |"
    assert lines[2] == "| MART | 99.0 | 93.0 | 92.0 |"
    assert len(lines) == 5


def test_the_best_recipe_has_a_row_for_some_images_and_one_for_all(
    made, tmp_path
):
    reproduced = importlib.import_module("reproduced")
    text = reproduced.best(made)
    assert text.startswith("Not run yet: `--part=best`, about ")
    for run in paper_runs():
        if run.name in ("mnist_best_0", "mnist_best_1"):
            write_strong(tmp_path, run, 94.0 + run.seed)
    # Only the first seed is attacked on all images; 94.5 and the root of 0.5.
    assert reproduced.best(made).splitlines()[2:] == [
        "| the first 1,000 | 80.00 ± 0.00 | 95.00 ± 0.00 | 94.50 ± 0.71 | 2 |",
        "| all 10,000 | 80.00 | 95.00 | 94.00 | 1 |",
    ]


def write_strong(folder, run, autoattack):
    """A record with these accuracies in all measures of a run."""
    paper = importlib.import_module("paper")
    strong = {"natural": 80.0, "pgd:steps=20": 95.0, "autoattack": autoattack}
    content = record({}) | {"best": 11, "minutes": 95.4}
    content |= importlib.import_module("records")._told(run)
    content["measures"] = {
        name: {
            "images": 1000,
            "accuracy": strong,
            "parts": {},
            "flags": list(paper.MEASURES[name]),
        }
        for name in run.measures
    }
    (folder / f"{run.name}.json").write_text(json.dumps(content))


def test_a_figure_has_the_papers_words_beside_its_rows(made, tmp_path):
    reproduced = importlib.import_module("reproduced")
    for each in paper_runs():
        if each.name in ("figure1_standard_0", "figure1a_wrong_0"):
            write_strong(tmp_path, each, 50.0)
    file = tmp_path / "figure1_standard_0.json"
    chosen = {"images": 10_800, "wrong": 4_500, "right": 4_500}
    content = json.loads(file.read_text()) | {"subsets": chosen}
    file.write_text(json.dumps(content))
    text = reproduced.trend(made, "figure1")
    assert text.splitlines()[2:5] == [
        "| nothing changed | 87 % natural training accuracy "
        "| 80.00 | 95.00 | 80.00 | 95.00 |",
        "| a, S- | robustness drops sharply | 80.00 | 95.00 | 80.00 | 95.00 |",
        "| a, S+ | robustness drops slightly | – | – | – | – |",
    ]
    assert text.endswith(
        "S- is 4,500 of the 10,800 training images, S+ 4,500.\n\n"
        "![PGD-10 by epoch](figures/figure1.png)"
    )
    # A recipe that is none of the paper's.
    assert importlib.import_module("paper").said("cifar10_small_mart") == ""


def test_figures_are_columns_by_epoch(made):
    figures = importlib.import_module("figures")
    text = figures.curves(made, "figure1")
    assert text == "epoch,nothing changed\n1,0.5\n2,0.75\n"
    assert figures.drawn(text).startswith(b"\x89PNG")
    assert figures.curves(made, "figure2") is None


def test_the_digits_are_told_in_tables_and_headers(made, tmp_path):
    """Three seeds of one defense, one of another with more flags."""
    reproduced, part = importlib.import_module("reproduced"), "digits"
    text = reproduced.digits(made, part)
    assert text.startswith("Not run yet: `--part=digits`, about ")
    by_name = {run.name: run for run in paper_runs()}
    for seed, robust in enumerate((81.0, 82.0, 83.0)):
        write_digits(tmp_path, by_name[f"digits_mart_{seed}"], robust)
    write_digits(tmp_path, by_name["digits_mart_awp_smoothing_1"], 70.0)
    margins = {"margin": [epoch / 100 for epoch in range(30)]}
    write_digits(tmp_path, by_name["digits_mma_1"], 75.5, whole=False)
    write_digits(tmp_path, by_name["digits_mma_0"], 75.5, **margins)
    assert reproduced.digits_criteria(made).startswith("Not run yet")
    fosc = {"fosc": [1 - epoch / 100 for epoch in range(30)]}
    write_digits(tmp_path, by_name["digits_dynamic_0"], 75.5, **fosc)

    rest = "82.00 ± 1.00 | 82.00 ± 1.00 | 82.00 ± 1.00 | 3"
    assert reproduced.digits(made, part, ("mart", "uat")).splitlines() == [
        "| training | natural | FGSM | PGD-20 | CW | seeds | AutoAttack "
        "| seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| mart | 90.00 ± 0.00 | {rest} | 72.00 ± 1.00 | 3 |",
    ]
    # AutoAttack takes longer, and may have fewer seeds yet.
    assert reproduced.digits(made, part).splitlines()[2] == (
        "| mma | 90.00 ± 0.00 | 75.50 ± 0.00 | 75.50 ± 0.00 | 75.50 ± 0.00 | 2 "
        "| 65.50 | 1 |"
    )
    assert reproduced.digits(made, "digits_tricks").splitlines()[2:] == [
        f"| mart | 90.00 ± 0.00 | {rest} | 72.00 ± 1.00 | 3 |",
        "| mart, `--update=awp:gamma=0.005`, `--label_smoothing=0.1` "
        "| 90.00 | 70.00 | 70.00 | 70.00 | 1 | 60.00 | 1 |",
    ]
    # The sixth of its rows is of epoch 15.
    assert reproduced.digits_criteria(made).splitlines()[7] == (
        "| 15 | 0.140 | 0.860 |"
    )
    text = reproduced.measured(made, "digits_mart")
    assert text.startswith("natural 90.00 ± 0.00, FGSM 82.00 ± 1.00, PGD-20")
    assert text.endswith("epochs, 3 seeds, float32, version 0.1.0).")


def write_digits(folder, run, robust, whole=True, **by_epoch):
    paper = importlib.import_module("paper")
    content = record({}) | {"by_epoch": by_epoch, "precision": "float32"}
    content |= importlib.import_module("records")._told(run)
    white = dict.fromkeys(("fgsm", "pgd:steps=20", "cw"), robust)
    content["measures"] = {
        name: {
            "images": 359,
            "accuracy": {"natural": 90.0} | accuracy,
            "parts": {},
            "flags": list(paper.MEASURES[name]),
        }
        for name, accuracy in (
            ("digits", white),
            ("digits, autoattack", {"autoattack": robust - 10.0}),
        )
        if whole or name == "digits"
    }
    (folder / f"{run.name}.json").write_text(json.dumps(content))


def test_a_header_says_what_was_measured(made, tmp_path, monkeypatch):
    recipes = importlib.import_module("recipes")
    reproduced = importlib.import_module("reproduced")
    assert reproduced.measured(made, "table2_mnist_dynamic") is None
    text = reproduced.measured(made, "table2_mnist_standard")
    assert text == (
        "natural 99.00, FGSM 97.00, PGD-20 94.00, CW 93.00 (10,000 test "
        "images, best of 18 epochs, one seed, mixed_bfloat16, version 0.1.0); "
        "AutoAttack 92.50 on the first 1,000."
    )
    # The small network has no FGSM and no CW.
    run = next(r for r in paper_runs() if r.name == "cifar10_small_mart_0")
    write_strong(tmp_path, run, 45.0)
    assert reproduced.measured(made, run.recipe) == (
        "natural 80.00, PGD-20 95.00 (1,000 test images, best of 18 epochs, "
        "one seed, mixed_bfloat16, version 0.1.0); AutoAttack 45.00."
    )
    row = reproduced.small(made).splitlines()[2]
    assert row == (
        "| MART | 80.00 | 95.00 | 45.00 | 80.00 | 95.00 | 45.00 | 11 of 18 "
        "| 95 |"
    )
    file = tmp_path / "some.cfg"
    file.write_text(
        "# Some.\n# Paper: natural 98.74,\n# CW 96.10.\n# Cost: none.\n"
        "# Measured: not measured: it\n# waits.\n# More.\n--seed=1\n"
    )
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    assert recipes.numbers(recipes.header("some", "Paper")) == [98.74, 96.10]
    recipes.set_header("some", "Measured", text)
    lines = file.read_text().splitlines()
    assert lines[:4] == [
        "# Some.",
        "# Paper: natural 98.74,",
        "# CW 96.10.",
        "# Cost: none.",
    ]
    assert lines[-2:] == ["# More.", "--seed=1"]
    assert " ".join(line[2:] for line in lines[4:-2]) == f"Measured: {text}"
    assert max(map(len, lines)) <= 79


def test_the_pages_have_the_tables_of_the_records(reproduce):
    """Nobody wrote into them by hand."""
    pages = importlib.import_module("pages")
    found = importlib.import_module("records").Records(_BENCHMARKS / "measured")
    reproduced = importlib.import_module("reproduced")
    for page, tables in reproduced.blocks(found).items():
        text = (_BENCHMARKS.parent / page).read_text(encoding="utf-8")
        assert pages.filled(text, tables, page) == text
