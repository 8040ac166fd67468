"""What the four methods give a model, learn from it, and make of its scores."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

import run_c3
import run_chid
import run_cmrc2018
from clue_utils.errors import UserError
from clue_utils.models import load_tokenizer
from clue_utils.models.heads import HEADS
from clue_utils.tasks import TASKS
from clue_utils.training import session
from clue_utils.training.classification import Classification, text_and_pair
from clue_utils.training.cloze import Chid
from clue_utils.training.methods import make_method
from clue_utils.training.multiple_choice import C3
from clue_utils.training.span import Cmrc2018

IDIOMS = "一心一意 二话不说 三心二意 四面八方 五光十色 六神无主 七上八下 八仙过海 九牛一毛 十全十美".split()


class Columns(dict):
    """The scalar columns of features."""

    def column(self, name: str) -> np.ndarray:
        return np.array(self[name])


class Rows(list):
    """Features held in memory."""

    def __getitem__(self, i: Any) -> Any:
        return {name: np.array(v) if isinstance(v, list) else v for name, v in super().__getitem__(i).items()}

    def column(self, name: str) -> np.ndarray:
        return np.array([row[name] for row in self])


def span_example(number: str, context: str, *answers: str) -> dict[str, Any]:
    golds = [{"text": text, "answer_start": context.find(text)} for text in answers]
    return {"id": number, "context": context, "question": "谁？", "answers": golds}


def log_softmax(scores: Any) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


# --- what is read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "example", "expected"),
    [
        ("AFQMC", {"sentence1": "甲", "sentence2": "乙"}, ("甲", "乙")),
        ("CMNLI", {"sentence1": "甲", "sentence2": "乙"}, ("甲", "乙")),
        ("OCNLI", {"sentence1": "甲", "sentence2": "乙"}, ("甲", "乙")),
        ("TNEWS", {"sentence": "甲", "keywords": "乙"}, ("甲", None)),
        ("IFLYTEK", {"sentence": "甲"}, ("甲", None)),
        ("CSL", {"keyword": ["子", "丑", "寅"], "abst": "甲"}, ("子 丑 寅", "甲")),
        (
            "CLUEWSC2020",
            {
                "text": "小明看见他的书",
                "target": {"span1_text": "小明", "span1_index": 0, "span2_text": "他", "span2_index": 4},
            },
            ("_小明_看见[他]的书", None),
        ),
    ],
)
def test_texts_of_a_classified_example(task, example, expected):
    assert text_and_pair(task, example) == expected


def tokens_of(tokenizer: Any, ids: Any) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens([int(id_) for id_ in ids]))


def test_sentences_and_pairs_are_packed_and_cut(tokenizer):
    (one,) = Classification(TASKS["TNEWS"], tokenizer, 8).encode({"id": 1, "sentence": "天地玄黄宇宙洪荒", "label": 3})
    assert tokens_of(tokenizer, one["input_ids"]) == "[CLS] 天 地 玄 黄 宇 宙 [SEP]"
    assert one.keys() == {"input_ids", "token_type_ids", "label"}
    assert (one["token_type_ids"], one["label"]) == ([0] * 8, 3)
    (pair,) = Classification(TASKS["AFQMC"], tokenizer, 9).encode({"sentence1": "天地玄黄宇宙", "sentence2": "日月"})
    # The longer of the two loses its end.
    assert tokens_of(tokenizer, pair["input_ids"]) == "[CLS] 天 地 玄 黄 [SEP] 日 月 [SEP]"
    assert (pair["token_type_ids"], pair["label"]) == ([0] * 6 + [1] * 3, -1)
    (words,) = Classification(TASKS["CSL"], tokenizer, 32).encode({"keyword": ["天", "地"], "abst": "玄黄", "label": 1})
    assert tokens_of(tokenizer, words["input_ids"]) == "[CLS] 天 地 [SEP] 玄 黄 [SEP]"


def test_sentences_are_cut_on_the_side_that_the_tokenizer_says(demo):
    tokenizer = load_tokenizer(str(demo / "model"))
    tokenizer.truncation_side = "left"
    (pair,) = Classification(TASKS["AFQMC"], tokenizer, 8).encode({"sentence1": "天地玄黄", "sentence2": "宇宙洪荒"})
    assert tokens_of(tokenizer, pair["input_ids"]) == "[CLS] 地 玄 黄 [SEP] 洪 荒 [SEP]"


@pytest.mark.parametrize(("name", "least"), [("TNEWS", 3), ("CLUEWSC2020", 3), ("AFQMC", 4), ("CSL", 4)])
def test_a_length_with_room_for_one_token_of_text_will_do(tokenizer, name, least):
    task, text = TASKS[name], {"span1_index": 0, "span1_text": "天", "span2_index": 1, "span2_text": "地"}
    example = dict.fromkeys(("sentence", "sentence1", "sentence2", "text", "abst"), "天地")
    if name != "AFQMC":
        del example["sentence1"]
    example |= {"keyword": ["玄"], "target": text}
    (feature,) = Classification(task, tokenizer, least).encode(example)
    assert len(feature["input_ids"]) == least and feature["input_ids"][-1] == tokenizer.sep_token_id
    line = f"^--max_seq_length {least - 1} leaves no room for text: pass at least {least}$"
    with pytest.raises(UserError, match=line):
        Classification(task, tokenizer, least - 1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("XLNet", "一 <sep> 二 <sep> <cls>"),
        ("MBart", "一 </s> 二 </s> en_XX"),
        ("Qwen2", "一 <|endoftext|> 二 <|endoftext|>"),
    ],
)
def test_pairs_are_written_as_any_tokenizer_has_them(tiny_tokenizer, kind, expected):
    tokenizer = tiny_tokenizer(kind)
    (pair,) = Classification(TASKS["AFQMC"], tokenizer, 16).encode({"sentence1": "一", "sentence2": "二"})
    tokens = [
        tokenizer.convert_tokens_to_string([token]).strip() if token not in tokenizer.all_special_tokens else token
        for token in tokenizer.convert_ids_to_tokens(pair["input_ids"])
    ]
    assert " ".join(token for token in tokens if token) == expected
    assert ("token_type_ids" in pair) == (kind == "XLNet")  # the others' models take none


def test_choices_are_written_in_lower_case_and_filled_up_to_four(demo):
    cased = load_tokenizer(str(demo / "model"), do_lower_case=False)
    example = {"context": ["天A", "地"], "question": "B？", "choice": ["C", "丁"]}
    (feature,) = C3(cased, 32).encode(example)
    rows = [tokens_of(cased, ids) for ids in feature["input_ids"]]
    begin = "[CLS] 天 a 地 [SEP] b ？ [SEP]"
    assert rows == [f"{begin} {choice} [SEP]" for choice in ("c", "丁", "无 效 答 案", "无 效 答 案")]
    assert (feature["label"], feature["num_choices"]) == (-1, 2)


def test_the_shortest_sequences_that_are_allowed_hold_something_of_each_part(tokenizer):
    example = {"context": ["天" * 9], "question": "问" * 9, "choice": ["答" * 9] * 4}
    (feature,) = C3(tokenizer, 8).encode(example)
    assert tokens_of(tokenizer, feature["input_ids"][0]) == "[CLS] 天 [SEP] 问 问 [SEP] 答 [SEP]"
    blank = {"content": ["天天#idiom000001#地地"], "candidates": IDIOMS}
    (feature,) = Chid(tokenizer, 10, "joint").encode(blank)
    assert tokens_of(tokenizer, feature["input_ids"][0]) == "[CLS] 一 心 一 意 [SEP] 天 [unused1] 地 [SEP]"
    assert feature["label"] == -1
    spans = Cmrc2018(tokenizer, 12, 4, 8, 20, 50).encode(span_example("A", "天地", "地") | {"question": "问" * 9})
    assert [tokens_of(tokenizer, row["input_ids"]) for row in spans] == [
        "[CLS] 问 问 问 问 问 问 问 问 [SEP] 天 [SEP]",
        "[CLS] 问 问 问 问 问 问 问 问 [SEP] 地 [SEP]",
    ]
    assert [(row["start"], row["end"]) for row in spans] == [(0, 0), (10, 10)]


def test_features_are_cached_by_what_they_depend_on(tokenizer):
    span = {"max_seq_length": 64, "doc_stride": 16, "max_query_length": 8, "n_best_size": 20, "max_answer_length": 50}
    classification = Classification(TASKS["TNEWS"], tokenizer, 64)
    for method, name in (
        (classification, "classification"),
        (C3(tokenizer, 64), "c3"),
        (Chid(tokenizer, 64, "joint"), "chid"),
    ):
        assert method.settings() == {"method": name, "max_seq_length": 64}
    settings = Cmrc2018(tokenizer, **span).settings()
    assert settings == {"method": "cmrc2018", "max_seq_length": 64, "doc_stride": 16, "max_query_length": 8}


def test_heads_and_scores_are_as_wide_as_the_answers(tokenizer):
    methods = {
        "TNEWS": Classification(TASKS["TNEWS"], tokenizer, 32),
        "C3": C3(tokenizer, 32),
        "CHID": Chid(tokenizer, 32, "joint"),
        "CMRC2018": Cmrc2018(tokenizer, 32, 8, 8, 20, 50),
    }
    widths = {name: (method.num_outputs, method.width) for name, method in methods.items()}
    assert widths == {"TNEWS": (15, 15), "C3": (4, 4), "CHID": (10, 10), "CMRC2018": (2, 64)}


SPAN = {"doc_stride": 128, "max_query_length": 64, "n_best_size": 20, "max_answer_length": 50}


@pytest.mark.parametrize(
    ("script", "flags", "task", "expected"),
    [
        (run_c3, "", "C3", {"max_seq_length": 512}),
        (run_c3, "--max_seq_length 128", "C3", {"max_seq_length": 128}),
        (run_chid, "", "CHID", {"max_seq_length": 64, "assignment": "joint"}),
        (run_chid, "--assignment greedy", "CHID", {"max_seq_length": 64, "assignment": "greedy"}),
        (run_cmrc2018, "", "CMRC2018", {"max_seq_length": 512} | SPAN),
        (
            run_cmrc2018,
            "--doc_stride 9 --max_query_length 8 --n_best_size 7 --max_answer_length 6 --max_seq_length 99",
            "CMRC2018",
            {"max_seq_length": 99, "doc_stride": 9, "max_query_length": 8, "n_best_size": 7, "max_answer_length": 6},
        ),
    ],
)
def test_a_script_takes_its_flags_and_the_official_values(
    monkeypatch, run_script, tokenizer, tmp_path, script, flags, task, expected
):
    executed = []
    monkeypatch.setattr(session, "execute", lambda *words: executed.append(words))
    words = ("--model_name_or_path", "ernie-3.0-base-zh", "--do_predict", "--device", "cpu", "--output_dir", tmp_path)
    status, out, err = run_script(script.main, *words, *flags.split())
    assert status == 0 and f"task: {task}, " in out, err
    ((args, of_task),) = executed
    assert (of_task, args.device, args.do_predict) == (TASKS[task], "cpu", True)
    method = make_method(args, of_task, tokenizer)
    assert method.tokenizer is tokenizer and {name: getattr(method, name) for name in expected} == expected
    assert run_script(script.main, *words, "--log_level", "error")[1] == ""


# --- what is learnt -------------------------------------------------------------------------------------------------


def tensors(**arrays: Any) -> dict[str, paddle.Tensor]:
    return {name: paddle.to_tensor(np.array(value)) for name, value in arrays.items()}


class Model:
    """Gives what it is told to, and notes what it was asked."""

    config = SimpleNamespace(type_vocab_size=2)

    def __init__(self, *outputs: np.ndarray) -> None:
        self.outputs, self.asked = outputs, []

    def forward(self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None) -> Any:
        given = {"input_ids": input_ids, "token_type_ids": token_type_ids, "attention_mask": attention_mask}
        self.asked.append([name for name, value in given.items() if value is not None])
        outputs = [paddle.to_tensor(output) for output in self.outputs]
        return outputs if len(outputs) > 1 else outputs[0]

    __call__ = forward


@pytest.mark.parametrize(("task", "width"), [("TNEWS", 15), ("C3", 4), ("CHID", 10)])
def test_the_loss_of_a_row_is_the_cross_entropy_of_its_label(task, width):
    head = HEADS[TASKS[task].kind]
    scores = np.random.default_rng(0).normal(size=(3, width)).astype(np.float32)
    batch = tensors(input_ids=[[1]] * 3, token_type_ids=[[0]] * 3, attention_mask=[[1]] * 3, label=[1, 0, 3], x=[7] * 3)
    model = Model(scores)
    losses = head.loss(model, batch)
    assert losses.shape == [3]
    np.testing.assert_allclose(losses.numpy(), -log_softmax(scores)[[0, 1, 2], [1, 0, 3]], atol=1e-6)
    np.testing.assert_array_equal(head.forward(model, batch).numpy(), scores)
    assert model.asked == [["input_ids", "token_type_ids", "attention_mask"]] * 2


def test_the_loss_of_a_span_is_the_mean_of_start_and_end():
    head = HEADS["span"]
    starts, ends = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    batch = tensors(input_ids=np.ones((2, 5), np.int64), attention_mask=mask, start=[4, 0], end=[3, 2])
    model = Model(starts, ends)
    # Padding is no place for an answer: the second row's probabilities are of its three tokens.
    expected = [
        -(log_softmax(starts[0])[4] + log_softmax(ends[0])[3]) / 2,
        -(log_softmax(starts[1, :3])[0] + log_softmax(ends[1, :3])[2]) / 2,
    ]
    losses = head.loss(model, batch)
    assert losses.shape == [2]
    np.testing.assert_allclose(losses.numpy(), expected, atol=1e-6)
    outputs = head.forward(model, batch).numpy()
    assert outputs.shape == (2, 10)
    np.testing.assert_array_equal(outputs[0], np.stack([starts[0], ends[0]], axis=1).ravel())
    np.testing.assert_array_equal(outputs[1, :6], np.stack([starts[1, :3], ends[1, :3]], axis=1).ravel())
    assert (outputs[1, 6:] < -9000).all() and model.asked == [["input_ids", "attention_mask"]] * 2


# --- what is scored and answered ------------------------------------------------------------------------------------


def test_classes_are_scored_and_answered(tokenizer):
    method = Classification(TASKS["OCNLI"], tokenizer, 32)
    scores = np.array([[0, 2, 1], [3, 0, 0], [0, 1, 2], [0, 0, 1]], np.float32)
    examples, labels = [{"id": number} for number in (7, 5, 6, 9)], [1, 0, 1, 2]
    found = method.score(scores, examples, Columns(label=labels))
    assert [*found] == ["loss", "accuracy"] and found["accuracy"] == 0.75
    assert found["loss"] == pytest.approx(-log_softmax(scores)[range(4), labels].mean(), abs=1e-9)
    expected = [(7, "contradiction"), (5, "entailment"), (6, "neutral"), (9, "neutral")]
    assert method.answer(scores, examples, Columns(label=labels)) == expected
    with pytest.raises(ValueError):
        method.answer(scores, examples[:3], Columns(label=labels))


def test_choices_are_scored_and_answered(tokenizer):
    method = C3(tokenizer, 32)
    scores = np.array([[0, 2, 1, 3], [0, 0, 0, 1], [0, 5, 7, 6]], np.float32)
    examples, features = [{"id": 3}, {"id": 1}, {"id": 2}], Columns(label=[1, 3, 1], num_choices=[3, 4, 2])
    found = method.score(scores, examples, features)
    # The question with three choices is not answered by the fourth; in the loss all four count, as in training.
    assert next(iter(found)) == "loss" and found["accuracy"] == 1.0
    assert found["accuracy_with_fillers"] == pytest.approx(1 / 3)
    assert found["loss"] == pytest.approx(-log_softmax(scores)[range(3), [1, 3, 1]].mean(), abs=1e-9)
    assert method.answer(scores, examples, features) == [(3, 1), (1, 3), (2, 1)]
    with pytest.raises(ValueError):
        method.answer(scores, examples[:2], features)


@pytest.mark.parametrize(("assignment", "accuracy"), [("joint", 1.0), ("greedy", 1 / 3)])
def test_idioms_are_scored_and_answered(tokenizer, assignment, accuracy):
    method = Chid(tokenizer, 32, assignment)
    examples = [
        {"content": ["#idiom000001#和#idiom000002#"], "candidates": IDIOMS},
        {"content": ["#idiom000003#"], "candidates": IDIOMS},
    ]
    scores = np.zeros((3, 10), np.float32)
    scores[0, [0, 1]], scores[1, [0, 1]], scores[2, 0] = (5.0, 4.9), (4.8, 0.0), 1.0
    labels = Columns(label=[1, 0, 0])
    found = method.score(scores, examples, labels)
    assert [*found] == ["loss", "accuracy"] and found["accuracy"] == pytest.approx(accuracy)
    assert found["loss"] == pytest.approx(-log_softmax(scores)[range(3), [1, 0, 0]].mean(), abs=1e-9)
    first = (1, 0) if assignment == "joint" else (0, 1)
    answers = {"#idiom000001#": first[0], "#idiom000002#": first[1], "#idiom000003#": 0}
    assert method.answer(scores, examples, labels) == answers
    assert all(type(answer) is int for answer in method.answer(scores, examples, labels).values())


def test_spans_are_scored_and_answered(tokenizer):
    method = Cmrc2018(tokenizer, 32, 8, 8, 20, 50)
    examples = [span_example("A", "甲乙丙丁", "乙丙", "甲乙丙"), span_example("B", "戊己庚辛", "庚辛")]
    features = Rows([feature for example in examples for feature in method.encode(example)])
    assert [(row["start"], row["end"], row["context"]) for row in features] == [(5, 6, 4), (6, 7, 4)]
    scores = np.full((2, 64), -1e4, np.float32)
    scores[:, : 2 * 9] = 0.0
    scores[0, [2 * 4, 2 * 6 + 1]] = 5.0  # 甲乙丙: the second gold answer
    scores[1, [2 * 4, 2 * 6 + 1]] = 5.0  # 戊己庚, of which 庚 is right
    assert method.answer(scores, examples, features) == {"A": "甲乙丙", "B": "戊己庚"}
    found = method.score(scores, examples, features)
    assert [*found] == ["loss", "em", "f1", "squad_em", "squad_f1"]
    assert (found["em"], found["squad_em"]) == (0.5, 0.5)
    assert found["f1"] == pytest.approx((1 + 2 / 5) / 2) and found["squad_f1"] == pytest.approx((1 + 2 / 5) / 2)
    starts, ends = log_softmax(scores[:, 0::2]), log_softmax(scores[:, 1::2])
    expected = -(starts[0, 5] + ends[0, 6] + starts[1, 6] + ends[1, 7]) / 4
    assert found["loss"] == pytest.approx(expected, abs=1e-9)


def test_a_question_s_answer_is_the_best_over_its_windows(tokenizer):
    method = Cmrc2018(tokenizer, 12, 4, 8, 20, 50)
    examples = [span_example("A", "甲乙丙丁戊己庚辛", "甲"), span_example("B", "子丑寅卯", "子")]
    features = Rows([feature for example in examples for feature in method.encode(example)])
    assert [row["window"] for row in features] == [0, 1, 0]
    scores = np.zeros((3, method.width), np.float32)
    context = features[0]["context"]
    scores[0, [2 * context, 2 * context + 1]] = 3.0
    last = 2 * (context + len(features[1]["best"]) - 1)
    scores[1, [last, last + 1]] = 4.0
    scores[2, [2 * context + 2, 2 * context + 3]] = 1.0
    assert method.answer(scores, examples, features) == {"A": "辛", "B": "丑"}
    scores[1] = 0.0
    assert method.answer(scores, examples, features)["A"] == "甲"
    # Equal sums: the first window, there the first start, there the first end.
    assert method.answer(np.zeros_like(scores), examples, features) == {"A": "甲", "B": "子"}


def test_of_many_equal_sums_the_first_span_is_answered(tokenizer):
    method = Cmrc2018(tokenizer, 128, 64, 8, 20, 50)
    context = "".join(chr(0x4E00 + i) for i in range(100))
    examples = [span_example("A", context, context[0])]
    features = Rows(method.encode(examples[0]))
    scores = np.zeros((1, method.width), np.float32)
    scores[0, 2 * features[0]["context"] : 2 * features[0]["context"] + 20] = -1.0
    assert len(features) == 1 and method.answer(scores, examples, features) == {"A": context[10]}


@pytest.mark.parametrize(
    ("num_tokens", "size", "stride"), [(30, 10, 3), (31, 10, 7), (25, 8, 8), (40, 16, 5), (5, 9, 3)]
)
def test_a_token_s_best_window_is_that_of_maximum_context(tokenizer, num_tokens, size, stride):
    """As BERT's run_squad.py defines it: the smaller of the contexts on both sides, and a hundredth of the length."""
    method = Cmrc2018(tokenizer, size + 5, stride, 2, 20, 50)
    context = "".join(chr(0x4E00 + i) for i in range(num_tokens))
    features = method.encode(span_example("A", context, context[0]))
    spans = [(row["char_begin"][0], row["char_end"][-1]) for row in features]
    for number, ((begin, end), row) in enumerate(zip(spans, features, strict=True)):
        for token in range(begin, end):
            scores = [
                min(token - b, e - 1 - token) + 0.01 * (e - b) if b <= token < e else float("-inf") for b, e in spans
            ]
            assert row["best"][token - begin] == (scores.index(max(scores)) == number)


