"""Flags: what they read, between which bounds, which paths, which files."""

import importlib
import math
import os
import pathlib
import shlex

from absl import flags
import programs
import pytest

from mart_tf import bounds
from mart_tf import choices
from mart_tf import cli
from mart_tf import evaluate
from mart_tf import places
from mart_tf import resources
from mart_tf import train
from mart_tf.cli import flagfiles
from mart_tf.cli import kinds
from mart_tf.runs import config as run_config


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder, and a home in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pathlib.Path("home").mkdir()
    return tmp_path


def _parsed(*arguments):
    """The configuration that flags of mart-train say."""
    for name in train.FLAGS:
        train.FLAGS[name].unparse()
    cli.parse("mart-train", train.FLAGS, arguments)
    return train.configuration()


class TestNumbers:
    @pytest.mark.parametrize(
        "name",
        [
            "attack_step_size",
            "ema",
            "ema_warmup",
            "ema_warmup_epochs",
            "epsilon",
            "epsilon_warmup_epochs",
            "label_smoothing",
            "learning_rate",
            "pixel_max",
            "pool_fraction",
            "regularization",
            "unlabeled_weight",
            "weight_decay",
        ],
    )
    def test_a_fraction_is_a_number(self, name):
        assert getattr(_parsed(f"--{name}=8/255"), name) == 8 / 255

    @pytest.mark.parametrize("name", sorted(run_config.LIMITS))
    def test_a_flag_and_a_configuration_have_the_same_bounds(self, name):
        limit = run_config.LIMITS[name]
        for bound in (limit.least, limit.greatest):
            assert getattr(_parsed(f"--{name}={bound}"), name) == bound
            beyond = 2 * bound if bound > 0 else -1
            if beyond > limit.greatest or beyond < limit.least:
                with pytest.raises(flags.Error, match=f"--{name} is .*; exp"):
                    _parsed(f"--{name}={beyond}")
                values = {"seed": 0, name: beyond}
                with pytest.raises(ValueError, match=f"--{name} is .*; exp"):
                    run_config.Config(**values).resolved()

    @pytest.mark.parametrize(
        ("flag", "sentence"),
        [
            ("defense=mart:regularization=-1", "regularization is -1; expe"),
            ("defense=mma:max_margin=0", "max_margin is 0; .* above 0 and at"),
            ("defense=nfgsm:step=0", "nfgsm:step is 0; expected a number abo"),
            ("update=awp:gamma=0", "awp:gamma is 0; .* above 0 and at most 1"),
            ("update=awp:gamma=1.5", "awp:gamma is 1.5; expected a number ab"),
            ("update=awp:from_epoch=0", "from_epoch is 0; expected a whole n"),
            ("schedule=piecewise:at=0", "at is 0; expected a whole number fr"),
            ("schedule=piecewise:factor=-1", "factor is -1; expected a numbe"),
            ("schedule=cosine:final=2", "final is 2; expected a number from "),
            ("schedule=onecycle:peak=-1", "peak is -1; expected a number fro"),
        ],
    )
    def test_options_have_bounds_before_anything_is_loaded(
        self, flag, sentence
    ):
        with pytest.raises(ValueError, match=sentence):
            _parsed(f"--{flag}").resolved()

    @pytest.mark.parametrize("text", ["", "x", "0x1", "1.5", "１", "9" * 5000])
    def test_what_is_no_whole_number(self, text):
        with pytest.raises(ValueError, match="expected a whole number from 1 "):
            bounds.COUNT.read("--epochs", text)

    @pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "1e-300"])
    def test_what_float32_has_not(self, text):
        with pytest.raises(ValueError, match="--rate is .*; expected a number"):
            bounds.Real().read("--rate", text)

    def test_a_long_value_is_cut(self):
        with pytest.raises(ValueError, match=r"^--rate is 'x{80}'\.\.\.; "):
            bounds.Real().read("--rate", "x" * 100_000)

    @pytest.mark.parametrize(
        ("norm", "radius", "fits"),
        [
            ("linf", 1.0, True),
            ("linf", 1.0001, False),
            ("linf", 1e-7, True),
            ("linf", 1e-8, False),
            ("l2", 1e6, True),
            ("l2", 1e300, False),
            ("l2", math.inf, False),
            ("l2", math.nan, False),
        ],
    )
    def test_a_radius_moves_a_pixel_and_is_no_longer_than_images(
        self, norm, radius, fits
    ):
        if fits:
            choices.check_radius("--epsilon", radius, norm, 0, 1)
            return
        with pytest.raises(ValueError, match="--epsilon is .*; expected a rad"):
            choices.check_radius("--epsilon", radius, norm, 0, 1)

    def test_a_range_that_float32_can_divide(self):
        choices.check_pixels("low", "high", 1000, 1255)
        for low, high in [(1e8, 1e8 + 1), (0, 1e-6), (0, 1e300), (0, math.nan)]:
            with pytest.raises(ValueError, match="low is|high is"):
                choices.check_pixels("low", "high", low, high)


