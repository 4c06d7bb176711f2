"""Signs of gradient masking: of real attacks, and of made-up outcomes."""

import dataclasses
import re
import types

import linear
import made_reports
import numpy as np
import pytest

import mart_tf
from mart_tf import attacks
from mart_tf.attacks import autoattack
from mart_tf.evaluation import pieces
from mart_tf.reports import differences
from mart_tf.reports import masking
from mart_tf.reports import results

_EXAMPLES = 1000
_THREAT = mart_tf.ThreatModel(epsilon=0.3)
_FGSM = {"step_size": 0.3, "random_start": "none"}
_PGD = {"steps": 20, "step_size": 0.03, "objective": "cross_entropy"}


def _standing(count, first=0):
    """The outcome where `count` examples stand, from row `first` on."""
    outcome = np.zeros(_EXAMPLES, bool)
    outcome[first : first + count] = True
    return outcome


def _nature(name, parameters):
    """What the attack of that name says of itself with these parameters."""
    parts = name.split(":")
    own = ":".join(parts[: 2 if parts[0] == "cleverhans" else 1])
    # What a name with a space stands for is part of another.
    if own not in made_reports.NATURES or " " in name:
        return results.Nature(name)
    nature = made_reports.NATURES[own]
    steps = parameters.get("steps", parameters.get("nb_iter", nature.steps))
    reach = nature.reach
    if reach is not None:
        step = reach / nature.steps
        step = parameters.get("step_size", parameters.get("eps_iter", step))
        reach = steps * step
    objective = nature.objective
    if nature.kind in ("PGD", "APGD"):
        objective = parameters.get("objective", objective)
    restarts = parameters.get("restarts", nature.restarts)
    return dataclasses.replace(
        nature, steps=steps, reach=reach, objective=objective, restarts=restarts
    )


def _result(name, count, parameters=None, first=0, **settings):
    """A result of what the name says first, with these parameters."""
    parameters = parameters or {}
    return results.Result(
        name,
        _standing(count, first),
        parameters=parameters,
        nature=_nature(name, parameters),
        **settings,
    )


def _report(*others, sweep=None, traces=(), threat=_THREAT):
    natural = _result("natural", 990, access="none")
    return types.SimpleNamespace(
        results=(natural, *others), threat=threat, sweep=sweep, traces=traces
    )


def _sign(number, *others, chance=0.0, **settings):
    signs = masking.signs(_report(*others, **settings), chance)
    assert len(signs) == 7
    return signs[number - 1]


def _sweep(epsilons, accuracies, attack="pgd:steps=20"):
    return types.SimpleNamespace(
        attack=attack, epsilons=epsilons, accuracies=accuracies
    )


def _trace(losses, attack="pgd:steps=20"):
    return types.SimpleNamespace(
        attack=attack, losses=np.array(losses), examples=_EXAMPLES
    )


class TestNatures:
    @pytest.mark.parametrize("text", made_reports.NATURES)
    def test_an_attack_says_what_the_table_says_by_hand(self, text):
        spec = attacks.resolve(text)
        attack = attacks.create(spec).on(lambda images: images, _THREAT, 10)
        expected = made_reports.NATURES[text]
        expected = dataclasses.replace(
            expected, reach=pytest.approx(expected.reach)
        )
        assert pieces.nature(attack) == expected
        # And so do the results that are made up here.
        assert _nature(spec.name, spec.options) == expected

    def test_a_real_evaluation_asks_what_it_has_run(self):
        """A linear network: its gradients hide nothing."""
        images = np.random.default_rng(1).random((400, linear.PIXELS), "f4")

        def classify(images):
            return images @ linear.KERNEL + linear.BIAS

        labels = classify(images).argmax(1)
        report = mart_tf.evaluate_robustness(
            classify, (images, labels), linear.THREAT, batch_size=400
        )
        assert 0.1 < report.accuracy["pgd:steps=20"] < 0.9
        more_steps, cross_entropy = report.signs[0], report.signs[6]
        assert more_steps.verdict == cross_entropy.verdict == "passed"
        compared = [
            re.findall(r"under (\S+?)[.,]( |$)", sign.evidence)
            for sign in (more_steps, cross_entropy)
        ]
        assert [[name for name, _ in found] for found in compared] == [
            ["fgsm", "pgd:steps=20", "pgd:steps=100"],
            ["pgd:steps=20", "cw"]
            + [f"cleverhans:{name}" for name in ("pgd", "bim", "mim")],
        ]


