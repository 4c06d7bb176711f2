"""What a person sees of a run, and what stays of it after each epoch."""

import time

import keras
import rich.progress

from mart_tf import bounds
from mart_tf import screen
from mart_tf.runs import asking
from mart_tf.runs import history
from mart_tf.runs import signals
from mart_tf.screen import bars

_REFRESH_SECONDS = 0.5
_EVENT_SECONDS = 60.0
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

    Attributes:
        rate: Images a second of the last finished epoch, in training alone.
    """

    def __init__(self, console, batch_size, steps, epochs, done):
        super().__init__()
        self._console = console
        self._batch_size = batch_size
        self._steps = steps
        self._epochs = epochs
        self._done = done
        self._bar = bars.Bars(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(None),
            rich.progress.TextColumn("{task.fields[state]}"),
            rich.progress.TimeRemainingColumn(compact=True),
            rich.progress.TextColumn("left"),
            console=console,
        )

    def on_train_begin(self, logs=None):
        self._bar.start()
        self._task = self._bar.add_task(
            "",
            total=self._epochs * self._steps,
            completed=self._done,
            # Until the first step is through.
            state="compiling",
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
        self._show(description=self._name)

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        now = time.monotonic()
        # Reading a metric waits for the device: not at every step.
        if self._bar.disable or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        rate = (batch + 1) * self._batch_size / (now - self._started)
        parts = [*_accuracies(logs), f"{rate:,.0f} images/s"]
        self._show(completed=self._done, state="  ".join(parts))

    def on_test_begin(self, logs=None):
        self.stop_clock()
        self._show(completed=self._done, state="validation")

    def stop_clock(self, epoch=None, logs=None):
        """Ends what counts as training of an epoch, where it has not ended."""
        self._trained = self._trained or time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.stop_clock()
        taken = (epoch + 1) * self._steps - self._first
        self.rate = taken * self._batch_size / (self._trained - self._started)
        validation = {
            name.removeprefix("val_"): value
            for name, value in logs.items()
            if name.startswith("val_")
        }
        parts = [
            f"loss {logs['loss']:.4f}",
            *(_accuracies(validation) or _accuracies(logs)),
            f"{self.rate:,.0f} images/s",
            *(
                f"{name} {logs[name]:.4f}"
                for name in self.model.defense.measures
            ),
        ]
        if "skipped" in logs:
            parts.append(f"{logs['skipped']} steps skipped")
        screen.say_parts(parts, f"{self._name}  ", self._console)

    @property
    def _name(self):
        """Of the epoch, counted from 1, as wide as that of the last one."""
        width = len(str(self._epochs))
        return f"epoch {self._epoch + 1:{width}}/{self._epochs}"

    def _show(self, **fields):
        if not self._bar.disable:
            self._bar.update(self._task, **fields)


class Own(keras.callbacks.CallbackList):
    """Callbacks of a user's own, which come after those of the run.

    But for the end of an epoch: what they do then to the model and its
    optimizer is part of the epoch, and `end_epoch` comes before its checkpoint.
    What they raise is raised once the run's have seen the epoch, and where one
    stops the training within an epoch, it ends with the epoch: half of one is
    none.

    For them training begins and ends once, though a run that goes on within an
    epoch takes two calls of `fit`; `end_train` says when.

    Args:
        callbacks: Keras callbacks.
    """

    def __init__(self, callbacks):
        super().__init__(callbacks)
        self._error = None
        self._begun = False
        self._stops = False
        self._last = None

    def on_train_begin(self, logs=None):
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs=None):
        self._last = logs

    def end_train(self):
        """Calls their `on_train_end`, with the logs of the last `fit`."""
        if self._begun:
            super().on_train_end(self._last)

    def end_epoch(self, epoch, logs):
        """Calls their `on_epoch_end`; what they add to the logs stays here."""
        try:
            super().on_epoch_end(epoch, dict(logs))
        except Exception as error:
            self._error = error

    def on_epoch_end(self, epoch, logs=None):
        if self._error is not None:
            raise self._error
        if self._stops:
            self.model.stop_training = True

    # Keras's list would hand what no callback has to threads, at each step.
    def on_train_batch_end(self, batch, logs=None):
        for each in self.callbacks:
            each.on_train_batch_end(batch, logs)
        if self.model.stop_training:
            self._stops = True
            self.model.stop_training = False

    def on_test_batch_end(self, batch, logs=None):
        for each in self.callbacks:
            each.on_test_batch_end(batch, logs)


class Record(keras.callbacks.Callback):
    """A row of `metrics.csv` and a checkpoint after each epoch.

    Args:
        path: The workdir.
        checkpoints: The run's `Checkpoints`, which keep the rows too.
    """

    def __init__(self, path, checkpoints):
        super().__init__()
        self._path = path
        self._checkpoints = checkpoints

    def on_epoch_end(self, epoch, logs=None):
        accuracy = logs.get(f"val_{self.model.defense.selects_by}")
        best = self._checkpoints.is_best(accuracy)
        rows = self._checkpoints.rows
        rows.append(
            {
                "epoch": str(epoch + 1),
                **{name: f"{value:.6g}" for name, value in logs.items()},
                "learning_rate": f"{float(self._checkpoints.rate):.6g}",
                "best": str(int(best)),
            }
        )
        # The row first: a run that is killed before its checkpoint drops it.
        if self._checkpoints.writes:
            history.write(self._path, rows)
        self._checkpoints.save(epoch + 1, accuracy)


class Events(keras.callbacks.Callback):
    """Writes the progress of a run, its epochs and its skipped steps.

    Args:
        tell: An `events.Log`.
        batch_size: Global batch size.
        done: Steps that the run has taken so far.
        alone: Whether one process trains.
    """

    def __init__(self, tell, batch_size, done, alone=True):
        super().__init__()
        self._tell = tell
        self._alone = alone
        self._batch_size = batch_size
        self._done = done

    def on_epoch_begin(self, epoch, logs=None):
        self._skipped = 0
        self._mark()

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        seconds = time.monotonic() - self._when
        if seconds < _EVENT_SECONDS:
            return
        images = (self._done - self._from) * self._batch_size
        rate = round(images / seconds, 1)
        self._tell("progress", done=self._done, images_per_second=rate)
        if self._alone:
            # Of several processes each would have to add its own.
            self._tell_skipped(self.model.logs.skipped())
        self._mark()

    def on_epoch_end(self, epoch, logs=None):
        self._tell_skipped(logs.get("skipped", 0))
        values = {name: float(f"{value:.6g}") for name, value in logs.items()}
        self._tell("epoch", epoch=epoch + 1, done=self._done, **values)

    def _mark(self):
        self._when, self._from = time.monotonic(), self._done

    def _tell_skipped(self, count):
        if count > self._skipped:
            self._skipped = count
            self._tell("skip", done=self._done, skipped=count)


class Within(keras.callbacks.Callback):
    """Saves the middle of an epoch: now and then, and when a signal asks.

    Args:
        checkpoints: The run's `Checkpoints`, the metrics of an epoch that goes
            on restored.
        signals: A `signals.Signals`.
        every: Seconds and steps between two saves, one of them None.
        place: Where the run stands, a `fitting.Place`.
        tell: An `events.Log`.
        together: The `workers.Workers` of the run.
    """

    def __init__(self, checkpoints, signals, every, place, tell, together):
        super().__init__()
        self._checkpoints = checkpoints
        self._signals = signals
        self._asking = asking.Asking(together, signals)
        self._several = together.count > 1
        self._seconds, self._steps_between = every
        self._steps = place.steps
        self._position = place.position
        self._tell = tell
        self._rest()

    def on_epoch_begin(self, epoch, logs=None):
        self._before = epoch * self._steps + self._position
        self._begins = not self._position
        if self._position:
            self._checkpoints.give_metrics()
        self._position = 0
        self._done = self._before

    def on_train_batch_begin(self, batch, logs=None):
        if self._begins:
            # Now: a user's callback may set it when the epoch begins.
            rate = keras.ops.convert_to_numpy(
                self.model.optimizer.learning_rate
            )
            self._checkpoints.rate.assign(rate)
            self._begins = False

    def on_train_batch_end(self, batch, logs=None):
        self._done = self._before + batch + 1
        self._signals.heeded = True
        by_steps = self._steps_between is not None
        due = self._is_due(self._seconds)
        if self._asking.is_wanted(due, now=by_steps and due):
            self._checkpoints.take_metrics()
            self._save()

    def on_test_begin(self, logs=None):
        # Keras resets them next: validation has the same ones.
        self._checkpoints.take_metrics()
        if self._asking.is_wanted(self._is_due(_BEFORE_VALIDATION), now=True):
            self._save()

    def on_test_batch_end(self, batch, logs=None):
        if self._asking.is_wanted(False):
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        self._rest()

    def _is_due(self, seconds):
        if self._steps_between is not None:
            return self._done - self._saved >= self._steps_between
        return time.monotonic() - self._when >= seconds

    def _save(self):
        stop = self._asking.stop
        if stop is not None:
            self._tell("signal", name=stop.name)
        elif self._asking.save:
            self._tell("signal", name="SIGUSR1")
        self._checkpoints.save_within(self._done)
        self._when, self._saved = time.monotonic(), self._done
        if stop is not None:
            epoch, step = divmod(self._done - 1, self._steps)
            whose = f"of process {self._asking.of} " if self._several else ""
            where = (
                f"{whose}after step {step + 1} of epoch {epoch + 1}, which is "
                "saved"
            )
            raise signals.Stopped(stop, where)

    def _rest(self):
        """An epoch is saved, or begins."""
        self._asking.rest()
        self._when = time.monotonic()
        self._saved = self._done = getattr(self, "_done", 0)


def _accuracies(logs):
    return [
        f"{name} {bounds.percent(logs[key], 1)} %"
        for name, key in [
            ("natural", "natural_accuracy"),
            ("robust", "robust_accuracy"),
        ]
        if key in logs
    ]
