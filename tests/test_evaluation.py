"""Robust accuracy: names, the engine, inputs, the report."""

import dataclasses
import os
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import trained

import mart_tf
from mart_tf import attacks
from mart_tf import choices
from mart_tf import evaluation
from mart_tf import noise
from mart_tf.attacks import base
from mart_tf.attacks import examples
from mart_tf.attacks import projected
from mart_tf.evaluation import arrays
from mart_tf.evaluation import engine
from mart_tf.evaluation import shares
from mart_tf.evaluation import subjects

_THREAT = mart_tf.ThreatModel(epsilon=0.1)


@pytest.fixture(scope="module")
def digits():
    """A small trained CNN, and 397 digits that it has not seen."""
    model, images, labels = trained.on_digits(
        0,
        lambda: [
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
        ],
        rate=0.003,
        epochs=6,
    )
    return model, images[1400:], labels[1400:]


@pytest.fixture(scope="module")
def report(digits):
    """A report on the trained CNN."""
    model, images, labels = digits
    return mart_tf.evaluate_robustness(
        model,
        (images, labels),
        _THREAT,
        ["fgsm", "pgd:steps=5", "cleverhans:bim"],
        class_names=[f"digit {i}" for i in range(10)],
        seed=3,
    )


def _run(attack, classify, images, labels, batch_size=4, observe=None, seed=0):
    seeds = noise.seeds(seed, tf.range(len(images))).numpy()
    loop = engine.Engine(classify, batch_size)
    return loop.run(attack, images, labels, seeds, observe)


def _pgd(classify, threat, classes, steps, **options):
    return projected.PGD(steps=steps, **options).on(classify, threat, classes)


class TestNames:
    def test_reads_a_list_and_drops_natural(self):
        specs = evaluation.resolve("natural, fgsm,pgd:steps=7,cleverhans:bim")
        assert [spec.name for spec in specs] == [
            "fgsm",
            "pgd",
            "cleverhans:bim",
        ]
        assert [spec.text for spec in specs][1] == "pgd:steps=7"
        assert specs[1].options == {"steps": 7}

    def test_types_the_options_of_cleverhans(self):
        [spec] = evaluation.resolve(
            ["cleverhans:pgd:nb_iter=5:eps_iter=2/255:rand_init=false"]
        )
        assert spec.name == "cleverhans:pgd"
        assert spec.options == {
            "nb_iter": 5,
            "eps_iter": 2 / 255,
            "rand_init": False,
        }

    @pytest.mark.parametrize("norm", choices.NORMS)
    def test_every_name_of_the_table_can_be_made(self, norm):
        threat = mart_tf.ThreatModel(norm, 0.1)
        for spec in evaluation.resolve(list(attacks.ATTACKS)):
            if norm == "l2" and spec.name in ("square", "cleverhans:spsa"):
                with pytest.raises(ValueError, match="linf"):
                    evaluation.create(spec).on(tf.identity, threat, 10)
            else:
                attack = evaluation.create(spec).on(tf.identity, threat, 10)
                assert attack.parameters is not None

    def test_the_default_list_is_sound(self):
        assert len(evaluation.resolve()) == len(evaluation.DEFAULT)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("pdg", "Unknown attack 'pdg'; did you mean 'pgd'?"),
            ("autoatack", "Unknown attack 'autoatack'; did you mean 'autoa"),
            ("transfer:pdg", "Unknown attack 'pdg'; did you mean 'pgd'?"),
            ("transfer", "Unknown attack 'transfer'"),
            ("cleverhans:pdg", "did you mean 'pgd'?"),
            ("cleverhans", "Unknown cleverhans attack"),
            ("pgd:step=3", "did you mean 'steps'?"),
            ("fgsm:classes=3", "has no option 'classes'"),
            ("pgd:steps=0", "pgd:steps is 0; expected a whole number"),
            ("cleverhans:mim:nb_iter=-1", "nb_iter is -1; expected a whole"),
            ("cw:kappa=-1", "kappa is -1.0; expected a finite number"),
            ("cw:kappa=nan", "cw:kappa is nan; expected a number from"),
            ("pgd:objective=dlrr", "did you mean 'dlr'?"),
            ("fgsm,,pgd", "empty item"),
            ("fgsm,fgsm", "'fgsm' is listed twice"),
        ],
    )
    def test_refuses(self, text, message):
        with pytest.raises(ValueError) as error:
            evaluation.resolve(text)
        assert message in str(error.value)