class TestPairs:
    def test_the_exact_probability(self):
        # 9 or more heads in 10 throws: 11 of 1024, just above 1 %.
        first, second = np.ones(100, bool), np.ones(100, bool)
        first[:9] = False
        second[9] = False
        assert differences.discordant(first, second) == (9, 1)
        assert not differences.is_stronger(first, second, 0.005)
        # 7 of 7: 1 of 128, below 1 %; 6 of 6: 1 of 64.
        assert differences.is_stronger(_standing(993), _standing(1000), 0.005)
        assert not differences.is_stronger(
            _standing(994), _standing(1000), 0.005
        )

    def test_the_least_size(self):
        # 500 to 450 of 950 is 5 points of 1000 examples, and 5.3 % likely;
        # 530 to 420 is 11 points, and likely 2 in 10,000.
        def pair(alone, other):
            first, second = np.ones(1000, bool), np.ones(1000, bool)
            first[:alone] = False
            second[alone : alone + other] = False
            return first, second

        assert not differences.is_stronger(*pair(500, 450), 0.005)
        assert differences.is_stronger(*pair(530, 420), 0.005)
        assert not differences.is_stronger(*pair(530, 420), 0.111)
        assert not differences.is_stronger(*pair(420, 530), 0.005)

    def test_is_exact_for_many_discordant_examples(self):
        # 5117 or more heads in 10,000 throws: 0.99 %; 5116: 1.04 % (scipy).
        first, second = np.ones(10_000, bool), np.ones(10_000, bool)
        first[:5117] = False
        second[5117:] = False
        assert differences.is_stronger(first, second, 0.005)
        first[5116], second[5116] = True, False
        assert not differences.is_stronger(first, second, 0.005)

    def test_accuracies_alone(self):
        # Deviation of the difference at 50 % of 1000: 2.2 points.
        assert not differences.exceeds(0.55, 0.50, 1000, 0.005)
        assert differences.exceeds(0.56, 0.50, 1000, 0.005)
        assert not differences.exceeds(0.004, 0.0, 10**6, 0.005)


class TestSigns:
    def test_nothing_ran(self):
        signs = masking.signs(_report())
        assert [sign.verdict for sign in signs] == ["not tested"] * 7
        assert all(sign.evidence.endswith(".") for sign in signs)
        assert all(sign.question.endswith("?") for sign in signs)

    def test_a_sound_network_passes_all(self):
        parts = (
            _result("autoattack: apgd_ce", 530),
            _result("autoattack: fab_t", 505),
            _result("autoattack: square", 503, access="queries"),
        )
        sound = _report(
            _result("fgsm", 600, _FGSM),
            _result("pgd:steps=20", 540, _PGD | {"restarts": 1}),
            _result("pgd:steps=100", 538, _PGD | {"steps": 100, "restarts": 1}),
            _result("pgd:restarts=5", 531, _PGD | {"restarts": 5}),
            _result("cw", 520, _PGD),
            _result("square", 560, access="queries"),
            _result("transfer:pgd", 800, access="surrogate"),
            _result("autoattack", 503, parts=parts),
            sweep=_sweep((0.1, 0.3, 0.5), (0.7, 0.5, 0.02)),
            traces=(_trace([0.5, 0.8, 1.1, 1.09, 1.2]),),
        )
        signs = masking.signs(sound)
        assert [sign.verdict for sign in signs] == ["passed"] * 7
        assert signs[0].evidence == (
            "Accuracy is 60.00% under fgsm, 54.00% under pgd:steps=20, 53.10% "
            "under pgd:restarts=5, 53.80% under pgd:steps=100."
        )
        assert signs[2].evidence == (
            "Accuracy is 50.50% under all gradient attacks together, 50.30% "
            "under autoattack: square."
        )
        assert signs[5].evidence == (
            "Accuracy is 52.00% under cw, 50.30% under autoattack."
        )

    def test_a_masked_network_is_caught(self):
        # Saturated: the gradients are 0, and only queries get through.
        parts = (
            _result("autoattack: apgd_ce", 880),
            _result("autoattack: square", 3, access="queries"),
        )
        masked = _report(
            _result("fgsm", 900, _FGSM),
            _result("pgd:steps=20", 890, _PGD),
            _result("autoattack", 3, parts=parts),
            traces=(_trace([0.3, 0.3, 0.3]),),
        )
        verdicts = [sign.verdict for sign in masking.signs(masked)]
        assert verdicts == [
            "passed",
            "not tested",
            "failed",
            "not tested",
            "failed",
            "failed",
            "not tested",
        ]


