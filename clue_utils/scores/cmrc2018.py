"""Scores of the answers to CMRC2018's questions, in [0, 1]: the official ones, and PaddleNLP's looser ones."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from clue_utils.errors import UserError
from clue_utils.language import say

# The list of cmrc2018_evaluate.py has a 33rd entry, the two-character "……". It is compared with single characters,
# which it never equals, so an ellipsis stays in the text, alone or doubled.
_MARKS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
_DELETE_MARKS = str.maketrans("", "", _MARKS)
_CJK_OR_RUN = re.compile("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")
# English words as NLTK 3.2.5 (2017) to 3.9.2 splits a lower-cased text without the marks; see _words.
_ALONE = r";@#$%&?!()\[\]{}<>«»‘„\""
_BEFORE_OPENING_QUOTE = " ([{<«‘„"
_CLOSING_QUOTE = rf"(?<![{re.escape(_BEFORE_OPENING_QUOTE)}])(?:\"|'')|'(?!')"
_FINAL_FULL_STOP = rf"(?<=[^.])\.(?=(?:[\])}}>» ]|{_CLOSING_QUOTE})*(?:[^\S ]\s*)?\Z)"
_SEPARATE = rf"''|\.\.+|,(?!\d)|{_FINAL_FULL_STOP}"
_SIGN_OR_WORD = re.compile(rf"{_SEPARATE}|[{_ALONE}]|(?:(?!{_SEPARATE})[^\s{_ALONE}])+")
_INSIDE_WORDS = (
    (re.compile(r"'(?![mtsdn])(\w)\b"), r" ' \1"),  # 'x
    (re.compile(r"(?<=[^' ])('[smd]?)(?=\s|\Z)"), r" \1"),  # dog's, i'm, he'd, dogs'
    (re.compile(r"(?<=[^' ])('ll|'re|'ve|n't)(?=\s|\Z)"), r" \1"),  # i'll, don't
    (re.compile(r"\b(can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|wan(?=na\Z))(\w+)"), r" \1 \2 "),
    (re.compile(r"\b(d(?='ye\b)|more(?='n\b))('\w+)"), r" \1 \2 "),
    (re.compile(r"\A't(?=(?:is|was)\b)"), "'t "),
)
_DELETE_MARKS_AND_ASCII = str.maketrans("", "", string.punctuation + _MARKS)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def cmrc2018_scores(predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Exact match and F1 as the official ``cmrc2018_evaluate.py`` defines them, means over the questions.

    Both texts are lower-cased and stripped, and the listed marks are deleted; ASCII ``. , " ( ) !`` and inner spaces
    are kept. A question's score is that of its best gold answer.

    - exact match: the remaining texts are equal;
    - F1: of precision and recall where the overlap is the longest common *substring*, counted in tokens. Each
      character of U+4E00-U+9FA5 is a token, any other stretch is split into words. No overlap is 0, also where both
      texts have no token at all.

    The official script counts a question without a prediction as 0; here it is an error. It splits words with NLTK's
    ``word_tokenize``, whose rules changed in 3.9.3 and 3.10; here those of the versions before are built in, so that
    a score does not depend on what is installed. NLTK also cuts into sentences first, with a trained model that has
    to be downloaded: without it, "5" and "." of an inner "no. 5. chapter" stay one token.

    Reference: Cui et al., "A Span-Extraction Dataset for Chinese Machine Reading Comprehension", EMNLP 2019
    (https://github.com/ymcui/cmrc2018).

    Args:
        predictions: answer text by question id; exactly the questions of ``golds``.
        golds: the gold answers by question id, at least one each.

    Returns:
        ``{"em": ..., "f1": ...}``.

    Raises:
        ValueError: a question has no prediction or no gold answer, or a prediction has no question.
        UserError: there are no questions.
    """
    em, f1 = _mean_over_questions(cmrc2018_question, predictions, golds)
    return {"em": em, "f1": f1}


