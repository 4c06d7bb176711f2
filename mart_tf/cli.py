"""What the programs share: flags, help, one-sentence errors.

Each program owns a `FlagValues`, so that importing two of them in one process
does not define a flag twice. Nothing here imports TensorFlow: `--help` and a
mistyped flag answer at once.
"""

import contextlib
import functools
import math
import os
import re
import sys
import textwrap
import traceback
import warnings

from absl import flags

from mart_tf import options
from mart_tf import resources


def flag_values():
    """A program's own flags, with `--help`, `--verbosity`, `--flagfile`."""
    values = flags.FlagValues()
    flags.DEFINE_bool(
        "help", False, "Show this text and stop.", flag_values=values
    )
    flags.DEFINE_integer(
        "verbosity",
        0,
        "0: results and progress; 1: also TensorFlow's own messages, and the "
        "traceback behind an error.",
        lower_bound=0,
        upper_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "flagfile",
        None,
        "File of flags, one a line, or the name of a recipe; flags given "
        "after it win.",
        flag_values=values,
    )
    return values


def checkpoint_flag(values):
    """Defines `--checkpoint`: which weights of a run a program takes."""
    return flags.DEFINE_enum(
        "checkpoint",
        "best",
        ["best", "last", "best_raw", "last_raw"],
        "Weights of the epoch that was best on the validation split (without "
        "one the last), or of the last one: their average where --ema kept "
        "one, which best_raw and last_raw leave aside.",
        flag_values=values,
    )


def data_flags(values):
    """Defines `--data_dir` and `--download` of a program that reads a run."""
    data_dir = flags.DEFINE_string(
        "data_dir",
        None,
        "Where TFDS data lies; default: as for the run.",
        flag_values=values,
    )
    download = flags.DEFINE_bool(
        "download",
        False,
        "Let TFDS download data that is not there.",
        flag_values=values,
    )
    return data_dir, download


def pixel_flags(values):
    """Defines `--pixel_min` and `--pixel_max` of a program that takes a model.

    Returns:
        A function from what a model says of its range, None or a pair, and
        who says it, to the pair that holds; see `_pixel_range`.
    """
    holders = [
        flags.DEFINE_float(
            f"pixel_{end}",
            None,
            f"{which} value of a pixel as the model takes it; default: what "
            f"the run or the model file says, else {value}.",
            flag_values=values,
        )
        for end, which, value in [("min", "Least", 0), ("max", "Greatest", 1)]
    ]

    def held(known=None, by=None):
        return _pixel_range([holder.value for holder in holders], known, by)

    return held


def _pixel_range(given, known, by):
    """The pair that holds of the flags' and the model's, each None or not.

    Raises:
        ValueError: If a flag says otherwise than the model, or they make no
            range.
    """
    for name, value, own in zip(
        ("min", "max"), given, known or given, strict=True
    ):
        if value not in (None, own):
            raise ValueError(
                f"--pixel_{name} is {value:g}, and {by} takes pixels from "
                f"{known[0]:g} to {known[1]:g}; leave it out."
            )
    defaults = known or (0.0, 1.0)
    low, high = (
        default if value is None else value
        for value, default in zip(given, defaults, strict=True)
    )
    if not (math.isfinite(high - low) and low < high):
        raise ValueError(
            f"--pixel_min is {low:g} and --pixel_max {high:g}; expected a "
            "least value below a greatest one, such as 0 and 255."
        )
    return low, high


def run(name, summary, values, main, argv=None):
    """Parses the command line and runs a program.

    A `ValueError` or `OSError` that reaches this point is bad input: its one
    sentence is printed and the process ends with status 1, without a
    traceback unless `--verbosity=1`.

    Args:
        name: The program's name, as the user typed it.
        summary: What the program does, shown by `--help`.
        values: The program's `FlagValues`.
        main: Called without arguments once the flags are parsed.
        argv: The command line; default: `sys.argv`.
    """
    argv = [name, *(sys.argv if argv is None else argv)[1:]]
    warnings.showwarning = functools.partial(_warn, name)
    try:
        extra = values(_with_recipes(argv))[1:]
        if values.help:
            print(_help(name, summary, values))
            sys.exit(0)
        if extra:
            raise ValueError(
                f"Unexpected argument {extra[0]!r}; every setting is a flag, "
                "such as --epochs=10."
            )
        main()
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does.
        sys.stdout = None
        sys.exit(1)
    except (flags.Error, ValueError, OSError) as error:
        if "verbosity" in values and values.is_parsed() and values.verbosity:
            traceback.print_exc()
        sentence = " ".join(str(error).split())
        print(f"{name}: {sentence}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        # An error of TensorFlow's runtime: a file that cannot be decoded, say.
        if values.verbosity or not type(error).__module__.startswith(
            "tensorflow."
        ):
            raise
        print(f"{name}: {_cause(error)}", file=sys.stderr, flush=True)
        # The threads of a failed input pipeline keep a normal exit waiting.
        sys.stdout.flush()
        os._exit(1)
    except KeyboardInterrupt:
        print(f"{name}: stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)


def _warn(name, message, category, filename, lineno, file=None, line=None):
    """A warning as a user reads it: one sentence, no source line."""
    print(f"{name}: Warning: {message}", file=file or sys.stderr)


def _with_recipes(argv):
    """A command line in which the name of a recipe is the path of its file."""
    written = []
    arguments = iter(argv)
    for argument in arguments:
        flag, equals, name = argument.partition("=")
        if flag in ("--flagfile", "-flagfile"):
            name = name if equals else next(arguments, "")
            argument = f"--flagfile={resources.flagfile(name)}"
        written.append(argument)
    return written


def _cause(error):
    """What happened, out of the many lines of an error in a graph."""
    inner = re.search(r"\w+Error: (.+)", str(error))
    return inner.group(1) if inner else str(error).strip().splitlines()[0]


def _help(name, summary, values):
    lines = [f"{name}: {summary}", "", "Flags:"]
    for flag_name in sorted(values):
        flag = values[flag_name]
        default = "" if flag.default is None else f" (default: {flag.default})"
        lines.append(f"  --{flag_name}")
        lines.extend(
            textwrap.wrap(
                flag.help + default,
                78,
                initial_indent="      ",
                subsequent_indent="      ",
            )
        )
    place = resources.folder()
    if place:
        lines += ["", f"Recipes, for --flagfile=NAME: {place / 'flags'}"]
        lines += [f"Serving kit: {place / 'export'}"]
    return "\n".join(lines)


def import_tensorflow(verbosity, core_each=False):
    """Imports TensorFlow and finds its devices, without its messages.

    Some are printed before any setting of TensorFlow's can silence them; they
    show with `--verbosity=1`.

    Args:
        verbosity: The flag's value.
        core_each: Whether operations on a CPU keep to one core, for a program
            that has one piece of work for each core.
    """
    with contextlib.nullcontext() if verbosity else _silence():
        import tensorflow as tf

        if core_each and not tf.config.list_physical_devices("GPU"):
            tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.list_logical_devices()


@contextlib.contextmanager
def _silence():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def number(name, text):
    """The number that a flag's text says, such as 0.3 or 8/255, or None."""
    if text is None:
        return None
    try:
        return options.read_number(text)
    except ValueError:
        raise ValueError(
            f"{name} is {text!r}; expected a number, such as 0.3 or 8/255."
        ) from None
