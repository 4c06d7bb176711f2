"""Programs in processes of their own that do not import TensorFlow again.

python started.py

Imports TensorFlow once, before anything runs in it, and forks for each line of
its standard input: a JSON object of `arguments` (a program of ours, another
module or a script, and its flags), `cwd`, `environment`, `hidden` (modules that
cannot be imported), `setup` (Python that runs first), `stdout` and `stderr`
(paths, which may be the same). Answers with the number of the process, then
with its exit status, a line each.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import sys
import traceback

_LIMIT = 300


def _child(call):
    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["cwd"])
    for number, name in [(1, "stdout"), (2, "stderr")]:
        how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        file = os.open(call[name], how, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.modules.update(dict.fromkeys(call["hidden"]))
    exec(call["setup"], {})
    # Who hangs is ended, with status -14.
    signal.alarm(_LIMIT)
    program, *arguments = call["arguments"]
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        sys.path[0] = os.path.dirname(program)
        runpy.run_path(program, run_name="__main__")
        return
    # As `python -m` has it.
    sys.path[0] = call["cwd"]
    from mart_tf import entry

    if program in entry.PROGRAMS:
        # As it is installed.
        getattr(entry, program)()
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def status(call):
    """The exit status of a program, as Python's own start would have it."""
    code = 0
    try:
        _child(call)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop))
        if stop.code is None:
            code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    # What a program does when it ends; then at once, not as the parent ends.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return code


def main():
    # Both are what a program imports first, and no op has run yet: no thread
    # of TensorFlow's is lost in a fork.
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    gc.collect()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            os._exit(status(json.loads(line)))
        answers.write(f"{process}\n")
        _, ended = os.waitpid(process, 0)
        answers.write(f"{os.waitstatus_to_exitcode(ended)}\n")


if __name__ == "__main__":
    main()
