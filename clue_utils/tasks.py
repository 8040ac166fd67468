"""The registry: the ten CLUE tasks as plain data.

Every file name, label list, hyper-parameter and grid stands here once; defaults, grids, reports and documentation
tables are derived from it. Importing this module needs nothing but the standard library.

Sources: the files, sizes and label names of the CLUE repository (https://github.com/CLUEbenchmark/CLUE); label order
and addresses of ``paddlenlp.datasets.clue``, so that checkpoints fine-tuned with PaddleNLP keep their classes;
hyper-parameters of PaddleNLP's CLUE benchmark.
"""

from __future__ import annotations

import difflib
import os
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clue_utils.errors import UserError, show
from clue_utils.language import say

# One example, by the fields that its task has, see ``Task.fields``.
Example = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """One part of a task's data: which files hold it, and how many examples with a gold label the release has.

    ``files`` lists the alternatives in order of preference; each alternative is the tuple of files to be joined. A
    user's are one alternative of absolute paths, which say where they are.
    """

    files: tuple[tuple[str, ...], ...]
    num_examples: int
    answers: str | None = None

    @property
    def is_placed(self) -> bool:
        """Whether its files are where their paths say, rather than in the folder of a task."""
        return bool(self.files) and os.path.isabs(self.files[0][0])


@dataclass(frozen=True)
class Archive:
    """The zip of a task: addresses, and the digests ("md5:..." or "sha256:...") of its known releases.

    Attributes:
        num_bytes: of the release with the SHA-256, as Hugging Face's ``dataset_infos.json`` of CLUE has it; None where
            that names none. For people: downloads are checked by their digests.
    """

    urls: tuple[str, ...]
    digests: tuple[str, ...]
    num_bytes: int | None = None


@dataclass(frozen=True)
class Task:
    """One CLUE task.

    Attributes:
        kind: "classification" (sentence or pair, one label), "multiple_choice" (C3), "span" (CMRC2018) or
            "cloze" (CHID).
        script: the program that runs the task, relative to the project's top folder.
        folder: name of the task's folder in the official layout.
        fields: schema of one example without id and label: a type, ``[type]`` for a list, or a nested mapping.
        labels: official label strings; the position is the class id. Empty where there is no fixed label list.
        label_names: what people call the labels, in the same order; empty where a label says it itself, see ``names``.
        metric: "accuracy" or "em", the number that chooses the best checkpoint.
        published_metrics: where scores were published by another rule, a run's metrics by that: PaddleNLP's looser EM
            and F1; the accuracy that counts the fillers of missing choices as choices.
        batch_sizes: of the grid; for reading comprehension the sum over ``num_gpus`` GPUs.
        submissions: test split -> file name on the leaderboard.
        md5: MD5 of the files of known releases -> name of the file.
        texts: the one or two fields that the model reads, of a classification task of a user; empty for CLUE's, which
            have rules of their own.
        evaluation_steps: steps from one evaluation to the next; None: as usual for the kind.
        source: the file that describes a user's task, see ``task_file``; "" for CLUE's.
    """

    name: str
    kind: str
    script: str
    folder: str
    archive: Archive
    fields: Mapping[str, Any]
    splits: Mapping[str, Split]
    submissions: Mapping[str, str]
    num_train_epochs: int
    max_seq_length: int
    labels: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    metric: str = "accuracy"
    published_metrics: tuple[str, ...] = ()
    warmup_proportion: float = 0.1
    num_gpus: int = 1
    learning_rates: tuple[float, ...] = (1e-5, 2e-5, 3e-5, 5e-5)
    batch_sizes: tuple[int, ...] = (16, 32, 64)
    dropouts: tuple[float, ...] = (0.1,)
    md5: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    evaluation_steps: int | None = None
    source: str = ""

    @property
    def is_own(self) -> bool:
        """Whether a user has described it, rather than CLUE."""
        return bool(self.source)

    @property
    def origin(self) -> str:
        """Where its facts are from, for the log."""
        return self.source or f"registry, {self.name}"

    @property
    def words(self) -> tuple[str, ...]:
        """The flags that tell its script which task to run."""
        if self.is_own:
            return "--task_file", self.source
        return ("--task_name", self.name) if self.kind == "classification" else ()

    @property
    def names(self) -> tuple[str, ...]:
        """What people call each class, by its id."""
        return self.label_names or self.labels

    @property
    def test_splits(self) -> tuple[str, ...]:
        return tuple(self.submissions)

    @property
    def plain_submission(self) -> str:
        """``<task>_predict.json``: a copy of the newest test set's predictions, never part of a zip."""
        return f"{self.name.lower()}_predict.json"

    @property
    def is_reading_comprehension(self) -> bool:
        return self.kind != "classification"

    @property
    def save_steps(self) -> int:
        """Steps from one evaluation to the next; 0: once an epoch."""
        usual = 0 if self.is_reading_comprehension else 100
        return usual if self.evaluation_steps is None else self.evaluation_steps


