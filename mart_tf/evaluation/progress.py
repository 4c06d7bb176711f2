"""A progress bar per attack: rate, time left, running accuracy.

Where the output is no terminal, a line for each attack that is done.
"""

import contextlib

import rich.progress
import rich.table

from mart_tf import bounds
from mart_tf import screen
from mart_tf.screen import bars

# How many bars are seen at once: more than a screen holds would hide the one
# that moves.
_BARS = 12


class Shown:
    """What a person sees of an evaluation; nothing unless `watched`.

    Attributes:
        watched: Whether somebody asked to see it.
    """

    def __init__(self, shown, console, watched):
        self.watched = watched
        self._bars = shown
        self._console = console
        self._tasks = []

    def say(self, text):
        """Shows a sentence above the bars."""
        if self.watched:
            screen.say(text, on=self._console)

    def opened(self, name, attacked, examples):
        """Opens the bar of an attack on `attacked` of all `examples`.

        Returns:
            What `Engine.run` calls, and what ends the bar, called with `last`.
        """
        # It moves once the first batch is through.
        task = self._bars.add_task(
            name,
            total=attacked,
            state="compiling",
            accuracy=bounds.percentage(attacked / examples),
        )
        self._tasks.append(task)
        for earlier in self._tasks[:-_BARS]:
            self._bars.update(earlier, visible=False)

        def observe(done, broken, last=False):
            elapsed = self._bars.tasks[task].elapsed or 0.0
            accuracy = bounds.percentage((attacked - broken) / examples)
            if last and not self._console.is_terminal:
                self.say(f"{name}: accuracy {accuracy}")
            rate = done / elapsed if elapsed else 0.0
            self._bars.update(
                task,
                completed=done,
                state=f"{rate:,.0f} images/s",
                accuracy=accuracy,
            )

        return observe


@contextlib.contextmanager
def bar(watched):
    """Opens the bars; yields a `Shown`.

    Args:
        watched: Whether to show anything.
    """
    columns = [
        rich.progress.TextColumn(
            "{task.description}",
            table_column=rich.table.Column(ratio=3, no_wrap=True),
        ),
        rich.progress.BarColumn(None, table_column=rich.table.Column(ratio=2)),
        rich.progress.TextColumn("{task.percentage:>3.0f} %"),
        rich.progress.TextColumn("{task.fields[state]:>14}"),
        rich.progress.TimeRemainingColumn(compact=True),
        rich.progress.TextColumn("accuracy {task.fields[accuracy]:>7}"),
    ]
    console = screen.console()
    with bars.Bars(*columns, console=console, watched=watched) as shown:
        yield Shown(shown, console, watched)
