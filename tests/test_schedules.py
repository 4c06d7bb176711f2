"""Learning-rate schedules: the rate of single steps, worked by hand."""

import math

import keras
import numpy as np
import pytest

from mart_tf.training import schedules


def rates(schedule, *steps):
    return [float(schedule(np.int64(step))) for step in steps]


def copy(schedule):
    """The schedule as a saved optimizer brings it back."""
    optimizer = keras.optimizers.SGD(schedule)
    config = keras.saving.serialize_keras_object(optimizer)
    return keras.saving.deserialize_keras_object(config)._learning_rate


class TestPiecewise:
    def test_falls_at_the_first_step_of_its_epochs(self):
        # Epochs of 10 steps: the third begins at step 20, the fifth at 40.
        schedule = schedules.create("piecewise:at=3+5", 0.1, 10, 6)
        np.testing.assert_allclose(
            rates(schedule, 0, 19, 20, 39, 40, 59),
            [0.1, 0.1, 0.01, 0.01, 0.001, 0.001],
            rtol=1e-6,
        )

    def test_warms_up_from_0(self):
        # Half an epoch: 5 of 10 steps, in fifths.
        schedule = schedules.create(
            "piecewise:at=3:factor=0.5:warmup_epochs=0.5", 0.1, 10, 6
        )
        steps = (0, 1, 4, 5, 19, 20)
        np.testing.assert_allclose(
            rates(schedule, *steps),
            [0.0, 0.02, 0.08, 0.1, 0.1, 0.05],
            rtol=1e-6,
        )
        assert rates(copy(schedule), *steps) == rates(schedule, *steps)

    @pytest.mark.parametrize("name", ["piecewise:at=5", "cosine"])
    @pytest.mark.parametrize(("epochs", "steps"), [(0.26, 3), (0.34, 3)])
    def test_warms_up_to_the_nearest_step(self, name, epochs, steps):
        # 2.6 and 3.4 of 10 steps: both are 3, the first at the full rate.
        schedule = schedules.create(
            f"{name}:warmup_epochs={epochs}", 0.3, 10, 6
        )
        np.testing.assert_allclose(
            rates(schedule, *range(steps + 1)), [0.0, 0.1, 0.2, 0.3], rtol=1e-6
        )

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("piecewise:at=90+75", "expected rising epochs from 2 on"),
            ("piecewise:at=1", "at is 1; expected a whole number from 2 to"),
            ("piecewise:at=3:factor=0", "factor is 0; expected a number above"),
            (
                "piecewise:at=3:warmup_epochs=2",
                "warmup_epochs=2; expected at least 0 and fewer than 2 epochs, "
                "those before the rate first falls",
            ),
            ("piecewise:warmup_epochs=-1", "warmup_epochs is -1; expected"),
        ],
    )
    def test_refuses_in_one_sentence(self, spec, message):
        with pytest.raises(ValueError, match=message):
            schedules.create(spec, 0.1, 10, 6)

    def test_refuses_no_epochs_at_all(self):
        with pytest.raises(ValueError, match="expected rising epochs"):
            schedules.piecewise(0.1, 10, 6, at=())


