"""`events.jsonl`: what happened to a run and when, a JSON object a line.

Every line has `time` (UTC), `event` and what belongs to it:

    start     process, host, epochs, steps (of an epoch), batch_size, done
    progress  done, images_per_second; once a minute
    skip      done, skipped (steps of this epoch so far)
    epoch     epoch, done, and the row of metrics.csv
    save      kind (last, best, within), number (epoch, or steps), seconds
    signal    name
    end       outcome (finished, stopped, failed), and a sentence

`done` is the number of steps that the run has taken. A line that a kill cut
off is none.
"""

import contextlib
import datetime
import json
import math
import os
import pathlib
import platform

from mart_tf import limits

_NAME = "events.jsonl"


class Log:
    """Appends to the events of a run.

    Args:
        path: The workdir; None: another process writes them.
    """

    def __init__(self, path):
        self._file = path and pathlib.Path(path, _NAME)

    def __call__(self, event, **facts):
        """Writes a line.

        Args:
            event: What happened.
            facts: Plain values by name.
        """
        if self._file is None:
            return
        # JSON has no NaN.
        plain = {
            name: None if isinstance(v, float) and not math.isfinite(v) else v
            for name, v in facts.items()
        }
        now = datetime.datetime.now(datetime.UTC)
        line = {"time": now.isoformat(timespec="milliseconds"), "event": event}
        text = json.dumps(line | plain).encode() + b"\n"
        # A run goes on without its log; of a disk without room, or a workdir
        # that has gone, the next checkpoint tells.
        with contextlib.suppress(OSError), self._file.open("a+b") as file:
            # The line before it may have been cut off.
            if file.tell() and not _ends_line(file):
                file.write(b"\n")
            file.write(text)

    @contextlib.contextmanager
    def running(self, **facts):
        """Writes the start of what the body does, and its end.

        Args:
            facts: What is known at its start.
        """
        self("start", process=os.getpid(), host=platform.node(), **facts)
        try:
            yield
        except Exception as error:
            self("end", outcome="failed", sentence=str(error))
            raise
        except BaseException as stop:
            self.stopped(stop)
            raise
        self("end", outcome="finished")

    def stopped(self, stop):
        """Writes the end of a run that was asked to stop.

        Args:
            stop: What is raised for it.
        """
        self("end", outcome="stopped", sentence=str(stop))


def read(path):
    """The events of a workdir, oldest first; lines that are none left out.

    Raises:
        ValueError: If the file is no regular one, or no text.
    """
    file = pathlib.Path(path, _NAME)
    if not file.exists():
        return []
    events = []
    for line in limits.read_text(file).splitlines():
        try:
            event = json.loads(line)
            when = datetime.datetime.fromisoformat(event["time"])
            events.append(event | {"time": when.astimezone(datetime.UTC)})
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return [event for event in events if isinstance(event.get("event"), str)]


def _ends_line(file):
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
