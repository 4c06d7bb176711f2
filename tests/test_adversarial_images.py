"""The adversarial images that an evaluation keeps, as their user reads them."""

import contextlib
import json
import math
import os
import shutil

import keras
import numpy as np
import pytest
import trained

import mart_tf

_THREAT = mart_tf.ThreatModel(epsilon=0.1)
_ATTACKS = (
    "pgd:steps=3:restarts=2",
    "autoattack:version=custom:attacks=apgd_ce+square",
    "transfer:fgsm",
    "cw_l2:binary_search_steps=2:max_iterations=10"
    ":learning_rate=0.1:radius=0.5",
)
_FILES = (
    "pgd_steps=3_restarts=2",
    "autoattack_version=custom_attacks=apgd_ce+square",
    "transfer_fgsm",
    "cw_l2_binary_search_steps=2_max_iterations=10"
    "_learning_rate=0.1_radius=0.5",
)


def _linear(seed):
    model, images, labels = trained.on_digits(
        seed, lambda: [keras.layers.Flatten()], 1000, rate=0.05, epochs=3
    )
    return model, (images[1400:1460], labels[1400:1460])


@pytest.fixture(scope="module")
def digits():
    return _linear(0)


def _evaluate(digits, directory, **settings):
    model, data = digits
    return mart_tf.evaluate_robustness(
        model,
        data,
        _THREAT,
        _ATTACKS,
        batch_size=20,
        surrogate=_linear(1)[0],
        epsilon_sweep=[0.05],
        directory=directory,
        **settings,
    )


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    return directory, _evaluate(digits, directory, save_adversarial=True)


def _files(directory):
    return {
        path.stem: dict(np.load(path))
        for path in (directory / "adversarial").iterdir()
    }


