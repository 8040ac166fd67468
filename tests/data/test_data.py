"""Reading official files: all ten tasks on real examples, and every kind of bad input."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clue_utils.data import examples
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.tasks import TASKS

# Examples of the real subset that the tests are usually given; the official release has the registry's numbers.
SUBSET = {
    "AFQMC": (1558, 1727, 600),
    "TNEWS": (10629, 3896, 1000, 1500),
    "IFLYTEK": (4397, 1400, 1500),
    "CMNLI": (3045, 4877, 1500),
    "OCNLI": (10000 - 15, 2405 - 41, 3000),
    "CLUEWSC2020": (808, 362, 145, 145),
    "CSL": (2104, 834, 1500),
    "CMRC2018": (1379, 1201, 505),
    "CHID": (1125, 304, 500, 500),
    "C3": (11869, 3046, 2002, 1890),
}
ALL_SPLITS = [(task, split) for task in TASKS.values() for split in task.splits]


@pytest.mark.parametrize(("task", "split"), ALL_SPLITS, ids=lambda value: getattr(value, "name", value))
def test_real_examples(clue_data_dir, task, split):
    examples = load_examples(task, split, clue_data_dir)
    subset = dict(zip(task.splits, SUBSET[task.name], strict=True))[split]
    assert len(examples) in (subset, task.splits[split].num_examples)
    has_answers = split not in task.test_splits
    for row in examples:
        assert task.fields.keys() <= row.keys()
        if task.kind == "classification":
            assert type(row["id"]) is int and ("label" in row) is has_answers
            assert not has_answers or row["label"] in range(len(task.labels))
        elif task.kind == "multiple_choice":
            assert ("label" in row) is has_answers and 2 <= len(row["choice"]) <= 4
            assert not has_answers or row["label"] in range(len(row["choice"]))
        elif task.kind == "span":
            assert bool(row["answers"]) is has_answers
        else:
            tags = re.findall(r"#idiom\d+#", "\n".join(row["content"]))
            assert list(row.get("answers", {})) == (tags if has_answers else [])
    if not has_answers and task.kind != "cloze":
        assert len({row["id"] for row in examples}) == len(examples)
    content = b"".join(path.read_bytes() for path in examples.files)
    assert examples.sha256 == hashlib.sha256(content).hexdigest()


def test_real_examples_without_a_gold_label_are_left_out(clue_data_dir):
    examples = load_examples(TASKS["OCNLI"], "dev", clue_data_dir)
    assert examples.num_dropped == examples.files[0].read_text(encoding="utf-8").count('"label": "-"') > 0


def test_real_answers_that_the_choices_repeat_take_the_first(clue_data_dir):
    repeated = [r for r in load_examples(TASKS["C3"], "train", clue_data_dir) if r["choice"].count(_gold(r)) > 1]
    assert [(r["label"], r["choice"]) for r in repeated] == [
        (1, ["六块", "五块", "五块", "六块五"]),
        (2, ["比室内运动好", "对有些人不合适", "没有室内运动好", "没有室内运动好"]),
    ]


def _gold(row):
    return row["choice"][row["label"]]


# --- small files made here ---------------------------------------------------------------------------------------

AFQMC, TNEWS, CLUEWSC, CSL, OCNLI = (TASKS[name] for name in ("AFQMC", "TNEWS", "CLUEWSC2020", "CSL", "OCNLI"))
CMRC, CHID, C3 = TASKS["CMRC2018"], TASKS["CHID"], TASKS["C3"]


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def lines(*examples):
    return "".join(json.dumps(example, ensure_ascii=False) + "\n" for example in examples)


def load(tmp_path, task, split, content):
    write(tmp_path, f"{task.folder}/{task.splits[split].files[0][0]}", content)
    return load_examples(task, split, tmp_path)


TNEWS_1 = {"label": "102", "label_desc": "news_entertainment", "sentence": "甲", "keywords": ""}
WSC_1 = {
    "target": {"span1_text": "老张", "span1_index": 0, "span2_text": "他", "span2_index": 4},
    "label": "true",
    "text": "老张说，他来",
    "idx": 7,
}


def test_classification_rows_hold_the_registry_s_fields(tmp_path):
    examples = load(tmp_path, TNEWS, "train", lines(TNEWS_1, TNEWS_1 | {"label": "100"}))
    assert list(examples) == [{"sentence": "甲", "id": 0, "label": 2}, {"sentence": "甲", "id": 1, "label": 0}]
    assert examples[1] == examples[-1] == examples.rows[1:][0] and len(examples) == 2
    wsc = load(tmp_path, CLUEWSC, "dev", lines(WSC_1))
    assert wsc.rows[:] == [{"text": WSC_1["text"], "target": WSC_1["target"], "id": 0, "label": 0}]


def test_ids_are_the_examples_own_where_they_have_one(tmp_path):
    tests = lines({"id": 7, "sentence": "甲"}, {"id": "3", "sentence": "乙", "label": "ignored"})
    assert load(tmp_path, TNEWS, "test1.1", tests).rows[:] == [{"sentence": "甲", "id": 7}, {"sentence": "乙", "id": 3}]
    assert [row["id"] for row in load(tmp_path, TNEWS, "test1.0", lines(*3 * [{"sentence": ""}]))] == [0, 1, 2]


def test_examples_without_a_gold_label_leave_gaps_in_the_positions(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    pair = {"sentence1": "甲", "sentence2": "乙"}
    examples = load(
        tmp_path, OCNLI, "train", lines(*(pair | {"label": label} for label in ("neutral", "-", "neutral")))
    )
    assert [row["id"] for row in examples] == [0, 2] and examples.num_dropped == 1
    assert "OCNLI train: 2 examples (1 without a gold label left out)" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "甲\u2028乙\u2029丙\x85丁\x0b\x0c\x1c",
        "\ufeff\u200b\u202e\U0001f600\ue000\x00",
        "甲\r\n乙",
        pytest.param("长" * 1_000_000, id="a million characters"),
    ],
)
def test_text_of_every_kind(tmp_path, text):
    examples = load(tmp_path, TNEWS, "train", lines(TNEWS_1 | {"sentence": text}, TNEWS_1))
    assert [row["sentence"] for row in examples] == [text, "甲"]


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    content = b"\xef\xbb\xbf" + lines(TNEWS_1, TNEWS_1).replace("\n", "\r\n").encode() + b"\r\n\n"
    assert len(load(tmp_path, TNEWS, "train", content)) == 2
    document = json.dumps([[["甲"], [{"question": "?", "choice": ["是", "否"], "id": 0}], "x"]])
    assert len(load(tmp_path, C3, "test1.0", b"\xef\xbb\xbf" + document.encode())) == 1


def test_no_line_end_after_the_last_example(tmp_path):
    assert len(load(tmp_path, TNEWS, "train", lines(TNEWS_1, TNEWS_1).rstrip())) == 2


GOOD = lines(TNEWS_1)
BAD_LINES = {
    "broken JSON": (TNEWS, '{"sentence": "甲"\n', r":2: not JSON \("),
    "broken off": (TNEWS, '{"sentence": "甲', r":2: not JSON \(Unterminated string starting at column 14\)"),
    "two examples in a line": (TNEWS, GOOD.strip() + GOOD, r":2: not JSON \(Extra data"),
    "no object": (TNEWS, "[]\n", r":2: \[\] is not an object"),
    "null": (TNEWS, "null\n", r":2: None is not an object"),
    "empty line": (TNEWS, "\n" + GOOD, r":2: an empty line between examples"),
    "missing field": (TNEWS, lines({"label": "102"}), r":2: field 'sentence': missing"),
    "wrong type": (TNEWS, lines(TNEWS_1 | {"sentence": ["甲"]}), r":2: field 'sentence': \['甲'\] is not a string"),
    "missing label": (TNEWS, lines({"sentence": "甲"}), r":2: field 'label': missing"),
    "unknown label": (TNEWS, lines(TNEWS_1 | {"label": "105"}), r":2: field 'label': '105' is none of .*100, 101"),
    "integer label": (TNEWS, lines(TNEWS_1 | {"label": 102}), r":2: field 'label': 102 is not a string"),
    "a text as id": (TNEWS, lines(TNEWS_1 | {"id": "a"}), r":2: field 'id': 'a' is not an integer"),
    "true as id": (TNEWS, lines(TNEWS_1 | {"id": True}), r":2: field 'id': True is not an integer"),
    "negative id": (TNEWS, lines(TNEWS_1 | {"id": -1}), r":2: field 'id': -1 is not an integer of at least 0"),
    "NaN": (TNEWS, '{"sentence": NaN}\n', r":2: not JSON \(NaN is not a JSON number\)"),
    "key twice": (TNEWS, '{"sentence": "甲", "sentence": "", "label": ""}\n', r":2: field 'sentence': occurs twice"),
    "surrogate": (TNEWS, '{"sentence": "\\ud83d", "label": "102"}\n', r":2: field 'sentence': .*surrogate"),
    "surrogate bytes": (TNEWS, '{"sentence": "\ud83d", "label": "102"}\n', r":2: not UTF-8"),
    "Latin-1": (TNEWS, '{"sentence": "é"}\n'.encode("latin-1"), r":2: not UTF-8 \(.*save the file in UTF-8"),
    "GB18030": (TNEWS, '{"sentence": "中文"}\n'.encode("gb18030"), r":2: not UTF-8"),
    "deep nesting": (TNEWS, "[" * 200_000 + "\n", r":2: not an example \(nested too deeply\)"),
    "deep value": (TNEWS, '{"sentence": ' + "[" * 300 + "]" * 300 + "}\n", r":2: field 'sentence': .* is not a string"),
    "five thousand digits": (TNEWS, '{"id": ' + "9" * 5000 + "}\n", r":2: not an example \(a number with"),
    "no 64-bit number": (TNEWS, lines(TNEWS_1 | {"id": 2**63}), r":2: field 'id'"),
    "long wrong value": (TNEWS, lines(TNEWS_1 | {"label": "长" * 10**6}), r":2: field 'label': '长+\.\.\.长+' is none"),
    "line break in a value": (TNEWS, lines(TNEWS_1 | {"label": "a\n\u2028b"}), r":2: field 'label': 'a\\n\\u2028b'"),
    "no list": (CSL, lines({"abst": "", "keyword": "a", "label": "0"}), r":2: field 'keyword': 'a' is not a list"),
    "wrong item": (CSL, lines({"abst": "", "keyword": ["a", 1], "label": "0"}), r":2: field 'keyword\[1\]': 1 is not"),
    "missing inner field": (
        CLUEWSC,
        lines(WSC_1 | {"target": {"span1_text": "老张"}}),
        r":2: field 'target.span1_index': missing",
    ),
    "no inner object": (CLUEWSC, lines(WSC_1 | {"target": "他"}), r":2: field 'target': '他' is not an object"),
    "inner text for a number": (
        CLUEWSC,
        lines(WSC_1 | {"target": WSC_1["target"] | {"span2_index": "4"}}),
        r":2: field 'target.span2_index': '4' is not an integer",
    ),
    "inner huge number": (
        CLUEWSC,
        lines(WSC_1 | {"target": WSC_1["target"] | {"span2_index": 10**40}}),
        r":2: field 'target.span2_index': 10+ is out of range",
    ),
    "span elsewhere": (
        CLUEWSC,
        lines(WSC_1 | {"target": WSC_1["target"] | {"span2_index": 3}}),
        r":2: field 'target.span2_index': '他' is not at character 3",
    ),
    "span before the text": (
        CLUEWSC,
        lines(WSC_1 | {"target": WSC_1["target"] | {"span2_index": -2}}),
        r":2: field 'target.span2_index'",
    ),
}
FIRST_LINE = {
    "TNEWS": GOOD,
    "CLUEWSC2020": lines(WSC_1),
    "CSL": lines({"abst": "", "keyword": [], "label": "0"}),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_second_line(tmp_path, name):
    task, line, expected = BAD_LINES[name]
    line = line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass")
    with pytest.raises(UserError, match=rf"{task.folder}/train\.json{expected}") as error:
        load(tmp_path, task, "train", FIRST_LINE[task.name].encode() + line)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("content", ["", "\n", "\r\n\n", "\ufeff"])
@pytest.mark.parametrize("task", [TNEWS, CMRC, C3], ids=lambda task: task.name)
def test_an_empty_file(tmp_path, task, content):
    for name in task.splits["train"].files[0]:
        write(tmp_path, f"{task.folder}/{name}", content)
    with pytest.raises(UserError, match=r"train\.json: empty"):
        load_examples(task, "train", tmp_path)


def test_a_file_without_any_gold_label(tmp_path):
    with pytest.raises(UserError, match='no example with a gold label other than "-"'):
        load(tmp_path, TNEWS, "dev", lines(TNEWS_1 | {"label": "-"}))


def test_the_same_id_twice_in_a_test_file(tmp_path):
    with pytest.raises(UserError, match=r"test\.json:3: field 'id': 5 occurs twice"):
        load(tmp_path, TNEWS, "test1.1", lines(*({"id": i, "sentence": ""} for i in (5, 6, 5))))
    # Official CSL repeats ids in train: nothing is told apart by them there.
    abstract = {"id": 5, "abst": "", "keyword": [], "label": "1"}
    assert [row["id"] for row in load(tmp_path, CSL, "train", lines(abstract, abstract))] == [5, 5]


@pytest.mark.parametrize(("first", "second"), [({"id": 1}, {}), ({}, {"id": 9})])
def test_ids_in_a_part_of_a_test_file(tmp_path, first, second):
    with pytest.raises(UserError, match=r"test\.json:2: field 'id': (missing|the examples before have none)"):
        load(tmp_path, TNEWS, "test1.1", lines(first | {"sentence": ""}, second | {"sentence": ""}))


def test_what_is_no_file(tmp_path):
    folder = tmp_path / "tnews_public"
    (folder / "train.json").mkdir(parents=True)
    os.mkfifo(folder / "dev.json")
    with pytest.raises(UserError, match=r"train\.json: a folder in place of a file"):
        load_examples(TNEWS, "train", tmp_path)
    with pytest.raises(UserError, match=r"dev\.json: a device or pipe in place of a file"):
        load_examples(TNEWS, "dev", tmp_path)


# --- C3 ----------------------------------------------------------------------------------------------------------


def c3(*questions, context=("甲", "乙")):
    return json.dumps([[list(context), list(questions), "1-1"]], ensure_ascii=False)


def question(**changes):
    return {"question": "谁?", "choice": ["是", "否", "不知"], "answer": "否"} | changes


def load_c3(tmp_path, *documents):
    for name, document in zip(("d-train.json", "m-train.json"), documents, strict=True):
        write(tmp_path, f"c3_public/{name}", document)
    return load_examples(C3, "train", tmp_path)


def test_c3_joins_both_files(tmp_path):
    examples = load_c3(tmp_path, c3(question(), question(answer="是")), c3(question(choice=["否", "否"])))
    assert [(row["id"], row["label"]) for row in examples] == [(0, 1), (1, 0), (2, 0)]
    assert examples[0]["context"] == ["甲", "乙"] and examples[0]["question"] == "谁?"
    assert [path.name for path in examples.files] == ["d-train.json", "m-train.json"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (c3(question(), question(answer="也许")), r"d-train.json: at \[0\]\[1\]\[1\]: field 'answer': '也许' is"),
        (c3({"question": "谁?", "choice": ["是", "否"]}), r"field 'answer': missing"),
        (c3(question(choice=["否"])), r"field 'choice': 1 choices are not 2 to 4"),
        (c3(question(choice=list("否一二三四"))), r"field 'choice': 5 choices are not 2 to 4"),
        (c3(question(choice=["否", 1])), r"field 'choice\[1\]': 1 is not a string"),
        (c3("谁?"), r"at \[0\]\[1\]\[0\]: '谁\?' is not an object"),
        ('{"a": 1}', r"d-train.json: {'a': 1} is not a list"),
        ("[[]]", r"at \[0\]: \[\] is not a list of context, questions and name"),
        ("[[[], {}]]", r"at \[0\]: {} is not a list"),
        ("[\n[1, []]]", r"at \[0\]: field 'context': 1 is not a list"),
        ("[\n[[],\n", r"d-train.json:2: not JSON"),
        (b"[\n\xff]", r"d-train.json:2: not UTF-8"),
        ("[\nNaN]", r"d-train.json:1: not JSON \(NaN"),
        ("[" * 200_000, r"nested too deeply"),
    ],
)
def test_bad_c3_documents(tmp_path, document, expected):
    with pytest.raises(UserError, match=expected) as error:
        load_c3(tmp_path, document, c3(question()))
    assert "\n" not in str(error.value)


def test_c3_tests_have_ids_and_may_have_more_choices(tmp_path, caplog):
    many = {"question": "谁?", "choice": list("一二三四五"), "id": "8"}
    examples = load(tmp_path, C3, "test1.1", c3(many, many | {"id": 3, "choice": ["是", "否"]}))
    assert [(row["id"], row["choice"]) for row in examples] == [(8, list("一二三四")), (3, ["是", "否"])]
    assert "1 questions have more than 4 choices" in caplog.text and all("label" not in row for row in examples)
    with pytest.raises(UserError, match=r"at \[0\]\[1\]\[1\]: field 'id': 8 occurs twice"):
        load(tmp_path, C3, "test1.1", c3(many, many | {"id": 8}))
    with pytest.raises(UserError, match="field 'id': missing"):
        load(tmp_path, C3, "test1.1", c3(question()))


# --- CMRC2018 ----------------------------------------------------------------------------------------------------


def cmrc(*questions):
    return json.dumps({"version": "1", "data": [{"paragraphs": [{"id": "P", "context": "甲乙", "qas": questions}]}]})


CMRC_1 = {"id": "Q1", "question": "?", "answers": [{"text": "乙", "answer_start": 1, "more": 0}]}


def test_cmrc_rows(tmp_path):
    rows = load(tmp_path, CMRC, "dev", cmrc(CMRC_1)).rows[:]
    answers = [{"text": "乙", "answer_start": 1}]
    assert rows == [{"id": "Q1", "context": "甲乙", "question": "?", "answers": answers}]


@pytest.mark.parametrize("answers", [{}, {"answers": []}, {"answers": [{"text": "FAKE_ANSWER_1", "answer_start": -1}]}])
def test_cmrc_tests_have_no_answers(tmp_path, answers):
    assert load(tmp_path, CMRC, "test", cmrc({"id": "Q1", "question": "?"} | answers))[0]["answers"] == []


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (cmrc(CMRC_1, CMRC_1), r"at data\[0\]\.paragraphs\[0\]\.qas\[1\]: field 'id': 'Q1' occurs twice"),
        (cmrc(CMRC_1 | {"answers": []}), r"field 'answers': empty"),
        (cmrc(CMRC_1 | {"answers": None}), r"field 'answers': None is not a list"),
        (cmrc(CMRC_1 | {"answers": [{"text": 1}]}), r"field 'answers\[0\].text': 1 is not a string"),
        (cmrc(CMRC_1 | {"answers": [{"text": "乙"}]}), r"field 'answers\[0\].answer_start': missing"),
        (cmrc(CMRC_1 | {"answers": [{"text": "乙", "answer_start": 1.0}]}), r"1\.0 is not an integer"),
        (cmrc(CMRC_1 | {"id": 1}), r"field 'id': 1 is not a string"),
        (cmrc(7), r"7 is not an object"),
        ("[]", r"train\.json: expected {\"data\": \[{\"paragraphs\": \.\.\.}\]}, the squad style, but this is a list$"),
        ("{}", r"train\.json: expected .*, the squad style, but this is {}$"),
        (
            json.dumps([{"context_id": "X", "context_text": "甲" * 999, "qas": [{"query_id": "X_0"}] * 99}] * 9),
            r"the squad style, but this is the form of CMRC 2018's first release, a list with context_text",
        ),
        ('{"data": {}}', r"field 'data': {} is not a list"),
        ('{"data": [{}]}', r"at data\[0\]: field 'paragraphs': missing"),
        ('{"data": [{"paragraphs": [{}]}]}', r"at data\[0\].paragraphs\[0\]: field 'context': missing"),
        ('{"data": []}', r"train\.json: no example"),
    ],
)
def test_bad_cmrc_documents(tmp_path, document, expected):
    with pytest.raises(UserError, match=expected):
        load(tmp_path, CMRC, "train", document)


# --- CHID --------------------------------------------------------------------------------------------------------

IDIOMS = [f"成语{i}" for i in range(10)]
CHID_1 = {"content": ["甲#idiom000001#乙", "丙", "#idiom000002##idiom000003#"], "candidates": IDIOMS}
ANSWERS = {"#idiom000001#": 9, "#idiom000002#": 0, "#idiom000003#": 3}


def load_chid(tmp_path, content, answers):
    write(tmp_path, "chid_public/train_answer.json", answers if isinstance(answers, str) else json.dumps(answers))
    return load(tmp_path, CHID, "train", content)


def test_chid_rows(tmp_path):
    examples = load_chid(tmp_path, lines(CHID_1), ANSWERS | {"#idiom000009#": 1})
    assert list(examples) == [CHID_1 | {"answers": ANSWERS}]
    assert [path.name for path in examples.files] == ["train.json", "train_answer.json"]
    assert load(tmp_path, CHID, "test1.0", lines(CHID_1)).rows[:] == [CHID_1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"candidates": IDIOMS[1:]}, r"train\.json:2: field 'candidates': 9 idioms are not 10"),
        ({"candidates": [*IDIOMS[1:], None]}, r"train\.json:2: field 'candidates\[9\]': None is not a string"),
        ({"content": ["甲"]}, r"train\.json:2: field 'content': no blank"),
        ({"content": []}, r"train\.json:2: field 'content': no blank"),
        ({"content": ["#idiom000001#"]}, r"train\.json:2: field 'content': '#idiom000001#' occurs twice"),
        ({"content": ["#idiom7##idiom7#"]}, r"train\.json:2: field 'content': '#idiom7#' occurs twice"),
        ({"content": ["#idiom8#"]}, r"train\.json:2: field 'content': #idiom8# has no answer in .*train_answer\.json"),
        ({"content": "#idiom8#"}, r"train\.json:2: field 'content': '#idiom8#' is not a list"),
    ],
)
def test_bad_chid_rows(tmp_path, changes, expected):
    with pytest.raises(UserError, match=expected):
        load_chid(tmp_path, lines(CHID_1, CHID_1 | changes), ANSWERS)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (ANSWERS | {"#idiom000002#": 10}, r"train_answer\.json: field '#idiom000002#': 10 is not 0 to 9"),
        (ANSWERS | {"#idiom000002#": True}, r"train_answer\.json: field '#idiom000002#': True is not 0 to 9"),
        (ANSWERS | {"#idiom000002#": "1"}, r"train_answer\.json: field '#idiom000002#': '1' is not 0 to 9"),
        ([], r"train_answer\.json: \[\] is not an object"),
        ('{"#idiom000001#": 1, "#idiom000001#": 2}', r"train_answer\.json:1: field '#idiom000001#': occurs twice"),
        ("", r"train_answer\.json: empty"),
    ],
)
def test_bad_chid_answers(tmp_path, answers, expected):
    with pytest.raises(UserError, match=expected):
        load_chid(tmp_path, lines(CHID_1), answers)


def test_chid_without_the_file_of_answers(tmp_path):
    with pytest.raises(UserError, match=r"no train_answer\.json: the train split of CHID needs train\.json with "):
        load(tmp_path, CHID, "train", lines(CHID_1))


# --- where files are looked for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "given"),
    [
        ("tnews_public/train.json", "."),
        ("tnews_public/train.json", "tnews_public"),
        ("tnews_public/tnews_public/train.json", "."),
        ("tnews_public/tnews_public/train.json", "tnews_public"),
        ("tnews_public/data/train.json", "."),
        ("my data/train.json", "my data"),
    ],
)
def test_layouts(tmp_path, place, given):
    path = write(tmp_path, place, GOOD)
    write(tmp_path, "tnews_public/__MACOSX/train.json", "rubbish")
    write(tmp_path, "tnews_public/.hidden/train.json", "rubbish")
    assert load_examples(TNEWS, "train", tmp_path / given).files == (path,)


def test_the_environment_names_the_folder_unless_the_flag_does(tmp_path, monkeypatch):
    write(tmp_path, "a/tnews_public/train.json", GOOD)
    write(tmp_path, "b/tnews_public/train.json", GOOD + GOOD)
    monkeypatch.setenv("CLUE_DATA_DIR", str(tmp_path / "a"))
    assert len(load_examples(TNEWS, "train")) == 1
    assert len(load_examples(TNEWS, "train", str(tmp_path / "b"))) == 2
    monkeypatch.setenv("CLUE_DATA_DIR", str(tmp_path / "c"))
    with pytest.raises(UserError, match=r"CLUE_DATA_DIR .*/c: not a folder"):
        load_examples(TNEWS, "train")


def test_neither_named_takes_the_cache(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("CLUE_DATA_DIR", "")
    monkeypatch.setenv("CLUE_CACHE_DIR", str(tmp_path))
    path = write(tmp_path, "data/tnews_public/train.json", GOOD)
    assert load_examples(TNEWS, "train").files == (path,)
    assert "checksum" in caplog.text


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("CLUE_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert examples.cache_dir() == Path("/home/someone/.cache/clue_benchmark")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert examples.cache_dir() == Path("/xdg/clue_benchmark")
    monkeypatch.setenv("CLUE_CACHE_DIR", "~/c")
    assert examples.cache_dir() == Path("/home/someone/c")


def test_nothing_found(tmp_path):
    write(tmp_path, "afqmc_public/train.json", GOOD)
    with pytest.raises(UserError, match=r"--data_dir .* no files of TNEWS; looked for tnews_public/ with .*train\.j"):
        load_examples(TNEWS, "train", tmp_path)
    # Same names and, in tests, the same fields: another task's folder must not be taken.
    with pytest.raises(UserError, match="no files of CMNLI"):
        load_examples(TASKS["CMNLI"], "train", tmp_path / "afqmc_public")
    with pytest.raises(UserError, match="not a folder"):
        load_examples(TNEWS, "train", tmp_path / "afqmc_public" / "train.json")
    for odd in ("a\0b", "x" * 5000, "~no such user/x"):
        with pytest.raises(UserError, match="--data_dir"):
            load_examples(TNEWS, "train", odd)


def test_two_folders_with_files(tmp_path):
    for name in ("old", "new"):
        write(tmp_path, f"tnews_public/{name}/train.json", GOOD)
    with pytest.raises(UserError, match="in both .*new and .*old: name one"):
        load_examples(TNEWS, "train", tmp_path)


def test_a_missing_split_names_the_accepted_files(tmp_path):
    write(tmp_path, "tnews_public/train.json", GOOD)
    with pytest.raises(UserError, match=r"no test\.json: the test1\.1 split of TNEWS needs test\.json or test1\.1"):
        load_examples(TNEWS, "test1.1", tmp_path)
    write(tmp_path, "c3_public/d-train.json", c3(question()))
    with pytest.raises(UserError, match=r"no m-train\.json: .* needs d-train\.json with m-train\.json"):
        load_examples(C3, "train", tmp_path)


@pytest.mark.parametrize(
    ("task", "split", "name"), [(CMRC, "train", "cmrc2018_train.json"), (TNEWS, "test1.1", "test1.1.json")]
)
def test_other_accepted_names(tmp_path, task, split, name):
    content = cmrc(CMRC_1) if task is CMRC else lines({"id": 0, "sentence": ""})
    path = write(tmp_path, f"{task.folder}/{name}", content)
    assert load_examples(task, split, tmp_path).files == (path,)


# --- checksums, memory, start-up ---------------------------------------------------------------------------------


def test_the_log_says_which_release_it_is(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    load(tmp_path, TNEWS, "train", GOOD)
    assert "checksum of no known release (a subset or another one), the official split has 53,360" in caplog.text
    monkeypatch.setitem(TNEWS.md5, hashlib.md5(GOOD.encode()).hexdigest(), "train.json")
    caplog.clear()
    load(tmp_path, TNEWS, "train", GOOD)
    assert "checksum of the known release" in caplog.text
    load(tmp_path, TNEWS, "dev", GOOD)
    assert "dev.json: by its checksum this is the official train.json" in caplog.text
    caplog.clear()
    load(tmp_path, CHID, "test1.0", lines(CHID_1))
    assert "no checksum of a release is known, the official split has 3,231" in caplog.text


def test_digest_covers_the_answers(tmp_path):
    one = load_chid(tmp_path, lines(CHID_1), ANSWERS).sha256
    assert one != load_chid(tmp_path, lines(CHID_1), ANSWERS | {"#idiom000001#": 8}).sha256


def test_reading_holds_no_more_than_the_rows(tmp_path):
    """A file whose bulk is in fields that are not kept must not be held as a whole."""
    import tracemalloc

    write(tmp_path, "tnews_public/train.json", lines(*1000 * [TNEWS_1 | {"keywords": "x" * 20_000}]))
    tracemalloc.start()
    try:
        load_examples(TNEWS, "train", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_starts_without_heavy_packages():
    program = (
        "import sys, clue_utils.data.examples\n"
        "print([name for name in ('paddle', 'paddlenlp', 'numpy', 'datasets') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(examples.__file__).parents[2])}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout == "[]\n"
