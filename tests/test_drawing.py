"""Evaluations of classifiers that draw random numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mart_tf
from mart_tf import attacks
from mart_tf.attacks import gradient
from mart_tf.evaluation import measuring

_RNG = np.random.default_rng(0)
_WEIGHTS = _RNG.normal(size=(4, 3)).astype(np.float32)
_IMAGES = _RNG.random((64, 4), np.float32)
_LABELS = (_IMAGES @ _WEIGHTS).argmax(1)
_THREAT = mart_tf.ThreatModel(epsilon=0.02)


class Stopped(attacks.Attack):
    """Ends an evaluation as Ctrl-C does."""

    def start(self, images, labels, seeds, number=0):
        raise KeyboardInterrupt


@pytest.fixture
def done(monkeypatch):
    """The pieces of work that were done, attacks by name."""
    found = []
    piece = measuring.Measurement._piece

    def seen(self, run, attack, *arguments):
        found.append(type(attack).__name__)
        return piece(self, run, attack, *arguments)

    monkeypatch.setattr(measuring.Measurement, "_piece", seen)
    return found


def stopped(model, directory):
    """An evaluation that is stopped in its second attack."""
    with pytest.raises(KeyboardInterrupt):
        evaluated(model, directory, ["fgsm", Stopped()])


def evaluated(model, directory, listed=("fgsm", "pgd:steps=3")):
    return mart_tf.evaluate_robustness(
        model, (_IMAGES, _LABELS), _THREAT, listed, directory=directory
    )


def noisy(width):
    def defended(images):
        noise = tf.random.normal(tf.shape(images), stddev=width)
        return (images + noise) @ _WEIGHTS

    return defended


pytestmark = pytest.mark.filterwarnings("ignore:Two passes over the same")


def test_what_tensorflow_draws_goes_on(tmp_path, done):
    stopped(noisy(0.1), tmp_path)
    # As another process would: its generator elsewhere.
    tf.random.set_seed(17)
    tf.random.normal([3])
    evaluated(noisy(0.1), tmp_path)
    assert done == ["FGSM", "Stopped", "PGD"]


def test_another_noise_is_another_model(tmp_path, done):
    stopped(noisy(0.1), tmp_path)
    with pytest.raises(ValueError, match="with another model"):
        evaluated(noisy(0.5), tmp_path)


def test_of_a_layer_that_draws_each_evaluation_is_the_same(tmp_path, done):
    images = keras.Input((4,))
    drawn = keras.layers.Dropout(0.3, seed=3)(images, training=True)
    model = keras.Model(images, keras.layers.Dense(3)(drawn))
    model.layers[-1].set_weights([_WEIGHTS, np.zeros(3)])
    stopped(model, tmp_path)
    # The layer's own generator elsewhere: a copy is evaluated.
    model(_IMAGES)
    evaluated(model, tmp_path)
    assert done == ["FGSM", "Stopped", "PGD"]


def test_what_nothing_tells_from_another_is_not_kept(tmp_path, done):
    generator = tf.random.Generator.from_seed(1)

    def defended(images):
        noise = generator.normal(tf.shape(images), stddev=0.1)
        return (images + noise) @ _WEIGHTS

    with pytest.warns(UserWarning, match="The model defended draws .* kept"):
        stopped(defended, tmp_path)
    assert not (tmp_path / "partial").exists()
    with pytest.warns(UserWarning, match="nothing tells it from another"):
        evaluated(defended, tmp_path)
    assert done == ["FGSM", "Stopped", "FGSM", "PGD"]
    assert (tmp_path / "report.json").exists()


class TestMeanCrossEntropy:
    """Two passes in turn, whose soft logit margins are lines through x."""

    @staticmethod
    def classify(lines):
        passes = tf.Variable(0)

        def classify(images):
            now = tf.gather(lines, passes % len(lines))
            passes.assign_add(1)
            margins = now[0] + now[1] * images
            # Of label 0: log (1 - p) / p is the second logit.
            return tf.concat([tf.zeros_like(margins), margins], axis=1)

        return classify

    @staticmethod
    def expected(lines, x):
        """The mean cross-entropy of a label, and its slope, in float64."""
        margins = [a + b * x for a, b in lines]
        losses = [np.logaddexp(0.0, m) for m in margins]
        slopes = [
            b / (1.0 + np.exp(-m))
            for m, (_, b) in zip(margins, lines, strict=True)
        ]
        return np.mean(losses), np.mean(slopes)

    @pytest.mark.parametrize(
        "lines",
        [
            # The mean of the margins rises here, that of the losses falls.
            [(-8.0, 3.0), (0.5, -1.0)],
            [(3.0, 1.0), (30.0, -2.0)],
            # In float32 each loss and its slope are 0.
            [(-200.0, 3.0), (-150.0, -1.0)],
        ],
        ids=["opposed", "broken", "confident"],
    )
    @pytest.mark.parametrize("label", [0, 1])
    def test_gradient_and_order(self, lines, label):
        images = tf.constant([[0.4], [0.5], [0.6]])
        slope, value, _ = gradient.expected_gradient(
            self.classify(tf.constant(lines)),
            images,
            tf.fill([3], label),
            "cross_entropy",
            passes=2,
            classes=2,
        )
        sign = 1.0 if label == 0 else -1.0
        lines = [(sign * a, sign * b) for a, b in lines]
        found = [self.expected(lines, x) for x in (0.4, 0.5, 0.6)]
        losses, slopes = map(np.array, zip(*found, strict=True))
        np.testing.assert_allclose(value, np.log(losses), rtol=1e-5)
        np.testing.assert_array_equal(np.sign(slope)[:, 0], np.sign(slopes))

    def test_of_a_target_the_loss_falls(self):
        lines = [(-8.0, 3.0), (0.5, -1.0)]
        made = attacks.APGD(steps=10, passes=2)(
            self.classify(tf.constant(lines)),
            [[0.5]],
            [1],
            mart_tf.ThreatModel(epsilon=0.1),
            seed=0,
            target=0,
        )
        # Untargeted x falls, and the loss of class 0 rises: see above.
        np.testing.assert_allclose(made, [[0.6]], atol=1e-6)
