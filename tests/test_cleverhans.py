"""CleverHans's attacks: the adapters, and a cross-check of ours with theirs."""

from cleverhans.tf2.attacks import basic_iterative_method
from cleverhans.tf2.attacks import carlini_wagner_l2
from cleverhans.tf2.attacks import fast_gradient_method
from cleverhans.tf2.attacks import madry_et_al
from cleverhans.tf2.attacks import projected_gradient_descent
from cleverhans.tf2.attacks import spsa
import keras
import numpy as np
import pytest
from sklearn import datasets
import tensorflow as tf
import trained

import mart_tf
from mart_tf import attacks
from mart_tf import evaluation
from mart_tf import noise
from mart_tf.attacks.cleverhans import adapters
from mart_tf.evaluation import engine

_THREAT = mart_tf.ThreatModel(epsilon=0.1)
_L2 = mart_tf.ThreatModel("l2", epsilon=0.8)


@pytest.fixture(scope="module")
def digits():
    """A small trained CNN as a callable, and 1,000 digits."""
    model, images, labels = trained.on_digits(
        0,
        lambda: [
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
        ],
        797,
        rate=0.003,
        epochs=6,
    )

    def classify(images):
        return model(images, training=False)

    return classify, tf.constant(images[797:]), tf.constant(labels[797:])


