"""A progress bar per attack: rate, time left, running robust accuracy.

Where the output is no terminal, a line for each attack that is done.
"""

import contextlib

import rich.console
import rich.progress


@contextlib.contextmanager
def bar(shown):
    """Opens the bars.

    Args:
        shown: Whether to show anything.

    Yields:
        A function `(name, attacked, examples) -> observe` that opens the bar
        of an attack on `attacked` of all `examples`, and returns what
        `Engine.run` calls, and what ends it, called with `last`.
    """
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("{task.fields[rate]:>6.0f} images/s"),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("robust {task.fields[robust]:6.2%}"),
    )
    console = rich.console.Console(markup=False)
    with rich.progress.Progress(
        *columns,
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    ) as progress:

        def opened(name, attacked, examples):
            task = progress.add_task(
                name, total=attacked, rate=0.0, robust=attacked / examples
            )

            def observe(done, broken, last=False):
                elapsed = progress.tasks[task].elapsed or 0.0
                robust = (attacked - broken) / examples
                if last and shown and not console.is_terminal:
                    console.print(
                        f"{name}: robust {robust:.2%}", soft_wrap=True
                    )
                progress.update(
                    task,
                    completed=done,
                    rate=done / elapsed if elapsed else 0.0,
                    robust=robust,
                )

            return observe

        yield opened
