"""Files made to hurt, and what becomes of whoever opens them.

`FORMS` maps each kind of file to a strategy of its contents and to what opens
it; `attempt` opens one and says how that ended. The test-suite tries a few of
each, `benchmarks/hostile_data.py` thousands.
"""

import io
import json
import pathlib
import pickle
import time
import warnings
import zipfile
import zlib

from hypothesis import strategies as st
import numpy as np
from PIL import Image

from mart_tf import data
from mart_tf.data import archives
from mart_tf.labeling import subsets
from mart_tf.reports import saved
from mart_tf.runs import config as run_config
from mart_tf.runs import history
from mart_tf.runs import record
from mart_tf.runs import workdir

LONGEST_SECONDS = 20.0
_LONGEST_SENTENCE = 1500

_IMAGES = np.random.default_rng(0).integers(0, 256, (9, 4, 4), np.uint8)
_LABELS = np.arange(9) % 3


def attempt(form, content, folder):
    """How opening a file ends: "loaded", or "refused" with one sentence.

    Args:
        form: A key of `FORMS`.
        content: Its bytes.
        folder: A folder for it and what lies beside it.

    Returns:
        How it ended, the sentence or None, and the seconds that it took.
    """
    _, place, prepare, open_it = FORMS[form]
    path = pathlib.Path(folder, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if prepare is not None:
        prepare(path)
    before, began = _listed(folder), time.monotonic()
    ending, sentence = "loaded", None
    try:
        open_it(path)
    except (ValueError, OSError) as error:
        ending, sentence = "refused", str(error)
    seconds = time.monotonic() - began
    assert seconds < LONGEST_SECONDS, f"{form}: {seconds} s"
    assert _listed(folder) == before, f"{form}: something was written"
    if sentence is not None:
        assert "\n" not in sentence and sentence.endswith("."), sentence
        assert len(sentence) < _LONGEST_SENTENCE, sentence
        assert str(folder) in sentence, sentence
    return ending, sentence, seconds


def _listed(folder):
    files = [file for file in pathlib.Path(folder).rglob("*") if file.is_file()]
    return {file: file.stat().st_size for file in files}


def damaged(content):
    """Some bytes changed, left out, doubled, or cut off."""
    # Spread evenly: of numbers up to a bound hypothesis prefers the ends.
    places = st.integers(0, 10**9).map(lambda n: n % max(1, len(content)))
    changes = st.lists(
        st.tuples(places, st.sampled_from(_WAYS), _BYTE).map(list),
        min_size=1,
        max_size=3,
    )

    def apply(changes):
        changed = bytearray(content)
        for place, how, value in changes:
            if how == "set":
                changed[place : place + 1] = bytes([value])
            elif how == "cut":
                del changed[max(place, 1) :]
            elif how == "drop":
                del changed[place : place + value]
            else:
                changed[place:place] = changed[place : place + value]
        return bytes(changed)

    return changes.map(apply)


_BYTE = st.integers(0, 255)
_WAYS = ["set", "set", "set", "drop", "double", "cut"]

# What a header, or a JSON file, may say in the place of something sensible.
_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-3, 2**40), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def _npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


_DTYPES = st.sampled_from(
    [
        "u1",
        "i1",
        "i8",
        "u8",
        "f2",
        "f4",
        "f8",
        "g",
        "F",
        "?",
        "S3",
        "U2",
        "V4",
        "O",
        "M8[s]",
        "u1,f4",
        ">f4",
        "S0",
    ]
)
_ARRAYS = st.builds(
    lambda dtype, shape: _npy(np.zeros(shape, dtype)),
    _DTYPES,
    st.lists(st.integers(0, 5), max_size=5).map(tuple),
)


