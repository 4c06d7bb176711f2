"""Attacks along the gradient: FGSM and PGD."""

from collections.abc import Callable
import math
import numbers

import tensorflow as tf

from mart_tf import bounds
from mart_tf import choices
from mart_tf import options
from mart_tf import threat as threat_model
from mart_tf.attacks import given
from mart_tf.attacks import loops
from mart_tf.attacks import objectives

_TensorLike = tf.types.experimental.TensorLike

# Images to logits: a Keras model, or any function.
Classify = Callable[[tf.Tensor], tf.Tensor]


def fgsm(
    classify: Classify,
    images: _TensorLike,
    labels: _TensorLike,
    threat: threat_model.ThreatModel,
    *,
    random_start: str = "none",
    epsilon: _TensorLike | None = None,
    seed: _TensorLike | None = None,
) -> tf.Tensor:
    """Fast gradient sign method (Goodfellow et al., ICLR 2015).

        x' = project(x + epsilon * ascent(grad_x CE(p(x), y)))

    with `ThreatModel.ascent`: the sign of the gradient in linf, the gradient
    over its norm in l2 (the fast gradient method).

    Args:
        classify: Maps images to logits `[batch, classes]`.
        images: Natural examples, float32 `[batch, ...]`.
        labels: Integer classes `[batch]`.
        threat: The `ThreatModel`.
        random_start: Where the step starts instead of at x, as in `pgd`.
        epsilon: Overrides the threat model's radius, as in `pgd`.
        seed: Of the random start, as in `pgd`.

    Returns:
        Adversarial examples, float32, of the images' shape.

    Raises:
        ValueError: As `pgd`.
    """
    check_settings(1, None, random_start)
    images = given.floats(images, threat)
    labels = given.integers(labels, images, classify)
    radius = threat.radius(images, epsilon)
    start = threat.random_start(
        images, given.example_seeds(seed, images), epsilon, random_start
    )
    adversarial, _, _ = ascent_step(
        classify, start, images, labels, threat, radius, epsilon=radius
    )
    return tf.stop_gradient(adversarial)


def pgd(
    classify: Classify,
    images: _TensorLike,
    labels: _TensorLike,
    threat: threat_model.ThreatModel,
    *,
    steps: int = 10,
    step_size: _TensorLike | None = None,
    objective: str | Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = (
        "cross_entropy"
    ),
    random_start: str = "uniform",
    epsilon: _TensorLike | None = None,
    seed: _TensorLike | None = None,
) -> tf.Tensor:
    """Projected gradient descent (Madry et al., ICLR 2018).

        x_0 = project(x + start)
        x_{k+1} = project(x_k + step_size * ascent(grad L(p(x_k), y)))

    with `ThreatModel.ascent`: the sign of the gradient in linf, the gradient
    over its norm in l2.

    Args:
        classify: Maps images to logits `[batch, classes]`.
        images: Natural examples, float32 `[batch, ...]`.
        labels: Integer classes `[batch]`.
        threat: The `ThreatModel`.
        steps: Number of gradient steps, at least 1.
        step_size: Length of a step in the threat model's norm, in units of
            the pixels: a scalar or a tensor `[batch]`; default: epsilon / 4.
        objective: L: "cross_entropy", "margin" (CW), "dlr", or a callable
            `(labels, logits) -> [batch]`. On the cross-entropy the steps are
            those along the soft logit margin, which rises in the same
            direction and does not flatten where the network is confident:
            see `mart_tf.attacks.objectives`.
        random_start: "uniform", "gaussian" or "none", see
            `ThreatModel.random_start`.
        epsilon: Overrides the threat model's radius: a scalar, or a tensor
            `[batch]`.
        seed: An integer from 0 to 2^31 - 1; or one seed per example, an
            integer tensor `[batch, 2]`, so that a batch can be re-packed
            without changing anybody's noise; or None for fresh noise at every
            call.

    Returns:
        Adversarial examples, float32, of the images' shape.

    Raises:
        ValueError: On an unknown objective or start, steps below 1, an
            epsilon or a seed that is none, labels that are not integers
            `[batch]`; outside of a graph on images that the pixel range does
            not fit, and labels of no class of the network.
    """
    check_settings(steps, step_size, random_start)
    maximised = objectives.objective(objective)
    images = given.floats(images, threat)
    if not callable(objective):
        labels = given.integers(labels, images, classify)
    radius = threat.radius(images, epsilon)
    step_size = radius / 4.0 if step_size is None else step_size
    start = threat.random_start(
        images, given.example_seeds(seed, images), epsilon, random_start
    )

    def advance(adversarial):
        following, _, _ = ascent_step(
            classify,
            adversarial,
            images,
            labels,
            threat,
            step_size,
            maximised,
            epsilon,
        )
        return (following,)

    (last,) = loops.repeated(lambda _: True, advance, (start,), steps)
    return tf.stop_gradient(last)


def ascent_step(
    classify,
    adversarial,
    images,
    labels,
    threat,
    step_size,
    objective="cross_entropy",
    epsilon=None,
):
    """One projected step of steepest ascent.

    Args:
        classify: Maps images to logits `[batch, classes]`.
        adversarial: The present iterate, float32 `[batch, ...]`.
        images: Natural examples, of the same shape.
        labels: Integer classes `[batch]`.
        threat: The `ThreatModel`.
        step_size: Length of the step in the threat model's norm, in units of
            the pixels: a scalar or a tensor `[batch]`.
        objective: What is maximised, as in `pgd`.
        epsilon: Overrides the radius: a scalar or a tensor `[batch]`.

    Returns:
        The next iterate; then, at the present one, the objective `[batch]`
        (of "cross_entropy" the soft logit margin) and the logits `[batch,
        classes]`, which cost nothing more.
    """
    adversarial = tf.cast(adversarial, tf.float32)
    gradient, values, logits = input_gradient(
        classify, adversarial, labels, objective
    )
    step = threat.radius(images, step_size) * threat.ascent(gradient)
    return threat.project(adversarial + step, images, epsilon), values, logits


