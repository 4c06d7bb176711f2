"""The image grid: natural, adversarial and amplified difference."""

import numpy as np

from mart_tf.reports import results
from mart_tf.reports import sheet

# A red that can be read as text, and that the colour-blind tell from black.
_WRONG = "#B34700"

# What fits above an image.
_NAME_WIDTH = 12

_HEADINGS = (
    "natural,\nlabel and\nconfidence",
    "adversarial,\nprediction and\nconfidence",
)


def draw(figure, samples, threat, class_names):
    """Draws the grid, a column for each example.

    Args:
        figure: An empty matplotlib figure.
        samples: `Samples`.
        threat: The `ThreatModel`; differences of +-epsilon fill the scale in
            linf, the largest difference of the figure in l2.
        class_names: Names of the classes, or None for their numbers.

    Returns:
        The text that stands for it.
    """
    count = len(samples.labels)
    figure.set_size_inches(1.1 * max(count, 4) + 1.2, 5.6)
    axes = figure.subplots(3, count, squeeze=False)
    difference = samples.adversarial - samples.natural
    scale, scale_name = full_scale(difference, threat)
    span = threat.pixel_max - threat.pixel_min
    for column in range(count):
        for row, images in enumerate((samples.natural, samples.adversarial)):
            pixels = _pixels((images[column] - threat.pixel_min) / span)
            axes[row, column].imshow(pixels, cmap="gray", vmin=0, vmax=1)
        axes[2, column].imshow(
            _pixels(0.5 + 0.5 * difference[column] / scale),
            cmap="RdBu_r",
            vmin=0,
            vmax=1,
        )
        natural, adversarial = _captions(samples, class_names, column)
        axes[0, column].set_title(natural, fontsize=10)
        wrong = samples.predictions[column] != samples.labels[column]
        axes[1, column].set_title(
            adversarial,
            fontsize=10,
            color=_WRONG if wrong else "black",
            fontweight="bold" if wrong else "normal",
        )
    headings = (*_HEADINGS, f"difference\n(full scale:\n{scale_name})")
    for left, heading in zip(axes[:, 0], headings, strict=True):
        left.set_ylabel(heading, fontsize=10)
    for each in axes.flat:
        each.set_xticks([])
        each.set_yticks([])
        each.spines[:].set_visible(True)
    figure.suptitle(sheet.wrapped(samples.attack, 80), fontsize="medium")
    broken = int((samples.predictions != samples.labels).sum())
    return (
        f"{count} examples under {samples.attack}, {broken} of them broken: "
        "the natural image, the adversarial image and their difference. "
        "Labels and predictions: "
        + ", ".join(
            f"{results.class_name(label, class_names)} as "
            f"{results.class_name(prediction, class_names)}"
            for label, prediction in zip(
                samples.labels, samples.predictions, strict=True
            )
        )
        + "."
    )


def full_scale(difference, threat):
    """The difference drawn in full colour, and its name."""
    if threat.norm == "linf":
        return threat.epsilon, "epsilon"
    # Spread over an image, epsilon leaves far less to each pixel; and nothing
    # at all may have moved.
    largest = float(np.abs(difference).max()) or threat.epsilon
    return largest, f"{largest:.2g}"


def _captions(samples, class_names, column):
    """What stands above the natural and above the adversarial image."""
    return [
        _caption(classes[column], confidences, class_names, column)
        for classes, confidences in (
            (samples.labels, samples.natural_confidences),
            (samples.predictions, samples.adversarial_confidences),
        )
    ]


def _caption(label, confidences, class_names, column):
    text = results.class_name(label, class_names)
    text = sheet.shortened(text, _NAME_WIDTH)
    if confidences is None or not np.isfinite(confidences[column]):
        return text
    return f"{text}\n{confidences[column]:.0%}"


def _pixels(image):
    """What imshow takes: `[h, w]` or `[h, w, 3]` in [0, 1]."""
    image = np.clip(image, 0.0, 1.0)
    if image.ndim == 3 and image.shape[-1] in (1, 3):
        return image.squeeze(-1) if image.shape[-1] == 1 else image
    # Not an image: rows of numbers are still worth a look.
    return image.reshape(image.shape[0] if image.ndim > 1 else 1, -1)