class TestMoreSteps:
    def test_fgsm_stronger_than_pgd_fails(self):
        sign = _sign(
            1, _result("fgsm", 500, _FGSM), _result("pgd", 560, _PGD, 0)
        )
        assert sign.verdict == "failed"
        assert sign.evidence == (
            "Accuracy is 50.00% under fgsm, 56.00% under pgd: 60 examples fall "
            "to the first alone, 0 to the second alone."
        )

    def test_a_difference_within_noise_passes(self):
        sign = _sign(1, _result("fgsm", 500, _FGSM), _result("pgd", 505, _PGD))
        assert sign.verdict == "passed"

    def test_more_steps_of_pgd(self):
        few = _result("pgd:steps=20", 500, _PGD)
        many = _result("pgd:steps=100", 520, _PGD | {"steps": 100})
        assert _sign(1, many, few).verdict == "failed"

    @pytest.mark.parametrize(
        "parameters",
        [
            # Too short to cross the ball from where it starts.
            _PGD | {"steps": 19},
            _PGD | {"objective": "dlr"},
        ],
    )
    def test_fgsm_beside_another_kind_of_pgd_is_not_tested(self, parameters):
        sign = _sign(
            1, _result("fgsm", 500, _FGSM), _result("pgd", 700, parameters)
        )
        assert sign.verdict == "not tested"
        assert "run fgsm and pgd:steps=100 beside pgd:steps=20" in sign.evidence

    def test_other_settings_are_not_compared(self):
        sign = _sign(
            1,
            _result("pgd:steps=20", 500, _PGD),
            _result("pgd:b", 700, _PGD | {"steps": 100, "step_size": 0.001}),
        )
        assert sign.verdict == "not tested"

    def test_the_option_of_the_steps_may_have_any_name(self):
        # Of an attack of one's own.
        few, many = (
            dataclasses.replace(
                _result(f"pgd:count={count}", left, {"count": count, "r": 9}),
                nature=results.Nature(
                    "Own", count, plain=True, reach=0.03 * count
                ),
            )
            for count, left in [(9, 500), (90, 480)]
        )
        assert _sign(1, few, many).verdict == masking.PASSED
        other = dataclasses.replace(many, parameters={"count": 90, "r": 8})
        assert _sign(1, few, other).verdict == masking.NOT_TESTED

    def test_a_transfer_is_no_attack_of_this_kind(self):
        sign = _sign(
            1,
            _result("fgsm", 500, _FGSM),
            _result("pgd", 700, _PGD, access="surrogate"),
        )
        assert sign.verdict == "not tested"