@pytest.mark.parametrize(("length", "left", "right"), [(64, 28, 28), (63, 27, 28), (33, 12, 13)])
def test_the_room_around_a_blank_is_shared_out_evenly(tokenizer, length, left, right):
    method = Chid(tokenizer, length, "joint")
    (feature,) = method.encode({"content": ["天" * 99 + "#idiom000001#" + "地" * 99], "candidates": IDIOMS})
    words = tokens_of(tokenizer, feature["input_ids"][0]).split()
    assert words == "[CLS] 一 心 一 意 [SEP]".split() + ["天"] * left + ["[unused1]"] + ["地"] * right + ["[SEP]"]


def test_a_long_idiom_takes_the_room_of_what_is_farthest_from_the_blank(tokenizer):
    method = Chid(tokenizer, 20, "joint")
    before, after = "甲乙丙丁戊己庚辛", "子丑寅卯辰巳午未"
    example = {"content": [f"{before}#idiom000001#{after}"], "candidates": ["天地玄黄宇宙洪", "天地", *IDIOMS[2:]]}
    (feature,) = method.encode(example)
    rows = [tokens_of(tokenizer, ids).replace(" ", "") for ids in feature["input_ids"]]
    # Twelve tokens around the blank, three less for the idiom: right, left and right again lose their last one.
    assert rows[0] == "[CLS]天地玄黄宇宙洪[SEP]丁戊己庚辛[unused1]子丑寅卯[SEP]"
    assert rows[1] == "[CLS]天地[SEP]丙丁戊己庚辛[unused1]子丑寅卯辰巳[SEP]"


def test_a_vocabulary_without_the_blank_s_mark_is_said(demo, tokenizer, tmp_path, caplog):
    Chid(tokenizer, 32, "joint")
    assert caplog.messages == []
    folder = shutil.copytree(demo / "model", tmp_path / "model")
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8")
    (folder / "vocab.txt").write_text(vocabulary.replace("[unused1]\n", "[unused0]\n"), encoding="utf-8")
    method = Chid(load_tokenizer(str(folder)), 32, "joint")
    assert caplog.messages == ["the vocabulary has no [unused1]: blanks are marked with [UNK]"]
    assert method.mark == method.tokenizer.unk_token_id