class TestEngine:
    def test_a_linear_network_is_attacked_to_its_optimum(self):
        # z_1 - z_0 = 4 x_0 - 2 x_1 - 0.7: the strongest example of class 1
        # within epsilon moves each pixel by epsilon against its weight.
        def classify(images):
            score = 4 * images[:, 0] - 2 * images[:, 1] - 0.7
            return tf.stack([tf.zeros_like(score), score], axis=1)

        threat = mart_tf.ThreatModel(epsilon=0.25)
        images = np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)
        labels = np.array([1, 1], np.int32)
        # Scores 0.3 and 2.7 without attack; attacked at best 0.3 - 1.5 < 0
        # and 2.7 - 1.5 > 0, so the first breaks and the second stands.
        for attack in [
            projected.FGSM().on(classify, threat, 2),
            _pgd(classify, threat, 2, 20),
            projected.CW().on(classify, threat, 2),
        ]:
            crafted = _run(attack, classify, images, labels)
            assert crafted.broken.tolist() == [True, False]
            assert crafted.predictions.tolist() == [0, 1]
            np.testing.assert_allclose(
                crafted.adversarial[1], [0.65, 0.35], rtol=1e-6
            )

    def test_a_linear_network_is_attacked_to_its_l2_optimum(self):
        # z_1 - z_0 = 4 x_0 - 3 x_1 - 0.4, along (0.8, -0.6) times 5: within
        # 0.25 of x the score falls by 5 * 0.25 at best.
        def classify(images):
            score = 4 * images[:, 0] - 3 * images[:, 1] - 0.4
            return tf.stack([tf.zeros_like(score), score], axis=1)

        threat = mart_tf.ThreatModel("l2", 0.25)
        images = np.array([[0.5, 0.3], [0.9, 0.3]], np.float32)
        labels = np.array([1, 1], np.int32)
        # Scores 0.7 and 2.3 without attack, -0.55 and 1.05 at best.
        for attack in [
            projected.FGSM().on(classify, threat, 2),
            _pgd(classify, threat, 2, 40, step_size=0.25),
            projected.CW(40, step_size=0.25).on(classify, threat, 2),
        ]:
            crafted = _run(attack, classify, images, labels)
            assert crafted.broken.tolist() == [True, False]
            np.testing.assert_allclose(
                crafted.adversarial[1], [0.7, 0.45], atol=1e-5
            )

    def test_equals_one_plain_batch_of_pgd(self, digits):
        model, images, labels = digits
        classify = subjects.as_subject(model).classify
        crafted = _run(
            _pgd(classify, _THREAT, 10, 7), classify, images, labels, 50
        )

        iterate = _THREAT.random_start(
            images, noise.seeds(0, tf.range(len(images)))
        )
        broken = np.zeros(len(images), bool)
        for _ in range(7):
            iterate, _, logits = attacks.ascent_step(
                classify, iterate, images, labels, _THREAT, _THREAT.epsilon / 10
            )
            broken |= np.argmax(logits, 1) != labels
        broken |= np.argmax(classify(iterate), 1) != labels
        assert 0.1 < broken.mean() < 0.9
        np.testing.assert_array_equal(crafted.broken, broken)
        pixels = np.abs(crafted.adversarial - iterate)[~broken]
        assert (pixels > 1e-6).mean() < 1e-3

    def test_repacking_changes_nothing(self, digits):
        model, images, labels = digits
        classify = subjects.as_subject(model).classify
        attack = _pgd(classify, _THREAT, 10, 9)
        few, many = (
            _run(attack, classify, images, labels, size) for size in (7, 64)
        )
        np.testing.assert_array_equal(few.broken, many.broken)
        np.testing.assert_array_equal(few.predictions, many.predictions)
        # A gradient near 0 may change its sign with the batch's size.
        moved = np.abs(few.adversarial - many.adversarial) > 1e-6
        assert moved.mean() < 1e-3

    def test_the_seed_decides_the_start(self, digits):
        model, images, labels = digits
        classify = subjects.as_subject(model).classify
        first, again, other = (
            _run(
                _pgd(classify, _THREAT, 10, 1),
                classify,
                images[:20],
                labels[:20],
                seed=seed,
            ).adversarial
            for seed in (5, 5, 6)
        )
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.01

    def test_stays_inside_the_threat_model_to_the_last_bit(self, digits):
        model, images, labels = digits
        classify = subjects.as_subject(model).classify
        epsilon = np.float32(0.1)
        for attack in [
            projected.FGSM().on(classify, _THREAT, 10),
            _pgd(classify, _THREAT, 10, 5, random_start="gaussian"),
            projected.CW(steps=5).on(classify, _THREAT, 10),
        ]:
            made = _run(attack, classify, images, labels, 100).adversarial
            assert (made >= np.maximum(images - epsilon, 0)).all()
            assert (made <= np.minimum(images + epsilon, 1)).all()

    def test_any_iterate_breaks_and_is_kept(self):
        # The margin falls with x everywhere, so the attack walks up, through
        # a hole around 0.6 where the wrong class wins, and out again.
        def classify(images):
            hole = tf.cast(tf.abs(images[:, 0] - 0.6) < 0.05, tf.float32)
            margin = 1.5 - images[:, 0] - 10.0 * hole
            return tf.stack([margin, tf.zeros_like(margin)], axis=1)

        threat = mart_tf.ThreatModel(epsilon=0.5)
        crafted = _run(
            _pgd(classify, threat, 2, 4, step_size=0.1, random_start="none"),
            classify,
            np.array([[0.5], [0.7]], np.float32),
            np.array([0, 0], np.int32),
        )
        assert crafted.broken.tolist() == [True, False]
        assert crafted.steps.tolist() == [1, 4]
        np.testing.assert_allclose(
            crafted.adversarial, [[0.6], [1.0]], rtol=1e-6
        )

    def test_the_last_iterate_is_looked_at(self):
        # Class 0 up to 0.85, reached by the fourth step of 0.1 alone.
        def classify(images):
            margin = 0.85 - images[:, 0]
            return tf.stack([margin, tf.zeros_like(margin)], axis=1)

        threat = mart_tf.ThreatModel(epsilon=0.5)
        for steps, broken in [(3, False), (4, True)]:
            crafted = _run(
                _pgd(
                    classify,
                    threat,
                    2,
                    steps,
                    step_size=0.1,
                    random_start="none",
                ),
                classify,
                np.array([[0.5]], np.float32),
                np.array([0], np.int32),
                batch_size=1,
            )
            assert crafted.broken.tolist() == [broken]
            assert crafted.predictions.tolist() == [int(broken)]

    def test_nan_is_no_class(self):
        def classify(images):
            x = images[:, 0]
            score = tf.where(x > 0.5, float("nan"), 1.0 - x)
            return tf.stack([score, 0.0 * x], axis=1)

        images = np.array([[0.2], [0.45], [0.9]], np.float32)
        loop = engine.Engine(classify, 2)
        assert loop.predict(images).tolist() == [0, 0, examples.NO_CLASS]
        crafted = _run(
            _pgd(classify, _THREAT, 2, 20),
            classify,
            images[:2],
            np.zeros(2, np.int32),
        )
        assert crafted.broken.tolist() == [False, True]
        assert crafted.predictions.tolist() == [0, examples.NO_CLASS]

    def test_nan_is_told_of(self):
        def classify(images):
            x = images[:, 0]
            score = tf.where(x > 0.5, float("nan"), 1.0 - x)
            return tf.stack([score, 0.0 * x], axis=1)

        images = np.array([[0.2], [0.45], [0.9]], np.float32)
        data = images, np.zeros(3, np.int32)
        report = mart_tf.evaluate_robustness(classify, data, _THREAT, "pgd")
        said = " ".join(report.warnings)
        assert "Under no attack 1 examples have NaN among their scores" in said
        assert "Under pgd 1 examples have NaN among" in said
        # All of them: that is no classifier.
        data = images[::-1], np.zeros(3, np.int32)
        with pytest.raises(ValueError, match="gives scores that are NaN"):
            mart_tf.evaluate_robustness(classify, data, _THREAT, "pgd")

    @pytest.mark.parametrize(
        ("wins", "passes"),
        [
            # 6 examples of 4 steps in batches of 4: 6 steps of full batches,
            # which examples at different steps share; then two looks at the
            # last iterates, of four and of two examples.
            (True, 6 + 2),
            # All broken at the start: each batch takes one step and is
            # dropped.
            (False, 2),
        ],
    )
    def test_broken_examples_are_dropped_and_nothing_retraces(
        self, wins, passes
    ):
        passed = tf.Variable(0)
        traced = []

        def classify(images):
            traced.append(images.shape)
            passed.assign_add(tf.shape(images)[0])
            score = tf.reduce_sum(images, axis=1)
            return tf.stack([score if wins else -score, 0 * score], axis=1)

        images = np.full([6, 3], 0.5, np.float32)
        crafted = _run(
            _pgd(classify, _THREAT, 2, 4),
            classify,
            images,
            np.zeros(6, np.int32),
        )
        assert crafted.broken.all() != wins
        assert passed.numpy() == 4 * passes
        # The step, and the look at the last iterates.
        assert traced == [(4, 3)] * (2 if wins else 1)

    def test_tells_how_far_it_is(self, digits):
        model, images, labels = digits
        classify = subjects.as_subject(model).classify
        told = []
        crafted = _run(
            _pgd(classify, _THREAT, 10, 5),
            classify,
            images,
            labels,
            64,
            lambda done, broken: told.append((done, broken)),
        )
        assert told == sorted(told)
        assert told[-1] == (len(images), crafted.broken.sum())

    def test_several_cores_find_what_one_finds(self, digits):
        model, images, labels = digits
        classify = subjects.as_subject(model).classify
        seeds = noise.seeds(0, tf.range(len(images))).numpy()
        crafted = [
            engine.Engine(classify, 16 * cores, cores).run(
                _pgd(classify, _THREAT, 10, 5, restarts=2),
                images,
                labels,
                seeds,
            )
            for cores in (1, 3)
        ]
        assert 0 < crafted[0].broken.mean() < 1
        for one, other in zip(*map(dataclasses.astuple, crafted), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_what_fails_in_a_thread_is_told(self):
        def classify(images):
            tf.debugging.assert_less(images, 0.6, "too bright")
            return tf.stack([images[:, 0], -images[:, 0]], axis=1)

        images = np.full([20, 1], 0.5, np.float32)
        images[13] = 0.7
        attack = _pgd(classify, _THREAT, 2, 3)
        seeds = np.zeros([20, 2], np.int64)
        with pytest.raises(tf.errors.InvalidArgumentError, match="too bright"):
            engine.Engine(classify, 4, 2).run(
                attack, images, np.zeros(20, np.int32), seeds
            )

    def test_a_function_of_arrays_is_called_by_one_thread_at_a_time(self):
        calls, together = [], []

        def classify(images):
            calls.append(len(images))
            together.append(len(calls))
            time.sleep(0.01)
            calls.pop()
            level = images.mean(axis=(1, 2, 3))
            return np.stack([level, 0.5 - level], axis=1)

        images = np.random.default_rng(0).random([80, 4, 4, 1])
        mart_tf.evaluate_robustness(
            classify,
            (images.astype("f4"), (images.mean(axis=(1, 2, 3)) < 0.25) * 1),
            _THREAT,
            ["square:queries=5"],
            batch_size=40,
        )
        assert len(together) > 10
        assert set(together) == {1}

    def test_no_examples_are_attacked(self):
        crafted = _run(
            _pgd(lambda images: images, _THREAT, 3, 2),
            lambda images: images,
            np.zeros([0, 3], np.float32),
            np.zeros(0, np.int32),
        )
        assert crafted.broken.shape == (0,)

    def test_rounds_start_what_stands_anew(self):
        # The first round starts at the image, the second 0.2 above it: class
        # 0 ends at 0.55, which only a step from there reaches.
        class Twice(base.Attack):
            steps = 1
            rounds = 2

            def start(self, images, labels, seeds, number=0):
                return {"adversarial": images + 0.2 * number}

            def step(self, images, labels, state, taken):
                adversarial = state["adversarial"]
                return {"adversarial": adversarial + 0.1}, classify(adversarial)

        def classify(images):
            margin = 0.55 - images[:, 0]
            return tf.stack([margin, tf.zeros_like(margin)], axis=1)

        told = []
        crafted = _run(
            Twice(),
            classify,
            np.array([[0.5], [0.3], [0.1]], np.float32),
            np.zeros(3, np.int32),
            observe=lambda done, broken: told.append((done, broken)),
        )
        # 0.5 breaks by the first step of round 1, 0.3 by that of round 2.
        assert crafted.broken.tolist() == [True, True, False]
        assert crafted.steps.tolist() == [1, 2, 2]
        np.testing.assert_allclose(
            crafted.adversarial[:, 0], [0.6, 0.6, 0.4], rtol=1e-6
        )
        assert told == sorted(told)
        assert told[-1] == (3.0, 2)

    @pytest.mark.parametrize("steps", [999, 1003])
    def test_long_attacks_take_as_many_steps(self, steps):
        # Class 0 below 899.5; a step is 1.
        class Walk(base.Attack):
            def __init__(self):
                self.steps = steps

            def start(self, images, labels, seeds, number=0):
                return {"adversarial": images}

            def step(self, images, labels, state, taken):
                adversarial = state["adversarial"]
                return {"adversarial": adversarial + 1.0}, classify(adversarial)

        def classify(images):
            margin = 899.5 - images[:, 0]
            return tf.stack([margin, tf.zeros_like(margin)], axis=1)

        crafted = _run(
            Walk(),
            classify,
            np.array([[0.0], [-500.0], [300.0]], np.float32),
            np.zeros(3, np.int32),
            batch_size=2,
        )
        assert crafted.broken.tolist() == [True, False, True]
        assert crafted.steps.tolist() == [900, steps, 600]
        assert crafted.adversarial[:, 0].tolist() == [900, steps - 500, 900]

    def test_the_loss_of_each_iterate_is_kept(self):
        # The score of class 1 is the pixel: log(1 + exp(x)) against class 0.
        def classify(images):
            return tf.stack([0.0 * images[:, 0], images[:, 0] - 0.75], axis=1)

        threat = mart_tf.ThreatModel(epsilon=0.5)
        crafted = _run(
            _pgd(classify, threat, 2, 3, step_size=0.1, random_start="none"),
            classify,
            np.array([[0.2], [0.7]], np.float32),
            np.zeros(2, np.int32),
            batch_size=1,
        )
        # The second is broken at its second iterate, and stays there.
        pixels = np.array([[0.2, 0.3, 0.4], [0.7, 0.8, 0.8]])
        np.testing.assert_allclose(
            crafted.losses, np.log1p(np.exp(pixels - 0.75)), rtol=1e-6
        )

    def test_the_losses_are_those_of_the_first_round(self):
        class Twice(base.Attack):
            climbs = True
            steps = 2
            rounds = 2

            def start(self, images, labels, seeds, number=0):
                return {"adversarial": images + 0.2 * number}

            def step(self, images, labels, state, taken):
                adversarial = state["adversarial"]
                return {"adversarial": adversarial + 0.1}, classify(adversarial)

        def classify(images):
            return tf.stack([0.0 * images[:, 0], images[:, 0] - 0.75], axis=1)

        crafted = _run(
            Twice(),
            classify,
            np.array([[0.0], [0.3]], np.float32),
            np.zeros(2, np.int32),
        )
        assert crafted.broken.tolist() == [False, False]
        pixels = np.array([[0.0, 0.1], [0.3, 0.4]])
        np.testing.assert_allclose(
            crafted.losses, np.log1p(np.exp(pixels - 0.75)), rtol=1e-6
        )
        # The last round's iterate is handed over, from 0.2 above.
        np.testing.assert_allclose(
            crafted.adversarial[:, 0], [0.4, 0.7], rtol=1e-6
        )

    def test_the_last_iterate_of_every_round_is_looked_at(self):
        # One step a round, of 0.3 times its number: the last iterate, which
        # no step looks at, is above 0.55 in the second round alone.
        class Farther(base.Attack):
            steps = 1
            rounds = 3

            def start(self, images, labels, seeds, number=0):
                length = 0.3 if number == 1 else 0.1
                return {
                    "adversarial": images,
                    "length": tf.fill([len(images), 1], length),
                }

            def step(self, images, labels, state, taken):
                adversarial = state["adversarial"]
                moved = adversarial + state["length"]
                return {**state, "adversarial": moved}, classify(adversarial)

        def classify(images):
            margin = 0.55 - images[:, 0]
            return tf.stack([margin, tf.zeros_like(margin)], axis=1)

        crafted = _run(
            Farther(),
            classify,
            np.array([[0.3], [0.1]], np.float32),
            np.zeros(2, np.int32),
        )
        assert crafted.broken.tolist() == [True, False]
        assert crafted.steps.tolist() == [2, 3]
        np.testing.assert_allclose(
            crafted.adversarial[:, 0], [0.6, 0.2], rtol=1e-6
        )

    def test_many_attacks_of_a_kind_bring_no_warning(self, caplog):
        images = np.random.default_rng(0).random((4, 5), np.float32)
        labels = images.argmax(axis=1).astype(np.int32)
        logger = tf.get_logger()
        logger.addHandler(caplog.handler)
        try:
            for epsilon in np.linspace(0.01, 0.06, 6):
                threat = mart_tf.ThreatModel("linf", float(epsilon))
                for text in ("fgsm", "apgd_t:targets=1", "fab_t:targets=1"):
                    [spec] = evaluation.resolve(text)
                    attack = evaluation.create(spec).on(tf.identity, threat, 5)
                    _run(attack, tf.identity, images, labels)
        finally:
            logger.removeHandler(caplog.handler)
        assert not caplog.records


class TestEvaluateRobustness:
    def test_counts_over_all_examples(self, digits):
        model, images, labels = digits
        report = mart_tf.evaluate_robustness(
            model, (images, labels), _THREAT, ["fgsm", "pgd:steps=5", "cw"]
        )
        natural = model.predict(images, verbose=0).argmax(1) == labels
        assert list(report.accuracy) == [
            "natural",
            "fgsm",
            "pgd:steps=5",
            "cw",
            "worst_case",
        ]
        np.testing.assert_array_equal(report.outcomes["natural"], natural)
        worst = natural.copy()
        for name in ("fgsm", "pgd:steps=5", "cw"):
            outcome = report.outcomes[name]
            assert not outcome[~natural].any()
            assert report.accuracy[name] == outcome.mean()
            worst &= outcome
        np.testing.assert_array_equal(report.outcomes["worst_case"], worst)

    def test_pgd_is_not_weaker_than_fgsm(self, digits):
        model, images, labels = digits
        accuracy = mart_tf.evaluate_robustness(
            model, (images, labels), _THREAT, "fgsm,pgd:steps=20"
        ).accuracy
        assert 0.0 < accuracy["pgd:steps=20"] <= accuracy["fgsm"]
        assert accuracy["fgsm"] < accuracy["natural"]

    def test_a_seed_gives_the_same_report(self, digits):
        model, images, labels = digits
        contents = []
        for _ in range(2):
            content = mart_tf.evaluate_robustness(
                model,
                (images, labels),
                _THREAT,
                "pgd:steps=3,cleverhans:pgd:nb_iter=3",
                seed=4,
                max_examples=100,
            ).as_json()
            del content["created"]
            for entry in [content["natural"], *content["attacks"]]:
                del entry["seconds"], entry["images_per_second"]
            contents.append(content)
        # Which images share a batch hangs on the speed of the cores, and the
        # last bits of a loss on that.
        one, other = (content.pop("traces") for content in contents)
        assert contents[0] == contents[1]
        for first, second in zip(one, other, strict=True):
            assert first.pop("losses") == pytest.approx(second.pop("losses"))
            assert first == second

    def test_an_evaluation_goes_on_with_the_batch_that_fits(
        self, digits, tmp_path
    ):
        model, images, labels = digits

        class Large(projected.PGD):
            """Fits in the memory of a core for 4 images."""

            def start(self, images, labels, seeds, number=0):
                if len(images) > 4:
                    raise MemoryError
                return super().start(images, labels, seeds, number)

        def evaluated(batch_size):
            attacks = ["fgsm", Large(steps=2)]
            return mart_tf.evaluate_robustness(
                model,
                (images[:100], labels[:100]),
                _THREAT,
                attacks,
                batch_size=batch_size,
                directory=tmp_path,
            )

        with pytest.raises(MemoryError) as caught:
            evaluated(100)
        assert "--batch_size of at most 50" in caught.value.__notes__[0]
        assert evaluated(4).as_json()["settings"]["batch_size"] == 4
        assert not (tmp_path / "partial").exists()

    def test_takes_every_form_of_data(self, digits):
        model, images, labels = digits
        images, labels = images[:60], labels[:60]
        rows = np.arange(60, dtype=np.int64)
        weights = np.ones(60, np.float32)
        outcomes = [
            mart_tf.evaluate_robustness(
                model, data, _THREAT, "pgd:steps=3", batch_size=25
            ).outcomes["pgd:steps=3"]
            for data in [
                (images, labels),
                (images.astype("float64"), labels[:, None].astype("int64")),
                (images, keras.utils.to_categorical(labels, 10)),
                tf.data.Dataset.from_tensor_slices((images, labels)).batch(16),
                tf.data.Dataset.from_tensor_slices(
                    ({"image": images, "index": rows}, labels, weights)
                ).batch(16),
            ]
        ]
        assert 0 < outcomes[0].sum() < 60
        for outcome in outcomes[1:]:
            np.testing.assert_array_equal(outcome, outcomes[0])

    def test_leaves_out_what_fills_a_batch_up(self):
        images = np.arange(7, dtype=np.float32)[:, None] / 10
        labels = np.arange(7) % 2
        weights = np.array([1, 1, 0.5, 1, 1, 0, 0], np.float32)
        data = tf.data.Dataset.from_tensor_slices((images, labels, weights))
        for given in (data.batch(4), data.batch(3)):
            *taken, _ = arrays.arrays(given)
            np.testing.assert_array_equal(taken[0], images[:5])
            np.testing.assert_array_equal(taken[1], labels[:5])
        few, _, more = arrays.arrays(data.batch(3).repeat(), max_examples=6)
        np.testing.assert_array_equal(few, images[[0, 1, 2, 3, 4, 0]])
        assert more
        for count in (4, 5, 6):
            *_, more = arrays.arrays(data.batch(4), max_examples=count)
            assert more == (count < 5)
            *_, more = arrays.arrays((images[:5], labels[:5]), count)
            assert more == (count < 5)

    def test_takes_the_first_examples(self, digits):
        model, images, labels = digits
        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
        report = mart_tf.evaluate_robustness(
            model, data.repeat(), _THREAT, [], max_examples=20
        )
        np.testing.assert_array_equal(
            report.outcomes["natural"],
            model.predict(images[:20], verbose=0).argmax(1) == labels[:20],
        )

    def test_probabilities_count_as_their_logits(self, digits):
        model, images, labels = digits
        softmax = keras.Sequential([model, keras.layers.Softmax()])
        expected, declared = (
            mart_tf.evaluate_robustness(
                network, (images, labels), _THREAT, "pgd:steps=5", outputs=kind
            ).outcomes["pgd:steps=5"]
            for network, kind in [(model, None), (softmax, "probabilities")]
        )
        np.testing.assert_array_equal(declared, expected)

    def test_an_adversarial_classifier_says_what_it_returns(self, digits):
        model, images, labels = digits
        softmax = keras.Sequential([model, keras.layers.Softmax()])
        trained = mart_tf.AdversarialClassifier(
            softmax, threat=_THREAT, outputs="probabilities"
        )
        report = mart_tf.evaluate_robustness(
            trained, (images, labels), _THREAT, "fgsm"
        )
        assert report.model["outputs"] == "probabilities"
        assert report.accuracy["fgsm"] < report.accuracy["natural"]

    def test_a_mixed_precision_network_is_evaluated_in_float32(self):
        images = np.random.default_rng(0).random((40, 6), np.float32)
        labels = (images[:, 0] > 0.5).astype("int32")

        def build(policy):
            return keras.Sequential(
                [
                    keras.Input((6,)),
                    keras.layers.Dense(16, activation="relu", dtype=policy),
                    keras.layers.Dense(2, dtype="float32"),
                ]
            )

        mixed, exact = build("mixed_bfloat16"), build("float32")
        exact.set_weights(mixed.get_weights())
        samples = [
            mart_tf.evaluate_robustness(
                model, (images, labels), _THREAT, "pgd:steps=4"
            ).samples
            for model in (mixed, exact)
        ]
        np.testing.assert_array_equal(
            samples[0].adversarial, samples[1].adversarial
        )

    def test_leaves_the_network_as_it_was(self, digits):
        model, images, labels = digits
        before = [np.array(variable) for variable in model.variables]
        mart_tf.evaluate_robustness(
            model, (images, labels), _THREAT, "fgsm,cleverhans:fgm"
        )
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)

    def test_a_network_that_is_always_wrong_is_reported(self, digits, tmp_path):
        model, images, labels = digits
        wrong = (model.predict(images, verbose=0).argmax(1) + 1) % 10
        report = mart_tf.evaluate_robustness(
            model, (images, wrong), _THREAT, "fgsm,cleverhans:fgm"
        )
        assert set(report.accuracy.values()) == {0.0}
        report.save(tmp_path / "out")
        assert not (tmp_path / "out" / "examples.png").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": lambda x: (x * 255).astype("uint8")}, "are uint8"),
            ({"images": lambda x: (x * 16).astype("int64")}, "are int64"),
            ({"images": lambda x: x * 16}, "lie in [0, 16]"),
            ({"images": lambda x: x * np.nan}, "hold NaN"),
            ({"images": lambda x: x[:, :7]}, "have shape (7, 8, 1)"),
            ({"images": lambda x: x[:0]}, "0 images and 30 labels"),
            ({"labels": lambda y: y + 1}, "The labels hold 10"),
            ({"labels": lambda y: y[1:]}, "30 images and 29 labels"),
            ({"class_names": ["a", "b"]}, "10 outputs and the data 2"),
            ({"outputs": "logit"}, "did you mean 'logits'?"),
            ({"outputs": "probabilities"}, "are not probabilities"),
            ({"batch_size": 0}, "batch_size is 0"),
            ({"max_examples": 0}, "max_examples is 0"),
            ({"attacks": "pdg"}, "did you mean 'pgd'?"),
            ({"attacks": "pgd:step_size=0"}, "'pgd:step_size=0': Attack step"),
            ({"attacks": "pgd:steps_per_epsilon=0"}, "steps_per_epsilon is 0"),
            ({"attacks": "cleverhans:pgd:eps_iter=0.2"}, "eps_iter is 0.2"),
            ({"model": lambda images: images}, "scores of shape (2, 8, 8, 1)"),
            ({"model": 7}, "The model is a int; expected a Keras model"),
            ({"dataset": [1, 2, 3]}, "The dataset is a list"),
            ({"labels": lambda y: y.astype(str)}, "are <U11; expected integ"),
            (
                {"dataset": ([[1.0], [1.0, 0.5]], [0, 1])},
                "The images are of several shapes",
            ),
        ],
    )
    def test_refuses(self, digits, change, message):
        model, images, labels = digits
        change = {"attacks": "fgsm", **change}
        images = change.pop("images", np.asarray)(images[:30])
        labels = change.pop("labels", np.asarray)(
            np.append(labels[:29], 9).astype("int32")
        )
        model = change.pop("model", model)
        dataset = change.pop("dataset", (images, labels))
        with pytest.raises(ValueError) as error:
            mart_tf.evaluate_robustness(model, dataset, _THREAT, **change)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_refuses_an_undeclared_softmax(self, digits):
        model, images, labels = digits
        softmax = keras.Sequential([model, keras.layers.Softmax()])
        with pytest.raises(ValueError, match='declare outputs="probabilities"'):
            mart_tf.evaluate_robustness(softmax, (images, labels), _THREAT)

    def test_refuses_dlr_for_two_classes_before_any_work(self):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        with pytest.raises(ValueError, match="at least 3 classes, got 2"):
            mart_tf.evaluate_robustness(
                model,
                (np.ones([4, 3], np.float32), np.zeros(4, int)),
                _THREAT,
                "fgsm,pgd:objective=dlr",
            )

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            (lambda data: data.unbatch(), "gives one example at a time"),
            (lambda data: data.map(lambda x, y: x), "has images alone"),
            (
                lambda data: data.map(lambda x, y: ({"pixels": x}, y)),
                "inputs are 'pixels'; expected \"image\" among them",
            ),
        ],
    )
    def test_refuses_a_dataset_of_another_form(self, digits, form, message):
        model, images, labels = digits
        data = tf.data.Dataset.from_tensors((images, labels))
        with pytest.raises(ValueError, match=message):
            mart_tf.evaluate_robustness(model, form(data), _THREAT)

    def test_one_attack_and_one_radius_need_no_list(self, digits):
        model, images, labels = digits
        report = mart_tf.evaluate_robustness(
            model,
            (images[:30], labels[:30]),
            _THREAT,
            attacks.PGD(steps=2),
            epsilon_sweep=0.1,
        )
        assert [result.name for result in report.results[1:]] == ["PGD:steps=2"]
        assert report.sweep.epsilons == (0.1,)

    def test_refuses_data_without_end(self, digits):
        model, images, labels = digits
        data = tf.data.Dataset.from_tensors((images, labels)).repeat()
        with pytest.raises(ValueError, match="never ends; give max_examples"):
            mart_tf.evaluate_robustness(model, data, _THREAT)