class TestBlackBox:
    def test_a_stronger_transfer_fails(self):
        white = [_result("fgsm", 600), _result("pgd", 550)]
        black = _result("transfer:pgd", 500, access="surrogate")
        weak = _result("transfer:fgsm", 800, access="surrogate")
        sign = _sign(2, *white, weak, black)
        assert sign.verdict == "failed"
        assert "55.00% under all gradient attacks together" in sign.evidence
        assert "50.00% under transfer:pgd" in sign.evidence
        assert _sign(2, *white, weak).verdict == "passed"

    def test_gradient_attacks_count_together(self):
        # Each breaks another half: nothing stands under both.
        white = [_result("pgd", 500), _result("cw", 500, first=500)]
        square = _result("square", 200, access="queries")
        assert _sign(3, *white, square).verdict == "passed"
        assert _sign(3, white[0], square).verdict == "failed"

    def test_what_queries_break_alone_counts_in_pairs(self):
        # 20 examples either way: as strong, though other ones fall.
        pgd = _result("pgd", 500)
        square = _result("square", 500, first=20, access="queries")
        assert _sign(3, pgd, square).verdict == "passed"

    def test_inside_an_ensemble_it_must_not_break_what_others_left(self):
        def ensemble(left):
            return _result(
                "autoattack",
                left,
                parts=(
                    _result("autoattack: apgd_ce", 500),
                    _result("autoattack: square", left, access="queries"),
                ),
            )

        assert _sign(3, ensemble(495)).verdict == "passed"
        sign = _sign(3, ensemble(493))
        assert sign.verdict == "failed"
        assert sign.evidence == (
            "Accuracy is 49.30% under autoattack: square, 50.00% under all "
            "gradient attacks together: 7 examples fall to the first alone, 0 "
            "to the second alone."
        )
        # PGD had broken those 7 too.
        assert _sign(3, ensemble(493), _result("pgd", 490)).verdict == "passed"

    def test_inside_an_ensemble_it_had_none_of_what_others_broke(self):
        # Of 500 that apgd_ce left, Square breaks 7. PGD breaks 10 others,
        # which Square, inside, was not asked to break: they speak for neither.
        ensemble = _result(
            "autoattack",
            493,
            parts=(
                _result("autoattack: apgd_ce", 500),
                _result("autoattack: square", 493, access="queries"),
            ),
        )
        pgd = _result("pgd", 990, first=10)
        sign = _sign(3, ensemble, pgd)
        assert sign.verdict == "failed"
        assert "7 examples fall to the first alone, 0 to the" in sign.evidence
        # On its own it was asked, and did not.
        alone = _result("square", 493, access="queries")
        sign = _sign(3, _result("apgd", 500), pgd, alone)
        assert sign.verdict == "passed"

    def test_all_gradient_attacks_before_queries_count(self):
        # Cumulative: the last of them has what the first had broken.
        ensemble = _result(
            "autoattack",
            480,
            parts=(
                _result("autoattack: apgd_ce", 500),
                _result("autoattack: apgd_t", 490),
                _result("autoattack: square", 485, access="queries"),
                _result("autoattack: fab_t", 480),
            ),
        )
        sign = _sign(3, ensemble)
        assert sign.verdict == "passed"
        assert "49.00% under all gradient attacks together" in sign.evidence

    def test_what_follows_queries_in_an_ensemble_counts_for_neither(self):
        ensemble = _result(
            "autoattack",
            100,
            parts=(
                _result("autoattack: square", 400, access="queries"),
                _result("autoattack: apgd_ce", 100),
            ),
        )
        sign = _sign(3, ensemble, _result("pgd", 450))
        assert sign.verdict == "failed"
        assert "45.00% under all gradient attacks together" in sign.evidence

    def test_an_attack_that_minimises_distance_is_left_out(self):
        distances = _result("cw_l2", 0, norm="l2")
        square = _result("square", 400, access="queries")
        sign = _sign(3, distances, _result("pgd", 450), square)
        assert sign.verdict == "failed"