# Of every published run.
SEED = 42
# An example with this gold label has no agreed answer; the official readers leave it out.
NO_LABEL = "-"
# A C3 question has at most this many choices, and at least two.
MAX_CHOICES = 4
# The tag of a blank in a CHID passage (a regular expression), and how many idioms an example offers.
BLANK = r"#idiom\d+#"
NUM_CANDIDATES = 10
# How the idioms of a CHID example are given to its blanks, see ``chid.assign_candidates``; the first by default.
ASSIGNMENT_RULES = ("joint", "greedy")
# The folder's names for CLUE's two generations of test sets.
TEST_1_0, TEST_1_1, TEST = "test1.0", "test1.1", "test"
_BOS = "https://bj.bcebos.com/paddlenlp/datasets/"
_BOS_MRC = "https://paddlenlp.bj.bcebos.com/datasets/"
_PAIR = {"sentence1": str, "sentence2": str}
_CLASSIFIER = "classification/run_clue_classifier.py"
# ``label_desc`` and ``label_des`` of the official files.
_TNEWS_NAMES = (
    "news_story news_culture news_entertainment news_sports news_finance news_house news_car news_edu news_tech "
    "news_military news_travel news_world news_stock news_agriculture news_game"
)
_IFLYTEK_NAMES = """
打车 地图导航 免费WIFI 租车 同城服务 快递物流 婚庆 家政 公共交通 政务 社区服务 薅羊毛 魔幻 仙侠 卡牌
飞行空战 射击游戏 休闲益智 动作类 体育竞技 棋牌中心 经营养成 策略 MOBA 辅助工具 约会社交 即时通讯
工作社交 论坛圈子 婚恋社交 情侣社交 社交工具 生活社交 微博博客 新闻 漫画 小说 技术 教辅 问答交流 搞笑
杂志 百科 影视娱乐 求职 兼职 视频 短视频 音乐 直播 电台 K歌 成人 中小学 职考 公务员 英语 视频教育
高等教育 成人教育 艺术 语言(非英语) 旅游资讯 综合预定 民航 铁路 酒店 行程管理 民宿短租 出国 工具
亲子儿童 母婴 驾校 违章 汽车咨询 汽车交易 日常养车 行车辅助 租房 买房 装修家居 电子产品 问诊挂号
养生保健 医疗服务 减肥瘦身 美妆美业 菜谱 餐饮店 体育咨讯 运动健身 支付 保险 股票 借贷 理财 彩票 记账
银行 美颜 影像剪辑 摄影修图 相机 绘画 二手 电商 团购 外卖 电影票务 社区超市 购物咨询 笔记 办公 日程管理
女性 经营 收款 其他
"""


def _json_splits(train: int, dev: int, test: int, train_file: str = "train.json") -> dict[str, Split]:
    return {
        "train": Split(((train_file,),), train),
        "dev": Split((("dev.json",),), dev),
        TEST: Split((("test.json",),), test),
    }


def _two_tests(train: int, dev: int, test_1_0: int, test_1_1: int) -> dict[str, Split]:
    splits = _json_splits(train, dev, test_1_1)
    del splits[TEST]
    return splits | {
        TEST_1_0: Split((("test1.0.json",),), test_1_0),
        TEST_1_1: Split((("test.json",), ("test1.1.json",)), test_1_1),
    }


