"""CHID: windows around blanks, and idioms given to the blanks of an example."""

from __future__ import annotations

import numpy as np
import pytest
from test_methods import IDIOMS, Columns

from clue_utils.data.readers import blanks
from clue_utils.errors import UserError
from clue_utils.training.cloze import Chid


@pytest.fixture
def method(tokenizer):
    return lambda length=64, assignment="joint": Chid(tokenizer, length, assignment)


def example(*passages: str, candidates=IDIOMS) -> dict:
    return {"content": list(passages), "candidates": candidates}


def test_a_row_is_idiom_and_window_with_the_blank_marked(method, tokenizer):
    m = method()
    (feature,) = m.encode(example("他做事#idiom000001#，从不分心。") | {"answers": {"#idiom000001#": 0}})
    tokens = tokenizer.convert_ids_to_tokens(feature["input_ids"][0])
    assert tokens == [*"[CLS] 一 心 一 意 [SEP] 他 做 事 [unused1] ， 从 不 分 心 。 [SEP]".split()]
    assert feature["label"] == 0 and len(feature["input_ids"]) == 10


def test_other_blanks_become_four_masks_cut_to_the_room_they_had(method, tokenizer):
    first, second = method().encode(example("甲乙丙丁#idiom000001#戊#idiom000002#己"))
    tokens = tokenizer.convert_ids_to_tokens(second["input_ids"][0])
    assert tokens[6:] == "丁 [MASK] [MASK] [MASK] [MASK] 戊 [unused1] 己 [SEP]".split()
    tokens = tokenizer.convert_ids_to_tokens(first["input_ids"][0])
    assert tokens[6:] == "甲 乙 丙 丁 [unused1] 戊 [MASK] [MASK] [SEP]".split()


@pytest.mark.parametrize("before", [0, 3, 27, 28, 29, 200])
@pytest.mark.parametrize("after", [0, 3, 27, 28, 29, 200])
def test_windows_are_full_and_never_too_long(method, before, after):
    m = method(64)
    (feature,) = m.encode(example("天" * before + "#idiom000001#" + "地" * after))
    row = feature["input_ids"][0]
    assert len(row) == min(before + after, 56) + 8
    left = row.index(m.mark) - 6
    assert left == min(before, max(28, 56 - after))


def test_masks_do_not_widen_the_window(method):
    passage = "#idiom000001#".join("天" * 5 for _ in range(30))
    features = method(64).encode(
        example(passage.replace("#idiom000001#", "{}").format(*(f"#idiom{i:06}#" for i in range(29))))
    )
    assert len(features) == 29 and all(len(row) <= 64 for f in features for row in f["input_ids"])


def test_an_idiom_of_more_than_four_tokens_still_fits(method, tokenizer):
    candidates = ["不管三七二十一", *IDIOMS[1:9], "字" * 100]
    (feature,) = method(64).encode(example("天" * 40 + "#idiom000001#" + "地" * 40, candidates=candidates))
    assert [len(row) for row in feature["input_ids"]] == [64] * 10
    assert [row.count(tokenizer.sep_token_id) for row in feature["input_ids"]] == [2] * 10
    assert {row[-1] for row in feature["input_ids"]} == {tokenizer.sep_token_id}
    assert all(row.count(method(64).mark) == 1 for row in feature["input_ids"])
    with pytest.raises(UserError, match="at least 10"):
        method(9)


def test_a_vocabulary_that_nothing_can_mark_a_blank_with_is_refused(tiny_tokenizer, monkeypatch):
    tokenizer = tiny_tokenizer("JsonBytePairs")
    monkeypatch.setattr(tokenizer, "unk_token_id", None)
    assert Chid(tokenizer, 64, "joint").mark == tokenizer.ids_of("_")[-1]
    monkeypatch.setattr(tokenizer, "ids_of", lambda text: [])
    with pytest.raises(UserError, match="has not both .unused1. and a mask, .*: choose another model$"):
        Chid(tokenizer, 64, "joint")


def test_marks_are_written_in_ascii(method, tokenizer):
    (feature,) = method().encode(example("“好”——‘天’―#idiom000001#—地———…"))
    tokens = tokenizer.convert_ids_to_tokens(feature["input_ids"][0])
    assert tokens[6:] == """ " 好 " - - ' 天 ' - [unused1] - 地 - - - . . . [SEP]""".split()


def test_blanks_of_an_example_share_candidates_over_all_its_passages(method):
    rows = [example("#idiom000001#天", "地#idiom000002#玄#idiom000003#"), example("#idiom000004#")]
    rows.append(example("#idiom000005#"))
    assert [blanks(row) for row in rows[:2]] == [["#idiom000001#", "#idiom000002#", "#idiom000003#"], ["#idiom000004#"]]
    scores = np.zeros((5, 10), np.float32)
    scores[:, 3] = [3.0, 2.0, 1.0, 1.0, 1.0]  # everyone wants candidate 3
    scores[0, 5], scores[1, 6] = 2.9, 0.5
    joint = method(assignment="joint").answer(scores, rows, Columns())
    assert joint["#idiom000001#"] == 5 and joint["#idiom000002#"] == joint["#idiom000004#"] == 3
    assert joint["#idiom000005#"] == 3
    greedy = method(assignment="greedy").answer(scores, rows, Columns())
    assert greedy["#idiom000001#"] == 3 and greedy["#idiom000002#"] == 6
    assert len({joint[tag] for tag in blanks(rows[0])}) == 3


def test_repeated_candidates_are_columns_of_their_own(method):
    (feature,) = method().encode(example("#idiom000001#天", candidates=["一心一意"] * 10))
    assert feature["input_ids"][0] == feature["input_ids"][9]
    scores = np.eye(10, dtype=np.float32)[[7]]
    assert method().answer(scores, [example("#idiom000001#天")], Columns()) == {"#idiom000001#": 7}


@pytest.mark.parametrize(
    ("kind", "mark", "filler", "line"),
    [
        ("Bert", "[unused1]", "[MASK]", ""),
        ("XLNet", "<unk>", "<mask>", "no [unused1]: blanks are marked with <unk>"),
        ("MBart", "<unk>", "<mask>", "no [unused1]: blanks are marked with <unk>"),
        (
            "GPTChinese",
            "<unk>",
            "<unk>",
            "no [unused1] and no mask: blanks are marked with <unk>, other blanks ",
        ),
        # Its unknown token is the one that ends texts.
        ("Qwen2", "_", "_", "no [unused1] and no mask: blanks are marked with _, other blanks filled with _"),
    ],
)
def test_blanks_of_a_vocabulary_without_marks(tiny_tokenizer, caplog, kind, mark, filler, line):
    tokenizer = tiny_tokenizer(kind)
    m = Chid(tokenizer, 48, "joint")
    assert len(caplog.messages) == (line != "")
    assert all(message.startswith(f"the vocabulary has {line}") for message in caplog.messages)
    one, two = m.encode(example("的我们今天#idiom000001#了#idiom000002#在"))
    window = two["input_ids"][0][m.sequences.second_begin(len(m._ids(IDIOMS[0]))) :]
    tokens = tokenizer.convert_ids_to_tokens(window)
    assert [token for token in tokens if token in (mark, filler)] == [filler] * 4 + [mark]
    assert all(len(row) <= 48 for feature in (one, two) for row in feature["input_ids"])
    with pytest.raises(UserError, match=f"at least {m.sequences.num_special(2) + 7}$"):
        Chid(tokenizer, m.sequences.num_special(2) + 6, "joint")
