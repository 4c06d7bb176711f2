"""How far a run is, read from its workdir; TensorFlow is not imported."""

import datetime
import pathlib

from mart_tf import bounds
from mart_tf import files
from mart_tf.runs import events
from mart_tf.runs import history
from mart_tf.runs import overfitting
from mart_tf.runs import record


def lines(path):
    """What `mart-train --status` shows: pairs of a word and a sentence.

    Args:
        path: The workdir of a run, which may be running.

    Raises:
        ValueError: If it is none, or damaged.
    """
    path = pathlib.Path(path)
    config, happened = record.read(path).config, events.read(path)
    starts = [i for i, e in enumerate(happened) if e["event"] == "start"]
    # What happened since the run last began or went on.
    now = happened[starts[-1] :] if starts else happened
    holder = files.holder(path)
    shown = [
        ("workdir", str(path)),
        ("run", f"{config.model}, {config.defense}, {config.dataset}"),
        ("state", _state(now, holder)),
    ]
    if starts:
        shown.append(("progress", _progress(now, holder is not None)))
    rows = history.read(path)
    shown += _accuracies(config, rows)
    shown += _overfitting(config, rows)
    if skipped := sum(_skipped(happened)):
        shown.append(("skipped", f"{skipped} steps: not finite"))
    saves = [event for event in happened if event["event"] == "save"]
    if saves:
        shown.append(("saved", _saved(saves[-1])))
    if happened:
        last = happened[-1]
        shown.append(("last event", f"{last['event']}, {_ago(last['time'])}"))
    return shown


def _state(now, holder):
    if holder is not None:
        return f"running{holder}"
    ends = [event for event in now if event["event"] == "end"]
    if not ends:
        if not now:
            return "not running; it has not taken a step"
        return "not running, and no end was written: it was killed"
    sentence = ends[-1].get("sentence")
    return f"{ends[-1].get('outcome')}" + (f": {sentence}" if sentence else "")


def _progress(now, running):
    """Steps of all, the speed, and the time that is left."""
    start = now[0]
    epochs, steps, batch_size = (
        _number(start, name) for name in ("epochs", "steps", "batch_size")
    )
    done = max(_number(event, "done") for event in now)
    whole = epochs * steps
    if not whole:
        return "unknown"
    text = (
        f"step {done:,.0f} of {whole:,.0f} "
        f"({bounds.percent(done / whole, 0)} %), epoch "
        f"{min(epochs, done // steps + 1):.0f} of {epochs:.0f}"
    )
    rates = [_number(event, "images_per_second") for event in now]
    rate = next((rate for rate in reversed(rates) if rate), 0.0)
    if rate and running:
        left = datetime.timedelta(
            seconds=int((whole - done) * batch_size / rate)
        )
        text += f"; {rate:,.0f} images/s, {left} left without validation"
    return text


def _accuracies(config, rows):
    """The last epoch's, and those of the best by the validation split.

    Without a split no epoch is chosen, and they are those of training.
    """
    prefix, where, best = "", "training", []
    if config.validation_images != 0:
        prefix, where = "val_", "validation"
        best = [row for row in rows if row.get("best") == "1"]
    shown = []
    for word, row in [("last epoch", rows[-1:]), ("best epoch", best[-1:])]:
        for values in row:
            parts = [
                f"{name} {bounds.percent(values[key], 1)} %"
                for name, key in [
                    ("natural", f"{prefix}natural_accuracy"),
                    ("robust", f"{prefix}robust_accuracy"),
                ]
                if values.get(key)
            ]
            epoch = values["epoch"]
            shown.append((word, ", ".join([f"{epoch}: {where}", *parts])))
    return shown


def _overfitting(config, rows):
    """What is lost since the best epoch, where robust accuracy chose it."""
    values = overfitting.accuracies(rows, "val_robust_accuracy")
    images = config.validation_images
    if not (images and overfitting.gap(values, images)):
        return []
    chosen = max(int(row["epoch"]) for row in rows if row.get("best") == "1")
    if chosen != values.index(max(values)) + 1:
        return []
    name = "robust_accuracy"
    said = overfitting.sentence(name, rows, images, last=", the last,")
    return [("overfitting", said)]


def _skipped(happened):
    """The skipped steps of each epoch."""
    counts, count = [], 0
    for event in happened:
        if event["event"] == "skip":
            count = _number(event, "skipped")
        elif event["event"] == "epoch":
            counts.append(int(count))
            count = 0
    return [*counts, int(count)]


def _saved(event):
    what = f"step {event.get('number')}"
    if event.get("kind") != "within":
        what = f"epoch {event.get('number')}"
    return f"{what}, {_ago(event['time'])}, in {event.get('seconds')} s"


def _ago(when):
    now = datetime.datetime.now(datetime.UTC)
    seconds = int((now - when).total_seconds())
    return f"{datetime.timedelta(seconds=max(0, seconds))} ago"


def _number(event, name):
    value = event.get(name, 0)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else 0