@st.composite
def _headers(draw):
    """An .npy file whose header says anything, its content a few bytes."""
    fields = {
        "descr": draw(st.one_of(_ODD, _DTYPES)),
        "fortran_order": draw(st.one_of(st.booleans(), _ODD)),
        "shape": draw(
            st.one_of(_ODD, st.lists(st.integers(0, 2**63), max_size=4))
        ),
    }
    if isinstance(fields["shape"], list) and draw(st.booleans()):
        fields["shape"] = tuple(fields["shape"])
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=1)):
        del fields[name]
    text = draw(st.one_of(st.just(repr(fields)), st.text(max_size=60)))
    text = draw(st.sampled_from([text, "(" * 500, "-" * 5000, "[" * 9000]))
    text = text.encode("latin1", "replace")
    version = draw(st.sampled_from([1, 1, 1, 2, 3, 9]))
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + b"\0" * 40


@st.composite
def _archives(draw, keys, good):
    """An .npz file, some of its members odd, absent or of another name."""
    file = io.BytesIO()
    method = draw(st.sampled_from([0, 8, 8, 12, 14]))
    odd = draw(st.sets(st.sampled_from(keys), max_size=2))
    with zipfile.ZipFile(file, "w", method) as archive:
        for key in keys:
            content = _npy(good[key])
            if key in odd:
                content = draw(
                    st.one_of(
                        _headers(), _ARRAYS, damaged(content), st.just(None)
                    )
                )
            if content is not None:
                archive.writestr(f"{key}.npy", content)
        if draw(st.integers(0, 9)) == 0:
            with warnings.catch_warnings(action="ignore"):
                archive.writestr(f"{keys[0]}.npy", bytes(2**20))
    content = file.getvalue()
    return draw(st.one_of(st.just(content), damaged(content)))


_SET = {
    "x_train": _IMAGES,
    "y_train": _LABELS,
    "x_test": _IMAGES[:3],
    "y_test": _LABELS[:3],
}
_POOL = {
    "image": _IMAGES,
    "label": _LABELS,
    "labeled_by": np.array("a run"),
    "mean_confidence": np.float32(0.5),
}
_PIECE = {"logits": np.zeros([4, 3], np.float32), "rows": np.arange(4)}


@st.composite
def _pictures(draw):
    """An image of any format, kind and size that its header may say."""
    kind = draw(
        st.sampled_from(
            ["L", "RGB", "P", "1", "RGBA", "CMYK", "I;16", "LA", "F"]
        )
    )
    form = draw(
        st.sampled_from(
            ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "EPS", "PPM"]
        )
    )
    image = Image.new("RGB" if form == "EPS" else kind, (4, 4), 1)
    file = io.BytesIO()
    try:
        image.save(file, form)
    except (OSError, KeyError, ValueError):
        Image.new("L", (4, 4)).save(file, "PNG")
    content = file.getvalue()
    if content[1:4] == b"PNG" and draw(st.booleans()):
        # Width and height as a header may say them, and their checksum.
        side = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 10_000))
        sizes = draw(st.tuples(side, side))
        sides = b"".join(size.to_bytes(4, "big") for size in sizes)
        content = content[:16] + sides + content[24:]
        checksum = zlib.crc32(content[12:29]).to_bytes(4, "big")
        content = content[:29] + checksum + content[33:]
    return draw(st.one_of(st.just(content), damaged(content)))


@st.composite
def _pickles(draw):
    """Operations of a pickle in any order, or a good one that is damaged."""
    protocol = draw(st.integers(0, 5))
    array = draw(st.sampled_from([_LABELS, _LABELS, _IMAGES, "text"]))
    good = pickle.dumps(
        {"data": _IMAGES, "extrapolated_targets": array, "k": [(1, {2: "a"})]},
        protocol,
    )
    operations = st.sampled_from(_OPERATIONS)
    some = st.lists(operations, max_size=40).map(b"".join)
    return draw(
        st.one_of(damaged(good), some.map(lambda parts: parts + b"."), some)
    )