class TestPaths:
    def test_a_tilde_is_the_home(self, place):
        assert _parsed("--workdir=~/x").workdir == f"{place}/home/x"
        assert _parsed("--model=~/x.keras").model == f"{place}/home/x.keras"
        read = kinds.list_of(kinds.path)
        assert read("--compare", "~/a,b") == [f"{place}/home/a", "b"]

    @pytest.mark.parametrize(
        ("path", "sentence"),
        [
            ("gs://bucket/x", "is gs://bucket/x, a URL; expected a path"),
            ("file:///tmp/x", "leave out file://"),
            ("~nobody_there/x", "there is no user 'nobody_there'"),
        ],
    )
    def test_a_path_of_somewhere_else(self, path, sentence):
        with pytest.raises(flags.Error, match=sentence):
            _parsed(f"--workdir={path}")
        assert kinds.path_or_url("--directory", "gs://b/x") == "gs://b/x"

    @pytest.mark.parametrize(
        ("path", "sentence"),
        [
            ("file/x", "is a file, and no folder can be made there"),
            ("link/x", "is a file, and no folder can be made there"),
            ("/proc/x", "lies on no disk"),
            ("home/../../../../../../../../sys/x", "lies on no disk"),
            ("/dev/x", "lies on no disk"),
            ("a" * 300, "has a name of more than"),
            ("a/" * 5000, "is longer than 3796 characters"),
            ("a\0b", "no path of a folder"),
        ],
    )
    def test_a_folder_that_cannot_be_made(self, path, sentence):
        pathlib.Path("file").touch()
        os.symlink("nowhere", "link")
        before = sorted(pathlib.Path().rglob("*"))
        with pytest.raises(ValueError, match=sentence) as error:
            places.check_folder("--output", path)
        assert "name another place by --output=DIR" in str(error.value)
        assert sorted(pathlib.Path().rglob("*")) == before

    def test_a_folder_that_can_be_made(self):
        for path in ("home", "new/and/newer", "/dev/shm/mart_tf_new", "."):
            places.check_folder("--output", path)

    def test_a_pipe_or_a_device_is_not_read(self):
        os.mkfifo("pipe")
        for path in ("pipe", "/dev/zero", "/proc/self/mem", "/proc"):
            with pytest.raises(ValueError, match="neither a folder nor a file"):
                places.check_there("--model", path, "a model")
        with pytest.raises(ValueError, match="does not exist; expected a mod"):
            places.check_there("--model", "a\0b", "a model")


class TestFlagFiles:
    def _written(self, content):
        pathlib.Path("file").write_bytes(content)
        return flagfiles.expanded(["--flagfile=file", "--last"])

    def test_its_lines_stand_in_its_place(self):
        pathlib.Path("inner").write_text("--two=a b\n")
        content = (
            b"\xef\xbb\xbf# One.\r\n--one\r\n\r\n// Two.\n --flagfile=inner"
        )
        assert self._written(content) == ["--one", "--two=a b", "--last"]
        assert flagfiles.expanded(["a", "--", "--flagfile=no"]) == [
            "a",
            "--",
            "--flagfile=no",
        ]

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"--flagfile=file", "holds itself"),
            (b"--flagfile=missing", "is 'missing', which is no file"),
            (b"#" * 2**20 + b"#", "is larger than 1 MiB"),
            (b"--a=caf\xe9", "is no text in UTF-8"),
            (b"--a=\0", "holds a line break, another control character"),
            (b"# A\nepochs=3", "Line 2 of --flagfile=file is 'epochs=3'; exp"),
            (b"--a\n" * 10_001, "holds more than 10000 flags"),
        ],
    )
    def test_what_is_no_file_of_flags(self, content, sentence):
        with pytest.raises(ValueError, match=sentence):
            self._written(content)

    def test_files_that_hold_each_other_many_times(self):
        for number in range(19):
            line = f"--flagfile=file{number + 1}\n"
            pathlib.Path(f"file{number}").write_text(line * 10)
        pathlib.Path("file19").write_text("--a\n")
        with pytest.raises(ValueError, match="holds more than 10000 flags"):
            flagfiles.expanded(["--flagfile=file0"])

    @pytest.mark.parametrize("path", ["/dev/zero", "/proc/kmsg", "pipe"])
    def test_a_device_is_not_read(self, path):
        os.mkfifo("pipe")
        with pytest.raises(ValueError, match="neither a folder nor a file on"):
            flagfiles.expanded([f"--flagfile={path}"])

    @pytest.mark.parametrize("text", ["--a=\n", "--a=\x1b[0m", "--a=\udcff"])
    def test_what_could_not_be_written_into_one(self, text):
        with pytest.raises(ValueError, match="expected one line of text"):
            flagfiles.expanded([text])


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("--augment=crop,flip", "crop:padding=4,flip:probability=0.5"),
        (
            "--augment=flip,crop:padding=2",
            "flip:probability=0.5,crop:padding=2",
        ),
        ("--augment=none", "none"),
    ],
)
def test_what_augment_takes(argument, names):
    assert _parsed(argument).resolved().augment == names


