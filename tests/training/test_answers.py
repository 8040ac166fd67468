"""What the four methods say of each record: its answer to a test set, and beside the gold answer in an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from test_methods import IDIOMS, Columns, Rows, span_example

from clue_utils.tasks import TASKS
from clue_utils.training.classification import Classification
from clue_utils.training.cloze import Chid
from clue_utils.training.multiple_choice import C3
from clue_utils.training.span import Cmrc2018


class Features(Rows):
    """Features of examples, as a file has them."""

    path = Path("features.arrow")

    def longest(self) -> np.ndarray:
        rows = [row["input_ids"] for row in list.__iter__(self)]
        return np.array([max(map(len, row)) if isinstance(row[0], list) else len(row) for row in rows])


def features_of(method: Any, examples: list[dict[str, Any]]) -> Features:
    return Features(feature for example in examples for feature in method.encode(example))


def shares(scores: Any) -> list[float]:
    return [round(share, 6) for share in softmax(np.array(scores, np.float64)).tolist()]


def test_of_classes(tokenizer):
    method = Classification(TASKS["AFQMC"], tokenizer, 12)
    names = TASKS["AFQMC"].names
    assert names != TASKS["AFQMC"].labels
    texts = [{"sentence1": "甲" * 20, "sentence2": "乙"}, {"sentence1": "丙", "sentence2": "丁" * 8}]
    scores = np.array([[0, 2], [3, -1]], np.float32)
    of_row = [dict(zip(names, shares(row), strict=True)) for row in scores]
    found = [*method.predictions(scores, texts, features_of(method, texts))]
    assert found == [
        {"label": "1", "name": names[1], "probability": of_row[0][names[1]], "probabilities": of_row[0]},
        {"label": "0", "name": names[0], "probability": of_row[1][names[0]], "probabilities": of_row[1]},
    ]
    examples = [{"id": 7, "label": 1} | texts[0], {"id": 5, "label": 1} | texts[1]]
    features = features_of(method, examples)
    assert [*method.explain(scores, examples, features)] == [
        {
            "id": 7,
            "inputs": texts[0],
            "is_cut": True,
            "gold": names[1],
            "answer": names[1],
            "probabilities": of_row[0],
            "is_right": True,
        },
        {
            "id": 5,
            "inputs": texts[1],
            "is_cut": False,
            "gold": names[1],
            "answer": names[0],
            "probabilities": of_row[1],
            "is_right": False,
        },
    ]
    figures = method.figures(scores, examples, features)
    assert figures["confusion"] == {names[1]: {names[0]: 1, names[1]: 1}}
    assert figures["classes"][names[1]]["recall"] == 0.5


def test_of_choices(tokenizer):
    method = C3(tokenizer, 16)
    read = [
        {"context": ["A甲", "乙"], "question": "B？", "choice": ["C", "D", "丁"]},
        {"context": ["丙" * 20], "question": "谁？", "choice": ["子", "丑"]},
    ]
    scores = np.array([[0, 1, 2, 9], [1.5, 1, 9, 9]], np.float32)  # of choices that there are not the highest
    first, second = shares(scores[0, :3]), shares(scores[1, :2])
    features = Columns(num_choices=[3, 2])
    assert [*method.predictions(scores, read, features)] == [
        {"answer": "丁", "index": 2, "probability": first[2], "probabilities": first},
        {"answer": "子", "index": 0, "probability": second[0], "probabilities": second},
    ]
    examples = [{"id": 3, "label": 2} | read[0], {"id": 1, "label": 1} | read[1]]
    assert [*method.explain(scores, examples, features_of(method, examples))] == [
        {
            "id": 3,
            "inputs": {"context": "a甲\n乙", "question": "b？", "choice": ["c", "d", "丁"]},
            "is_cut": False,
            "gold": "丁",
            "answer": "丁",
            "gold_index": 2,
            "answer_index": 2,
            "probabilities": first,
            "is_right": True,
        },
        {
            "id": 1,
            "inputs": {"context": "丙" * 20, "question": "谁？", "choice": ["子", "丑"]},
            "is_cut": True,
            "gold": "丑",
            "answer": "子",
            "gold_index": 1,
            "answer_index": 0,
            "probabilities": second,
            "is_right": False,
        },
    ]


def test_of_blanks(tokenizer):
    method = Chid(tokenizer, 32, "joint")
    read = [
        {"content": ["“#idiom000001#”", "和#idiom000002#"], "candidates": IDIOMS},
        {"content": ["天" * 40 + "#idiom000003#"], "candidates": IDIOMS[::-1]},
    ]
    scores = np.zeros((3, 10), np.float32)
    scores[0, [0, 1]], scores[1, [0, 1]], scores[2, 9] = (5.0, 4.9), (4.8, 0.0), 1.0
    of_row = [shares(row) for row in scores]
    features = features_of(method, read)
    tags = [f"#idiom00000{number}#" for number in (1, 2, 3)]
    filled = [
        {"tag": tag, "answer": answer, "index": i, "probability": row[i], "probabilities": row}
        for tag, answer, i, row in zip(tags, (IDIOMS[1], IDIOMS[0], IDIOMS[0]), (1, 0, 9), of_row, strict=True)
    ]
    assert [*method.predictions(scores, read, features)] == [{"blanks": filled[:2]}, {"blanks": filled[2:]}]
    examples = [
        read[0] | {"answers": {tags[0]: 1, tags[1]: 2}},
        read[1] | {"answers": {tags[2]: 9}},
    ]
    golds, answers, right = (IDIOMS[1], IDIOMS[2], IDIOMS[0]), (IDIOMS[1], IDIOMS[0], IDIOMS[0]), (True, False, True)
    told = [
        {"tag": tag, "gold": gold, "answer": answer, "probabilities": row, "is_right": is_right}
        for tag, gold, answer, row, is_right in zip(tags, golds, answers, of_row, right, strict=True)
    ]
    assert [*method.explain(scores, examples, features)] == [
        {
            "id": 0,
            "inputs": {"content": ['"#idiom000001#"', "和#idiom000002#"], "candidates": IDIOMS},
            "is_cut": False,
            "gold": [IDIOMS[1], IDIOMS[2]],
            "answer": [IDIOMS[1], IDIOMS[0]],
            "blanks": told[:2],
            "is_right": False,
        },
        {
            "id": 1,
            "inputs": {"content": read[1]["content"], "candidates": IDIOMS[::-1]},
            "is_cut": True,
            "gold": [IDIOMS[0]],
            "answer": [IDIOMS[0]],
            "blanks": told[2:],
            "is_right": True,
        },
    ]


def test_of_spans(tokenizer):
    """Two windows of the first context; of equal texts the better span counts, of equal sums that of the window."""
    method = Cmrc2018(tokenizer, 12, 4, 3, 3, 2)
    examples = [
        span_example("A", "甲乙丙丁戊甲庚辛", "甲乙") | {"question": "谁是？"},
        span_example("B", "子丑", "丑", "子") | {"question": "谁是他？"},
    ]
    features = features_of(method, examples)
    assert [row["window"] for row in features] == [0, 1, 0]
    context = features[0]["context"]
    scores = np.full((3, method.width), -50, np.float32)

    def let(row: int, token: int, start: float, end: float) -> None:
        scores[row, [2 * (context + token), 2 * (context + token) + 1]] = start, end

    let(0, 0, 3, 1)  # 甲: 4
    let(0, 1, 0, 2)  # 甲乙: 5; 乙: 2
    let(1, 1, 4, 2.5)  # the second 甲: 6.5; this window begins with the fifth token
    let(1, 2, -1, 1)  # 甲庚: 5
    let(2, 0, 1, 0)  # 子: 1; 子丑: -49; 丑: -100
    lines = [*method.explain(scores, examples, features)]
    totals = {"甲": 6.5, "甲乙": 5.0, "甲庚": 5.0}
    places = {"甲": (5, 6), "甲乙": (0, 2), "甲庚": (5, 7)}
    n_best = [
        {"text": text, "probability": share, "begin": places[text][0], "end": places[text][1]}
        for text, share in zip(totals, shares([*totals.values()]), strict=True)
    ]
    assert lines[0] == {
        "id": "A",
        "inputs": {"context": examples[0]["context"], "question": "谁是？"},
        "is_cut": False,
        "gold": ["甲乙"],
        "answer": "甲",
        "em": 0,
        "f1": 2 / 3,
        "n_best": n_best,
        "is_right": False,
    }
    assert lines[1] == {
        "id": "B",
        "inputs": {"context": "子丑", "question": "谁是他？"},
        "is_cut": True,
        "gold": ["丑", "子"],
        "answer": "子",
        "em": 1,
        "f1": 1.0,
        "n_best": [
            {"text": "子", "probability": 1.0, "begin": 0, "end": 1},
            {"text": "子丑", "probability": 0.0, "begin": 0, "end": 2},
            {"text": "丑", "probability": 0.0, "begin": 1, "end": 2},
        ],
        "is_right": True,
    }
    answers = [*method.predictions(scores, examples, features)]
    best = {name: n_best[0][name] for name in ("probability", "begin", "end")}
    assert answers[0] == {"answer": "甲", **best, "n_best": n_best}
    assert [answer["answer"] for answer in answers] == ["甲", "子"]
    nothing = {"text": "empty", "probability": 1.0, "begin": None, "end": None}
    scores[:] = np.float32(-np.inf)
    assert [*method.predictions(scores, examples, features)][1] == {
        "answer": "empty",
        "probability": 1.0,
        "begin": None,
        "end": None,
        "n_best": [nothing],
    }


def test_inputs_of_classes_are_named_by_their_fields(tokenizer):
    target = {"span1_text": "小明", "span1_index": 0, "span2_text": "他", "span2_index": 4}
    for name, example, inputs in (
        ("CSL", {"keyword": ["子", "丑"], "abst": "甲"}, {"keyword": "子 丑", "abst": "甲"}),
        ("TNEWS", {"sentence": "甲"}, {"sentence": "甲"}),
        ("CLUEWSC2020", {"text": "小明看见他的书", "target": target}, {"text": "_小明_看见[他]的书"}),
    ):
        method, examples = Classification(TASKS[name], tokenizer, 32), [example | {"id": 0, "label": 0}]
        scores = np.zeros((1, method.width), np.float32)
        (line,) = method.explain(scores, examples, features_of(method, examples))
        assert line["inputs"] == inputs, name
