"""What TensorBoard shows of a run, written where its package is installed.

    tensorboard/              settings (hparams, and a table), learning rate and
                              epsilon by training step, adversarial images
    tensorboard/train/        the metrics of training by epoch, images a second
    tensorboard/validation/   the metrics of the validation split by epoch

The settings are written when a run begins or goes on, all else at the end of an
epoch, once its checkpoint is there: a run that goes on writes no epoch twice.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from mart_tf import attacks
from mart_tf import data
from mart_tf import markup
from mart_tf.models import outputs
from mart_tf.runs import described
from mart_tf.runs import sweep
from mart_tf.training import schedules

_VALIDATION = "val_"
# Of a run, about so many points of what follows from its settings.
_POINTS = 500
_IMAGES = 8
# Smaller images are shown enlarged.
_SIDE = 64
_GAP = 2


class TensorBoardLogs(keras.callbacks.Callback):
    """Writes them.

    Args:
        config: A resolved `Config`.
        steps: Training steps in an epoch.
        progress: The run's `callbacks.Progress`, which comes before and knows
            how fast an epoch was.
        saved: Its `Checkpoints`, which know the rate that an epoch began with:
            a callback may have set another by its end.
        shown: A split of the images that are attacked for show, or None.
    """

    def __init__(self, config, steps, progress, saved, shown=None):
        super().__init__()
        self._config = config
        self._steps = steps
        self._rate = schedules.create(
            config.schedule, config.learning_rate, steps, config.epochs
        )
        self._progress = progress
        self._saved = saved
        self._shown = shown
        self._run = None
        self._every = math.ceil(config.epochs * steps / _POINTS)

    def on_train_begin(self, logs=None):
        if self._run is not None:
            # An epoch that went on is a training of its own for Keras.
            return
        root = described.tensorboard_folder(self._config.workdir)
        self._run, self._training, self._validation = (
            tf.summary.create_file_writer(str(root / part))
            for part in (".", "train", "validation")
        )
        if self._shown is not None:
            images, self._labels = data.arrays(self._shown)
            threat = self.model.threat
            pixel_range = threat.pixel_min, threat.pixel_max
            self._images = data.spread(images, pixel_range)
            self._attack = tf.function(self._attacked, autograph=False)
        with self._run.as_default(step=0):
            self._write_settings()

    def on_epoch_end(self, epoch, logs=None):
        number = epoch + 1
        values = logs | {"images_per_second": self._progress.rate}
        for name, value in values.items():
            writer, tag = self._training, name
            if name.startswith(_VALIDATION):
                writer, tag = self._validation, name[len(_VALIDATION) :]
            with writer.as_default(step=number):
                tf.summary.scalar(f"epoch_{tag}", value)
        with self._run.as_default():
            # The whole epoch, also where it went on in its middle.
            for step in range(epoch * self._steps, number * self._steps):
                if step % self._every == 0:
                    self._write_schedule(step)
            if self._shown is not None:
                adversarial = self._attack(self._images, self._labels)
                shown = grid(
                    self._images, adversarial.numpy(), self.model.threat
                )
                tf.summary.image("adversarial", shown[None], step=number)
        for writer in (self._run, self._training, self._validation):
            writer.flush()

    def _write_settings(self):
        from tensorboard.plugins.hparams import api

        settings = dataclasses.asdict(self._config)
        rows = [
            (name, markup.escaped(str(value)))
            for name, value in settings.items()
            if value is not None
        ]
        table = markup.table(("flag", "value"), rows, "---")
        tf.summary.text("flags", table)
        deciding = {
            name: _number(value)
            for name, value in sweep.told(self._config).items()
            if value is not None
        }
        group = "validation" if self._config.validation_images else "train"
        api.hparams_config(
            [api.HParam(name) for name in deciding],
            [
                api.Metric(f"epoch_{name}", group=group, display_name=name)
                for name in ("natural_accuracy", "robust_accuracy", "loss")
            ],
        )
        api.hparams(deciding, trial_id=self._config.workdir)

    def _write_schedule(self, step):
        ramp = described.epsilon_ramp(self._config, self.model.defense)
        if ramp is not None:
            ends = self.model.epsilon_warmup_steps if ramp else 0
            share = min(1.0, step / ends) if ends else 1.0
            radius = share * self.model.threat.epsilon
            tf.summary.scalar("epsilon", radius, step=step)
        if isinstance(
            self._rate, keras.optimizers.schedules.LearningRateSchedule
        ):
            # The optimizer's own count of steps would wait for the device.
            with tf.device("CPU:0"):
                rate = self._rate(step)
        else:
            rate = self._saved.rate
        rate = float(keras.ops.convert_to_numpy(rate))
        tf.summary.scalar("learning_rate", rate, step=step)

    def _attacked(self, images, labels):
        """As validation attacks: PGD at the full epsilon."""
        model = self.model

        def classify(images):
            return outputs.logits(model(images, training=False), model.outputs)

        return attacks.pgd(
            classify,
            images,
            labels,
            model.threat,
            steps=model.attack_steps,
            step_size=model.attack_step_size,
            random_start=model.random_start,
            seed=model.seed,
        )


def _number(value):
    """An option as the number that it says, so that axes are drawn of it."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def create(config, dataset, steps, progress, saved, alone):
    """The callbacks that write the logs of a run: one, or none.

    Args:
        config, steps, progress, saved: As of `TensorBoardLogs`.
        dataset: A `data.Dataset`.
        alone: Whether one process trains; of several none attacks images that
            the others do not.
    """
    if described.tensorboard_folder(config.workdir) is None:
        return []
    split, channels = dataset.validation, dataset.image_shape[-1]
    shown = None
    if len(split) and alone and channels in (1, 3):
        # From end to end of a split, which may list class by class.
        count = min(_IMAGES, len(split))
        places = np.linspace(0, len(split) - 1, count).round().astype(int)
        shown = split.select(places)
    return [TensorBoardLogs(config, steps, progress, saved, shown)]


def grid(natural, adversarial, threat):
    """Rows of natural images, adversarial images, and their difference.

    Args:
        natural, adversarial: Arrays `[n, height, width, channels]`.
        threat: The `ThreatModel`; of a difference grey is 0, and black and
            white are epsilon in linf, the greatest one there is in l2.

    Returns:
        Uint8 array `[height, width, channels]`.
    """
    low, width = threat.pixel_min, threat.pixel_max - threat.pixel_min
    difference = adversarial - natural
    scale = threat.epsilon
    if threat.norm == "l2":
        scale = float(np.abs(difference).max()) or scale
    rows = [
        (natural - low) / width,
        (adversarial - low) / width,
        0.5 + difference / (2.0 * scale),
    ]
    times = max(1, _SIDE // natural.shape[1])
    frame = [(0, 0), (_GAP, _GAP), (_GAP, _GAP), (0, 0)]
    lines = [
        np.hstack(
            np.pad(
                row.repeat(times, 1).repeat(times, 2), frame, constant_values=1
            )
        )
        for row in rows
    ]
    whole = np.clip(np.vstack(lines), 0.0, 1.0)
    return np.rint(255.0 * whole).astype(np.uint8)
