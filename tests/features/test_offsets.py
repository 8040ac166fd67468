"""Characters that tokens stand for."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clue_utils.data.examples import load_examples
from clue_utils.features.offsets import AlignedOffsets, offset_tokenizer
from clue_utils.tasks import TASKS
from clue_utils.training.span import Cmrc2018
from tiny_tokenizers import BYTE_PAIRS, KINDS, SENTENCE_PIECES, WORDS

# Byte pairs are those of a tokenizer.json.
LOADED = [kind for kind in KINDS if kind not in BYTE_PAIRS]

# --- BERT's word pieces -------------------------------------------------------------------------------------------


def test_an_unknown_word_is_one_span(tokenizer):
    ids, spans = offset_tokenizer(tokenizer)("甲" + "x" * 101 + "☆乙")
    assert ids[1] == tokenizer.unk_token_id and spans == [(0, 1), (1, 102), (102, 103), (103, 104)]


def test_words_are_cut_as_the_tokenizer_cuts_them(tokenizer, clue_data_dir):
    split = offset_tokenizer(tokenizer)
    for row in load_examples(TASKS["CMRC2018"], "test", clue_data_dir):
        expected = tokenizer(row["context"])["input_ids"][1:-1]
        ids, spans = split(row["context"])
        assert ids == expected
        assert len(spans) == len(ids) and all(b < e for b, e in spans) and spans == sorted(spans)


# --- tokenizers of every kind -------------------------------------------------------------------------------------

# What normalising changes, drops or joins, and what no vocabulary here has.
HARD = [
    *(
        " ",
        "  ",
        "\n",
        "\u3000",
        "\t",
        "\u200b",
        "\u00ad",
        "\x01",
        "e\u0301",
        "é",
        "Ａ",
        "１２",
        "½",
        "㎏",
        "ﬁ",
        "ß",
        "İ",
    ),
    *(
        "…",
        "——",
        "``",
        "''",
        "’",
        "﹏",
        "￣",
        "\u2581",
        "##",
        "1,",
        "(",
        "[UNK]",
        "<unk>",
        "龘",
        "ΣΑΣ",
        "한국",
        "が",
        "ｶﾞ",
    ),
    *("❤\ufe0f", "👨\u200d👩\u200d👧", "😀", "\u0e01\u0e33"),
]
TEXTS = st.lists(st.sampled_from([*WORDS, *HARD]), max_size=14).map("".join)


def is_written(char: str) -> bool:
    """Whether every tokenizer writes something for a character: neither blank nor mark, not even one on a blank."""
    parts = unicodedata.normalize("NFKD", char)
    return char != "\u2581" and any(unicodedata.category(part)[0] not in "ZCM" for part in parts)


@pytest.mark.parametrize("kind", LOADED)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=TEXTS)
def test_ranges_are_in_order_and_cover_what_is_seen(tiny_tokenizer, kind, text):
    tokenizer = tiny_tokenizer(kind)
    ids, spans = offset_tokenizer(tokenizer)(text)
    assert len(spans) == len(ids)
    if kind != "Bert":  # where names of special tokens are text like any other
        assert ids == tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    assert all(0 <= begin <= end <= len(text) for begin, end in spans)
    for column in zip(*spans, strict=True):
        assert list(column) == sorted(column)
    covered = {place for begin, end in spans for place in range(begin, end)}
    assert [text[i] for i in range(len(text)) if is_written(text[i]) and i not in covered] == []


@pytest.mark.parametrize("kind", LOADED)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=TEXTS.filter(str.strip), choice=st.randoms(use_true_random=False))
def test_an_answer_from_token_to_token_is_found_again(tiny_tokenizer, kind, text, choice):
    method = Cmrc2018(tiny_tokenizer(kind), 512, 128, 64, 20, 50)
    _, spans = offset_tokenizer(method.tokenizer)(text)
    if not (seen := [(begin, end) for begin, end in spans if begin < end]):
        return
    (begin, _), (_, stop) = sorted(choice.choices(seen, k=2))
    answer = text[begin:stop]
    answers = [{"text": answer, "answer_start": begin}]
    (feature,) = method.encode({"id": "Q", "context": text, "question": "？", "answers": answers})
    begins, ends = feature["char_begin"], feature["char_end"]
    start, end = (feature[name] - feature["context"] for name in ("start", "end"))
    assert text[begins[start] : ends[end]].strip() == answer


def tokens_and_texts(tokenizer: Any, text: str) -> list[tuple[str, str]]:
    ids, spans = AlignedOffsets(tokenizer)(text)
    return [(token, text[b:e]) for token, (b, e) in zip(tokenizer.convert_ids_to_tokens(ids), spans, strict=True)]


@pytest.mark.parametrize("kind", SENTENCE_PIECES)
def test_a_piece_of_a_character_is_one_token(tiny_tokenizer, kind):
    """And the mark of a word's beginning stands for no character."""
    written = tokens_and_texts(tiny_tokenizer(kind), "玄 盈,Ｚ")
    texts = [text for _, text in written if text]
    assert "".join(texts) == "玄盈,Ｚ" and all(not token.strip("\u2581") for token, text in written if not text)


