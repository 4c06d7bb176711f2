"""Training on paper: counts beside TensorFlow's profiler and by hand."""

import importlib
import pathlib
import sys

import pytest

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