_OPERATIONS = [
    *(bytes([code]) for code in b"()]}0aebhjlqrsu12345679\x85\x86\x87\x88\x8f"),
    *(
        b"\x90",
        b"\x91",
        b"\x92",
        b"\x93",
        b"\x94",
        b"\x97",
        b"\x98",
        b"N",
        b"R",
    ),
    *(b"K\x01", b"h\x00", b"q\x00", b"r\xff\xff\xff\x0f", b"X\x04\0\0\0data"),
    *(b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n"),
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"cos\nsystem\n",
    *(b"\x8e\xff\xff\xff\xff\xff\0\0\0", b"\x95\xff\xff\xff\xff\xff\0\0\0"),
    *(
        b"X\x06\0\0\0latin1",
        b"X\x02\0\0\0u1",
        b"X\x05\0\0\0U9999",
        b"b",
        b"\x81",
    ),
]


@st.composite
def _json(draw, good):
    """A JSON file with values that are none, or damaged."""
    value = json.loads(json.dumps(good))
    at = value
    while True:
        key = draw(st.sampled_from(sorted(at)))
        if isinstance(at[key], dict) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        if draw(st.booleans()):
            at[key] = draw(_ODD)
        else:
            del at[key]
        break
    text = json.dumps(value)
    if draw(st.integers(0, 19)) == 0:
        text = "[" * 100_000
    content = text.encode()
    return draw(st.one_of(st.just(content), damaged(content)))


_RUN = {
    "format": record.FORMAT,
    "created": "now",
    "config": {"dataset": "digits", "workdir": "run", "epochs": 3},
    "facts": {
        "policy": "float32",
        "image_shape": [8, 8, 1],
        "num_classes": 10,
        "class_names": [],
        "files": {},
    },
}
_REPORT = {
    **dict.fromkeys(saved.schema()["required"], {}),
    "schema_version": saved.SCHEMA_VERSION,
    "natural": {"accuracy": 0.5},
    "attacks": [{"accuracy": 0.5}],
    "worst_case": {"accuracy": 0.5},
}
_SUBSET = b"""# dataset: digits
# training images: 20
# rows below: 30
# picked by: a run
row,label,predicted
2,1,0
7,0,1
29,2,1
"""
_METRICS = b"epoch,loss,best\n1,0.5,1\n2,0.4,1\n"


def _beside(path):
    """The good images among which a bad one lies."""
    for name in ("cat", "dog"):
        for number in range(2):
            other = path.parents[1] / name / f"{number}.png"
            other.parent.mkdir(exist_ok=True)
            Image.fromarray(_IMAGES[number]).save(other)


def _open_run(path):
    workdir.trained(path.parent)
    config = run_config.Config(
        dataset="digits", workdir=str(path.parent), epochs=3
    )
    workdir.prepare(config.resolved())


def _finished_epoch(path):
    folder = path.parent / "checkpoints"
    folder.mkdir(exist_ok=True)
    (folder / "ckpt-1.sha256").write_text("0")


# By kind of file: its contents, its name, what lies beside it, what opens it.
FORMS = {
    "npz": (
        _archives(sorted(_SET), _SET),
        "data.npz",
        None,
        lambda path: data.load(f"npz:{path}"),
    ),
    "npz pool": (
        _archives(sorted(_POOL), _POOL),
        "pool.npz",
        None,
        lambda path: data.load_pool(f"npz:{path}").describe(),
    ),
    "piece": (
        _archives(sorted(_PIECE), _PIECE),
        "piece.npz",
        None,
        lambda path: archives.read(path),
    ),
    "pickle": (
        _pickles(),
        "pool.pickle",
        None,
        lambda path: data.load_pool(f"pickle:{path}").describe(),
    ),
    "image": (
        _pictures(),
        "set/cat/z.png",
        _beside,
        lambda path: data.load(f"folder:{path.parents[1]}:size=8"),
    ),
    "run": (_json(_RUN), "run/run.json", _finished_epoch, _open_run),
    "report": (_json(_REPORT), "report.json", None, saved.load),
    "subset": (damaged(_SUBSET), "wrong.csv", None, subsets.read),
    "metrics": (
        damaged(_METRICS),
        "metrics.csv",
        None,
        lambda path: history.read(path.parent),
    ),
}