def test_tokens_of_bytes_share_the_character_that_they_are_parts_of(tiny_tokenizer):
    text = "的 龘北京"
    _, spans = offset_tokenizer(tiny_tokenizer("JsonBytePairs"))(text)
    texts = [text[begin:end] for begin, end in spans if begin < end]
    assert texts.count("龘") == 3 and texts[0] == "的" and "".join(dict.fromkeys(texts)) == "的龘北京"


@pytest.mark.parametrize("kind", ["RoFormer", "ErnieTiny"])
def test_an_unknown_token_stands_for_what_lies_between_its_neighbours(tiny_tokenizer, kind):
    written = tokens_and_texts(tiny_tokenizer(kind), "北京 😀的")
    assert written[-2:] == [("[UNK]", "😀"), (written[-1][0], "的")]
    assert "".join(dict.fromkeys(text for _, text in written)) == "北京😀的"


def test_words_of_a_list_are_one_token(tiny_tokenizer):
    assert tokens_and_texts(tiny_tokenizer("RoFormer"), "今天 北京天气不错")[:3] == [
        ("今天", "今天"),
        ("北京", "北京"),
        ("天气", "天气"),
    ]


def test_the_same_text_in_another_form_is_found(tiny_tokenizer):
    """Full width, ligatures, composed letters, quotation marks and dashes that a tokenizer writes in its own way."""
    for kind, text in (
        ("XLNet", "ＡＢＣ½cafe\u0301 ``的''"),
        ("UnifiedTransformer", "“的”—‘１２’ﬁ"),
        ("AlbertEnglish", "İÜß的"),
    ):
        _, spans = AlignedOffsets(tiny_tokenizer(kind))(text)
        covered = {place for begin, end in spans for place in range(begin, end)}
        assert covered == {place for place, char in enumerate(text) if char != " "}, kind


def test_pieces_that_are_bytes_share_the_character_that_they_write():
    tokens = ["\u2581的", "<0xE9>", "<0xBE>", "<0x98>", "<0xE4>", "<0xBD>", "<0xA0>", "北", "<0x0A>"]
    tokenizer = SimpleNamespace(
        tokenize=lambda text: tokens,
        convert_tokens_to_ids=lambda tokens: [*range(len(tokens))],
        unk_token="<unk>",
        unk_token_id=None,
    )
    ids, spans = AlignedOffsets(tokenizer)("的龘你北\n")
    assert ids == [*range(9)]
    assert spans == [(0, 1), *[(1, 2)] * 3, *[(2, 3)] * 3, (3, 4), (4, 4)]


def test_marks_of_chinese_in_ascii_are_those_of_the_text():
    tokens = ["北", "京", '"', "的", '"', ".", "<unk>", "~"]
    tokenizer = SimpleNamespace(
        tokenize=lambda text: tokens,
        convert_tokens_to_ids=lambda tokens: [*range(len(tokens))],
        unk_token="<unk>",
        unk_token_id=6,
    )
    _, spans = AlignedOffsets(tokenizer)("北京《的》。😀～")
    assert spans == [(i, i + 1) for i in range(8)]
