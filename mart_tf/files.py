"""Files written whole or not at all."""

import contextlib
import os


@contextlib.contextmanager
def whole(path):
    """A path beside another, whose place it takes once it is written.

    A reader sees the old file or the new one. Where the body raises, what it
    wrote goes.

    Args:
        path: A `pathlib.Path`.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path, text):
    """Writes a text file as `whole` does.

    Args:
        path: A `pathlib.Path`.
        text: The new content.
    """
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
