"""The method of CMRC2018: answers as spans of a text."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clue_utils import cli
from clue_utils.data.examples import Examples
from clue_utils.errors import UserError
from clue_utils.features.method import Method, probabilities
from clue_utils.features.offsets import Span, offset_tokenizer
from clue_utils.features.store import Feature, Features
from clue_utils.language import say
from clue_utils.scores.accuracy import cross_entropy
from clue_utils.scores.cmrc2018 import cmrc2018_question, cmrc2018_scores, squad_scores
from clue_utils.settings import Settings, recorded
from clue_utils.strict_json import JsonObject
from clue_utils.tasks import Example

# Some gold starts of the official files are late by up to this many characters.
START_REPAIR = 3
# What the official code answers where no span is allowed, or what it holds are blanks.
NO_ANSWER = "empty"


def repaired_start(context: str, answer: dict[str, Any]) -> int | None:
    """First character of a gold answer in the context, moved back up to three where the file's number is late.

    None where the text is not there: such an answer cannot be learnt from.
    """
    for start in range(answer["answer_start"], answer["answer_start"] - START_REPAIR - 1, -1):
        if start >= 0 and context.startswith(answer["text"], start):
            return start
    return None


class Cmrc2018(Method):
    """``[CLS] question [SEP] window of the context [SEP]``, or as the tokenizer has it, start and end of the answer.

    Args:
        doc_stride: tokens between the starts of two windows of one context.
        max_query_length: tokens a question is cut to.
        n_best_size: best starts and ends of a window that are combined.
        max_answer_length: tokens of an answer at the most.
    """

    name = "cmrc2018"
    num_outputs = 2
    texts = ("question", "context")

    def __init__(
        self,
        tokenizer: Any,
        max_seq_length: int,
        doc_stride: int,
        max_query_length: int,
        n_best_size: int,
        max_answer_length: int,
    ) -> None:
        super().__init__(tokenizer, max_seq_length)
        self.num_special = self.sequences.num_special(2)
        least = max_query_length + self.num_special + 1
        if max_seq_length < least:
            raise UserError(
                say(
                    "--max_seq_length {max_seq_length} leaves no room for text beside a question of "
                    "--max_query_length {max_query_length}: pass at least {least}",
                    max_seq_length=max_seq_length,
                    max_query_length=max_query_length,
                    least=least,
                )
            )
        self.doc_stride, self.max_query_length = doc_stride, max_query_length
        self.n_best_size, self.max_answer_length = n_best_size, max_answer_length
        self.width = 2 * max_seq_length
        self._tokenize = functools.lru_cache(16)(offset_tokenizer(tokenizer))  # questions on one context come in a row

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"doc_stride": self.doc_stride, "max_query_length": self.max_query_length}

    def description(self) -> JsonObject:
        limits = {name: getattr(self, name) for name in ("max_query_length", "doc_stride", "max_answer_length")}
        return super().description() | limits

    def encode(self, example: Example) -> list[Feature]:
        """The windows of one question.

        Besides ``input_ids`` and ``token_type_ids``: ``start`` and ``end``, the answer's first and last token in the
        window (the ``[CLS]``, where the window does not hold it; the last token, where that stands for the whole);
        ``window``, the window's number; ``context``, the position of the window's first context token; for each of its
        context tokens ``char_begin`` and ``char_end``, and ``best``: 1 where no other window shows more of the token's
        surroundings.
        """
        question = self._tokenize(example["question"])[0][: self.max_query_length]
        ids, spans = self._tokenize(example["context"])
        answer = self._answer_tokens(example, spans)
        size = self.max_seq_length - len(question) - self.num_special
        windows = list(self._windows(len(ids), size))
        best = best_windows(windows)
        context = self.sequences.second_begin(len(question))
        features = []
        for number, (begin, end) in enumerate(windows):
            input_ids, token_type_ids = self.sequences.build(question, ids[begin:end])
            start = stop = 0 if self.sequences.begins_with_special else len(input_ids) - 1
            if answer and begin <= answer[0] and answer[1] < end:
                start, stop = (context + position - begin for position in answer)
            features.append(
                {
                    "input_ids": input_ids,
                    "token_type_ids": token_type_ids,
                    "start": start,
                    "end": stop,
                    "window": number,
                    "context": context,
                    "char_begin": [b for b, _ in spans[begin:end]],
                    "char_end": [e for _, e in spans[begin:end]],
                    "best": (best[begin:end] == number).astype(int).tolist(),
                }
            )
        return features

    def _windows(self, num_tokens: int, size: int) -> Iterator[Span]:
        begin = 0
        while True:
            yield begin, min(begin + size, num_tokens)
            if begin + size >= num_tokens:
                return
            begin += min(size, self.doc_stride)

    def _answer_tokens(self, example: Example, spans: list[Span]) -> Span | None:
        """First and last context token of the first gold answer."""
        if not example["answers"]:
            return None
        answer = example["answers"][0]
        begin = repaired_start(example["context"], answer)
        if begin is None:
            return None
        end = begin + len(answer["text"])
        inside = [i for i, (b, e) in enumerate(spans) if b < end and e > begin]
        return (inside[0], inside[-1]) if inside else None

    def score(self, scores: np.ndarray, examples: Examples, features: Features) -> dict[str, float]:
        starts = cross_entropy(scores[:, 0::2], features.column("start"))
        ends = cross_entropy(scores[:, 1::2], features.column("end"))
        predictions = self.answer(scores, examples, features)
        golds = {example["id"]: [answer["text"] for answer in example["answers"]] for example in examples}
        return {
            "loss": (starts + ends) / 2,
            **cmrc2018_scores(predictions, golds),
            **squad_scores(predictions, golds),
        }

    def answer(self, scores: np.ndarray, examples: Examples, features: Features) -> dict[str, str]:
        return {
            example["id"]: self._n_best(example["context"], scores, features, windows, 1)[0]["text"]
            for example, windows in zip(examples, _windows_of_questions(features), strict=True)
        }

    def predictions(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        for example, windows in zip(examples, _windows_of_questions(features), strict=True):
            n_best = self._n_best(example["context"], scores, features, windows, self.n_best_size)
            best = {name: n_best[0][name] for name in ("probability", "begin", "end")}
            yield {"answer": n_best[0]["text"], **best, "n_best": n_best}

    def explain(self, scores: np.ndarray, examples: Examples, features: Features) -> Iterator[JsonObject]:
        cut = self.cut_examples(examples, features)
        for example, windows, is_cut in zip(examples, _windows_of_questions(features), cut, strict=True):
            golds = [answer["text"] for answer in example["answers"]]
            n_best = self._n_best(example["context"], scores, features, windows, self.n_best_size)
            em, f1 = cmrc2018_question(n_best[0]["text"], dict.fromkeys(golds))
            yield {
                "id": example["id"],
                "inputs": {"context": example["context"], "question": example["question"]},
                "is_cut": is_cut,
                "gold": golds,
                "answer": n_best[0]["text"],
                "em": int(em),
                "f1": f1,
                "n_best": n_best,
                "is_right": em == 1,
            }

    def is_cut(self, example: Example) -> bool:
        """Whether the question is: windows show all of a context."""
        return len(self._tokenize(example["question"])[0]) > self.max_query_length

    def _spans(self, scores: np.ndarray, features: Features, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Spans of a window between its best starts and ends.

        Returns:
            Start plus end logit of each, float32 [starts, ends], -inf where it is not allowed; its first character
            [starts, 1] and the one after its last [1, ends], in the context.
        """
        window = features[i]
        tokens = slice(2 * window["context"], 2 * (window["context"] + len(window["best"])))
        start_logits, end_logits = scores[i, tokens].reshape(-1, 2).T
        starts = np.argsort(-start_logits, kind="stable")[: self.n_best_size, None]
        ends = np.argsort(-end_logits, kind="stable")[None, : self.n_best_size]
        allowed = (ends >= starts) & (ends - starts < self.max_answer_length) & (window["best"][starts] == 1)
        allowed &= window["char_begin"][starts] < window["char_end"][ends]  # not of blanks alone
        totals = np.where(allowed, start_logits[starts] + end_logits[ends], -np.inf)
        return totals, window["char_begin"][starts], window["char_end"][ends]

    def _n_best(
        self, context: str, scores: np.ndarray, features: Features, windows: range, size: int
    ) -> list[JsonObject]:
        """The ``size`` best different texts of a question, the answer first, with probabilities among themselves.

        The answer is the allowed span of the highest start plus end logit over all windows. As in the official SQuAD
        code, probabilities are the softmax of those sums. ``begin`` and ``end`` are characters of the context, None
        where no span is allowed.
        """
        found: list[tuple[float, str, int | None, int | None]] = []
        for i in windows:
            totals, begins, ends = self._spans(scores, features, i)
            texts: set[str] = set()
            for cell in np.argsort(-totals, axis=None, kind="stable").tolist():
                row, column = divmod(cell, totals.shape[1])
                if len(texts) == size or not totals[row, column] > -np.inf:
                    break
                begin = int(begins[row, 0])
                text = context[begin : ends[0, column]]
                begin += len(text) - len(text.lstrip())
                text = text.strip()
                if text not in texts:
                    texts.add(text)  # it may be empty between tokens that are bytes of a blank
                    found.append((float(totals[row, column]), text or NO_ANSWER, begin, begin + len(text)))
        found.sort(key=lambda span: -span[0])  # of equal ones the first window's stay first
        best: dict[str, tuple[float, str, int | None, int | None]] = {}
        for span in found or [(0.0, NO_ANSWER, None, None)]:
            best.setdefault(span[1], span)
        spans = [*best.values()][:size]
        shares = probabilities(np.array([total for total, *_ in spans]))
        return [
            {"text": text, "probability": share, "begin": begin, "end": end}
            for (_, text, begin, end), share in zip(spans, shares, strict=True)
        ]