class TestFiles:
    def test_there_is_one_for_each_attack_and_one_of_the_worst_case(
        self, saved
    ):
        directory, _ = saved
        assert sorted(_files(directory)) == sorted([*_FILES, "worst_case"])
        assert not (directory / "partial").exists()
        assert not [p for p in directory.iterdir() if p.name[0] == "."]

    def test_the_model_sees_in_them_what_the_report_says(self, saved, digits):
        directory, report = saved
        model, (images, labels) = digits
        for name, attack in zip(_FILES, _ATTACKS, strict=True):
            file = _files(directory)[name]
            assert file["attack"] == attack
            assert file["image"].dtype == np.float32
            np.testing.assert_array_equal(file["label"], labels)
            seen = model.predict(file["image"], verbose=0).argmax(axis=1)
            np.testing.assert_array_equal(file["prediction"], seen)
            broken = ~report.outcomes[attack]
            np.testing.assert_array_equal(file["broken"], broken)
            assert broken.any() and not broken.all()
            natural = report.outcomes["natural"]
            assert not natural.all()
            np.testing.assert_array_equal(
                file["image"][~natural], images[~natural]
            )
            offset = file["image"] - images
            if file["norm"] == "l2":
                lengths = np.linalg.norm(offset.reshape(60, -1), axis=1)
                assert file["epsilon"] == 0.5
                near = lengths <= 0.5
                np.testing.assert_array_equal((seen != labels) & near, broken)
            else:
                np.testing.assert_array_equal(seen != labels, broken)
                assert file["epsilon"] == 0.1
                assert np.abs(offset).max() <= 0.1 + 1e-6
                assert 0 <= file["image"].min() <= file["image"].max() <= 1

    def test_the_worst_case_holds_the_first_that_broke_each(
        self, saved, digits
    ):
        directory, report = saved
        model, (_, labels) = digits
        files = _files(directory)
        worst = files["worst_case"]
        np.testing.assert_array_equal(
            worst["broken"], ~report.worst_case.outcome
        )
        seen = model.predict(worst["image"], verbose=0).argmax(axis=1)
        np.testing.assert_array_equal(seen != labels, worst["broken"])
        for row in range(60):
            breaking = [n for n in _FILES[:3] if files[n]["broken"][row]]
            name = (breaking or _FILES[2:3])[0]
            np.testing.assert_array_equal(
                worst["image"][row], files[name]["image"][row]
            )

    def test_the_report_is_the_same_without(self, saved, digits, tmp_path):
        directory, report = saved
        # Those of an earlier evaluation, which is another one's report now.
        shutil.copytree(directory / "adversarial", tmp_path / "adversarial")
        without = _evaluate(digits, tmp_path)
        assert not (tmp_path / "adversarial").exists()
        for name, outcome in without.outcomes.items():
            np.testing.assert_array_equal(outcome, report.outcomes[name])

    @pytest.mark.parametrize("saving", [False, True])
    def test_files_of_somebody_else_stay(self, saved, digits, tmp_path, saving):
        """Such as a package of this name, in the folder of the report."""
        directory, _ = saved
        folder = tmp_path / "adversarial"
        folder.mkdir()
        (folder / "my_module.py").write_text("mine = 1")
        np.savez(folder / "mine.npz", image=np.zeros(3))
        (folder / "no_archive.npz").write_text("mine too")
        shutil.copy(directory / "adversarial" / "worst_case.npz", folder)
        os.rename(folder / "worst_case.npz", folder / "earlier.npz")
        _evaluate(digits, tmp_path, save_adversarial=saving)
        written = sorted(path.name for path in folder.iterdir())
        made = [*_FILES, "worst_case"] if saving else []
        assert written == sorted(
            ["my_module.py", "mine.npz", "no_archive.npz"]
            + [f"{name}.npz" for name in made]
        )
        assert (folder / "no_archive.npz").read_text() == "mine too"

    def test_those_of_before_stay_where_no_report_is_written(
        self, digits, tmp_path
    ):
        model, data = digits

        def evaluate(attack):
            mart_tf.evaluate_robustness(
                model,
                data,
                _THREAT,
                attack,
                directory=tmp_path,
                save_adversarial=True,
            )

        evaluate("fgsm")
        (tmp_path / "report.html").unlink()
        (tmp_path / "report.html").mkdir()
        with pytest.raises(OSError, match="report.html"):
            evaluate("square:queries=5")
        assert sorted(_files(tmp_path)) == ["fgsm", "worst_case"]
        (tmp_path / "report.html").rmdir()
        evaluate("square:queries=5")
        assert sorted(_files(tmp_path)) == ["square_queries=5", "worst_case"]

    def test_those_of_an_evaluation_that_goes_on_without_go(
        self, digits, tmp_path, pieces_left
    ):
        pieces_left[0] = 3
        with pytest.raises(KeyboardInterrupt):
            _evaluate(digits, tmp_path, save_adversarial=True)
        assert (tmp_path / ".adversarial.partial").exists()
        pieces_left[0] = math.inf
        _evaluate(digits, tmp_path)
        assert not (tmp_path / ".adversarial.partial").exists()

    def test_a_directory_is_needed(self, digits):
        with pytest.raises(ValueError, match="expected both"):
            _evaluate(digits, None, save_adversarial=True)


class TestStoppedEvaluations:
    def test_end_with_the_same_images(
        self, saved, digits, tmp_path, pieces_left
    ):
        directory, _ = saved
        pieces_left[0] = 4
        # Pieces without images are no help to an evaluation that keeps them.
        with pytest.raises(KeyboardInterrupt):
            _evaluate(digits, tmp_path)
        old = tmp_path / "adversarial"
        old.mkdir()
        earlier = directory / "adversarial" / "worst_case.npz"
        shutil.copy(earlier, old / "earlier.npz")
        stops = 0
        while not (tmp_path / "report.json").exists():
            assert (old / "earlier.npz").exists()
            pieces_left[0] = 3
            with contextlib.suppress(KeyboardInterrupt):
                _evaluate(digits, tmp_path, save_adversarial=True)
            stops += 1
        assert stops > 3
        whole, stopped = _files(directory), _files(tmp_path)
        assert whole.keys() == stopped.keys()
        for name, arrays in whole.items():
            if name.startswith("cw_l2"):
                # It ends on the boundary, and rounding hangs on the batch.
                continue
            for key, values in arrays.items():
                np.testing.assert_array_equal(values, stopped[name][key])
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["data"]["examples"] == 60
