"""The method of CHID: which idiom fills which blank."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clue_utils.data.examples import Examples
from clue_utils.data.readers import blanks
from clue_utils.errors import UserError
from clue_utils.features.method import Method, probabilities
from clue_utils.features.store import Feature, Features
from clue_utils.language import say
from clue_utils.leaderboard.write import Answers
from clue_utils.scores.chid import assign_candidates
from clue_utils.settings import Settings, recorded
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import ASSIGNMENT_RULES, BLANK, NUM_CANDIDATES, Example

logger = logging.getLogger("clue_utils.chid")
# Idioms have four characters nearly always; the window leaves room for one of them and the blank's mark.
IDIOM_TOKENS = 4
BLANK_MARK = "[unused1]"
_LEAST_WINDOW_TOKENS = 2
# The official preprocessing writes these marks in ASCII; a dash of two characters, as Chinese has it, becomes "--".
ASCII_MARKS = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": "-", "―": "-", "…": "..."})


class Chid(Method):
    """``[CLS] idiom [SEP] left [unused1] right [SEP]``, or as the tokenizer has it, for ten idioms a blank.

    Windows follow CLUE's official preprocessing (``CHID_preprocess.py``): around the blank lies what an idiom of four
    tokens, the blank's mark and special tokens leave of ``max_seq_length`` (all but 8 where they are BERT's), half on
    each side, what one side does not need going to the other; segment ids are all 0. Where the vocabulary has no
    ``[unused1]`` or no mask, the unknown token or else ``_`` takes its place.

    Args:
        assignment: how candidates are given to the blanks of an example, see ``chid.assign_candidates``.
    """

    name = "chid"
    num_outputs = width = NUM_CANDIDATES
    texts = ("candidate", "passage")
    has_segments = False

    def __init__(self, tokenizer: Any, max_seq_length: int, assignment: str) -> None:
        super().__init__(tokenizer, max_seq_length)
        self.window_tokens = max_seq_length - self.sequences.num_special(2) - IDIOM_TOKENS - 1
        if self.window_tokens < _LEAST_WINDOW_TOKENS:
            least = max_seq_length - self.window_tokens + _LEAST_WINDOW_TOKENS
            raise UserError(
                say(
                    "--max_seq_length {max_seq_length} leaves no room around a blank: pass at least {least}",
                    max_seq_length=max_seq_length,
                    least=least,
                )
            )
        self.assignment = assignment
        mark, filler, other = tokenizer.get_vocab().get(BLANK_MARK), tokenizer.mask_token_id, self._stand_in()
        if other is None and (mark is None or filler is None):
            raise UserError(
                say(
                    "the vocabulary has not both {blank_mark} and a mask, to mark blanks with, nor an unknown "
                    'token or one for "_" in their place: choose another model',
                    blank_mark=BLANK_MARK,
                )
            )
        self.mark: int = other if mark is None else mark
        self.filler: int = other if filler is None else filler
        missing = [name for name, id_ in ((BLANK_MARK, self.mark), ("mask", self.filler)) if id_ == other]
        if missing:
            mark, filler = tokenizer.convert_ids_to_tokens([self.mark, self.filler])
            others = say(", other blanks filled with {filler}", filler=filler) if "mask" in missing else ""
            logger.warning(
                say(
                    "the vocabulary has no {missing}: blanks are marked with {mark}{others}",
                    missing=say(" and no ").join(missing),
                    mark=mark,
                    others=others,
                )
            )

    def _stand_in(self) -> Any:
        """The id for what the vocabulary does not have: of the unknown token, but where that ends a text; or None."""
        tokenizer = self.tokenizer
        if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id, tokenizer.sep_token_id):
            return int(tokenizer.unk_token_id)
        return next(reversed(self._ids("_")), None)

    def description(self) -> JsonObject:
        blanks = {"blank_ids": [self.mark], "other_blank_ids": [self.filler] * IDIOM_TOKENS}
        return super().description() | {"num_choices": NUM_CANDIDATES} | blanks

    def encode(self, example: Example) -> list[Feature]:
        """One feature for each blank: ``input_ids`` of ten rows and ``label``."""
        candidates = [self._ids(idiom) for idiom in example["candidates"]]
        answers = example.get("answers", {})
        features = []
        for passage in example["content"]:
            tokens, tags = self._passage(passage)
            for position, tag in tags:
                left, right = self._window(tokens, position)
                rows = [self._pack(idiom, left, right) for idiom in candidates]
                features.append({"input_ids": rows, "label": answers.get(tag, -1)})
        return features

    def _passage(self, passage: str) -> tuple[list[int | None], list[tuple[int, str]]]:
        """Ids of a passage with None for each blank, and position and tag of each blank."""
        tokens: list[int | None] = []
        tags = []
        end = 0
        for match in re.finditer(BLANK, passage):
            tokens += self._ids(passage[end : match.start()].translate(ASCII_MARKS))
            tags.append((len(tokens), match.group()))
            tokens.append(None)
            end = match.end()
        return tokens + self._ids(passage[end:].translate(ASCII_MARKS)), tags

    def _window(self, tokens: list[int | None], position: int) -> tuple[list[int], list[int]]:
        """Ids to the left and right of a blank; other blanks become four masks, as long as an idiom."""
        size = self.window_tokens
        before, after = position, len(tokens) - position - 1
        half = size // 2
        num_left = min(before, max(half, size - after))
        num_right = min(after, size - num_left)
        left = self._mask_blanks(tokens[position - num_left : position])
        right = self._mask_blanks(tokens[position + 1 : position + 1 + num_right])
        return left[len(left) - num_left :], right[:num_right]

    def _mask_blanks(self, tokens: list[int | None]) -> list[int]:
        mask = [self.filler] * IDIOM_TOKENS
        return [id_ for token in tokens for id_ in (mask if token is None else [token])]

    def _pack(self, idiom: list[int], left: list[int], right: list[int]) -> list[int]:
        idiom = idiom[: IDIOM_TOKENS + self.window_tokens]
        surplus = len(idiom) + len(left) + len(right) - IDIOM_TOKENS - self.window_tokens
        for _ in range(surplus):  # an idiom of more than four tokens: give up what is farthest from the blank
            if len(right) >= len(left):
                right = right[:-1]
            else:
                left = left[1:]
        return self.sequences.build(idiom, [*left, self.mark, *right])[0]

    def choose(self, scores: np.ndarray, examples: Examples, features: Features) -> np.ndarray:
        """Candidates for all blanks, each used once within its example whatever batch its blanks were in."""
        ends = np.cumsum([len(blanks(example)) for example in examples])
        return np.concatenate([assign_candidates(part, self.assignment) for part in np.split(scores, ends[:-1])])

    def answer(self, scores: np.ndarray, examples: Examples, features: Features) -> Answers:
        tags = [tag for example in examples for tag in blanks(example)]
        return dict(zip(tags, map(int, self.choose(scores, examples, features)), strict=True))

    def predictions(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        rows = zip(self.choose(scores, examples, features).tolist(), map(probabilities, scores), strict=True)
        for example in examples:
            filled = []
            for tag, (index, shares) in zip(blanks(example), rows, strict=False):  # the rows of the next go on there
                answer = {"tag": tag, "answer": example["candidates"][index], "index": index}
                filled.append(answer | {"probability": shares[index], "probabilities": shares})
            yield {"blanks": filled}

    def explain(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        """One object an example, numbered from 0, with its blanks one after the other."""
        chosen, cut = self.choose(scores, examples, features).tolist(), self.cut_examples(examples, features)
        end = 0
        for number, (example, is_cut) in enumerate(zip(examples, cut, strict=True)):
            candidates, golds = example["candidates"], example["answers"]
            begin, end = end, end + len(golds)
            filled = [
                {
                    "tag": tag,
                    "gold": candidates[gold],
                    "answer": candidates[answer],
                    "probabilities": probabilities(row),
                    "is_right": answer == gold,
                }
                for (tag, gold), answer, row in zip(golds.items(), chosen[begin:end], scores[begin:end], strict=True)
            ]
            yield {
                "id": number,
                "inputs": {
                    "content": [passage.translate(ASCII_MARKS) for passage in example["content"]],
                    "candidates": candidates,
                },
                "is_cut": is_cut,
                "gold": [blank["gold"] for blank in filled],
                "answer": [blank["answer"] for blank in filled],
                "blanks": filled,
                "is_right": all(blank["is_right"] for blank in filled),
            }

    def is_cut(self, example: Example) -> bool:
        """Whether a window shows less than its whole passage with four masks for each other blank."""
        surplus = max(len(self._ids(idiom)) for idiom in example["candidates"]) - IDIOM_TOKENS
        for tokens, tags in map(self._passage, example["content"]):
            whole = len(self._mask_blanks(tokens)) - IDIOM_TOKENS
            for position, _ in tags:
                if whole > min(sum(map(len, self._window(tokens, position))), self.window_tokens - max(0, surplus)):
                    return True
        return False


@dataclass(frozen=True, kw_only=True)
class ChidSettings(Settings):
    """The settings of a run on CHID."""

    assignment: str = recorded(
        "CHID",
        ASSIGNMENT_RULES,
        "give the blanks of an example their idioms by the best joint assignment, or greedily as earlier scripts do",
        ASSIGNMENT_RULES[0],
    )
