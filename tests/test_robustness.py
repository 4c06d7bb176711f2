"""What `evaluate_robustness` makes of attacks: ensembles, surrogates, sweeps,
distances, models without gradients, and evaluations that were stopped."""

import contextlib
import json

import jsonschema
import keras
import numpy as np
import programs
import pytest
from sklearn import datasets
import tensorflow as tf
import trained

import mart_tf
from mart_tf import evaluation
from mart_tf.attacks import autoattack
from mart_tf.attacks import projected
from mart_tf.evaluation import measuring
from mart_tf.evaluation import planning
from mart_tf.reports import saved as saved_reports

_THREAT = mart_tf.ThreatModel(epsilon=0.1)
_QUICK = "autoattack:version=custom:attacks=apgd_ce+square"


def _network(seed):
    model, images, labels = trained.on_digits(
        seed,
        lambda: [
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
        ],
    )
    return model, (images[1400:1500], labels[1400:1500])


@pytest.fixture(scope="module")
def digits():
    return _network(0)


@pytest.fixture(scope="module")
def other():
    return _network(1)[0]


class TestEnsembles:
    def test_each_part_gets_what_the_earlier_left(self, digits):
        model, data = digits
        report = mart_tf.evaluate_robustness(
            model,
            data,
            _THREAT,
            "autoattack:version=custom:attacks=apgd_ce+apgd_dlr",
        )
        whole = report.results[1]
        first, second = whole.parts
        assert first.name.endswith(": apgd_ce")
        assert first.attacked == report.results[0].outcome.sum()
        assert second.attacked == first.outcome.sum()
        # Cumulative: what has fallen stays down.
        assert not (second.outcome & ~first.outcome).any()
        np.testing.assert_array_equal(whole.outcome, second.outcome)
        assert whole.seconds == first.seconds + second.seconds
        assert whole.parameters["attacks"] == ["apgd_ce", "apgd_dlr"]

    def test_standard_is_that_of_its_authors(self):
        made = autoattack.AutoAttack().on(lambda x: x, _THREAT, 10)
        assert [name for name, _ in made.parts] == [
            "apgd_ce",
            "apgd_t",
            "fab_t",
            "square",
        ]
        by_name = dict(made.parts)
        assert by_name["apgd_ce"].steps == by_name["apgd_t"].steps == 100
        assert by_name["apgd_ce"].rounds == 1
        assert by_name["apgd_t"].rounds == by_name["fab_t"].rounds == 9
        # 5,000 windows, after the stripes that each search begins with.
        assert by_name["square"].steps == 5001
        assert made.notes == ()

    def test_plus_has_the_order_of_its_authors(self):
        # Theirs: apgd-ce, apgd-dlr, fab, square, apgd-t, fab-t.
        made = autoattack.AutoAttack("plus").on(lambda x: x, _THREAT, 10)
        assert [(name, part.all_rounds) for name, part in made.parts] == [
            ("apgd_ce", 5),
            ("apgd_dlr", 5),
            ("square", 1),
            ("apgd_t", 9),
            ("fab_t", 9),
        ]
        [note] = made.notes
        assert "without the authors' untargeted FAB" in note

    def test_rand_has_the_settings_of_its_authors(self):
        # Theirs: apgd-ce and apgd-dlr, one start, eot_iter 20.
        made = autoattack.AutoAttack("rand").on(lambda x: x, _THREAT, 10)
        assert [
            (name, part.objective, part.steps, part.all_rounds, part.passes)
            for name, part in made.parts
        ] == [
            ("apgd_ce", "cross_entropy", 100, 1, 20),
            ("apgd_dlr", "dlr", 100, 1, 20),
        ]
        [note] = made.notes
        assert "by the mean of its passes" in note

    @pytest.mark.parametrize(
        ("classes", "norm", "names", "said"),
        [
            (3, "linf", ["apgd_ce", "apgd_dlr", "fab_t", "square"], "apgd_dlr"),
            (2, "linf", ["apgd_ce", "apgd_cw", "fab_t", "square"], "apgd_cw"),
            (10, "l2", ["apgd_ce", "apgd_t", "fab_t"], "Square is for linf"),
        ],
    )
    def test_falls_back_and_says_so(self, classes, norm, names, said):
        made = autoattack.AutoAttack().on(
            lambda x: x, mart_tf.ThreatModel(norm, 0.1), classes
        )
        assert [name for name, _ in made.parts] == names
        [note] = made.notes
        assert said in note

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"version": "Standard"}, "did you mean 'standard'"),
            ({"version": "custom"}, "expected version=custom:attacks="),
            ({"attacks": ("square",)}, "expected version=custom:attacks="),
            (
                {"version": "custom", "attacks": ("apgd",)},
                "attacks names 'apgd'; expected of apgd_ce",
            ),
        ],
    )
    def test_refuses(self, options, message):
        with pytest.raises(ValueError, match=message):
            autoattack.AutoAttack(**options).on(lambda x: x, _THREAT, 10)


