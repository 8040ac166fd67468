"""Records of the ten CLUE tasks in the official formats, quirks included, made from word lists.

Each task carries a signal that a two-layer model learns from scratch in some hundred steps.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clue_utils.tasks import NO_LABEL, TASKS, Task
from demo.words import (
    ABSOLUTE,
    ACTIONS,
    APP_FIELDS,
    APP_KINDS,
    BODIES,
    CITIES,
    CLOZES,
    DOING,
    FILLERS,
    GIVEN,
    HEADLINES,
    HOBBIES,
    HOW,
    HOW_TOO,
    HYPOTHESES,
    IDIOMS,
    MEN,
    MILD,
    NAME_CHARS,
    NEWS,
    NOT_KEYWORDS,
    ODDITIES,
    OTHER_IDIOMS,
    OTHERWISE,
    PEOPLE,
    REASONS_OF_PERSON,
    REASONS_OF_THING,
    STUDIES,
    SURNAMES,
    THINGS,
    WHEN,
    WHERE,
    WOMEN,
)

Record = dict[str, Any]


class Sizes(NamedTuple):
    """Records of each split; questions for C3 and CMRC2018, rows of one to three blanks for CHID."""

    train: int
    dev: int
    test: int

    def of(self, split: str) -> int:
        return self.test if split.startswith("test") else int(getattr(self, split))


DEFAULT_SIZES: Mapping[str, Sizes] = {
    "AFQMC": Sizes(640, 120, 60),
    "TNEWS": Sizes(800, 150, 60),
    "IFLYTEK": Sizes(1040, 200, 100),
    "CMNLI": Sizes(640, 120, 60),
    "OCNLI": Sizes(640, 120, 60),
    "CLUEWSC2020": Sizes(640, 120, 60),
    "CSL": Sizes(640, 120, 60),
    "CMRC2018": Sizes(600, 120, 60),
    "CHID": Sizes(480, 80, 40),
    "C3": Sizes(640, 120, 60),
}


def sizes_for(records: int | None) -> dict[str, Sizes]:
    """Sizes of all tasks: the default ones, or ``records`` for training, a quarter for dev, an eighth for each test."""
    if records is None:
        return dict(DEFAULT_SIZES)
    return {name: Sizes(records, max(1, records // 4), max(1, records // 8)) for name in TASKS}


def _name(rng: random.Random) -> str:
    return "".join(rng.sample(NAME_CHARS, 2))


def _oddity(index: int) -> str:
    """An odd ending for some texts: every file of more than a handful of records has one of each."""
    place = index % 23 - 3
    return ODDITIES[place] if 0 <= place < len(ODDITIES) else ""


def _long(index: int, every: int, sentences: int, rng: random.Random) -> str:
    """Text that makes each ``every``-th context longer than a model's window."""
    return "".join(rng.choices(FILLERS, k=sentences)) if index % every == every - 1 else ""


# Classification ------------------------------------------------------------------------------------------------------


def _afqmc(rng: random.Random, index: int) -> Record:
    label = rng.choice("01")
    action = rng.choice(ACTIONS)
    second = rng.choice(HOW_TOO if label == "1" else OTHERWISE).format(action)
    first = rng.choice(HOW).format(action)
    return {"sentence1": first + _oddity(index), "sentence2": second, "label": label}


def _tnews(rng: random.Random, index: int) -> Record:
    label = rng.choice(TASKS["TNEWS"].labels)
    description, words = NEWS[label]
    a, b = rng.sample(words.split(), 2)
    sentence = rng.choice(HEADLINES).format(a=a, b=b, when=rng.choice(WHEN), name=_name(rng))
    keywords = f"{a},{b}" if index % 3 else ""
    return {"label": label, "label_desc": description, "sentence": sentence + _oddity(index), "keywords": keywords}


def _app(label: str) -> tuple[str, str]:
    field, kind = divmod(int(label), len(APP_KINDS))
    return list(APP_FIELDS)[field], list(APP_KINDS)[kind]


