"""Signs of gradient masking, looked for in what an evaluation ran.

Each of seven signs passes, fails, or is not tested because what it takes was
not run; what they are, their lines and the reasons for them:
docs/evaluation.md, "Signs of gradient masking". One attack is "stronger" than
another as `differences.is_stronger` says.
"""

import dataclasses
import itertools

import numpy as np

from mart_tf import bounds
from mart_tf.reports import differences
from mart_tf.reports import results as evaluated

PASSED, FAILED, NOT_TESTED = "passed", "failed", "not tested"

_QUESTIONS = (
    "Do more gradient steps never raise the accuracy?",
    "Is the white box at least as strong as black-box transfer?",
    "Are gradient attacks at least as strong as gradient-free ones?",
    "Does a growing epsilon drive the accuracy to near zero?",
    "Do restarts change little, and does the loss rise along the attack?",
    "Does AutoAttack leave nearly as much as PGD and CW?",
    "Do attacks on the cross-entropy break nearly as much as on the margin?",
)

_NO_GRADIENTS = "No gradient attack ran: run pgd:steps=100."

_NOISE = 0.005
_LARGE = 0.05
_NEAR_ZERO = 0.05
_LEAST_RISE = 0.01


@dataclasses.dataclass(frozen=True)
class Sign:
    """One sign of gradient masking.

    Args:
        question: What was asked; yes is sound.
        verdict: "passed", "failed" or "not tested".
        evidence: A sentence with the numbers, or with what to run.
    """

    question: str
    verdict: str
    evidence: str


def signs(report, chance=0.0):
    """The seven signs, in the order of docs/evaluation.md.

    Args:
        report: A `Report`; `results`, `threat`, `sweep` and `traces` are read.
        chance: The accuracy of the best constant answer (sign 4), in [0, 1].

    Returns:
        A tuple of seven `Sign`s.
    """
    # An attack that minimises distance keeps to another radius.
    results = [
        result
        for result in report.results
        if result.norm is None and result.nature is not None
    ]
    examples = len(report.results[0].outcome)
    answers = (
        _more_steps(results, report.threat),
        _transfer(results),
        _gradient_free(results),
        _growing_epsilon(report.sweep, report.threat, examples, chance),
        _restarts_and_loss(results, report.traces),
        _autoattack(results),
        _cross_entropy(results, report.threat),
    )
    return tuple(
        Sign(question, *answer)
        for question, answer in zip(_QUESTIONS, answers, strict=True)
    )


def _more_steps(results, threat):
    ladder = sorted(_plain(results), key=_steps)
    pairs = [
        (weaker, stronger)
        for weaker, stronger in itertools.combinations(ladder, 2)
        if _comparable(weaker, stronger, threat)
    ]
    if not pairs:
        return NOT_TESTED, (
            "No two attacks ran that differ in their steps alone: run fgsm and "
            "pgd:steps=100 beside pgd:steps=20."
        )
    for weaker, stronger in pairs:
        if differences.is_stronger(weaker.outcome, stronger.outcome, _NOISE):
            return FAILED, _against(weaker, stronger)
    compared = {result.name: result for pair in pairs for result in pair}
    return PASSED, f"{_shown(*compared.values())}."


def _comparable(weaker, stronger, threat):
    if not _steps(weaker) < _steps(stronger):
        return False
    if _steps(weaker) == 1:
        one, many = weaker.nature, stronger.nature
        # One step that leads as far as any is FGSM.
        return (
            one.objective == many.objective == "cross_entropy"
            # None: how far an attack of a user's own leads is not known.
            and None not in (one.reach, many.reach)
            and one.reach > 0.999 * threat.epsilon
            and many.reach > 1.999 * threat.epsilon
        )
    return _differ_alone_in("steps", weaker, stronger)


def _transfer(results):
    white_box = _gradient_attacks(results)
    transfers = [result for result in results if result.access == "surrogate"]
    if not transfers:
        return NOT_TESTED, "No attack was made on a surrogate: give one."
    if white_box is None:
        return NOT_TESTED, _NO_GRADIENTS
    return _challenge(white_box, transfers, _NOISE)


