"""Scores against a second implementation and against PaddleNLP, on real development examples; assignment of idioms."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from clue_utils import tasks
from clue_utils.errors import UserError
from clue_utils.scores import cmrc2018
from clue_utils.scores.accuracy import accuracy
from clue_utils.scores.chid import assign_candidates
from clue_utils.scores.cmrc2018 import cmrc2018_scores, squad_scores


def official(prediction: str, *golds: str) -> tuple[float, float]:
    scores = cmrc2018_scores({"q": prediction}, {"q": golds})
    return scores["em"], scores["f1"]


def looser(prediction: str, *golds: str) -> tuple[float, float]:
    scores = squad_scores({"q": prediction}, {"q": golds})
    return scores["squad_em"], scores["squad_f1"]


# --- accuracy -----------------------------------------------------------------------------------------------------


def test_accuracy() -> None:
    assert accuracy([0, 1, 2, 2], np.array([0, 1, 1, 2])) == 0.75
    assert isinstance(accuracy([1], [1]), float)
    with pytest.raises(UserError, match="nothing to score"):
        accuracy([], [])
    with pytest.raises(ValueError, match="shape"):
        accuracy([1], [1, 2])
    with pytest.raises(ValueError, match="integer class ids"):
        accuracy([1, 2], ["1", "2"])
    with pytest.raises(ValueError, match="integer class ids"):
        accuracy(np.array([0.2, 0.8]), [0, 1])


# --- CMRC2018, a second implementation: other means, from the definition alone --------------------------------------


def second_words(run: str) -> list[str]:
    """The official script's own word splitter; without its sentences, which need data that NLTK downloads."""
    return pytest.importorskip("nltk.tokenize").word_tokenize(run, preserve_line=True)


@pytest.fixture(scope="module")
def nltk_of_the_time() -> None:
    """Skips where NLTK is missing or its rules are the later ones (3.9.3: dashes; 3.10: leading apostrophes)."""
    if second_words("'ab 3–4") != ["'ab", "3–4"]:
        pytest.skip("needs nltk>=3.8,<3.9.3")


def second_tokens(text: str) -> list[str]:
    tokens: list[str] = []
    kept = [c for c in text.lower().strip() if c not in "－～-~_+=*^/\\`:：，。、；？！·’“”《》「」『』（）"]
    for is_chinese, group in itertools.groupby(kept, key=lambda c: 0x4E00 <= ord(c) <= 0x9FA5):
        tokens.extend(group if is_chinese else second_words("".join(group)))  # noqa: B031 (one branch)
    return tokens


def second_f1(prediction: str, gold: str) -> float:
    predicted, true = second_tokens(prediction), second_tokens(gold)
    for length in range(min(len(predicted), len(true)), 0, -1):
        stretches = {tuple(true[i : i + length]) for i in range(len(true) - length + 1)}
        if any(tuple(predicted[i : i + length]) in stretches for i in range(len(predicted) - length + 1)):
            precision, recall = length / len(predicted), length / len(true)
            return 2 * precision * recall / (precision + recall)
    return 0.0


def second_em(prediction: str, gold: str) -> float:
    marks = re.compile("[-－:：_*^/\\\\~～`+=，。？！“”；’《》·、「」（）『』]|^\\s+|\\s+$")
    # Stripping comes before the marks go: white space next to a deleted mark is kept.
    return float(marks.sub("", prediction.lower()) == marks.sub("", gold.lower()))


def second_score(prediction: str, golds: tuple[str, ...]) -> tuple[float, float]:
    return max(second_em(prediction, gold) for gold in golds), max(second_f1(prediction, gold) for gold in golds)


# --- CMRC2018, real examples -----------------------------------------------------------------------------------------


class Question(NamedTuple):
    id: str
    context: str
    golds: tuple[str, ...]


@pytest.fixture(scope="module")
def questions(clue_data_dir: Path) -> list[Question]:
    document = json.loads((clue_data_dir / "cmrc2018_public" / "dev.json").read_text(encoding="utf-8"))
    return [
        Question(question["id"], paragraph["context"], tuple(answer["text"] for answer in question["answers"]))
        for entry in document["data"]
        for paragraph in entry["paragraphs"]
        for question in paragraph["qas"]
    ]


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def extended(question: Question, rng: random.Random) -> str:
    start = max(question.context.find(question.golds[0]), 0)
    end = start + len(question.golds[0])
    return question.context[max(start - rng.randrange(12), 0) : end + rng.randrange(1, 12)]


