"""The train program: flags -> configuration -> run.

mart-train --dataset=mnist --data_dir=... --defense=mart
"""

import dataclasses
import os
import sys

from mart_tf import bounds
from mart_tf import cli
from mart_tf import data
from mart_tf import defenses
from mart_tf import models
from mart_tf import screen
from mart_tf import training
from mart_tf.cli import kinds
from mart_tf.cli import shared
from mart_tf.runs import config as run_config
from mart_tf.runs import starting
from mart_tf.runs import status

SUMMARY = (
    "train a classifier against adversarial examples. Without flags: MART on "
    "the embedded digits. The same command continues an unfinished run."
)

FLAGS = cli.flag_values()

_DATASET = "the data set's own"
_STRINGS = {
    "workdir": "Where the run lives; default: "
    "runs/<dataset>_<model>_<defense>, with the seed where it is not 0.",
    "dataset": "digits, the name of a TFDS image classification set "
    "(mnist:count=1000: trained on 1,000 rows), folder:PATH (one folder a "
    "class) or npz:PATH.",
    "augment": "What is done to the training images, in order: some of "
    f"{', '.join(data.AUGMENTATIONS)}, separated by commas and with options "
    "(crop:padding=4,flip,cutout:size=16), module:Name (your own, or a layer: "
    f"keras.layers:RandomRotation:factor=0.1), or none; default: {_DATASET}.",
    "data_dir": "Where TFDS data lies; default: $TFDS_DATA_DIR or "
    "~/tensorflow_datasets.",
    "pool": "Images with pseudo-labels that training sees beside the data "
    "set's (semi-supervised): npz:PATH as mart-label writes it, or "
    "pickle:PATH in RST's form.",
    "class_weights": "How much an example of each class weighs in the loss: a "
    "number for each, 1,1,2.5, or balanced: the rarer in the training split, "
    "the more; default: 1.",
    "model": f"Network: {', '.join(models.MODELS)} (wide_resnet:depth=28:"
    "width=10; keras:MobileNetV2 or another of keras.applications), the path "
    f"of a .keras file, or module:function; default: {_DATASET}.",
    "init_from": "What the weights of a new run start from: the workdir of a "
    "run, a .keras or a .weights.h5 file, or an exported SavedModel directory, "
    "which runs; default: random weights, or those of --model=FILE.keras; "
    "none: random weights for that file's network too.",
    "outputs": "What the network returns: logits or probabilities.",
    "defense": f"{', '.join(defenses.DEFENSES)}, with options: "
    "mart:regularization=6:form=released.",
    "norm": "Norm of the threat model: linf or l2.",
    "random_start": "Start of the attack: uniform, gaussian (0.001 N(0, 1) of "
    "pixels in [0, 1]) or none.",
    "attack_batch_norm": "What batch norm normalizes by in the attack of a "
    "training step: inference (its moving statistics) or batch (those of the "
    "batch; the moving ones stay as they are).",
    "schedule": "Learning rate over the epochs: constant, "
    "piecewise:at=75+90:factor=0.1 (epochs counted from 1), cosine, both "
    "with warmup_epochs=5 if asked for (cosine:warmup=0.025: a share of the "
    f"run), or onecycle:peak=0.4; default: {_DATASET}.",
    "optimizer": "sgd (momentum 0.9), sgd:nesterov=true, adam or adamw, with "
    "options: sgd:momentum=0.95; or one of Keras: "
    "keras.optimizers:SGD:momentum=0.9:global_clipnorm=1.",
    "update": f"How a step takes the gradient: {', '.join(training.UPDATES)}.",
    "precision": "float32, tf32 (float32 whose products a GPU rounds to 10 "
    "bits), mixed_bfloat16, or auto: bfloat16 where the hardware computes it.",
    "xla": "What XLA compiles: step (on one device), attack (of each step) or "
    "off; auto: the step on a GPU, the attack on several, off on CPUs.",
    "checkpoint_every": "How much of an epoch a run may lose: it is saved so "
    "often, 10min or 500steps, beside the end of each epoch.",
    "callbacks": "Keras callbacks of your own beside the run's: "
    "module:function, called once, returns one or a list; with options, and "
    "several separated by commas: "
    "keras.callbacks:EarlyStopping:monitor=val_robust_accuracy:mode=max.",
    "strategy": "auto (mirrored if more than one device is visible), single, "
    "mirrored, or multi_worker: processes on several machines, which TF_CONFIG "
    "names; auto takes them too where it names any.",
}
_READERS = {
    "workdir": kinds.path,
    "data_dir": kinds.path,
    "model": kinds.named_or_path,
    "init_from": kinds.path,
}
_FLOATS = {
    "epsilon": "Attack radius in units of the pixel range, above 0 (in linf at "
    "most its width), such as 0.3 or 8/255, or 8 where --pixel_max=255; "
    f"default: {_DATASET} for linf, scaled to the range.",
    "regularization": "The paper's lambda, at least 0; default: the "
    "defense's own.",
    "attack_step_size": "Step of the attack in units of the pixel range, "
    "above 0; default: epsilon / 4.",
    "epsilon_warmup_epochs": "Epochs over which epsilon and the attack's step "
    f"grow linearly from 0; default: {_DATASET}.",
    "learning_rate": "Learning rate of the optimizer, above 0; default: "
    f"{_DATASET}.",
    "pixel_min": "Least value of a pixel as the network takes it; images are "
    "spread over the range, and epsilon is in its units.",
    "pixel_max": "Greatest value of a pixel: 255 for a network of grey levels, "
    "where 8/255 of the range is --epsilon=8.",
    "pool_fraction": "Share of each batch that comes from the pool, above 0 "
    "and below 1.",
    "unlabeled_weight": "The paper's gamma, the weight of a pool example in "
    "the loss, at least 0.",
    "ema": "Decay of the moving average of the weights, at least 0 and less "
    "than 1, such as 0.995; validation, --checkpoint=best and last, evaluation "
    "and export then take the average; 0: none is kept.",
    "ema_warmup": "Share of the run in which the average is the weights "
    "themselves, at least 0 and less than 1, such as 0.025; after it its decay "
    "rises to --ema.",
    "ema_warmup_epochs": "The same in epochs, at least 0.",
    "label_smoothing": "Share of its label, at least 0 and less than 1, that "
    "an example gives to all classes in the loss's cross-entropies.",
    "weight_decay": "Coupled L2 on every trainable variable, at least 0; "
    f"default: {_DATASET}; of adamw its own, decoupled one, default: 0.004.",
}
_INTEGERS = {
    "attack_steps": "Steps of the attack, at least 1.",
    "epochs": "Passes over the training split, or as long as "
    f"--steps_per_epoch says; default: {_DATASET}.",
    "steps_per_epoch": "Training steps in an epoch, at least 1: what epochs, "
    "schedules, ramps and checkpoints count by; default: one pass over the "
    "labelled training split.",
    "batch_size": f"Images a step, over all devices; default: {_DATASET}.",
    "validation_images": "Images of the training set that are held out to "
    "choose the best epoch by; 0: none, all are trained on and the last epoch "
    "is kept; default: a tenth, at most 2,000.",
    "max_skipped_steps": "How many steps in a row may be skipped because a "
    "loss or a gradient in them is not finite, at least 0; one more ends the "
    "run.",
    "early_stopping_patience": "Epochs without a better one on the validation "
    "split after which a run ends, at least 0; 0: it runs to its last epoch.",
    "seed": "Seed of weights, order, augmentation and noise, at least 0.",
}
_BOOLS = {
    "stop_on_collapse": "End the run where robust accuracy under PGD (of "
    "natural training natural accuracy) falls to less than half of its best "
    "from one epoch to another, as it may in training with one step of attack; "
    "a run says so in any case.",
    "download": "Let TFDS download data that is not there.",
}


