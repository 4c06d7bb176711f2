"""What an unfinished evaluation keeps."""

import warnings

import numpy as np
import pytest

from mart_tf.data import archives
from mart_tf.evaluation import unfinished


def _identity():
    return {"seed": 0, "threat model": {"epsilon": 0.3}}


class _Work:
    """Counts how often it is done."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return {"broken": np.array([True, False]), "seconds": 1.5}


def test_a_piece_is_done_once(tmp_path):
    work = _Work()
    for _ in range(2):
        kept = unfinished.Unfinished(tmp_path / "partial", _identity)
        arrays = kept("pgd 0", work)
        assert arrays["broken"].tolist() == [True, False]
        assert float(arrays["seconds"]) == 1.5
    assert work.times == 1
    kept("pgd 1", work)
    assert work.times == 2


def test_nothing_is_kept_without_a_directory():
    work = _Work()
    kept = unfinished.Unfinished(None, _identity)
    for _ in range(2):
        kept("pgd 0", work)
    assert work.times == 2
    kept.clear()


def test_another_evaluation_is_refused(tmp_path):
    def other():
        return {"seed": 1, "threat model": {}}

    # Nothing is lost while there is nothing.
    unfinished.Unfinished(tmp_path, _identity)
    unfinished.Unfinished(tmp_path, other)
    unfinished.Unfinished(tmp_path, _identity)("pgd 0", _Work())
    with pytest.raises(ValueError, match="with another seed and threat model"):
        unfinished.Unfinished(tmp_path, other)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"[1, 2]"])
def test_a_damaged_piece_is_done_again(tmp_path, content):
    work = _Work()
    unfinished.Unfinished(tmp_path, _identity)("pgd 0", work)
    [piece] = tmp_path.glob("*.npz")
    piece.write_bytes(content)
    kept = unfinished.Unfinished(tmp_path, _identity)
    with pytest.warns(UserWarning, match="is damaged: the work that it held"):
        kept("pgd 0", work)
    assert work.times == 2
    unfinished.Unfinished(tmp_path, _identity)("pgd 0", work)
    assert work.times == 2


def test_any_damaged_byte_of_a_piece_is_noticed(tmp_path):
    """Of what a zip file's own checksums do not cover, too."""
    work = _Work()
    unfinished.Unfinished(tmp_path, _identity)("pgd 0", work)
    [piece] = tmp_path.glob("*.npz")
    sound = piece.read_bytes()
    for place in range(0, len(sound), 7):
        damaged = bytearray(sound)
        damaged[place] ^= 0x11
        piece.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = unfinished.Unfinished(tmp_path, _identity)("pgd 0", work)
        assert sorted(arrays) == ["broken", "seconds"]
        assert arrays["broken"].tolist() == [True, False]
        assert float(arrays["seconds"]) == 1.5


def test_a_piece_of_other_arrays_or_of_other_work_is_done_again(tmp_path):
    work = _Work()
    kept = unfinished.Unfinished(tmp_path, _identity)
    kept("pgd 0", work)
    [piece] = tmp_path.glob("*.npz")
    other = piece.read_bytes()
    np.savez(piece, fallen=np.zeros(2))
    with pytest.warns(UserWarning, match="is damaged"):
        assert sorted(kept("pgd 0", work)) == ["broken", "seconds"]
    kept("pgd 1", work)
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(other)
    with pytest.warns(UserWarning, match="is damaged"):
        kept("pgd 1", work)
    assert work.times == 4


@pytest.mark.parametrize("content", ["{", "[1, 2]", "[" * 100_000, None])
def test_of_a_damaged_identity_the_work_is_done_again(tmp_path, content):
    work = _Work()
    unfinished.Unfinished(tmp_path, _identity)("pgd 0", work)
    path = tmp_path / "identity.json"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.warns(UserWarning, match="work is done again"):
        kept = unfinished.Unfinished(tmp_path, _identity)
    kept("pgd 0", work)
    assert work.times == 2
    # And from then on as ever.
    unfinished.Unfinished(tmp_path, _identity)("pgd 0", work)
    assert work.times == 2


def test_clear_leaves_nothing(tmp_path):
    kept = unfinished.Unfinished(tmp_path / "partial", _identity)
    kept("pgd 0", _Work())
    # Of a process that was killed while it wrote.
    [piece] = (tmp_path / "partial").glob("*.npz")
    piece.with_name(f".{piece.name}.partial-01ab23cd").write_bytes(b"half")
    kept.clear()
    assert not (tmp_path / "partial").exists()

    kept = unfinished.Unfinished(tmp_path, _identity)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    kept.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_digest_knows_bytes_types_and_shapes():
    array = np.arange(4)
    others = [array[::-1], array.astype(np.int32), array.reshape(2, 2)]
    digests = {archives.digest([each]) for each in [array, *others]}
    assert len(digests) == 4
    assert archives.digest([array]) == archives.digest([np.arange(4)])