def inserted(text: str, piece: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + piece + text[at:]


def shuffled(text: str, rng: random.Random) -> str:
    return "".join(rng.sample(text, len(text)))


def span(context: str, rng: random.Random) -> str:
    start = rng.randrange(len(context))
    return context[start : start + rng.randrange(1, 60)]


LATIN = (" St. John's U.S. team ", '"C. e. furvus", ', "don't (3.5%)", " no. 7.", "iPhone 4s...", " 1,234 m² ")
MARKS = ("、", "……", "—", "-", "《", "·", ".", " ", "!", "：", "'")
PERTURBATIONS: dict[str, Callable[[Question, random.Random], str]] = {
    "gold": lambda q, rng: q.golds[0],
    "another annotator's gold": lambda q, rng: q.golds[-1],
    "cut": lambda q, rng: q.golds[0][rng.randrange(3) : max(len(q.golds[0]) - rng.randrange(4), 1)],
    "extended": extended,
    "shuffled": lambda q, rng: shuffled(q.golds[0], rng),
    "empty": lambda q, rng: "",
    "white space inserted": lambda q, rng: inserted(q.golds[0], rng.choice(" \t\n\u3000") * rng.randrange(1, 5), rng),
    "mark inserted": lambda q, rng: inserted(q.golds[0], rng.choice(MARKS), rng),
    "full-width": lambda q, rng: full_width(q.golds[0]),
    "upper case": lambda q, rng: q.golds[0].upper(),
    "Latin inserted": lambda q, rng: inserted(q.golds[0], rng.choice(LATIN), rng),
    "other span": lambda q, rng: span(q.context, rng),
    "whole context": lambda q, rng: q.context,
}


def perturbed(questions: list[Question]) -> Iterator[tuple[str, dict[str, str]]]:
    """Name of a perturbation and its predictions by question id; the same each time."""
    for name, change in PERTURBATIONS.items():
        rng = random.Random(name)
        yield name, {question.id: change(question, rng) for question in questions}
    yield (
        "another question's gold",
        {question.id: other.golds[0] for question, other in zip(questions, questions[7:] + questions[:7], strict=True)},
    )


@pytest.mark.usefixtures("nltk_of_the_time")
def test_official_score_equals_second_implementation_on_every_example(questions: list[Question]) -> None:
    for name, predictions in perturbed(questions):
        for question in questions:
            ours = official(predictions[question.id], *question.golds)
            theirs = second_score(predictions[question.id], question.golds)
            assert ours == pytest.approx(theirs, abs=1e-12), (name, predictions[question.id], question)


def test_looser_score_equals_paddlenlp_on_every_example(questions: list[Question]) -> None:
    squad = pytest.importorskip("paddlenlp.metrics.squad")
    golds = {question.id: question.golds for question in questions}
    examples = [{"id": q.id, "answers": {"text": list(q.golds), "answer_start": [0] * len(q.golds)}} for q in questions]
    for name, predictions in perturbed(questions):
        exact, f1 = squad.get_raw_scores(examples, predictions, is_whitespace_splited=False)
        for question in questions:
            ours = looser(predictions[question.id], *question.golds)
            assert ours == pytest.approx((exact[question.id], f1[question.id]), abs=1e-12), (name, question)
        theirs = squad.squad_evaluate(examples, predictions, is_whitespace_splited=False)
        scores = squad_scores(predictions, golds)
        assert 100 * scores["squad_em"] == pytest.approx(theirs["exact"], abs=1e-9), name
        assert 100 * scores["squad_f1"] == pytest.approx(theirs["f1"], abs=1e-9), name


# --- CMRC2018, by hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "gold", "em", "f1"),
    [
        ("光荣和ω-force", "光荣和Ω-FORCE", 1, 1),
        ("北京大学", "大学北京", 0, 0.5),  # order matters
        ("royal navy", "royal air force", 0, 0.4),
        ("《红楼梦》。", "红楼梦", 1, 1),
        ("  红楼梦 ", "红楼梦", 1, 1),
        ("红 楼梦", "红楼梦", 0, 1),  # an inner space is no token, but no equal text either
        ("红楼梦.", "红楼梦", 0, 6 / 7),  # an ASCII full stop is kept
        ("红……楼", "红楼", 0, 2 / 5),  # the ellipsis is one token: not a single character of the list
        ("well-known", "wellknown", 1, 1),  # deleting a mark joins what it stood between
        ("3:2", "32", 1, 1),
        ("ab 2013", "ab, 2013", 0, 2 / 5),
        ("2013年", "2013年10月", 0, 2 / 3),
        ("２０１３", "2013", 0, 0),
        ("", "红", 0, 0),
        ("。", "！", 1, 0),  # equal but without a token
        ("\u9fa6x", "\u9fa6y", 0, 0),  # beyond the range: one word with what follows
        ("\u9fa5x", "\u9fa5y", 0, 0.5),
        ("I don't", "don't", 0, 4 / 5),  # clitics are told apart in lower case
        ("straße", "STRASSE", 0, 0),  # lower case, which keeps what upper case would write alike
    ],
)
def test_official_definition(prediction: str, gold: str, em: float, f1: float) -> None:
    assert official(prediction, gold) == pytest.approx((em, f1))
    assert second_score(prediction, (gold,)) == pytest.approx((em, f1))