def squad_scores(predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The looser metric of PaddleNLP, which its CMRC2018 script reports; not the official score.

    Equals ``paddlenlp.metrics.squad.squad_evaluate(..., is_whitespace_splited=False)`` divided by 100. Beside the
    official marks all ASCII punctuation and the English articles are deleted, and F1 counts the common characters
    of the first white-space separated piece alone, whatever their order: "北京大学" for "大学北京" has F1 1. Gold
    answers of which nothing remains are left out; where none is left the answer has to be empty too.

    Arguments and errors as in :func:`cmrc2018_scores`.

    Returns:
        ``{"squad_em": ..., "squad_f1": ...}``.
    """
    em, f1 = _mean_over_questions(_squad_question, predictions, golds)
    return {"squad_em": em, "squad_f1": f1}


def _mean_over_questions(
    score: Callable[[str, Collection[str]], tuple[float, float]],
    predictions: Mapping[str, str],
    golds: Mapping[str, Sequence[str]],
) -> tuple[float, float]:
    if not golds:
        raise UserError(say("nothing to score: the development file holds no question; check --data_dir"))
    for problem, questions in (
        ("without a prediction", [question for question in golds if question not in predictions]),
        ("predicted but unknown", [question for question in predictions if question not in golds]),
        ("without a gold answer", [question for question, answers in golds.items() if not answers]),
    ):
        if questions:
            raise ValueError(f"{len(questions)} question(s) {problem}, the first is {questions[0]!r}")
    # Annotators often agree: equal gold answers are scored once.
    pairs = [score(predictions[question], dict.fromkeys(answers)) for question, answers in golds.items()]
    em, f1 = (math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return em, f1


def cmrc2018_question(prediction: str, golds: Collection[str]) -> tuple[float, float]:
    """Exact match and F1 of one answer, see :func:`cmrc2018_scores`."""
    predicted = _without_marks(prediction)
    em = any(predicted == _without_marks(gold) for gold in golds)
    predicted_tokens = _mixed_tokens(predicted)
    f1 = 0.0
    for gold in golds:
        gold_tokens = _mixed_tokens(_without_marks(gold))
        f1 = max(f1, _f1(_longest_common_substring(predicted_tokens, gold_tokens), predicted_tokens, gold_tokens))
    return float(em), f1


def _without_marks(text: str) -> str:
    return text.lower().strip().translate(_DELETE_MARKS)


def _mixed_tokens(text: str) -> list[str]:
    """Chinese characters one by one, anything between them as words; the marks are already deleted."""
    tokens: list[str] = []
    for piece in _CJK_OR_RUN.findall(text):
        if "\u4e00" <= piece[0] <= "\u9fa5":
            tokens.append(piece)
        else:
            tokens.extend(_words(piece))
    return tokens


def _words(run: str) -> list[str]:
    """Words and signs of a lower-cased stretch without Chinese characters and marks.

    The Penn Treebank conventions as NLTK's ``NLTKWordTokenizer`` applies them: signs alone; a comma except before a
    digit; the full stop that ends the stretch; opening and closing double quotes told apart; English clitics and
    contractions cut off. Only two commas or two clitics in a row come out otherwise than there.
    """
    words: list[str] = []
    for match in _SIGN_OR_WORD.finditer(run):
        word, start = match.group(), match.start()
        if word in ('"', "''"):
            if start == 0:
                opens = word == '"'
            else:
                opens = run[start - 1] in _BEFORE_OPENING_QUOTE or (start == 1 and run[0] == '"')
            words.append("``" if opens else "''")
            continue
        for pattern, replacement in _INSIDE_WORDS:
            word = pattern.sub(replacement, word)
        words.extend(word.split())
    return words


def _longest_common_substring(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest stretch of tokens that occurs in both; time and memory allow very long texts."""
    short, long = sorted((first, second), key=len)
    if not short:
        return 0
    ids: dict[str, int] = {}
    long_ids = np.array([ids.setdefault(token, len(ids)) for token in long])
    # ending[j + 1]: length of the common stretch that ends with the current token of short and with long[j].
    ending = np.zeros(len(long) + 1, dtype=np.int64)
    best = 0
    for token in short:
        ending[1:] = np.where(long_ids == ids.get(token, -1), ending[:-1] + 1, 0)
        best = max(best, int(ending.max()))
    return best


def _squad_question(prediction: str, golds: Collection[str]) -> tuple[float, float]:
    predicted = _squad_normalised(prediction)
    answers = [answer for answer in map(_squad_normalised, golds) if answer] or [""]
    predicted_piece = predicted.partition(" ")[0]
    f1 = 0.0
    for answer in answers:
        piece = answer.partition(" ")[0]
        if piece and predicted_piece:
            f1 = max(f1, _f1(sum((Counter(piece) & Counter(predicted_piece)).values()), predicted_piece, piece))
        else:
            f1 = max(f1, float(piece == predicted_piece))
    return float(predicted in answers), f1


def _squad_normalised(text: str) -> str:
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_DELETE_MARKS_AND_ASCII)).split())


def _f1(overlap: int, predicted: Sequence[Any], gold: Sequence[Any]) -> float:
    """Harmonic mean of overlap / len(predicted) and overlap / len(gold); 0 without overlap."""
    return 2 * overlap / (len(predicted) + len(gold)) if overlap else 0.0
