"""Which characters of a text each of its tokens stands for, whatever kind the tokenizer is."""

from __future__ import annotations

import difflib
import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from clue_utils.features.tokenization import WORD_BEGIN, sets_ideographs_apart

# A half-open range of characters.
Span = tuple[int, int]
# What an unknown token writes: a code point that is no character.
_NO_TEXT = "\uffff"
# How sentencepiece names a byte of a character that it has no piece for.
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
# Marks that some tokenizers write as one another: quotation marks, dashes, and those of Chinese in ASCII.
_ALIKE = {
    **dict.fromkeys("‘’`", "'"),
    **dict.fromkeys('“”"《》「」', "''"),
    **dict.fromkeys("‐‑‒–—―━−", "-"),
    **dict(zip("。、〈〉【】", ".,<>[]", strict=True)),
}


def offset_tokenizer(tokenizer: Any) -> Callable[[str], tuple[list[int], list[Span]]]:
    """A function: text -> ids of its tokens, and the range of characters in the text that each stands for."""
    if sets_ideographs_apart(tokenizer):
        return WordPieceOffsets(tokenizer)
    if hasattr(tokenizer, "encode_with_offsets"):  # which tokenizer.json describes
        return tokenizer.encode_with_offsets
    return AlignedOffsets(tokenizer)


class WordPieceOffsets:
    """Splits text into BERT's word pieces and says which characters of the text each piece stands for.

    Words are the tokenizer's own: cut at white space, punctuation, symbols and CJK characters, in lower case, without
    accents. They are, one after another, as long as what the tokenizer writes for each character alone, so every
    position within them has a character that it comes from. Pieces are laid along the positions of their word; where
    that does not add up, as for an unknown word, every piece stands for the whole word. A mark that nothing is written
    for, such as an accent, belongs to the character before it. Names of special tokens are text like any other.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        basic = tokenizer.basic_tokenizer
        self._words = basic.tokenize
        self._written_length = functools.cache(lambda char: len("".join(basic.tokenize(char))))
        self._pieces = functools.cache(self._split)

    def __call__(self, text: str) -> tuple[list[int], list[Span]]:
        """Ids of the pieces, and the half-open range of characters in ``text`` of each."""
        lengths = [self._written_length(char) for char in text]
        # writer[i]: the character of the text that wrote position i of the words.
        writer = [i for i, length in enumerate(lengths) for _ in range(length)]
        ends = _ends_with_marks(text, lengths)
        ids: list[int] = []
        spans: list[Span] = []
        position = 0
        for word in self._words(text):
            word_ids, word_spans = self._pieces(word)
            ids += word_ids
            spans += [(writer[position + b], ends[writer[position + e - 1]]) for b, e in word_spans]
            position += len(word)
        return ids, spans

    def _split(self, word: str) -> tuple[list[int], list[Span]]:
        """Ids of a word's pieces, and which of its positions each stands for."""
        pieces = self.tokenizer.tokenize(word)
        texts = [piece.removeprefix("##") for piece in pieces]
        ends = list(itertools.accumulate(map(len, texts)))
        spans = list(zip([0, *ends], ends, strict=False))
        if "".join(texts) != word:
            spans = [(0, len(word))] * len(pieces)
        return self.tokenizer.convert_tokens_to_ids(pieces), spans