_ALL = (
    Task(
        name="AFQMC",
        kind="classification",
        script=_CLASSIFIER,
        folder="afqmc_public",
        archive=Archive(
            (_BOS + "afqmc_public.zip",),
            (
                "md5:3377b559bb4e61d03a35282550902ca0",
                "sha256:5a4cb1556b833010c329fa2ad2207d9e98fc94071b7e474015e9dd7c385db4dc",
            ),
            num_bytes=1_195_044,
        ),
        fields=_PAIR,
        splits=_json_splits(34334, 4316, 3861),
        submissions={TEST: "afqmc_predict.json"},
        labels=("0", "1"),
        label_names=("different meaning", "same meaning"),
        num_train_epochs=3,
        max_seq_length=128,
        md5={
            "319cf775353af9473140abca4052b89a": "train.json",
            "307154b59cb6c3e68a0f39c310bbd364": "dev.json",
            "94b925f23a9615dd08199c4013f761f4": "test.json",
        },
    ),
    Task(
        name="TNEWS",
        kind="classification",
        script=_CLASSIFIER,
        folder="tnews_public",
        archive=Archive(
            (_BOS + "tnews_public.zip",),
            (
                "md5:38186ed0a751bc33e3ae0c1b59319777",
                "sha256:77c476e70cfe0b014a81b84c6e1db2142a8a2f52f4ae0a8216aa75e673933462",
            ),
            num_bytes=5_123_575,
        ),
        fields={"sentence": str},
        splits=_two_tests(53360, 10000, 10000, 10000),
        submissions={TEST_1_0: "tnews10_predict.json", TEST_1_1: "tnews11_predict.json"},
        labels=tuple("100 101 102 103 104 106 107 108 109 110 112 113 114 115 116".split()),
        label_names=tuple(_TNEWS_NAMES.split()),
        num_train_epochs=3,
        max_seq_length=128,
        md5={
            "25c021725309a3330736380a230850fd": "train.json",
            "f0660a3339a32e764075c801b42ece3c": "dev.json",
            "045a6c4f59bf1a066c4a0d7afe6cd2b4": "test.json",
            "2d1557c7548c72d5a84c47bbbd3a4e85": "test1.0.json",
        },
    ),
    Task(
        name="IFLYTEK",
        kind="classification",
        script=_CLASSIFIER,
        folder="iflytek_public",
        archive=Archive(
            (_BOS + "iflytek_public.zip",),
            (
                "md5:19e4b19947db126f69aae18db0da2b87",
                "sha256:c59b961b29f1d0bad0c5e01aa62e4a61a80e9cfb980ce89b06c000851fbb3b06",
            ),
            num_bytes=6_505_938,
        ),
        fields={"sentence": str},
        splits=_json_splits(12133, 2599, 2600),
        submissions={TEST: "iflytek_predict.json"},
        labels=tuple(str(i) for i in range(119)),
        label_names=tuple(_IFLYTEK_NAMES.split()),
        num_train_epochs=3,
        max_seq_length=128,
        dropouts=(0.1, 0.0),
        md5={
            "fc9a21700c32ee3efee3fc283e9ac560": "train.json",
            "79b7d95bddeb11cd54198fd077992704": "dev.json",
            "ea764519ddb4369767d07664afde3325": "test.json",
        },
    ),
    Task(
        name="CMNLI",
        kind="classification",
        script=_CLASSIFIER,
        folder="cmnli_public",
        archive=Archive(
            (_BOS + "cmnli_public.zip",),
            (
                "md5:e0e8caefd9b3491220c18b466233f2ff",
                "sha256:3a3f3b1d3d27134cf11e585156f07fa050bd0a0836821c02696af0dbaa14513b",
            ),
            num_bytes=31_404_066,
        ),
        fields=_PAIR,
        splits=_json_splits(391783, 12241, 13880),
        submissions={TEST: "cmnli_predict.json"},
        labels=("contradiction", "entailment", "neutral"),
        num_train_epochs=2,
        max_seq_length=128,
        md5={
            "7d02308650cd2a0e183bf599ca9bb263": "train.json",
            "0b16a50a297a9afb1ce5385ee4dd3d9c": "dev.json",
            "804cb0bb67266983d59d1c855e6b03b0": "test.json",
        },
    ),
    Task(
        name="OCNLI",
        kind="classification",
        script=_CLASSIFIER,
        folder="ocnli_public",
        archive=Archive((_BOS + "ocnli_public.zip",), ("md5:acb426f6f3345076c6ce79239e7bc307",)),
        fields=_PAIR,
        splits=_json_splits(50437, 2950, 3000, train_file="train.50k.json"),
        submissions={TEST: "ocnli_50k_predict.json"},
        # PaddleNLP's order, which is not CMNLI's.
        labels=("entailment", "contradiction", "neutral"),
        num_train_epochs=5,
        max_seq_length=128,
        md5={
            "d38ec492ef086a894211590a18ab7596": "train.50k.json",
            "3481b456bee57a3c9ded500fcff6834c": "dev.json",
            "680ff24e6b3419ff8823859bc17936aa": "test.json",
        },
    ),
    Task(
        name="CLUEWSC2020",
        kind="classification",
        script=_CLASSIFIER,
        folder="cluewsc2020_public",
        archive=Archive(
            (_BOS + "cluewsc2020_public.zip",),
            (
                "md5:2e387e20e93eeab0ffaded5b0d2dfd3d",
                "sha256:ebe5f357b19392d601be401b2fd4246983f534809a078eab7bda1de418fb3ffe",
            ),
            num_bytes=281_384,
        ),
        fields={
            "text": str,
            "target": {"span1_text": str, "span1_index": int, "span2_text": str, "span2_index": int},
        },
        splits=_two_tests(1244, 304, 290, 2574),
        submissions={TEST_1_0: "cluewsc10_predict.json", TEST_1_1: "cluewsc11_predict.json"},
        labels=("true", "false"),
        num_train_epochs=50,
        max_seq_length=128,
        batch_sizes=(8, 16, 32, 64),
        dropouts=(0.1, 0.0),
        md5={
            "afd235dcf8cdb89ee1a21d0a4823eecc": "train.json",
            "bad8cd6fa0916fc37ac96b8ce316714a": "dev.json",
            "27614454cc26be6fcab5bbd9a45967ff": "test.json",
            "0e9e8ffd8ee90ddf1f58d6dc2e02de7b": "test1.0.json",
        },
    ),
    Task(
        name="CSL",
        kind="classification",
        script=_CLASSIFIER,
        folder="csl_public",
        archive=Archive(
            (_BOS + "csl_public.zip",),
            (
                "md5:394a2ccbf6ddd7e331be4d5d7798f0f6",
                "sha256:795d1a2e475d59acad8236f6c5baba7a0b43d3e0508cb60f15ffbc76d5f437c4",
            ),
            num_bytes=3_234_594,
        ),
        fields={"abst": str, "keyword": [str]},
        splits=_json_splits(20000, 3000, 3000),
        submissions={TEST: "csl_predict.json"},
        labels=("0", "1"),
        label_names=("some keyword is false", "all keywords are true"),
        num_train_epochs=5,
        max_seq_length=256,
        md5={
            "e927948b4e0eb4992fe9f45a77446bf5": "train.json",
            "6c2ab8dd3b4785829ead94b05a1cb957": "dev.json",
            "ebfb89575355f00dcd9b18f8353547cd": "test.json",
        },
    ),
    Task(
        name="CMRC2018",
        kind="span",
        script="mrc/run_cmrc2018.py",
        folder="cmrc2018_public",
        archive=Archive(
            (_BOS_MRC + "cmrc2018_public.zip",),
            ("sha256:6c63dc27e728ec5231aeb7d2861b4c90b6c116390582e0c44416cf3edf030b16",),
            num_bytes=3_405_146,
        ),
        fields={"context": str, "question": str},
        splits={
            "train": Split((("train.json",), ("cmrc2018_train.json",)), 10142),
            "dev": Split((("dev.json",), ("cmrc2018_dev.json",)), 3219),
            TEST: Split((("test.json",), ("cmrc2018_test_2k.json",)), 2000),
        },
        submissions={TEST: "cmrc2018_predict.json"},
        metric="em",
        published_metrics=("squad_em", "squad_f1"),
        num_train_epochs=2,
        max_seq_length=512,
        num_gpus=2,
        learning_rates=(1e-5, 2e-5, 3e-5),
        batch_sizes=(24, 32),
        md5={
            "7fb714b479c7f40fbb16acabd7af0ede": "train.json",
            "853b80709ff2d071f9fce196521b843c": "dev.json",
        },
    ),
    Task(
        name="CHID",
        kind="cloze",
        script="mrc/run_chid.py",
        folder="chid_public",
        archive=Archive(
            (_BOS_MRC + "chid_public.zip",),
            ("sha256:be02dbcc41a9c237542141f53836e70a209f7a686cf894891411c7e5534f73a4",),
            num_bytes=139_199_202,
        ),
        fields={"content": [str], "candidates": [str]},
        splits={
            "train": Split((("train.json",),), 84709, answers="train_answer.json"),
            "dev": Split((("dev.json",),), 3218, answers="dev_answer.json"),
            TEST_1_0: Split((("test1.0.json",),), 3231),
            TEST_1_1: Split((("test1.1.json",),), 3447),
        },
        submissions={TEST_1_0: "chid10_predict.json", TEST_1_1: "chid11_predict.json"},
        num_train_epochs=3,
        max_seq_length=64,
        warmup_proportion=0.06,
        num_gpus=4,
        learning_rates=(1e-5, 2e-5, 3e-5),
        batch_sizes=(24, 32),
    ),
    Task(
        name="C3",
        kind="multiple_choice",
        script="mrc/run_c3.py",
        folder="c3_public",
        archive=Archive(
            (_BOS_MRC + "c3_public.zip",),
            ("sha256:20dfa683c57c9795129e22d8dd0c299d6b2a29fbc84758ef2ebdb8b2904d7e12",),
            num_bytes=3_495_930,
        ),
        fields={"context": [str], "question": str, "choice": [str]},
        splits={
            # Dialogues (d) before mixed genre (m), as the official script joins them.
            "train": Split((("d-train.json", "m-train.json"),), 11869),
            "dev": Split((("d-dev.json", "m-dev.json"),), 3816),
            TEST_1_0: Split((("test1.0.json",),), 3892),
            TEST_1_1: Split((("test1.1.json",),), 1625),
        },
        submissions={TEST_1_0: "c310_predict.json", TEST_1_1: "c311_predict.json"},
        published_metrics=("accuracy_with_fillers",),
        num_train_epochs=8,
        max_seq_length=512,
        num_gpus=4,
        learning_rates=(1e-5, 2e-5, 3e-5),
        batch_sizes=(24, 32),
        # PaddleNLP's C3 reader takes the same questions under the names c3-{d,m}-*.json.
        md5={
            "291b07679bef785aa66bb5343f1b49b2": "d-train.json",
            "db321e631eb3e6f508e438992652618f": "m-train.json",
            "446e75358789d3fbe8730089cadf5fb0": "d-dev.json",
            "beb2f2e08c18cd8e9429c6a55de6b8db": "m-dev.json",
        },
    ),
)
TASKS: Mapping[str, Task] = {task.name: task for task in _ALL}
# What users have described, as far as this process was told; and all tasks that can be looked up, CLUE's ten first.
OWN: dict[str, Task] = {}
KNOWN: Mapping[str, Task] = ChainMap(OWN, TASKS)  # type: ignore[arg-type]
# A set of 514 pairs that shows how a model handles nine phenomena of Chinese: no score counts it, it has test examples
# only, and CMNLI's model answers it. Its fields have names of their own. No source says its file name on the
# leaderboard, which is formed by the rule that its notes give for every task.
DIAGNOSTICS_MODEL = "CMNLI"
DIAGNOSTICS = replace(
    TASKS[DIAGNOSTICS_MODEL],
    name="DIAGNOSTICS",
    folder="clue_diagnostics_public",
    archive=Archive(
        (_BOS_MRC + "clue_diagnostics_public.zip",),
        ("sha256:56b52e70c195686557a966c6064c9bdc4dece1de8c89551f89ad046637e9a7c4",),
        num_bytes=12_062,
    ),
    fields={"premise": str, "hypothesis": str},
    splits={TEST: Split((("diagnostics_test.json",),), 514)},
    submissions={TEST: "diagnostics_predict.json"},
    md5={},
)