class TestGrowingEpsilon:
    @pytest.mark.parametrize(
        ("epsilons", "accuracies", "verdict", "said"),
        [
            ((0.1, 0.3), (0.8, 0.049), "passed", "4.90% at epsilon 0.3"),
            ((0.1, 0.3), (0.8, 0.6), "not tested", "sweep up to 0.5"),
            ((0.1, 0.5), (0.8, 0.3), "failed", "expected at most 5.00%"),
            ((0.1, 0.5), (0.8, 0.055), "passed", "5.50% at epsilon 0.5"),
            ((0.1, 0.2, 0.5), (0.5, 0.6, 0.0), "failed", "more, 60.00%, at"),
            (
                (0.1, 0.2, 0.5),
                (0.5, 0.504, 0.0),
                "passed",
                "0.00% at epsilon 0.5, where the sweep ends, and never rises "
                "by more than noise.",
            ),
            # Up by 4 points and by 4 again: more than noise in all.
            ((0.1, 0.2, 0.3), (0.5, 0.54, 0.58), "failed", "0.1 and more"),
        ],
    )
    def test_linf(self, epsilons, accuracies, verdict, said):
        sign = _sign(4, sweep=_sweep(epsilons, accuracies))
        assert sign.verdict == verdict
        assert said in sign.evidence

    def test_chance_is_the_line_where_grey_is_in_reach(self):
        sweep = _sweep((0.1, 0.5), (0.9, 0.4))
        assert _sign(4, sweep=sweep, chance=1 / 2).verdict == "passed"
        assert _sign(4, sweep=sweep, chance=1 / 3).verdict == "failed"
        early = _sweep((0.1, 0.4), (0.9, 0.4))
        assert _sign(4, sweep=early, chance=1 / 2).verdict == "not tested"

    @pytest.mark.parametrize(("frequent", "verdict"), [(8, 0), (4, 1)])
    def test_chance_is_the_share_of_the_commonest_class(
        self, frequent, verdict
    ):
        """A constant answer is right for 8 of 10, and hides nothing."""
        right = np.arange(10) < 9
        report = made_reports.full(
            labels=np.array([1] * frequent + [0, 2, 3, 0, 2, 3])[:10],
            sweep=results.Sweep("pgd", (0.1, 0.5), np.stack([right, right])),
        )
        assert report.signs[3].verdict == ("passed", "failed")[verdict]

    def test_half_of_another_pixel_range(self):
        threat = mart_tf.ThreatModel("linf", 0.3, -1.0, 1.0)
        sweep = _sweep((0.1, 0.5), (0.8, 0.3))
        sign = _sign(4, sweep=sweep, threat=threat)
        assert sign.verdict == "not tested"
        assert sign.evidence.endswith("sweep up to 1.")

    def test_in_l2_only_near_zero_tells(self):
        threat = mart_tf.ThreatModel("l2", 1.0)
        sweep = _sweep((1.0, 5.0), (0.8, 0.3))
        assert _sign(4, sweep=sweep, threat=threat).verdict == "not tested"
        sweep = _sweep((1.0, 5.0), (0.8, 0.01))
        assert _sign(4, sweep=sweep, threat=threat).verdict == "passed"