def _gradient_free(results):
    white_box = _gradient_attacks(results)
    if white_box is None:
        return NOT_TESTED, _NO_GRADIENTS
    attacks = []
    for result in results:
        before, after = _leading(result)
        if after and after[0].access == "queries":
            outcome = after[0].outcome
            if before:
                outcome = outcome & white_box.outcome
            attacks.append(evaluated.Result(after[0].name, outcome))
    if not attacks:
        return NOT_TESTED, "No gradient-free attack ran: run square."
    return _challenge(white_box, attacks, _NOISE)


def _growing_epsilon(sweep, threat, examples, chance):
    half = 0.5 * (threat.pixel_max - threat.pixel_min)
    further = (
        f"sweep up to {bounds.spelled(half)}"
        if threat.norm == "linf"
        else "go on"
    )
    if sweep is None:
        return NOT_TESTED, "No sweep of epsilon ran: run an epsilon sweep."
    under = f"Accuracy under {sweep.attack} is"
    points = list(zip(sweep.epsilons, sweep.accuracies, strict=True))
    for (lower, before), (upper, after) in itertools.combinations(points, 2):
        if differences.exceeds(after, before, examples, _NOISE):
            return FAILED, (
                f"{under} {before:.2%} at epsilon {bounds.spelled(lower)} and "
                f"more, {after:.2%}, at {bounds.spelled(upper)}."
            )
    epsilon, accuracy = points[-1]
    said = f"{under} {accuracy:.2%} at epsilon {bounds.spelled(epsilon)}"
    line = _NEAR_ZERO
    if accuracy < line:
        return PASSED, (
            f"{said}, where the sweep ends, and never rises by more than noise."
        )
    if threat.norm != "linf" or epsilon < 0.999 * half:
        return NOT_TESTED, f"{said}, where the sweep ends: {further}."
    line = max(line, chance)
    if not differences.exceeds(accuracy, line, examples, _NOISE):
        return PASSED, (
            f"{said}, not above {line:.2%} by more than noise, and never rises "
            "by more."
        )
    return FAILED, (
        f"{said}, half the pixel range or more, where one grey image is within "
        f"reach of all; expected at most {line:.2%}."
    )


def _restarts_and_loss(results, traces):
    halves = (_restarts(results), _loss(results, traces))
    verdicts = [verdict for verdict, _ in halves]
    # One half alone does not pass for both.
    for verdict in (FAILED, NOT_TESTED, PASSED):
        if verdict in verdicts:
            return verdict, " ".join(evidence for _, evidence in halves)


def _restarts(results):
    attacks = _iterated(results)
    said = []
    for result in attacks:
        single = _first_round(result, attacks)
        if single is None:
            continue
        if differences.is_stronger(result.outcome, single.outcome, _LARGE):
            return FAILED, _against(result, single)
        said.append(f"{_shown(single, result)}.")
    if said:
        return PASSED, " ".join(said)
    return NOT_TESTED, "No attack was restarted: run pgd:steps=20:restarts=5."


def _first_round(result, attacks):
    """What is left before an attack is started anew, or None."""
    if not _restarted(result):
        return None
    for other in attacks:
        alone = _differ_alone_in("restarts", other, result)
        if alone and not _restarted(other):
            return other
    if result.broken_after is None:
        return None
    # Of a later start whatever it began with counts for the one before.
    later = result.broken_after > _steps(result)
    return evaluated.Result("the first start", result.outcome | later)


def _loss(results, traces):
    # Not those of a sweep: at other radii the start alone may break nearly all.
    accuracy = {result.name: result.accuracy for result in _iterated(results)}
    said = []
    for trace in traces:
        losses = np.asarray(trace.losses, np.float64)
        if trace.attack not in accuracy or len(losses) < 2:
            continue
        first, last, changes = losses[0], losses[-1], np.diff(losses)
        rises = np.maximum(changes, 0.0).sum()
        falls = np.maximum(-changes, 0.0).sum()
        ends = f"from {first:.4g} to {last:.4g} along {trace.attack}"
        # Written so that NaN fails.
        rising = last - first > _LEAST_RISE * abs(first)
        rising = rising and falls <= 0.5 * rises
        # The loss stays where an example breaks: it need not rise where the
        # start has broken nearly all.
        if not rising and accuracy[trace.attack] >= _NEAR_ZERO:
            return FAILED, (
                f"The loss goes {ends}, with falls of {falls:.4g} in all."
            )
        said.append(ends)
    if said:
        return PASSED, f"The loss rises {', '.join(said)}."
    return NOT_TESTED, "No loss was followed: run pgd:steps=20."


