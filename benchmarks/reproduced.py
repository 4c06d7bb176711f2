"""The tables of what `reproduce.py` has found, and their places in pages."""

import pathlib
import statistics

import figures
import pages
import paper
import ranks
import recipes

from mart_tf import files

_ROOT = pathlib.Path(__file__).resolve().parents[1]

# A cell that is not measured yet.
_NONE = "–"
_WHITE = {
    "natural": "natural",
    "fgsm": "FGSM",
    "pgd:steps=20": "PGD-20",
    "cw": "CW",
}
_BLACK = {
    "transfer:fgsm": "FGSM",
    "transfer:pgd:steps=10:steps_per_epsilon=4": "PGD-10",
    "transfer:pgd:steps=20": "PGD-20",
    "transfer:cw": "CW",
}
_TREND = ("Standard", "TRADES", "MART")
# Of the digits, those that are shown.
_EPOCHS = (1, 2, 3, 5, 10, 15, 20, 24, 30)
# Of MNIST, on which the paper measures.
_TEST_IMAGES = 10_000


def table_2(records, short=False):
    """MNIST, ours / the paper's.

    Args:
        records: The `Records`.
        short: Only what was measured, without PGD-100, for README.
    """
    rows = []
    for defense, runs in _by_row("table2").items():
        white = _mean(records, runs, "white box")
        if short and not white:
            continue
        strong = _mean(records, runs, "autoattack")
        cells = _beside_paper(white, runs[0].recipe)
        if not short:
            cells.append(white.get("pgd:steps=100", _NONE))
        seeds = _seeds(records, runs, "white box")
        cells += [strong.get("autoattack", _NONE), f"{seeds}"]
        rows.append([defense, *cells])
    head = ["defense", *_WHITE.values(), "PGD-100", "AutoAttack", "seeds"]
    if short:
        head.remove("PGD-100")
    return pages.table("|".join(head), rows) + _in_float32(records, "table2")


def network(records):
    """Table 2's white box with the other network that it may be of."""
    rows = []
    for row, runs in _by_row("network").items():
        white = _mean(records, runs, "white box")
        if white:
            cells = _beside_paper(white, runs[0].recipe)
            rows.append([row, *cells, white["pgd:steps=100"]])
    if not rows:
        return _not_run("network")
    return pages.table("|".join(["defense", *_WHITE.values(), "PGD-100"]), rows)


def order(records):
    """How Standard, TRADES and MART stand to each other, here and in the paper.

    The paper has no AutoAttack: its PGD-20 is beside both.
    """
    rows = _by_row("table2")
    column = list(_WHITE).index("pgd:steps=20")
    papers = {d: paper.expected(rows[d][0].recipe)[column] for d in _TREND}
    said = []
    for measure, name in (
        ("white box", "pgd:steps=20"),
        ("autoattack", "autoattack"),
    ):
        found, seeds = {}, {}
        for defense in _TREND:
            mean = _mean(records, rows[defense], measure)
            if mean:
                found[defense] = float(mean[name].split()[0])
                seeds[defense] = _seeds(records, rows[defense], measure)
                images = _images(records, rows[defense], measure)
        shown = _WHITE.get(name, "AutoAttack")
        if len(found) < 2:
            said.append(f"{shown}: not enough rows to compare yet.")
            continue
        ours = ranks.ranked(found, images)
        theirs = ranks.ranked({d: papers[d] for d in found}, _TEST_IMAGES)
        said.append(
            f"Under {shown}, {_spelled_seeds(seeds)}, the order is "
            f"{ranks.spelled(ours, found)}, "
            f"{'that' if ours == theirs else 'not that'} of the paper's "
            f"PGD-20: {ranks.spelled(theirs, papers)}."
        )
    return " ".join(said)


def autoattack(records):
    """What AutoAttack's attacks leave, one after the other, of seed 0."""
    rows, names = [], []
    for defense, runs in _by_row("table2").items():
        found = _measures(records, runs[0]).get("autoattack")
        if found:
            parts = found["parts"]
            names = list(parts)
            natural = f"{found['accuracy']['natural']:.1f}"
            cells = [f"{accuracy:.1f}" for accuracy in parts.values()]
            rows.append([defense, natural, *cells])
    if not rows:
        return _not_run("table2")
    return pages.table("|".join(["defense", "natural", *names]), rows)