class TestRestartsAndLoss:
    _RISING = (_trace([0.2, 0.5, 0.9], "cw"),)
    _RESTARTS = _PGD | {"restarts": 5}
    _CW = _result("cw", 500)

    def test_one_start_that_ran_is_compared(self):
        single = _result("pgd", 560, _PGD | {"restarts": 1})
        few = _result("pgd:restarts=5", 520, self._RESTARTS)
        many = _result("pgd:restarts=5", 500, self._RESTARTS)
        sign = _sign(5, single, few, self._CW, traces=self._RISING)
        assert sign.verdict == "passed"
        assert sign.evidence == (
            "Accuracy is 56.00% under pgd, 52.00% under pgd:restarts=5. The "
            "loss rises from 0.2 to 0.9 along cw."
        )
        sign = _sign(5, single, many, self._CW, traces=self._RISING)
        assert sign.verdict == "failed"
        assert "60 examples fall to the first alone" in sign.evidence

    @pytest.mark.parametrize(
        ("late", "verdict"), [(50, "passed"), (60, "failed")]
    )
    def test_the_first_start_is_read_from_the_steps(self, late, verdict):
        broken_after = np.where(_standing(500), -1, 20).astype(np.int32)
        broken_after[500 : 500 + late] = 21
        result = _result(
            "pgd:restarts=5", 500, self._RESTARTS, broken_after=broken_after
        )
        sign = _sign(5, result, self._CW, traces=self._RISING)
        assert sign.verdict == verdict
        assert f"{(500 + late) / 1000:.2%} under the first start" in (
            sign.evidence
        )

    def test_the_single_start_of_another_attack_is_none(self):
        broken_after = np.where(_standing(500), -1, 20).astype(np.int32)
        restarted = _result(
            "pgd:restarts=5", 500, self._RESTARTS, broken_after=broken_after
        )
        single = _result("cw", 600, _PGD | {"restarts": 1})
        sign = _sign(5, single, restarted, traces=self._RISING)
        assert sign.verdict == "passed"
        assert "50.00% under the first start, 50.00% under" in sign.evidence

    def test_one_half_alone_does_not_pass(self):
        sign = _sign(5, self._CW, traces=self._RISING)
        assert sign.verdict == "not tested"
        assert sign.evidence == (
            "No attack was restarted: run pgd:steps=20:restarts=5. The loss "
            "rises from 0.2 to 0.9 along cw."
        )

    @pytest.mark.parametrize(
        "losses",
        [
            [0.5, 0.5, 0.5],
            [0.5, 0.7, 0.4],
            # Risen by 0.5 %.
            [1.0, 1.005],
            # Rises of 1.2, falls of 0.7.
            [0.5, 1.1, 0.4, 1.0],
            [0.5, float("nan"), 0.9],
            [0.5, float("nan")],
        ],
    )
    def test_a_loss_that_does_not_rise_fails(self, losses):
        sign = _sign(
            5,
            self._CW,
            _result("pgd:steps=20", 500, _PGD),
            traces=(*self._RISING, _trace(losses)),
        )
        assert sign.verdict == "failed"
        assert "along pgd:steps=20" in sign.evidence

    def test_it_need_not_rise_where_the_start_broke_nearly_all(self):
        flat = (_trace([4.0, 4.0]),)
        weak = _result("pgd:steps=20", 40, _PGD)
        assert "The loss rises" in _sign(5, weak, traces=flat).evidence
        assert _sign(5, weak, traces=flat).verdict == "not tested"

    def test_only_attacks_that_climb_are_asked(self):
        names = ("fab", "transfer:cw", "cw at 0.5", "autoattack: apgd_ce")
        ran = [_result(name, 500) for name in names if " " not in name]
        traces = tuple(_trace([0.9, 0.1], name) for name in names)
        sign = _sign(5, *ran, self._CW, traces=traces)
        assert sign.verdict == "not tested"
        assert "No loss was followed" in sign.evidence


