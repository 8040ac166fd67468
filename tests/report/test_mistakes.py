"""What scripts/errors.py says, on a terminal and on its page, of answers made by hand."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import errors
from clue_utils import dev_predictions
from clue_utils.columns import display_width
from clue_utils.tasks import TASKS

HOSTILE = '<script>alert("1")</script>&\u202e\x1b[31m\n行' + "很长的文本" * 40
VOID = {"meta", "br", "link", "line", "circle"}


def line(number: int, gold: str, answer: str, share: float, text: str = "今天") -> dict:
    shares = {gold: round(1 - share, 6), answer: share}
    told = {"id": number, "inputs": {"sentence": text}, "is_cut": number == 1, "gold": gold, "answer": answer}
    return told | {"probabilities": shares, "is_right": gold == answer}


def put(folder: Path, task: str, lines: list[dict], **fields: object) -> Path:
    folder.mkdir(parents=True)
    written = dev_predictions.write(folder, lines)
    (folder / "result.json").write_text(json.dumps({"task": task, "dev_predictions": written, **fields}))
    return folder


def classes(*names: str) -> dict:
    return {n: {"precision": 0.5, "recall": 0.25, "f1": 1 / (2 + i), "num_gold": 2} for i, n in enumerate(names)}


@pytest.fixture
def tnews(tmp_path):
    lines = [
        line(0, "news_car", "news_car", 0.9),
        line(1, "news_car", "news_tech", 0.6, HOSTILE),
        line(2, "news_tech", "news_car", 0.8, "明天"),
        line(3, "news_car", "news_tech", 0.7),
    ]
    return put(tmp_path / "tnews", "TNEWS", lines, classes=classes("news_car", "news_tech"))


class Balanced(HTMLParser):
    """Refuses a page whose elements are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag != "script" and not any(name == "src" or str(value).startswith("http") for name, value in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page_of(folder: Path) -> str:
    parser = Balanced()
    parser.feed((folder / "errors.html").read_text(encoding="utf-8"))
    assert parser.open == []
    return " ".join(parser.texts)


def test_a_classifiers_mistakes(run_script, tnews):
    status, said, error = run_script(errors.main, tnews)
    assert status == 0, error
    assert re.search(r"tnews +25\.00 +3 +4 +1$", said, re.MULTILINE)
    assert re.search(r"^news_car +news_tech +2 +66\.67$", said, re.MULTILINE)
    assert re.search(r"^7 news_car +(· +){6}1 +· +2( +·){6}$", said, re.MULTILINE)
    assert said.index("news_tech      50.00") < said.index("news_car       50.00")  # the lower F1 first
    assert [int(i) for i in re.findall(r"^\d+\. id (\d)", said, re.MULTILINE)] == [2, 3, 1]
    assert "cut to fit the length" in said and "\x1b" not in said and "\u202e" not in said
    assert max(display_width(text) for text in said.splitlines()[:-1] if str(tnews) not in text) <= 80
    page = page_of(tnews)
    assert '<script>alert("1")</script>&' in page  # as text
    assert "Confusion matrix" in page and "gold had 20.00 %" in page


def test_a_classifiers_mistakes_in_chinese(run_script, tnews, chinese):
    status, said, error = run_script(errors.main, tnews)
    assert status == 0, error
    assert "模型最有把握的错误" in said and "%；因长度限制被截断" in re.sub(r"\s", "", said)
    assert not re.search(r"Confusion|gold|answer\b|wrong", said)
    assert max(display_width(text) for text in said.splitlines()[:-1] if str(tnews) not in text) <= 80
    page = page_of(tnews)
    assert "混淆矩阵：纵向为标准答案" in page and "gold had" not in page
    assert '<html lang="zh-CN">' in (tnews / "errors.html").read_text(encoding="utf-8")


def test_many_classes_are_shown_by_pairs(run_script, tmp_path):
    names = TASKS["IFLYTEK"].names
    folder = put(tmp_path / "a", "IFLYTEK", [line(i, names[i], names[0], 0.9) for i in range(30)])
    status, said, _ = run_script(errors.main, folder, "--num", "2", "--output", tmp_path / "out")
    assert status == 0 and "matrix" not in said
    assert len(re.findall(r"^\S+ +打车 +1 +100\.00$", said, re.MULTILINE)) == 2
    assert "Confusion matrix" not in page_of(tmp_path / "out") and not (folder / "errors.html").exists()


def test_the_hardest_records_of_several_models(run_script, tnews, tmp_path):
    lines = [
        line(0, "news_car", "news_tech", 0.9),
        line(1, "news_car", "news_tech", 0.95, HOSTILE),
        line(2, "news_tech", "news_tech", 0.8, "明天"),
        line(3, "news_car", "news_game", 0.6),
    ]
    other = put(tmp_path / "other", "TNEWS", lines)
    status, said, error = run_script(errors.main, tnews, other)
    assert status == 0, error
    found = re.findall(r"^\d\. id (\d): p ([0-9.]+) %; (\d) of 2 wrong$", said, re.MULTILINE)
    assert found == [("1", "22.50", "2"), ("3", "35.00", "2"), ("0", "50.00", "1"), ("2", "50.00", "1")]
    assert "answer: news_tech, news_game" in said
    assert "The hardest records" in page_of(tnews)


def test_spans_blanks_and_choices(run_script, tmp_path):
    context = "甲" * 50 + "答案乙" + "丙" * 50
    best = [{"text": "甲甲", "probability": 0.7, "begin": 3, "end": 5}, {"text": "答案乙", "probability": 0.3}]
    span = {"id": "Q", "inputs": {"context": context, "question": "何？"}, "is_cut": False, "gold": ["答案乙"]}
    span |= {"answer": "甲甲", "em": 0, "f1": 0.25, "n_best": best, "is_right": False}
    status, said, _ = run_script(errors.main, put(tmp_path / "s", "CMRC2018", [span]))
    joined = " ".join(said.split())
    assert status == 0 and "F1 25.00" in said and "甲甲甲【甲甲】" in said and "(character 51 of 103)" in joined
    idioms = [f"{letter}心一意" for letter in "一二三四五六七八九十"]
    blank = {"tag": "#idiom000001#", "gold": idioms[0], "answer": idioms[1], "is_right": False}
    blank |= {"probabilities": [0.2, 0.8, *[0.0] * 8]}
    cloze = {"id": 0, "inputs": {"content": ["他#idiom000001#。"], "candidates": idioms}, "is_cut": False}
    cloze |= {"gold": idioms[:1], "answer": idioms[1:2], "blanks": [blank], "is_right": False}
    status, said, _ = run_script(errors.main, put(tmp_path / "b", "CHID", [cloze]))
    assert status == 0 and "p 80.00 %; blank #idiom000001#; gold had 20.00 %" in said
    assert re.search(r"^一心一意 +二心一意 +1 +100\.00$", said, re.MULTILINE)
    inputs = {"context": "男：好。", "question": "谁？", "choice": ["男", "女"]}
    choice = {"id": 0, "inputs": inputs, "is_cut": False, "gold": "男", "answer": "女", "gold_index": 0}
    choice |= {"answer_index": 1, "probabilities": [0.4, 0.6], "is_right": False}
    status, said, _ = run_script(errors.main, put(tmp_path / "c", "C3", [choice]))
    assert status == 0 and "choices: 男 40.00 % 女 60.00 %" in said and "question: 谁？" in said
    for name in "sbc":
        page_of(tmp_path / name)


def test_what_cannot_be_shown_is_one_line(run_script, tnews, tmp_path):
    ocnli = put(tmp_path / "ocnli", "OCNLI", [line(0, "neutral", "neutral", 0.9)])
    fewer = put(tmp_path / "fewer", "TNEWS", [line(0, "news_car", "news_car", 0.9)])
    bare = tmp_path / "bare"
    bare.mkdir()
    stale = put(tmp_path / "stale", "TNEWS", [line(0, "news_car", "news_car", 0.9)], best_step=3)
    for folders, reason in (
        ([tmp_path / "none"], "no such folder"),
        ([bare], "no dev_predictions.jsonl: name the output folder of a run, and evaluate it with --do_eval"),
        ([stale], "not the answers of the model that result.json tells of"),
        ([tnews, ocnli], "name folders of one task"),
        ([tnews, fewer], "was evaluated on other records"),
    ):
        status, said, error = run_script(errors.main, *folders, "--output", tmp_path / "out")
        assert (status, said) == (2, "") and re.fullmatch(rf"error: .*{re.escape(reason)}.*\n", error), error
    assert not (tmp_path / "out").exists()
