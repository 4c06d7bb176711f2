"""What saving costs a run: seconds and bytes of a checkpoint, by network.

    python benchmarks/save_cost.py --root=DIR

Builds each network with SGD with momentum and an average of its weights, and
saves it --saves times as a run does: weights checked, TensorFlow's files
written, flushed to the disk, read again for their checksum. Prints the median,
its share of the default --checkpoint_every, and how long an epoch must take for
its two saves (the last and, at worst, the best) to be 1 % of it.
"""

import os
import pathlib
import shutil
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags
from absl import logging

_ROOT = flags.DEFINE_string("root", None, "On which disk: a new folder of it.")
_SAVES = flags.DEFINE_integer("saves", 9, "Saves of each network.")
_MODELS = flags.DEFINE_list(
    "models",
    "small_cnn,resnet18,wide_resnet:depth=34:width=10",
    "Which networks, for 32x32 images of ten classes.",
)


def main(_):
    import mart_tf
    from mart_tf.models import loading
    from mart_tf.runs import checkpoints
    from mart_tf.runs import config
    from mart_tf.training import classifier
    from mart_tf.training import optimizers

    logging.set_verbosity(logging.WARNING)
    every, _ = config.Config().interval()
    print("network                          MB  seconds  of 10 min  1 % of")
    for spec in _MODELS.value:
        model = classifier.AdversarialClassifier(
            loading.build(spec, (32, 32, 3), 10),
            threat=mart_tf.ThreatModel(epsilon=8 / 255),
            ema=0.995,
        )
        model.compile(optimizers.create("sgd:momentum=0.9", 0.1))
        model.optimizer.build(model.trainable_variables)
        root = pathlib.Path(_ROOT.value, "save_cost")
        root.mkdir(parents=True)
        try:
            saved = checkpoints.Checkpoints(root, model, steps=1000)
            saved.take_metrics()
            taken = []
            for step in range(1, _SAVES.value + 1):
                begun = time.monotonic()
                saved.save_within(step)
                taken.append(time.monotonic() - begun)
            newest = root / "checkpoints" / "within" / f"ckpt-{step}"
            size = sum(
                file.stat().st_size
                for file in newest.parent.glob(f"{newest.name}.*")
            )
        finally:
            shutil.rmtree(root)
        seconds = statistics.median(taken)
        print(
            f"{spec:28s} {size / 1e6:6.1f} {seconds:8.3f} "
            f"{100 * seconds / every:8.2f} %  {200 * seconds:5.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    flags.mark_flag_as_required("root")
    app.run(main)