class TestAutoAttack:
    @pytest.mark.parametrize(
        ("left", "verdict"), [(490, "passed"), (450, "passed"), (440, "failed")]
    )
    def test_the_strongest_of_pgd_and_cw_counts(self, left, verdict):
        sign = _sign(
            6,
            _result("pgd", 600, _PGD),
            _result("cw", 500),
            _result("autoattack:version=plus", left),
        )
        assert sign.verdict == verdict
        assert "50.00% under cw" in sign.evidence

    def test_few_examples_prove_nothing(self):
        # 6 of 20 are 30 points, and 6 heads in 6 throws are 1 in 64.
        def few(name, count):
            outcome = np.arange(20) < count
            return results.Result(name, outcome, nature=_nature(name, {}))

        ran = [few("natural", 20), few("pgd", 16), few("autoattack", 10)]
        report = types.SimpleNamespace(
            results=ran, threat=_THREAT, sweep=None, traces=()
        )
        assert masking.signs(report)[5].verdict == "passed"

    @pytest.mark.parametrize("version", ["standard", "plus", "rand"])
    def test_every_version_is_the_reference(self, version):
        assert autoattack.AutoAttack(version).reference

    @pytest.mark.parametrize(
        ("names", "is_reference"),
        [
            (("square",), False),
            (("apgd_ce", "square"), False),
            (("apgd_t", "fab_t"), False),
            (("apgd_ce", "apgd_t"), True),
            (("apgd_dlr", "apgd_ce"), True),
        ],
    )
    def test_an_ensemble_of_the_users_may_be(self, names, is_reference):
        made = autoattack.AutoAttack("custom", names)
        assert made.reference == is_reference

    def test_says_what_to_run(self):
        assert "run autoattack" in _sign(6, _result("cw", 500)).evidence
        sign = _sign(6, _result("autoattack", 500), _result("fgsm", 600, _FGSM))
        assert sign.verdict == "not tested"
        assert "run pgd:steps=100 beside autoattack" in sign.evidence


class TestCrossEntropy:
    """Sign 7: sound networks of the paper differ by up to 4.4 points."""

    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("pgd:steps=20", _PGD),
            ("apgd:steps=20", {"steps": 20, "objective": "cross_entropy"}),
            ("momentum", {"steps": 20}),
            ("cleverhans:pgd", {"nb_iter": 20}),
            ("cleverhans:mim:nb_iter=20", {"nb_iter": 20}),
        ],
    )
    @pytest.mark.parametrize(
        ("left", "verdict"), [(549, "passed"), (561, "failed")]
    )
    def test_of_as_many_steps(self, name, parameters, left, verdict):
        sign = _sign(
            7,
            _result(name, left, parameters),
            _result("cw", 500, {"steps": 20, "kappa": 50.0}),
        )
        assert sign.verdict == verdict
        assert f"{left / 10:.2f}% under {name}" in sign.evidence
        assert "50.00% under cw" in sign.evidence

    def test_the_margin_may_be_that_of_pgd(self):
        margin = _PGD | {"objective": "margin"}
        pair = _result("pgd", 600, _PGD), _result("pgd:o", 500, margin)
        assert _sign(7, *pair).verdict == "failed"

    @pytest.mark.parametrize(
        "parameters",
        [
            {"steps": 21, "objective": "cross_entropy"},
            {"steps": 20, "objective": "dlr"},
            {"steps": 20, "objective": "cross_entropy", "restarts": 5},
        ],
    )
    def test_others_are_not_compared(self, parameters):
        sign = _sign(
            7,
            _result("pgd:other", 900, parameters),
            _result("cw", 500, {"steps": 20}),
            _result("transfer:pgd", 900, _PGD, access="surrogate"),
        )
        assert sign.verdict == "not tested"
        assert "run cw:steps=20 beside pgd:steps=20" in sign.evidence

    @pytest.mark.parametrize(
        ("step_size", "verdict"), [(0.0015, "not tested"), (0.03, "failed")]
    )
    def test_steps_that_lead_nowhere_prove_nothing(self, step_size, verdict):
        # 20 of 0.0015 are a tenth of epsilon, 20 of 0.03 lead across the ball.
        pair = (
            _result("pgd:o", 900, _PGD | {"step_size": step_size}),
            _result("cw", 500, {"steps": 20, "step_size": 0.03}),
        )
        assert _sign(7, *pair).verdict == verdict

    def test_margin_alone_may_leave_more(self):
        # On natural networks the margin is often the harder to climb.
        pair = _result("pgd", 200, _PGD), _result("cw", 300, {"steps": 20})
        assert _sign(7, *pair).verdict == "passed"