def _autoattack(results):
    ensembles = [result for result in results if result.nature.reference]
    plain = _iterated(results)
    if not ensembles:
        return NOT_TESTED, "AutoAttack did not run: run autoattack."
    if not plain:
        return NOT_TESTED, (
            "Neither PGD nor CW ran: run pgd:steps=100 beside autoattack."
        )
    strongest = min(plain, key=lambda result: result.accuracy)
    return _challenge(strongest, ensembles, _LARGE)


def _cross_entropy(results, threat):
    by_objective = {"cross_entropy": [], "margin": []}
    for result in results:
        if result.access == "gradients":
            by_objective.get(result.nature.objective, []).append(result)
    pairs = [
        (slow, fast)
        for slow, fast in itertools.product(*by_objective.values())
        if _steps(slow) == _steps(fast)
        and _restarted(slow) == _restarted(fast)
        and _leads_as_far(slow, fast, threat)
    ]
    if not pairs:
        return NOT_TESTED, (
            "No attack on the cross-entropy ran beside one on the margin of as "
            "many steps that lead no further: run cw:steps=20 beside "
            "pgd:steps=20."
        )
    for slow, fast in pairs:
        if differences.is_stronger(fast.outcome, slow.outcome, _LARGE):
            return FAILED, _against(fast, slow)
    compared = {result.name: result for pair in pairs for result in pair}
    return PASSED, f"{_shown(*compared.values())}."


def _leads_as_far(slow, fast, threat):
    """Whether the steps of the first lead as far as the second's, or across."""
    reach, other = slow.nature.reach, fast.nature.reach
    across = 2.0 * threat.epsilon
    if reach is None:
        return True
    return reach > 0.999 * min(across, across if other is None else other)


def _challenge(holder, attacks, least):
    """Fails where one of the attacks is stronger than the holder."""
    attacks = sorted(attacks, key=lambda result: result.accuracy)
    for attack in attacks:
        if differences.is_stronger(attack.outcome, holder.outcome, least):
            return FAILED, _against(attack, holder)
    return PASSED, f"{_shown(holder, attacks[0])}."


def _gradient_attacks(results):
    """All attacks by the model's own gradients as one `Result`, or None."""
    outcomes = []
    for result in results:
        before, _ = _leading(result)
        if before:
            outcomes.append(before[-1].outcome)
    if not outcomes:
        return None
    together = np.logical_and.reduce(outcomes)
    return evaluated.Result("all gradient attacks together", together)


def _leading(result):
    """The gradient attacks that an ensemble begins with, and the others.

    Outcomes inside an ensemble are cumulative: after an attack of another kind
    they belong to no one kind. A single attack is an ensemble of one.
    """
    if result.access == "surrogate":
        return [], []
    parts = list(result.parts or [result])
    before = list(
        itertools.takewhile(lambda part: part.access == "gradients", parts)
    )
    return before, parts[len(before) :]


def _plain(results):
    """Projected ascent by steps of one length, on the model itself."""
    return [
        result
        for result in results
        if result.nature.plain and result.access == "gradients"
    ]


def _iterated(results):
    """PGD, CW and their like."""
    return [result for result in _plain(results) if _steps(result) > 1]


def _steps(result):
    return result.nature.steps


def _restarted(result):
    return result.nature.restarts > 1


def _differ_alone_in(what, *pair):
    """Whether two attacks of a kind differ in this field of `Nature` alone.

    Whatever the option is called that says it: its values are the field's.
    """
    one, other = (result.nature.kind for result in pair)
    names = set().union(*(result.parameters for result in pair))
    return one == other and all(
        len({repr(result.parameters.get(name)) for result in pair}) == 1
        or all(
            result.parameters.get(name) == getattr(result.nature, what)
            for result in pair
        )
        for name in names
    )


def _shown(*results):
    return "Accuracy is " + ", ".join(
        f"{bounds.percentage(result.accuracy)} under {result.name}"
        for result in results
    )


def _against(stronger, weaker):
    """The evidence where one attack is stronger than it should be."""
    alone, other = differences.discordant(stronger.outcome, weaker.outcome)
    return (
        f"{_shown(stronger, weaker)}: {alone} examples fall to the first "
        f"alone, {other} to the second alone."
    )
