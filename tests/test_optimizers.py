"""Optimizers: three steps worked by hand, and what is refused."""

import subprocess
import sys

import keras
import linear
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import mart_tf
from mart_tf.runs import config as run_config
from mart_tf.training import optimizers


def weights(optimizer, gradients, start=1.0):
    """The weight after each step along the given gradients."""
    weight = keras.Variable([start])
    values = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [weight])
        values.append(float(weight[0]))
    return values


class TestSgd:
    # PyTorch's buffer b = momentum b + g, with momentum 0.5 and gradients
    # 1, 2, -4: 1, 2.5, -2.75.
    GRADIENTS = (1.0, 2.0, -4.0)

    def test_heavy_ball_is_pytorchs(self):
        # w = w - 0.1 b: 1 - 0.1, - 0.25, + 0.275.
        values = weights(
            optimizers.create("sgd:momentum=0.5", 0.1), self.GRADIENTS
        )
        np.testing.assert_allclose(values, [0.9, 0.65, 0.925], rtol=1e-6)

    def test_nesterov_is_pytorchs(self):
        # w = w - 0.1 (g + 0.5 b): 1 - 0.15, - 0.325, + 0.5375.
        values = weights(
            optimizers.create("sgd:momentum=0.5:nesterov=true", 0.1),
            self.GRADIENTS,
        )
        np.testing.assert_allclose(values, [0.85, 0.525, 1.0625], rtol=1e-6)

    def test_the_velocity_keeps_the_rate_it_was_made_at(self):
        # The rate falls from 1 to 0.1 after the first of three gradients of
        # 1: v = -1, -0.5 - 0.1, -0.3 - 0.1. PyTorch's steps would be -1,
        # -0.15, -0.175.
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [0], [1.0, 0.1]
        )
        values = weights(optimizers.sgd(schedule, momentum=0.5), [1.0] * 3)
        np.testing.assert_allclose(values, [0.0, -0.6, -1.0], atol=1e-6)

    def test_what_the_velocity_carries_past_a_fall_of_the_rate(self):
        # A gradient of 1 for ever, momentum 0.9, a rate that falls from 1 to
        # 0.1: v settles at -10, and after the fall gives 0.9 + 0.81 + ... = 9
        # times 10; PyTorch's buffer of 10, times the new rate, gives 9. The
        # difference, 81, is 81 steps at the new rate, each of 0.1 * 10 = 1.
        before, after = 300, 300
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [before - 1], [1.0, 0.1]
        )
        values = weights(optimizers.sgd(schedule), [1.0] * (before + after))
        buffer, pytorch = 0.0, 1.0
        for step in range(before + after):
            buffer = 0.9 * buffer + 1.0
            pytorch -= (1.0 if step < before else 0.1) * buffer
        np.testing.assert_allclose(pytorch - values[-1], 81.0, rtol=1e-3)

    def test_defaults(self):
        optimizer = optimizers.create("sgd", 0.1)
        assert (optimizer.momentum, optimizer.nesterov) == (0.9, False)
        assert optimizer.weight_decay is None


class TestAdam:
    def test_three_steps_worked_by_hand(self):
        # beta_1 = beta_2 = 1/2, gradients 1, 1, -3, rate 0.1. After bias
        # correction: m = 1, 1, (0.375 - 1.5) / 0.875 = -9/7 and
        # v = 1, 1, (0.375 + 4.5) / 0.875 = 39/7.
        values = weights(
            optimizers.create("adam:beta_1=0.5:beta_2=0.5", 0.1),
            [1.0, 1.0, -3.0],
        )
        third = 0.1 * (9 / 7) / (39 / 7) ** 0.5
        np.testing.assert_allclose(values, [0.9, 0.8, 0.8 + third], rtol=1e-6)

    def test_where_epsilon_stands(self):
        # The first step is rate g / (g + epsilon / sqrt(1 - beta_2)): with
        # g = epsilon and beta_2 = 3/4, a third of the rate.
        values = weights(
            optimizers.create("adam:beta_2=0.75:epsilon=1e-4", 0.3), [1e-4]
        )
        np.testing.assert_allclose(values, [0.9], rtol=1e-6)

    def test_defaults_are_the_papers(self):
        optimizer = optimizers.create("adam", 0.1)
        settings = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
        assert settings == (0.9, 0.999, 1e-8)


def adamw_by_hand(weights, gradients, rate, decay, beta_1, beta_2, epsilon):
    """Algorithm 2 of Loshchilov and Hutter (ICLR 2019), in float64.

    Their eta_t alpha is `rate`, their eta_t lambda `rate * decay`. Keras's
    epsilon stands beside sqrt(v), theirs beside sqrt(v / (1 - beta_2^t)).
    `gradients`: from weights to gradients.
    """
    weights = [np.asarray(w, "float64") for w in weights]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    for t in (1, 2):
        for i, g in enumerate(gradients(weights)):
            first[i] = beta_1 * first[i] + (1 - beta_1) * g
            second[i] = beta_2 * second[i] + (1 - beta_2) * g**2
            m = first[i] / (1 - beta_1**t)
            v = second[i] / (1 - beta_2**t)
            beside = epsilon / np.sqrt(1 - beta_2**t)
            weights[i] = weights[i] - (
                rate * m / (np.sqrt(v) + beside) + rate * decay * weights[i]
            )
    return weights


def gradients_by_hand(weights):
    """Of the weighted mean cross-entropy of the linear network."""
    kernel, bias = weights
    p = scipy.special.softmax(linear.IMAGES @ kernel + bias, axis=1)
    scale = linear.SAMPLE_WEIGHT[:, None] / linear.EXAMPLES
    errors = scale * (p - linear.one_hot(linear.LABELS))
    return [linear.IMAGES.T @ errors, errors.sum(0)]