def table_3(records, measure):
    """Black-box accuracy on MNIST, of what was measured: ours / the paper's.

    And what was made on another surrogate than the rest, if any was.
    """
    rows, made_on = [], {}
    for defense, expected in paper.expected_black_box().items():
        runs = _by_row("table3")[defense]
        found = _mean(records, runs, measure)
        if not found:
            continue
        for run in runs:
            measured = _measures(records, run).get(measure)
            if measured:
                # None: a record from before they were kept.
                weights = measured.get("surrogate")
                made_on.setdefault(weights, []).append(defense)
        cells = [
            f"{found[name]} / {value:.2f}"
            for name, value in zip(_BLACK, expected, strict=True)
        ]
        rows.append([defense, *cells])
    if not rows:
        return _not_run("table3")
    head = ["defense", *_BLACK.values()]
    table = pages.table("|".join(head), rows)
    if len(made_on) > 1:
        sets = "; ".join(", ".join(names) for names in made_on.values())
        table += (
            "\n\nThe surrogate was trained anew on the way; each of these sets "
            f"was attacked from one network: {sets}."
        )
    return table


def average(records):
    """MNIST, the best epoch by the weights or by their average."""
    rows = []
    for row, runs in _by_row("average").items():
        cells = _strong(_mean(records, runs, "first 500"))
        seeds = _seeds(records, runs, "first 500")
        rows.append([row, *cells, f"{seeds}"])
    return pages.table("best by|natural|PGD-20|AutoAttack|seeds", rows)


def tricks(records):
    """MNIST, what each trick gives MART, on the validation split."""
    rows, measured = [], 0
    for run in paper.runs():
        if "tricks" in run.parts:
            found = _mean(records, [run], "validation")
            measured += bool(found)
            name = f"`{' '.join(run.flags)}`" if run.flags else "nothing"
            rows.append([name, *_strong(found)])
    if not measured:
        return _not_run("tricks")
    return pages.table("with|natural|PGD-20|AutoAttack", rows)


def best(records):
    """The strongest recipe for MNIST, on a part of the test images and all."""
    runs = _by_row("best")["MART"]
    rows = []
    for images, measure in (
        ("the first 1,000", "strong"),
        ("all 10,000", "strong, all"),
    ):
        seeds = _seeds(records, runs, measure)
        if seeds:
            cells = _strong(_mean(records, runs, measure))
            rows.append([images, *cells, f"{seeds}"])
    if not rows:
        return _not_run("best")
    return pages.table("test images|natural|PGD-20|AutoAttack|seeds", rows)


def beyond(records):
    """Recipes of newer publications: AutoAttack as published, and ours."""
    rows = []
    for recipe, (what, published) in paper.BEYOND.items():
        runs = [run for run in paper.runs() if run.recipe == recipe]
        ours = _mean(records, runs, "strong").get("autoattack", _NONE)
        rows.append([f"`{recipe}.cfg`", what, published, ours])
    return pages.table("recipe|what it is|published|ours", rows, texts=2)


def trend(records, part):
    """Rows of a figure or of table 5: accuracy at the best and last epoch.

    Beside them what the paper says; below them its figure, as ours is drawn.
    """
    runs = [run for run in paper.runs() if part in run.parts]
    if not any(_measures(records, run) for run in runs):
        return _not_run(part)
    rows = []
    for row, runs in _by_row(part).items():
        best = _mean(records, runs, "test")
        last = _mean(records, runs, "last epoch")
        cells = [
            found.get(name, _NONE)
            for found in (best, last)
            for name in ("natural", "pgd:steps=20")
        ]
        rows.append([row, paper.said(runs[0].recipe) or _NONE, *cells])
    head = "run|the paper|natural, best|PGD-20, best|natural, last|PGD-20, last"
    texts = [pages.table(head, rows, texts=2)]
    texts += _chosen(records, part)
    if part in figures.NAMES:
        texts.append(f"![PGD-10 by epoch](figures/{part}.png)")
    return "\n\n".join(texts)