class TestReport:
    def test_reports_an_l2_threat_model_under_every_attack(
        self, digits, tmp_path
    ):
        model, images, labels = digits
        threat = mart_tf.ThreatModel("l2", 0.8)
        names = [
            "fgsm",
            "pgd",
            "cw",
            "momentum",
            "apgd:steps=20",
            "apgd_t:steps=10:targets=3",
            "fab_t:steps=10:targets=3",
            "cleverhans:fgm",
            "cleverhans:pgd",
            "cleverhans:bim",
            "cleverhans:mim",
        ]
        report = mart_tf.evaluate_robustness(
            model, (images[:100], labels[:100]), threat, names
        )
        assert "100 examples, l2, epsilon 0.8" in str(report)
        content = report.as_json()
        assert content["threat_model"]["norm"] == "l2"
        accuracy = report.accuracy
        for name in names:
            assert 0.0 < accuracy[name] < accuracy["natural"] - 0.2
        # One optimum, whoever looks for it.
        assert accuracy["pgd"] == pytest.approx(
            accuracy["cleverhans:pgd"], abs=0.03
        )
        moved = report.samples.adversarial - report.samples.natural
        assert np.sqrt((moved**2).sum(axis=(1, 2, 3))).max() <= 0.8 + 1e-6
        page = (report.save(tmp_path) / "report.md").read_text("utf-8")
        assert "l2, epsilon 0.8" in page

    def test_samples_show_broken_and_standing_examples(self, report):
        samples = report.samples
        assert samples.accuracy == min(
            result.accuracy for result in report.results
        )
        broken = samples.predictions != samples.labels
        assert broken.tolist() == [True] * 4 + [False] * 4
        difference = np.abs(samples.adversarial - samples.natural)
        assert 0 < difference.max() <= 0.1 + 1e-6


