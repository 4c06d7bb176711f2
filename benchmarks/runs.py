"""What benchmarks that train share: calls of the programs, and tables."""

import json
import signal
import statistics
import subprocess
import sys


def program(name, *arguments):
    """What `python -m mart_tf.<name>` prints; ends this script if it fails."""
    command = [sys.executable, "-m", f"mart_tf.{name}", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    status, output, error = called(command, text=True, **pipes)
    if status:
        sys.exit(f"{' '.join(command)}\n{output}{error}")
    return output


def called(command, **options):
    """The exit status of a program, and its output as `communicate` has it.

    Ctrl-C and SIGTERM, which is handed on, end this script once the program
    has saved its work and has ended; `subprocess.run` kills it after 0.25 s.
    """
    process = subprocess.Popen(command, **options)

    def hand_on(number, frame):
        del frame
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        output, error = process.communicate()
    except KeyboardInterrupt:
        # The terminal has sent it to the program too.
        process.communicate()
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    return process.returncode, output, error


def accuracies(workdir, attacks, checkpoint, *arguments):
    """Accuracies in percent of a run, evaluated if it was not before.

    Ends this script where it was, but under other attacks.
    """
    folder = workdir / f"evaluation-{checkpoint}"
    report = folder / "report.json"
    if not report.exists():
        program(
            "evaluate",
            f"--workdir={workdir}",
            f"--attacks={attacks}",
            f"--checkpoint={checkpoint}",
            f"--output={folder}",
            *arguments,
        )
    content = json.loads(report.read_text(encoding="utf-8"))
    found = ",".join(attack["name"] for attack in content["attacks"])
    if found != attacks:
        sys.exit(
            f"{report} is of {found}, and {attacks} is asked for; remove it, "
            "or name another root."
        )
    return {
        attack["name"]: round(100 * attack["accuracy"], 2)
        for attack in [content["natural"], *content["attacks"]]
    }


def print_table(rows):
    """Mean and standard deviation of each row's runs.

    Args:
        rows: A list of dicts from column to number, by the row's name.
    """
    names = list(next(iter(rows.values()))[0])
    print(f"\n| run | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for row, runs in rows.items():
        cells = [_cell([run[name] for run in runs]) for name in names]
        print(f"| {row} | {' | '.join(cells)} |")


def _cell(values):
    text = f"{statistics.mean(values):.2f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.2f}"
    return text
