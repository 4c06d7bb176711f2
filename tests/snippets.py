"""Code that the documents show, run as a reader would run it.

A fenced block is run where a mark stands above it: `<!-- test: python -->`, or
`<!-- test: file NAME -->` for a file that the reader writes. Of calls of our
programs, `<!-- test: flags -->`, the flags are checked as the programs check
them: the same calls are run by `test_readme.py`.
"""

import copy
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from mart_tf import cli

_BLOCK = re.compile(
    r"^<!-- test: ([^>\n]+) -->\n```\w+\n(.*?)^```", re.M | re.S
)

_PROGRAMS = ("train", "evaluate", "export", "label")

_RECORDER = """#!{python}
import json, pathlib, sys
with pathlib.Path({calls!r}).open("a") as file:
    json.dump([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]], file)
    file.write("\\n")
"""


def blocks(page):
    """The marked blocks of a document in their order: pairs (mark, code)."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def run_page(page, folder):
    """Runs the marked blocks of a document, one after the other.

    The blocks of Python share their names, in this process.

    Args:
        page: The path of the document.
        folder: The present working directory, empty.
    """
    names = {"__name__": "__main__"}
    for mark, code in blocks(page):
        if mark == "python":
            exec(compile(code, page.name, "exec"), names)
        elif mark == "flags":
            for call in calls(["bash", "-ec", code], folder):
                check_flags(call)
        else:
            (folder / mark.removeprefix("file ")).write_text(code)


def calls(command, folder):
    """The calls of our programs that a script makes, as lists of arguments.

    The shell runs the script; the programs only write down what they were
    given.
    """
    with tempfile.TemporaryDirectory() as place:
        written = pathlib.Path(place, "calls")
        for program in _PROGRAMS:
            recorder = pathlib.Path(place, f"mart-{program}")
            recorder.write_text(
                _RECORDER.format(python=sys.executable, calls=str(written))
            )
            recorder.chmod(0o755)
        path = f"{place}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in written.read_text().splitlines()]


def check_flags(call):
    """Reads the flags of a call as its program would; raises a `ValueError`."""
    name, *flags = call
    program = importlib.import_module(name.replace("mart-", "mart_tf."))
    cli.parse(name, copy.deepcopy(program.FLAGS), flags)