def probabilities_name(submission: str) -> str:
    """The file with the probabilities behind a file for the leaderboard, beside it."""
    return submission.replace("_predict.json", "_probabilities.jsonl")


CLASSIFICATION_TASKS = tuple(task.name for task in _ALL if task.kind == "classification")


def get_task(name: str, kind: str | None = None, takes_file: bool = False) -> Task:
    """Return the task of this name in any letter case.

    Args:
        kind: what is asked for: other tasks are not offered in the place of one that there is not.
        takes_file: whether who asks also takes --task_file, as a user's own task needs.

    Raises:
        UserError: there is none; it names the nearest and all.
    """
    wanted = name.strip().upper()
    if wanted in KNOWN:
        return KNOWN[wanted]
    offered = [task.name for task in KNOWN.values() if kind in (None, task.kind)]
    within = [each for each in offered if len(wanted) > 2 and wanted in each]  # WSC
    close = within or difflib.get_close_matches(wanted, offered, n=1, cutoff=0.5)
    values = {"name": show(name), "known": ", ".join(offered)}
    values["own"] = say(", or describe one of your own in a file for --task_file") if takes_file else ""
    if close:
        raise UserError(
            say("unknown task {name}: did you mean {meant}? Else choose one of {known}{own}", meant=close[0], **values)
        )
    raise UserError(say("unknown task {name}: choose one of {known}{own}", **values))
