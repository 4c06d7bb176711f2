"""What attacks leave of a network whose logits are multiplied.

    python benchmarks/confident.py --workdir=runs/digits_digits_cnn_mart

A factor changes no prediction, so the accuracy that an attack should leave is
the same. Prints it for PGD-20 on the cross-entropy and on the margin (CW), and
for CleverHans's PGD-20, which climbs the cross-entropy itself.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
import peers

import mart_tf

_IMAGES = flags.DEFINE_integer("images", 1000, "Test images, at most.")
_SCALES = flags.DEFINE_list("scales", ["1", "3", "10", "100"], "Factors.")

_ATTACKS = ("pgd:steps=20", "cw:steps=20", "cleverhans:pgd:nb_iter=20")

flags.adopt_module_key_flags(peers)


def main(_):
    """Prints a row for each factor."""
    config, dataset, classify = peers.attacked_run()
    threat = mart_tf.ThreatModel(config.norm, config.epsilon)
    data = mart_tf.data.arrays(dataset.test, _IMAGES.value)
    print("| logits times | natural | PGD-20 | CW | CleverHans's PGD-20 |")
    print("|---|---|---|---|---|")
    for scale in map(float, _SCALES.value):
        report = mart_tf.evaluate_robustness(
            _multiplied(classify, scale), data, threat, list(_ATTACKS)
        )
        cells = [f"{100 * result.accuracy:.2f}" for result in report.results]
        print(f"| {scale:g} | {' | '.join(cells)} |", flush=True)


def _multiplied(classify, scale):
    return lambda images: scale * classify(images)


if __name__ == "__main__":
    app.run(main)