def input_gradient(classify, adversarial, labels, objective="cross_entropy"):
    """The gradient of an objective with respect to the images.

    Variables are not watched.

    Args:
        classify: Maps images to logits `[batch, classes]`.
        adversarial: Where the gradient is taken, float32 `[batch, ...]`.
        labels: Integer classes `[batch]`.
        objective: What is differentiated, as in `pgd`.

    Returns:
        The gradient, of the images' shape; then the objective `[batch]` and
        the logits `[batch, classes]`, which cost nothing more. Of
        "cross_entropy" gradient and objective are those of the soft logit
        margin.
    """
    adversarial = tf.cast(adversarial, tf.float32)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(adversarial)
        logits = classify(adversarial)
        values = objectives.objective(objective)(labels, logits)
        # The sum, not the mean: a mean shrinks gradients towards zero.
        total = tf.reduce_sum(values)
    return tape.gradient(total, adversarial), values, logits


def expected_gradient(
    classify, adversarial, labels, objective, passes, classes
):
    """`input_gradient` of a classifier that draws, in the mean over passes.

    Expectation over transformation (Athalye et al., ICML 2018), as AutoAttack
    takes it: the mean of the gradients, each of a pass of its own. Of the
    cross-entropy that is not the mean gradient of the soft logit margin: a
    pass counts by its 1 - p_y. So that no pass of a confident network vanishes
    in float32, all are divided by the largest cross-entropy among them.

    Args:
        classify, adversarial, labels, objective: As in `input_gradient`.
        passes: How many; with 1 this is `input_gradient`.
        classes: Number of classes.

    Returns:
        The means of gradient and objective, of the cross-entropy the gradient
        up to a factor for each example and the logarithm of the mean; and as
        logits the logarithm of the mean probabilities: the answer to be
        expected.
    """
    if passes == 1:
        return input_gradient(classify, adversarial, labels, objective)
    sign = objectives.sign_of_soft_margin(objective)
    to_images = [-1] + [1] * (len(adversarial.shape) - 1)

    def add(slope, value, probability, largest):
        steep, now, logits = input_gradient(
            classify, adversarial, labels, objective
        )
        probability += tf.nn.softmax(tf.cast(logits, tf.float32))
        if not sign:
            return slope + steep, value + now, probability, largest
        loss = objectives.log_cross_entropy(sign * now)
        before, largest = largest, tf.maximum(largest, loss)
        fade = tf.exp(before - largest)
        weight = tf.exp(tf.math.log_sigmoid(sign * now) - largest)
        slope *= tf.reshape(fade, to_images)
        slope += tf.reshape(weight, to_images) * steep
        return (
            slope,
            value * fade + tf.exp(loss - largest),
            probability,
            largest,
        )

    slope, value, probability, largest = _sums(
        add,
        passes,
        tf.zeros_like(adversarial),
        tf.zeros(tf.shape(labels)),
        tf.zeros([tf.shape(labels)[0], classes]),
        tf.fill(tf.shape(labels), tf.float32.min),
    )
    slope, value = slope / passes, value / passes
    if sign:
        value = sign * (largest + tf.math.log(value))
    return slope, value, _log(probability / passes)


def expected_logits(classify, images, passes, classes):
    """The logarithm of the mean probabilities over passes, `[batch, classes]`.

    With one the logits themselves.
    """
    if passes == 1:
        return classify(images)

    def add(probability):
        logits = tf.cast(classify(images), tf.float32)
        return (probability + tf.nn.softmax(logits),)

    start = tf.zeros([tf.shape(images)[0], classes])
    (probability,) = _sums(add, passes, start)
    return _log(probability / passes)


def _sums(add, passes, *zeros):
    return loops.repeated(lambda *_: True, add, zeros, passes)


def _log(probability):
    # Of what underflowed in every pass, a logit that still orders.
    return tf.math.log(tf.maximum(probability, 1e-37))


def check_settings(steps, step_size=None, random_start="uniform"):
    """Refuses settings that no attack can run with.

    Args:
        steps: A whole number of at least 1.
        step_size: A number above 0, a tensor, or None.
        random_start: "uniform", "gaussian" or "none".

    Raises:
        ValueError: On any other.
    """
    bounds.ATTACK_STEPS.check("Attack steps", steps)
    if isinstance(step_size, numbers.Real) and not 0 < step_size < math.inf:
        raise ValueError(
            f"Attack step size is {step_size!r}; expected a number above 0."
        )
    if random_start not in choices.RANDOM_STARTS:
        raise options.unknown(
            "random start", str(random_start), choices.RANDOM_STARTS
        )


def check_all_steps(name, steps, rounds):
    """Raises a `ValueError` where an int32 cannot count the steps in all."""
    if steps * rounds > tf.int32.max:
        raise ValueError(
            f"{name} takes {steps} steps in each of {rounds} rounds; expected "
            f"at most {tf.int32.max} in all."
        )
