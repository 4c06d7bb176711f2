"""Files written whole or not at all."""

import os


def replace_text(path, text):
    """Writes a text file so that a reader sees the old one or the new one.

    Args:
        path: A `pathlib.Path`.
        text: The new content.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
