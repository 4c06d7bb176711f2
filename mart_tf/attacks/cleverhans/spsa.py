"""CleverHans 4.0.0's SPSA, mended around: loop and update are its own code."""

from cleverhans.tf2.attacks import spsa
import tensorflow as tf

from mart_tf import bounds
from mart_tf import noise
from mart_tf import threat as threat_model
from mart_tf.attacks import base
from mart_tf.attacks.cleverhans import adapters


class SPSA(base.Attack):
    """`spsa` (Uesato et al., ICML 2018): no gradients, linf only.

    CleverHans's loop and update rule. Faults mended: its `Adam(lr=...)` is
    refused by Keras 3; it takes batches of 1 only, so the examples go one by
    one through one compiled function, the samples of each in one pass; an odd
    number of samples is a bare AssertionError. Its noise, drawn from
    TensorFlow's global generator, is here the example's own.

    Args:
        nb_iter: Number of updates; CleverHans has no default.
        learning_rate: Of Adam, above 0, for pixels of range 1.
        delta: Distance of the samples in each pixel, above 0, for pixels of
            range 1.
        spsa_samples: Images in one pass, an even number.
        spsa_iters: Passes for one update.
        early_stop_loss_threshold: An example is left alone once its margin
            z_y - max_{k != y} z_k is below; None: never, as in CleverHans,
            where a broken example may be mended again by the next update.

    Raises:
        ValueError: If the threat model is not linf, or a setting is outside
            its range.
    """

    needs_gradient = False

    def __init__(
        self,
        nb_iter: int = 100,
        learning_rate: float = 0.01,
        delta: float = 0.01,
        spsa_samples: int = 128,
        spsa_iters: int = 1,
        early_stop_loss_threshold: float | None = 0.0,
    ):
        if spsa_samples % 2:
            raise ValueError(
                f"spsa_samples is {spsa_samples}; expected an even number, "
                "because samples come in pairs."
            )
        self.nb_iter = nb_iter
        self.learning_rate = learning_rate
        self.delta = delta
        self.spsa_samples = spsa_samples
        self.spsa_iters = spsa_iters
        self.early_stop_loss_threshold = early_stop_loss_threshold
        bounds.ABOVE_ZERO.check("learning_rate", learning_rate)
        bounds.ABOVE_ZERO.check("delta", delta)

    def prepare(self):
        if self.threat.norm != "linf":
            raise ValueError(
                f"the norm is {self.threat.norm}; CleverHans's spsa knows linf "
                "only, this project's own spsa knows both."
            )
        width = self.threat.pixel_max - self.threat.pixel_min
        self._optimizer = _Adam(
            width * self.learning_rate,
            width * self.delta,
            self.spsa_samples,
            self.spsa_iters,
        )
        self._one = base.compiled(self._attack)

    @property
    def iterations(self):
        return self.nb_iter

    @property
    def work(self):
        return self.nb_iter * self.spsa_samples

    def start(self, images, labels, seeds, number=0):
        starts = self.threat.random_start(images, seeds)
        found, done = [], {}
        for row in range(len(images)):
            one = slice(row, row + 1)
            parts = images[one], labels[one], seeds[one]
            # A batch is filled up with examples that it holds already.
            key = tuple(part.numpy().tobytes() for part in parts)
            if key not in done:
                self._optimizer.restart(seeds[one])
                done[key] = self._one(images[one], labels[one], starts[one])
            found.append(done[key])
        found = tf.concat(found, axis=0)
        return {"adversarial": adapters.inside(self.threat, found, images)}

    def _attack(self, image, label, start):
        def margin(images, label):
            values = -spsa.margin_logit_loss(
                self.classify(images), label, self.classes
            )
            # One that is not finite would stay in the update for ever.
            return threat_model.finite(values)

        return spsa.projected_optimization(
            margin,
            image,
            label,
            self.threat.epsilon,
            self.nb_iter,
            self._optimizer,
            self.threat.pixel_min,
            self.threat.pixel_max,
            self.early_stop_loss_threshold,
            _projection(self.threat, start),
        )


class _Adam(spsa.SPSAAdam):
    """CleverHans's optimizer, its noise that of one example.

    Args:
        learning_rate: In units of the pixels.
        delta: Distance of the samples in each pixel, in units of the pixels.
        num_samples: Images in one pass, an even number.
        num_iters: Passes for one update.
    """

    def __init__(self, learning_rate, delta, num_samples, num_iters):
        # Past CleverHans's own constructor, whose Adam(lr=...) Keras 3
        # refuses.
        super(spsa.SPSAAdam, self).__init__(learning_rate=learning_rate)
        self.lr = learning_rate
        self._delta = delta
        self._num_samples = num_samples // 2
        self._num_iters = num_iters
        self._seeds = tf.Variable(tf.zeros([1, 2], tf.int64), trainable=False)
        self._drawn = tf.Variable(tf.zeros([], tf.int64), trainable=False)

    def restart(self, seeds):
        """Sets the seed `[1, 2]` of the example that comes next."""
        self._seeds.assign(seeds)
        self._drawn.assign(0)

    def _get_delta(self, x, delta):
        seeds = noise.fold(self._seeds, self._drawn.assign_add(1))
        drawn = noise.uniform(seeds, [self._num_samples, *x.shape[1:]])[0]
        return tf.where(drawn < 0.5, -delta, delta)


def _projection(threat, start):
    """`project_perturbation` for CleverHans: the threat model's own.

    CleverHans projects its random start first, drawn for nobody in
    particular: the first call gives `start` in its place.
    """
    starts = [start]

    def project(perturbation, epsilon, image, clip_min, clip_max):
        if starts:
            return starts.pop() - image
        return threat.project(image + perturbation, image) - image

    return project
