"""Sequences of texts as each tokenizer has them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clue_utils.errors import UserError
from clue_utils.features.sequences import Sequences, truncated_lengths
from tiny_tokenizers import KINDS, TOKENIZER_JSON

# Two texts of one token each, and the segments.
PAIRS = {
    "Bert": ("[CLS] a [SEP] b [SEP]", "00011"),
    "RoFormer": ("[CLS] a [SEP] b [SEP]", "00011"),
    "ErnieTiny": ("[CLS] a [SEP] b [SEP]", "00011"),
    "RemBert": ("[CLS] a [SEP] b [SEP]", "00011"),
    "AlbertEnglish": ("[CLS] a [SEP] b [SEP]", "00011"),
    "DebertaV2": ("[CLS] a [SEP] b [SEP]", "00011"),
    "UnifiedTransformer": ("[CLS] a [SEP] b [SEP]", "00011"),
    "ErnieCtm": ("[CLS0] [CLS1] a [SEP] b [SEP]", "000011"),
    "ErnieM": ("[CLS] a [SEP] [SEP] b [SEP]", "001111"),
    "RobertaBPE": ("<s> a </s> </s> b </s>", "000000"),
    "XLMRoberta": ("<s> a </s> </s> b </s>", "000000"),
    "XLNet": ("a <sep> b <sep> <cls>", "00112"),
    "MBart": ("a </s> b </s> en_XX", "00111"),
    "GLMChinese": ("[CLS] a [SEP] b <|endoftext|>", "00011"),
    "Qwen2": ("a <|endoftext|> b <|endoftext|>", "0011"),
    "GPT": ("a <|endoftext|> b <|endoftext|>", "0011"),
    "GPTChinese": ("a <eod> b <eod>", "0011"),
    "JsonBytePairs": ("a </s> b </s>", "0011"),
    "JsonUnigram": ("a </s> b </s>", "0011"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_texts(tiny_tokenizer, kind):
    tokenizer = tiny_tokenizer(kind)
    sequences = Sequences(tokenizer)
    a, b = tokenizer.convert_tokens_to_ids(["1", "2"])
    ids, types = sequences.build([a], [b])
    tokens = [{a: "a", b: "b"}.get(id_) or tokenizer.convert_ids_to_tokens(id_) for id_ in ids]
    assert (" ".join(tokens), "".join(map(str, types))) == PAIRS[kind]
    assert sequences.num_special(2) == len(ids) - 2 and sequences.num_segments == max(types) + 1
    # What is between the texts is between the second and a third, which is of the second's segment.
    gap, where = ids[ids.index(a) + 1 : ids.index(b)], ids.index(b)
    more, more_types = sequences.build([a, a], [b, b], [a])
    assert more == [*ids[: ids.index(a)], a, a, *gap, b, b, *gap, a, *ids[where + 1 :]]
    assert more_types[-len(ids) + where :] == types[where:] and len(more) == len(more_types)
    assert sequences.num_special(3) == len(more) - 5
    assert [more[sequences.second_begin(2) :][:2], more[sequences.second_begin(2) - 1]] == [[b, b], gap[-1]]
    assert sequences.begins_with_special == (ids[0] != a)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_put_together_as_the_tokenizer_does_it(tiny_tokenizer, kind):
    tokenizer = tiny_tokenizer(kind)
    sequences = Sequences(tokenizer)
    for texts in ([[]], [[77, 78, 79]], [[77, 78], [79]], [[], [79]], [[77], []]):
        ids, types = sequences.build(*texts)
        if kind in ("MBart", "GLMChinese", "Qwen2", "GPT", "GPTChinese", *TOKENIZER_JSON):  # which separate none
            assert [id_ for id_ in ids if id_ in (77, 78, 79)] == [id_ for text in texts for id_ in text]
        else:
            assert ids == tokenizer.build_inputs_with_special_tokens(*texts)
            assert types == tokenizer.create_token_type_ids_from_sequences(*texts)
        assert len(types) == len(ids) == sum(map(len, texts)) + sequences.num_special(len(texts))


def test_a_row_is_padded_with_a_token_that_there_is(tiny_tokenizer):
    padding = {kind: Sequences(tiny_tokenizer(kind)).pad_id for kind in ("Bert", "XLMRoberta", "GPTChinese")}
    assert padding == {"Bert": 0, "XLMRoberta": 1, "GPTChinese": tiny_tokenizer("GPTChinese").eos_token_id}


def test_a_tokenizer_without_a_separator_is_refused():
    bare = SimpleNamespace(
        build_inputs_with_special_tokens=lambda *texts: sum(texts, []),
        create_token_type_ids_from_sequences=lambda *texts: None,
        sep_token_id=None,
        eos_token_id=None,
    )
    with pytest.raises(UserError, match="neither a sep_token nor an eos_token .* tokenizer_config.json$"):
        Sequences(bare)


# --- texts that are too long -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "limit", "kept"),
    [
        ((5, 3, 2), 10, (5, 3, 2)),
        ((9, 3, 2), 10, (5, 3, 2)),
        ((5, 5, 5), 12, (4, 4, 4)),
        ((5, 5, 5), 14, (4, 5, 5)),  # C3's order: the context,
        ((4, 5, 5), 13, (4, 5, 4)),  # then the choice
        ((2, 3, 90), 10, (2, 3, 5)),
        ((0, 0, 9), 4, (0, 0, 4)),
    ],
)
def test_the_longest_text_is_cut(lengths, limit, kept):
    assert truncated_lengths(lengths, limit, losing=(0, 2, 1)) == [*kept]


@given(
    texts=st.permutations(range(3)), lengths=st.lists(st.integers(0, 12), min_size=1, max_size=3), room=st.floats(0, 1)
)
def test_lengths_are_those_of_cutting_token_by_token(texts, lengths, room):
    losing = [number for number in texts if number < len(lengths)]
    limit = round(room * (sum(lengths) + 2))
    kept = [*lengths]
    while sum(kept) > limit:
        kept[max(losing, key=lambda number: (kept[number], -losing.index(number)))] -= 1
    assert truncated_lengths(lengths, limit, losing) == kept


def test_a_text_of_a_million_tokens_is_cut_at_once():
    assert truncated_lengths([10**15, 3, 10**15], 12, losing=(0, 1, 2)) == [4, 3, 5]
