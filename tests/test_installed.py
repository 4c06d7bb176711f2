"""What is built, and what it does once installed, with no checkout nearby."""

import configparser
import email
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import programs
import pytest

import mart_tf
from mart_tf import resources

ROOT = programs.ROOT
FILES = (
    ".bazelrc",
    "BUILD",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "MODULE.bazel",
    "README.md",
    "SECURITY.md",
    "mkdocs.yml",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
)
SHARED = ("flags", "export", "docs", "examples")
STEM = f"mart_tf-{mart_tf.__version__}"


def run(*command, **options):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def build(kind, tree, folder):
    script = f"build_meta.build_{kind}({str(folder)!r})"
    script = f"from setuptools import build_meta; {script}"
    run(sys.executable, "-c", script, cwd=tree)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of a copy of the tree, and the wheel made from that sdist."""
    tree = tmp_path_factory.mktemp("tree")
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    for name in ("mart_tf", *SHARED):
        shutil.copytree(
            ROOT / name,
            tree / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    folder = tmp_path_factory.mktemp("dist")
    build("sdist", tree, folder)
    (sdist,) = folder.glob("*.tar.gz")
    unpacked = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, unpacked)
    (source,) = unpacked.iterdir()
    build("wheel", source, folder)
    assert not (source / "build").exists()
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def shared_files():
    return {
        path.relative_to(ROOT).as_posix()
        for folder in SHARED
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and path.name != "BUILD"
        and "__pycache__" not in path.parts
    }


class TestTheWheel:
    def test_installs_one_name(self, wheel):
        tops = {name.split("/")[0] for name in wheel.namelist()}
        assert tops == {"mart_tf", f"{STEM}.dist-info", f"{STEM}.data"}
        carried = {n for n in wheel.namelist() if n.startswith("mart_tf/")}
        modules = (ROOT / "mart_tf").rglob("*.py")
        assert carried == {
            "mart_tf/py.typed",
            "mart_tf/reports/compare.html.jinja",
            "mart_tf/reports/curves.html.jinja",
            "mart_tf/reports/parts.html.jinja",
            "mart_tf/reports/report.html.jinja",
            "mart_tf/reports/report.schema.json",
            *(path.relative_to(ROOT).as_posix() for path in modules),
        }

    def test_carries_recipes_serving_kit_and_docs(self, wheel):
        prefix = f"{STEM}.data/data/"
        carried = {
            name.removeprefix(f"{prefix}share/mart_tf/")
            for name in wheel.namelist()
            if name.startswith(prefix)
        }
        assert carried == shared_files()
        assert "flags/digits_mart.cfg" in carried

    def test_is_small(self, wheel):
        assert os.path.getsize(wheel.filename) < 700_000

    def test_brings_the_programs(self, wheel):
        text = wheel.read(f"{STEM}.dist-info/entry_points.txt").decode()
        parser = configparser.ConfigParser()
        parser.read_string(text)
        assert dict(parser["console_scripts"]) == {
            f"mart-{program}": f"mart_tf.entry:{program}"
            for program in ("train", "evaluate", "export", "label")
        }

    def test_says_what_it_needs(self, wheel):
        text = wheel.read(f"{STEM}.dist-info/METADATA").decode()
        said = email.message_from_string(text)
        assert said["Name"] == "mart-tf"
        assert set(said["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
        extras = set(said.get_all("Provides-Extra"))
        assert extras == {
            "benchmarks",
            "docs",
            "gpu",
            "litert",
            "mlflow",
            "onnx",
            "tensorboard",
            "test",
            "wandb",
        }


def test_the_sdist_carries_what_the_tree_has(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert shared_files() <= names
    assert set(FILES) <= names


def pip_install(wheel, *arguments, python=sys.executable):
    """Installs the wheel alone: nothing is downloaded."""
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    options = ["--quiet", "--no-index", "--no-deps"]
    run(*pip, "install", *options, *arguments, wheel.filename)


@pytest.fixture(scope="module")
def place(wheel, tmp_path_factory):
    """An environment with the wheel, which sees these tests' dependencies."""
    place = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", str(place))
    pip_install(wheel, python=place / "bin" / "python")
    (packages,) = place.glob("lib/python*/site-packages")
    # A .pth file is not read for the .pth files of the folders that it names:
    # a checkout that is installed there as editable stays unseen.
    seen = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(seen))
    return place


