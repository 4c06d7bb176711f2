"""The label program, as a user calls it."""

import json
import os
import re
import shlex
import shutil

import numpy as np
import programs
import pytest
import small_runs
import tiny_tfds

from mart_tf import data
from mart_tf.labeling import subsets
from mart_tf.runs import workdir


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder whose `runs/first` is a run of one natural epoch on digits."""
    place = tmp_path_factory.mktemp("place")
    done = programs.run(
        "train",
        "--defense=natural",
        "--epochs=1",
        "--workdir=runs/first",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    images = np.random.default_rng(0).random([300, 8, 8], np.float32)
    np.savez(place / "images.npz", image=images)
    return place


def predictions(place, images):
    classifier, epoch, _ = workdir.load_classifier(place / "runs" / "first")
    assert epoch == 1
    return classifier.predict(images, verbose=0).argmax(1)


def class_counts(line):
    """The numbers of "Classes: 0 12, 1 7"."""
    return [int(count) for count in re.findall(r" (\d+)(?:,|$)", line)]


class TestSubsets:
    @pytest.fixture(scope="class")
    @classmethod
    def answer(cls, place):
        answer = programs.run("label", "--subsets=chosen", cwd=place)
        assert answer.returncode == 0, answer.stderr
        return answer

    def test_says_what_it_does_and_wrote(self, answer, place):
        lines = answer.stdout.splitlines()
        assert lines[0] == "Labelling with the newest run, runs/first"
        wrong = subsets.read(place / "chosen" / "wrong.csv")
        assert lines[1] == (
            f"runs/first, best weights, epoch 1 misclassifies {len(wrong)} of "
            "the 1,294 training images of digits"
        )
        assert lines[2] == "Wrote chosen/wrong.csv: all of these"
        counts = class_counts(lines[3])
        assert counts == np.bincount(wrong.labels, minlength=10).tolist()
        assert lines[4].startswith("Wrote chosen/right.csv: as many")
        assert lines[6] == "Train with them:"
        assert lines[7].startswith("  mart-train --dataset=")
        assert answer.stderr == ""

    def test_picks_on_the_training_split_of_the_run(self, answer, place):
        split = data.load("digits").train
        images, labels = data.arrays(split)
        predicted = predictions(place, images)
        mistakes = split.indices[predicted != labels]
        assert len(mistakes) > 0
        wrong, right = (
            subsets.read(place / "chosen" / name)
            for name in ("wrong.csv", "right.csv")
        )
        assert wrong.rows.tolist() == mistakes.tolist()
        assert not np.isin(right.rows, mistakes).any()
        assert len(right) == len(wrong)
        assert wrong.picked_by == "runs/first, best weights, epoch 1"
        for part in (wrong, right):
            assert part.dataset == "digits"
            assert part.images == len(split)

    def test_the_command_that_it_gives_trains(self, answer, place):
        lines = answer.stdout.splitlines()
        line = lines[lines.index("Train with them:") + 1]
        program, *flags = shlex.split(line)
        assert program == "mart-train"
        done = programs.run(
            "train",
            *flags,
            "--workdir=runs/second",
            "--epochs=1",
            "--attack_steps=1",
            "--init_from=runs/first",
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
        assert "Initialised from runs/first, best weights" in done.stdout

    def test_training_on_other_data_is_refused(self, answer, place, tmp_path):
        images = np.random.default_rng(0).random([40, 8, 8], np.float32)
        labels = np.arange(40) % 10
        np.savez(
            tmp_path / "other.npz",
            x_train=images,
            y_train=labels,
            x_test=images,
            y_test=labels,
        )
        file = place / "chosen" / "wrong.csv"
        done = programs.run(
            "train",
            "--dataset=npz:other.npz",
            "--model=digits_cnn",
            f"--defense=subset:file={file}",
            "--batch_size=4",
            "--epochs=1",
            cwd=tmp_path,
        )
        programs.assert_refused(done, "is of digits, with 1294 training images")
        assert os.listdir(tmp_path) == ["other.npz"]

    def test_is_not_repeated_over_the_first(self, answer, place):
        before = (place / "chosen" / "wrong.csv").read_bytes()
        again = programs.run("label", "--subsets=chosen", cwd=place)
        programs.assert_refused(again, "chosen exists already")
        assert (place / "chosen" / "wrong.csv").read_bytes() == before


class TestPool:
    @pytest.fixture(scope="class")
    @classmethod
    def answer(cls, place):
        answer = programs.run(
            "label",
            "--workdir=runs/first",
            "--pool=npz:images.npz",
            "--output=pool.npz",
            "--checkpoint=last",
            "--batch_size=64",
            cwd=place,
        )
        assert answer.returncode == 0, answer.stderr
        return answer

    def test_labels_every_image_once(self, answer, place):
        with np.load(place / "images.npz") as archive:
            images = archive["image"][..., None]
        with np.load(place / "pool.npz", allow_pickle=False) as archive:
            np.testing.assert_array_equal(archive["image"], images)
            np.testing.assert_array_equal(
                archive["label"], predictions(place, images)
            )
            assert archive["labeled_by"] == "runs/first, last weights, epoch 1"
        pool = data.load_pool(f"npz:{place / 'pool.npz'}")
        assert pool.labeled_by == "runs/first, last weights, epoch 1"

    def test_says_what_it_wrote(self, answer, place):
        lines = answer.stdout.splitlines()
        assert lines[0].startswith("Wrote npz:pool.npz: 300 images of 8x8x1")
        assert "runs/first, last weights, epoch 1" in lines[0]
        labels = data.load_pool(f"npz:{place / 'pool.npz'}").labels
        counts = class_counts(lines[1])
        assert counts == np.bincount(labels, minlength=10).tolist()
        assert lines[2:] == [
            "Train with it:",
            "  mart-train --dataset=digits --model=digits_cnn --defense=mart "
            "--pool=npz:pool.npz",
        ]
        assert answer.stderr == ""

    def test_images_of_another_shape(self, place):
        images = np.zeros([3, 9, 9], np.uint8)
        np.savez(place / "larger.npz", image=images)
        answer = programs.run(
            "label",
            "--workdir=runs/first",
            "--pool=npz:larger.npz",
            "--output=never.npz",
            cwd=place,
        )
        programs.assert_refused(answer, "(9, 9, 1)")
        assert not (place / "never.npz").exists()


def test_a_network_that_gives_all_images_one_class(tmp_path):
    images, _ = small_runs.pool_arrays()
    np.savez(tmp_path / "images.npz", image=images)
    (tmp_path / "networks.py").write_text(
        "import keras\n"
        "def stuck(input_shape, num_classes):\n"
        "    dense = keras.layers.Dense(num_classes)\n"
        "    network = keras.Sequential(\n"
        "        [keras.Input(input_shape), keras.layers.Flatten(), dense]\n"
        "    )\n"
        "    dense.bias.assign(99.0 * keras.ops.one_hot(3, num_classes))\n"
        "    return network\n"
    )
    done = programs.run(
        "train",
        "--model=networks:stuck",
        *("--defense=natural", "--epochs=1", "--learning_rate=1e-5"),
        "--workdir=runs/stuck",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    done = programs.run(
        "label",
        *("--workdir=runs/stuck", "--allow_code"),
        *("--pool=npz:images.npz", "--output=pool.npz"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    share = np.mean(data.load("digits").train.labels == 3)
    assert done.stderr == (
        "mart-label: Warning: runs/stuck gives 300 of the 300 images of the "
        f"pool the class 3, which {share:.1%} of its training images have; "
        "expected labels that are spread about as theirs: see whether the "
        "network has learned (mart-evaluate --workdir=runs/stuck) and whether "
        "these images are like those that it was trained on, and label again "
        "before you train with them.\n"
    )
    assert (tmp_path / "pool.npz").exists()


def test_rows_of_one_set_are_data_and_pool(tmp_path):
    tiny_tfds.prepare(
        tmp_path, train=tiny_tfds.examples(50), test=tiny_tfds.examples(20)
    )
    (tmp_path / "networks.py").write_text(
        "import keras\n"
        "def linear(input_shape, num_classes):\n"
        "    return keras.Sequential([\n"
        "        keras.Input(input_shape),\n"
        "        keras.layers.Flatten(),\n"
        "        keras.layers.Dense(num_classes),\n"
        "    ])\n"
    )
    done = programs.run(
        "train",
        "--dataset=tiny:count=30",
        f"--data_dir={tmp_path}",
        "--model=networks:linear",
        "--defense=natural",
        "--epochs=1",
        "--batch_size=9",
        "--workdir=runs/labeler",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "tiny: 27 training, 3 validation, 20 test images" in done.stdout

    def label(pool):
        return programs.run(
            "label",
            "--workdir=runs/labeler",
            "--allow_code",
            f"--pool={pool}",
            "--output=pool.npz",
            cwd=tmp_path,
        )

    for pool in ("tiny", "tiny:first=29:count=5"):
        programs.assert_refused(label(pool), "the training set of runs/labeler")
    programs.assert_refused(
        label("tiny:split=test:first=5"),
        "holds 15 of the 20 images of the test split of tiny",
    )
    assert not (tmp_path / "pool.npz").exists()
    done = label("tiny:first=30:count=20")
    assert done.returncode == 0, done.stderr
    assert "20 images of 5x4x1, with labels by runs/labeler" in done.stdout


def changed(run, section, name, value):
    """Writes a run.json that says another thing."""
    file = run / "run.json"
    record = json.loads(file.read_text("utf-8"))
    record[section][name] = value
    del record["sha256"]
    file.write_text(json.dumps(record), "utf-8")


def test_a_pool_is_held_against_the_validation_split_of_the_run(
    place, tmp_path
):
    run = shutil.copytree(place / "runs" / "first", tmp_path / "run")
    changed(run, "config", "validation_images", 300)
    # Those of its 300 that are not among the tenth which is the default.
    own, usual = (
        data.load("digits", validation_images=number).validation
        for number in (300, None)
    )
    others = np.isin(own.indices, usual.indices, invert=True)
    np.savez(tmp_path / "images.npz", image=own.images[others])
    answer = programs.run(
        "label",
        *("--workdir=run", "--pool=npz:images.npz", "--output=pool.npz"),
        cwd=tmp_path,
    )
    programs.assert_refused(
        answer, "of the 300 images of the validation split of digits"
    )


def test_data_that_has_changed_since_the_run(place, tmp_path):
    run = shutil.copytree(place / "runs" / "first", tmp_path / "run")
    names = [*"012", "drei", *"456789"]
    changed(run, "facts", "class_names", names)
    answer = programs.run(
        "label", "--workdir=run", "--subsets=chosen", cwd=tmp_path
    )
    programs.assert_refused(answer, "digits is not as it was when run was")
    assert os.listdir(tmp_path) == ["run"]


class TestBadInput:
    """Exit status 1 and one sentence, before TensorFlow is imported."""

    @pytest.fixture
    def refused(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()

        def call(*arguments):
            answer = programs.run(
                "label", *arguments, cwd=folder, tensorflow=False
            )
            programs.assert_refused(answer, "mart-label: ")
            assert os.listdir(folder) == []
            return answer.stderr

        return call

    def test_neither_pool_nor_subsets(self, refused):
        assert "Expected one of --pool=SPEC" in refused()

    def test_both_pool_and_subsets(self, refused):
        message = refused("--pool=npz:a.npz", "--output=b.npz", "--subsets=c")
        assert "Expected one of --pool=SPEC" in message

    @pytest.mark.parametrize(
        "flags", [["--pool=npz:a.npz"], ["--subsets=a", "--output=b.npz"]]
    )
    def test_output_and_pool_go_together(self, refused, flags):
        assert "--output=FILE.npz together" in refused(*flags)

    def test_output_of_another_kind(self, refused):
        message = refused("--pool=npz:a.npz", "--output=pool.csv")
        assert "expected a name that ends in .npz" in message

    def test_output_exists(self, refused, place):
        message = refused(
            "--pool=npz:a.npz", f"--output={place / 'images.npz'}"
        )
        assert "exists already, and is not overwritten" in message

    def test_output_in_no_folder(self, refused):
        message = refused("--pool=npz:a.npz", "--output=absent/pool.npz")
        assert "absent is not a folder that can be written to" in message

    def test_the_folder_of_subsets_is_not_empty(self, refused, place):
        message = refused(f"--subsets={place}")
        assert f"{place} exists already" in message

    def test_no_run(self, refused):
        assert "There is no run under runs/" in refused("--subsets=a")

    def test_no_such_workdir(self, refused):
        message = refused("--workdir=absent", "--subsets=a")
        assert "absent holds no run.json" in message

    def test_no_such_pool(self, refused, place):
        run = f"--workdir={place / 'runs' / 'first'}"
        message = refused(run, "--pool=npz:absent.npz", "--output=b.npz")
        assert "absent.npz" in message

    def test_an_unknown_pool(self, refused, place):
        run = f"--workdir={place / 'runs' / 'first'}"
        message = refused(run, "--pool=mnits", "--output=b.npz")
        assert "did you mean 'mnist'" in message

    def test_a_batch_of_no_image(self, refused):
        assert "batch_size" in refused("--subsets=a", "--batch_size=0")

    def test_a_mistyped_flag(self, refused):
        assert "did you mean --subsets?" in refused("--subset=x")


def test_help_lists_the_flags(tmp_path):
    answer = programs.run("label", "--help", cwd=tmp_path, tensorflow=False)
    assert answer.returncode == 0
    for flag in ("workdir", "pool", "output", "subsets", "checkpoint"):
        assert f"  --{flag}\n" in answer.stdout
