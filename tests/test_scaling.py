"""Training on paper: counts beside TensorFlow's profiler and by hand."""

import datetime
import importlib
import json
import os
import pathlib
import shutil
import sys

import pytest

import mart_tf

_ROOT = pathlib.Path(__file__).parents[1]
_SMALL = "small_cnn", (28, 28, 1)


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    """The benchmarks' folder, from which they import each other."""
    path = str(_ROOT / "benchmarks")
    sys.path.insert(0, path)
    yield
    sys.path.remove(path)


@pytest.fixture(scope="module")
def costs():
    return importlib.import_module("costs")


@pytest.fixture(scope="module")
def profiled():
    return importlib.import_module("profiled")


def test_forward_pass_is_that_of_a_hand(costs):
    found = costs.network(*_SMALL)
    convolutions = [
        26 * 26 * 32 * 3 * 3 * 1,
        24 * 24 * 32 * 3 * 3 * 32,
        # Max-pooled to 12 by 12.
        10 * 10 * 64 * 3 * 3 * 32,
        8 * 8 * 64 * 3 * 3 * 64,
    ]
    # Max-pooled to 4 by 4.
    dense = [4 * 4 * 64 * 200, 200 * 200, 200 * 10]
    assert found.forward == 2 * sum(convolutions + dense)
    assert found.first == 2 * convolutions[0]
    assert found.parameters == 312_202
    assert not found.channels


@pytest.mark.parametrize("name", ["small_cnn", "cnn4"])
def test_forward_pass_is_that_of_the_profiler(costs, profiled, name):
    found = profiled.forward_pass(name, _SMALL[1])
    assert costs.network(name, _SMALL[1]).forward == found.products
    # Biases, batch norm, pooling.
    assert found.products < found.everything < 1.02 * found.products


# Of all defenses: benchmarks/scaling.py --profiler.
@pytest.mark.parametrize("defense", ["natural", "mart"])
def test_step_is_that_of_the_profiler(costs, profiled, defense):
    passes = costs.passes(defense, 2)
    expected = costs.training_flops(costs.network(*_SMALL), passes)
    found = profiled.training_step(*_SMALL, defense, attack_steps=2)
    assert found.mended == pytest.approx(expected, rel=1e-12)
    # What the profiler says of unpadded convolutions is known to be more.
    assert expected < found.products < 1.22 * expected


@pytest.mark.parametrize(
    "defense, forward, attack, training",
    [
        ("natural", 0, 0, 1),
        ("standard", 0, 10, 1),
        ("trades", 1, 10, 2),
        ("mma", 1 + 2 * 10, 2 * 10, 2),
        ("dynamic", 0, 10 + 1, 1),
        ("mart", 0, 10, 2),
        ("mart:divergence=false:weighting=none", 0, 10, 1),
        ("subset:file=none.csv:treatment=fgsm", 0, 10 + 1, 1),
    ],
)
def test_passes_of_a_step(costs, defense, forward, attack, training):
    assert costs.passes(defense, 10)[:3] == (forward, attack, training)


def test_passes_are_those_of_a_whole_attack(costs):
    for defense in ("mma", "dynamic", "mart:inner=kl"):
        assert costs.passes(defense, 5) == costs.counted(defense, 5)


def test_a_batch_norm_takes_five_sums_a_pass(costs):
    found = costs.network("cnn4", _SMALL[1])
    mart = costs.passes("mart", 10)
    # As two workers' graph of the step has them: gradient, batch norm of 32
    # and of 64 channels, images, seven signs.
    floats = 421_834 + 2 * 5 * (32 + 64) + 1 + 7
    assert costs.reduced(found, mart) == (4 * floats, 1 + 2 * 5 * 2 + 2)
    # MMA: a sum and a number for each of 1,000 rows.
    assert costs.reduced(found, mart, 1_000) == (4 * (floats + 2_000), 24)


def test_ring(costs):
    # Each of two sends half, twice; each of eight seven eighths, twice.
    assert costs.ring(8.0, 2) == 8.0
    assert costs.ring(8.0, 8) == 14.0


@pytest.fixture(scope="module")
def hours():
    return importlib.import_module("hours")


@pytest.fixture(scope="module")
def scaling():
    return importlib.import_module("scaling")


def test_fit_finds_the_speed_that_steps_were_made_with(hours):
    made = hours.Speed(unit=1e-3, flops=1e14)
    work = [(26, 1e12), (26, 4e12), (3, 1e13)]
    # 26 ms and 10 ms.
    assert made.seconds(*work[0]) == pytest.approx(0.036)
    rows = [(*pair, made.seconds(*pair)) for pair in work]
    found, apart = hours.fit(rows)
    assert found == pytest.approx(made)
    assert apart < 1e-9


