"""Flag sets that nobody should give: one sentence, at once, nothing written.

`benchmarks/hostile_flags.py` tries 20,000, and processes of their own too.
"""

import importlib.util
import pathlib

import hypothesis
import pytest

_PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "hostile.py"
_SPEC = importlib.util.spec_from_file_location("hostile", _PATH)
hostile = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(hostile)


@pytest.fixture
def place(tmp_path):
    with hostile.standing_in(str(tmp_path)):
        yield tmp_path


@pytest.mark.parametrize("program", hostile.PROGRAMS)
def test_any_flags_are_taken_or_refused_in_one_sentence(program, place):
    @hypothesis.seed(0)
    @hostile.settings(200)
    @hypothesis.given(hostile.flag_sets(program))
    def examples(arguments):
        hostile.told(program, arguments)

    examples()
