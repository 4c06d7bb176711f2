"""Do two devices, and two processes, train what one device does?

    python benchmarks/many_devices.py --root=/tmp/devices

Takes 20 steps of every defense on the embedded digits, in batches of 64, with
augmentation, an average of the weights and validation: on one device, on two
logical CPUs under a MirroredStrategy, and in two processes under a
MultiWorkerMirroredStrategy. Networks: a small CNN without batch norm, and a
wide ResNet of one block a stage whose batch norm is synchronized, in float64:
in float32 it cannot be compared, as rounding turns the sign of a pixel's
gradient, and behind a batch norm switches ReLU for whole areas of background.
Prints for each the greatest difference from one device, absolute,
of weights with batch statistics, of their averages, of the optimizer's state
and of what a defense keeps of each example; relative, of the row of
metrics.csv. Ends with status 1 where one is above 1e-5. Started again, it goes
on where it was stopped.

What rounding alone does in float32, `--perturbed` shows: one device beside
itself, its first weights changed by a 1e-7th or so, the seed of the change
--perturbed (`--models=wide_resnet:depth=10:width=1`).
"""

import csv
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

from absl import app
from absl import flags
import clusters
import numpy as np
import programs
import tensorflow as tf

from mart_tf import data
from mart_tf import models
from mart_tf.labeling import subsets

_ROOT = flags.DEFINE_string("root", None, "Where the workdirs go.")
_DEFENSES = flags.DEFINE_list(
    "defenses",
    "natural,standard,alp,clp,trades,mma,dynamic,mart,uat,fgsm_rs,nfgsm,subset",
    "Which defenses.",
)
_MODELS = flags.DEFINE_list(
    "models",
    "digits_cnn,double_precision:wide_resnet",
    "Which networks.",
)
_STEPS = flags.DEFINE_integer("steps", 20, "How many steps.")

_PERTURBED = flags.DEFINE_integer(
    "perturbed", None, "Instead of two devices: a seed for other first weights."
)

_LIMIT = 1e-5
_FLAGS = (
    "--dataset=digits",
    "--attack_steps=3",
    "--batch_size=64",
    "--epochs=1",
    "--learning_rate=0.01",
    "--schedule=constant",
    "--augment=crop,flip",
    "--ema=0.9",
    "--validation_images=100",
    "--precision=float32",
)
_PARTS = ("classifier", "averages", "optimizer", "memory")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def main(_):
    root = pathlib.Path(_ROOT.value)
    root.mkdir(parents=True, exist_ok=True)
    # Where the programs find double_precision.py.
    here = str(pathlib.Path(__file__).parent.resolve())
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    os.environ["PYTHONPATH"] = path
    failed = []
    print("| run | devices | " + " | ".join(_PARTS) + " | metrics |")
    print("|---" * (len(_PARTS) + 3) + "|")
    for model in _MODELS.value:
        for defense in _DEFENSES.value:
            if not _compare(root, model, defense):
                failed.append(f"{model}, {defense}")
    if failed:
        sys.exit(f"above {_LIMIT:g}: {'; '.join(failed)}")


def _compare(root, model, defense):
    """Prints two rows; whether all differences are small."""
    name = f"{model.replace(':', '_')}_{defense}_{_STEPS.value}"
    command = (
        *_FLAGS,
        f"--model={model}",
        f"--defense={_spec(root, defense)}",
        f"--steps_per_epoch={_STEPS.value}",
    )
    one, sound = root / f"{name}_one", True
    _train_alone(one, *command, "--strategy=single")
    places = ("two CPUs", "two processes")
    if _PERTURBED.value is not None:
        places = (f"itself {_PERTURBED.value}",)
    for where in places:
        two = root / f"{name}_{where.replace(' ', '_')}"
        if _PERTURBED.value is not None:
            first = f"--init_from={_perturbed(two, model)}"
            _train_alone(two, *command, "--strategy=single", first)
        elif where == "two CPUs":
            mirrored = (*command, "--strategy=mirrored")
            _train_alone(two, *mirrored, setup=programs.TWO_CPUS)
        else:
            _train_together(two, *command)
        found = [*_differences(one, two), _of_metrics(one, two)]
        shown = " | ".join("-" if d is None else f"{d:.1e}" for d in found)
        print(f"| {model}, {defense} | {where} | {shown} |", flush=True)
        sound &= all(d is None or d <= _LIMIT for d in found)
    return sound


def _perturbed(workdir, model):
    """A file of the first weights of a run, a little changed."""
    path = workdir.with_suffix(".weights.h5")
    network = models.build(model, (8, 8, 1), 10)
    generator = np.random.default_rng(_PERTURBED.value)
    network.set_weights(
        [
            weight * (1 + 1e-7 * generator.standard_normal(weight.shape))
            for weight in network.get_weights()
        ]
    )
    network.save_weights(path)
    return path


def _spec(root, defense):
    """`subset` asks which images it treats otherwise: the first hundred."""
    if defense != "subset":
        return defense
    folder = root / "subsets"
    if not folder.exists():
        train = data.load("digits", validation_images=100).train
        some = subsets.Examples(
            dataset="digits",
            images=len(train),
            bound=data.rows(train),
            picked_by="their place",
            rows=train.indices[:100],
            labels=train.labels[:100],
            predicted=(train.labels[:100] + 1) % 10,
        )
        subsets.write(folder, some, some)
    return f"subset:file={folder / subsets.WRONG}:treatment=kl"


def _train_alone(path, *command, **options):
    if _is_finished(path):
        return
    done = programs.run("train", *command, f"--workdir={path}", **options)
    if done.returncode:
        sys.exit(f"{path}: {done.stderr}")


def _train_together(path, *command):
    if _is_finished(path):
        return
    command += ("--strategy=multi_worker", f"--workdir={path}")
    with clusters.begun(*command) as both:
        for process in both:
            done = process.finished()
            if done.returncode:
                sys.exit(f"{path}: {done.stderr}")


def _is_finished(path):
    return (path / "checkpoints" / "ckpt-1.sha256").exists()


def _differences(one, two):
    """The greatest of each of `_PARTS`, None where there is none of it."""
    readers = [
        tf.train.load_checkpoint(str(path / "checkpoints" / "ckpt-1"))
        for path in (one, two)
    ]
    names = [n for n in readers[0].get_variable_to_shape_map() if _VALUE in n]
    for part in _PARTS:
        own = [n for n in names if n.startswith(part + "/")]
        yield max(
            (
                float(
                    np.max(
                        np.abs(
                            np.float64(readers[0].get_tensor(name))
                            - np.float64(readers[1].get_tensor(name))
                        )
                    )
                )
                for name in own
            ),
            default=None,
        )


def _of_metrics(one, two):
    """The greatest relative difference in metrics.csv."""
    rows = []
    for path in (one, two):
        with (path / "metrics.csv").open(newline="") as stream:
            rows += csv.DictReader(stream)
    return max(
        abs(float(rows[0][name]) - float(rows[1][name]))
        / max(abs(float(rows[0][name])), 1e-12)
        for name in rows[0]
        if rows[0][name]
    )


if __name__ == "__main__":
    flags.mark_flag_as_required("root")
    app.run(main)
