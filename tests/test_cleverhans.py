"""CleverHans's attacks: the adapters, and a cross-check of ours with theirs."""

from cleverhans.tf2.attacks import basic_iterative_method
from cleverhans.tf2.attacks import fast_gradient_method
from cleverhans.tf2.attacks import projected_gradient_descent
import keras
import numpy as np
import pytest
from sklearn import datasets
import tensorflow as tf

import mart_tf
from mart_tf import attacks
from mart_tf import evaluation
from mart_tf import noise
from mart_tf.evaluation import cleverhans_attacks
from mart_tf.evaluation import engine

_THREAT = mart_tf.ThreatModel(epsilon=0.1)
_L2 = mart_tf.ThreatModel("l2", epsilon=0.8)


@pytest.fixture(scope="module")
def digits():
    """A small trained CNN as a callable, and 1,000 digits."""
    keras.utils.set_random_seed(0)
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.003),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(images[:797], labels[:797], epochs=6, verbose=0)

    def classify(images):
        return model(images, training=False)

    return classify, tf.constant(images[797:]), tf.constant(labels[797:])


@pytest.fixture(scope="module")
def linear():
    """A linear classifier of 12 pixels, and 50 random images."""
    generator = np.random.default_rng(1)
    weights = tf.constant(generator.normal(size=(12, 4)), tf.float32)

    def classify(images):
        return images @ weights

    images = tf.constant(generator.random((50, 12)), tf.float32)
    return classify, images, tf.argmax(classify(images), axis=1)


def _theirs(classify, images, labels, start, steps, threat):
    """CleverHans's PGD from the given starting points."""

    def offsets(*_, **__):
        return start - images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projected_gradient_descent, "random_lp_vector", offsets)
        return projected_gradient_descent.projected_gradient_descent(
            classify,
            images,
            threat.epsilon,
            threat.epsilon / 10,
            steps,
            np.inf if threat.norm == "linf" else 2,
            clip_min=0.0,
            clip_max=1.0,
            y=labels,
            rand_init=True,
        )


def _both(network, steps, threat=_THREAT):
    classify, images, labels = network
    seeds = noise.seeds(0, tf.range(len(images)))
    ours = tf.function(
        lambda images, labels: attacks.pgd(
            classify,
            images,
            labels,
            threat,
            steps=steps,
            step_size=threat.epsilon / 10,
            seed=seeds,
        )
    )(images, labels)
    start = threat.random_start(images, seeds)
    return ours, _theirs(classify, images, labels, start, steps, threat)


def _lengths(offsets):
    offsets = np.asarray(offsets, "float64").reshape(len(offsets), -1)
    return np.sqrt((offsets**2).sum(axis=1))


def _predicted(classify, images):
    return classify(images).numpy().argmax(axis=1)


def _attack(text, classify, threat=_THREAT):
    [spec] = evaluation.resolve([text])
    return evaluation.create(spec, classify, threat, 10)


def _found(text, network, threat=_THREAT):
    classify, images, labels = network
    state = _attack(text, classify, threat).start(images, labels, None)
    return state["adversarial"].numpy()


class TestOursAgainstTheirs:
    @pytest.mark.parametrize("threat", [_THREAT, _L2])
    def test_one_step_is_the_same(self, digits, threat):
        ours, theirs = _both(digits, 1, threat)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("steps", [1, 20])
    @pytest.mark.parametrize("threat", [_THREAT, _L2])
    def test_a_linear_network_is_attacked_alike(self, linear, steps, threat):
        ours, theirs = _both(linear, steps, threat)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("threat", [_THREAT, _L2])
    def test_twenty_steps_on_a_trained_network(self, digits, threat):
        classify, images, labels = digits
        ours, theirs = _both(digits, 20, threat)
        assert len(images) == 1000
        assert (np.abs(ours - theirs) > 1e-5).mean() <= 0.001
        # A gradient near 0 may change its sign by rounding.
        predictions = [_predicted(classify, found) for found in (ours, theirs)]
        assert (predictions[0] != predictions[1]).sum() <= 1
        broken = predictions[0] != labels.numpy()
        assert 0.05 < broken.mean() < 0.95

    @pytest.mark.parametrize("threat", [_THREAT, _L2])
    def test_fgsm_is_their_fgm(self, digits, threat):
        classify, images, labels = digits
        ours = attacks.fgsm(classify, images, labels, threat)
        theirs = _found("cleverhans:fgm", digits, threat)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


