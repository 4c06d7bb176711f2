"""Flag sets that nobody should give, and what a program says of them.

What `hostile_flags.py` and `tests/test_hostile_flags.py` share: a generator of
flag sets for the four programs, with numbers that overflow, paths that are
none, devices, URLs, flag files that hold themselves, and options of every
table; a place that holds what they name; and the call of a program up to where
it would import TensorFlow.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import warnings
import zipfile

from absl import flags
import hypothesis
from hypothesis import strategies as st
import numpy as np

from mart_tf import attacks
from mart_tf import cli
from mart_tf import data
from mart_tf import defenses
from mart_tf import models
from mart_tf import parameters
from mart_tf import training
from mart_tf.runs import config as run_config

PROGRAMS = ("train", "evaluate", "export", "label")

# What is said for a user has none of these: they are Python's, or another
# library's.
_NOT_OURS = ("Errno", "invalid literal", "codec", "embedded null", "Traceback")
_LONGEST_SENTENCE = 1100


def _words(text, *more):
    return [*text.split(), *more]


_NUMBERS = _words(
    """0 1 2 3 -1 0.5 1.5 8/255 1/0 0/0 1/1e-320 1e308 -1e308 1e-300 5e-324
    -0.0 nan inf -inf 1e400 0x10 1_000 1e5 abc -- 1e 2147483647 2147483648
    9223372036854775808 1000000000 99999 100000 100001 true none \uff11 \xb2""",
    "",
    " ",
    "9" * 400,
    "9" * 5000,
    "-" + "9" * 400,
    "1" + "0" * 4000,
)
_PATHS = _words(
    """. .. / ~ ~/x ~nobody_there/x /proc/x /proc/self/mem /proc/self/x /sys/x
    /dev/zero /dev/null /dev/null/x /dev/x /dev/fd/0 gs://b/x s3://b/x
    hdfs://h/x file:///x http://h/x :// file.txt file.txt/x fifo fifo/x
    loop loop/x dangling dangling/x runs runs/first runs/none new/folder #x -x
    = a:b a,b ,a model.keras broken.keras report report/report.json pool.npz
    new.npz x/../../../../../../proc/y""",
    "",
    "a" * 250,
    "a" * 300,
    "a/" * 3000,
    "x\0y",
    "x\ny",
    "\udcff",
)
_FLAG_FILES = _words(
    """. / /dev/zero /dev/urandom /dev/null fifo /proc/kmsg /proc/self/mem
    /proc/kcore flags/binary flags/huge flags/self flags/bomb0 flags/latin
    flags/zero flags/bom flags/words flags/good flags/many digits_mart
    digits_matr flags/nowhere""",
    "",
    "~",
    "a" * 300,
)
_TEXTS = _words(
    """linf l2 l3 logits best last none uniform auto single step off float32
    tf32 10min 500steps 0steps 1e9min 999999999min 999999999steps fgsm
    natural transfer:fgsm digits mnist digits:x=1 folder:/dev/zero npz:fifo
    npz:pool.npz npz:/dev/zero npz:~/x folder:. pickle:pool.npz
    serving_default"""
)
# What a flag may well be.
_GOOD = {
    "attack_step_size": ["1/100"],
    "attacks": ["fgsm", "pgd:steps=2", "square:queries=3,fgsm"],
    "checkpoint": ["last"],
    "class_names": ["a,b,c,d,e,f,g,h,i,j"],
    "compare": ["report"],
    "data_dir": ["."],
    "dataset": ["digits"],
    "defense": ["trades", "natural", "mma"],
    "directory": ["~/versions", "versions"],
    "epsilon": ["8/255", "0.1"],
    "epsilon_sweep": ["0.1,8/255"],
    "init_from": ["none", "runs/first"],
    "learning_rate": ["1/100"],
    "max_examples": ["20"],
    "model": ["digits_cnn", "cnn4", "wide_resnet:depth=10:width=1"],
    "norm": ["linf"],
    "outputs": ["logits"],
    "output": ["there", "~/there", "pool2.npz"],
    "optimizer": ["adam", "sgd:nesterov=true"],
    "pixel_max": ["1", "255"],
    "pixel_min": ["0"],
    "pool": ["npz:pool.npz"],
    "precision": ["float32"],
    "random_start": ["gaussian"],
    "schedule": ["constant"],
    "signatures": ["serving_default"],
    "strategy": ["single"],
    "subsets": ["picked"],
    "surrogate": ["runs/first"],
    "update": ["plain"],
    "warmup_batch_sizes": ["1,2", ""],
    "workdir": ["runs/first"],
    "xla": ["off"],
    "checkpoint_every": ["1steps"],
}
_TABLES = {
    "attacks": attacks.ATTACKS,
    "dataset": data.SOURCES,
    "defense": defenses.DEFENSES,
    "model": models.MODELS,
    "optimizer": training.OPTIMIZERS,
    "pool": data.POOLS,
    "schedule": training.SCHEDULES,
    "update": training.UPDATES,
}
_PATH_FLAGS = _words(
    """compare data_dir directory init_from model output subsets surrogate
    workdir"""
)


def _program(name):
    return importlib.import_module(f"mart_tf.{name}")


def _numbers():
    fractions = st.tuples(st.integers(), st.integers()).map(
        "{0[0]}/{0[1]}".format
    )
    return st.one_of(
        st.sampled_from(_NUMBERS),
        st.integers(-10, 1000).map(str),
        st.integers().map(str),
        st.floats().map(repr),
        st.floats(0, 1).map(repr),
        fractions,
    )


def _texts():
    return st.one_of(
        st.sampled_from(_TEXTS),
        st.text(max_size=20),
        st.just("x" * 100_000),
    )


@st.composite
def _specs(draw, table):
    """A name of a table, with options it has, and some that it has not."""
    name = draw(st.sampled_from(sorted(table)))
    keys = ["seed", "path", *parameters.of(table[name])]
    parts = [name]
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(keys) | st.text(max_size=5))
        value = draw(_numbers() | st.sampled_from(_PATHS) | _texts())
        parts.append(draw(st.sampled_from([f"{key}={value}", value, ""])))
    return ":".join(parts)


def _values(name):
    """Values of a flag: of its kind more often than of any other."""
    some = [_numbers(), _texts(), st.sampled_from(_PATHS)]
    if name == "flagfile":
        some = [st.sampled_from(_FLAG_FILES)]
    elif name in _TABLES:
        specs = _specs(_TABLES[name])
        lists = st.lists(specs, max_size=3).map(",".join)
        some += [specs, specs, lists]
    elif name in _PATH_FLAGS:
        some += [st.sampled_from(_PATHS)] * 3
    return st.one_of(some)


@st.composite
def flag_sets(draw, program, most=4):
    """Arguments of a program, hostile or not."""
    names = sorted(_program(program).FLAGS)
    arguments = []
    for _ in range(draw(st.integers(1, most))):
        name = draw(st.sampled_from(names))
        good = _GOOD.get(name, ["1", "2", "true"])
        value = draw(st.sampled_from(good) | _values(name))
        form = draw(st.sampled_from("============  -n?!"))
        arguments += {
            "=": [f"--{name}={value}"],
            " ": [f"--{name}", value],
            "-": [f"-{name}={value}"],
            "n": [f"--no{name}"],
            "?": [f"--{name}"],
            "!": [value],
        }[form]
    return arguments


def make_place(folder):
    """Fills a folder with what the flags name: a run, and traps."""
    folder = pathlib.Path(folder)
    for name in ("runs/first/checkpoints", "flags", "home", "report"):
        (folder / name).mkdir(parents=True)
    config = dataclasses.asdict(
        run_config.Config(workdir="runs/first").resolved()
    )
    facts = {
        "policy": "float32",
        "image_shape": [8, 8, 1],
        "num_classes": 10,
        "class_names": list("0123456789"),
        "parameters": 99178,
        "files": {},
    }
    run = {"format": 1, "config": config, "facts": facts}
    (folder / "runs/first/run.json").write_text(json.dumps(run))
    (folder / "runs/first/checkpoints/ckpt-1.sha256").write_text("")
    (folder / "file.txt").write_text("text")
    (folder / "broken.keras").write_text("PK\x03\x04")
    (folder / "report/report.json").write_text("[")
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    np.savez(folder / "pool.npz", image=np.zeros([9, 8, 8, 1], np.uint8))
    traps = {
        "binary": os.urandom(1000),
        "huge": b"#" * 2**21,
        "self": b"--flagfile=flags/self\n",
        "latin": b"--workdir=caf\xe9\n",
        "zero": b"--workdir=a\0b\n",
        "bom": b"\xef\xbb\xbf--seed=1\n",
        "words": b"This is no file of flags.\n",
        "good": b"# Good.\n\n// Very.\n--verbosity=0\n",
        "many": b"--verbosity=0\n" * 20_000,
    }
    for level in range(30):
        line = f"--flagfile=flags/bomb{level + 1}\n"
        traps[f"bomb{level}"] = line.encode() * 10
    for name, content in traps.items():
        (folder / "flags" / name).write_bytes(content)


def listed(folder):
    """All that lies in a folder, but what libraries keep in a home."""
    paths = set()
    for place, folders, files in os.walk(folder):
        if place.endswith("/home"):
            folders[:] = [f for f in folders if not f.startswith(".")]
        paths |= {os.path.join(place, name) for name in (*folders, *files)}
    return paths


def told(program, arguments):
    """What a program says of flags before TensorFlow; "" where it goes on.

    Raises:
        AssertionError: If it is not one sentence of ours, or something was
            written.
    """
    module = _program(program)
    for name in module.FLAGS:
        module.FLAGS[name].unparse()
    before = listed(".")
    said = ""
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as nothing,
            contextlib.redirect_stdout(nothing),
        ):
            warnings.simplefilter("error")
            cli.parse(f"mart-{program}", module.FLAGS, arguments)
            if not module.FLAGS.help:
                module.checked()
    except (flags.Error, ValueError, OSError) as error:
        said = cli.told(error)
        assert said, repr(error)
    assert listed(".") == before, "Something was written."
    check_sentence(said)
    return said


def check_sentence(said):
    """Asserts that what is said is one sentence of ours, or nothing."""
    assert "\n" not in said and len(said) < _LONGEST_SENTENCE, said
    assert not said or said[-1] in ".?)", said
    assert not any(words in said for words in _NOT_OURS), said


@contextlib.contextmanager
def standing_in(folder):
    """Makes a place in a folder, and stands there, at home in it."""
    make_place(folder)
    before, home = os.getcwd(), os.environ.get("HOME")
    os.chdir(folder)
    os.environ["HOME"] = os.path.join(folder, "home")
    try:
        yield
    finally:
        os.chdir(before)
        del os.environ["HOME"]
        if home is not None:
            os.environ["HOME"] = home


def settings(examples):
    """Hypothesis's, for a generator and no search for small examples."""
    return hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