def test_hours_of_a_recipe_worked_by_hand(hours, costs):
    recipe = hours.recipe(_ROOT / "flags" / "table2_cifar10_mart.cfg")
    # 48,000 of 50,000 images by 128.
    assert (recipe.steps, recipe.epochs) == (375, 120)
    forward, first = recipe.found.forward, recipe.found.first
    trained = 48_000 * (26 * forward - 2 * first)
    checked = 2_000 * (2 * 10 + 2) * forward
    assert recipe.flop() == 120 * (trained + checked)
    speed, _ = hours.fitted("step")
    # 16 batches of validation images.
    units = 375 * 26 + 16 * 22
    expected = units * speed.unit + (trained + checked) / speed.flops
    assert recipe.seconds() == pytest.approx(120 * expected)


def test_pool_takes_half_of_a_batch(hours):
    recipe = hours.recipe(_ROOT / "flags" / "table5a_mart.cfg")
    assert recipe.steps == 196
    labeler = hours.recipe(_ROOT / "flags" / "table5_labeler.cfg")
    assert labeler.steps == 48_000 // 256


def test_what_is_said_of_the_digits(hours):
    digits = mart_tf.data.load("digits")
    held = len(digits.validation)
    assert hours.IMAGES["digits"] == (len(digits.train) + held, held)


def test_speeds_are_those_of_the_page_about_gpus(hours):
    page = (_ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    titles = {"resnet18": "ResNet-18"}
    for name, size, rates in hours.MEASURED:
        row = f"| {titles.get(name, 'WRN-34-10')}, {size} | bfloat16 |"
        row += "".join(f" {rate:,} |" for rate in rates.values())
        assert row in page
    assert f" {hours.PEAK / 1e12:.0f} TFLOP/s (bfloat16)" in page


def test_page_has_the_tables_of_today():
    pages = importlib.import_module("pages")
    tables = importlib.import_module("tables")
    page = tables.PAGE.read_text(encoding="utf-8")
    assert pages.filled(page, tables.blocks(), tables.PAGE) == page
    assert max(map(len, page.splitlines())) <= 80
    for path in (_ROOT / "flags").glob("*.cfg"):
        assert page.count(f"`{path.stem}`") == 1


_TELL = "import json, os; print(json.dumps([os.environ.get('TF_CONFIG'), "
_TELL += "sorted(os.sched_getaffinity(0))]))"

needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity")
    or len(os.sched_getaffinity(0)) < 2
    or not shutil.which("taskset"),
    reason="two workers need two cores, and taskset",
)


@needs_two_cores
def test_workers_have_a_core_each_and_know_each_other(scaling, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "of another cluster")
    command = [sys.executable, "-c", _TELL]
    told = [json.loads(t) for t in scaling.run_workers(command, 2, 60)]
    configs = [json.loads(config) for config, _ in told]
    addresses = configs[0]["cluster"]["worker"]
    assert len(set(addresses)) == 2
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    for index, config in enumerate(configs):
        assert config == {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
    (first,), (second,) = (cores for _, cores in told)
    assert first != second
    # One alone is in no cluster.
    [alone] = scaling.run_workers(command, 1, 60)
    assert json.loads(alone) == [None, [first]]


@needs_two_cores
def test_a_worker_that_fails_ends_the_others(scaling):
    code = (
        "import os, sys, time\n"
        "if '\"index\": 1' in os.environ['TF_CONFIG']: sys.exit('no room')\n"
        "time.sleep(600)"
    )
    with pytest.raises(SystemExit, match="Worker 1 of(.|\n)*no room"):
        scaling.run_workers([sys.executable, "-c", code], 2, 60)
    wait = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(SystemExit, match="was not done in 0.5 s"):
        scaling.run_workers(wait, 2, 0.5)


def test_speed_is_that_after_the_first_epoch(scaling):
    def event(second, name, **facts):
        when = datetime.datetime(2030, 1, 1, 0, 0, second)
        return {"time": when, "event": name, **facts}

    found = [
        event(0, "start", batch_size=32),
        event(20, "epoch", done=5),
        event(21, "save", kind="last"),
        event(25, "epoch", done=10),
        event(30, "epoch", done=15),
        event(31, "end", outcome="finished"),
    ]
    # Ten steps of 32 images in ten seconds.
    assert scaling.images_per_second(found) == 32.0
