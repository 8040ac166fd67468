"""C3: packing context, question and choice."""

from __future__ import annotations

import pytest

from clue_utils.errors import UserError
from run_c3 import C3, truncated_lengths


def example(context="甲乙丙丁", question="谁？", choice=("甲", "乙", "丙", "丁"), label=2) -> dict:
    return {"id": 7, "context": [context], "question": question, "choice": list(choice), "label": label}


@pytest.mark.parametrize(
    ("lengths", "limit", "kept"),
    [
        ((5, 3, 2), 10, (5, 3, 2)),
        ((9, 3, 2), 10, (5, 3, 2)),
        ((5, 5, 5), 12, (4, 4, 4)),
        ((5, 5, 5), 14, (4, 5, 5)),  # at a tie the context loses first,
        ((4, 5, 5), 13, (4, 5, 4)),  # then the choice
        ((2, 3, 90), 10, (2, 3, 5)),
        ((0, 0, 9), 4, (0, 0, 4)),
    ],
)
def test_the_longest_part_is_cut(lengths, limit, kept):
    assert truncated_lengths(*lengths, limit) == kept


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


def test_pieces_are_not_tokenised_again(tokenizer):
    (feature,) = C3(tokenizer, 64).encode(example("他说Playing games。"))
    tokens = tokenizer.convert_ids_to_tokens(feature["input_ids"][0])
    assert [t for t in tokens if t.startswith("##")] == [
        t for t in tokenizer.tokenize("playing games") if t.startswith("##")
    ]
    assert "#" not in tokens