def test_best_gold_counts() -> None:
    assert official("北京市", "上海", "北京市", "北京") == (1, 1)
    assert official("北京市朝阳", "上海", "北京") == pytest.approx((0, 4 / 7))


@pytest.mark.parametrize(
    ("prediction", "gold", "em", "f1"),
    [
        ("北京大学", "大学北京", 0, 1),
        ("Royal Navy", "Royal Air Force", 0, 1),
        ("2013年 10月", "2013年", 0, 1),
        ("the 3.5%", "35", 1, 1),
        ("", "。", 1, 1),
        ("红", "……", 0, 0),
    ],
)
def test_looser_definition(prediction: str, gold: str, em: float, f1: float) -> None:
    assert looser(prediction, gold) == pytest.approx((em, f1))


@pytest.mark.parametrize("scores", [cmrc2018_scores, squad_scores])
def test_predictions_must_fit_questions(scores: Callable[..., dict[str, float]]) -> None:
    golds = {"Q1": ["红"], "Q2": ["楼"]}
    with pytest.raises(ValueError, match="without a prediction.*'Q2'"):
        scores({"Q1": "红"}, golds)
    with pytest.raises(ValueError, match="unknown.*'Q3'"):
        scores({"Q1": "红", "Q2": "楼", "Q3": "梦"}, golds)
    with pytest.raises(ValueError, match="without a gold answer.*'Q2'"):
        scores({"Q1": "红", "Q2": "楼"}, {"Q1": ["红"], "Q2": []})
    with pytest.raises(UserError, match="nothing to score"):
        scores({}, {})


def test_mean_is_over_questions() -> None:
    golds = {"Q1": ["红楼梦"], "Q2": ["北京"], "Q3": ["上海", "沪"]}
    predictions = {"Q3": "沪", "Q2": "北海", "Q1": "红楼梦"}
    assert cmrc2018_scores(predictions, golds) == pytest.approx({"em": 2 / 3, "f1": 2.5 / 3})


@pytest.mark.parametrize("piece", ["红", "a ", "'", ". ", ".", "红楼", "(", '"', ",", "\t"])
def test_long_predictions_are_scored(piece: str) -> None:
    """Within seconds: in time that grew as the square of their length it would be hours."""
    assert official(piece * 50_000, "红楼梦a'. b " * 20, "红" * 200)[0] == 0
    assert official("a. " + " " * 50_000 + "b", "红") == (0, 0)


WORDS = {
    "henry a. walsh": "henry|a.|walsh",
    "u.s.": "u.s|.",
    '(a.) "': "(|a.|)|``",
    '"a b."': "``|a|b|.|''",
    '"a"': "``|a|''",
    '""a': "``|``|a",
    'a"b': "a|''|b",
    "a ''b''": "a|``|b|''",
    "1,234.5 km, 3%": "1,234.5|km|,|3|%",
    "i don't, he'll; it's o'clock": "i|do|n't|,|he|'ll|;|it|'s|o'clock",
    'the dogs\' (big) "bone"': "the|dogs|'|(|big|)|``|bone|''",
    "'tis more'n i cannot d'ye wanna": "'t|is|more|'n|i|can|not|d|'ye|wan|na",
    "3–4 m²": "3–4|m²",
    "'ab 'c": "'ab|'|c",
    "a......b…": "a|......|b…",
    "３.５％": "３.５％",
    " ": "",
}


def test_words() -> None:
    for run, expected in WORDS.items():
        assert cmrc2018._words(run) == [word for word in expected.split("|") if word], run


@pytest.mark.usefixtures("nltk_of_the_time")
def test_words_are_those_of_nltk(questions: list[Question]) -> None:
    rng = random.Random(0)
    runs = {
        run
        for question in questions
        for text in (question.context, *question.golds)
        for run in re.split("[\u4e00-\u9fa5]", cmrc2018._without_marks(text))
    }
    pieces = [*"  .'(),%–\"", "...", ", ", "a", "12", "3,5", "don't", "dog's", "cannot", "u.s."]
    runs.update("".join(rng.choices(pieces, k=rng.randrange(1, 8))) for _ in range(20_000))
    for run in WORDS.keys() | runs:
        start, end = sorted(rng.choices(range(len(run) + 1), k=2))
        for part in (run, run[start:end]):
            if not re.search("'[smd]'|,,", part):
                assert cmrc2018._words(part) == second_words(part), part