class TestSentences:
    @pytest.mark.parametrize(
        ("argument", "sentence"),
        [
            (
                "--epochs=x",
                "--epochs is 'x'; expected a whole number from 1 to",
            ),
            ("--download=maybe", "--download is 'maybe'; expected true or fal"),
            ("--nodownload=1", "--nodownload=1 does not take an argument; exp"),
            (f"--{'x' * 5000}", "There is no flag --xxxx"),
            ("--epochs", "Missing value for flag --epochs; expected --flag=v"),
            ("--epsilon_warmup_epochs=1e308", "--epsilon_warmup_epochs is 1e"),
            ("--attack_steps=9999999999", "expected a whole number from 1 to"),
            ("--augment=crop,flipp", "'flipp'; did you mean 'flip'? expected"),
            ("--augment=crop,mixup", "no augmentation 'mixup': it mixes the"),
            ("--model=wide_resnet:depth=1000:width=1000", "GiB in training"),
            ("--defense=mart:regularization=1e99", "mart:regularization is 1e"),
            ("--flagfile=/dev/zero", "neither a folder nor a file on a disk"),
            ("--workdir=/proc/x", "/proc/x lies on no disk"),
            ("--workdir=s3://b/x", "a URL; expected a path of this machine"),
        ],
    )
    def test_is_said_at_once_and_nothing_is_written(
        self, place, argument, sentence
    ):
        done = programs.run("train", argument, cwd=place, tensorflow=False)
        programs.assert_refused(done, sentence)
        assert [path.name for path in place.iterdir()] == ["home"]

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (MemoryError("x"), "There is not enough memory for this; expected"),
            (OSError(28, "No space left", "a/b"), "a/b: No space left."),
            (ValueError("one\n  two"), "one two"),
            (ValueError("x" * 10_000), "x" * 500 + " ... " + "x" * 500),
            (KeyError("x"), None),
        ],
    )
    def test_of_an_error(self, error, said):
        sentence = cli.told(error)
        assert sentence == said or sentence.startswith(said)


@pytest.mark.parametrize("name", ["train", "evaluate", "export", "label"])
def test_help_fits_a_screen_and_cuts_no_word(name, monkeypatch):
    module = importlib.import_module(f"mart_tf.{name}")
    # The place of the recipes is as long as it is.
    monkeypatch.setattr(resources, "folder", lambda: None)
    text = cli._help(f"mart-{name}", module.SUMMARY, module.FLAGS)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(line.strip() for line in lines)
    assert module.SUMMARY in said
    for flag in module.FLAGS:
        # The parts of a spec may stand on two lines, whole.
        help_text = module.FLAGS[flag].help
        assert help_text.replace(" ", "") in said.replace(" ", "")
        assert {*said.split()} >= {
            word for word in help_text.split() if word.isalpha()
        }


def test_help_shows_defaults_as_flags_take_them():
    text = cli._help("mart-evaluate", "", evaluate.FLAGS)
    for default in ("default: test", "default: 250", "default: false"):
        assert f"({default})" in text
    assert "cleverhans:bim,cleverhans:mim)" in text
    assert "[]" not in text and "False" not in text


@pytest.mark.parametrize(
    "paths",
    [["runs/a"], ["lr=0.1,wd=0", "b"], ['a "b", c', "d"], ["my runs/a", "b"]],
)
def test_paths_that_a_message_names_are_read_as_these(paths):
    typed = shlex.quote(f"--workdir={places.listed(paths)}")
    [given] = shlex.split(typed)
    read = kinds.list_of(kinds.path, empty=False)
    assert read("--workdir", given.removeprefix("--workdir=")) == paths
