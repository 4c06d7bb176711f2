"""What processes decide together; here threads, which gather as they do."""

import signal
import threading

import numpy as np

from mart_tf.runs import asking
from mart_tf.runs import signals


class Thread:
    """One of two `workers.Workers` that gather through a barrier."""

    count = 2
    barrier = threading.Barrier(2, timeout=30)
    rows = [None, None]

    def __init__(self, index):
        self.index = index

    def gathered(self, values):
        self.rows[self.index] = values
        self.barrier.wait()
        found = np.array(self.rows, np.int64)
        self.barrier.wait()
        return found


class Alone:
    count = 1

    def gathered(self, values):
        return np.array([values], np.int64)


def together(steps):
    """Runs `steps(place, signals, asking)` of two at once; what they return."""
    results = [None, None]

    def run(place):
        seen = signals.Signals()
        asked = asking.Asking(Thread(place), seen)
        results[place] = steps(place, seen, asked)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_alone_each_call_asks():
    seen = signals.Signals()
    asked = asking.Asking(Alone(), seen)
    assert not asked.is_wanted(False)
    assert asked.is_wanted(True)
    seen.save = True
    assert asked.is_wanted(False)
    assert asked.save
    assert asked.stop is None
    # It is asked for once.
    assert not seen.save
    assert not asked.is_wanted(False)
    seen.stop = signal.SIGTERM
    assert asked.is_wanted(False)
    assert asked.stop == signal.SIGTERM


def test_a_signal_to_one_stops_both_after_the_same_step(monkeypatch):
    monkeypatch.setattr(asking, "_BETWEEN", 0.05)

    def steps(place, seen, asked):
        for step in range(100_000):
            if place == 1 and step == 500:
                seen.stop = signal.SIGINT
            if asked.is_wanted(False):
                return step, asked.stop, asked.of
        return None

    one, other = together(steps)
    assert one == other
    step, stop, of = one
    assert step >= 500
    assert (stop, of) == (signal.SIGINT, 1)


def test_the_chief_finds_whether_it_is_time():
    def steps(place, seen, asked):
        return [
            asked.is_wanted(place == 1, now=True),
            asked.is_wanted(place == 0, now=True),
        ]

    assert together(steps) == [[False, True]] * 2


def test_between_questions_nobody_is_asked():
    def steps(place, seen, asked):
        # The first call asks, and then not for two seconds.
        return [asked.is_wanted(True) for _ in range(3)]

    one, other = together(steps)
    assert one == other
    assert one[0]


def test_a_question_out_of_turn_says_nothing_of_the_pace():
    # As validation begins: no time has passed since the last question.
    def steps(place, seen, asked):
        asked.is_wanted(False, now=True)
        if place == 1:
            seen.stop = signal.SIGTERM
        return asked.is_wanted(False)

    assert together(steps) == [True] * 2


def test_of_two_signals_that_of_the_first_process_counts():
    def steps(place, seen, asked):
        seen.stop = [signal.SIGTERM, signal.SIGINT][place]
        return asked.is_wanted(False), asked.stop, asked.of

    assert together(steps) == [(True, signal.SIGTERM, 0)] * 2