class TestPieces:
    def test_pieces_together_are_the_whole(self):
        sizes = []

        def function(images, state):
            sizes.append(images.shape[0])
            return {"sum": images + state["shift"]}, state["shift"]

        images = np.arange(17, dtype=np.float32)
        state = {"shift": tf.constant(images[::-1])}
        total, shift = shares.split(function)(tf.constant(images), state)
        assert sizes == [8, 9]
        np.testing.assert_array_equal(total["sum"], np.full(17, 16.0))
        np.testing.assert_array_equal(shift, images[::-1])

    def test_a_batch_of_unknown_size_stays_whole(self):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def double(images):
            return shares.split(lambda images: 2 * images)(images)

        assert double(np.ones(40, np.float32)).numpy().tolist() == [2.0] * 40

    @pytest.mark.parametrize("cores", [1, 3])
    def test_a_share_for_each_core_where_operations_keep_to_one(
        self, cores, monkeypatch
    ):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda process: set(range(cores))
        )
        monkeypatch.setattr(
            tf.config.threading, "get_intra_op_parallelism_threads", lambda: 1
        )
        sizes = []

        def function(images):
            sizes.append(images.shape[0])
            return images

        shares.split(function)(tf.zeros([60]))
        assert sizes == {1: [60], 3: [20] * 3}[cores]
