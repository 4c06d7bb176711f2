"""What a person sees of a run, and what stays of it after each epoch."""

import csv
import io
import pathlib
import time

import keras
import rich.console
import rich.progress

from mart_tf import files
from mart_tf import limits
from mart_tf.runs import signals

_REFRESH_SECONDS = 0.5
# An epoch's training is worth a save if it, and validation after it, may be
# lost.
_BEFORE_VALIDATION = 60.0


class Progress(keras.callbacks.Callback):
    """A bar with rate and time left, and a line for each finished epoch.

    The bar shows on a terminal only; the lines always.

    Args:
        console: A `rich.console.Console`.
        batch_size: Global batch size.
        steps: Steps in an epoch.
        epochs: Epochs of the run.
        done: Steps that the run has taken so far.
    """

    def __init__(self, console, batch_size, steps, epochs, done):
        super().__init__()
        self._console = console
        self._batch_size = batch_size
        self._steps = steps
        self._epochs = epochs
        self._done = done
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[state]}"),
            rich.progress.TextColumn("time left"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def on_train_begin(self, logs=None):
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=self._epochs * self._steps, completed=self._done, state=""
        )

    def on_train_end(self, logs=None):
        self.close()

    def close(self):
        """Takes the bar away, also where training did not end."""
        self._bar.stop()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        # An epoch that goes on takes fewer steps than others.
        self._first = max(self._done, epoch * self._steps)
        self._started = self._shown = time.monotonic()
        self._trained = None

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        now = time.monotonic()
        # Reading a metric waits for the device: not at every step.
        if self._bar.disable or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        rate = (batch + 1) * self._batch_size / (now - self._started)
        self._bar.update(
            self._task,
            completed=self._done,
            description=f"epoch {self._epoch + 1}/{self._epochs}",
            state=f"{_accuracies(logs)}  {rate:,.0f} images/s",
        )

    def on_test_begin(self, logs=None):
        self._trained = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        ended = self._trained or time.monotonic()
        taken = (epoch + 1) * self._steps - self._first
        rate = taken * self._batch_size / (ended - self._started)
        validation = {
            name.removeprefix("val_"): value
            for name, value in logs.items()
            if name.startswith("val_")
        }
        seen = _accuracies(validation)
        seen = (
            f"validation: {seen}" if seen else f"training: {_accuracies(logs)}"
        )
        measures = "".join(
            f"{name} {logs[name]:.4f}  " for name in self.model.defense.measures
        )
        self._console.print(
            f"epoch {epoch + 1:3d}/{self._epochs}  loss {logs['loss']:.4f}  "
            f"{measures}{seen}  {rate:,.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )


class Record(keras.callbacks.Callback):
    """A row of `metrics.csv` and a checkpoint after each epoch.

    Args:
        path: The workdir.
        checkpoints: The run's `Checkpoints`.
        first_epoch: Finished epochs; later rows, of an epoch whose checkpoint
            was lost, are dropped.
    """

    def __init__(self, path, checkpoints, first_epoch):
        super().__init__()
        self._file = pathlib.Path(path, "metrics.csv")
        self._checkpoints = checkpoints
        self._rows = []
        if self._file.exists():
            self._rows = [
                row
                for row in _rows(self._file)
                if int(row["epoch"]) <= first_epoch
            ]

    def on_epoch_end(self, epoch, logs=None):
        accuracy = logs.get(f"val_{self.model.defense.selects_by}")
        best = self._checkpoints.is_best(accuracy)
        self._rows.append(
            {
                "epoch": epoch + 1,
                **{name: f"{value:.6g}" for name, value in logs.items()},
                "learning_rate": f"{float(self._checkpoints.rate):.6g}",
                "best": int(best),
            }
        )
        text = io.StringIO()
        names = list(dict.fromkeys(k for row in self._rows for k in row))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        # The row first: a run that is killed before its checkpoint drops it.
        files.replace_text(self._file, text.getvalue())
        self._checkpoints.save(epoch + 1, accuracy)


class Within(keras.callbacks.Callback):
    """Saves the middle of an epoch: now and then, and when a signal asks.

    Args:
        checkpoints: The run's `Checkpoints`, the metrics of an epoch that goes
            on restored.
        signals: A `signals.Signals`.
        every: Seconds and steps between two saves, one of them None.
        steps: Steps in an epoch.
        position: Steps of the first epoch that were taken before.
    """

    def __init__(self, checkpoints, signals, every, steps, position):
        super().__init__()
        self._checkpoints = checkpoints
        self._signals = signals
        self._seconds, self._steps_between = every
        self._steps = steps
        self._position = position
        self._rest()

    def on_epoch_begin(self, epoch, logs=None):
        self._before = epoch * self._steps + self._position
        if self._position:
            self._checkpoints.give_metrics()
        else:
            rate = keras.ops.convert_to_numpy(
                self.model.optimizer.learning_rate
            )
            self._checkpoints.rate.assign(rate)
        self._position = 0
        self._done = self._before

    def on_train_batch_end(self, batch, logs=None):
        self._done = self._before + batch + 1
        self._signals.heeded = True
        if self._is_due(self._seconds) or self._is_asked():
            self._checkpoints.take_metrics()
            self._save()

    def on_test_begin(self, logs=None):
        # Keras resets them next: validation has the same ones.
        self._checkpoints.take_metrics()
        if self._is_due(_BEFORE_VALIDATION):
            self._save()

    def on_test_batch_end(self, batch, logs=None):
        if self._is_asked():
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        self._rest()

    def _is_asked(self):
        return self._signals.stop is not None or self._signals.save

    def _is_due(self, seconds):
        if self._steps_between is not None:
            return self._done - self._saved >= self._steps_between
        return time.monotonic() - self._when >= seconds

    def _save(self):
        self._checkpoints.save_within(self._done)
        self._signals.save = False
        self._when, self._saved = time.monotonic(), self._done
        if self._signals.stop is not None:
            epoch, step = divmod(self._done - 1, self._steps)
            where = (
                f"after step {step + 1} of epoch {epoch + 1}, which is saved"
            )
            raise signals.Stopped(self._signals.stop, where)

    def _rest(self):
        """An epoch is saved, or begins."""
        self._when = time.monotonic()
        self._saved = self._done = getattr(self, "_done", 0)


def _accuracies(logs):
    return "  ".join(
        f"{name} {100 * float(logs[key]):.1f} %"
        for name, key in [
            ("natural", "natural_accuracy"),
            ("robust", "robust_accuracy"),
        ]
        if key in logs
    )


def _rows(path):
    """The rows of a metrics.csv, dicts with the epoch among their keys."""
    text = limits.read_text(path)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        for row in rows:
            int(row["epoch"])
            if None in row:
                raise KeyError("more cells than columns")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged: it has a row without an epoch; restore it, or "
            "remove it: the run goes on with a new one."
        ) from error
    return rows
