"""Runs that are cut off at a change of their workdir, or whose disk is full.

A short form of `benchmarks/cut_off_saves.py`, which tries every change.
"""

import failing_disk
import pytest

pytestmark = pytest.mark.skipif(
    failing_disk.compiler() is None, reason="needs a C compiler"
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return failing_disk.Recipe(
        tmp_path_factory.mktemp("runs"), "--ema=0.9", "--augment=crop,flip"
    )


@pytest.mark.parametrize(
    ("how", "change"),
    [
        # Before the first checkpoint is one.
        ("kill", "rename checkpoints/within/.ckpt-2.sha256.partial"),
        # The best of an epoch is there, its last is cut off.
        ("kill", "+fwrite checkpoints/ckpt-1.index"),
        # Named, and the middle of the epoch half gone.
        ("kill", "unlink checkpoints/within/ckpt-2.index"),
        # All content that was not flushed goes.
        ("power", "rename checkpoints/.ckpt-2.sha256.partial"),
        ("full", "+fopen checkpoints/within/ckpt-5.index"),
        ("full", "+write checkpoints/.newest.json.partial"),
    ],
)
def test_the_next_run_ends_as_if_nothing_had_happened(recipe, how, change):
    changes = recipe.changes
    if how == "full":
        changes = [one for one in changes if one.startswith("+")]
    at = next(n for n, one in enumerate(changes, 1) if one.startswith(change))
    assert recipe.fault(how, at) is None
