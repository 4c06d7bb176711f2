"""Training runs cut off at every change of their workdir: is one ever lost?

    python benchmarks/cut_off_saves.py --root=/tmp/cut_off

Trains a small recipe on the embedded digits once, and writes down all that it
changes in its workdir: files made, written, flushed, renamed, removed. Then for
each change a run in which at that moment the process is killed, or the power
fails, or the disk is full; and a second run of the same command. The first must
end by the signal or with one sentence, and the second with the tensors and the
metrics.csv of the undisturbed run, bit for bit, from no step before the newest
save. Needs a C compiler. Prints a line for each fault, and ends with status 1
if there is one. Started again, it goes on where it was stopped.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

from absl import app
from absl import flags
import failing_disk

_ROOT = flags.DEFINE_string("root", None, "Where the workdirs go.")
_HOW = flags.DEFINE_list("how", "kill,power,full", "What happens.")
_RECIPES = flags.DEFINE_list("recipes", "mart,average", "Which runs.")
_EVERY = flags.DEFINE_integer("every", 1, "Of how many changes one is tried.")

_FLAGS = {
    "mart": (),
    "average": ("--ema=0.9", "--augment=crop,flip"),
    "mma": ("--defense=mma",),
}


def main(_):
    root = pathlib.Path(_ROOT.value)
    root.mkdir(parents=True, exist_ok=True)
    file = root / "found.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    faults = {tuple(key): fault for key, fault in map(json.loads, lines)}
    for name in _RECIPES.value:
        recipe = failing_disk.Recipe(root / name, *_FLAGS[name])
        for how in _HOW.value:
            changes = recipe.changes
            if how == "full":
                changes = [one for one in changes if one.startswith("+")]
            chosen = [
                (at, change)
                for at, change in enumerate(changes, 1)
                # Of many equal ones in a row the first and the last.
                if changes[at - 2 : at + 1] != [change] * 3
            ]
            for at, change in chosen[:: _EVERY.value]:
                key = (name, how, at)
                if key in faults:
                    continue
                faults[key] = recipe.fault(how, at)
                with file.open("a") as out:
                    out.write(json.dumps([key, faults[key]]) + "\n")
                if faults[key]:
                    print(*key, change, faults[key], flush=True)
            tried = [
                f for (n, h, _), f in faults.items() if (n, h) == (name, how)
            ]
            print(
                f"{name}, {how}: {len(tried)} of {len(chosen)} changes, "
                f"{sum(map(bool, tried))} faults",
                flush=True,
            )
    return any(faults.values())


if __name__ == "__main__":
    flags.mark_flag_as_required("root")
    app.run(main)