# --- CHID -----------------------------------------------------------------------------------------------------------


def total_log_probability(logits: np.ndarray, columns: np.ndarray) -> float:
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(np.log(shares[np.arange(len(columns)), columns]).sum())


@pytest.mark.parametrize(("blanks", "candidates"), [(1, 1), (1, 6), (2, 2), (2, 5), (3, 4), (4, 4), (5, 6)])
def test_joint_equals_trying_every_assignment(blanks: int, candidates: int) -> None:
    rng = np.random.default_rng(blanks * 10 + candidates)
    for _ in range(20):
        logits = rng.normal(size=(blanks, candidates))
        every = (np.array(columns) for columns in itertools.permutations(range(candidates), blanks))
        best = max(every, key=lambda columns: total_log_probability(logits, columns))
        assert assign_candidates(logits).tolist() == best.tolist()


def test_joint_and_greedy_differ_where_the_best_cell_costs_too_much() -> None:
    logits = np.array([[5.0, 4.9], [4.8, 0.0]])
    assert assign_candidates(logits, "joint").tolist() == [1, 0]
    assert assign_candidates(logits, "greedy").tolist() == [0, 1]


@pytest.mark.parametrize("rule", tasks.ASSIGNMENT_RULES)
def test_ties_are_always_broken_alike(rule: str) -> None:
    """Equal columns are what an example with a repeated candidate gives: they count as two candidates."""
    logits = np.repeat(np.random.default_rng(4).integers(0, 2, size=(4, 5)), 2, axis=1)
    first = assign_candidates(logits, rule)
    assert len(set(first.tolist())) == 4
    for copy in (logits.astype(np.float32), np.asfortranarray(logits), logits[::-1][::-1], logits.tolist()):
        assert assign_candidates(copy, rule).tolist() == first.tolist()
    assert assign_candidates(np.zeros((3, 10)), "greedy").tolist() == [0, 1, 2]


def test_of_equal_logits_greedy_takes_the_earlier_blank_then_the_earlier_candidate() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        logits = rng.integers(0, 3, size=(10, 10))
        cells = sorted(itertools.product(range(10), range(10)), key=lambda cell: (-logits[cell], cell))
        expected: dict[int, int] = {}
        for blank, candidate in cells:
            if blank not in expected and candidate not in expected.values():
                expected[blank] = candidate
        assert assign_candidates(logits, "greedy").tolist() == [expected[blank] for blank in range(10)]


@pytest.mark.parametrize("rule", tasks.ASSIGNMENT_RULES)
def test_a_constant_added_to_a_blank_changes_only_the_greedy_order(rule: str) -> None:
    logits = np.random.default_rng(5).normal(size=(6, 10))
    for shift in (-1000.0, 1000.0):
        assert assign_candidates(logits + shift, rule).tolist() == assign_candidates(logits, rule).tolist()
    for shifts in (np.arange(6), np.array([0, -5000, 5000, 1, 2, -3])):
        shifted = assign_candidates(logits + shifts[:, None], "joint")
        assert shifted.tolist() == assign_candidates(logits, "joint").tolist()


@pytest.mark.parametrize("rule", tasks.ASSIGNMENT_RULES)
def test_more_blanks_than_candidates(rule: str) -> None:
    logits = np.random.default_rng(6).normal(size=(7, 3))
    columns = assign_candidates(logits, rule)
    assert columns.shape == (7,) and columns.min() >= 0
    assert np.bincount(columns).max() <= 3
    assert assign_candidates(np.array([[9.0, 0.0], [8.0, 0.0], [0.0, 1.0]]), rule).tolist() == [0, 0, 1]


def test_logits_of_single_precision_are_compared_in_double() -> None:
    logits = np.array([[100, 0, 1e-6], [200, 0, 0]], np.float32)  # less 100, the second and third would be equal
    assert assign_candidates(logits).tolist() == [2, 0]


def test_wrong_logits_are_refused() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        logits = np.zeros((2, 10))
        logits[1, 3] = bad
        with pytest.raises(ValueError, match="NaN or an infinity"):
            assign_candidates(logits)
    with pytest.raises(ValueError, match="num_blanks, num_candidates"):
        assign_candidates(np.zeros(10))
    for shape in ((2, 0), (1, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="num_blanks, num_candidates"):
            assign_candidates(np.zeros(shape))
    with pytest.raises(ValueError, match="unknown assignment rule 'best'"):
        assign_candidates(np.zeros((2, 10)), "best")
    for shape in ((0, 10), (0, 0)):
        none = assign_candidates(np.zeros(shape))
        assert none.tolist() == [] and none.dtype == np.int64
