"""The figures of a report, drawn without a display.

`matplotlib.figure.Figure` is used directly: pyplot would keep every figure
and choose a backend for the whole process.
"""

import numpy as np

_NATURAL = "#4c72b0"
_ROBUST = "#dd8452"
_WORST = "#c44e52"


def accuracy(results, title, path):
    """Writes a bar chart: accuracy under each attack, with intervals.

    Args:
        results: `Result`s, the natural one first and the worst case last.
        title: Shown above.
        path: PNG file to write.
    """
    from matplotlib import figure

    names = [result.label for result in results]
    values = np.array([100 * result.accuracy for result in results])
    bounds = np.array([result.interval for result in results]).T * 100
    drawing = figure.Figure(
        figsize=(8, 1.2 + 0.4 * len(results)), layout="constrained"
    )
    axes = drawing.subplots()
    colors = [_NATURAL, *[_ROBUST] * (len(results) - 2), _WORST]
    bars = axes.barh(
        names,
        values,
        color=colors,
        xerr=np.maximum([values - bounds[0], bounds[1] - values], 0.0),
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.bar_label(bars, [f" {value:.1f} %" for value in values], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("accuracy in %, with its 95 % interval")
    axes.set_title(title, fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=120)


def examples(samples, threat, class_names, path):
    """Writes a grid: natural, adversarial and amplified difference.

    Args:
        samples: `Samples`.
        threat: The `ThreatModel`; differences of +-epsilon fill the scale in
            linf, the largest difference of the figure in l2.
        class_names: Names of the classes, or None for their numbers.
        path: PNG file to write.
    """
    from matplotlib import figure

    count = len(samples.labels)
    drawing = figure.Figure(
        figsize=(1.3 * max(count, 4) + 1.2, 5.2), layout="constrained"
    )
    grid = drawing.subplots(3, count, squeeze=False)
    span = threat.pixel_max - threat.pixel_min
    difference = samples.adversarial - samples.natural
    scale, scale_name = _full_scale(difference, threat)
    for column in range(count):
        label = samples.labels[column]
        predicted = samples.predictions[column]
        for row, images in enumerate((samples.natural, samples.adversarial)):
            pixels = _pixels((images[column] - threat.pixel_min) / span)
            grid[row, column].imshow(pixels, cmap="gray", vmin=0, vmax=1)
        grid[2, column].imshow(
            _pixels(0.5 + 0.5 * difference[column] / scale),
            cmap="RdBu_r",
            vmin=0,
            vmax=1,
        )
        grid[0, column].set_title(_name(label, class_names), fontsize="small")
        grid[1, column].set_title(
            _name(predicted, class_names),
            fontsize="small",
            color="black" if predicted == label else _WORST,
        )
    for axes, text in zip(
        grid[:, 0],
        (
            "natural",
            "adversarial",
            f"difference\n(full scale: {scale_name})",
        ),
        strict=True,
    ):
        axes.set_ylabel(text, fontsize="small")
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    drawing.suptitle(
        f"{samples.attack}: label, and prediction of the adversarial example",
        fontsize="medium",
    )
    drawing.savefig(path, dpi=120)


def _full_scale(difference, threat):
    """The difference drawn in full colour, and its name."""
    if threat.norm == "linf":
        return threat.epsilon, "epsilon"
    # Spread over an image, epsilon leaves far less to each pixel; and nothing
    # at all may have moved.
    largest = float(np.abs(difference).max()) or threat.epsilon
    return largest, f"{largest:.2g}"


def _pixels(image):
    """What imshow takes: `[h, w]` or `[h, w, 3]` in [0, 1]."""
    image = np.clip(image, 0.0, 1.0)
    if image.ndim == 3 and image.shape[-1] in (1, 3):
        return image.squeeze(-1) if image.shape[-1] == 1 else image
    # Not an image: rows of numbers are still worth a look.
    return image.reshape(image.shape[0] if image.ndim > 1 else 1, -1)


def _name(label, class_names):
    if label < 0:
        return "NaN"
    return str(label) if class_names is None else str(class_names[label])
