#!/usr/bin/env python
"""Make demo data for the ten CLUE tasks and a tiny random ERNIE model, so that every script runs without a download.

The data is in the official folder layout and record formats, quirks included; its texts are drawn from the word lists
below, with a signal that a two-layer model learns from scratch in some hundred updates. The model is an ordinary
checkpoint folder. The same parameters give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clue_utils import runtime
from clue_utils.arguments import Parser, non_negative_int, positive_int
from clue_utils.errors import UserError
from clue_utils.tasks import NO_LABEL, TASKS, Task

Record = dict[str, Any]

MANIFEST = "demo.json"
PARTS = ("data", "model")


class Sizes(NamedTuple):
    """Records of each split; questions for C3 and CMRC2018, rows of one to three blanks for CHID."""

    train: int
    dev: int
    test: int

    def of(self, split: str) -> int:
        return self.test if split.startswith("test") else int(getattr(self, split))


DEFAULT_SIZES: Mapping[str, Sizes] = {
    "AFQMC": Sizes(640, 120, 60),
    "TNEWS": Sizes(800, 150, 60),
    "IFLYTEK": Sizes(1040, 200, 100),
    "CMNLI": Sizes(640, 120, 60),
    "OCNLI": Sizes(640, 120, 60),
    "CLUEWSC2020": Sizes(640, 120, 60),
    "CSL": Sizes(640, 120, 60),
    "CMRC2018": Sizes(600, 120, 60),
    "CHID": Sizes(480, 80, 40),
    "C3": Sizes(640, 120, 60),
}


def training_flags(task: Task) -> list[str]:
    """Flags with which a demo model learns a demo task in less than a minute on one core."""
    flags = {"learning_rate": 1e-3, "batch_size": 16, "num_train_epochs": 3, "max_seq_length": 64, "logging_steps": 20}
    flags["save_steps"] = 50
    flags |= {
        "C3": {"num_train_epochs": 1},
        "CHID": {"batch_size": 8, "max_seq_length": 32, "save_steps": 150},
        "CMRC2018": {"num_train_epochs": 4, "max_seq_length": 128, "save_steps": 100},
    }.get(task.name, {})
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def sizes_for(records: int | None) -> dict[str, Sizes]:
    """Sizes of all tasks: the default ones, or ``records`` for training, a quarter for dev, an eighth for each test."""
    if records is None:
        return dict(DEFAULT_SIZES)
    return {name: Sizes(records, max(1, records // 4), max(1, records // 8)) for name in TASKS}


# ruff: noqa: SIM905 (the word lists are easier to read and extend as text)
# Words ---------------------------------------------------------------------------------------------------------------

PEOPLE = "小王 小李 张老师 陈医生 刘阿姨 赵叔叔 周同学 吴经理 郑奶奶 孙司机 马教练 林记者".split()
MEN, WOMEN = "大明 建国 志强 小刚 国华 阿勇".split(), "小芳 丽娜 秀英 小红 美玲 阿兰".split()
WHEN = "昨天早上 今天中午 上个周末 去年夏天 刚才 前天晚上 放学以后 下班以后".split()
WHERE = "公园 图书馆 医院 超市 学校 车站 餐厅 博物馆 办公室 体育馆".split()
DOING = "看书 打电话 跑步 排队 唱歌 拍照 喝茶 下棋 画画 聊天".split()
NAME_CHARS = "安宝晨东方丰光海恒华嘉锦康乐明平清荣瑞盛泰天通文祥新兴雅永元云泽正中"
# Put behind every so many texts: what real files hold and naive readers stumble over.
ODDITIES = ("\u2028（有更新）", " iPhone 15 Pro", "（ＡＰＰ３６０）", "，“真的”……", " COVID-19", "\u3000①②③", "7×9＝63")
FILLERS = (
    "当地的天气四季分明，春天多风，夏天多雨。",
    "很多人喜欢在傍晚出来散步，顺便买一些水果。",
    "附近有一条小河，河水很清，两边种满了柳树。",
    "这里的交通十分方便，坐车去哪里都不远。",
    "这件事情后来被写进了报纸，大家都觉得很有意思。",
    "说起来容易，做起来却需要很多耐心和时间。",
)

ACTIONS = (
    "提前还款 修改手机号 开通分期 查询账单 取消扣款 提高额度 关闭服务 更换银行卡 申请退款 合并账单 绑定邮箱 领取红包 "
    "设置密码 打印发票 延期付款 注销账户"
).split()
HOW = ("怎么{}", "如何{}", "我想{}要怎么做", "请问怎样{}")
HOW_TOO = ("{}的步骤是什么", "{}在哪里操作", "{}有什么方法", "告诉我{}的流程")
OTHERWISE = ("为什么{}失败了", "{}会影响信用吗", "{}要收多少手续费", "{}以后多久到账")

HYPOTHESES = {
    "entailment": ("{where}里确实有人", "确实有人在{doing}", "{who}到过{where}", "{who}的确到过{where}"),
    "contradiction": ("{where}里没有人", "{who}从来没有{doing}", "{who}没有去{where}", "没有人在{doing}"),
    "neutral": ("{who}可能喜欢{doing}", "{who}也许常去{where}", "{who}可能住在{where}旁边", "也许还有人在{doing}"),
}

# Label, its official description, words that give it away.
NEWS = {
    "100": ("news_story", "故事 传说 村里 老人 从前 缘分 夜里 往事"),
    "101": ("news_culture", "书法 诗词 古画 戏曲 文物 非遗 国学 庙会"),
    "102": ("news_entertainment", "明星 电影 票房 演员 综艺 歌手 导演 红毯"),
    "103": ("news_sports", "足球 联赛 冠军 球员 篮球 主场 进球 教练"),
    "104": ("news_finance", "股市 基金 银行 利率 债券 涨停 投资 央行"),
    "106": ("news_house", "房价 楼盘 买房 首付 小区 物业 户型 租房"),
    "107": ("news_car", "汽车 新车 轿车 油耗 发动机 底盘 试驾 车型"),
    "108": ("news_edu", "高考 大学 学生 老师 作业 录取 考研 课程"),
    "109": ("news_tech", "手机 芯片 网络 软件 机器人 算法 数据 屏幕"),
    "110": ("news_military", "战机 航母 导弹 军队 演习 士兵 坦克 雷达"),
    "112": ("news_travel", "旅游 景区 酒店 机票 游客 自驾 古镇 海滩"),
    "113": ("news_world", "总统 外交 大使 国会 峰会 边境 选举 联合国"),
    "114": ("news_stock", "开盘 收盘 大盘 股价 牛市 仓位 个股 指数"),
    "115": ("news_agriculture", "小麦 农民 种植 化肥 养猪 大棚 果园 水稻"),
    "116": ("news_game", "游戏 玩家 英雄 副本 皮肤 手游 段位 装备"),
}
HEADLINES = (
    "{a}又有新消息，{b}引来关注",
    "关于{a}和{b}，你了解多少？",
    "{when}，{a}带火了{b}",
    "谈谈{a}：{b}到底怎么样",
    "“{name}”谈{a}，{b}成了焦点",
)

# The 119 classes of IFLYTEK are made of 17 fields and 7 kinds; each has words of its own.
APP_FIELDS = {
    "音乐": "歌曲 专辑",
    "视频": "影片 剧集",
    "购物": "商品 折扣",
    "美食": "菜谱 餐馆",
    "旅行": "机票 景点",
    "地图": "导航 路线",
    "天气": "气温 台风",
    "理财": "基金 存款",
    "健身": "瑜伽 减肥",
    "医疗": "挂号 药品",
    "英语": "单词 口语",
    "游戏": "关卡 英雄",
    "新闻": "头条 时事",
    "宠物": "猫咪 狗粮",
    "办公": "文档 会议",
    "摄影": "滤镜 相册",
    "汽车": "油耗 违章",
}
APP_KINDS = {
    "工具": "计算 扫描",
    "社区": "发帖 好友",
    "商城": "下单 包邮",
    "课堂": "名师 上课",
    "直播": "主播 弹幕",
    "助手": "提醒 语音",
    "百科": "词条 知识",
}

# Person's reasons make the pronoun a person, thing's reasons a thing.
THINGS = "书包 箱子 自行车 相机 椅子 花瓶 雨伞 毛衣".split()
REASONS_OF_PERSON, REASONS_OF_THING = "太累了 很着急 困了 饿了".split(), "太旧了 太重了 坏了 太脏了".split()

STUDIES = (
    "神经网络 图像识别 特征提取 目标检测",
    "水稻 氮肥 土壤水分 产量",
    "混凝土 抗压强度 裂缝 钢筋",
    "糖尿病 胰岛素 血糖 并发症",
    "锂电池 电解液 正极材料 充放电",
    "农村金融 小额信贷 利率 农户收入",
    "水库 泥沙淤积 洪水 径流",
    "唐代诗歌 意象 音韵 文人",
)
NOT_KEYWORDS = "有关问题 若干情况 一般说明 其他方面 各种因素 总体印象".split()

MILD = "有时候 偶尔 周末常常 差不多每周".split()
ABSOLUTE = "从来不 永远不 绝对不 根本不".split()
HOBBIES = "打羽毛球 做饭 看电影 弹钢琴 爬山 游泳 学外语 养花 写日记 逛书店".split()

# Words that call for an idiom, and the idioms that fit them; below those that are never right.
IDIOMS = {
    "街道 路口 车站 广场": "车水马龙 人山人海 川流不息 水泄不通",
    "功课 考试 作业 课文": "孜孜不倦 废寝忘食 勤学苦练 手不释卷",
    "晚饭 面条 烤鸭 点心": "津津有味 狼吞虎咽 垂涎欲滴 细嚼慢咽",
    "花园 湖边 山谷 草地": "鸟语花香 风和日丽 山清水秀 春色满园",
}
OTHER_IDIOMS = (
    "守株待兔 对牛弹琴 井底之蛙 九牛一毛 亡羊补牢 刻舟求剑 叶公好龙 杯弓蛇影 掩耳盗铃 自相矛盾 滥竽充数 画饼充饥 "
    "望梅止渴 纸上谈兵 四面楚歌 破釜沉舟 卧薪尝胆 三顾茅庐 指鹿为马 完璧归赵"
).split()
CLOZES = (
    "{when}，说到{cue}，大家都想起{blank}这个词。",
    "{who}谈起{cue}，只用{blank}来形容。",
    "那天的{cue}可以说是{blank}。",
)

SURNAMES, GIVEN = "王李张刘陈杨赵黄周吴", "伟芳娜敏静强磊军洋艳勇杰娟涛超霞"
CITIES = "临江市 安丰市 海宁市 南川市 东台市 石林市 松原市 桐城市".split()
BODIES = "大学 公司 剧团 出版社 医院 银行 杂志 乐队".split()


def _name(rng: random.Random) -> str:
    return "".join(rng.sample(NAME_CHARS, 2))


def _oddity(index: int) -> str:
    """An odd ending for some texts: every file of more than a handful of records has one of each."""
    place = index % 23 - 3
    return ODDITIES[place] if 0 <= place < len(ODDITIES) else ""


def _long(index: int, every: int, sentences: int, rng: random.Random) -> str:
    """Text that makes each ``every``-th context longer than a model's window."""
    return "".join(rng.choices(FILLERS, k=sentences)) if index % every == every - 1 else ""


