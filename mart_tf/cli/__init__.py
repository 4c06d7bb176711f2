"""What the programs share: the command line, help, one-sentence errors.

Each program owns a `FlagValues`, so that importing two of them in one process
does not define a flag twice. Nothing here imports TensorFlow: `--help` and a
mistyped flag answer at once.
"""

import contextlib
import difflib
import functools
import os
import re
import signal
import sys
import traceback
import warnings

from absl import flags

from mart_tf import bounds
from mart_tf import environment
from mart_tf import errors
from mart_tf import resources
from mart_tf import screen
from mart_tf.cli import flagfiles
from mart_tf.cli import kinds

# What a terminal shows of an error: a value in it may be a whole file.
_LONGEST_SENTENCE = 1000
_LONGEST_NAME = 100
# Of the lines of `--help`, also in a wider terminal.
_WIDTH = 78


def flag_values():
    """A program's own flags, with `--help`, `--verbosity`, `--flagfile`."""
    values = flags.FlagValues()
    kinds.define(values, "help", False, "Show this text and stop.", kinds.truth)
    kinds.define(
        values,
        "version",
        False,
        "Show the versions of mart_tf, TensorFlow and Keras and stop.",
        kinds.truth,
    )
    kinds.define(
        values,
        "verbosity",
        0,
        "0: results and progress; 1: also TensorFlow's own messages, and the "
        "traceback behind an error.",
        bounds.Whole(0, 1).read,
    )
    kinds.define(
        values,
        "flagfile",
        None,
        "File of flags, one a line, or the name of a recipe; flags given "
        "after it win.",
        kinds.text,
    )
    return values


def run(name, summary, values, main, argv=None):
    """Parses the command line and runs a program.

    A `ValueError` or `OSError` that reaches this point is bad input: its one
    sentence is printed and the process ends with status 1, without a
    traceback unless `--verbosity=1`. Characters that the encoding of standard
    output lacks are question marks there.

    Args:
        name: The program's name, as the user typed it.
        summary: What the program does, shown by `--help`.
        values: The program's `FlagValues`.
        main: Called without arguments once the flags are parsed.
        argv: The command line; default: `sys.argv`.
    """
    argv = (sys.argv if argv is None else argv)[1:]
    warnings.showwarning = functools.partial(_warn, name)
    # Standard error says such a character by its number.
    if getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="replace")
    interrupted = _interrupts()
    try:
        parse(name, values, argv)
        if values.help:
            print(_help(name, summary, values))
            sys.exit(0)
        if values.version:
            print(f"{name}, {environment.spelled()}")
            sys.exit(0)
        main()
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does.
        sys.stdout = None
        sys.exit(1)
    except KeyboardInterrupt as error:
        _stopped(name, error)
    except Exception as error:
        if interrupted:
            # What was raised inside of TensorFlow may come out as another.
            _stopped(name, error)
        verbose = values.is_parsed() and values.verbosity
        sentence = told(error)
        if sentence is None or (verbose and _is_of_tensorflow(error)):
            raise
        if verbose:
            traceback.print_exc()
        screen.complain(f"{name}: {sentence}")
        if _is_of_tensorflow(error):
            # The threads of a failed input pipeline keep a normal exit waiting.
            sys.stdout.flush()
            os._exit(1)
        sys.exit(1)


def _interrupts():
    """A list that is no longer empty once Ctrl-C was pressed."""
    pressed = []

    def interrupt(number, frame):
        pressed.append(number)
        raise KeyboardInterrupt

    # Not where it is ignored, by a background job, or in another thread.
    with contextlib.suppress(ValueError):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)
    return pressed


@contextlib.contextmanager
def if_stopped(sentence):
    """What a person is told who presses Ctrl-C inside.

    Args:
        sentence: Called for what is kept and how to go on.
    """
    try:
        yield
    except BaseException as error:
        error.kept = sentence
        raise


def _stopped(name, error):
    sentence = getattr(error, "kept", lambda: "Nothing was written.")()
    screen.complain(f"{name}: stopped by Ctrl-C. {sentence}")
    sys.stdout.flush()
    # Threads that a network keeps busy are waited for otherwise.
    os._exit(130)