def _iflytek(rng: random.Random, index: int) -> Record:
    labels = TASKS["IFLYTEK"].labels
    common = labels[:: len(APP_KINDS) + 1]
    # As in the real data a few labels are frequent and every one occurs.
    rare = [label for label in labels if label not in common]
    label = rare[index // 10 % len(rare)] if index % 10 == 9 else rng.choice(common)
    field, kind = _app(label)
    sentence = (
        f"{_name(rng)}{field}{kind}，{rng.choice(APP_FIELDS[field].split())}和{rng.choice(APP_KINDS[kind].split())}都很方便。"
        f"{rng.choice(APP_FIELDS[field].split())}每天更新，{rng.choice(APP_KINDS[kind].split())}一学就会。"
        f"{rng.choice(FILLERS)}{_oddity(index)}{_long(index, 20, 8, rng)}"
    )
    return {"label": label, "label_des": field + kind, "sentence": sentence}


def _cmnli(rng: random.Random, index: int) -> Record:
    label = rng.choice(TASKS["CMNLI"].labels)
    words = {"who": rng.choice(PEOPLE), "where": rng.choice(WHERE), "doing": rng.choice(DOING)}
    premise = "{when}{who}在{where}{doing}。".format(when=rng.choice(WHEN), **words) + _oddity(index)
    return {"sentence1": premise, "sentence2": rng.choice(HYPOTHESES[label]).format(**words), "label": label}


def _ocnli(rng: random.Random, index: int) -> Record:
    record = _cmnli(rng, index)
    genre = rng.choice(("gov", "lit", "news", "phone", "tv"))
    votes = {f"label{i}": record["label"] if index % 2 else None for i in range(5)}
    levels = ("easy", "medium", "hard")
    return {
        "level": rng.choice(levels),
        **record,
        **votes,
        "genre": genre,
        "prem_id": f"{genre}_{index // len(levels)}",
        "id": index,
    }


def _cluewsc2020(rng: random.Random, index: int) -> Record:
    label = rng.choice(TASKS["CLUEWSC2020"].labels)
    person, thing = rng.choice(MEN + WOMEN), rng.choice(THINGS)
    if label == "true":
        pronoun, reason = "他" if person in MEN else "她", rng.choice(REASONS_OF_PERSON)
    else:
        pronoun, reason = "它", rng.choice(REASONS_OF_THING)
    # A tab marks where the pronoun goes in; now and then it stands before the noun.
    story = f"{person}把{thing}放在{rng.choice(WHERE)}"
    because = f"因为\t{reason}"
    marked = f"{rng.choice(WHEN)}，" + (f"{because}，{story}。" if index % 4 == 3 else f"{story}，{because}。")
    span2_index = marked.index("\t")
    text = marked.replace("\t", pronoun)
    target = {
        "span2_index": span2_index,
        "span1_index": text.index(person),
        "span1_text": person,
        "span2_text": pronoun,
    }
    return {"target": target, "idx": index, "label": label, "text": text + _oddity(index)}


def _csl(rng: random.Random, index: int) -> Record:
    label = rng.choice("01")
    a, b, c, d = rng.sample(rng.choice(STUDIES).split(), 4)
    abstract = (
        f"针对{a}中的{b},提出了一种考虑{c}的新方法,并与{d}作了比较.结果表明,{b}提高了{rng.randint(2, 40)}%,"
        f"{rng.choice(('误差较小', '效果明显', '成本较低'))}.{_oddity(index)}{_long(index, 20, 10, rng)}"
    )
    keywords = [a, b, c, d][: rng.randint(3, 4)]
    if label == "0":
        keywords[-2:] = rng.sample(NOT_KEYWORDS, 2)
    rng.shuffle(keywords)
    return {"id": index, "abst": abstract, "keyword": keywords, "label": label}


_CLASSIFICATION: Mapping[str, Callable[[random.Random, int], Record]] = {
    "AFQMC": _afqmc,
    "TNEWS": _tnews,
    "IFLYTEK": _iflytek,
    "CMNLI": _cmnli,
    "OCNLI": _ocnli,
    "CLUEWSC2020": _cluewsc2020,
    "CSL": _csl,
}
# Where annotators of the real files did not agree.
WITHOUT_LABEL = {("CMNLI", "dev"), ("OCNLI", "train"), ("OCNLI", "dev")}


def _classification_files(task: Task, split: str, size: int, rng: random.Random) -> list[str]:
    records = [_CLASSIFICATION[task.name](rng, index) for index in range(size)]
    if split.startswith("test"):
        keep = {*task.fields, "keywords"}
        records = [
            {"id": i} | {name: value for name, value in record.items() if name in keep}
            for i, record in enumerate(records)
        ]
        for record in records:
            if "keywords" in record:
                record["keywords"] = ""  # as in the real test files
    elif (task.name, split) in WITHOUT_LABEL:
        for record in records[7::25]:
            record["label"] = NO_LABEL
    return [_lines(records)]


def _labels_file(task: Task) -> str:
    if task.name == "TNEWS":
        return _lines([{"label": label, "label_desc": NEWS[label][0]} for label in task.labels])
    return _lines([{"label": label, "label_des": "".join(_app(label))} for label in task.labels])


# Reading comprehension -----------------------------------------------------------------------------------------------


def _c3_document(kind: str, index: int, num_questions: int, rng: random.Random) -> list[Any]:
    hobbies = rng.sample(HOBBIES, num_questions)
    habits = [rng.choice(MILD) + hobby for hobby in hobbies]
    if kind == "d":
        who, subject = "男的", "他"
        context = []
        for hobby, habit in zip(hobbies, habits, strict=True):
            context += [f"女：你常常{hobby}吗？", f"男：我{habit}。"]
        context[-1] += _oddity(index) + _long(index, 30, 30, rng)
    else:
        who = subject = rng.choice(PEOPLE)
        habit_text = "，也".join(habits)
        context = [f"{who}家在{rng.choice(WHERE)}附近，{habit_text}。{rng.choice(FILLERS)}{_oddity(index)}"]
        context[0] += _long(index, 30, 30, rng)
    questions = []
    for number, (hobby, habit) in enumerate(zip(hobbies, habits, strict=True)):
        num_choices = {3: 2, 7: 3}.get((index + number) % 11, 4)
        wrong = [subject + word + hobby for word in rng.sample(ABSOLUTE, num_choices - 1)]
        answer = subject + habit
        choice = rng.sample([answer, *wrong], num_choices)
        questions.append({"question": f"关于{who}，下面哪句话是对的？", "choice": choice, "answer": answer})
    return [context, questions, f"{kind}-{index}"]


def _c3_files(task: Task, split: str, size: int, rng: random.Random) -> list[str]:
    files = task.splits[split].files[0]
    texts = []
    begin = 0
    for number, file in enumerate(files):
        end = size * (number + 1) // len(files)
        documents: list[list[Any]] = []
        while begin < end:
            index = len(documents)
            # Test sets mix dialogues and texts in one file.
            kind = "dm"[index % 2] if len(files) == 1 else file[0]
            document = _c3_document(kind, index, min(1 + index % 2, end - begin), rng)
            if split.startswith("test"):
                for position, question in enumerate(document[1]):
                    del question["answer"]
                    question["id"] = begin + position
            begin += len(document[1])
            documents.append(document)
        texts.append(_document(documents))
    return texts


def _cmrc2018_files(task: Task, split: str, size: int, rng: random.Random) -> list[str]:
    prefix = split.upper()
    articles: list[Record] = []
    num_questions = 0
    while num_questions < size:
        index = len(articles)
        title = _name(rng) + rng.choice(BODIES)
        year = f"{rng.randint(1901, 1999)}年"
        city = rng.choice(CITIES)
        founder = rng.choice(SURNAMES) + "".join(rng.sample(GIVEN, 2))
        facts = [f"它成立于{year}，", f"创办人是{founder}，", f"地点在{city}，"]
        rng.shuffle(facts)
        context = (
            f"{title}{_oddity(index)}。{_long(index, 14, 12, rng)}{''.join(facts)}现在很有名。"
            f"{rng.choice(FILLERS)}{_long(index, 14, 16, rng)}"
        )
        asked = [
            (f"{title}成立于哪一年？", year, year[:-1]),
            (f"{title}的创办人是谁？", founder, founder),
            (f"{title}的地点在哪座城市？", city, city[:-1]),
        ]
        qas = []
        for number, (question, answer, shorter) in enumerate(asked[: size - num_questions]):
            if split == "train":
                texts = [answer]
            elif split == "dev":
                texts = [answer, answer, shorter]
            else:
                texts = [f"FAKE_ANSWER_{i}" for i in (1, 2, 3)]
            answers = [{"text": text, "answer_start": context.find(text)} for text in texts]
            qas.append({"question": question, "id": f"{prefix}_{index}_QUERY_{number}", "answers": answers})
        num_questions += len(qas)
        article_id = f"{prefix}_{index}"
        paragraphs = [{"id": article_id, "context": context, "qas": qas}]
        articles.append({"paragraphs": paragraphs, "id": article_id, "title": title})
    return [_document({"version": "v1.0", "data": articles})]


def _chid_rows(first_tag: int, size: int, rng: random.Random) -> Iterator[tuple[Record, dict[str, int]]]:
    tag_number = first_tag
    for index in range(size):
        blanks_of_passages = ((1,), (1, 1), (1,), (2,), (1,), (1, 2))[index % 6]
        # Of the groups asked for only the right idioms, so that the words around a blank tell its idiom; the rest is
        # filled from the other groups, and then with idioms that are never right.
        groups = rng.sample(list(IDIOMS.items()), sum(blanks_of_passages))
        fitting = [rng.choice(idioms.split()) for _, idioms in groups]
        unfit = [idiom for group in IDIOMS.items() if group not in groups for idiom in group[1].split()]
        candidates = fitting + rng.sample(unfit, min(len(unfit), 10 - len(fitting)))
        candidates += rng.sample(OTHER_IDIOMS, 10 - len(candidates))
        rng.shuffle(candidates)
        blanks = iter(groups)
        answers: dict[str, int] = {}
        content = []
        for num_in_passage in blanks_of_passages:
            sentences = []
            for _ in range(num_in_passage):
                cues, _ = next(blanks)
                tag = f"#idiom{tag_number:06d}#"
                tag_number += 1
                answers[tag] = candidates.index(fitting[len(answers)])
                words = {"when": rng.choice(WHEN), "who": rng.choice(PEOPLE)}
                cue = rng.choice(cues.split())
                sentences.append(rng.choice(CLOZES).format(cue=cue, blank=tag, **words))
            content.append(rng.choice(FILLERS).join(sentences) + _long(index, 9, 4, rng))
        content[-1] += _oddity(index)
        yield {"content": content, "candidates": candidates}, answers


def _chid_files(task: Task, split: str, size: int, rng: random.Random) -> list[str]:
    # Tags are unique over all splits, as in the real files.
    first_tag = 100000 * list(task.splits).index(split)
    records: list[Record] = []
    answers: dict[str, int] = {}
    for record, of_record in _chid_rows(first_tag, size, rng):
        records.append(record)
        answers |= of_record
    return [_lines(records), _document(answers)]


# Files ---------------------------------------------------------------------------------------------------------------


def _lines(records: list[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _document(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


_MAKERS: Mapping[str, Callable[[Task, str, int, random.Random], list[str]]] = {
    "classification": _classification_files,
    "multiple_choice": _c3_files,
    "span": _cmrc2018_files,
    "cloze": _chid_files,
}


def make_data(folder: Path, seed: int = 0, sizes: Mapping[str, Sizes] | None = None) -> None:
    """Write all files of the ten tasks to ``folder/<task's folder>/`` in the official formats; needs no Paddle.

    Args:
        seed: same seed, same bytes; every split of every task has a stream of its own.
        sizes: task name -> how many records, default ``DEFAULT_SIZES``.
    """
    for task in TASKS.values():
        target = folder / task.folder
        target.mkdir(parents=True, exist_ok=True)
        for split, facts in task.splits.items():
            size = (sizes or DEFAULT_SIZES)[task.name].of(split)
            texts = _MAKERS[task.kind](task, split, size, random.Random(f"{seed} {task.name} {split}"))
            names = facts.files[0] + ((facts.answers,) if facts.answers else ())
            for name, text in zip(names, texts, strict=False):  # the answers of a test set are not written
                (target / name).write_text(text, encoding="utf-8", newline="\n")
        if task.name in ("TNEWS", "IFLYTEK"):
            (target / "labels.json").write_text(_labels_file(task), encoding="utf-8", newline="\n")
