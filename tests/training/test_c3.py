"""C3: packing context, question and choice."""

from __future__ import annotations

import pytest

from clue_utils.errors import UserError
from clue_utils.training.multiple_choice import C3


def example(context="甲乙丙丁", question="谁？", choice=("甲", "乙", "丙", "丁"), label=2) -> dict:
    return {"id": 7, "context": [context], "question": question, "choice": list(choice), "label": label}


def test_a_row_holds_context_question_and_choice(tokenizer):
    (feature,) = C3(tokenizer, 64).encode(example())
    tokens = tokenizer.convert_ids_to_tokens(feature["input_ids"][1])
    assert tokens == "[CLS] 甲 乙 丙 丁 [SEP] 谁 ？ [SEP] 乙 [SEP]".split()
    assert feature["token_type_ids"][1] == [0] * 6 + [1] * 5
    assert (feature["label"], feature["num_choices"]) == (2, 4)


def test_each_choice_is_cut_on_its_own(tokenizer):
    m = C3(tokenizer, 32)
    long_first = m.encode(example("天" * 100, choice=("地" * 60, "乙", "丙", "丁")))[0]
    long_last = m.encode(example("天" * 100, choice=("丁", "乙", "丙", "地" * 60)))[0]
    assert long_first["input_ids"][1] == long_last["input_ids"][1]
    assert long_first["input_ids"][0] == long_last["input_ids"][3]
    assert all(len(row) == 32 for row in long_first["input_ids"])
    alone = m.encode(example("天" * 100, choice=("乙",) * 4))[0]
    assert long_first["input_ids"][1] == alone["input_ids"][1]


def test_a_choice_longer_than_the_limit_keeps_its_question(tokenizer):
    (feature,) = C3(tokenizer, 32).encode(example("天", "谁？", ("地" * 400, "乙", "丙", "丁")))
    tokens = tokenizer.convert_ids_to_tokens(feature["input_ids"][0])
    assert len(tokens) == 32 and tokens[:6] == "[CLS] 天 [SEP] 谁 ？ [SEP]".split()
    with pytest.raises(UserError, match="at least 8"):
        C3(tokenizer, 7)


@pytest.mark.parametrize(("length", "kept"), [(13, (3, 3, 3)), (12, (2, 3, 3)), (11, (2, 3, 2)), (10, (2, 2, 2))])
def test_of_equally_long_texts_the_context_loses_first_then_the_choice(tokenizer, length, kept):
    method = C3(tokenizer, length)
    assert method.description()["losing"] == (0, 2, 1)  # as other programs are told
    (feature,) = method.encode(example("天" * 3, "问" * 3, ("地" * 3,) * 4))
    tokens = tokenizer.convert_ids_to_tokens(feature["input_ids"][0])
    assert tuple(map(tokens.count, "天问地")) == kept


def test_pieces_are_not_tokenised_again(tokenizer):
    (feature,) = C3(tokenizer, 64).encode(example("他说Playing games。"))
    tokens = tokenizer.convert_ids_to_tokens(feature["input_ids"][0])
    assert [t for t in tokens if t.startswith("##")] == [
        t for t in tokenizer.tokenize("playing games") if t.startswith("##")
    ]
    assert "#" not in tokens


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("XLMRoberta", "<s> c </s> </s> q </s> </s> o </s>"),
        ("XLNet", "c <sep> q <sep> o <sep> <cls>"),
        ("ErnieM", "[CLS] c [SEP] [SEP] q [SEP] [SEP] o [SEP]"),
        ("Qwen2", "c <|endoftext|> q <|endoftext|> o <|endoftext|>"),
    ],
)
def test_any_tokenizer_s_rows_are_full_and_end_as_it_has_them(tiny_tokenizer, kind, expected):
    tokenizer = tiny_tokenizer(kind)
    num_special = len(expected.split()) - 3
    m = C3(tokenizer, num_special + 6)
    (feature,) = m.encode(example("天地玄黄宇宙洪荒" * 9, "日月日月日月", ("盈昃盈昃盈昃",) * 4))
    tokens = tokenizer.convert_ids_to_tokens(feature["input_ids"][0])
    special = {*expected.split()} - {*"cqo"}
    assert len(tokens) == num_special + 6 == len(feature["token_type_ids"][0])
    assert [token for token in tokens if token in special] == [t for t in expected.split() if t in special]
    with pytest.raises(UserError, match=f"at least {num_special + 4}$"):
        C3(tokenizer, num_special + 3)
