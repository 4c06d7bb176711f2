"""Progress bars that Ctrl-C takes away whole."""

import rich.constrain
import rich.progress

# A terminal echoes ^C behind the last bar. Beyond the edge it would take
# another line, of which `rich` does not know when it erases the bars.
_ECHO = 3


class Bars(rich.progress.Progress):
    """Bars in the columns of `rich.progress`, nearly as wide as the screen.

    They are seen on a terminal, and go when they end.

    Args:
        columns: Those of a bar.
        console: A `rich.console.Console`.
        watched: Whether anybody looks.
    """

    def __init__(self, *columns, console, watched=True):
        # Before the bars are there, `rich` asks how they look.
        self._console = console
        super().__init__(
            *columns,
            console=console,
            expand=True,
            transient=True,
            disable=not (watched and console.is_terminal),
        )

    def get_renderable(self):
        width = self._console.width - _ECHO
        return rich.constrain.Constrain(super().get_renderable(), width)
