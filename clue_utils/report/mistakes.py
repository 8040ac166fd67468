"""What models got wrong, of the answers that their runs keep: counts, confusions, mistakes, and the hardest records."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clue_utils import dev_predictions
from clue_utils.errors import UserError
from clue_utils.language import say
from clue_utils.record import Record
from clue_utils.report.tables import Row, Table, percent
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import KNOWN, Task

# A matrix of more classes than this can be read by nobody: the pairs that are confused most are shown in its place.
MOST_IN_MATRIX = 20
# Characters of a context on each side of what is quoted from it.
_AROUND = 30


@dataclass(frozen=True)
class Answers:
    """The answers of one run, checked.

    Attributes:
        name: the folder, as it is shown.
        lines: of ``dev_predictions.jsonl``.
    """

    name: str
    task: Task
    record: Record
    lines: Sequence[JsonObject]

    @property
    def num_wrong(self) -> int:
        return sum(not line["is_right"] for line in self.lines)


@dataclass(frozen=True)
class Mistake:
    """One wrong answer, or one record that is hard.

    Attributes:
        gold, answer: as they are shown.
        share: probability of the answer, a fraction; of a hard record, the mean of that of the gold answer.
        remark: what else there is to say, in one line.
        texts: (field, text as the model is given it), in order.
    """

    id: str
    gold: str
    answer: str
    share: float
    remark: str
    texts: tuple[tuple[str, str], ...]


def read_all(folders: Sequence[str | os.PathLike[str]]) -> list[Answers]:
    """The answers of runs on one task and the same records.

    Raises:
        UserError: a folder, its record or its answers are missing, damaged or stale; or they do not go together.
    """
    found = [_read(folder) for folder in folders]
    first = found[0]
    for other in found[1:]:
        if other.task is not first.task:
            raise UserError(
                say(
                    "{name} is of {first_task_name}, {other_name} of {other_task_name}: name folders of one task",
                    name=first.name,
                    first_task_name=first.task.name,
                    other_name=other.name,
                    other_task_name=other.task.name,
                )
            )
        if [(line["id"], line["gold"]) for line in other.lines] != [(line["id"], line["gold"]) for line in first.lines]:
            raise UserError(
                say(
                    "{name} was evaluated on other records than {first_name}: evaluate both with the same --data_dir",
                    name=other.name,
                    first_name=first.name,
                )
            )
    return found


def _read(folder: str | os.PathLike[str]) -> Answers:
    if not os.path.isdir(folder):
        raise UserError(say("{folder}: no such folder", folder=folder))
    lines, record = dev_predictions.read(folder), Record.read(folder)
    if lines is None or record is None:
        raise UserError(
            say(
                "{folder}: no {file_name}: name the output folder of a run, and evaluate it with --do_eval",
                folder=folder,
                file_name=dev_predictions.FILE_NAME,
            )
        )
    return Answers(str(folder), KNOWN[record.task or ""], record, lines)


def summary_table(runs: Sequence[Answers]) -> Table:
    """How many records each run got wrong."""
    rows = []
    for run in runs:
        units = dev_predictions.units([*run.lines], run.task)
        scores = [v[:, 0].sum() / v[:, 1].sum() if v.ndim == 2 else v.mean() for v in units.values()]
        cells = (*(percent(float(score)) for score in scores), f"{run.num_wrong:,}", f"{len(run.lines):,}")
        rows.append(Row(run.name, (*cells, f"{sum(line['is_cut'] for line in run.lines):,}")))
    metrics = ("EM", "F1") if runs[0].task.kind == "span" else (say("accuracy"),)
    header = (say("folder"), *metrics, say("wrong"), say("records"), say("cut"))
    return Table(f"{runs[0].task.name}", header, tuple(rows))


def confusions(run: Answers) -> Counter[tuple[str, str]]:
    """(gold, answer) -> how often, of classes or, for CHID, of idioms; right ones too."""
    if run.task.kind == "classification":
        return Counter((line["gold"], line["answer"]) for line in run.lines)
    return Counter((blank["gold"], blank["answer"]) for line in run.lines for blank in line.get("blanks", []))


def pair_table(run: Answers, most: int) -> Table:
    """What is taken for what, the most frequent first."""
    counts = confusions(run)
    golds: Counter[str] = Counter()
    for (gold, _), count in counts.items():
        golds[gold] += count
    wrong = sorted(((count, pair) for pair, count in counts.items() if pair[0] != pair[1]), key=lambda x: (-x[0], x[1]))
    rows = [Row(gold, (answer, f"{n:,}", percent(n / golds[gold]))) for n, (gold, answer) in wrong[:most]]
    header = (say("gold"), say("answer"), say("times"), say("% of gold"))
    return Table(say("Most confused"), header, tuple(rows), 1)


def class_table(run: Answers, most: int | None = None) -> Table:
    """Precision, recall and F1 of the classes that occur, the lowest F1 first; ``most`` of them at the most."""
    there = [(figures["f1"], name) for name, figures in run.record.classes.items() if figures["num_gold"]]
    rows = []
    for f1, name in sorted(there)[:most]:
        figures = run.record.classes[name]
        cells = (percent(figures["precision"]), percent(figures["recall"]), percent(f1), f"{figures['num_gold']:,}")
        rows.append(Row(name, cells))
    title = say("Classes, the lowest F1 first")
    if len(rows) < len(there):
        title = say("{title}: {count} of {all}", title=title, count=len(rows), all=len(there))
    header = (say("class"), "precision", "recall", "F1", say("records"))
    return Table(title, header, tuple(rows))


def matrix(run: Answers) -> list[tuple[str, list[int]]] | None:
    """Gold class -> how often it got each answer, in the order of classes; None where that is too large to read."""
    names = run.task.names
    if run.task.kind != "classification" or len(names) > MOST_IN_MATRIX:
        return None
    counts = confusions(run)
    return [(gold, [counts[gold, answer] for answer in names]) for gold in names]


def matrix_table(run: Answers) -> Table | None:
    """The confusion matrix, its columns by number."""
    rows = matrix(run)
    if rows is None:
        return None
    numbers = [str(number) for number in range(1, len(rows) + 1)]
    lines = [Row(f"{n} {gold}", tuple(f"{x or '·'}" for x in counts)) for n, (gold, counts) in zip(numbers, rows)]  # noqa: B905
    return Table(say("Confusion matrix (gold down, answers across)"), (say("gold"), *numbers), tuple(lines))


def worst_mistakes(run: Answers, most: int) -> list[Mistake]:
    """The wrong answers that the model was surest of, the surest first."""
    wrong = [mistake for line in run.lines if not line["is_right"] for mistake in _mistakes(run.task, line)]
    return sorted(wrong, key=lambda mistake: -mistake.share)[:most]


def _mistakes(task: Task, line: JsonObject) -> Iterator[Mistake]:
    cut = say("cut to fit the length") if line["is_cut"] else ""

    def mistake(gold: str, answer: str, share: float, remarks: Sequence[str], texts: Mapping[str, str]) -> Mistake:
        remark = say("; ").join(filter(None, (*remarks, cut)))
        return Mistake(str(line["id"]), gold, answer, share, remark, tuple(texts.items()))

    inputs = line["inputs"]
    if task.kind == "classification":
        shares = line["probabilities"]
        told = [say("gold had {share} %", share=percent(shares.get(line["gold"])))]
        yield mistake(line["gold"], line["answer"], shares.get(line["answer"], 0.0), told, inputs)
    elif task.kind == "multiple_choice":
        shares = line["probabilities"]
        listed = "  ".join(f"{choice} {percent(p)} %" for choice, p in zip(inputs["choice"], shares, strict=False))
        texts = {say("question"): inputs["question"], say("choices"): listed, say("context"): inputs["context"]}
        yield mistake(line["gold"], line["answer"], shares[line["answer_index"]], (), texts)
    elif task.kind == "cloze":
        for blank in line["blanks"]:
            if not blank["is_right"]:
                candidates = inputs["candidates"]
                share, gold_share = (_of_candidate(blank, candidates, blank[name]) for name in ("answer", "gold"))
                told = [say("blank {tag}", tag=blank["tag"]), say("gold had {share} %", share=percent(gold_share))]
                texts = {say("passage"): next((p for p in inputs["content"] if blank["tag"] in p), "")}
                texts[say("candidates")] = " ".join(candidates)
                yield mistake(blank["gold"], blank["answer"], share, told, texts)
    else:
        best, context = line["n_best"][0], inputs["context"]
        texts = {say("question"): inputs["question"], say("answered from"): _quote(context, best["begin"], best["end"])}
        begin = context.find(line["gold"][0])
        if begin >= 0:
            texts[say("gold from")] = _quote(context, begin, begin + len(line["gold"][0]))
        gold = " / ".join(dict.fromkeys(line["gold"]))
        yield mistake(gold, line["answer"], best["probability"], (f"F1 {percent(line['f1'])}",), texts)


def _of_candidate(blank: JsonObject, candidates: Sequence[str], idiom: str) -> float:
    return max((p for name, p in zip(candidates, blank["probabilities"], strict=False) if name == idiom), default=0.0)


def _quote(context: str, begin: int | None, end: int | None) -> str:
    """A part of a context in 【】 with what is around it, and where it is."""
    if begin is None or end is None:
        return say("nowhere: no span was allowed")
    left, right = context[max(0, begin - _AROUND) : begin], context[end : end + _AROUND]
    place = say("(character {number} of {all})", number=begin + 1, all=len(context))
    return f"{left}【{context[begin:end]}】{right} {place}"


def gold_share(task: Task, line: JsonObject) -> float:
    """The probability that a model gave to the gold answer: CHID's is the mean over the blanks of a record."""
    if task.kind == "classification":
        return float(line["probabilities"].get(line["gold"], 0.0))
    if task.kind == "multiple_choice":
        return float(line["probabilities"][line["gold_index"]])
    if task.kind == "cloze":
        candidates, blanks = line["inputs"]["candidates"], line["blanks"]
        return sum(_of_candidate(blank, candidates, blank["gold"]) for blank in blanks) / len(blanks)
    return float(sum(span["probability"] for span in line["n_best"] if span["text"] in line["gold"]))