class TestAdapters:
    @pytest.mark.parametrize(
        "name",
        ["fgm", "pgd", "pgd:rand_minmax=0.05", "bim", "mim:decay_factor=0.5"],
    )
    def test_stays_inside_and_breaks_some(self, digits, name):
        classify, images, labels = digits
        found = _found(f"cleverhans:{name}", digits)
        epsilon = np.float32(0.1)
        assert (found >= np.maximum(images.numpy() - epsilon, 0)).all()
        assert (found <= np.minimum(images.numpy() + epsilon, 1)).all()
        natural = _predicted(classify, images) == labels.numpy()
        robust = _predicted(classify, found) == labels.numpy()
        assert robust.mean() < natural.mean() - 0.05

    @pytest.mark.parametrize(
        "name",
        ["fgm", "pgd", "pgd:rand_minmax=0.4", "bim", "mim:decay_factor=0.5"],
    )
    def test_stays_inside_the_l2_ball_and_breaks_some(self, digits, name):
        classify, images, labels = digits
        found = _found(f"cleverhans:{name}", digits, _L2)
        assert (found >= 0).all() and (found <= 1).all()
        distance = _lengths(found - images.numpy())
        assert distance.max() <= 0.8 * (1 + 1e-6)
        assert np.median(distance) > 0.7
        natural = _predicted(classify, images) == labels.numpy()
        robust = _predicted(classify, found) == labels.numpy()
        assert robust.mean() < natural.mean() - 0.05

    @pytest.mark.parametrize("name", ["fgm", "pgd", "bim", "mim"])
    def test_l2_steps_keep_their_length_on_a_confident_network(
        self, linear, name
    ):
        classify, images, labels = linear

        def confident(images):
            # The other classes have probabilities from 1e-17 on.
            return classify(images) + 38.0 * tf.one_hot(labels, 4)

        unbounded = mart_tf.ThreatModel("l2", 0.2, -9.0, 9.0)
        found = _attack(f"cleverhans:{name}", confident, unbounded).start(
            images, labels, None
        )["adversarial"]
        assert _lengths(found - images).min() > 0.19
        # CleverHans's own step hardly moves; when it does, there is nothing
        # left to mend.
        stock = fast_gradient_method.fast_gradient_method(
            confident, images, 0.2, 2, y=labels
        )
        assert _lengths(stock - images).max() < 1e-3

    def test_defaults_are_ours(self, digits):
        parameters = _attack("cleverhans:pgd", digits[0]).parameters
        assert parameters == {
            "nb_iter": 20,
            "eps_iter": pytest.approx(0.01),
            "rand_init": True,
            "rand_minmax": 0.1,
        }

    def test_options_reach_cleverhans(self, linear):
        classify, images, labels = linear
        found = _found("cleverhans:mim:nb_iter=3:eps_iter=0.02", linear)
        moved = np.abs(found - images)
        assert moved.max() == pytest.approx(0.06, abs=1e-6)

    def test_random_start_is_on_and_can_be_off(self, linear):
        first = _found("cleverhans:pgd:nb_iter=1", linear)
        second = _found("cleverhans:pgd:nb_iter=1", linear)
        assert np.abs(first - second).max() > 0.01
        still = _found("cleverhans:pgd:nb_iter=1:rand_init=false", linear)
        np.testing.assert_array_equal(
            still, _found("cleverhans:bim:nb_iter=1", linear)
        )

    def test_bim_is_broken_without_the_adapter(self, linear):
        classify, images, labels = linear
        # When this no longer fails, the adapter has less to mend.
        with pytest.raises(ValueError, match="inhomogeneous"):
            basic_iterative_method.basic_iterative_method(
                classify,
                images,
                0.1,
                0.01,
                2,
                np.inf,
                clip_min=0.0,
                clip_max=1.0,
                y=labels,
            )

    def test_retraces_nothing(self, digits):
        classify, images, labels = digits
        traced = []

        def counted(images):
            traced.append(images.shape)
            return classify(images)

        loop = engine.Engine(counted, 64)
        names = ["cleverhans:fgm", "cleverhans:pgd:nb_iter=3"]
        for name in names:
            outcome = loop.run(
                _attack(name, counted),
                images.numpy()[:200],
                labels.numpy()[:200].astype("int32"),
                np.zeros([200, 2], np.int64),
            )
            assert 0 < outcome.broken.sum() < 200
        # Once for the gradient, which both attacks share, once for the look
        # at what they found; 200 examples make three batches and a rest.
        assert traced == [(64, 8, 8, 1)] * 2

    @pytest.mark.parametrize("size", ["0.2", "0"])
    @pytest.mark.parametrize("name", ["pgd", "bim", "mim"])
    def test_refuses_a_step_outside_epsilon(self, name, size):
        with pytest.raises(ValueError, match="above 0 and at most epsilon"):
            _attack(f"cleverhans:{name}:eps_iter={size}", None)

    def test_refuses_a_result_outside_the_threat_model(self, linear):
        classify, images, labels = linear

        def overshoot(model_fn, images, **_):
            return images + 0.2

        attack = cleverhans_attacks._Adapter(classify, _THREAT, overshoot, {})
        with pytest.raises(RuntimeError, match="left the threat model by 0.1"):
            attack.start(images, labels, None)

    def test_works_in_another_pixel_range(self, linear):
        classify, images, labels = linear
        threat = mart_tf.ThreatModel(
            epsilon=20.0, pixel_min=-100.0, pixel_max=155.0
        )
        natural = 255.0 * images - 100.0
        for name in ("fgm", "pgd", "bim", "mim"):
            attack = _attack(f"cleverhans:{name}", classify, threat)
            found = attack.start(natural, labels, None)["adversarial"]
            assert float(tf.reduce_max(tf.abs(found - natural))) > 19.9
            np.testing.assert_array_equal(found, threat.project(found, natural))