@pytest.fixture(scope="module")
def coloured():
    """A small trained network as a callable, and 60 digits in colours."""
    keras.utils.set_random_seed(0)
    images, labels = datasets.load_digits(return_X_y=True)
    colours = np.random.default_rng(0).uniform(0.3, 1.0, (len(images), 3))
    images = (images / 16).reshape(-1, 8, 8, 1) * colours[:, None, None]
    images = images.astype("float32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(images[:1600], labels[:1600], epochs=8, verbose=0)

    def classify(images):
        return model(images, training=False)

    return classify, tf.constant(images[-60:]), tf.constant(labels[-60:])


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


def _attack(text, classify, threat=_THREAT, classes=10):
    [spec] = evaluation.resolve([text])
    return evaluation.create(spec).on(classify, threat, classes)


def _found(text, network, threat=_THREAT):
    classify, images, labels = network
    seeds = noise.seeds(0, tf.range(len(images)))
    attack = _attack(text, classify, threat, classify(images).shape[1])
    return attack.start(images, labels, seeds)["adversarial"].numpy()


def _part(network, count):
    """The first so many examples that are classified correctly."""
    classify, images, labels = network
    rows = np.flatnonzero(_predicted(classify, images) == labels.numpy())
    rows = rows[:count]
    return classify, tf.gather(images, rows), tf.gather(labels, rows)


def _unsure(network, images):
    """Where p_y is below 0.9: there float32 suffices for the cross-entropy.

    Its gradient is p - 1 for the label, which keeps few digits near 1.
    """
    classify, _, labels = network
    p = tf.nn.softmax(classify(images)).numpy()
    unsure = p[np.arange(len(p)), labels.numpy()] < 0.9
    assert 50 < unsure.sum() < len(p)
    return unsure


class TestOursAgainstTheirs:
    @pytest.mark.parametrize("threat", [_THREAT, _L2])
    def test_one_step_is_the_same(self, digits, threat):
        ours, theirs = _both(digits, 1, threat)
        seeds = noise.seeds(0, tf.range(len(digits[1])))
        start = threat.random_start(digits[1], seeds)
        unsure = _unsure(digits, start)
        np.testing.assert_allclose(
            ours[unsure], theirs[unsure], rtol=0, atol=1e-5
        )

    @pytest.mark.parametrize("steps", [1, 20])
    @pytest.mark.parametrize("threat", [_THREAT, _L2])
    def test_a_linear_network_is_attacked_alike(self, linear, steps, threat):
        ours, theirs = _both(linear, steps, threat)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("threat", [_THREAT, _L2])
    def test_twenty_steps_on_a_trained_network(self, digits, threat):
        classify, images, labels = digits
        ours, theirs = _both(digits, 20, threat)
        # A gradient near 0 may change its sign by rounding, and theirs is 0
        # where p_y rounds to 1: the images differ, the accuracy does not.
        assert len(images) == 1000
        accuracy, other = (
            (_predicted(classify, found) == labels.numpy()).mean()
            for found in (ours, theirs)
        )
        assert abs(accuracy - other) <= 0.0011
        assert 0.05 < accuracy < 0.95

    @pytest.mark.parametrize("threat", [_THREAT, _L2])
    def test_fgsm_is_their_fgm(self, digits, threat):
        classify, images, labels = digits
        ours = attacks.fgsm(classify, images, labels, threat)
        theirs = _found("cleverhans:fgm", digits, threat)
        unsure = _unsure(digits, images)
        np.testing.assert_allclose(
            ours[unsure], theirs[unsure], rtol=0, atol=1e-6
        )


class TestConfidentNetworks:
    """The same classifier with its logits multiplied: as robust as it was."""

    @pytest.mark.parametrize("scale", [10.0, 100.0])
    def test_the_cross_entropy_breaks_as_many_as_the_margin(
        self, digits, scale
    ):
        classify, images, labels = digits

        def confident(images):
            return scale * classify(images)

        ours, theirs = _both((confident, images, labels), 20)
        margin = attacks.pgd(
            confident,
            images,
            labels,
            _THREAT,
            steps=20,
            step_size=_THREAT.epsilon / 10,
            objective="margin",
            seed=0,
        )
        ours, margin, theirs = (
            (_predicted(classify, found) == labels.numpy()).mean()
            for found in (ours, margin, theirs)
        )
        assert abs(ours - margin) <= 0.015
        # Its own gradient in float32 leaves examples that could be broken.
        assert theirs > ours + 0.02


class TestAdapters:
    @pytest.mark.parametrize(
        "name",
        [
            "fgm",
            "pgd",
            "pgd:rand_minmax=0.05",
            "bim",
            "mim:decay_factor=0.5",
        ],
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
        [
            "fgm",
            "pgd",
            "pgd:rand_minmax=0.4",
            "bim",
            "mim:decay_factor=0.5",
        ],
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
            crafted = loop.run(
                _attack(name, counted),
                images.numpy()[:200],
                labels.numpy()[:200].astype("int32"),
                np.zeros([200, 2], np.int64),
            )
            assert 0 < crafted.broken.sum() < 200
        # Once for the gradient, which both attacks share, once for the look
        # at what they found, in two pieces; 200 examples make three batches
        # and a rest.
        assert traced == [(64, 8, 8, 1), (32, 8, 8, 1)]

    @pytest.mark.parametrize("size", ["0.2", "0"])
    @pytest.mark.parametrize("name", ["pgd", "bim", "mim"])
    def test_refuses_a_step_outside_epsilon(self, name, size):
        with pytest.raises(ValueError, match="above 0 and at most epsilon"):
            _attack(f"cleverhans:{name}:eps_iter={size}", None)

    def test_refuses_a_result_outside_the_threat_model(self, linear):
        classify, images, labels = linear

        def overshoot(model_fn, images, **_):
            return images + 0.2

        class Overshooting(adapters.FastGradient):
            function = staticmethod(overshoot)

        attack = Overshooting().on(classify, _THREAT, 4)
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

    @pytest.mark.parametrize("network", ["digits", "coloured"])
    @pytest.mark.parametrize(
        "name",
        [
            "fgm",
            "pgd:nb_iter=10",
            "bim:nb_iter=10",
            "mim:nb_iter=10",
            "cw_l2:binary_search_steps=2:max_iterations=20:"
            "learning_rate=0.1:initial_const=1",
            "spsa:nb_iter=10:spsa_samples=32",
        ],
    )
    def test_all_run_on_grey_and_on_rgb(self, network, name, request):
        network = _part(request.getfixturevalue(network), 10)
        classify, images, labels = network
        threat = mart_tf.ThreatModel(epsilon=0.25)
        found = _found(f"cleverhans:{name}", network, threat)
        assert found.shape == images.shape and found.dtype == np.float32
        assert found.min() >= 0 and found.max() <= 1
        assert (_predicted(classify, found) != labels.numpy()).any()


class TestMadry:
    def test_is_broken_and_is_pgd(self, linear):
        classify, images, labels = linear
        settings = {
            "eps": 0.1,
            "eps_iter": 0.01,
            "nb_iter": 3,
            "norm": np.inf,
            "clip_min": 0.0,
            "clip_max": 1.0,
            "y": labels,
        }
        with pytest.raises(ValueError, match="inhomogeneous"):
            madry_et_al.madry_et_al(classify, images, **settings)
        tf.random.set_seed(0)
        stock = madry_et_al.madry_et_al(
            classify, images, sanity_checks=False, **settings
        )
        # It starts in a ball of 0.3, clipped to epsilon.
        tf.random.set_seed(0)
        found = _found("cleverhans:pgd:nb_iter=3:rand_minmax=0.3", linear)
        np.testing.assert_array_equal(found, stock)


class TestCarliniWagner:
    @pytest.fixture
    def halves(self):
        """Two classes and a plane between them, no image near the bounds."""
        generator = np.random.default_rng(0)
        normal = generator.normal(size=(192, 1)).astype("float32")

        def classify(images):
            flat = tf.reshape(images, [-1, 192]) - 0.5
            return tf.concat([flat @ normal, -flat @ normal], axis=1)

        images = generator.uniform(0.4, 0.6, (6, 192, 1))
        away = np.array([0.03, -0.03, 0.04, -0.05, 0.06, -0.07])
        images += away[:, None, None] * np.sign(normal)
        images = images.reshape(6, 8, 8, 3).astype("float32")
        labels = _predicted(classify, images).astype("int32")
        distance = np.abs((images.reshape(6, -1) - 0.5) @ normal)
        distance = distance[:, 0] / np.linalg.norm(normal)
        network = classify, tf.constant(images), tf.constant(labels)
        return network, distance

    def test_finds_the_distance_to_a_plane(self, halves):
        network, distance = halves
        found = _found(
            "cleverhans:cw_l2:max_iterations=200:learning_rate=0.01", network
        )
        lengths = _lengths(found - network[1])
        np.testing.assert_allclose(lengths, distance, rtol=0.03)
        assert (lengths >= distance * (1 - 1e-5)).all()
        predicted = _predicted(network[0], found)
        assert (predicted != network[2].numpy()).all()

    def test_optimizer_is_broken_without_the_adapter(self, linear):
        classify, images, labels = linear
        images = tf.reshape(images, [50, 2, 6, 1])
        with pytest.raises(TypeError, match="not callable"):
            carlini_wagner_l2.carlini_wagner_l2(
                lambda images: classify(tf.reshape(images, [-1, 12])), images
            )
        attack = carlini_wagner_l2.CarliniWagnerL2(classify)
        first, second = (tf.Variable(tf.zeros(3)) for _ in range(2))
        attack.optimizer.apply_gradients([(tf.ones(3), first)])
        # CleverHans sets all of these to 0 before each constant.
        assert attack.optimizer.learning_rate in attack.optimizer.variables
        with pytest.raises(ValueError):
            attack.optimizer.apply_gradients([(tf.ones(3), second)])

    def test_constants_are_pixels_without_the_adapter(self, halves):
        (classify, images, labels), _ = halves
        attack = carlini_wagner_l2.CarliniWagnerL2(classify)
        centre, zeros = tf.atanh(2.0 * images - 1.0), tf.zeros_like(images)
        with pytest.raises(ValueError, match="Dimensions must be equal"):
            attack.gradient(
                centre, tf.one_hot(labels, 2), zeros, tf.ones_like(images)
            )
        grey = carlini_wagner_l2.CarliniWagnerL2(
            lambda images: classify(tf.repeat(images, 3, axis=3))
        )
        constants = tf.ones([2, 8, 8, 1])
        _, _, loss, logits, _ = grey.gradient(
            centre[:2, :, :, :1],
            tf.one_hot(labels[:2], 2),
            tf.zeros([2, 8, 8, 1]),
            constants,
        )
        lost = tf.gather(logits[:, 0] - logits[:, 1], labels[:2] * 0 + [0, 1])
        lost = tf.where(labels[:2] == 0, lost, -lost)
        # One number for the batch, each example in it 2 * 64 times.
        assert loss.shape == ()
        assert float(loss) == pytest.approx(
            128.0 * float(tf.reduce_sum(tf.nn.relu(lost))), rel=1e-4
        )

    def test_labels_are_targets_without_the_adapter(self, halves):
        (classify, images, labels), _ = halves
        stock = carlini_wagner_l2.CarliniWagnerL2(classify, y=labels)
        assert stock.targeted
        # What is misclassified to begin with needs to move nowhere.
        text = "cleverhans:cw_l2:max_iterations=5:binary_search_steps=1"
        found = _found(text, (classify, images, 1 - labels))
        np.testing.assert_allclose(found, images, rtol=0, atol=1e-6)

    def test_takes_examples_that_are_no_images(self, linear):
        classify, images, labels = linear
        text = "cleverhans:cw_l2:max_iterations=30:learning_rate=0.1"
        found = _found(text, linear)
        assert (_predicted(classify, found) != labels.numpy()).mean() > 0.9

    def test_logits_that_are_no_number_leave_the_image(self, halves):
        (classify, images, labels), _ = halves

        def without(images):
            return classify(images) + tf.sqrt(images[:, 0, 0, :2] - 9.0)

        text = "cleverhans:cw_l2:max_iterations=5:binary_search_steps=1"
        found = _found(text, (without, images, labels))
        np.testing.assert_array_equal(found, images)

    def test_ours_is_no_weaker(self, digits):
        network = _part(digits, 20)
        classify, images, labels = network
        lengths = []
        for name in ("cw_l2", "cleverhans:cw_l2"):
            text = f"{name}:max_iterations=100:learning_rate=0.02"
            attack = _attack(text, classify, _L2)
            outcome = engine.Engine(classify, 20).run(
                attack,
                images.numpy(),
                labels.numpy().astype("int32"),
                noise.seeds(0, tf.range(20)).numpy(),
            )
            found = _lengths(outcome.adversarial - images)
            lengths.append(np.where(outcome.broken, found, np.inf))
        ours, theirs = lengths
        assert np.isfinite(theirs).sum() > 15
        assert np.isfinite(ours).all()
        # Of each example, to a tenth: both descents end somewhere near.
        assert (ours < 1.1 * theirs).all()
        both = np.isfinite(theirs)
        assert ours[both].mean() < 1.01 * theirs[both].mean()

    def test_reports_at_epsilon_or_its_own_radius(self):
        attack = _attack("cleverhans:cw_l2", None, _THREAT)
        assert attack.norm == "l2" and attack.needs_gradient
        assert attack.parameters == {
            "binary_search_steps": 5,
            "max_iterations": 1000,
            "learning_rate": 0.005,
            "initial_const": 0.01,
            "abort_early": True,
            "confidence": 0.0,
            "radius": 0.1,
        }
        given = _attack("cleverhans:cw_l2:radius=1.5", None, _THREAT)
        assert given.parameters["radius"] == 1.5

    @pytest.mark.parametrize(
        "option", ["learning_rate", "initial_const", "radius"]
    )
    def test_refuses_0(self, option):
        with pytest.raises(
            ValueError, match=f"{option} is 0; expected a number above 0"
        ):
            _attack(f"cleverhans:cw_l2:{option}=0", None)

    @pytest.mark.parametrize(
        "option", ["binary_search_steps", "max_iterations"]
    )
    def test_refuses_to_search_nothing(self, option):
        with pytest.raises(ValueError, match=f"{option} is 0; expected"):
            _attack(f"cleverhans:cw_l2:{option}=0", None)


class TestSPSA:
    def test_is_broken_without_the_adapter(self, linear):
        classify, images, labels = linear
        with pytest.raises(ValueError, match="lr"):
            spsa.spsa(classify, images[:1], labels[:1], 0.1, 1, 0.0, 1.0)
        with pytest.raises(ValueError, match="batch_size of 1"):
            spsa.spsa(classify, images, labels, 0.1, 1, 0.0, 1.0)

    def test_stays_inside_and_breaks_what_pgd_breaks(self, digits):
        network = _part(digits, 20)
        classify, images, labels = network
        found = _found("cleverhans:spsa:nb_iter=30", network)
        epsilon = np.float32(0.1)
        assert (found >= np.maximum(images.numpy() - epsilon, 0)).all()
        assert (found <= np.minimum(images.numpy() + epsilon, 1)).all()
        strong = attacks.pgd(classify, images, labels, _THREAT, seed=0)
        broken = _predicted(classify, found) != labels.numpy()
        best = _predicted(classify, strong) != labels.numpy()
        assert best.sum() >= 5
        assert best.sum() - broken.sum() <= 2

    def test_finds_the_optimum_of_a_linear_network(self):
        weights = np.array([3.0, -2.0, 1.0, -1.0, 2.0], np.float32)

        def classify(images):
            score = tf.reshape(images, [-1, 5]) @ weights[:, None]
            return tf.concat([score, -score], axis=1)

        images = tf.fill([2, 5, 1, 1], 0.5)
        labels = tf.constant([0, 1])
        text = (
            "cleverhans:spsa:nb_iter=60:spsa_samples=64:spsa_iters=2:"
            "early_stop_loss_threshold=none"
        )
        found = _found(text, (classify, images, labels)) - images
        # Every pixel at its bound, against the weights of the true class.
        expected = 0.1 * np.sign(weights) * np.array([[-1], [1]])
        np.testing.assert_allclose(
            tf.reshape(found, [2, 5]), expected, rtol=0, atol=1e-6
        )

    def test_noise_belongs_to_the_example(self, coloured):
        classify, images, labels = _part(coloured, 6)
        seeds = noise.seeds(3, tf.range(6))
        text = "cleverhans:spsa:nb_iter=3:spsa_samples=8"
        first = _attack(text, classify).start(images, labels, seeds)
        order = [4, 1, 5]
        second = _attack(text, classify).start(
            *(tf.gather(values, order) for values in (images, labels, seeds))
        )
        np.testing.assert_array_equal(
            first["adversarial"].numpy()[order], second["adversarial"]
        )
        other = _attack(text, classify).start(images, labels, seeds + 1)
        assert (first["adversarial"] != other["adversarial"]).numpy().any()

    def test_asks_for_no_gradient(self, linear):
        classify, images, labels = linear

        def query(images):
            return tf.numpy_function(
                lambda images: classify(images).numpy(), [images], tf.float32
            )

        attack = _attack("cleverhans:spsa:nb_iter=20", query, classes=4)
        assert not attack.needs_gradient
        found = attack.start(
            images[:5], labels[:5], noise.seeds(0, tf.range(5))
        )["adversarial"]
        assert (_predicted(classify, found) != labels[:5].numpy()).any()

    def test_a_broken_example_is_left_alone(self, linear):
        classify, images, labels = linear
        calls = []

        def query(images):
            calls.append(len(images))
            return classify(images).numpy()

        def counted(images):
            return tf.numpy_function(query, [images], tf.float32)

        wrong = (labels[:1] + 1) % 4
        text = "cleverhans:spsa:nb_iter=9:spsa_samples=8"
        for option, updates in (
            ("", 1),
            (":early_stop_loss_threshold=none", 9),
        ):
            calls.clear()
            attack = _attack(f"{text}{option}", counted, classes=4)
            attack.start(images[:1], wrong, noise.seeds(0, tf.range(1)))
            assert calls.count(8) == updates

    def test_logits_that_are_not_finite_move_nothing(self, linear):
        _, images, labels = linear
        found = _found(
            "cleverhans:spsa:nb_iter=2",
            (lambda images: images[:, :4] * np.inf, images[:2], labels[:2]),
        )
        assert np.isfinite(found).all()

    def test_the_pixel_range_only_scales_it(self, linear):
        classify, images, labels = linear
        images, labels = images[:4], labels[:4]
        wide = mart_tf.ThreatModel("linf", 25.5, -100.0, 155.0)
        text = "cleverhans:spsa:nb_iter=5:early_stop_loss_threshold=none"
        found = _found(text, (classify, images, labels))
        scaled = _found(
            text,
            (
                lambda images: classify((images + 100.0) / 255.0),
                255.0 * images - 100.0,
                labels,
            ),
            wide,
        )
        np.testing.assert_allclose(
            (scaled + 100.0) / 255.0, found, rtol=0, atol=1e-4
        )

    def test_retraces_nothing_and_repeats_nothing(self, coloured):
        classify, images, labels = _part(coloured, 10)
        traced, run = [], []

        def counted(images):
            traced.append(images.shape)
            return classify(images)

        attack = _attack("cleverhans:spsa:nb_iter=2:spsa_samples=8", counted)
        one = attack._one
        attack._one = lambda *example: run.append(1) or one(*example)
        loop = engine.Engine(counted, 8)
        counts = []
        for _ in range(2):
            loop.run(
                attack,
                images.numpy(),
                labels.numpy().astype("int32"),
                noise.seeds(0, tf.range(10)).numpy(),
            )
            counts.append(len(traced))
        # The samples, the loss of the iterate, and the engine's look.
        assert traced == [(8, 8, 8, 3), (1, 8, 8, 3), (8, 8, 8, 3)]
        assert counts == [3, 3]
        # Ten examples in batches of 8: six places repeat the last two.
        assert len(run) == 20

    def test_refuses_l2(self):
        with pytest.raises(ValueError, match="the norm is l2; .* linf only"):
            _attack("cleverhans:spsa", None, _L2)

    def test_refuses_an_odd_number_of_samples(self, monkeypatch):
        monkeypatch.setattr(keras.optimizers.Adam, "__init__", lambda *_, lr: 0)
        with pytest.raises(AssertionError, match="must be even"):
            spsa.SPSAAdam(num_samples=7)
        with pytest.raises(ValueError, match="spsa_samples is 7; expected an"):
            _attack("cleverhans:spsa:spsa_samples=7", None)

    @pytest.mark.parametrize("option", ["learning_rate", "delta"])
    def test_refuses_0(self, option):
        with pytest.raises(
            ValueError, match=f"{option} is 0; expected a number above 0"
        ):
            _attack(f"cleverhans:spsa:{option}=0", None)
