"""What the report says in English and in Chinese: one catalogue, English text -> Chinese.

Numbers, names and what records themselves say (the reasons of failures) are the same in both.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

LANGUAGES = ("en", "zh")
# Names a language for all scripts that have more than one.
VARIABLE = "CLUE_LANG"
_current: ContextVar[str] = ContextVar("language", default="en")


def default_language() -> str:
    """The language of ``CLUE_LANG``, else of the locale: Chinese where that is, English elsewhere."""
    chosen = next(filter(None, map(os.environ.get, (VARIABLE, "LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if chosen.lower().startswith("zh") else "en"


def current() -> str:
    return _current.get()


@contextlib.contextmanager
def using(language: str) -> Iterator[None]:
    """Have :func:`say` speak one of ``LANGUAGES`` within the block."""
    token = _current.set(language)
    try:
        yield
    finally:
        _current.reset(token)


def say(text: str, **values: object) -> str:
    """A text of the report in the present language, ``{name}`` replaced by ``values``.

    Raises:
        KeyError: it has no Chinese.
    """
    chosen = CHINESE[text] if _current.get() == "zh" else text
    return chosen.format(**values) if values else chosen


CHINESE: Mapping[str, str] = {
    "finished": "已完成",
    "pruned": "提前终止",
    "running": "运行中",
    "killed": "意外中断",
    "stopped": "手动停止",
    "failed": "失败",
    "missing": "未运行",
    "model": "模型",
    "task": "任务",
    "score": "得分",
    "95 % interval": "95% 置信区间",
    "dev records": "验证集样本数",
    "mean ± SD (seeds)": "均值 ± 标准差（种子数）",
    "published": "公开得分",
    "difference": "差值",
    "time (h:m:s)": "用时（时:分:秒）",
    "GPU-hours": "GPU 小时",
    "size": "规模",
    "weights": "权重大小",
    "precision": "精度",
    "card": "显卡",
    "PaddlePaddle": "PaddlePaddle",
    "PaddleNLP": "PaddleNLP",
    "commit": "提交",
    "date": "日期",
    "accuracy": "准确率",
    "Development scores in percent: the best trial of each task": "验证集得分（百分制）：各任务的最优实验",
    "Development scores in percent: the mean over seeds of the best setting of each task": (
        "验证集得分（百分制）：各任务最优配置在多个随机种子上的均值"
    ),
    "Best learning rate, batch size and, where it was searched, dropout": (
        "最优学习率、batch size（搜索了 dropout 的任务一并列出 dropout）"
    ),
    (
        "Row minus column in points: mean difference [95 % interval], tasks on which the row is better : "
        "worse beyond chance. *: the interval leaves out 0."
    ): (
        "行模型减列模型（百分点）：平均差值 [95% 置信区间]，行模型显著更好的任务数 : 显著更差的任务数。*：置"
        "信区间不含 0。"
    ),
    "Uncertainty": "不确定性",
    "Trials and cost": "实验与开销",
    "Models and machines": "模型与运行环境",
    "all tasks": "全部任务",
    "by the published rules": "按公开口径",
    "published: {title}": "公开得分：{title}",
    "difference of the two rows above": "以上两行之差",
    "{task}, published rule": "{task}，公开口径",
    " ({count} of {all})": "（{count}/{all} 个任务）",
    (
        "Each score is the mean over seeds of the setting whose mean is the highest, on the development set "
        "it was chosen on. Only settings that finished with the most seeds compete. --choose best takes the "
        "single best trial, as published scores do."
    ): (
        "每个得分是最优配置在多个随机种子上的均值：在验证集上取均值最高的配置，且只比较完成种子数最多的那些配"
        "置。--choose best 改为取单次最优实验，与公开得分的做法一致。"
    ),
    (
        "Each score is that of the best finished trial on the development set it was chosen on, as published "
        "scores are: a little optimistic, the more so the more seeds there are. --choose mean takes the "
        "setting whose mean over seeds is the highest."
    ): (
        "每个得分取自验证集上最优的已完成实验，与公开得分的做法一致；由于在同一验证集上选优，得分略偏乐观，种"
        "子越多越明显。--choose mean 改为取多种子均值最高的配置。"
    ),
    (
        "Between equal scores the first in the grid's order wins: the lower learning rate, then the smaller "
        "batch, then the higher dropout; trials outside the published grid come after it."
    ): (
        "得分相同时按网格顺序取靠前者：先比学习率（较低者优先），再比 batch size（较小者优先），最后比 "
        "dropout（较高者优先）；公开网格之外的实验排在其后。"
    ),
    (
        "Intervals are Wilson's, two-sided 95 %: what the size of the development set implies for one score. "
        "Two models that read the same records differ more surely than their intervals suggest: compare them "
        "record by record. CHID counts records where its score counts blanks, so its interval is on the wide "
        "side."
    ): (
        "区间为双侧 95% Wilson 置信区间，反映验证集样本数给单个得分带来的不确定性。两个模型在同一批样本上评测"
        "时，其差异往往比区间重叠所显示的更可靠，应逐样本配对比较。CHID 按空计分而这里按样本计数，因此区间偏"
        "宽。"
    ),
    (
        "CMRC2018 was very likely published with PaddleNLP's looser metric, which deletes Latin punctuation "
        "and compares no more than the first piece for F1; own scores are the official EM/F1. C3 was "
        "published with fillers, which stand in for choices that a question lacks, counted as choices; own "
        "scores leave them out. The published rules have a row of their own, and it alone is compared with "
        "published numbers."
    ): (
        "CMRC2018 的公开得分很可能采用 PaddleNLP 较宽松的口径（去掉英文标点，计算 F1 时只比较第一个片段）；本"
        "项目的得分采用官方 EM/F1。C3 的公开得分把用于补齐选项的占位项也算作选项，本项目的得分不计占位项。按"
        "公开口径计算的得分单列一行，只有这一行与公开得分比较。"
    ),
    (
        "{model}: development sets that are not the release's are not compared with published scores "
        "(records there for the release's: {counts})."
    ): ("{model}：验证集与官方发布版本不一致的任务不与公开得分比较（现有样本数与官方样本数：{counts}）。"),
    "{task} {count} for {released}": "{task} {count}/{released}",
    "the folder mixes trials of {count} models: {models}": "该目录混有 {count} 个模型的实验：{models}",
    "{task}: its trials differ in {what} ({values}); their scores do not compare": (
        "{task}：各实验的 {what} 不一致（{values}），得分不可比"
    ),
    "development data": "验证集数据",
    "{names} are in {folder}": "{names} 已写入 {folder}",
    "CLUE results": "CLUE 评测结果",
    "Development sets of the ten CLUE tasks; what won on each, and how sure that is.": (
        "CLUE 十个任务的验证集结果：各任务的最优配置及其可信程度。"
    ),
    "Contents": "目录",
    "Scores": "得分",
    "Models against each other": "模型两两比较",
    "Score against cost": "得分与开销",
    "Wide tables scroll sideways →": "表格较宽时可左右滑动 →",
    "Underlined: the best of the models.": "下划线：各模型中的最高分。",
    "best of the models": "各模型中的最高分",
    "mean score in percent over GPU-hours of the winners": "平均得分（百分制）与最优实验的 GPU 小时",
    "mean score, %": "平均得分（%）",
    "GPU-hours of the winners' trainings": "最优实验的训练开销（GPU 小时）",
    " (logarithmic)": "，对数坐标",
    (
        "Over the {count} tasks that all models have finished; GPU-hours are those of one training of each "
        "winner, on the cards that it ran on."
    ): ("基于所有模型均已完成的 {count} 个任务；GPU 小时为各任务最优实验训练一次的开销，以实际使用的显卡计。"),
    "mean of {count} of {all} tasks": "{count}/{all} 个任务的平均分",
    "of {count} runs finished": "个实验已完成（共 {count} 个）",
    "{count} of {all} runs finished, {time}": "已完成 {count}/{all} 个实验，用时 {time}",
    "Runs by task": "各任务的实验",
    (
        "Heat maps: score by learning rate (down) and batch size over all GPUs (across), darker or, on a "
        "dark page, brighter for higher. Framed: the winner. ≈: within noise, inside the winner's 95 % "
        "interval. ↓: far below the others, outside the colour scale."
    ): (
        "热力图：纵向为学习率，横向为各卡总 batch size，颜色越深（深色模式下越亮）得分越高。带框：最优配置。≈"
        "：位于最优配置的 95% 置信区间内，差异在噪声范围内。↓：远低于其他实验，不参与配色。"
    ),
    "heat map": "热力图",
    "{metric} by learning rate and batch size": "{metric}（学习率 × batch size）",
    "learning rate": "学习率",
    "far below": "远低于其他实验",
    "winner": "最优配置",
    "within noise of the winner": "与最优配置的差异在噪声范围内",
    "{task}: development {metric} over {axis}, {count} curves": (
        "{task}：验证集{metric}随{axis}的变化，共 {count} 条曲线"
    ),
    "epochs": "训练轮数（epoch）",
    "updates": "更新步数",
    "won": "最优",
    ", mean of {count} seeds": "，{count} 个种子的均值",
    "mean of {count} seeds": "{count} 个种子的均值",
    "seed {seed}": "种子 {seed}",
    "No trial has finished": "尚无已完成的实验",
    "lowest to highest seed": "各种子的最低至最高值",
    "other settings": "其他配置",
    "did not run to the end": "未运行至结束",
    "Cut off below.": "低于坐标范围的部分未画出。",
    "To look into": "需要关注",
    "warnings": "警告",
    "Made {now} from the result.json of every run.": "由各实验的 result.json 生成，{now}。",
    "{model}: weights are kept of {kept}; those of {gone} more finished trials are not there.": (
        "{model}：保留了 {kept} 的权重；另有 {gone} 个已完成的实验没有权重。"
    ),
    "Published scores matched": "与公开得分是否一致",
    "verdict": "结论",
    "setting": "配置",
    "95 % noise": "95% 噪声区间",
    "seeds": "种子数",
    "within noise": "在噪声范围内",
    "above": "高于公开得分",
    "below": "低于公开得分",
    "{count} without a verdict": "{count} 个无法判断",
    "{count} {verdict}": "{count} 个{verdict}",
    " ({names})": "（{names}）",
    ", ": "，",
    "none: {reason}": "无法判断：{reason}",
    "unknown": "未知",
    "{there} development examples, the release has {official}": "验证集样本数为 {there}，官方发布版本为 {official}",
    "trained on a part of the training set (--max_train_samples)": "只用了部分训练集（--max_train_samples）",
    "the runs of its seeds have different development data": "各种子所用的验证集不同",
    "a run of it has no score by the published rule: evaluate it again": "有实验缺少按公开口径的得分，请重新评测",
    "of 1 task": "1 个任务",
    "of {count} tasks": "{count} 个任务",
    "{model} beside {title} as published: {number} {parts}.": "{model} 与公开的 {title} 相比：{number}中，{parts}。",
    (
        "Published scores matched: a published score is within noise if it lies in the interval of ours; "
        "else ours is above or below. The interval is Wilson's of the development examples (95 %). With k "
        "seeds the score is their mean, and each side of the interval, of length w, becomes sqrt(w² + e²), "
        "where e = t · SD · sqrt(1 + 1/k) is how far one more run may lie from the mean of k by Student's t: "
        "two seeds say little of their spread (e is 15.6 SD), three more (5.0 SD). For AVG the sides of the "
        "ten tasks are added in squares and divided by ten. Published scores are of one run each, the best "
        "of a grid on this development set, and so a little optimistic; their own noise is not known and not "
        "counted."
    ): (
        "与公开得分是否一致：公开得分落在本次得分的区间内即为在噪声范围内，否则本次得分高于或低于公开得分。区"
        "间为按验证集样本数计算的 95% Wilson 区间。有 k 个种子时得分取其均值，区间每侧的宽度 w 变为 sqrt(w² "
        "+ e²)，其中 e = t · SD · sqrt(1 + 1/k)，即按 Student t 分布估计的再训练一次的结果与 k 次均值的最大偏"
        "离：两个种子几乎无法反映离散程度（e 为 15.6 SD），三个种子稍好（5.0 SD）。AVG 的区间由十个任务的单侧"
        "宽度平方和开方后除以十得到。公开得分各来自一次训练，且是在同一验证集上网格搜索的最优值，因此略偏乐观"
        "；其自身的噪声未知，未计入。"
    ),
    (
        "{model}: trained on a part of the training set (--max_train_samples), not compared with published scores: "
        "{tasks}."
    ): "{model}：以下任务只用了部分训练集（--max_train_samples），不与公开得分比较：{tasks}。",
}