def parse(name, values, arguments):
    """Parses a command line.

    Args:
        name: The program's name.
        values: The program's `FlagValues`.
        arguments: The command line without it.

    Raises:
        ValueError, flags.Error: If it is none, in one sentence.
    """
    arguments = flagfiles.expanded(arguments)
    for argument in arguments:
        # absl compares a name that it does not know with all that it does, in
        # seconds if it is long.
        flag = argument.partition("=")[0]
        if flag.startswith("-") and len(flag) > _LONGEST_NAME:
            raise ValueError(
                f"There is no flag {bounds.cut(flag)}; {name} --help lists all."
            )
    try:
        extra = values([name, *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, values, n=1)
        hint = f"did you mean --{near[0]}? " if near else ""
        raise ValueError(
            f"There is no flag --{bounds.cut(error.flagname)}; {hint}{name} "
            "--help lists all."
        ) from error
    except flags.IllegalFlagValueError:
        # A sentence of `kinds`.
        raise
    except (flags.Error, ValueError) as error:
        raise ValueError(f"{error}; expected --flag=value.") from error
    if extra and not (values.help or values.version):
        raise ValueError(
            f"Unexpected argument {bounds.shown(extra[0])}; every setting is "
            "a flag, such as --epochs=10."
        )


def told(error):
    """What the user is told of an error; None of one that is our mistake."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        sentence = f"{error.filename}: {error.strerror}."
    elif isinstance(error, flags.Error | ValueError | OSError):
        sentence = str(error)
    elif errors.is_out_of_memory(error):
        sentence = f"{errors.not_enough_memory(error)} ({_cause(error)})"
    elif errors.advice(error):
        sentence = f"{_cause(error)}; {errors.advice(error)}."
    elif _is_of_tensorflow(error):
        # Of its runtime: a file that cannot be decoded, say.
        sentence = _cause(error)
    else:
        return None
    sentence = " ".join(sentence.split())
    if len(sentence) > _LONGEST_SENTENCE:
        half = _LONGEST_SENTENCE // 2
        sentence = f"{sentence[:half]} ... {sentence[-half:]}"
    return sentence


def _is_of_tensorflow(error):
    return type(error).__module__.startswith("tensorflow.")


def _warn(name, message, category, filename, lineno, file=None, line=None):
    """A warning as a user reads it: one sentence, no source line."""
    screen.complain(f"{name}: Warning: {message}")


def _cause(error):
    """What happened, out of the many lines of an error in a graph."""
    inner = re.search(r"(?:\w+Error: |(?=OOM when ))([^\x1b\n]+)", str(error))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return inner.group(1) if inner else lines[0]


def _help(name, summary, values):
    lines = [screen.wrapped(f"{name}: {summary}", _WIDTH), "", "Flags:"]
    for flag_name in sorted(values):
        flag = values[flag_name]
        text = flag.help + _default(flag.default)
        lines.append(f"  --{flag_name}")
        lines.append(" " * 6 + screen.wrapped(text, _WIDTH, 6))
    place = resources.folder()
    if place:
        lines += ["", f"Recipes, for --flagfile=NAME: {place / 'flags'}"]
        lines += [f"Serving kit: {place / 'export'}"]
    return "\n".join(lines)


def _default(value):
    """A default as the user would write it, after the text of a flag."""
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return f" (default: {value})"


def import_tensorflow(verbosity, configure=None, starts=True):
    """Imports TensorFlow and finds its devices, without its messages.

    GPU memory is taken as it is needed.

    Some are printed before any setting of TensorFlow's can silence them; they
    show with `--verbosity=1`.

    Args:
        verbosity: The flag's value.
        configure: Called before TensorFlow makes its devices, for settings
            that hold for the whole process.
        starts: Whether TensorFlow is started: not where it is to join others
            first.
    """
    # Not even the errors that it logs while it joins them, or loses them.
    quiet = _silence("2" if starts else "3")
    with contextlib.nullcontext() if verbosity else quiet:
        import tensorflow as tf

        environment.grow_gpu_memory()
        if configure is not None:
            configure()
        if starts:
            tf.config.list_logical_devices()


def quiet(verbosity):
    """Keeps what libraries write to standard error off it, for a while.

    Args:
        verbosity: The flag's value; 1 lets it through.
    """
    return contextlib.nullcontext() if verbosity else _silence("2")


@contextlib.contextmanager
def _silence(level):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