def _chosen(records, part):
    """How many examples the subsets of a figure have, a list of sentences."""
    for run in (run for run in paper.runs() if part in run.parts):
        found = records.read(run).get("subsets")
        if found:
            return [
                f"S- is {found['wrong']:,} of the {found['images']:,} training "
                f"images, S+ {found['right']:,}."
            ]
    return []


def small(records):
    """The small network on CIFAR-10: its best epoch, its last, its cost."""
    rows = []
    for row, runs in _by_row("small").items():
        record = records.read(runs[0])
        if not record:
            continue
        cells = []
        for measure in ("strong", "strong, last epoch"):
            cells += _strong(_mean(records, runs, measure))
        best = f"{record['best']} of {record['epochs']}"
        rows.append([row, *cells, best, f"{record['minutes']:.0f}"])
    if not rows:
        return _not_run("small")
    names = ("natural", "PGD-20", "AutoAttack")
    head = [f"{epoch}: {n}" for epoch in ("best", "last") for n in names]
    head = ["defense", *head, "best epoch", "minutes"]
    return pages.table("|".join(head), rows)


def digits(records, part, rows=None):
    """The digits: every defense, or what strengthens two of them.

    Args:
        records: The `Records`.
        part: "digits" or "digits_tricks".
        rows: The names of those that are shown; default: all.
    """
    table = []
    for row, runs in _by_row(part).items():
        white = _mean(records, runs, "digits")
        if white and (rows is None or row in rows):
            strong = _mean(records, runs, "digits, autoattack")
            cells = [white[name] for name in _WHITE]
            cells.append(f"{_seeds(records, runs, 'digits')}")
            cells.append(strong.get("autoattack", _NONE))
            cells.append(f"{_seeds(records, runs, 'digits, autoattack')}")
            table.append([row, *cells])
    if not table:
        return _not_run(part)
    head = ["training", *_WHITE.values(), "seeds", "AutoAttack", "seeds"]
    return pages.table("|".join(head), table)


def digits_criteria(records):
    """What MMA and Dynamic measure on the digits, seed 0, by epoch."""
    columns = []
    for row, name in (("mma", "margin"), ("dynamic", "fosc")):
        record = records.read(_by_row("digits")[row][0])
        if not record:
            return _not_run("digits")
        columns.append(record["by_epoch"][name])
    rows = [
        [f"{epoch}", *(f"{column[epoch - 1]:.3f}" for column in columns)]
        for epoch in _EPOCHS
    ]
    return pages.table("epoch|MMA, margin|Dynamic, FOSC", rows)


# What a recipe's header tells: of the white box, and perhaps of AutoAttack.
_TOLD = (
    ("white box", "autoattack"),
    ("white box", "first 500"),
    ("strong", "strong"),
    ("digits",),
)


def measured(records, recipe):
    """The text of "Measured" in a recipe's header; None without a record."""
    runs = [run for run in paper.runs() if run.recipe == recipe]
    runs = [run for run in runs if run.flags in ((), paper.EXACT)]
    known = {measure for run in runs for measure in run.measures}
    told = next((told for told in _TOLD if set(told) <= known), ())
    runs = [run for run in runs if set(told) <= set(_measures(records, run))]
    if not (told and runs):
        return None
    whole, *rest = told
    white = _mean(records, runs, whole)
    record = records.read(runs[0])
    numbers = ", ".join(
        f"{shown} {white[name]}"
        for name, shown in _WHITE.items()
        if name in white
    )
    images = f"{record['measures'][whole]['images']:,}"
    seeds = "one seed" if len(runs) == 1 else f"{len(runs)} seeds"
    text = (
        f"{numbers} ({images} test images, best of {record['epochs']} epochs, "
        f"{seeds}, {record['precision']}, version {record['version']})"
    )
    for measure in rest:
        text += f"; AutoAttack {_mean(records, runs, measure)['autoattack']}"
        if measure != whole:
            attacked = record["measures"][measure]["images"]
            text += f" on the first {attacked:,}"
    return f"{text}."