class TestAdamW:
    SPEC = "adamw:weight_decay=0.5:beta_1=0.5:beta_2=0.75:epsilon=0.02"

    def test_two_steps_of_a_linear_network_equal_the_papers(self, strategy):
        """On one replica and on two, kernel and bias."""
        with strategy.scope():
            model = mart_tf.AdversarialClassifier(
                linear.linear_network(), "natural", linear.THREAT
            )
            model.compile(optimizers.create(self.SPEC, 0.1))
        batch = tf.data.Dataset.from_tensor_slices(
            (linear.IMAGES, linear.LABELS, linear.SAMPLE_WEIGHT)
        ).batch(linear.EXAMPLES)
        model.fit(batch, epochs=2, shuffle=False, verbose=0)
        start = [linear.KERNEL, linear.BIAS]
        settings = (gradients_by_hand, 0.1, 0.5, 0.5, 0.75, 0.02)
        expected = adamw_by_hand(start, *settings)
        for new, own in zip(
            model.classifier.get_weights(), expected, strict=True
        ):
            np.testing.assert_allclose(new, own, atol=1e-5)

    def test_the_decay_follows_the_schedule_and_not_the_gradient(self):
        # Without a gradient the step is the decay alone: 1 - 0.1 * 0.5, then
        # times 1 - 0.01 * 0.5.
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [0], [0.1, 0.01]
        )
        values = weights(
            optimizers.create("adamw:weight_decay=0.5", rate), [0.0, 0.0]
        )
        np.testing.assert_allclose(values, [0.95, 0.95 * 0.995], rtol=1e-6)

    def test_defaults(self):
        made = optimizers.create("adamw", 0.1)
        settings = made.beta_1, made.beta_2, made.epsilon, made.weight_decay
        assert settings == (0.9, 0.999, 1e-8, 0.004)

    @pytest.mark.parametrize(
        ("settings", "decay"),
        [
            ({}, 0.004),
            ({"weight_decay": 0.01}, 0.01),
            ({"weight_decay": 0.0}, 0.0),
            ({"optimizer": "adamw:weight_decay=0.02"}, 0.02),
            # Whose own default is coupled, and another.
            ({"dataset": "cifar10", "data_dir": "."}, 0.004),
        ],
    )
    def test_a_run_has_one_decay(self, settings, decay):
        given = {"optimizer": "adamw"} | settings
        filled = run_config.Config(**given).filled()
        assert filled.weight_decay is None
        assert optimizers.own_decay(filled.optimizer) == decay
        # Replayed, and continued, it is the same.
        assert filled.filled() == filled
        assert not run_config.Config(**given).filled().differences(filled)

    def test_two_at_once_are_refused(self):
        config = run_config.Config(
            optimizer="adamw:weight_decay=0.02", weight_decay=0.01
        )
        message = (
            "--weight_decay=0.01 and --optimizer=adamw:weight_decay=0.02 both "
            "set the weight decay; give one."
        )
        with pytest.raises(ValueError) as error:
            config.filled()
        assert str(error.value) == message

    def test_beside_a_users_own(self):
        spec = "keras.optimizers:AdamW"
        optimizers.check_one_decay(spec, 0.0)
        optimizers.check_one_decay("adamw", None)
        optimizers.check_one_decay("sgd", 0.1)
        with pytest.raises(ValueError, match="own, 0.004, beside --weight_d"):
            optimizers.check_one_decay(spec, 0.1)

    def test_two_in_python_are_told_of(self):
        model = mart_tf.AdversarialClassifier(
            linear.linear_network(),
            "natural",
            linear.THREAT,
            weight_decay=0.1,
        )
        with pytest.warns(UserWarning, match="both act; give one of them"):
            model.compile(keras.optimizers.AdamW(0.1))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adamw:weight_decay=-1", "weight_decay=-1; expected a number of at"),
        ("adamw:beta_1=1", "optimizer adamw has beta_1=1; expected"),
        ("sdg", "Unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ("sgd:nesterov=maybe", "expected true or false"),
        ("sgd:learning_rate=1", "has no option 'learning_rate'"),
        ("sgd:momentum=1", "momentum=1; expected at least 0 and less than 1"),
        ("sgd:momentum=nan", "momentum is nan; expected"),
        ("sgd:momentum=0:nesterov=true", "expected a momentum above 0"),
        ("adam:beta_1=-0.1", "beta_1=-0.1; expected"),
        ("adam:beta_2=1.5", "beta_2=1.5; expected"),
        ("adam:epsilon=0", "epsilon=0; expected a number above 0"),
        ("adam:nesterov=true", "has no option 'nesterov'"),
        ("keras.optimizers:SGD:use_ema=true", "give --ema=0.99 instead"),
        (
            "keras.optimizers:SGD:use_ema=true:ema_momentum=0.9",
            "no option of the optimizer; give --ema=0.9 instead",
        ),
    ],
)
def test_refuses_in_one_sentence(spec, message):
    with pytest.raises(ValueError) as error:
        optimizers.check(spec)
    assert message in str(error.value)


def test_refuses_in_python_too():
    with pytest.raises(ValueError, match="optimizer adam has beta_1=1"):
        optimizers.adam(0.1, beta_1=1)


def test_checks_without_tensorflow():
    code = (
        "import sys; from mart_tf.training import optimizers; "
        "optimizers.check('sgd:nesterov=true'); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
