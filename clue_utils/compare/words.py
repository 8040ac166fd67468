"""What a comparison says: its table, its sentence, and what has to be known to read them rightly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clue_utils.compare.pairs import Pair, TaskDifference, counts_of_settings
from clue_utils.compare.statistics import LEVEL, NUM_DRAWS, Difference
from clue_utils.language import say
from clue_utils.report.tables import NOTHING, Row, Table, percent, signed


def _level() -> str:
    return say("{number} %", number=f"{100 * LEVEL:.0f}")


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
    title = say(
        "{second} (B) minus {first} (A), development scores in percent", second=pair.second.name, first=pair.first.name
    )
    interval_name = say("{level} interval", level=_level())
    counts, adjusted = say("A only/B only"), say("adjusted p")
    header = (say("task"), "A", "B", say("difference"), interval_name, counts, "p", adjusted, "")
    return Table(title, header, tuple(rows))


def _cells(one: Difference) -> tuple[str, ...]:
    only = f"{one.only_first}/{one.only_second}"
    scores = (percent(one.first), percent(one.second))
    return (*scores, signed(100 * one.value), interval(*one.interval), only, p_text(one.p_value))


def _verdict(is_real: bool, value: float, pair: Pair) -> str:
    if not is_real:
        return say("no difference") if pair.is_same else say("not told apart")
    return say("B better") if value > 0 else say("A better")


def sentence(pair: Pair) -> str:
    """What the comparison comes to, in one sentence."""
    first, second, num = pair.first.name, pair.second.name, len(pair.tasks)
    if pair.is_same:
        return say("No difference: {first} and {second} are the same runs.", first=first, second=second)
    name = next(iter(pair.tasks))
    if num == 1:
        one = pair.tasks[name]
        scored = f"{_metric(one)} {signed(100 * one.main.value)} {interval(*one.main.interval)}"
        found = say(", ").join((scored, f"p {p_text(one.adjusted_p)}"))
        values = {"first": first, "second": second, "task": name, "found": found}
        if not one.is_real:
            return say("No difference between {second} and {first} can be told on {task}: {found}.", **values)
        if one.main.value > 0:
            return say("{second} is better than {first} on {task}: {found}.", **values)
        return say("{second} is worse than {first} on {task}: {found}.", **values)
    low, high = pair.average_interval
    average = f"{signed(100 * pair.average)} {interval(low, high)}"
    if low <= 0 <= high:
        return say(
            "{found}; on average over the tasks {average}, which may be chance.", found=_found(pair), average=average
        )
    return say("{found}; on average over the tasks {average}.", found=_found(pair), average=average)


def _found(pair: Pair) -> str:
    """On which of several tasks which side is better."""
    values = {"first": pair.first.name, "second": pair.second.name, "num": len(pair.tasks)}
    values |= {"num_better": len(pair.better), "better": _list(pair.better)}
    values |= {"num_worse": len(pair.worse), "worse": _list(pair.worse)}
    if not pair.better and not pair.worse:
        return say("No difference between {second} and {first} can be told on any of {num} tasks", **values)
    if not pair.worse:
        return say("{second} is better than {first} on {num_better} of {num} tasks ({better}), worse on none", **values)
    if not pair.better:
        return say("{second} is worse than {first} on {num_worse} of {num} tasks ({worse}), better on none", **values)
    return say(
        "{second} is better than {first} on {num_better} of {num} tasks ({better}), worse on {num_worse} ({worse})",
        **values,
    )


def _metric(one: TaskDifference) -> str:
    return one.task.metric.upper() if one.task.metric == "em" else one.task.metric


def _list(found: Iterable[TaskDifference]) -> str:
    return say(", ").join(f"{o.task.name} {signed(100 * o.main.value)} {interval(*o.main.interval)}" for o in found)


def notes(pairs: Sequence[Pair]) -> list[str]:
    """What a reader has to know."""
    compared = [one for pair in pairs for one in pair.tasks.values()]
    lines = [
        say(
            "The intervals hold {level}: bootstrap over the development records, the same ones for both sides, "
            "{draws:,} draws; they are of one task each. p is {tests}. Adjusted p is for the tasks of one pair (Holm), "
            "not for the number of pairs; below 0.05 a difference counts as real. The interval of AVG draws each task "
            "independently.",
            level=_level(),
            draws=NUM_DRAWS,
            tests=_tests(compared),
        )
    ]
    several: dict[tuple[int, int], dict[str, None]] = {}  # numbers of seeds -> tasks
    for one in compared:
        if max(one.num_runs) > 1:
            several.setdefault(one.num_runs, {})[one.task.name] = None
    if several:
        shown = say("; ").join(
            say("{names} {first} and {second}", names=", ".join(names), first=a, second=b)
            for (a, b), names in several.items()
        )
        lines.append(
            say("Several seeds ({shown}): the score is their mean, and interval and p take them in.", shown=shown)
        )
    alone = dict.fromkeys(one.task.name for one in compared if min(one.num_runs) == 1)
    if alone:
        lines.append(
            say(
                "A side has one seed ({tasks}): its interval and p are about that run, and another seed of the "
                "same model may say otherwise; more seeds (grid_search.sh --seeds) tell.",
                tasks=", ".join(alone),
            )
        )
    for pair in pairs:
        names = {"first": pair.first.name, "second": pair.second.name}
        if pair.not_compared:
            lines.append(
                say(
                    "{first} and {second}: not compared, as one of them has no finished run: {tasks}.",
                    **names,
                    tasks=", ".join(pair.not_compared),
                )
            )
        if counts := counts_of_settings(pair):
            shown = say(", ").join(
                say("{names} {first} and {second}", names=name, first=a, second=b) for name, (a, b) in counts.items()
            )
            lines.append(
                say(
                    "{first} and {second} were chosen among unlike numbers of settings by these same records "
                    "({shown}), which favours the larger number.",
                    **names,
                    shown=shown,
                )
            )
    return lines


def _tests(compared: Sequence[TaskDifference]) -> str:
    of = {
        "McNemar": say("McNemar's, exact, on the records that one side alone has right"),
        "sign flips": say("that of random sign flips (CHID by the record, F1)"),
        "t": say("Welch's t over records and seeds"),
    }
    used = {one.test for both in compared for one in (both.main, both.f1) if one}
    return say("; ").join(text for test, text in of.items() if test in used)