def hardest(runs: Sequence[Answers], most: int) -> list[Mistake]:
    """Records by how many runs got them wrong, then by the mean probability of the gold answer."""
    ranked = []
    for number, lines in enumerate(zip(*(run.lines for run in runs), strict=True)):
        wrong = [line for line in lines if not line["is_right"]]
        if wrong:
            share = sum(gold_share(runs[0].task, line) for line in lines) / len(lines)
            ranked.append((-len(wrong), share, number))
    found = []
    for minus, share, number in sorted(ranked)[:most]:
        of_each = [run.lines[number] for run in runs]
        answers = Counter(_shown(line["answer"]) for line in of_each if not line["is_right"])
        told = ", ".join(f"{answer} ({n})" if n > 1 else answer for answer, n in answers.most_common())
        remark = say("{number} of {all} wrong", number=-minus, all=len(runs))
        gold = _shown(dict.fromkeys(of_each[0]["gold"]) if isinstance(of_each[0]["gold"], list) else of_each[0]["gold"])
        texts = tuple((name, _shown(text)) for name, text in of_each[0]["inputs"].items())
        found.append(Mistake(str(of_each[0]["id"]), gold, told, share, remark, texts))
    return found


def _shown(value: object) -> str:
    return " / ".join(map(str, value)) if isinstance(value, list | dict) else str(value)


def name_of(run: Answers) -> str:
    """The last part of a run's folder."""
    return Path(run.name).resolve().name
