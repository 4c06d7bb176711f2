"""The tables of `docs/scaling.md`, written by `scaling.py --table`."""

import collections
import pathlib
import re
import textwrap

import costs
import hours
import pages
import recipes

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "scaling.md"

_CARDS = 8
_STEPS = 10
# Networks of the recipes, and one of MMA's.
_NETWORKS = (
    ("digits_cnn", "digits"),
    ("small_cnn", "mnist"),
    ("cnn4", "mnist"),
    ("cnn8", "cifar10"),
    ("resnet18", "cifar10"),
    ("preact_resnet18", "cifar10"),
    ("resnet50", "cifar10"),
    ("wide_resnet:depth=28:width=4", "cifar10"),
    ("wide_resnet:depth=34:width=8", "cifar10"),
    ("wide_resnet:depth=28:width=10", "cifar10"),
    ("wide_resnet:depth=34:width=10", "cifar10"),
)
# benchmarks/README.md, defense_speed.py: images a second, standard = 1.
_DEFENSES = {
    "natural": 6.81,
    "standard": 1.00,
    "alp": 0.83,
    "clp": 0.79,
    "trades": 0.77,
    "mma": 0.60,
    "dynamic": 0.85,
    "mart": 0.83,
    "uat": 0.77,
}


def networks():
    """FLOP of an image, and what a step of MART sums over the cards."""
    passes = costs.passes("mart", _STEPS)
    rows = []
    for name, dataset in _NETWORKS:
        found = costs.network(name, costs.SHAPES[dataset])
        size, sums = costs.reduced(found, passes)
        rows.append(
            [
                _short(name),
                _number(found.forward / 1e6),
                _number(costs.training_flops(found, passes) / 1e9),
                f"{found.parameters:,}",
                _number(4 * found.parameters / 1e6),
                _number((size - 4 * found.parameters) / 1e3),
                f"{sums}",
            ]
        )
    head = "network|MFLOP|MART, GFLOP|parameters|MB|batch norm, kB|sums"
    return pages.table(head, rows)


def defenses():
    """Passes of a step of each defense, beside its measured speed."""
    standard = costs.passes("standard", _STEPS).units
    rows = []
    for name, measured in _DEFENSES.items():
        passes = costs.passes(name, _STEPS)
        units = f"{passes.units}"
        ratio = standard / passes.units
        if name == "mma":
            # The benchmark's first steps need one search.
            one = passes.units - 2 * _STEPS - 10
            units, ratio = f"{one} to {units}", standard / one
        cells = [passes.forward, passes.attack, passes.training, units]
        rows.append([name, *map(str, cells), f"{ratio:.2f}", f"{measured:.2f}"])
    head = "defense|forward|to images|to weights|units|standard = 1|measured"
    return pages.table(head, rows)


def speeds():
    """The formula beside the steps that it was fitted to."""
    passes = costs.passes("mart", _STEPS)
    rows = []
    for compiled in ("step", "attack", "off"):
        speed, _ = hours.fitted(compiled)
        cells = []
        for name, size, rates in hours.MEASURED:
            found = costs.network(name, costs.SHAPES["cifar10"])
            flop = size * costs.training_flops(found, passes)
            seconds = speed.seconds(passes.units, flop)
            cells.append(
                f"{1e3 * seconds:.0f} / {1e3 * size / rates[compiled]:.0f}"
            )
        rows.append(
            [
                compiled,
                f"{1e3 * speed.unit:.2f}",
                f"{speed.flops / 1e12:.0f}",
                *cells,
            ]
        )
    names = [f"{_short(name)}, {size}" for name, size, _ in hours.MEASURED]
    head = "|".join(["XLA", "ms a unit", "TFLOP/s", *names])
    return pages.table(head, rows)


def links():
    """A step of MART on 8 cards of 128 images, and its sums."""
    passes = costs.passes("mart", _STEPS)
    rows = []
    for name, dataset in _NETWORKS:
        found = costs.network(name, costs.SHAPES[dataset])
        flop = 128 * costs.training_flops(found, passes)
        step = hours.speed(passes, _CARDS).seconds(passes.units, flop)
        size, sums = costs.reduced(found, passes)
        cells = [_short(name), _number(1e3 * step)]
        for link in (hours.NVLINK, hours.ETHERNET):
            whole = link.seconds(size, sums, _CARDS)
            waits = sums * link.latency
            cells += [
                _number(1e3 * (whole - waits)),
                _number(1e3 * waits),
                f"{step / (step + whole):.0%}",
            ]
        rows.append(cells)
    head = "network|step|NVLink|waits|left|100 Gbit/s|waits|left"
    return pages.table(head, rows)


def all_recipes():
    """A row for recipes that cost the same, and their names."""
    groups = collections.defaultdict(list)
    for path in recipes.paths():
        recipe = hours.recipe(path)
        key = recipe._replace(defense="")
        groups[key, recipe.passes, recipe.remembered].append((path, recipe))
    groups = sorted(groups.values(), key=lambda group: group[0][1].flop())
    rows, names = [], []
    for number, group in enumerate(groups, 1):
        rows.append([f"{number}", *_cells(group[0][1])])
        listed = ", ".join(f"`{path.stem}`" for path, _ in group)
        names.append(
            textwrap.fill(f"{number}. {listed}", 80, subsequent_indent=" " * 4)
        )
    head = "row|network|units|PFLOP|h|of peak|8: h|card h|8x: h|card h"
    return pages.table(head, rows) + "\n\n" + "\n".join(names)


def _cells(recipe):
    """One recipe's row."""
    flop, alone = recipe.flop(), recipe.seconds()
    cells = [
        _short(recipe.network),
        f"{recipe.passes.units}",
        _number(flop / 1e15),
        _number(alone / 3600),
        f"{flop / alone / hours.PEAK:.0%}",
    ]
    for times in (1, _CARDS):
        if recipe.batch_size * times % _CARDS:
            # Refused: the cards would have different numbers of images.
            cells += ["-", "-"]
            continue
        taken = recipe.seconds(_CARDS, times) / 3600
        cells += [_number(taken), _number(_CARDS * taken)]
    return cells


def blocks():
    """All tables, by the names of their places in the page."""
    return {
        "networks": networks(),
        "defenses": defenses(),
        "speeds": speeds(),
        "links": links(),
        "recipes": all_recipes(),
    }


def _number(value):
    """Two significant digits: no more is known."""
    if value >= 10:
        digits = len(f"{value:.0f}") - 3
        return f"{round(value, -max(digits, 0)):,.0f}"
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"


def _short(name):
    """WRN-34-10 and resnet18, and "SiLU" where it is."""
    wide = re.match(r"wide_resnet:depth=(\d+):width=(\d+)", name)
    short = f"WRN-{wide[1]}-{wide[2]}" if wide else name.split(":")[0]
    return f"{short} SiLU" if "silu" in name else short