def blocks(records):
    """The tables by the names of their places, by page."""
    trends = (*figures.NAMES, "table5")
    shown = ("natural", "standard", "mart")
    return {
        "docs/results.md": {
            "order": order(records),
            "table2": table_2(records),
            "network": network(records),
            "autoattack": autoattack(records),
            "table3": table_3(records, "black box"),
            "table3_adversarial": table_3(records, "black box, adversarial"),
            "average": average(records),
            "tricks": tricks(records),
            "best": best(records),
            **{part: trend(records, part) for part in trends},
            "small": small(records),
            "digits": digits(records, "digits"),
            "digits_criteria": digits_criteria(records),
        },
        "docs/stronger.md": {"digits_tricks": digits(records, "digits_tricks")},
        "README.md": {
            "digits": digits(records, "digits", shown),
            "mnist": table_2(records, short=True),
        },
        "flags/README.md": {"beyond": beyond(records)},
    }


def write(records):
    """Writes the tables of docs and README, csv files, recipes' headers."""
    for page, found in blocks(records).items():
        text = (_ROOT / page).read_text(encoding="utf-8")
        files.replace_text(_ROOT / page, pages.filled(text, found, page))
    for part in figures.NAMES:
        found = figures.curves(records, part)
        if found:
            folder = _ROOT / "docs" / "figures"
            folder.mkdir(exist_ok=True)
            files.replace_text(folder / f"{part}.csv", found)
            (folder / f"{part}.png").write_bytes(figures.drawn(found))
    for recipe in dict.fromkeys(run.recipe for run in paper.runs()):
        found = measured(records, recipe)
        if found:
            recipes.set_header(recipe, "Measured", found)


def _not_run(part):
    minutes = [run.minutes for run in paper.runs() if part in run.parts]
    hours = sum(minutes) / 60
    return f"Not run yet: `--part={part}`, about {hours:.1f} hours."


def _by_row(part):
    rows = {}
    for run in paper.runs():
        if part in run.parts:
            rows.setdefault(run.row, []).append(run)
    return rows


def _measures(records, run):
    return records.read(run).get("measures", {})


def _seeds(records, runs, measure):
    """How many of the runs have a measure."""
    return sum(measure in _measures(records, run) for run in runs)


def _spelled_seeds(seeds):
    """Text: one seed each; or how many each defense has."""
    if set(seeds.values()) == {1}:
        return "one seed each"
    return "seeds " + ", ".join(f"{n} of {name}" for name, n in seeds.items())


def _in_float32(records, part):
    """A sentence of the rows that were not trained in bfloat16, or nothing."""
    names = [
        row
        for row, runs in _by_row(part).items()
        if any(records.read(run).get("precision") == "float32" for run in runs)
    ]
    return f"\n\nTrained in float32: {', '.join(names)}." if names else ""


def _images(records, runs, measure):
    """On how many images each of the runs that have a measure has it."""
    measured = [_measures(records, run) for run in runs]
    return min(
        found[measure]["images"] for found in measured if measure in found
    )


def _beside_paper(white, recipe):
    """Cells of Table 2: ours / the paper's."""
    return [
        f"{white.get(name, _NONE)} / {value:.2f}"
        for name, value in zip(_WHITE, paper.expected(recipe), strict=True)
    ]


def _strong(found):
    """Cells of natural accuracy, PGD-20 and AutoAttack."""
    return [
        found.get(name, _NONE)
        for name in ("natural", "pgd:steps=20", "autoattack")
    ]


def _mean(records, runs, measure):
    """Texts by attack: the mean over the seeds that were measured."""
    measured = [_measures(records, run).get(measure) for run in runs]
    found = [content["accuracy"] for content in measured if content]
    texts = {}
    for name in found[0] if found else ():
        values = [accuracy[name] for accuracy in found]
        texts[name] = f"{statistics.mean(values):.2f}"
        if len(values) > 1:
            texts[name] += f" ± {statistics.stdev(values):.2f}"
    return texts