class TestCosine:
    def test_falls_from_the_full_rate_to_0(self):
        # 13 steps, 0 to 12: thirds of the way at 4 and 8, the middle at 6.
        schedule = schedules.create("cosine", 0.2, 13, 1)
        np.testing.assert_allclose(
            rates(schedule, 0, 4, 6, 8, 12, 13),
            [0.2, 0.15, 0.1, 0.05, 0.0, 0.0],
            atol=1e-8,
        )

    def test_warms_up_and_ends_at_the_final_share(self):
        # Epochs of 5 steps: 4 of warm-up, full at 4, the last step is 24,
        # so the middle is step 14.
        schedule = schedules.create(
            "cosine:warmup_epochs=0.8:final=0.1", 0.2, 5, 5
        )
        steps = (0, 1, 3, 4, 14, 24)
        np.testing.assert_allclose(
            rates(schedule, *steps),
            [0.0, 0.05, 0.15, 0.2, 0.11, 0.02],
            atol=1e-8,
        )
        assert rates(copy(schedule), *steps) == rates(schedule, *steps)

    def test_warms_up_by_a_share_of_the_run(self):
        # 40 steps: 0.15 of them are 6, full at 6, the last step is 39.
        schedule = schedules.create("cosine:warmup=0.15", 0.2, 10, 4)
        np.testing.assert_allclose(
            rates(schedule, 0, 3, 6, 17, 28, 39),
            [0.0, 0.1, 0.2, 0.15, 0.05, 0.0],
            atol=1e-8,
        )
        # Wang et al. (ICML 2023): 39,200 steps.
        by_share = schedules.create("cosine:warmup=0.025", 0.2, 98, 400)
        by_epochs = schedules.create("cosine:warmup_epochs=10", 0.2, 98, 400)
        assert by_share.get_config() == by_epochs.get_config()
        assert by_share.warmup_steps == 980

    def test_is_the_formula_at_every_step(self):
        schedule = schedules.cosine(0.3, 7, 4, 1.0, 0.05)
        for step in range(28):
            if step < 7:
                expected = 0.3 * step / 7
            else:
                half = (1 + math.cos(math.pi * (step - 7) / 20)) / 2
                expected = 0.3 * (0.05 + 0.95 * half)
            [rate] = rates(schedule, step)
            assert rate == pytest.approx(expected, abs=1e-7)

    def test_a_run_of_one_step_takes_it_at_the_full_rate(self):
        assert rates(schedules.cosine(0.5, 1, 1), 0) == [0.5]
        assert rates(schedules.cosine(0.5, 2, 2, 1.5), 3) == [0.5]

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("cosine:final=1.5", "final is 1.5; expected a number from"),
            ("cosine:final=nan", "final is nan; expected a number"),
            (
                "cosine:warmup_epochs=6",
                "warmup_epochs=6; expected at least 0 and fewer than 6 epochs, "
                "those of the run",
            ),
            ("cosine:warmup=1", "warmup=1; expected a share of the run, at"),
            ("cosine:warmup=-0.1", "warmup is -0.1; expected a number from"),
            (
                "cosine:warmup=0.1:warmup_epochs=1",
                "has warmup=0.1, a share of the run, and warmup_epochs=1; give",
            ),
            ("cosine:at=3", "has no option 'at'"),
            ("cosine:epochs=3", "has no option 'epochs'"),
        ],
    )
    def test_refuses_in_one_sentence(self, spec, message):
        with pytest.raises(ValueError, match=message):
            schedules.create(spec, 0.1, 10, 6)


def test_an_optimizer_takes_the_rate_of_the_steps_before_it():
    # Plain descent on a gradient of 1: w falls by the sum of the rates,
    # 0 + 0.1 + 0.2 + 0.2 and then, in the second epoch, 0.02.
    schedule = schedules.create("piecewise:at=2:warmup_epochs=0.5", 0.2, 4, 2)
    optimizer = keras.optimizers.SGD(schedule)
    weight = keras.Variable([1.0])
    for _ in range(5):
        optimizer.apply([keras.ops.ones(1)], [weight])
    np.testing.assert_allclose(weight, [1.0 - 0.52], rtol=1e-6)


@pytest.mark.parametrize(
    "spec", ["piecewise:at=2:warmup_epochs=0.5", "cosine:warmup_epochs=0.5"]
)
def test_a_saved_model_keeps_its_schedule(spec, tmp_path):
    schedule = schedules.create(spec, 0.2, 4, 2)
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    model.fit(np.ones([6, 2]), np.ones([6, 1]), batch_size=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 3
    assert float(loaded.optimizer.learning_rate) == pytest.approx(
        float(model.optimizer.learning_rate)
    )
    steps = range(9)
    assert rates(loaded.optimizer._learning_rate, *steps) == rates(
        schedule, *steps
    )


def test_schedules_of_keras_are_refused():
    with pytest.raises(ValueError, match="CosineDecay' is Keras's, which does"):
        schedules.create("keras.optimizers.schedules:CosineDecay", 0.1, 10, 6)


class TestOneCycle:
    def test_rises_and_falls_in_straight_lines(self):
        # 10 steps, the peak after 4: quarters up, sixths down.
        schedule = schedules.create("onecycle:peak=0.4", 0.6, 5, 2)
        np.testing.assert_allclose(
            rates(schedule, 0, 2, 3, 4, 7, 9),
            [0.15, 0.45, 0.6, 0.6, 0.3, 0.1],
            rtol=1e-6,
        )

    def test_is_never_above_the_full_rate(self):
        # The peak lies at step 10.4, between two steps.
        schedule = schedules.onecycle(0.5, 13, 2)
        assert max(rates(schedule, *range(26))) == 0.5

    def test_ends_at_0_and_stays_there(self):
        # A model that is saved and fitted again goes on with its steps.
        schedule = schedules.create("onecycle:peak=0.4", 0.6, 5, 2)
        assert rates(schedule, 10, 11, 400) == [0.0, 0.0, 0.0]

    def test_is_saved_with_an_optimizer(self):
        schedule = schedules.onecycle(0.2, 7, 3, 0.5)
        steps = (0, 5, 11, 20)
        assert rates(copy(schedule), *steps) == rates(schedule, *steps)

    @pytest.mark.parametrize("peak", [0.0, 1.0, -0.5])
    def test_refuses_a_peak_outside_the_run(self, peak):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            schedules.onecycle(0.1, 5, 2, peak)
