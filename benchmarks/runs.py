"""What benchmarks that train share: calls of the programs, and tables."""

import json
import statistics
import subprocess
import sys


def program(name, *arguments):
    """What `python -m mart_tf.<name>` prints; ends this script if it fails."""
    command = [sys.executable, "-m", f"mart_tf.{name}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


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