class AlignedOffsets:
    """Splits a whole text into the tokens of any tokenizer and says which characters of it each stands for.

    What the tokens write, one after another, is the text as the tokenizer normalises it: in another case, width or
    composition, with other blanks. Both are reduced to what normalising leaves alone (see ``_reduced``) and laid side
    by side, which is the same string nearly always. A token that matches nothing, an unknown one, stands for
    what lies between its neighbours: where that is nothing but blanks, for no character (an empty range). Tokens may
    share a character, of whose bytes each has some.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._unknown = None if tokenizer.unk_token_id is None else tokenizer.unk_token
        self._continues = "##" if hasattr(tokenizer, "wordpiece_tokenizer") else ""

    def __call__(self, text: str) -> tuple[list[int], list[Span]]:
        """Ids of the tokens, and the half-open range of characters in ``text`` of each."""
        tokens = self.tokenizer.tokenize(text)
        written, ranges = self._written(tokens)
        reduced = [*map(_reduced, text)]
        places = [place for place, part in enumerate(reduced) for _ in part]
        matches = _matches(written, "".join(reduced))
        ends = _ends_with_marks(text, [*map(len, reduced)])
        spans: list[Span | None] = []
        for begin, end in ranges:
            found = [places[i] for i in matches[begin:end] if i is not None]
            spans.append((found[0], ends[found[-1]]) if found else None)
        return self.tokenizer.convert_tokens_to_ids(tokens), _fill_gaps(spans, text)

    def _written(self, tokens: list[str]) -> tuple[str, list[Span]]:
        """What tokens write, reduced, and the range of each within it."""
        parts = [self._bytes_of(token) for token in tokens]
        # A byte that is no part of a character becomes a character of its own.
        text = b"".join(parts).decode("utf-8", "surrogateescape")
        char_at = [i for i, char in enumerate(text) for _ in char.encode("utf-8", "surrogateescape")]
        reduced = [*map(_reduced, text)]
        first = list(itertools.accumulate(map(len, reduced), initial=0))
        ends = list(itertools.accumulate(map(len, parts)))
        bounds = zip([0, *ends], ends, strict=False)
        written = "".join(reduced)
        return written, [(first[char_at[b]], first[char_at[e - 1] + 1]) if b < e else (0, 0) for b, e in bounds]

    def _bytes_of(self, token: str) -> bytes:
        if token == self._unknown:
            return _NO_TEXT.encode()
        if match := _BYTE_PIECE.fullmatch(token):
            return bytes([int(match[1], 16)])
        return token.removeprefix(self._continues).encode("utf-8", "surrogateescape")


@functools.lru_cache(1 << 16)
def _reduced(char: str) -> str:
    """What normalising leaves alone of a character: no case, width, ligature, accent; nothing of a blank."""
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(_ALIKE.get(part, part) for part in parts if not _is_blank(part) and not _is_mark(part))


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def _is_blank(char: str) -> bool:
    """Whether a character is white space or none that is seen (controls)."""
    return char == WORD_BEGIN or unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc", "Cf")


def _matches(written: str, text: str) -> Sequence[int | None]:
    """For each position in ``written`` the one in ``text`` that is the same."""
    if written == text:
        return range(len(text))
    matches: list[int | None] = [None] * len(written)
    for begin, other, size in difflib.SequenceMatcher(None, written, text, autojunk=False).get_matching_blocks():
        matches[begin : begin + size] = range(other, other + size)
    return matches


def _ends_with_marks(text: str, lengths: list[int]) -> list[int]:
    """Where each character ends, with the marks behind it that nothing is written for (of which ``lengths`` is 0)."""
    ends, end = [0] * len(text), len(text)
    for i in reversed(range(len(text))):
        if lengths[i] or not _is_mark(text[i]):
            ends[i], end = end, i
    return ends


def _fill_gaps(spans: list[Span | None], text: str) -> list[Span]:
    """Give tokens without a range what lies between their neighbours (or what both have a part of), without blanks."""
    begins, begin = [], len(text)
    for span in reversed(spans):
        begin = span[0] if span else begin
        begins.append(begin)
    filled: list[Span] = []
    end = 0
    for span, begin in zip(spans, reversed(begins), strict=True):
        if span is None:
            filled.append(_without_blanks(text, *sorted((end, begin))))
        else:
            filled.append(span)
            end = span[1]
    return filled


def _without_blanks(text: str, begin: int, end: int) -> Span:
    inside = [i for i in range(begin, end) if not _is_blank(text[i])]
    return (inside[0], inside[-1] + 1) if inside else (begin, begin)