def _define_flags():
    defaults = run_config.Config()
    for texts, read in [
        (_STRINGS, kinds.text),
        (_FLOATS, kinds.number),
        (_INTEGERS, bounds.OF_TYPE["int"].read),
        (_BOOLS, kinds.truth),
    ]:
        for name, text in texts.items():
            if name in run_config.LIMITS:
                reader = run_config.LIMITS[name].read
            else:
                reader = _READERS.get(name, read)
            kinds.define(FLAGS, name, getattr(defaults, name), text, reader)


_define_flags()

_ALLOW_CODE = shared.code_flag(FLAGS)
_STATUS = kinds.define(
    FLAGS,
    "status",
    None,
    "Workdir of a run, also one that is running: shows how far it is, how "
    "robust, how fast, and who writes into it. Takes no other flag.",
    kinds.path,
)
_CURVES = kinds.define(
    FLAGS,
    "curves",
    None,
    "Workdir of a run, also one that is running: draws its accuracies, loss, "
    "learning rate and epsilon by epoch into it, as curves.html and curves.png."
    " A run does so at its end. Takes no other flag.",
    kinds.path,
)


def main(argv=None):
    """Runs the program."""
    cli.run("mart-train", SUMMARY, FLAGS, _main, argv)


def configuration():
    """The `Config` that the parsed flags say."""
    values = {
        field.name: FLAGS[field.name].value
        for field in dataclasses.fields(run_config.Config)
    }
    return run_config.Config(**values)


def _draw_curves():
    from mart_tf.runs import curves

    shared.check_alone(FLAGS, "curves", "verbosity")
    print(curves.save(_CURVES.value))


def _show_status():
    shared.check_alone(FLAGS, "status", "verbosity")
    for name, text in status.lines(_STATUS.value):
        screen.say(text, heading=f"{name:13}")


def checked():
    """What the flags ask for: what `starting.checked` returns, or raises."""
    return starting.checked(configuration(), _ALLOW_CODE.value)


def _main():
    if _STATUS.value is not None:
        _show_status()
        return
    if _CURVES.value is not None:
        _draw_curves()
        return
    config, record, members = checked()

    # The flags are good: only now is TensorFlow imported.
    cli.import_tensorflow(FLAGS.verbosity, starts=members is None)
    from mart_tf.runs import run
    from mart_tf.runs import signals
    from mart_tf.runs import workers

    try:
        run.train(config, record, screen.console(), _leave, members)
    except signals.Stopped as stopped:
        screen.complain(f"mart-train: {stopped}")
        sys.exit(stopped.status)
    except workers.Lost as lost:
        _leave(lost)


def _leave(stopped):
    """Ends the process in the middle of whatever it does."""
    screen.complain(f"mart-train: {stopped}")
    sys.stdout.flush()
    os._exit(stopped.status)


if __name__ == "__main__":
    main()