class TestSurrogate:
    def test_the_model_itself_transfers_whole(self, digits):
        model, data = digits
        report = mart_tf.evaluate_robustness(
            model,
            data,
            _THREAT,
            "pgd:steps=5,transfer:pgd:steps=5",
            surrogate=model,
        )
        white, black = report.results[1:]
        # Crafting stops nowhere, and looks at the last iterate alone.
        assert white.accuracy <= black.accuracy < report.accuracy["natural"]
        assert black.access == "surrogate"
        assert white.access == "gradients"
        assert report.model["surrogate"]["name"] == model.name

    def test_another_model_transfers_less(self, digits, other):
        model, data = digits
        report = mart_tf.evaluate_robustness(
            model, data, _THREAT, "pgd:steps=10", surrogate=other
        )
        assert [result.name for result in report.results[1:]] == [
            "pgd:steps=10",
            "transfer:fgsm",
            "transfer:pgd:steps=10:steps_per_epsilon=4",
            "transfer:pgd:steps=20",
            "transfer:cw",
        ]
        accuracy = report.accuracy
        made = accuracy["transfer:pgd:steps=10:steps_per_epsilon=4"]
        assert accuracy["pgd:steps=10"] < made < accuracy["natural"]

    def test_the_attacks_of_table_3(self):
        # FGSM; PGD-10, named as the paper names its training attack, with
        # that one's step; PGD-20 and CW as section 4.1 tests.
        threat = mart_tf.ThreatModel(epsilon=8 / 255)
        steps = [
            evaluation.create(spec).on(None, threat, None).step_size * 255
            for spec in evaluation.resolve(evaluation.TRANSFER)
        ]
        np.testing.assert_allclose(steps, [8, 2, 0.8, 0.8], rtol=1e-12)

    def test_refuses(self, digits):
        model, data = digits
        with pytest.raises(ValueError, match="made on a surrogate, and there"):
            mart_tf.evaluate_robustness(model, data, _THREAT, "transfer:fgsm")
        few = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        with pytest.raises(ValueError, match="has 3 classes and the model 10"):
            mart_tf.evaluate_robustness(
                model, data, _THREAT, "fgsm", surrogate=few
            )
        wide = keras.Sequential(
            [
                keras.Input((9, 9, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        with pytest.raises(ValueError, match="9, 9, 1"):
            mart_tf.evaluate_robustness(
                model, data, _THREAT, "fgsm", surrogate=wide
            )
        for text in ("cw_l2", _QUICK):
            with pytest.raises(ValueError, match="cannot be made on a surr"):
                mart_tf.evaluate_robustness(
                    model, data, _THREAT, f"transfer:{text}", surrogate=model
                )


class TestSweep:
    def test_equals_an_evaluation_at_each_radius(self, digits):
        model, data = digits
        report = mart_tf.evaluate_robustness(
            model,
            data,
            _THREAT,
            "fgsm,pgd:steps=5",
            epsilon_sweep=(epsilon for epsilon in [0.5, 0.02, 0.1]),
        )
        sweep = report.sweep
        assert sweep.attack == "pgd:steps=5"
        assert sweep.epsilons == (0.02, 0.1, 0.5)
        assert list(sweep.accuracies) == sorted(sweep.accuracies, reverse=True)
        assert sweep.accuracies[-1] == 0.0
        # What the smaller radius broke counts too.
        assert sweep.accuracies[1] <= report.accuracy["pgd:steps=5"]
        alone = mart_tf.evaluate_robustness(
            model, data, mart_tf.ThreatModel(epsilon=0.02), "pgd:steps=5"
        )
        np.testing.assert_array_equal(
            sweep.outcomes[0], alone.outcomes["pgd:steps=5"]
        )

    @pytest.mark.parametrize(
        "attack",
        [
            "pgd:steps=1:step_size=0.1:random_start=none",
            projected.PGD(steps=1, step_size=0.1, random_start="none"),
        ],
    )
    def test_a_step_grows_with_the_radius(self, attack):
        # Class 0 up to 0.55. One step from x, as long as the radius: FGSM.
        def classify(images):
            score = images[:, 0] - 0.55
            return tf.stack([tf.zeros_like(score), score], axis=1)

        images = np.array([[0.5], [0.4], [0.3], [0.0]], np.float32)
        report = mart_tf.evaluate_robustness(
            classify,
            (images, np.zeros(4, int)),
            _THREAT,
            ["fgsm", attack],
            epsilon_sweep=[0.3, 0.02, 0.2, 0.1],
        )
        # 0.5 falls from 0.05 on, 0.4 from 0.15 on, 0.3 from 0.25 on.
        assert report.sweep.epsilons == (0.02, 0.1, 0.2, 0.3)
        assert report.sweep.accuracies == (1.0, 0.75, 0.5, 0.25)
        assert report.sweep.attack == str(attack)

    @pytest.mark.parametrize("radius", [0.0, -0.1, 1.5, float("nan")])
    def test_refuses_a_radius_that_no_threat_model_has(self, digits, radius):
        model, data = digits
        with pytest.raises(ValueError, match="epsilon"):
            mart_tf.evaluate_robustness(
                model, data, _THREAT, "fgsm", epsilon_sweep=[radius]
            )


class TestDistances:
    @pytest.mark.parametrize("name", ["cw_l2", "cleverhans:cw_l2"])
    def test_stand_apart_from_the_worst_case(self, digits, name):
        model, (images, labels) = digits
        spec = f"{name}:binary_search_steps=2:max_iterations=20"
        report = mart_tf.evaluate_robustness(
            model,
            (images[:20], labels[:20]),
            _THREAT,
            ["fgsm", f"{spec}:learning_rate=0.1:radius=0.5"],
        )
        row = report.results[2]
        assert row.norm == "l2"
        right = report.results[0].outcome
        assert (row.distances[~right] == 0.0).all()
        assert (row.distances[right] > 0.0).all()
        np.testing.assert_array_equal(row.outcome, row.distances > 0.5)
        expected = right & report.results[1].outcome
        np.testing.assert_array_equal(report.worst_case.outcome, expected)


class TestModelsWithoutGradients:
    def test_are_attacked_by_queries_and_surrogates(self, digits, other):
        model, (images, labels) = digits

        def served(batch):
            assert isinstance(batch, np.ndarray)
            return model(batch).numpy()

        report = mart_tf.evaluate_robustness(
            served,
            (images[:30], labels[:30]),
            _THREAT,
            "square:queries=30,transfer:pgd:steps=5",
            surrogate=other,
        )
        assert report.results[1].access == "queries"
        assert report.results[1].accuracy < report.accuracy["natural"]
        alone = mart_tf.evaluate_robustness(
            model, (images[:30], labels[:30]), _THREAT, "square:queries=30"
        )
        np.testing.assert_array_equal(
            report.results[1].outcome, alone.results[1].outcome
        )

    def test_refuse_what_needs_gradients(self, digits):
        model, data = digits
        with pytest.raises(ValueError, match="'pgd' needs gradients, and the"):
            mart_tf.evaluate_robustness(
                lambda batch: model(np.asarray(batch)).numpy(),
                data,
                _THREAT,
                "pgd",
            )


class TestMasking:
    def test_a_network_without_useful_gradients_is_caught(self):
        """A layer so steep that it is flat: its gradients say nothing."""
        soft, (images, labels) = _network(0)
        dense, _ = soft.layers[1:]
        dense.activation = keras.activations.tanh
        dense.kernel.assign(2000.0 * dense.kernel)
        dense.bias.assign(2000.0 * dense.bias)
        dense.trainable = False
        soft.compile(
            keras.optimizers.Adam(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        rest, classes = datasets.load_digits(return_X_y=True)
        rest = (rest[:1400] / 16).reshape(-1, 8, 8, 1)
        soft.fit(rest, classes[:1400], epochs=10, verbose=0)
        attacks = "autoattack:version=custom:attacks=apgd_ce+apgd_t+square"
        report = mart_tf.evaluate_robustness(
            soft,
            (images[:60], labels[:60]),
            mart_tf.ThreatModel(epsilon=0.25),
            f"fgsm,pgd:steps=20,{attacks}",
        )
        accuracy = report.accuracy
        assert accuracy["fgsm"] > 0.6
        assert accuracy[attacks] < 0.1
        assert any(sign.verdict == "failed" for sign in report.signs)
        assert report.signs[5].verdict == "failed"


class TestStoppedEvaluations:
    def test_end_as_those_that_never_were(self, digits, tmp_path, pieces_left):
        model, data = digits
        attacks = f"pgd:steps=3:restarts=2,{_QUICK},cleverhans:pgd:nb_iter=3"

        def evaluate(name):
            return mart_tf.evaluate_robustness(
                model,
                data,
                _THREAT,
                attacks.replace("square", "apgd_dlr"),
                batch_size=20,
                epsilon_sweep=[0.05, 0.2],
                directory=tmp_path / name,
            )

        evaluate("whole")
        assert not (tmp_path / "whole" / "partial").exists()
        # Stopped after every third piece, until it ends.
        stops = 0
        while not (tmp_path / "stopped" / "report.json").exists():
            pieces_left[0] = 3
            with contextlib.suppress(KeyboardInterrupt):
                evaluate("stopped")
            stops += 1
        assert stops > 5
        assert not (tmp_path / "stopped" / "partial").exists()
        whole, stopped = (
            programs.timeless(
                json.loads((tmp_path / name / "report.json").read_text())
            )
            for name in ("whole", "stopped")
        )
        # The last bits of a loss hang on which examples share a batch.
        traces = whole.pop("traces"), stopped.pop("traces")
        for first, second in zip(*traces, strict=True):
            losses = first.pop("losses"), second.pop("losses")
            assert losses[0] == pytest.approx(losses[1], 1e-5)
            assert first == second
        assert whole == stopped
        files = [tmp_path / n / "outcomes.npz" for n in ("whole", "stopped")]
        first, second = (np.load(file) for file in files)
        assert first.files == second.files
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name])

    def test_are_not_run_twice_at_once(self, digits, tmp_path):
        process = programs.hold(tmp_path)
        try:
            with pytest.raises(ValueError, match="by another process"):
                mart_tf.evaluate_robustness(
                    *digits, _THREAT, "fgsm", directory=tmp_path
                )
        finally:
            process.kill()
            process.wait()
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]

    def test_are_not_mixed_with_another(self, digits, other, tmp_path):
        model, data = digits

        def stop(*_):
            raise KeyboardInterrupt

        # The second attack is stopped.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(projected.CW, "start", stop)
            with pytest.raises(KeyboardInterrupt):
                mart_tf.evaluate_robustness(
                    model, data, _THREAT, "fgsm,cw", directory=tmp_path
                )
        for change, said in [
            ({"seed": 1}, "seed"),
            ({"threat": mart_tf.ThreatModel(epsilon=0.2)}, "threat model"),
            ({"model": other}, "model"),
            ({"dataset": (data[0][:50], data[1][:50])}, "data"),
            ({"dataset": (data[0], np.roll(data[1], 1))}, "data"),
            ({"surrogate": other}, "surrogate"),
        ]:
            settings = {
                "model": model,
                "dataset": data,
                "threat": _THREAT,
                "attacks": "fgsm",
                "directory": tmp_path,
            }
            with pytest.raises(ValueError, match=f"another .*{said}"):
                mart_tf.evaluate_robustness(**{**settings, **change})

    @pytest.mark.parametrize(
        ("is_saved", "before"), [(True, True), (False, True), (True, False)]
    )
    def test_are_not_mixed_with_a_layer_more(
        self, digits, tmp_path, is_saved, before
    ):
        """One without weights: it leaves natural images as they are, or

        all classes, behind the logits, where attacks find another slope.
        """
        model, data = digits
        levels = keras.layers.Lambda(lambda x: keras.ops.round(16 * x) / 16)
        images = keras.Input(model.input_shape[1:])
        other = keras.Model(
            images,
            model(levels(images))
            if before
            else keras.layers.Rescaling(1e4)(model(images)),
        )
        np.testing.assert_allclose(levels(data[0]), data[0], atol=1e-6)
        threat = mart_tf.ThreatModel(epsilon=0.3)

        def evaluate(model):
            return mart_tf.evaluate_robustness(
                model if is_saved else lambda images: model(images),
                data,
                threat,
                ["square:queries=2", "square:queries=3"],
                directory=tmp_path,
            )

        attack = measuring.Measurement.attack

        def first_alone(self, name, bound):
            if name.endswith("3"):
                raise KeyboardInterrupt
            return attack(self, name, bound)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measuring.Measurement, "attack", first_alone)
            with pytest.raises(KeyboardInterrupt):
                evaluate(model)
        with pytest.raises(ValueError, match="with another model;"):
            evaluate(other)
        # The model itself goes on.
        assert evaluate(model).accuracy

    @pytest.mark.filterwarnings("ignore:Two passes")
    def test_of_a_model_that_draws_go_on(self, digits, tmp_path):
        model, data = digits

        def drawn(images):
            return model(images + 0.3 * tf.random.normal(tf.shape(images)))

        def stop(*_):
            raise KeyboardInterrupt

        def evaluate():
            return mart_tf.evaluate_robustness(
                drawn, data, _THREAT, "fgsm,cw:steps=1", directory=tmp_path
            )

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(projected.CW, "start", stop)
            with pytest.raises(KeyboardInterrupt):
                evaluate()
        assert evaluate().accuracy


class TestWarnings:
    def test_a_model_near_chance_is_pointed_out(self, digits):
        model, (images, labels) = digits
        report = mart_tf.evaluate_robustness(
            model, (images, (labels + 1) % 10), _THREAT, "fgsm"
        )
        assert "chance is 10.00%" in report.warnings[0]

    @pytest.mark.parametrize(
        ("right", "warned"), [(9, True), (14, True), (16, False), (90, False)]
    )
    def test_just_above_chance_is_too_near(self, right, warned):
        # Always class 0 of ten: chance is 10 %, the line 15 %.
        def classify(images):
            score = tf.fill(tf.shape(images)[:1], 2.0)
            return tf.stack([score, *9 * [0.0 * score]], axis=1)

        labels = np.where(np.arange(100) < right, 0, 1)
        images = np.full([100, 1], 0.5, np.float32)
        report = mart_tf.evaluate_robustness(
            classify, (images, labels), _THREAT, []
        )
        assert any("chance is 10.00%" in w for w in report.warnings) == warned

    def test_fall_backs_are_in_the_report(self):
        images = np.random.default_rng(0).random((20, 4, 4, 1), "float32")
        weights = tf.constant(np.linspace(-1, 1, 48).reshape(16, 3), "float32")

        def classify(batch):
            return tf.reshape(batch, [-1, 16]) @ weights

        labels = np.argmax(classify(images), axis=1)
        report = mart_tf.evaluate_robustness(
            classify,
            (images, labels),
            _THREAT,
            "autoattack:version=custom:attacks=apgd_t",
        )
        assert "apgd_dlr ran in its place" in report.warnings[0]

    def test_two_classes_are_attacked_by_the_margin(self):
        made = autoattack.AutoAttack("plus").on(lambda x: x, _THREAT, 2)
        assert [name for name, _ in made.parts] == [
            "apgd_ce",
            "apgd_cw",
            "square",
            "fab_t",
        ]
        assert made.notes[1:] == (
            "AutoAttack's apgd_t needs 4 classes, and there are 2: apgd_cw "
            "ran in its place.",
            "AutoAttack's apgd_dlr needs 3 classes, and there are 2: apgd_cw "
            "ran in its place.",
        )

    def test_square_alone_is_refused_in_l2(self):
        with pytest.raises(ValueError, match="expected other attacks in l2"):
            autoattack.AutoAttack("custom", ("square",)).on(
                lambda x: x, mart_tf.ThreatModel("l2", 0.1), 10
            )


class TestArguments:
    def test_numbers_of_numpy_and_an_array_of_names(self, digits, tmp_path):
        """As `np.arange(3)` has seeds, and `load_digits().target_names`."""
        model, data = digits
        report = mart_tf.evaluate_robustness(
            model,
            data,
            _THREAT,
            "fgsm",
            batch_size=np.int64(50),
            seed=np.int64(3),
            max_examples=np.int64(60),
            class_names=np.arange(10).astype(str),
            directory=tmp_path,
        )
        assert report.settings["seed"] == 3
        saved = json.loads((tmp_path / "report.json").read_text())
        assert saved["data"]["class_names"] == list("0123456789")

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({"batch_size": 2.5}, "batch_size is 2.5; expected a whole number"),
            ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
            ({"seed": 2**63}, "seed is 9223372036854775808; expected a whole"),
            ({"max_examples": 0}, "max_examples is 0; expected a whole number"),
            ({"threat": "linf"}, "threat is 'linf'; expected a threat model"),
            (
                {"facts": {"model": {"note": "mine"}}},
                "facts says note of model, which a report has no place for; "
                r"expected dicts by model \(path, workdir, ",
            ),
            ({"facts": {"run": {"id": 3}}}, "facts says id of run, which"),
        ],
    )
    def test_others_are_refused_in_a_sentence(self, digits, settings, sentence):
        model, data = digits
        given = {"threat": _THREAT} | settings
        with pytest.raises(ValueError, match=sentence):
            mart_tf.evaluate_robustness(model, data, attacks="fgsm", **given)

    def test_facts_follow_the_schema(self, digits, tmp_path):
        model, data = digits
        mart_tf.evaluate_robustness(
            model,
            data,
            _THREAT,
            "fgsm",
            directory=tmp_path,
            facts={
                "model": {"path": tmp_path / "my.keras", "epoch": 3},
                "data": {"dataset": "mine", "split": "test", "of": 100},
            },
        )
        content = json.loads((tmp_path / "report.json").read_text())
        jsonschema.validate(content, saved_reports.schema())
        assert content["model"]["path"] == str(tmp_path / "my.keras")
        assert content["data"]["of"] == 100

    def test_attacks_are_held_against_a_threat_model_before_a_model(self):
        """As the program does for each of several runs before the first."""
        specs = evaluation.resolve("fgsm,apgd_t,autoattack,square")
        planning.check(specs, _THREAT)
        with pytest.raises(ValueError, match="Attack 'square': .*linf"):
            planning.check(specs, mart_tf.ThreatModel("l2", 0.5))