def without_checkout(**more):
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return kept | more


class TestInstalled:
    def test_programs_run_from_another_folder(self, place, tmp_path):
        def program(name, *arguments):
            return run(
                str(place / "bin" / name),
                *arguments,
                cwd=tmp_path,
                env=without_checkout(),
            )

        program(
            "mart-train",
            "--flagfile=digits_standard",
            "--epochs=2",
            "--epsilon_warmup_epochs=1",
            "--attack_steps=2",
            "--schedule=constant",
        )
        home = tmp_path / "runs" / "digits_digits_cnn_standard"
        assert "--defense=standard" in (home / "flags.cfg").read_text()
        program("mart-evaluate", "--attacks=fgsm", "--max_examples=50")
        assert (home / "evaluation" / "report.html").exists()
        program("mart-export")
        assert (home / "export" / "1" / "saved_model.pb").exists()

    def test_is_what_the_programs_run(self, place, tmp_path):
        script = "import mart_tf; print(mart_tf.__file__)"
        python = str(place / "bin" / "python")
        said = run(python, "-c", script, cwd=tmp_path, env=without_checkout())
        assert place in pathlib.Path(said.strip()).parents

    def test_help_says_where_the_recipes_lie(self, place, tmp_path):
        said = run(
            str(place / "bin" / "mart-train"),
            "--help",
            cwd=tmp_path,
            env=without_checkout(),
        )
        shared = place / "share" / "mart_tf"
        assert f"Recipes, for --flagfile=NAME: {shared / 'flags'}\n" in said
        assert f"Serving kit: {shared / 'export'}\n" in said

    def test_into_a_folder_of_its_own(self, wheel, tmp_path):
        pip_install(wheel, "--target", str(tmp_path))
        script = "from mart_tf import resources; print(resources.folder())"
        said = run(
            sys.executable,
            "-c",
            script,
            cwd=tmp_path.parent,
            env=without_checkout(PYTHONPATH=str(tmp_path)),
        )
        assert said.strip() == str(tmp_path / "share" / "mart_tf")


RECIPE = ROOT / "flags" / "digits_mart.cfg"


class TestFlagfile:
    @pytest.mark.parametrize(
        "name",
        [
            "digits_mart",
            "digits_mart.cfg",
            "./digits_mart",
            "flags/digits_mart.cfg",
            "flags/digits_mart",
        ],
    )
    def test_finds_a_recipe_by_its_name(self, name, tmp_path, monkeypatch):
        (tmp_path / "digits_mart").mkdir()
        monkeypatch.chdir(tmp_path)
        assert resources.flagfile(name) == str(RECIPE)

    def test_prefers_a_file_of_the_user(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "digits_mart").touch()
        assert resources.flagfile("digits_mart") == "digits_mart"
        assert resources.flagfile("~/digits_mart") == f"{tmp_path}/digits_mart"

    @pytest.mark.parametrize(
        "arguments",
        [["--flagfile", "digits_mart"], ["-flagfile=flags/digits_mart.cfg"]],
    )
    def test_is_read_however_it_is_written(self, arguments, tmp_path):
        # The flags of the recipe are read: only the last one is refused.
        done = programs.run("train", *arguments, "--epochs=-1", cwd=tmp_path)
        programs.assert_refused(done, "--epochs is -1; expected")

    def test_suggests_the_nearest_recipes(self, tmp_path):
        done = programs.run("train", "--flagfile=mnist_matr", cwd=tmp_path)
        programs.assert_refused(
            done,
            "mart-train: --flagfile is 'mnist_matr', which is no file; "
            "expected a file of flags or the name of a recipe in "
            f"{ROOT / 'flags'}; did you mean mnist_mart, ",
        )

    @pytest.mark.parametrize("name", ["", "runs/first/digits_mart", "flags"])
    def test_refuses_what_is_neither(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=f"--flagfile is '{name}', which"):
            resources.flagfile(name)

    def test_says_that_there_are_no_recipes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "mart_tf")
        assert resources.folder() is None
        with pytest.raises(ValueError, match="recipes of mart_tf are not inst"):
            resources.flagfile("digits_mart")