def _windows_of_questions(features: Features) -> list[range]:
    """The rows of each question, one after the other."""
    bounds = [*np.flatnonzero(features.column("window") == 0).tolist(), len(features)]
    return [range(begin, end) for begin, end in itertools.pairwise(bounds)]


def best_windows(windows: list[Span]) -> np.ndarray:
    """For each token the window in which it has the most context on its poorer side (BERT's maximum-context rule).

    Returns:
        int64 [tokens], the first of equally good windows.
    """
    positions = np.arange(windows[-1][1])
    context = np.full((len(windows), len(positions)), -1.0)
    for row, (begin, end) in zip(context, windows, strict=True):
        inside = positions[begin:end]
        row[begin:end] = np.minimum(inside - begin, end - 1 - inside) + 0.01 * (end - begin)
    return context.argmax(axis=0)


@dataclass(frozen=True, kw_only=True)
class Cmrc2018Settings(Settings):
    """The settings of a run on CMRC2018, with the official defaults."""

    doc_stride: int = recorded(
        "CMRC2018", cli.positive_int, "tokens between the starts of two windows of one context", 128
    )
    max_query_length: int = recorded("CMRC2018", cli.positive_int, "tokens a question is cut to", 64)
    n_best_size: int = recorded("CMRC2018", cli.positive_int, "best starts and ends of a window that are combined", 20)
    max_answer_length: int = recorded("CMRC2018", cli.positive_int, "tokens of an answer at the most", 50)
    do_lower_case: bool | None = recorded(
        "CMRC2018", cli.boolean, "write text in lower case (default: as the model's tokenizer does)"
    )

    @property
    def lower_case(self) -> bool | None:
        return self.do_lower_case
