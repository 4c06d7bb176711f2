"""What a run does when the machine, or a person, wants it to stop.

SIGTERM and SIGINT (Ctrl-C): saves and ends; a second one ends at once.
SIGUSR1: saves and goes on. Before the first step there is nothing to save, and
the process ends where it is: an exception may be raised inside of TensorFlow,
which loses it, or makes another of it.
"""

import contextlib
import os
import signal

_STOPPING = ("SIGTERM", "SIGINT")
_SAVING = "SIGUSR1"
# What a person calls them who sends them.
_NAMES = {"SIGINT": "Ctrl-C"}


class Stopped(BaseException):
    """A run that was asked to stop; as KeyboardInterrupt, no `Exception`.

    Args:
        number: The signal, a `signal.Signals`.
        where: Up to where it was saved, in words.

    Attributes:
        status: The exit status, as a shell has it.
    """

    def __init__(self, number, where):
        super().__init__(
            f"Stopped by {_NAMES.get(number.name, number.name)} {where}; the "
            "same command goes on from there."
        )
        self.status = 128 + number
        self._number = number

    def as_python_has_it(self):
        """The exception that a caller in Python expects of the signal."""
        if self._number == signal.SIGINT:
            return KeyboardInterrupt(str(self))
        return SystemExit(self.status)


class Signals:
    """Which signals have come.

    Attributes:
        stop: The signal that asks to stop, a `signal.Signals`, or None.
        save: Whether one asks to save.
        heeded: Whether somebody looks here; else a run has not taken a step
            yet, and is stopped at once.
        farewells: Called with the `Stopped` before a process is left, the
            last one first.
    """

    def __init__(self, leave=None):
        self.stop = None
        self.save = False
        self.heeded = False
        self.farewells = []
        self._leave = leave

    def _stop(self, number, frame):
        if self.stop is not None:
            os._exit(128 + number)
        self.stop = signal.Signals(number)
        if self.heeded:
            return
        stopped = Stopped(self.stop, "before a step, with nothing to save")
        if self._leave is None:
            raise stopped
        for farewell in reversed(self.farewells):
            with contextlib.suppress(Exception):
                farewell(stopped)
        self._leave(stopped)

    def _save(self, number, frame):
        self.save = True


@contextlib.contextmanager
def heeded(leave=None):
    """Signals are kept for the body to heed; yields a `Signals`.

    Only the main thread of a process can: elsewhere signals stay as they are.

    Args:
        leave: Ends the process before the first step, and does not return;
            called with a `Stopped`. Default: that is raised.
    """
    seen, before = Signals(leave), {}
    handlers = dict.fromkeys(_STOPPING, seen._stop) | {_SAVING: seen._save}
    try:
        for name, handler in handlers.items():
            # Windows has no SIGUSR1.
            number = getattr(signal, name, None)
            # What a shell has told a background job to ignore, it ignores.
            if number and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    except ValueError:
        pass
    try:
        yield seen
    finally:
        for number, handler in before.items():
            # None: not one of Python's, as where it is embedded.
            if handler is not None:
                signal.signal(number, handler)
