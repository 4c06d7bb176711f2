"""Scopes: what holds inside a `with` statement, in the thread that is there."""

import contextlib
import threading


class Scope(threading.local):
    """A scope, to be entered as `with scope():`.

    Replicas are traced in threads of their own, each inside of its own.

    Attributes:
        holds: Whether this thread is inside.
    """

    holds = False

    @contextlib.contextmanager
    def __call__(self):
        before, self.holds = self.holds, True
        try:
            yield
        finally:
            self.holds = before
