"""When a run saves and stops, the same in all processes that train it."""

import signal
import time

import numpy as np

# Seconds between two questions, at the speed of the chief.
_BETWEEN = 2.0


class Asking:
    """Whether to save and to stop, the same in every process.

    Args:
        workers: The `Workers`.
        signals: The `signals.Signals` of this process.

    Attributes:
        stop: The signal that asks to stop, of whichever process, or None.
        of: The place of that process.
        save: Whether one asks to save.
    """

    def __init__(self, workers, signals):
        self._workers = workers
        self._signals = signals
        self.rest()

    def rest(self):
        """Nothing is asked for; the next call of `is_wanted` asks again."""
        self.stop, self.of, self.save = None, 0, False
        self._calls = self._between = 0
        self._when = time.monotonic()

    def is_wanted(self, due, now=False):
        """Whether to save here: it is due, or a signal asks for it.

        Several processes ask each other every two seconds, in between it is
        not.

        Args:
            due: Whether the chief finds that it is time; that of others does
                not count.
            now: Whether to ask in any case, the same in every process; then
                the next call asks too.
        """
        self._calls += 1
        alone = self._workers.count == 1
        if not (alone or now or self._calls >= self._between):
            return False
        own = [due, self._signals.stop or 0, self._signals.save]
        self._signals.save = False
        rows = self._workers.gathered([*own, self._pause()])
        # One that came out of turn says nothing of the pace.
        due, self._between = rows[0][0], 0 if now else rows[0][3]
        self._calls, self._when = 0, time.monotonic()
        self.save = bool(rows[:, 2].any())
        self.of = int(np.argmax(rows[:, 1] > 0))
        number = int(rows[self.of, 1])
        self.stop = signal.Signals(number) if number else None
        return bool(due or number or self.save)

    def _pause(self):
        """How many calls of `is_wanted` take as long as should be between."""
        seconds = (time.monotonic() - self._when) / self._calls
        return max(1, min(10**6, round(_BETWEEN / max(seconds, 1e-6))))
