"""What a comparison says: its table, its sentence, and what has to be known to read them rightly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clue_utils.compare.pairs import Pair, TaskDifference, counts_of_settings
from clue_utils.compare.statistics import LEVEL, NUM_DRAWS, Difference
from clue_utils.report.tables import NOTHING, Row, Table, percent, signed

_LEVEL = f"{LEVEL:.0%}".replace("%", " %")


def interval(low: float, high: float) -> str:
    """``[−0.40, 2.00]``, percentage points of two fractions."""
    ends = (round(100 * end, 2) + 0.0 for end in (low, high))  # the sum has no -0.00
    return "[" + ", ".join(f"{end:.2f}".replace("-", "\N{MINUS SIGN}") for end in ends) + "]"


def p_text(p_value: float) -> str:
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def table(pair: Pair) -> Table:
    """Scores, difference, interval and p of each task, and the mean over the tasks."""
    rows = []
    for name, one in pair.tasks.items():
        label = name if one.f1 is None else f"{name} EM"
        rows.append(
            Row(label, (*_cells(one.main), p_text(one.adjusted_p), _verdict(one.is_real, one.main.value, pair)))
        )
        if one.f1 is not None:
            rows.append(Row(f"{name} F1", (*_cells(one.f1), NOTHING, "")))
    if len(pair.tasks) > 1:
        mains = [one.main for one in pair.tasks.values()]
        means = [sum(scores) / len(mains) for scores in ([m.first for m in mains], [m.second for m in mains])]
        low, high = pair.average_interval
        difference = (signed(100 * pair.average), interval(low, high))
        told = _verdict(not low <= 0 <= high, low, pair)
        cells = (*map(percent, means), *difference, NOTHING, NOTHING, NOTHING, told)
        rows.append(Row("AVG", cells, "total"))
    title = f"{pair.second.name} (B) minus {pair.first.name} (A), development scores in percent"
    header = ("task", "A", "B", "difference", f"{_LEVEL} interval", "A only/B only", "p", "adjusted p", "")
    return Table(title, header, tuple(rows))


def _cells(one: Difference) -> tuple[str, ...]:
    only = f"{one.only_first}/{one.only_second}"
    scores = (percent(one.first), percent(one.second))
    return (*scores, signed(100 * one.value), interval(*one.interval), only, p_text(one.p_value))


def _verdict(is_real: bool, value: float, pair: Pair) -> str:
    if not is_real:
        return "no difference" if pair.is_same else "not told apart"
    return "B better" if value > 0 else "A better"


def sentence(pair: Pair) -> str:
    """What the comparison comes to, in one sentence."""
    first, second, num = pair.first.name, pair.second.name, len(pair.tasks)
    if pair.is_same:
        return f"No difference: {first} and {second} are the same runs."
    name = next(iter(pair.tasks))
    if num == 1:
        one = pair.tasks[name]
        found = (
            f"{_metric(one)} {signed(100 * one.main.value)} {interval(*one.main.interval)}, p {p_text(one.adjusted_p)}"
        )
        if not one.is_real:
            return f"No difference between {second} and {first} can be told on {name}: {found}."
        return f"{second} is {'better' if one.main.value > 0 else 'worse'} than {first} on {name}: {found}."
    better, worse = pair.better, pair.worse
    if not better and not worse:
        begin = f"No difference between {second} and {first} can be told on any of {num} tasks"
    else:
        told = [(word, found) for word, found in (("better", better), ("worse", worse)) if found]
        begin = f"{second} is {told[0][0]} than {first} on {len(told[0][1])} of {num} tasks ({_list(told[0][1])}), "
        begin += f"worse on {len(worse)} ({_list(worse)})" if len(told) > 1 else ""
        begin += "" if len(told) > 1 else f"{'worse' if better else 'better'} on none"
    low, high = pair.average_interval
    average = f"{signed(100 * pair.average)} {interval(low, high)}"
    doubt = ", which may be chance" if low <= 0 <= high else ""
    return f"{begin}; on average over the tasks {average}{doubt}."


def _metric(one: TaskDifference) -> str:
    return one.task.metric.upper() if one.task.metric == "em" else one.task.metric


def _list(found: Iterable[TaskDifference]) -> str:
    return ", ".join(f"{o.task.name} {signed(100 * o.main.value)} {interval(*o.main.interval)}" for o in found)


def notes(pairs: Sequence[Pair]) -> list[str]:
    """What a reader has to know."""
    compared = [one for pair in pairs for one in pair.tasks.values()]
    lines = [
        f"The intervals hold {_LEVEL}: bootstrap over the development records, the same ones for both sides, "
        f"{NUM_DRAWS:,} draws; they are of one task each. p is {_tests(compared)}. Adjusted p is for the tasks of one "
        "pair (Holm), not for the number of pairs; below 0.05 a difference counts as real. The interval of AVG draws "
        "each task independently."
    ]
    several: dict[tuple[int, int], dict[str, None]] = {}  # numbers of seeds -> tasks
    for one in compared:
        if max(one.num_runs) > 1:
            several.setdefault(one.num_runs, {})[one.task.name] = None
    if several:
        shown = "; ".join(f"{', '.join(names)} {a} and {b}" for (a, b), names in several.items())
        lines.append(f"Several seeds ({shown}): the score is their mean, and interval and p take them in.")
    alone = dict.fromkeys(one.task.name for one in compared if min(one.num_runs) == 1)
    if alone:
        lines.append(
            f"A side has one seed ({', '.join(alone)}): its interval and p are about that run, and another seed of the "
            "same model may say otherwise; more seeds (grid_search.sh --seeds) tell."
        )
    for pair in pairs:
        names = f"{pair.first.name} and {pair.second.name}"
        if pair.not_compared:
            lines.append(f"{names}: not compared, as one of them has no finished run: {', '.join(pair.not_compared)}.")
        if counts := counts_of_settings(pair):
            shown = ", ".join(f"{name} {a} and {b}" for name, (a, b) in counts.items())
            lines.append(
                f"{names} were chosen among unlike numbers of settings by these same records ({shown}), which favours "
                "the larger number."
            )
    return lines


def _tests(compared: Sequence[TaskDifference]) -> str:
    of = {
        "McNemar": "McNemar's, exact, on the records that one side alone has right",
        "sign flips": "that of random sign flips (CHID by the record, F1)",
        "t": "Welch's t over records and seeds",
    }
    used = {one.test for both in compared for one in (both.main, both.f1) if one}
    return "; ".join(text for test, text in of.items() if test in used)
