"""What a task takes, for people: the form of an input, and one to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clue_utils.strict_json import JsonObject
from clue_utils.tasks import Task

_CLOZE = {
    "content": ["他做事一向#idiom000001#，从不拖延；遇到困难也能#idiom000002#。"],
    "candidates": "雷厉风行 迎刃而解 画蛇添足 守株待兔 亡羊补牢 半途而废 掩耳盗铃 井底之蛙 叶公好龙 刻舟求剑".split(),
}
_SPAN = {
    "context": "长江是中国第一长河，发源于青藏高原的唐古拉山脉，全长约6300公里，在上海市注入东海。",
    "question": "长江发源于哪里？",
}
_CHOICE = {
    "context": ["女：你怎么现在才来？电影都开始了。", "男：路上堵车，我已经很着急了。"],
    "question": "男的为什么来晚了？",
    "choice": ["路上堵车", "起床晚了", "忘了时间", "买票去了"],
}
_BY_KIND: dict[str, JsonObject] = {"cloze": _CLOZE, "span": _SPAN, "multiple_choice": _CHOICE}
# Of classification tasks, by the names of their fields.
_BY_FIELDS: tuple[JsonObject, ...] = (
    {"sentence": "国产新能源汽车上半年出口同比增长一倍"},
    {"sentence1": "花呗可以提前还款吗", "sentence2": "花呗怎么提前把钱还上"},
    {
        "text": "妈妈把书递给女儿，因为她要写作业。",
        "target": {"span1_text": "女儿", "span1_index": 6, "span2_text": "她", "span2_index": 11},
    },
    {"abst": "为提高中文文本分类的准确率，提出一种基于预训练模型的方法。", "keyword": ["文本分类", "预训练模型"]},
)


def form(fields: Mapping[str, Any]) -> JsonObject:
    """``Task.fields`` in JSON: "string", "integer", ["string"], or an object of these."""
    return {name: _form(kind) for name, kind in fields.items()}


def _form(kind: Any) -> Any:
    if isinstance(kind, Mapping):
        return form(kind)
    if isinstance(kind, list):
        return [_form(kind[0])]
    return "integer" if kind is int else "string"


def example(task: Task) -> JsonObject:
    """An input of the task's form."""
    if task.kind in _BY_KIND:
        return _BY_KIND[task.kind]
    return next((one for one in _BY_FIELDS if set(one) == set(task.fields)), dict.fromkeys(task.fields, "文本"))
