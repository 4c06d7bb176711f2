"""What a pool of unlabelled images is worth: MNIST with 1,000 labels.

python benchmarks/semi_supervised.py --root=/tmp/semi --data_dir=DIR

For each seed: 1,000 labelled images (100 a class, of which 100 become the
validation split) and 20,000 others without labels; a network trained
naturally on the labels labels the pool; then TRADES and MART are trained for
as many steps without the pool and with it (RST and semi-supervised MART), and
the best epoch, on the validation split, is evaluated on the whole test set.
Everything is a call of mart-train, mart-label or mart-evaluate. A run that is
there is not repeated, so that hours can be stopped and resumed.
"""

import pathlib

from absl import app
from absl import flags
import numpy as np
import runs

_ROOT = flags.DEFINE_string("root", None, "Where the workdirs go.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS's MNIST lies.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Repetitions, seeds from 0.")
_STEPS = flags.DEFINE_integer("steps", 1500, "Training steps, about.")

_LABELED, _POOL, _BATCH = 1000, 20_000, 128
_ATTACKS = "pgd:steps=20"


def main(argv):
    del argv
    rows = {}
    for seed in range(_SEEDS.value):
        root = pathlib.Path(_ROOT.value, f"seed{seed}")
        root.mkdir(parents=True, exist_ok=True)
        _split(root, seed)
        common = [
            f"--dataset=npz:{root}/labeled.npz",
            "--model=small_cnn",
            f"--batch_size={_BATCH}",
            f"--seed={seed}",
        ]
        _train(root / "natural", 500, False, *common, "--defense=natural")
        if not (root / "pool.npz").exists():
            answer = runs.program(
                "label",
                f"--workdir={root}/natural",
                f"--pool=npz:{root}/unlabeled.npz",
                f"--output={root}/pool.npz",
            )
            print(answer, flush=True)
        right = _right_labels(root)
        print(f"seed {seed}: {right:.2f} % of the pseudo-labels are right")
        for defense in ("trades", "mart"):
            for pooled in (False, True):
                name = f"{defense}{'_pool' if pooled else ''}"
                pool = [f"--pool=npz:{root}/pool.npz"] if pooled else []
                _train(
                    root / name,
                    _STEPS.value,
                    pooled,
                    *common,
                    "--epsilon=0.3",
                    f"--defense={defense}",
                    *pool,
                )
                rows.setdefault(name, []).append(
                    runs.accuracies(root / name, _ATTACKS, "best")
                )
                print(f"seed {seed}: {name}: {rows[name][-1]}", flush=True)
    runs.print_table(rows)


def _split(root, seed):
    """Writes labeled.npz and unlabeled.npz, if they are not there."""
    if (root / "unlabeled.npz").exists():
        return
    from mart_tf import data

    dataset = data.load("mnist", data_dir=_DATA_DIR.value)
    images, labels = data.arrays(dataset.train)
    test_images, test_labels = data.arrays(dataset.test)
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = np.concatenate(
        [order[labels[order] == k][: _LABELED // 10] for k in range(10)]
    )
    others = order[~np.isin(order, chosen)][:_POOL]
    np.savez_compressed(
        root / "labeled.npz",
        x_train=images[chosen],
        y_train=labels[chosen],
        x_test=test_images,
        y_test=test_labels,
    )
    # For the share of right pseudo-labels alone.
    np.save(root / "truth.npy", labels[others])
    np.savez_compressed(root / "unlabeled.npz", image=images[others])


def _train(workdir, steps, pooled, *flags):
    """About so many steps: the rate falls after two thirds, epsilon ramps."""
    labeled = 0.9 * _LABELED
    per_epoch = labeled // (_BATCH // 2 if pooled else _BATCH)
    epochs = round(steps / per_epoch)
    runs.program(
        "train",
        *flags,
        f"--workdir={workdir}",
        f"--epochs={epochs}",
        f"--epsilon_warmup_epochs={epochs / 5:.2f}",
        "--learning_rate=0.02",
        f"--schedule=piecewise:at={2 * epochs // 3 + 1}",
    )


def _right_labels(root):
    with np.load(root / "pool.npz") as pool:
        return 100 * np.mean(pool["label"] == np.load(root / "truth.npy"))


if __name__ == "__main__":
    flags.mark_flags_as_required(["root"])
    app.run(main)
