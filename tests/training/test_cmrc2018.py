"""CMRC2018: where answers lie in windows, and which span is answered."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_methods import Rows

import run_cmrc2018
from clue_utils.data.examples import load_examples
from clue_utils.errors import UserError
from clue_utils.features.build import build_features
from clue_utils.scores.cmrc2018 import cmrc2018_scores
from clue_utils.tasks import TASKS
from clue_utils.training.span import NO_ANSWER, Cmrc2018, repaired_start


@pytest.fixture
def method(tokenizer):
    def build(max_seq_length=64, doc_stride=16, max_query_length=16, n_best_size=20, max_answer_length=50):
        return Cmrc2018(tokenizer, max_seq_length, doc_stride, max_query_length, n_best_size, max_answer_length)

    return build


def example(context: str, answer: str) -> dict:
    answers = [{"text": answer, "answer_start": context.index(answer)}]
    return {"id": "Q", "context": context, "question": "答案是什么？", "answers": answers}


def labelled_text(feature: dict, context: str) -> str:
    begin = feature["char_begin"][feature["start"] - feature["context"]]
    end = feature["char_end"][feature["end"] - feature["context"]]
    return context[begin:end]


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("他笑了😀。答案是北京😀大学。", "北京😀大学"),
        ("表格\t第一列\t答案\t北京大学\t完", "北京大学"),
        ("共有１２３４人，其中５６人来自上海。", "５６人"),
        ("cafe\u0301 在 Zürich 开业，老板是 José。", "José"),
        ("İstanbul 是一座城市，GDP为３．５万亿。", "３．５万亿"),
        ("控制\x00字符\u200b之后的答案在这里。", "答案在这里"),
        ("一行\u2028两行\n三行的答案", "三行的答案"),
        ("ＡＢＣ公司与abc公司", "abc公司"),
        ("[MASK]不是标记，[SEP]也不是。", "也不是"),
        ("𠀀𠀁是扩展区汉字，答案是𠀂。", "𠀂"),
        ("新品😀iPhone7发布。", "iPhone7"),
        ("C♯小调", "C"),
        ("共€99起，约≥3km²。", "3km"),
        ("👍🏽Good👨\u200d👩\u200d👧Bye", "Good"),
        ("①ＡＢＣ™公司", "ＡＢＣ"),
        ("标记\ue000abc完", "abc"),  # a character for private use, which tokenizers drop
        ("问\u037eabc\u037e答", "abc"),  # a Greek question mark, which is written as a semicolon
        ("\u1fedabc", "abc"),  # a symbol once its accent is gone
        ("第一行\u2028abc☆", "abc"),
        ("在cafe\u0301里", "cafe\u0301"),
        ("他说汉\u0301字", "汉\u0301"),
        ("我❤\ufe0fNY", "❤\ufe0f"),
        ("ΣΑΣ☆ΑΣ", "ΣΑΣ"),
        ("한국어★서울", "서울"),
        ("İzmir©Ünlü", "Ünlü"),
    ],
)
def test_pieces_stand_for_no_more_than_they_are_made_of(method, context, answer):
    features = method().encode(example(context, answer))
    assert labelled_text(features[0], context) == answer


@pytest.mark.parametrize("length", [40, 41, 42, 43, 44, 60, 100])
def test_an_answer_at_a_window_s_end_or_cut_by_it(method, length):
    context = "天" * (length - 3) + "北京市" + "地" * 30
    features = method(max_seq_length=32, doc_stride=8).encode(example(context, "北京市"))
    holding = [f for f in features if f["start"]]
    assert holding and all(labelled_text(f, context) == "北京市" for f in holding)
    for feature in features:
        covered = context[feature["char_begin"][0] : feature["char_end"][-1]]
        assert bool(feature["start"]) == ("北京市" in covered)
        rest = len(feature["input_ids"]) - feature["context"]  # with the mark that ends it
        assert len(feature["input_ids"]) <= 32
        assert feature["token_type_ids"] == [0] * feature["context"] + [1] * rest


def test_an_answer_longer_than_every_window_is_learnt_nowhere(method):
    features = method(max_seq_length=32, doc_stride=8).encode(example("天" * 80, "天" * 60))
    assert len(features) > 1 and all(f["start"] == f["end"] == 0 for f in features)


def test_question_is_cut_to_max_query_length(method):
    long = example("天地玄黄", "玄黄") | {"question": "问" * 100}
    assert method(max_query_length=16).encode(long)[0]["context"] == 18
    with pytest.raises(UserError, match="--max_seq_length 19 .*at least 20"):
        method(max_seq_length=19, max_query_length=16)


@pytest.mark.parametrize(("late", "start"), [(0, 4), (1, 4), (3, 4), (4, None)])
def test_late_gold_starts_are_repaired(late, start):
    answer = {"text": "北京", "answer_start": 4 + late}
    assert repaired_start("天地玄黄北京大学大学大学", answer) == start


def scores_for(method, features, **logits) -> np.ndarray:
    scores = np.zeros((len(features), method.width), np.float32)
    for (row, position, which), value in logits.pop("at").items():
        scores[row, 2 * position + which] = value
    return scores


def test_the_best_allowed_span_is_answered(method):
    m = method(max_answer_length=4)
    row = example("甲乙丙丁戊己庚辛", "乙丙")
    features = Rows(m.encode(row))
    context = features[0]["context"]
    far = {(0, context + 1, 0): 5.0, (0, context + 5, 1): 5.0}  # five tokens: one too many
    near = {(0, context + 4, 1): 4.0}
    before = {(0, context, 1): 9.0}  # an end before the start
    question = {(0, 1, 0): 9.0, (0, 1, 1): 9.0}  # not in the context
    scores = scores_for(m, features, at=far | near | before | question)
    assert m.answer(scores, [row], features) == {"Q": "乙丙丁戊"}


def test_no_allowed_span_gives_the_official_placeholder(method):
    m = method(n_best_size=1)
    row = example("甲乙丙丁", "乙")
    features = Rows(m.encode(row))
    context = features[0]["context"]
    scores = scores_for(m, features, at={(0, context + 3, 0): 5.0, (0, context, 1): 5.0})
    assert m.answer(scores, [row], features) == {"Q": NO_ANSWER}


def test_a_span_of_blanks_is_no_answer(method):
    m = method()
    (feature,) = m.encode(row := example("甲乙  丙丁", "乙"))
    context = feature["context"]
    feature["char_begin"][1], feature["char_end"][2] = 2, 4  # as tokens that stand for parts of blanks have them
    scores = scores_for(m, [feature], at={(0, context + 1, 0): 5.0, (0, context + 2, 1): 5.0})
    assert m.answer(scores, [row], Rows([feature])) == {"Q": NO_ANSWER}


def test_a_token_of_no_characters_is_no_answer(method):
    m = method(max_answer_length=1)
    (feature,) = m.encode(row := example("甲乙丙丁", "乙"))
    context = feature["context"]
    feature["char_begin"][1] = feature["char_end"][1] = 1  # as a piece that stands for a blank alone has them
    at = {(0, context + token, which): value for token, value in ((1, 9.0), (3, 5.0)) for which in (0, 1)}
    scores = scores_for(m, [feature], at=at)
    assert m.answer(scores, [row], Rows([feature])) == {"Q": "丁"}


def test_the_place_of_an_answer_is_that_of_its_first_character(method):
    m = method(max_answer_length=1)
    (feature,) = m.encode(row := example("甲乙  丙丁", "乙"))
    context = feature["context"]
    feature["char_begin"][2] = 2  # as a piece that begins with blanks has it
    scores = scores_for(m, [feature], at={(0, context + 2, 0): 5.0, (0, context + 2, 1): 5.0})
    (found,) = m.predictions(scores, [row], Rows([feature]))
    assert (found["answer"], found["begin"], found["end"]) == ("丙", 4, 5)


def test_perfect_logits_on_real_examples_answer_every_question(tokenizer, clue_data_dir, tmp_path):
    m = Cmrc2018(tokenizer, 512, 128, 64, 20, max_answer_length=500)
    examples = load_examples(TASKS["CMRC2018"], "dev", clue_data_dir)
    features = build_features(examples, m, tokenizer, tmp_path)
    scores = np.zeros((len(features), m.width), np.float32)
    for i in range(len(features)):
        feature = features[i]
        best = feature["start"] and feature["best"][feature["start"] - feature["context"]]
        scores[i, [2 * feature["start"], 2 * feature["end"] + 1]] = 10.0 if best else 0.0
    golds = {row["id"]: [answer["text"] for answer in row["answers"]] for row in examples}
    assert cmrc2018_scores(m.answer(scores, examples, features), golds) == {"em": 1.0, "f1": 1.0}


def test_scores_and_predictions_do_not_depend_on_the_batch(run_script, demo, tmp_path):
    common = ("--data_dir", demo / "data", "--device", "cpu", "--max_seq_length", 96, "--doc_stride", 16)
    model = tmp_path / "model"
    train = ("--model_name_or_path", demo / "model", "--output_dir", model, "--do_train", "--max_steps", 2)
    assert run_script(run_cmrc2018.main, *common, *train, "--batch_size", 8)[0] == 0
    evaluations, predictions = [], []
    for size in (1, 7, 32):
        output = tmp_path / str(size)
        words = ("--model_name_or_path", model, "--output_dir", output, "--do_eval", "--do_predict")
        assert run_script(run_cmrc2018.main, *common, *words, "--eval_batch_size", size)[0] == 0
        evaluations.append(json.loads((output / "result.json").read_text())["evaluation"])
        predictions.append(json.loads((output / "cmrc2018_predict.json").read_text()))
    # Other shapes may round otherwise, which after two steps may decide a near tie.
    for evaluation, answers in zip(evaluations[1:], predictions[1:], strict=True):
        assert evaluation == pytest.approx(evaluations[0], abs=0.02)
        assert evaluation["loss"] == pytest.approx(evaluations[0]["loss"], abs=1e-5)
        assert list(answers) == list(predictions[0])
        assert sum(answers[name] != predictions[0][name] for name in answers) <= len(answers) / 50


# --- tokenizers of other kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["XLMRoberta", "XLNet", "ErnieM", "MBart", "JsonBytePairs", "GPTChinese", "RoFormer"])
def test_any_tokenizer_s_windows_hold_the_answer_where_they_say(tiny_tokenizer, kind):
    tokenizer = tiny_tokenizer(kind)
    m = Cmrc2018(tokenizer, 40, 16, 12, 20, 50)
    context = "今天天气不错，我们在上海。" * 12 + "北京，" + "他们是老师。" * 12
    row = example(context, "北京")
    features = Rows(m.encode(row))
    assert len(features) > 1 and all(len(f["input_ids"]) == len(f["token_type_ids"]) <= 40 for f in features)
    question = m.sequences.build(tokenizer.convert_tokens_to_ids(tokenizer.tokenize(row["question"]))[:12])[0]
    begins = question[: len(question) - m.sequences.num_special(1)] if kind == "XLNet" else question[:1]
    held = 0
    for feature in features:
        assert feature["input_ids"][: len(begins)] == begins
        position = feature["start"] - feature["context"]
        if 0 <= position < len(feature["best"]):
            assert "北京" in labelled_text(feature, context)
            held += 1
        else:  # at the token that stands for the whole
            assert (
                feature["start"]
                == feature["end"]
                == (0 if m.sequences.begins_with_special else len(feature["input_ids"]) - 1)
            )
    assert 0 < held < len(features)
    scores = np.zeros((len(features), m.width), np.float32)
    for line, feature in zip(scores, features, strict=True):
        if 0 <= feature["start"] - feature["context"] < len(feature["best"]):
            line[[2 * feature["start"], 2 * feature["end"] + 1]] = 9.0
    assert "北京" in m.answer(scores, [row], features)["Q"]


def test_blanks_are_no_answer(tiny_tokenizer):
    """A token of a blank alone, such as the mark of a word's beginning, is never all of an answer nor a part."""
    m = Cmrc2018(tiny_tokenizer("XLNet"), 64, 16, 12, 20, 50)
    row = example("今天 龘 黄", "龘")
    features = Rows(m.encode(row))
    empty = np.flatnonzero(features[0]["char_begin"] == features[0]["char_end"]) + features[0]["context"]
    assert len(empty)
    at = {(0, int(place), which): 9.0 for place in empty for which in (0, 1)}
    answer = m.answer(scores_for(m, features, at=at), [row], features)["Q"]
    assert answer and answer == answer.strip()