# Classification ------------------------------------------------------------------------------------------------------


def _afqmc(rng: random.Random, index: int) -> Record:
    label = rng.choice("01")
    action = rng.choice(ACTIONS)
    second = rng.choice(HOW_TOO if label == "1" else OTHERWISE).format(action)
    first = rng.choice(HOW).format(action)
    return {"sentence1": first + _oddity(index), "sentence2": second, "label": label}


def _tnews(rng: random.Random, index: int) -> Record:
    label = rng.choice(TASKS["TNEWS"].labels)
    description, words = NEWS[label]
    a, b = rng.sample(words.split(), 2)
    sentence = rng.choice(HEADLINES).format(a=a, b=b, when=rng.choice(WHEN), name=_name(rng))
    keywords = f"{a},{b}" if index % 3 else ""
    return {"label": label, "label_desc": description, "sentence": sentence + _oddity(index), "keywords": keywords}


def _app(label: str) -> tuple[str, str]:
    field, kind = divmod(int(label), len(APP_KINDS))
    return list(APP_FIELDS)[field], list(APP_KINDS)[kind]


def _iflytek(rng: random.Random, index: int) -> Record:
    labels = TASKS["IFLYTEK"].labels
    common = labels[:: len(APP_KINDS) + 1]
    # As in the real data a few labels are frequent and every one occurs.
    rare = [label for label in labels if label not in common]
    label = rare[index // 10 % len(rare)] if index % 10 == 9 else rng.choice(common)
    field, kind = _app(label)
    sentence = (
        f"{_name(rng)}{field}{kind}，{rng.choice(APP_FIELDS[field].split())}和{rng.choice(APP_KINDS[kind].split())}都很方便。"
        f"{rng.choice(APP_FIELDS[field].split())}每天更新，{rng.choice(APP_KINDS[kind].split())}一学就会。"
        f"{rng.choice(FILLERS)}{_oddity(index)}{_long(index, 20, 8, rng)}"
    )
    return {"label": label, "label_des": field + kind, "sentence": sentence}


def _cmnli(rng: random.Random, index: int) -> Record:
    label = rng.choice(TASKS["CMNLI"].labels)
    words = {"who": rng.choice(PEOPLE), "where": rng.choice(WHERE), "doing": rng.choice(DOING)}
    premise = "{when}{who}在{where}{doing}。".format(when=rng.choice(WHEN), **words) + _oddity(index)
    return {"sentence1": premise, "sentence2": rng.choice(HYPOTHESES[label]).format(**words), "label": label}


def _ocnli(rng: random.Random, index: int) -> Record:
    record = _cmnli(rng, index)
    genre = rng.choice(("gov", "lit", "news", "phone", "tv"))
    votes = {f"label{i}": record["label"] if index % 2 else None for i in range(5)}
    levels = ("easy", "medium", "hard")
    return {
        "level": rng.choice(levels),
        **record,
        **votes,
        "genre": genre,
        "prem_id": f"{genre}_{index // len(levels)}",
        "id": index,
    }


def _cluewsc2020(rng: random.Random, index: int) -> Record:
    label = rng.choice(TASKS["CLUEWSC2020"].labels)
    person, thing = rng.choice(MEN + WOMEN), rng.choice(THINGS)
    if label == "true":
        pronoun, reason = "他" if person in MEN else "她", rng.choice(REASONS_OF_PERSON)
    else:
        pronoun, reason = "它", rng.choice(REASONS_OF_THING)
    # A tab marks where the pronoun goes in; now and then it stands before the noun.
    story = f"{person}把{thing}放在{rng.choice(WHERE)}"
    because = f"因为\t{reason}"
    marked = f"{rng.choice(WHEN)}，" + (f"{because}，{story}。" if index % 4 == 3 else f"{story}，{because}。")
    span2_index = marked.index("\t")
    text = marked.replace("\t", pronoun)
    target = {
        "span2_index": span2_index,
        "span1_index": text.index(person),
        "span1_text": person,
        "span2_text": pronoun,
    }
    return {"target": target, "idx": index, "label": label, "text": text + _oddity(index)}


def _csl(rng: random.Random, index: int) -> Record:
    label = rng.choice("01")
    a, b, c, d = rng.sample(rng.choice(STUDIES).split(), 4)
    abstract = (
        f"针对{a}中的{b},提出了一种考虑{c}的新方法,并与{d}作了比较.结果表明,{b}提高了{rng.randint(2, 40)}%,"
        f"{rng.choice(('误差较小', '效果明显', '成本较低'))}.{_oddity(index)}{_long(index, 20, 10, rng)}"
    )
    keywords = [a, b, c, d][: rng.randint(3, 4)]
    if label == "0":
        keywords[-2:] = rng.sample(NOT_KEYWORDS, 2)
    rng.shuffle(keywords)
    return {"id": index, "abst": abstract, "keyword": keywords, "label": label}


_CLASSIFICATION: Mapping[str, Callable[[random.Random, int], Record]] = {
    "AFQMC": _afqmc,
    "TNEWS": _tnews,
    "IFLYTEK": _iflytek,
    "CMNLI": _cmnli,
    "OCNLI": _ocnli,
    "CLUEWSC2020": _cluewsc2020,
    "CSL": _csl,
}
# Where annotators of the real files did not agree.
_WITHOUT_LABEL = {("CMNLI", "dev"), ("OCNLI", "train"), ("OCNLI", "dev")}


def _classification_files(task: Task, split: str, size: int, rng: random.Random) -> list[str]:
    records = [_CLASSIFICATION[task.name](rng, index) for index in range(size)]
    if split.startswith("test"):
        keep = {*task.fields, "keywords"}
        records = [
            {"id": i} | {name: value for name, value in record.items() if name in keep}
            for i, record in enumerate(records)
        ]
        for record in records:
            if "keywords" in record:
                record["keywords"] = ""  # as in the real test files
    elif (task.name, split) in _WITHOUT_LABEL:
        for record in records[7::25]:
            record["label"] = NO_LABEL
    return [_lines(records)]


def _labels_file(task: Task) -> str:
    if task.name == "TNEWS":
        return _lines([{"label": label, "label_desc": NEWS[label][0]} for label in task.labels])
    return _lines([{"label": label, "label_des": "".join(_app(label))} for label in task.labels])


# Reading comprehension -----------------------------------------------------------------------------------------------


def _c3_document(kind: str, index: int, num_questions: int, rng: random.Random) -> list[Any]:
    hobbies = rng.sample(HOBBIES, num_questions)
    habits = [rng.choice(MILD) + hobby for hobby in hobbies]
    if kind == "d":
        who, subject = "男的", "他"
        context = []
        for hobby, habit in zip(hobbies, habits, strict=True):
            context += [f"女：你常常{hobby}吗？", f"男：我{habit}。"]
        context[-1] += _oddity(index) + _long(index, 30, 30, rng)
    else:
        who = subject = rng.choice(PEOPLE)
        habit_text = "，也".join(habits)
        context = [f"{who}家在{rng.choice(WHERE)}附近，{habit_text}。{rng.choice(FILLERS)}{_oddity(index)}"]
        context[0] += _long(index, 30, 30, rng)
    questions = []
    for number, (hobby, habit) in enumerate(zip(hobbies, habits, strict=True)):
        num_choices = {3: 2, 7: 3}.get((index + number) % 11, 4)
        wrong = [subject + word + hobby for word in rng.sample(ABSOLUTE, num_choices - 1)]
        answer = subject + habit
        choice = rng.sample([answer, *wrong], num_choices)
        questions.append({"question": f"关于{who}，下面哪句话是对的？", "choice": choice, "answer": answer})
    return [context, questions, f"{kind}-{index}"]


def _c3_files(task: Task, split: str, size: int, rng: random.Random) -> list[str]:
    files = task.splits[split].files[0]
    texts = []
    begin = 0
    for number, file in enumerate(files):
        end = size * (number + 1) // len(files)
        documents: list[list[Any]] = []
        while begin < end:
            index = len(documents)
            # Test sets mix dialogues and texts in one file.
            kind = "dm"[index % 2] if len(files) == 1 else file[0]
            document = _c3_document(kind, index, min(1 + index % 2, end - begin), rng)
            if split.startswith("test"):
                for position, question in enumerate(document[1]):
                    del question["answer"]
                    question["id"] = begin + position
            begin += len(document[1])
            documents.append(document)
        texts.append(_document(documents))
    return texts


def _cmrc2018_files(task: Task, split: str, size: int, rng: random.Random) -> list[str]:
    prefix = split.upper()
    articles: list[Record] = []
    num_questions = 0
    while num_questions < size:
        index = len(articles)
        title = _name(rng) + rng.choice(BODIES)
        year = f"{rng.randint(1901, 1999)}年"
        city = rng.choice(CITIES)
        founder = rng.choice(SURNAMES) + "".join(rng.sample(GIVEN, 2))
        facts = [f"它成立于{year}，", f"创办人是{founder}，", f"地点在{city}，"]
        rng.shuffle(facts)
        context = (
            f"{title}{_oddity(index)}。{_long(index, 14, 12, rng)}{''.join(facts)}现在很有名。"
            f"{rng.choice(FILLERS)}{_long(index, 14, 16, rng)}"
        )
        asked = [
            (f"{title}成立于哪一年？", year, year[:-1]),
            (f"{title}的创办人是谁？", founder, founder),
            (f"{title}的地点在哪座城市？", city, city[:-1]),
        ]
        qas = []
        for number, (question, answer, shorter) in enumerate(asked[: size - num_questions]):
            if split == "train":
                texts = [answer]
            elif split == "dev":
                texts = [answer, answer, shorter]
            else:
                texts = [f"FAKE_ANSWER_{i}" for i in (1, 2, 3)]
            answers = [{"text": text, "answer_start": context.find(text)} for text in texts]
            qas.append({"question": question, "id": f"{prefix}_{index}_QUERY_{number}", "answers": answers})
        num_questions += len(qas)
        article_id = f"{prefix}_{index}"
        paragraphs = [{"id": article_id, "context": context, "qas": qas}]
        articles.append({"paragraphs": paragraphs, "id": article_id, "title": title})
    return [_document({"version": "v1.0", "data": articles})]


def _chid_rows(first_tag: int, size: int, rng: random.Random) -> Iterator[tuple[Record, dict[str, int]]]:
    tag_number = first_tag
    for index in range(size):
        blanks_of_passages = ((1,), (1, 1), (1,), (2,), (1,), (1, 2))[index % 6]
        # Of the groups asked for only the right idioms, so that the words around a blank tell its idiom; the rest is
        # filled from the other groups, and then with idioms that are never right.
        groups = rng.sample(list(IDIOMS.items()), sum(blanks_of_passages))
        fitting = [rng.choice(idioms.split()) for _, idioms in groups]
        unfit = [idiom for group in IDIOMS.items() if group not in groups for idiom in group[1].split()]
        candidates = fitting + rng.sample(unfit, min(len(unfit), 10 - len(fitting)))
        candidates += rng.sample(OTHER_IDIOMS, 10 - len(candidates))
        rng.shuffle(candidates)
        blanks = iter(groups)
        answers: dict[str, int] = {}
        content = []
        for num_in_passage in blanks_of_passages:
            sentences = []
            for _ in range(num_in_passage):
                cues, _ = next(blanks)
                tag = f"#idiom{tag_number:06d}#"
                tag_number += 1
                answers[tag] = candidates.index(fitting[len(answers)])
                words = {"when": rng.choice(WHEN), "who": rng.choice(PEOPLE)}
                cue = rng.choice(cues.split())
                sentences.append(rng.choice(CLOZES).format(cue=cue, blank=tag, **words))
            content.append(rng.choice(FILLERS).join(sentences) + _long(index, 9, 4, rng))
        content[-1] += _oddity(index)
        yield {"content": content, "candidates": candidates}, answers


def _chid_files(task: Task, split: str, size: int, rng: random.Random) -> list[str]:
    # Tags are unique over all splits, as in the real files.
    first_tag = 100000 * list(task.splits).index(split)
    records: list[Record] = []
    answers: dict[str, int] = {}
    for record, of_record in _chid_rows(first_tag, size, rng):
        records.append(record)
        answers |= of_record
    return [_lines(records), _document(answers)]


# Files ---------------------------------------------------------------------------------------------------------------


def _lines(records: list[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _document(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


_MAKERS: Mapping[str, Callable[[Task, str, int, random.Random], list[str]]] = {
    "classification": _classification_files,
    "multiple_choice": _c3_files,
    "span": _cmrc2018_files,
    "cloze": _chid_files,
}


def make_data(folder: Path, seed: int = 0, sizes: Mapping[str, Sizes] | None = None) -> None:
    """Write all files of the ten tasks to ``folder/<task's folder>/`` in the official formats; needs no Paddle.

    Args:
        seed: same seed, same bytes; every split of every task has a stream of its own.
        sizes: task name -> how many records, default ``DEFAULT_SIZES``.
    """
    for task in TASKS.values():
        target = folder / task.folder
        target.mkdir(parents=True, exist_ok=True)
        for split, facts in task.splits.items():
            size = (sizes or DEFAULT_SIZES)[task.name].of(split)
            texts = _MAKERS[task.kind](task, split, size, random.Random(f"{seed} {task.name} {split}"))
            names = facts.files[0] + ((facts.answers,) if facts.answers else ())
            for name, text in zip(names, texts, strict=False):  # the answers of a test set are not written
                (target / name).write_text(text, encoding="utf-8", newline="\n")
        if task.name in ("TNEWS", "IFLYTEK"):
            (target / "labels.json").write_text(_labels_file(task), encoding="utf-8", newline="\n")


def vocabulary() -> list[str]:
    """Word pieces in the order of ids: specials as ERNIE has them, ASCII, and the characters of GB2312."""
    specials = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"[unused{i}]" for i in range(1, 10))]
    ascii_marks = [chr(code) for code in range(0x21, 0x7F)]
    # Rows 1 to 3 hold punctuation, numbers in circles and full-width forms, rows 16 to 87 the 6,763 ideographs.
    gb2312 = [_gb2312(row, cell) for row in (1, 2, 3, *range(16, 88)) for cell in range(1, 95)]
    # Only what makes words of several characters continues one; ideographs stand alone.
    continuing = [char for char in ascii_marks + gb2312 if char.isalnum() and not "\u4e00" <= char <= "\u9fff"]
    pieces = specials + ascii_marks + gb2312 + [f"##{char}" for char in continuing]
    return [piece for piece in dict.fromkeys(pieces) if piece.strip()]


def _gb2312(row: int, cell: int) -> str:
    return bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312", errors="ignore")  # some cells are empty


def make_model(folder: Path, seed: int = 0) -> None:
    """Write an ERNIE encoder of 2 layers and width 128 with random weights, and its tokenizer, as a checkpoint folder.

    Seeds Paddle's generator.

    Raises:
        UserError: PaddlePaddle or PaddleNLP cannot be imported.
    """
    runtime.import_libraries()
    import paddle
    from paddlenlp.transformers import ErnieConfig, ErnieModel, ErnieTokenizer

    from clue_utils.models import save_model

    pieces = vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    vocab_file = folder / "vocab.txt"
    vocab_file.write_text("\n".join(pieces) + "\n", encoding="utf-8", newline="\n")
    config = ErnieConfig(
        vocab_size=len(pieces),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=512,
        type_vocab_size=4,
        pad_token_id=pieces.index("[PAD]"),
    )
    paddle.seed(seed)
    save_model(ErnieModel(config), ErnieTokenizer(str(vocab_file)), folder)


def make_demo(output: Path, seed: int = 0, records: int | None = None) -> bool:
    """Make ``output/data``, ``output/model`` and the manifest ``output/demo.json``; other files there are left alone.

    Both folders are made whole beside their places and then moved. A demo made with the same parameters whose files
    are all as they were is kept.

    Returns:
        Whether anything was made.

    Raises:
        UserError: ``output`` holds a folder ``data`` or ``model`` that this script did not make.
    """
    sizes = sizes_for(records)
    parameters = {
        "seed": seed,
        "records": {name: size._asdict() for name, size in sizes.items()},
        # A demo of an earlier version of this file is made anew.
        "made_by": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    manifest = output / MANIFEST
    earlier = _read_manifest(manifest)
    if earlier is None:
        for path in (output / part for part in PARTS):
            if path.exists():
                raise UserError(f"{path} was not made by this script: move it away or choose another --output")
    elif earlier == {"parameters": parameters, "files": _digests(output)}:
        return False
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=output) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        old.mkdir()
        make_data(new / "data", seed, sizes)
        make_model(new / "model", seed)
        text = json.dumps({"parameters": parameters, "files": _digests(new)}, indent=1) + "\n"
        (new / MANIFEST).write_text(text, encoding="utf-8")
        # The manifest first: its digests tell a demo that was cut off between two moves from a whole one.
        os.replace(new / MANIFEST, manifest)
        for part in PARTS:
            if (output / part).exists():
                os.rename(output / part, old / part)
            os.rename(new / part, output / part)
    return True


def _read_manifest(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{path} cannot be read as JSON: remove it, or choose another --output") from None


def _digests(output: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file of the demo."""
    files = sorted(path for part in PARTS for path in (output / part).rglob("*") if path.is_file())
    return {path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, epilog="example: python scripts/make_demo.py --output demo")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to make (default: %(default)s)")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--records",
        type=positive_int,
        help="training records of each task, with a quarter for dev and an eighth for each test set "
        "(default: 480 to 1040, as the task needs to be learnt)",
    )
    args = parser.parse_args(argv)
    if make_demo(args.output, args.seed, args.records):
        print(f"made {args.output / 'data'} ({len(TASKS)} tasks) and {args.output / 'model'}")
    else:
        print(f"{args.output} is complete: left as it is")


if __name__ == "__main__":
    runtime.run(main)
