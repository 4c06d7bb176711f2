"""CleverHans 4.0.0's CarliniWagnerL2, made to run."""

from cleverhans.tf2.attacks import carlini_wagner_l2
import numpy as np
import tensorflow as tf

from mart_tf.attacks import base
from mart_tf.attacks import carlini_wagner


class CarliniWagnerL2(base.Attack):
    """`carlini_wagner_l2` (Carlini and Wagner, S&P 2017), untargeted.

    CleverHans's own search; what is mended is what kept it from running, on
    batches above 1, and on labels that are given, which it takes for targets.
    Where it is weaker than the paper it stays so: the c of an example that
    was ever broken falls no more, a batch stops by its sum, and `confidence`
    is descended for but not asked for. `cw_l2` is ours.

    Args:
        binary_search_steps: How many constants c are tried.
        max_iterations: Greatest number of updates for each.
        learning_rate: Of Adam, in the space of atanh, above 0.
        initial_const: The first c, above 0, for pixels of the range they have.
        abort_early: Whether a batch stops that makes no progress.
        confidence: By how much a wrong class should win.
        radius: The l2 distance at which the accuracy is reported, above 0, in
            units of the pixels; default: the threat model's epsilon.

    Raises:
        ValueError: If a setting is outside its range.
    """

    norm = "l2"

    def __init__(
        self,
        binary_search_steps: int = 5,
        max_iterations: int = 1000,
        learning_rate: float = 0.005,
        initial_const: float = 0.01,
        abort_early: bool = True,
        confidence: float = 0.0,
        radius: float | None = None,
    ):
        self.binary_search_steps = binary_search_steps
        self.max_iterations = max_iterations
        self.learning_rate = learning_rate
        self.initial_const = initial_const
        self.abort_early = abort_early
        self.confidence = confidence
        self.radius = radius
        carlini_wagner.check_search(self)

    def prepare(self):
        settings = self.parameters
        self.radius = settings.pop("radius") or self.threat.epsilon
        self._attack = carlini_wagner_l2.CarliniWagnerL2(
            lambda images: self.classify(tf.reshape(images, self._shape)),
            clip_min=self.threat.pixel_min,
            clip_max=self.threat.pixel_max,
            **settings,
        )
        self._attack.optimizer = _Adam(self.learning_rate)
        self._attack.initial_const = _OfExamples(self.initial_const)

    @property
    def iterations(self):
        return self.binary_search_steps * self.max_iterations

    def start(self, images, labels, seeds, number=0):
        self._shape = images.shape
        self._attack.batch_size = len(images)
        # Given to the constructor, labels are targets.
        self._attack.y = labels
        # Its masks are made for four axes.
        flat = tf.reshape(images, [len(images), -1, 1, 1])
        found = self._attack.attack(flat).reshape(images.shape)
        # Its masks multiply: one NaN on the way, and the image is NaN.
        found = np.where(np.isfinite(found), found, images)
        low, high = self.threat.pixel_min, self.threat.pixel_max
        return {"adversarial": tf.clip_by_value(found, low, high)}


class _Adam:
    """Adam as CleverHans uses it, which Keras 3 refuses.

    `variables()` is no method any more, what CleverHans would set to 0 holds
    the learning rate, and an optimizer takes one variable for ever.
    """

    def __init__(self, learning_rate):
        self._learning_rate = learning_rate

    def variables(self):
        """None; called before each descent, which gets an Adam of its own."""
        self._adam = tf.keras.optimizers.Adam(self._learning_rate)
        return []

    def apply_gradients(self, pairs):
        self._adam.apply_gradients(pairs)


class _OfExamples:
    """c, `[batch]`, where CleverHans computes `tf.ones(shape of x) * c`.

    In the shape of x it fails on a batch of RGB images, and is summed over
    those of a grey one.
    """

    def __init__(self, value):
        self._value = value

    def __rmul__(self, ones):
        return tf.fill(ones.shape[:1], self._value)
