"""How a tokenizer puts texts into one sequence: found once, by marks in the place of texts, and cheap from then on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from clue_utils.errors import UserError
from clue_utils.language import say

# Ids that no token has, in the place of two texts.
_FIRST, _SECOND = -1, -2


def truncated_lengths(lengths: Sequence[int], limit: int, losing: Sequence[int]) -> list[int]:
    """How many tokens of each text are kept so that they sum to at most ``limit``.

    It is as if the longest lost its last token until they fit (what tokenizers call ``longest_first``).

    Args:
        losing: numbers of the texts, in the order in which equally long ones lose a token.
    """
    if sum(lengths) <= limit:
        return [*lengths]
    # The longest, which are cut, end with ``level`` tokens, but ``more`` of them with one more.
    rest, level, more = limit, 0, 0
    for number, length in enumerate(sorted(lengths)):
        level, more = divmod(rest, len(lengths) - number)
        if length > level:
            break
        rest -= length
    kept = [min(length, level) for length in lengths]
    cut = [number for number in losing if lengths[number] > level]
    for number in cut[len(cut) - more :]:
        kept[number] += 1
    return kept


class _Form(NamedTuple):
    """A sequence of some texts: what is before, between and after them, and the segment of each."""

    gaps: list[list[int]]
    gap_types: list[list[int]]
    text_types: list[int]


class Sequences:
    """Sequences of one, two or three texts with special tokens and segment ids as a tokenizer writes them.

    That is ``[CLS] a [SEP] b [SEP]`` of BERT, ``<s> a </s></s> b </s>`` of RoBERTa, ``a <sep> b <sep> <cls>`` of XLNet
    and so on. Tokenizers of models that generate text put nothing between two texts, or after the last, or leave out
    the second: there its separator does, or else its token of a text's end. A third text follows the second as that
    follows the first, within the second's segment.

    Raises:
        UserError: the tokenizer has no token to set two texts apart.
    """

    def __init__(self, tokenizer: Any) -> None:
        one, two = _find_form(tokenizer, [_FIRST]), _find_form(tokenizer, [_FIRST, _SECOND])
        (before, between, after), (_, first_types, last_types) = two.gaps, two.gap_types
        first, second = two.text_types
        three = _Form(
            [before, between, between, after],
            [two.gap_types[0], first_types, [second] * len(between), last_types],
            [first, second, second],
        )
        self._forms = {1: one, 2: two, 3: three}
        ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id)
        # Whatever a row is padded with is hidden from the model.
        self.pad_id: int = next((id_ for id_ in ids if id_ is not None), 0)
        self.num_segments = 1 + max(itertools.chain(two.text_types, *one.gap_types, *two.gap_types))
        # Whether the token that stands for the whole ([CLS]) is the first: elsewhere it is the last.
        self.begins_with_special = bool(before)

    def build(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """The ids of the sequence of texts, and the segment of each token; ``texts``: ids without special tokens."""
        gaps, gap_types, text_types = self._forms[len(texts)]
        ids, types = [*gaps[0]], [*gap_types[0]]
        for text, gap, type_, types_after in zip(texts, gaps[1:], text_types, gap_types[1:], strict=True):
            ids += text
            ids += gap
            types += [type_] * len(text)
            types += types_after
        return ids, types

    def form(self, num_texts: int) -> dict[str, list[Any]]:
        """What ``build`` puts before, between and after so many texts, and the segments, for programs without it."""
        return self._forms[num_texts]._asdict()

    def num_special(self, num_texts: int) -> int:
        """How many tokens a sequence has beside those of its texts."""
        return sum(map(len, self._forms[num_texts].gaps))

    def second_begin(self, len_first: int) -> int:
        """The position of the second text's first token after a first text of so many."""
        before, between, _ = self._forms[2].gaps
        return len(before) + len_first + len(between)


def _find_form(tokenizer: Any, marks: list[int]) -> _Form:
    texts = [[mark] for mark in marks]
    ids = list(tokenizer.build_inputs_with_special_tokens(*texts))
    if marks[-1] not in ids:  # GLM's takes one text alone
        ids.insert(ids.index(_FIRST) + 1, marks[-1])
    bounds = [ids.index(mark) for mark in marks]
    types = tokenizer.create_token_type_ids_from_sequences(*texts)
    if types is None or len(types) != len(ids):  # none of its own, or of texts alone
        second = bounds[-1] if len(marks) > 1 else len(ids)
        types = [int(position >= second) for position in range(len(ids))]
    cuts = list(itertools.pairwise([-1, *bounds, len(ids)]))
    form = _Form([ids[a + 1 : b] for a, b in cuts], [types[a + 1 : b] for a, b in cuts], [types[b] for b in bounds])
    for number, gap in enumerate(form.gaps[1:], 1):
        if not gap:
            gap.append(_separator(tokenizer))
            form.gap_types[number].append(form.text_types[number - 1])
    return form


def _separator(tokenizer: Any) -> int:
    separators = (tokenizer.sep_token_id, tokenizer.eos_token_id)
    separator: int | None = next((id_ for id_ in separators if id_ is not None), None)
    if separator is None:
        raise UserError(
            say(
                "{name} has neither a sep_token nor an eos_token to set two texts apart with: name one in "
                "tokenizer_config.json",
                name=type(tokenizer).__name__,
            )
        )
    return separator
