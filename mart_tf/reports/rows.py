"""The rows of a comparison: a model each, or one under several seeds.

Runs whose settings differ in the seed alone are one row: the mean of each
accuracy, and its standard deviation over them; one that has not ended is none
of them. Rows are sorted by the worst case. Of the settings those are shown that
differ.
"""

import dataclasses
import json
import os
import statistics
import zlib

from mart_tf import bounds
from mart_tf.reports import report
from mart_tf.reports import template

ABSENT = "–"
WORST = "worst case"
_SEED = "seed"
_CHECKPOINT = "checkpoint"
_UNFINISHED = "unfinished"


@dataclasses.dataclass(frozen=True)
class Row:
    """What is compared of a model; dicts are by the column's heading.

    Args:
        threat, data: The threat model and the examples, in words.
        parameters: Those of each attack.
        settings: What training was told, plain values by name, as far as it
            is known, which checkpoint was evaluated, and "unfinished", in
            words, where that is of no run that has ended.
        runs: Accuracies of each run by its heading: more than one of a model
            under several seeds.
    """

    threat: str
    data: str
    parameters: dict
    settings: dict
    runs: dict

    @classmethod
    def of(cls, heading, content, settings=None):
        """The row of a report or of its report.json."""
        if isinstance(content, report.Report):
            content = content.as_json()
        natural, attacks = content["natural"], content["attacks"]
        threat, data = content["threat_model"], content["data"]
        settings, model = settings or {}, content["model"]
        if settings and "checkpoint" in model:
            settings = settings | {_CHECKPOINT: model["checkpoint"]}
        accuracies = {"natural": float(natural["accuracy"])}
        for attack in attacks:
            name = label(attack)
            if name in {*accuracies, WORST}:
                raise ValueError(
                    f"A report has two results called {name!r}; expected "
                    "names that differ."
                )
            accuracies[name] = float(attack["accuracy"])
        accuracies[WORST] = float(content["worst_case"]["accuracy"])
        return cls(
            f"{threat['norm']}, epsilon {bounds.spelled(threat['epsilon'])}, "
            f"pixels {threat['pixel_min']:g} to {threat['pixel_max']:g}",
            _data(data),
            {label(attack): _parameters(attack, model) for attack in attacks},
            settings,
            {heading: accuracies},
        )

    @property
    def accuracies(self):
        """The mean over the runs, in [0, 1]."""
        return {
            column: statistics.fmean(values)
            for column, values in self._by_column().items()
        }

    @property
    def deviations(self):
        """The sample standard deviation over the runs; {} of one run."""
        if len(self.runs) < 2:
            return {}
        return {
            column: statistics.stdev(values)
            for column, values in self._by_column().items()
        }

    def _by_column(self):
        first, *others = self.runs.values()
        return {
            column: [first[column], *(other[column] for other in others)]
            for column in first
        }

    def without_seed(self):
        """All that is alike in rows of one model under several seeds."""
        [(_, accuracies)] = self.runs.items()
        settings = {k: v for k, v in self.settings.items() if k != _SEED}
        alike = [
            self.threat,
            self.data,
            self.parameters,
            settings,
            list(accuracies),
        ]
        return json.dumps(alike, sort_keys=True, default=str)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rows by heading, the columns in order, what must be said.

    `settings` are the names of those that differ. `best` holds the greatest
    accuracy of each column whose accuracies answer one question.
    """

    rows: dict
    columns: list
    settings: list
    notes: list
    best: dict

    @classmethod
    def of(cls, reports, settings=None):
        """The comparison of reports.

        Args:
            reports: As of `comparison.compare`.
            settings: As there.
        """
        if not reports:
            raise ValueError("There is no report; expected one or more.")
        single = {
            str(key): Row.of(str(key), value, (settings or {}).get(key))
            for key, value in reports.items()
        }
        rows = _sorted(_gathered(single))
        columns = merged([list(row.accuracies) for row in rows.values()])
        notes, same = [], True
        for kind, name in (("threat", "threat model"), ("data", "data")):
            words = {key: getattr(row, kind) for key, row in rows.items()}
            if len(set(words.values())) == 1:
                notes.append(f"The {name}: {next(iter(words.values()))}.")
                continue
            same = False
            each = "; ".join(f"{key}: {value}" for key, value in words.items())
            notes.append(f"The {name} is not the same. {each}.")
        shared = set.intersection(
            *(set(row.accuracies) for row in rows.values())
        )
        # With another epsilon, steps have another size anyway.
        different = _set_differently(rows.values(), columns) if same else []
        if different or shared != set(columns):
            shared.remove(WORST)
            notes.append("The worst case is over the attacks of its own model.")
        if different:
            notes.append(f"Not with the same settings: {', '.join(different)}.")
        if len(rows) < len(single):
            notes.append(
                "± is the standard deviation over runs that differ in the seed "
                "alone, before it their mean."
            )
        notes += [
            f"{heading} {row.settings[_UNFINISHED]}."
            for heading, row in single.items()
            if _UNFINISHED in row.settings
        ]
        best = {
            column: max(row.accuracies[column] for row in rows.values())
            for column in shared.difference(different)
            if same and len(rows) > 1
        }
        return cls(rows, columns, _differing(single.values()), notes, best)

    def told(self, row):
        """The settings of a row that differ, in words, by their heading."""
        return {
            _short(name, self.settings): template.said(row.settings[name])
            for name in self.settings
            if name in row.settings
        }

    @property
    def told_headings(self):
        """The headings of all settings that differ."""
        return [_short(name, self.settings) for name in self.settings]

    def cells(self, spread=" ± "):
        """Yields each row's heading, its accuracies in %, which are best.

        Args:
            spread: What stands before a standard deviation.
        """
        for heading, row in self.rows.items():
            accuracies, deviations = row.accuracies, row.deviations
            yield (
                heading,
                [
                    _cell(accuracies.get(name), deviations.get(name), spread)
                    for name in self.columns
                ],
                [
                    name in self.best and accuracies[name] == self.best[name]
                    for name in self.columns
                ],
            )


def _short(name, names):
    """A setting as a heading: "defense:form" is "form" if no other is."""
    last = name.rpartition(":")[2]
    alone = sum(other.rpartition(":")[2] == last for other in names) == 1
    return last if alone else name


def merged(lists):
    """All names of several lists, in an order that keeps theirs."""
    together = []
    for names in lists:
        place = 0
        for name in names:
            if name not in together:
                together.insert(place, name)
            place = together.index(name) + 1
    together.remove(WORST)
    return [*together, WORST]


def _cell(value, deviation, spread):
    if value is None:
        return ABSENT
    after = "" if deviation is None else f"{spread}{100 * deviation:.2f}"
    return f"{bounds.percent(value, 2)}{after}"


def _sorted(rows):
    """The rows with the best worst case first; a tie stays as it was."""
    order = sorted(rows, key=lambda key: -rows[key].accuracies[WORST])
    return {key: rows[key] for key in order}


def _gathered(rows):
    """The rows, those that differ in the seed alone together."""
    groups = {}
    for heading, row in rows.items():
        # Without settings nothing tells what else differs.
        alone = _SEED not in row.settings or _UNFINISHED in row.settings
        key = heading if alone else row.without_seed()
        groups.setdefault(key, []).append(heading)
    together = {}
    for headings in groups.values():
        seeds = [rows[heading].settings.get(_SEED) for heading in headings]
        if len(headings) == 1 or len(set(seeds)) < len(seeds):
            together |= {heading: rows[heading] for heading in headings}
            continue
        first = rows[headings[0]]
        together[_common(headings, rows)] = dataclasses.replace(
            first,
            settings=first.settings | {_SEED: ", ".join(map(str, seeds))},
            runs={key: rows[key].runs[key] for key in headings},
        )
    return together


def _common(headings, rows):
    """A heading for several runs: what they begin with, if they alone do."""
    start = os.path.commonprefix(headings)
    if start and sum(key.startswith(start) for key in rows) == len(headings):
        return f"{start}*"
    return f"{headings[0]} and {len(headings) - 1} more"


def _differing(rows):
    """Names of the settings that are not the same in all rows that have it."""
    values = {}
    for row in rows:
        for name, value in row.settings.items():
            if name == _UNFINISHED:
                continue
            values.setdefault(name, set()).add(repr(value))
    return [name for name, different in values.items() if len(different) > 1]


def _data(data):
    """What tells one set of examples from another."""
    parts = [data[key] for key in ("dataset", "split") if key in data]
    shape = "x".join(map(str, data["image_shape"]))
    parts.append(f"{data['examples']} examples of shape {shape}")
    if data.get("rows"):
        first = ", ".join(map(str, data["rows"][:3]))
        # Rising rows of two large samples may begin alike.
        all_rows = zlib.crc32(json.dumps(data["rows"]).encode())
        parts.append(f"a sample (rows {first}, ..., CRC-32 {all_rows:08x})")
    return ", ".join([*parts, f"{data['classes']} classes"])


def label(entry):
    """A result's name, with its norm if it keeps to no radius."""
    if entry["norm"] is None:
        return entry["name"]
    spelled = bounds.spelled(entry["radius"])
    return f"{entry['name']} ({entry['norm']}, radius {spelled})"


def _parameters(attack, model):
    """The settings of an attack, among them the surrogate it was made on."""
    if attack["access"] != "surrogate":
        return attack["parameters"]
    surrogate = model.get("surrogate") or {}
    made_on = surrogate.get("weights") or surrogate.get("name")
    return attack["parameters"] | {"surrogate": made_on}


def _set_differently(rows, columns):
    """The attacks that ran with other parameters in another row."""
    different = []
    for column in columns:
        used = [
            row.parameters[column] for row in rows if column in row.parameters
        ]
        if any(parameters != used[0] for parameters in used):
            different.append(column)
    return different
