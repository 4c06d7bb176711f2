"""PGD that stops where its problem is solved well enough."""

import tensorflow as tf

from mart_tf import options
from mart_tf import threat as threat_model
from mart_tf.attacks import examples
from mart_tf.attacks import given
from mart_tf.attacks import gradient
from mart_tf.attacks import loops
from mart_tf.attacks import objectives


def pgd_until_stationary(
    classify,
    images,
    labels,
    threat,
    *,
    criterion,
    steps=10,
    step_size=None,
    random_start="uniform",
    epsilon=None,
    seed=None,
    reference="natural",
):
    """PGD with a stop per example (Wang et al., ICML 2019).

    The first-order stationary condition of their section 3 is what a linear
    model of the loss could still gain inside the ball, 0 at a solution:

        FOSC(x_k) = max_x <x - x_k, g> = epsilon ||g||_dual - <x_k - x_0, g>
        g = grad CE(p(x_k), y)

    with the l1 norm for linf and the l2 norm for l2. Their closed form leaves
    the pixel range out: on images with many black or white pixels it stays
    large at a solution, because it counts steps that no pixel can take
    (`reference` "range" counts those that are allowed). An example moves no
    more once its FOSC is at most `criterion`; the first step is always taken.
    When no example of the batch moves, the loop ends.

    Args:
        classify: Maps images to logits `[batch, classes]`.
        images: Natural examples, float32 `[batch, ...]`.
        labels: Integer classes `[batch]`.
        threat: The `ThreatModel`.
        criterion: Their c_t, a scalar of at least 0.
        steps: Greatest number of gradient steps, at least 1.
        step_size: In units of the pixels; default: epsilon / 4.
        random_start: "uniform", "gaussian" or "none".
        epsilon: Overrides the threat model's radius, as in `pgd`.
        seed: As in `pgd`.
        reference: What FOSC is measured from: "natural", x_0 is the natural
            example, the centre of the ball, as the theory has it; "start",
            x_0 is the random start, as their code has it, where FOSC may be
            negative; "range", linf only: the maximum over the ball and the
            pixel range.

    Returns:
        Adversarial examples of the images' shape, and the FOSC of each, where
        it ended, float32 `[batch]`.

    Raises:
        ValueError: On settings outside these, images and labels as in `pgd`.
    """
    gradient.check_settings(steps, step_size, random_start)
    references = ("natural", "start", "range")
    if reference not in references:
        raise options.unknown("reference", str(reference), references)
    if reference == "range" and threat.norm != "linf":
        raise ValueError(
            f"The reference is range, and the norm {threat.norm}; expected "
            "natural or start, or the norm linf."
        )
    images = given.floats(images, threat)
    labels = given.integers(labels, images, classify)
    radius = threat.radius(images, epsilon)
    step_size = radius / 4.0 if step_size is None else step_size
    start = threat.random_start(
        images, given.example_seeds(seed, images), epsilon, random_start
    )
    centre = start if reference == "start" else images
    axes = threat_model.pixel_axes(images)

    def fosc(iterate, slope):
        if reference == "range":
            # A linear function is greatest at a corner.
            corner = images + radius * tf.sign(slope)
            best = threat.project(corner, images, epsilon)
            return tf.reduce_sum((best - iterate) * slope, axes)
        taken = tf.reduce_sum((iterate - centre) * slope, axes)
        return tf.reshape(radius, [-1]) * threat.dual_norm(slope) - taken

    def advance(step, iterate, moving, ended_at):
        slope, margin, _ = gradient.input_gradient(classify, iterate, labels)
        # grad CE, whose length counts here: see `attacks.objectives`.
        share = tf.reshape(tf.sigmoid(margin), [-1] + [1] * len(axes))
        if objectives.of_whole_batches.holds:
            share = 1.0
        gap = fosc(iterate, share * slope)
        ended_at = tf.where(moving, gap, ended_at)
        moving = moving & ((gap > criterion) | (step == 0)) & (step < steps)
        following = threat.project(
            iterate + threat.radius(images, step_size) * threat.ascent(slope),
            images,
            epsilon,
        )
        reached = examples.where(moving, following, iterate)
        return step + 1, reached, moving, ended_at

    # One more gradient than steps: the last gives FOSC where PGD ended.
    count = tf.shape(images)[0]
    _, adversarial, _, ended_at = loops.repeated(
        lambda step, iterate, moving, ended_at: tf.reduce_any(moving),
        advance,
        (tf.constant(0), start, tf.fill([count], True), tf.zeros([count])),
        steps + 1,
    )
    return tf.stop_gradient(adversarial), tf.stop_gradient(ended_at)
