"""metrics.csv: whole rows in order, or a sentence."""

import pytest

from mart_tf.runs import history

ROWS = [
    {"epoch": "1", "loss": "2.5"},
    {"epoch": "2", "loss": "2", "skipped": "3"},
]


def test_rows_come_back(tmp_path):
    assert history.read(tmp_path) == []
    history.write(tmp_path, ROWS)
    assert (tmp_path / "metrics.csv").read_text() == (
        "epoch,loss,skipped\n1,2.5,\n2,2,3\n"
    )
    rows = history.read(tmp_path)
    assert rows == [ROWS[0] | {"skipped": ""}, ROWS[1]]


@pytest.mark.parametrize(
    "content",
    [
        b"loss\n1\n",
        b"epoch,loss\n2,1\n",
        b"epoch,loss\n1,1\n3,1\n",
        b"epoch,loss\n1\n",
        b"epoch,loss\n1,2,3\n",
        b"epoch,loss\n1," + b"9" * 200_000,
        b'epoch,loss\n"1,\n',
        b"epoch,loss\n\xff,1\n",
        b"epoch,loss\none,1\n",
        b"\0",
    ],
)
def test_damaged_ones_are_refused(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(ValueError, match="metrics.csv is damaged") as caught:
        history.read(tmp_path)
    assert "\n" not in str(caught.value)
